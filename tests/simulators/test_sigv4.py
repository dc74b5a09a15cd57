"""The check of signatures, judged by botocore's signer: right ones pass, each kind of wrong one gets AWS's own error."""

import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys

from counterfoil.simulators.sigv4 import Credentials, Refusal, Signed, verify

KNOWN = Credentials("AKID", "secret", "ap-southeast-2")
URL = "http://127.0.0.1:8000/2015-03-31/functions/f/invocations"


def signed(url: str = URL, body: bytes = b"{}", **more: Any) -> Signed:
    """A request as botocore signs it."""
    request = AWSRequest(
        "POST", url, data=body, headers=more.get("headers", {"X-Amz-Invocation-Type": "RequestResponse"})
    )
    keys = Keys(more.get("key", "AKID"), more.get("secret", "secret"), more.get("token"))
    SigV4Auth(keys, more.get("service", "lambda"), more.get("region", "ap-southeast-2")).add_auth(request)
    parts = urlsplit(url)
    headers = {"host": parts.netloc, **{name.lower(): value for name, value in request.headers.items()}}
    return Signed("POST", parts.path, parts.query, headers, body)


@pytest.mark.parametrize(
    "made",
    [{}, {"body": b""}, {"body": "Zoë".encode()}, {"token": "session-token"},
     {"url": URL.replace("/f/", "/arn%3Aaws%3Alambda%3Aap-southeast-2%3A1%3Afunction%3Af/")},
     {"url": URL + "?Qualifier=live&a=b%20c&A=%2F"}, {"headers": {"X-Odd": "  two   words "}}],
)  # fmt: skip
def test_what_botocore_signs_is_accepted(made: dict[str, Any]) -> None:
    """Signed here and not when the tests are collected: a long suite would find the signature expired."""
    assert verify(signed(**made), KNOWN, time.time()) is None


@pytest.mark.parametrize(
    ("made", "kind"),
    [({"key": "OTHER"}, "UnrecognizedClientException"), ({"secret": "other"}, "InvalidSignatureException"),
     ({"region": "us-east-1"}, "InvalidSignatureException"), ({"service": "s3"}, "InvalidSignatureException")],
)  # fmt: skip
def test_a_wrong_key_or_scope(made: dict[str, Any], kind: str) -> None:
    refusal = verify(signed(**made), KNOWN, time.time())
    assert refusal is not None
    assert refusal.kind == kind


@pytest.mark.parametrize("part", ["body", "path", "query", "header", "host"])
def test_what_was_changed_after_signing_is_refused(part: str) -> None:
    right = signed()
    changes: dict[str, dict[str, Any]] = {
        "body": {"body": b'{"a":1}'},
        "path": {"path": right.path.replace("/f/", "/g/")},
        "query": {"query": "Qualifier=other"},
        "header": {"headers": {**right.headers, "x-amz-invocation-type": "Event"}},
        "host": {"headers": {**right.headers, "host": "elsewhere"}},
    }
    fields = {name: getattr(right, name) for name in ("method", "path", "query", "headers", "body")}
    refusal = verify(Signed(**{**fields, **changes[part]}), KNOWN, time.time())
    assert refusal is not None
    assert refusal.kind == "InvalidSignatureException"
    assert "does not match the signature you provided" in refusal.message


def test_a_signature_lasts_five_minutes() -> None:
    right = signed()
    late, early = verify(right, KNOWN, time.time() + 400), verify(right, KNOWN, time.time() - 400)
    assert late is not None
    assert early is not None
    assert (late.message[:17], early.message[:21]) == ("Signature expired", "Signature not yet cur")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [({}, "MissingAuthenticationTokenException"), ({"authorization": "Bearer x"}, "IncompleteSignatureException"),
     ({**signed().headers, "x-amz-date": "yesterday"}, "IncompleteSignatureException"),
     ({**signed().headers, "x-amz-date": "20200101T000000Z"}, "InvalidSignatureException")],
)  # fmt: skip
def test_a_missing_or_broken_header(headers: dict[str, str], kind: str) -> None:
    refusal = verify(Signed("POST", "/", "", headers, b""), KNOWN, time.time())
    assert isinstance(refusal, Refusal)
    assert refusal.kind == kind


def test_bytes_that_are_no_text_are_refused_and_break_nothing() -> None:
    right = signed()
    headers = {**right.headers, "x-amz-invocation-type": "\udcff"}
    refusal = verify(Signed(right.method, right.path, right.query, headers, right.body), KNOWN, time.time())
    assert refusal is not None
    assert refusal.kind == "InvalidSignatureException"
