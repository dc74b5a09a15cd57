from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.flows.delivery import ReplyRule
from counterfoil.flows.replies import Judged, SaidError, at, classifier, error_of
from counterfoil.model.delivery import Outcome

O = Outcome  # noqa: E741
JSON = "application/json"


def judged(
    status: int,
    body: Any = b"",
    *rules: ReplyRule,
    receipt: str | None = "data.id",
    kind: str = JSON,
    expects_json: bool = True,
) -> Judged:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classifier(rules, receipt=receipt, expects_json=expects_json)(status, kind, raw)


# --- shapes of errors ---------------------------------------------------------------------------------------------

GATEWAY = {"id": "a1", "code": "OPGDATA-API-INVALIDREQUEST", "title": "Invalid Request", "detail": "Invalid JSON", "meta": {}}  # fmt: skip
LIGHTHOUSE = {"detail": "Upload Request Async Status Not Found", "status": 404, "title": "Not Found", "diagnostics": "zz"}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"errors": GATEWAY}, SaidError("errors", "OPGDATA-API-INVALIDREQUEST", "Invalid JSON")),
        ({"errors": [GATEWAY]}, SaidError("errors", "OPGDATA-API-INVALIDREQUEST", "Invalid JSON")),
        ({"errors": [LIGHTHOUSE]}, SaidError("errors", None, "Upload Request Async Status Not Found")),
        ({"errors": [{"code": "111", "title": "Too many items submitted"}]}, SaidError("errors", "111", "Too many items submitted")),
        ({"errors": [{"code": 111}]}, SaidError("errors", "111", '{"code":111}')),
        ({"errors": ["one", "two"]}, SaidError("errors", None, "one")),
        ({"errors": {"name": ["is too short"]}}, SaidError("errors", None, '{"name":["is too short"]}')),
        ({"errors": [1, 2]}, SaidError("errors", None, "[1,2]")),
        ({"isBase64Encoded": False, "statusCode": 405, "headers": {}, "error": {"code": "OPGDATA-API-NOT-ALLOWED", "title": "T", "detail": "D"}},
         SaidError("error", "OPGDATA-API-NOT-ALLOWED", "D")),
        ({"error": {"code": "X", "message": "the older one"}}, SaidError("error", "X", "the older one")),
        ({"error": {"code": "X", "detail": {"file -> source": {"isEmpty": 1}}}}, SaidError("error", "X", '{"file -> source":{"isEmpty":1}}')),
        ({"error": {"code": "X", "detail": "", "title": "Only a title"}}, SaidError("error", "X", "Only a title")),
        ({"type": "https://x/y", "title": "Bad", "status": 400, "detail": "Payload failed", "validation_errors": {"file": {"source": "empty"}}},
         SaidError("problem", None, 'Payload failed {"file":{"source":"empty"}}')),
        ({"title": "Not Found", "detail": None}, SaidError("problem", None, "Not Found")),
        ({"message": "API rate limit exceeded"}, SaidError("message", None, "API rate limit exceeded")),
        ({"Message": "User is not authorized"}, SaidError("message", None, "User is not authorized")),
        ({"status": 500, "error": "Failed to verify payload."}, SaidError("status_error", None, "Failed to verify payload.")),
        ({"error": "invalid_client", "error_description": "Wrong assertion"}, SaidError("status_error", "invalid_client", "Wrong assertion")),
        ({"errors": [], "message": "the list is empty"}, SaidError("message", None, "the list is empty")),
        ({"errors": None, "error": None}, SaidError("json")),
        ({"data": {"id": 1}}, SaidError("json")),
        ([1, 2], SaidError("json")),
        ("just a text", SaidError("json")),
        (None, SaidError("json")),
        (b"", SaidError("empty")),
        (b" \r\n ", SaidError("empty")),
        (b"The server took\ntoo long", SaidError("text", None, "The server took too long")),
        (b"{broken", SaidError("text", None, "{broken")),
        (b"\x00\x01\x02\xff\xfe", SaidError("unreadable")),
        (b"\xef\xbb\xbf" + json.dumps({"message": "with a mark"}).encode(), SaidError("message", None, "with a mark")),
        (b"[" * 200_000, SaidError("text", None, "[" * 2000)),
    ],
)  # fmt: skip
def test_the_error_in_a_body(body: Any, said: SaidError) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert error_of(JSON, raw) == said


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/html; charset=utf-8", b"<html><head><title>502 Bad Gateway</title></head></html>", "502 Bad Gateway"),
        ("", b"  <!doctype html><TITLE lang=en>\n Sign  in &amp; go </TITLE>", "Sign in & go"),
        ("text/html", b"gone", None),
        (JSON, b"<html><body>no title</body></html>", None),
    ],
)
def test_html_is_told_by_its_title(kind: str, body: bytes, text: str | None) -> None:
    assert error_of(kind, body) == SaidError("html", None, text)


