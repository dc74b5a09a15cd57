"""What is kept of bodies, headers and error texts: a planted secret never is, a file is its hash, and nothing hostile breaks it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.connectors.redact import Redactor, file_note, headers, redactor, sentence
from counterfoil.flows.delivery import Evidence
from counterfoil.flows.paths import join_path
from counterfoil.model.errors import Misconfigured

JSON = "application/json"
SECRET = "Xq7-planted-Zw9"
plain = redactor(Evidence())


def kept(value: Any, *paths: str, most: int = 4096) -> Any:
    """What is kept of a JSON body, read again."""
    return json.loads(redactor(Evidence(redact=paths, most=most))(json.dumps(value).encode(), JSON))


# --- declared paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "gone"),
    [
        (["report.data.name"], ["name"]),
        (["report.data.*"], ["name", "note", "list"]),
        (["report.*.name"], ["name"]),
        (["REPORT.data.Name"], ["name"]),
        (['["report", "data", "name"]'], ["name"]),
        (["report.data.name", "report.data.note"], ["name", "note"]),
        (["report.data.other", "data.name", "name"], []),
    ],
)
def test_declared_paths_are_gone(paths: list[str], gone: list[str]) -> None:
    body = {"report": {"data": {"name": "Ana", "note": "x", "list": [1, 2]}}}
    data = kept(body, *paths)["report"]["data"]
    assert [name for name, value in data.items() if str(value).startswith("[redacted, ")] == gone


@pytest.mark.parametrize("path", ["errors.*.detail", "errors.detail", "errors.0.detail", "*.*.detail"])
def test_lists_are_gone_into(path: str) -> None:
    assert kept({"errors": [{"detail": "Ana", "status": 400}, {"detail": "Bo"}]}, path) == {
        "errors": [{"detail": "[redacted, 3 characters]", "status": 400}, {"detail": "[redacted, 2 characters]"}]
    }


def test_whole_branches_and_entries_may_be_gone() -> None:
    assert kept({"a": {"b": [1, 2]}, "c": ["Ana", {"d": 1}]}, "a", "c.*") == {
        "a": "[redacted, 13 characters]",
        "c": ["[redacted, 3 characters]", "[redacted, 8 characters]"],
    }


def test_nothing_stays_nothing() -> None:
    assert kept({"a": None, "password": None, "b": ""}, "a", "b") == {
        "a": None,
        "password": None,
        "b": "[redacted, 0 characters]",
    }


def test_a_path_that_is_none_is_misconfigured() -> None:
    with pytest.raises(Misconfigured, match=r"evidence\.redact"):
        redactor(Evidence(redact=("a..b",)))


# --- names --------------------------------------------------------------------------------------------------------

SENSITIVE = [
    "password", "userPassword", "client_secret", "access_token", "validationToken", "Authorization", "client_assertion", "Set-Cookie",
    "X-Api-Key", "apiKey", "ssn", "fileNumber", "file_number", "participantId", "birthDate", "dateOfBirth", "submitter_email", "e-mail",
    "DOB", "pin", "private-key", "AWSAccessKeyId", "X-Amz-Signature", "session-data",
]  # fmt: skip


@pytest.mark.parametrize("name", SENSITIVE)
def test_sensitive_names_are_always_gone(name: str) -> None:
    for body in ({name: SECRET}, {"a": [{name: {"deep": SECRET}}]}, [[{name: [SECRET]}]]):
        assert SECRET not in plain(json.dumps(body).encode(), JSON)
    assert SECRET not in plain(urlencode({name: SECRET, "b": "kept"}).encode(), "application/x-www-form-urlencoded")
    assert SECRET not in plain(f"<x><{name}>{SECRET}</{name}></x>".encode(), "application/xml")
    assert SECRET not in plain(f"failed: {name}={SECRET} {name}: {SECRET}".encode(), "text/plain")


@pytest.mark.parametrize(
    "name", ["title", "detail", "requestId", "claimId", "status", "author", "pinned", "author_id", "docType"]
)
def test_other_names_stay(name: str) -> None:
    assert kept({name: "value"}) == {name: "value"}


# --- the property -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "data", "list", "x.y", "Name", "ü"])
LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=10)
TREES = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=10
)


@st.composite
def planted(draw: st.DrawFn) -> tuple[Any, str]:
    """A document with the secret somewhere in it, and a path that leads there."""
    value: Any = draw(
        st.sampled_from([SECRET, [SECRET], {"z": SECRET}, f"before {SECRET} after", json.dumps({"q": SECRET})])
    )
    names: list[str] = []
    for step in draw(st.lists(st.one_of(NAMES, st.integers(0, 2)), min_size=1, max_size=5)):
        if isinstance(step, int):
            value = [*draw(st.lists(TREES, max_size=2)), value]
            if names:
                names.insert(0, draw(st.sampled_from(["*", "0"])))
        else:
            value = {**draw(st.dictionaries(NAMES, TREES, max_size=2)), step: value}
            names.insert(0, draw(st.sampled_from([step, "*", step.upper() if step.isascii() else step])))
        if draw(st.integers(0, 9)) == 0:
            value = json.dumps(value)  # a document inside a text
    return value, join_path(names or ["*"])


@given(planted(), st.integers(20, 4096))
def test_a_secret_under_a_declared_path_is_never_kept(made: tuple[Any, str], most: int) -> None:
    value, path = made
    redact = redactor(Evidence(redact=(path, f"part.{path}") if not path.startswith("[") else (path,), most=most))
    document = value if isinstance(value, dict | list) else {path: value}
    if isinstance(value, str):
        return  # the outermost step became a text: there is no name above it
    raw = json.dumps(document).encode()
    for kind in (JSON, "application/problem+json; charset=utf-8", "text/plain", "", "text/html"):
        assert SECRET not in redact(raw, kind)
    assert SECRET not in redact.value(document)


@given(TREES, st.sampled_from(SENSITIVE), st.integers(20, 4096), st.booleans())
def test_a_secret_under_a_sensitive_name_is_never_kept(tree: Any, name: str, most: int, inside: bool) -> None:
    redact = redactor(Evidence(most=most))
    document = {"a": [tree, {name: SECRET, "b": tree}], "text": json.dumps({name: [SECRET]})}
    raw = (json.dumps(json.dumps(document)) if inside else json.dumps(document)).encode()
    assert SECRET not in redact(raw, JSON)
    form = (
        b'--x\r\nContent-Disposition: form-data; name="p"; filename="p.json"\r\nContent-Type: application/json\r\n\r\n'
        + raw
        + f'\r\n--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{SECRET}\r\n'.encode()
        + f'--x\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n\r\n{SECRET}\r\n--x--'.encode()
    )
    assert SECRET not in redact(form, "multipart/form-data; boundary=x")
    assert SECRET not in redact(
        urlencode({"q": raw.decode(), name: SECRET}).encode(), "application/x-www-form-urlencoded"
    )


# --- files --------------------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 20
NOTE = f"[file, 5,120 bytes, sha256 {hashlib.sha256(CONTENT).hexdigest()}]"


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(CONTENT).decode(),
        base64.urlsafe_b64encode(CONTENT).decode(),
        base64.urlsafe_b64encode(CONTENT).decode().rstrip("="),
        base64.encodebytes(CONTENT).decode(),
        "data:application/pdf;base64," + base64.b64encode(CONTENT).decode(),
    ],
)
def test_a_file_in_base64_becomes_its_size_and_hash(text: str) -> None:
    assert kept({"file": {"source": text, "name": "a.pdf"}}) == {"file": {"source": NOTE, "name": "a.pdf"}}


def test_a_file_among_words_is_gone_too() -> None:
    packed = base64.b64encode(CONTENT[:2000]).decode()
    assert kept({"a": f"source {packed} end", "b": f"source {packed * 3} end", "c": "A" * 201}) == {
        "a": "source … end",
        "b": "source …",
        "c": "[201 characters of no known form]",
    }


def test_short_or_other_texts_are_no_files() -> None:
    words = "these are many words of a long text " * 10
    assert kept({"a": "QUJD", "b": words + "."}) == {"a": "QUJD", "b": words + "."}


def test_a_form_is_kept_part_by_part() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="parameters"; filename="p.json"\r\nContent-Type: application/json\r\n\r\n'
        b'{"data": {"claimId": 7, "fileNumber": "123456789", "who": "Ana"}}\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="scan ana@example.org.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
        + CONTENT
        + b"\r\n--x--\r\n"
    )
    said = redactor(Evidence(redact=("parameters.data.who",)))(body, "multipart/form-data; boundary=x")
    assert json.loads(said) == {
        "parameters": {
            "data": {"claimId": 7, "fileNumber": "[redacted, 9 characters]", "who": "[redacted, 3 characters]"}
        },
        "file": NOTE.replace("[file,", "[file scan …,"),
    }


def test_values_that_are_no_json_are_not_shown() -> None:
    class Person:
        def __str__(self) -> str:
            return SECRET

    said = plain.value({"raw": CONTENT, "who": Person(), "list": (1, 2.5, True, None)})
    assert json.loads(said) == {"raw": NOTE, "who": "[Person]", "list": [1, 2.5, True, None]}


def test_a_form_that_is_still_to_be_sent_is_kept_by_its_values() -> None:
    value = {"parameters": {"data": {"ssn": "1", "claimId": 7}}, "file": file_note("a.pdf", 1234, "ab")}
    assert json.loads(plain.value(value)) == {
        "parameters": {"data": {"ssn": "[redacted, 1 character]", "claimId": 7}},
        "file": "[file a.pdf, 1,234 bytes, sha256 ab]",
    }


# --- texts --------------------------------------------------------------------------------------------------------


def test_what_looks_like_a_secret_is_gone_wherever_it_stands() -> None:
    texts = {
        "mail ana.b+c@example.org now": "mail … now",
        "Authorization failed for Bearer abc.def.ghi-123": "Authorization failed for …",
        "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_-1 back": "got … back",
        "https://b.example/x?a=1&X-Amz-Signature=0a1b2c&X-Amz-Credential=AK%2F1": "https://b.example/x?a=1&X-Amz-Signature=…&X-Amz-Credential=…",
        "https://b.example/x?sig=abc&token=def&page=2": "https://b.example/x?sig=…&token=…&page=2",
    }
    for text, left in texts.items():
        assert kept({"detail": text}) == {"detail": left}
        assert SECRET not in plain(json.dumps({f"{text} {SECRET}@example.org": 1}).encode(), JSON)


def test_a_page_is_cut_and_says_so() -> None:
    page = "<html><body>" + "Gateway error, please try again. " * 500 + "</body></html>"
    said = redactor(Evidence(most=100))(page.encode(), "text/html; charset=iso-8859-1")
    assert said.startswith("<html><body>Gateway error")
    assert said.endswith(f"… [cut: 100 of {len(page):,} characters are kept]")
    assert plain(b"short 12345678 page", "text/html") == "short … page"


@pytest.mark.parametrize("most", range(90, 110))
def test_no_half_of_an_address_is_left_at_the_cut(most: int) -> None:
    redact = redactor(Evidence(most=most))
    words = "word " * 18 + "ana.smith@example.org" + " and more" * 20
    for said in (redact(words.encode(), "text/plain"), redact(json.dumps({"a": words}).encode(), JSON)):
        assert "ana" not in said and "…" in said


def test_a_long_document_is_cut_and_says_so() -> None:
    said = redactor(Evidence(most=50))(json.dumps({"list": list(range(1000))}).encode(), JSON)
    assert said.startswith('{"list": [0, 1, 2') and said.endswith("4,900 characters are kept]")


@pytest.mark.parametrize(
    "piece", ["a", "a=", "token=", "<a", "@", "1 ", "'", '"', "{", "eyJ", " ", "&a", "[1,", "<script>", "-", "\\"]
)
def test_no_body_takes_long(piece: str) -> None:
    """Half a megabyte of what patterns stumble over: were the time to grow with its square, this would take minutes."""
    text = piece * (500_000 // len(piece))
    for kind in ("text/html", JSON, "application/x-www-form-urlencoded"):
        plain(json.dumps({"a": text}).encode() if kind == JSON else text.encode(), kind)
    sentence(text)


def test_a_document_of_very_many_values_is_not_walked_to_its_end() -> None:
    for value in ({"a": ["ana@example.org"] * 1_000_000}, {str(number): 1 for number in range(500_000)}):
        body = json.dumps(value).encode()
        assert plain(body, JSON).endswith(f"of {len(body):,} characters are kept]")


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", JSON, ""),
        (b'{"password": "x"', JSON, "[16 bytes of application/json, not kept]"),
        (b'{"password": "x"', "text/plain", "[16 bytes of text/plain, not kept]"),
        (b"\xff\xfe{}", JSON, "[4 bytes of application/json, not kept]"),
        (b'{"a": ' + b"9" * 5000 + b"}", JSON, "[5,007 bytes of application/json, not kept]"),
        (b"[" * 100_000, JSON, "[100,000 bytes of application/json, not kept]"),
        (b"%PDF-1.7", "application/pdf", "[8 bytes of application/pdf, not kept]"),
        (b"abc", "<odd>\r\nX", "[3 bytes, not kept]"),
        (b"--y", "multipart/form-data; boundary=x", "[3 bytes of multipart/form-data, not kept]"),
        (b"caf\xe9", "text/plain; charset=latin-1", "café"),
        (b"caf\xe9", "text/plain; charset=nonsense", "caf\ufffd"),
        (b"plain words", "", "plain words"),
        (b"a\x00b\x1b[2J\xe2\x80\xaec", "text/plain", "ab[2Jc"),
        (b'{"a": "\\ud800\\u0000x"}', JSON, '{"a": "\\u0000x"}'),
    ],
)
def test_what_cannot_be_read_is_kept_as_its_size(body: bytes, kind: str, says: str) -> None:
    assert plain(body, kind) == says


KINDS = st.sampled_from(
    [
        JSON,
        "text/html",
        "",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/xml",
        "a/b",
        "text/x; charset=zip",
    ]
)


@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: json.dumps({"a": [text]}).encode()),
    KINDS,
    st.integers(0, 300),
)
def test_anything_gives_a_text_that_a_database_takes(body: bytes, kind: str, most: int) -> None:
    said = Redactor(Evidence(most=most))(body, kind)
    assert len(said) <= most + 80
    assert "\x00" not in said
    said.encode()  # no half characters
    assert Redactor(Evidence(most=most)).value({"a": object(), "b": body})


# --- headers ------------------------------------------------------------------------------------------------------


def test_only_headers_of_the_list_are_kept() -> None:
    given = {
        "Content-Type": "application/json",
        "RateLimit-Remaining": "3",
        "X-Amzn-RequestId": "4d0bb0ba",
        "Retry-After": "60",
        "Authorization": SECRET,
        "Set-Cookie": SECRET,
        "X-Api-Key": SECRET,
        "X-Amz-Security-Token": SECRET,
        "X-Anything": SECRET,
        "Server": "x\r\nfor ana@example.org",
    }
    assert headers(given) == {
        "Content-Type": "application/json",
        "RateLimit-Remaining": "3",
        "X-Amzn-RequestId": "4d0bb0ba",
        "Retry-After": "60",
        "Server": "x for …",
    }


# --- sentences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("Upload Request Async Status Not Found", "Upload Request Async Status Not Found"),
        (
            'Validation failed in Sirius - Client referenced by court reference "12345678" was not found',
            'Validation failed in Sirius - Client referenced by court reference "…" was not found',
        ),
        (
            "Payload failed validation - {'file -> source': {'isEmpty': 'x'}}",
            "Payload failed validation - {'…': {'…': '…'}}",
        ),
        ("The client's name isn't known; it's gone", "The client's name isn't known; it's gone"),
        ('no end to "Ana Smith', 'no end to "…'),
        ("“Ana” «Bo» `Cy` ‘Di’", "“…” «…» `…` ‘…’"),
        ("claim 600123456 of 31/12/1980, ssn 123-45-6789, card 4111 1111 1111 1111", "claim … of …, ssn …, card …"),
        ("status 400, 3 of 4321", "status 400, 3 of 4321"),
        ("write to ana@example.org or <bo@example.org>", "write to … or"),
        ("a\r\n\tb\x00\u202ec", "a b c"),
        ("<html><script>var x = 'secret'</script><h1>Bad   Gateway</h1></html>", "Bad Gateway"),
        ("diagnostics " + "aB3" * 30 + " end", "diagnostics … end"),
        ("Bearer abcdefgh refused", "… refused"),
        ("half \ud800 a character", "half a character"),
    ],
)
def test_an_error_text_is_made_fit_to_be_kept(text: str, left: str) -> None:
    assert sentence(text) == left


@given(st.text(max_size=600))
def test_a_sentence_is_one_short_line_without_numbers_and_addresses(text: str) -> None:
    made = sentence(text)
    assert len(made) <= 300 and made == " ".join(made.split())
    assert not re.search(r"\w@\w|\d{5}", made)
    assert sentence(made) == made


def test_a_long_text_is_cut() -> None:
    made = sentence("word " * 100_000)
    assert len(made) <= 300 and made.endswith("word…")
