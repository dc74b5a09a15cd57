"""S3's check of signatures, judged by botocore's signers for S3: right ones pass, in header and address; wrong ones get S3's errors."""

import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as Keys

from counterfoil.simulators.sigv4 import Credentials, Refusal, Signed, signature
from counterfoil.simulators.sigv4_s3 import canonical_request, verify

KNOWN = Credentials("AKID", "secret", "us-east-1", "s3")
URL = "http://127.0.0.1:9000/documents/claims/a%20b%2Bc.pdf"


def signed(url: str = URL, method: str = "PUT", body: bytes = b"content", **more: Any) -> Signed:
    """A request as botocore signs it, in the header."""
    request = AWSRequest(method, url, data=body, headers=more.get("headers", {}))
    if more.get("unsigned"):
        request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    keys = Keys(more.get("key", "AKID"), more.get("secret", "secret"), more.get("token"))
    S3SigV4Auth(keys, more.get("service", "s3"), more.get("region", "us-east-1")).add_auth(request)
    parts = urlsplit(url)
    headers = {"host": parts.netloc, **{name.lower(): value for name, value in request.headers.items()}}
    return Signed(method, parts.path, parts.query, headers, b"")


def presigned(url: str = URL, method: str = "GET", expires: int = 60, **more: Any) -> Signed:
    """A request as botocore presigns it, in the address."""
    request = AWSRequest(method, url, headers=more.get("headers", {}))
    keys = Keys(more.get("key", "AKID"), more.get("secret", "secret"))
    S3SigV4QueryAuth(keys, "s3", more.get("region", "us-east-1"), expires=expires).add_auth(request)
    parts = urlsplit(request.url)
    headers = {"host": parts.netloc, **{name.lower(): value for name, value in more.get("headers", {}).items()}}
    return Signed(method, parts.path, parts.query, headers, b"")


def changed(right: Signed, **changes: Any) -> Signed:
    fields = {name: getattr(right, name) for name in ("method", "path", "query", "headers", "body")}
    return Signed(**{**fields, **changes})


def told(request: Signed, ahead: float = 0.0, later: float | None = None) -> Refusal:
    refusal = verify(request, KNOWN, time.time() + ahead, later)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    "made",
    [{}, {"body": b""}, {"unsigned": True}, {"token": "session"}, {"method": "GET", "body": b""},
     {"url": "http://127.0.0.1:9000/documents?list-type=2&prefix=a%2Fb%20c&delimiter=%2F", "method": "GET"},
     {"url": "http://127.0.0.1:9000/documents/Zo%C3%AB/~x_y.z", "method": "DELETE"},
     {"url": URL + "?uploads", "method": "POST"}, {"headers": {"x-amz-meta-who": "  two   words "}}],
)  # fmt: skip
def test_what_botocore_signs_is_accepted(made: dict[str, Any]) -> None:
    assert verify(signed(**made), KNOWN, time.time()) is None


@pytest.mark.parametrize(
    "made",
    [{}, {"url": URL + "?response-content-disposition=attachment%3B%20filename%3D%22a%20b.pdf%22"}, {"method": "PUT"},
     {"url": "http://127.0.0.1:9000/documents/Zo%C3%AB.pdf", "expires": 604_800}],
)  # fmt: skip
def test_what_botocore_presigns_is_accepted(made: dict[str, Any]) -> None:
    assert verify(presigned(**made), KNOWN, time.time()) is None


@pytest.mark.parametrize("sign", [signed, presigned])
@pytest.mark.parametrize(
    ("made", "kind"),
    [({"key": "OTHER"}, "InvalidAccessKeyId"), ({"secret": "other"}, "SignatureDoesNotMatch"),
     ({"region": "eu-west-1"}, "AuthorizationHeaderMalformed")],
)  # fmt: skip
def test_a_wrong_key_or_scope(sign: Any, made: dict[str, Any], kind: str) -> None:
    assert told(sign(**made)).kind == kind


def test_another_service_is_another_scope() -> None:
    assert told(signed(service="lambda")).kind == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize("sign", [signed, presigned])