def test_huge_and_hostile_bodies_take_little_time() -> None:
    bodies = [
        b"<title " * 5_000_000,
        b"<title>" + b"x" * 20_000_000,
        b"{" * 20_000_000,
        b'{"a":' * 1_000_000,
        b" " * 20_000_000 + b"x",
    ]
    bodies += [json.dumps({"errors": [{"detail": "word " * 1_000_000}]}).encode(), b'{"message": "' + b"y" * 17_000_000 + b'"}']  # fmt: skip
    began = time.perf_counter()
    for body in bodies:
        said = error_of(JSON, body)
        assert len(said.text or "") <= 2000
        assert classifier([], receipt="id")(201, JSON, body).outcome is Outcome.UNKNOWN
    assert time.perf_counter() - began < 10


def test_a_code_is_fit_for_a_sentence() -> None:
    assert error_of(JSON, b'{"error": {"code": "A\\u0000B\\n\\u202eC"}}').code == "ABC"
    assert error_of(JSON, json.dumps({"error": {"code": "x" * 5000}}).encode()).code == "x" * 100
    assert error_of(JSON, b'{"error": {"code": ' + b"9" * 5000 + b"}}").code is None
    for code in (True, None, 1.5, [], "", " "):
        assert error_of(JSON, json.dumps({"error": {"code": code}}).encode()).code is None


# --- defaults -----------------------------------------------------------------------------------------------------

DONE = {"data": {"id": "r-1"}}


@pytest.mark.parametrize(
    ("status", "outcome", "fault"),
    [
        (100, O.REFUSED, "redirected"),
        (302, O.REFUSED, "redirected"),
        (304, O.REFUSED, "redirected"),
        (400, O.REFUSED, "http_400"),
        (401, O.TEMPORARY, "unauthorised"),
        (403, O.REFUSED, "forbidden"),
        (404, O.REFUSED, "http_404"),
        (408, O.TEMPORARY, "http_408"),
        (409, O.REFUSED, "http_409"),
        (413, O.REFUSED, "http_413"),
        (415, O.REFUSED, "http_415"),
        (422, O.REFUSED, "http_422"),
        (425, O.TEMPORARY, "http_425"),
        (429, O.THROTTLED, "throttled"),
        (451, O.REFUSED, "http_451"),
        (500, O.TEMPORARY, "http_500"),
        (501, O.UNKNOWN, "http_501"),
        (502, O.UNKNOWN, "http_502"),
        (503, O.TEMPORARY, "http_503"),
        (504, O.UNKNOWN, "http_504"),
        (599, O.UNKNOWN, "http_599"),
        (600, O.UNKNOWN, "http_600"),
        (999, O.UNKNOWN, "http_999"),
    ],
)
def test_a_status_without_a_rule(status: int, outcome: Outcome, fault: str) -> None:
    for receipt in ("data.id", None):
        found = judged(status, {"message": "said"}, receipt=receipt)
        assert (found.outcome, found.fault, found.receipt, found.code) == (outcome, fault, None, None)
        assert found.said == ("said" if status >= 400 else "It answered with a redirect, which is not followed.")


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (400, "OPGDATA-API-INVALIDREQUEST", "opgdata_api_invalidrequest"),
        (403, "OPGDATA-API-FORBIDDEN", "opgdata_api_forbidden"),
        (401, "OPGDATA-API-UNAUTHORISED", "unauthorised"),
        (429, "OPGDATA-API-THROTTLED", "opgdata_api_throttled"),
        (302, "X", "redirected"),
        (500, "  Ünd so -- weiter! ", "nd_so_weiter"),
        (500, "???", "http_500"),
        (500, "x" * 59 + "-" + "y" * 100, "x" * 59),
    ],
)
def test_the_code_of_the_other_side_is_the_fault(status: int, code: str, fault: str) -> None:
    found = judged(status, {"error": {"code": code, "detail": "why"}})
    assert found.fault == fault
    assert found.code == code.strip()[:100]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_success_needs_the_receipt_it_should_have(status: int) -> None:
    assert judged(status, DONE) == Judged(O.DONE, "r-1")
    assert judged(status, {"data": {}}) == Judged(O.UNKNOWN, fault="no_receipt", said="The reply holds no receipt.")
    assert judged(status, b"") == Judged(O.UNKNOWN, fault="no_receipt", said="The reply holds no receipt.")
    assert judged(status, b"OK").fault == "not_json"
    assert judged(status, b"<html>", kind="text/html").fault == "html"
    assert judged(status, b"\xff\xfe").outcome is O.UNKNOWN


