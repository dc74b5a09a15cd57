"""What puts credentials on a request: each way once, signatures judged by the simulator's own verification, tokens by PyJWT."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from counterfoil.connectors.authorise import SignedToken, SigV4, authoriser_of
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import Misconfigured
from counterfoil.simulators.sigv4 import Credentials, Signed, verify
from tests.support import FakeClock

VALUES = {"access_key": "AKID", "secret_key": "shh", "region": "eu-west-1"}
SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture(scope="module")
def private_key() -> Any:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def refusal_of(method: str, url: str, headers: dict[str, str], body: bytes) -> Any:
    parts = urlsplit(url)
    lower = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc}
    request = Signed(method, parts.path, parts.query, lower, body)
    now = SystemClock().now().timestamp()
    return verify(request, Credentials("AKID", "shh", "eu-west-1", "execute-api"), now)


async def test_a_signed_request_is_accepted_by_one_who_verifies() -> None:
    url = "http://127.0.0.1:8080/v2/clients/1234567T/reports?a=b%20c&a=d"
    headers = await SigV4(VALUES).headers("POST", url, {"Content-Type": "application/json"}, b"{}")
    assert refusal_of("POST", url, headers, b"{}") is None
    assert refusal_of("POST", url, headers, b"{} ") is not None


async def test_a_streamed_body_is_signed_by_its_hash() -> None:
    url, body = "http://127.0.0.1/v2/x", b"streamed"
    digest = hashlib.sha256(body).hexdigest()
    headers = await SigV4(VALUES).headers("POST", url, {}, b"", sha256=digest)
    assert headers["X-Amz-Content-SHA256"] == digest
    assert refusal_of("POST", url, headers, body) is None


async def test_a_session_token_and_a_service_are_signed_in() -> None:
    signer = SigV4({**VALUES, "session_token": "t", "service": "s3"})
    headers = await signer.headers("GET", "https://x/a", {"Accept": "y"}, b"")
    assert headers["Accept"] == "y"
    assert headers["X-Amz-Security-Token"] == "t"
    assert "/eu-west-1/s3/aws4_request" in headers["Authorization"]


def jwt_auth(**values: str) -> Auth:
    return Auth(AuthType.JWT, values, {"session-data": "svc@example.org"})


async def token_of(signer: Any) -> str:
    headers = await signer.headers("GET", "http://x", {}, b"")
    return str(headers["Authorization"]).removeprefix("Bearer ")


async def test_a_token_of_ours_says_what_was_declared() -> None:
    auth = jwt_auth(algorithm="HS256", secret="${S}", issuer="me", audience="you", expires="1h")
    signer = authoriser_of(auth, {"S": SECRET}, SystemClock())
    claims = jwt.decode(await token_of(signer), SECRET, ["HS256"], audience="you", issuer="me")
    assert claims["session-data"] == "svc@example.org"
    assert claims["exp"] - claims["iat"] == 3600


async def test_a_token_by_rsa_verifies_with_the_public_key(private_key: Any) -> None:
    auth = jwt_auth(algorithm="RS256", private_key="${K}", subject="me", key_id="k1")
    token = await token_of(authoriser_of(auth, {"K": pem(private_key)}, SystemClock()))
    assert jwt.decode(token, private_key.public_key(), ["RS256"])["sub"] == "me"
    assert jwt.get_unverified_header(token)["kid"] == "k1"


async def test_one_token_serves_for_half_of_its_life() -> None:
    clock = FakeClock()
    auth = jwt_auth(algorithm="HS256", secret=SECRET, expires="10m")
    signer = SignedToken(auth, {"algorithm": "HS256", "secret": SECRET, "expires": "10m"}, {}, clock)
    first = await token_of(signer)
    clock.move(299)
    assert await token_of(signer) == first
    clock.move(2)
    assert await token_of(signer) != first


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"algorithm": "RS256", "private_key": "no key"}, "can't sign"),
        ({"algorithm": "RS256", "secret": SECRET}, "has no `private_key`"),
        ({"algorithm": "HS256", "private_key": "x"}, "has no `secret`"),
    ],
)
def test_a_key_that_can_t_sign_is_told_at_the_start(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence) as caught:
        authoriser_of(jwt_auth(**values), {}, SystemClock())
    assert SECRET not in str(caught.value)


async def test_fixed_headers_come_on_top_and_can_t_be_renewed() -> None:
    signer = authoriser_of(Auth(AuthType.BEARER, {"token": "${T}"}), {"T": "abc"}, SystemClock())
    headers = await signer.headers("GET", "http://x", {"Accept": "a"}, b"")
    assert headers == {"Accept": "a", "Authorization": "Bearer abc"}
    assert not await signer.renew(headers)