@pytest.mark.parametrize("part", ["method", "path", "query", "host"])
def test_what_was_changed_after_signing_is_refused(sign: Any, part: str) -> None:
    right = sign()
    changes = {
        "method": {"method": "HEAD"},
        "path": {"path": right.path + "x"},
        "query": {"query": (right.query + "&" if right.query else "") + "versionId=1"},
        "host": {"headers": {**right.headers, "host": "elsewhere"}},
    }
    assert told(changed(right, **changes[part])).kind == "SignatureDoesNotMatch"


def test_a_body_that_is_not_signed_is_said_to_be_so() -> None:
    assert signed(unsigned=True).headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"


def test_another_hash_of_the_body_is_refused() -> None:
    right = signed()
    headers = {**right.headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    assert told(changed(right, headers=headers)).kind == "SignatureDoesNotMatch"


@pytest.mark.parametrize("sign", [signed, presigned])
def test_a_header_that_was_not_signed_is_refused(sign: Any) -> None:
    right = sign()
    assert told(changed(right, headers={**right.headers, "x-amz-acl": "public-read"})).kind == "AccessDenied"


def test_a_signature_has_to_hold_for_the_host() -> None:
    right = signed()
    names = ("x-amz-content-sha256", "x-amz-date")
    made = canonical_request(right, names, [], right.headers["x-amz-content-sha256"])
    stamp = right.headers["x-amz-date"]
    scope = f"AKID/{stamp[:8]}/us-east-1/s3/aws4_request"
    told_of = (
        f"Credential={scope}, SignedHeaders={';'.join(names)}, Signature={signature(KNOWN, stamp[:8], stamp, made)}"
    )
    headers = {**right.headers, "authorization": f"AWS4-HMAC-SHA256 {told_of}"}
    assert told(changed(right, headers=headers)).kind == "SignatureDoesNotMatch"


def test_a_signature_in_the_header_lasts_fifteen_minutes() -> None:
    right = signed()
    assert [verify(right, KNOWN, time.time() + ahead) is None for ahead in (-800, 800)] == [True, True]
    assert {told(right, ahead).kind for ahead in (-1000, 1000)} == {"RequestTimeTooSkewed"}


def test_an_address_lasts_as_long_as_it_says() -> None:
    right, now = presigned(expires=60), time.time()
    assert verify(right, KNOWN, now + 55) is None
    assert told(right, 65).message == "Request has expired"
    assert told(right, 0, now + 65).message == "Request has expired"
    assert verify(right, KNOWN, now + 9000, now) is None
    assert told(right, -1000).message == "Request is not valid yet"


@pytest.mark.parametrize("expires", ["0", "604801", "x", "-5", ""])
def test_an_address_that_may_not_last_so_long(expires: str) -> None:
    right = presigned()
    query = right.query.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}")
    assert told(changed(right, query=query)).kind == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    "name", ["X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"]
)
def test_an_address_that_lacks_something(name: str) -> None:
    right = presigned()
    query = "&".join(part for part in right.query.split("&") if not part.startswith(name + "="))
    assert told(changed(right, query=query)).kind == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    ("headers", "kind"),
    [({"authorization": ""}, "AccessDenied"), ({"authorization": "Bearer x"}, "AuthorizationHeaderMalformed"),
     ({"x-amz-content-sha256": ""}, "InvalidRequest"), ({"x-amz-content-sha256": "abc"}, "InvalidArgument"),
     ({"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, "NotImplemented"),
     ({"x-amz-date": "yesterday"}, "AuthorizationHeaderMalformed")],
)  # fmt: skip
def test_a_missing_or_broken_header(headers: dict[str, str], kind: str) -> None:
    right = signed()
    assert told(changed(right, headers={**right.headers, **headers})).kind == kind


def test_bytes_that_are_no_text_are_refused_and_break_nothing() -> None:
    right = signed()
    assert told(changed(right, headers={**right.headers, "host": "\udcff"})).kind == "SignatureDoesNotMatch"