@pytest.mark.parametrize("status", [200, 204])
def test_a_success_that_needs_no_receipt(status: int) -> None:
    for body in (DONE, {}, b"", None, [], b" "):
        assert judged(status, body, receipt=None) == Judged(O.DONE)
    for body, kind, fault in ((b"OK", JSON, "not_json"), (b"<p>Sign in", JSON, "html"), (b"Sign in", "text/html", "html")):  # fmt: skip
        found = judged(status, body, receipt=None, kind=kind)
        assert (found.outcome, found.fault) == (O.UNKNOWN, fault)
        assert judged(status, body, receipt=None, kind=kind, expects_json=False) == Judged(O.DONE)


@pytest.mark.parametrize(
    ("value", "receipt"),
    [
        ("abc", "abc"),
        (12345678, "12345678"),
        (2**63, str(2**63)),
        (1.5, "1.5"),
        (0, "0"),
        ("", None),
        ("  ", None),
        (None, None),
        (True, None),
        ({}, None),
        ("a\x00b", None),
        ("a\nb", None),
        ("x" * 512, "x" * 512),
        ("x" * 513, None),
    ],
)
def test_receipts(value: Any, receipt: str | None) -> None:
    found = judged(201, {"data": {"id": value}})
    assert (found.receipt, found.outcome) == (receipt, O.UNKNOWN if receipt is None else O.DONE)


def test_a_receipt_of_thousands_of_digits_is_none() -> None:
    assert judged(201, b'{"data": {"id": ' + b"9" * 5000 + b"}}").outcome is O.UNKNOWN


# --- rules --------------------------------------------------------------------------------------------------------


def rule(outcome: Outcome, *statuses: int, **given: Any) -> ReplyRule:
    return ReplyRule(outcome, tuple(range(status, status + 1) for status in statuses), **given)


EXISTS = {"errors": {"code": "OPGDATA-API-INVALIDREQUEST", "detail": "It Already Exists", "meta": {"id": 77}}}


def test_a_duplicate_gives_the_first_receipt_from_its_own_place() -> None:
    duplicate = rule(
        O.DUPLICATE, 400, code="OPGDATA-API-INVALIDREQUEST", says="already exists", receipt="errors.meta.id"
    )
    found = judged(400, EXISTS, duplicate)
    assert (found.outcome, found.receipt, found.fault) == (O.DUPLICATE, "77", None)
    assert (found.code, found.said) == ("OPGDATA-API-INVALIDREQUEST", "It Already Exists")
    assert judged(400, {"errors": GATEWAY}, duplicate).outcome is O.REFUSED
    assert judged(409, EXISTS, duplicate).outcome is O.REFUSED
    assert judged(409, {"data": {"id": 5}}, rule(O.DUPLICATE, 409)).receipt == "5"
    assert judged(409, {}, rule(O.DUPLICATE, 409)) == Judged(O.DUPLICATE)


def test_the_first_rule_that_fits_decides() -> None:
    rules = (
        rule(O.TEMPORARY, 403, body={"error.code": "X"}, fault="passing", after=timedelta(minutes=5)),
        rule(O.THROTTLED, 403),
        rule(O.UNKNOWN),
    )
    first = judged(403, {"error": {"code": "X", "detail": "d"}}, *rules)
    assert first == Judged(O.TEMPORARY, None, "passing", "X", "d", timedelta(minutes=5))
    assert judged(403, {"error": {"code": "Y"}}, *rules) == Judged(O.THROTTLED, None, "y", "Y")
    assert judged(201, DONE, *rules) == Judged(O.UNKNOWN, None, "http_201")


@pytest.mark.parametrize(
    ("given", "body", "fits"),
    [
        ({"code": "DOC105"}, {"error": {"code": "doc105"}}, True),
        ({"code": "DOC105"}, {"error": {"code": "DOC1050"}}, False),
        ({"code": "DOC1*"}, {"error": {"code": "DOC105"}}, True),
        ({"code": "DOC1*"}, {"error": {"code": "DOC201"}}, False),
        ({"code": "*"}, {"error": {"code": "any"}}, True),
        ({"code": "*"}, {"error": {}}, False),
        ({"says": "REFERENCED by court"}, {"message": "Client referenced by Court reference"}, True),
        ({"says": "duplicate"}, {"message": "other"}, False),
        ({"says": "gateway"}, b"<html>Bad Gateway", True),
        ({"body": {"a.b": "x"}}, {"a": {"b": "x"}}, True),
        ({"body": {"a.b": "x"}}, {"a": {"b": ["x"]}}, False),
        ({"body": {"a.b": 1}}, {"a": {"b": True}}, False),
        ({"body": {"a.b": True}}, {"a": {"b": True}}, True),
        ({"body": {"a.b": True}}, {"a": {"b": 1}}, False),
        ({"body": {"a.b": None}}, {"a": {}}, True),
        ({"body": {"a": 1, "b": 2}}, {"a": 1, "b": 3}, False),
        ({"body": {"errors.code": "X"}}, {"errors": [{"code": "X"}]}, True),
        ({"body": {"errors.1.code": "X"}}, {"errors": [{}, {"code": "X"}]}, True),
        ({"body": {"errors.1.code": "X"}}, {"errors": [{"code": "X"}]}, False),
        ({"body": {"a": 1}}, b"no json", False),
        ({"code": "X", "says": "y"}, {"error": {"code": "X", "detail": "z"}}, False),
    ],
)
def test_all_that_a_rule_gives_must_fit(given: dict[str, Any], body: Any, fits: bool) -> None:
    assert (judged(400, body, ReplyRule(O.THROTTLED, **given)).outcome is O.THROTTLED) is fits


def test_statuses_of_a_rule_are_ranges() -> None:
    ranges = ReplyRule(O.TEMPORARY, (range(404, 405), range(500, 600)))
    assert [judged(status, b"", ranges).outcome for status in (404, 405, 502, 599)] == [
        O.TEMPORARY,
        O.REFUSED,
        O.TEMPORARY,
        O.TEMPORARY,
    ]


def test_a_rule_for_done_still_needs_the_receipt() -> None:
    done = rule(O.DONE, 409, receipt="existing.id")
    assert judged(409, {"existing": {"id": "r"}}, done) == Judged(O.DONE, "r")
    assert judged(409, {}, done).fault == "no_receipt"
    assert judged(409, {}, done, receipt=None).fault == "no_receipt"
    assert judged(409, {}, rule(O.DONE, 409), receipt=None) == Judged(O.DONE)
    assert judged(409, b"<html>", rule(O.DONE, 409)).fault == "html"


def test_a_place_in_lists() -> None:
    document = {"a": [{"b": [10, 20]}, {"b": 3}]}
    assert at(document, ["a", "b"]) == [10, 20]
    assert at(document, ["a", "0", "b", "1"]) == 20
    assert at(document, ["a", "1", "b"]) == 3
    assert at(document, ["a", "9", "b"]) is None
    assert at({"a": []}, ["a", "b"]) is None
    assert at(None, ["a"]) is None


@given(st.integers(0, 1000), st.sampled_from(["", JSON, "text/html", "\x00"]), st.binary(max_size=60))
def test_any_reply_means_something(status: int, kind: str, body: bytes) -> None:
    for receipt in ("a.b", None):
        found = classifier([ReplyRule(O.DUPLICATE, code="a*", body={"a": 1})], receipt=receipt)(status, kind, body)
        assert isinstance(found.outcome, Outcome)
        assert found.outcome is not O.DONE or 200 <= status < 300


_WORDS = st.sampled_from(["errors", "error", "code", "title", "detail", "message", "data", "id", "validation_errors"])
_BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.integers(100, 599), _BODIES)
def test_any_json_means_something(status: int, body: Any) -> None:
    found = judged(status, body)
    assert (found.outcome is O.DONE) is (found.receipt is not None)
    assert found.outcome is O.DONE or found.fault
