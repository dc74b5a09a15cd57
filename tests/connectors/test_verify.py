"""Whether callers are who they say: what our own signer makes is taken, and nothing with a single byte changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.connectors.authorise import SigV4
from counterfoil.connectors.verify import Incoming, Unverified, Verified, verifier_of
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import Misconfigured

NOW = SystemClock().now
VALUES = {"access_key": "AKID", "secret_key": "shh", "region": "eu-west-1"}
SIGV4 = Auth(AuthType.SIGV4, VALUES)
SECRET = "a secret of at least thirty-two bytes"


def signed(method: str, url: str, body: bytes, values: dict[str, str] = VALUES, sha256: str | None = None) -> Incoming:
    headers = asyncio.run(SigV4(values).headers(method, url, {"Content-Type": "application/json"}, body, sha256=sha256))
    parts = urlsplit(url)
    lower = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc}
    return Incoming(method, parts.path, parts.query, lower, body)


URLS = [
    "https://gate/v2/clients/1234567T/reports",
    "https://gate:8443/v2/a%20b/c?x=1&x=2&y=%C3%BC&empty=",
    "https://gate/v2/..%2Fup/./same//twice",
    "https://gate/?b=2&a=1",
]


@pytest.mark.parametrize("url", URLS)
def test_what_our_own_signer_makes_is_taken(url: str) -> None:
    found = verifier_of(SIGV4, {})(signed("POST", url, b'{"a": 1}'), NOW())
    assert found == Verified("AKID")


@given(data=st.data())
def test_nothing_with_a_single_change_is_taken(data: st.DataObject) -> None:
    right = signed("POST", URLS[1], b'{"a": 1}')
    place = data.draw(st.sampled_from(["method", "path", "query", "body", "header"]))
    if place == "header":
        name = data.draw(st.sampled_from(["host", "x-amz-date", "authorization", "content-type"]))
        changed = replace(right, headers={**right.headers, name: _changed(data, right.headers[name])})
    elif place == "body":
        changed = replace(right, body=_changed(data, right.body.decode()).encode())
    else:
        changed = replace(right, **{place: _changed(data, getattr(right, place))})
    assert isinstance(verifier_of(SIGV4, {})(changed, NOW()), Unverified)


def _changed(data: st.DataObject, text: str) -> str:
    """Another letter or digit at one place."""
    places = [at for at, char in enumerate(text) if char.isalnum()]
    at = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([char for char in "0aZ9" if char.lower() != text[at].lower()]))
    return text[:at] + other + text[at + 1 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"headers": {}}, "missing"),
        ({"headers": {"authorization": "AWS4-HMAC-SHA256 x"}}, "incomplete"),
    ],
)
def test_what_is_no_signature(change: dict[str, Any], code: str) -> None:
    found = verifier_of(SIGV4, {})(replace(signed("GET", URLS[0], b""), **change), NOW())
    assert isinstance(found, Unverified)
    assert found.code == code


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({**VALUES, "access_key": "OTHER"}, "unknown"),
        ({**VALUES, "secret_key": "other"}, "wrong_signature"),
        ({**VALUES, "region": "eu-west-2"}, "wrong_scope"),
        ({**VALUES, "service": "s3"}, "wrong_scope"),
    ],
)
def test_other_keys_and_scopes(values: dict[str, str], code: str) -> None:
    found = verifier_of(SIGV4, {})(signed("GET", URLS[0], b"", values), NOW())
    assert isinstance(found, Unverified)
    assert found.code == code
    assert "shh" not in found.problem


@pytest.mark.parametrize("minutes", [-6, 6])
def test_five_minutes_either_way(minutes: int) -> None:
    found = verifier_of(SIGV4, {})(signed("GET", URLS[0], b""), NOW() + timedelta(minutes=minutes))
    assert isinstance(found, Unverified)
    assert found.code == "expired"


def test_a_declared_hash_of_another_body_is_no_excuse() -> None:
    other = signed("POST", URLS[0], b"", sha256="0" * 64)
    assert isinstance(verifier_of(SIGV4, {})(replace(other, body=b"evil"), NOW()), Unverified)


def test_a_session_token_has_to_be_there() -> None:
    values = {**VALUES, "session_token": "session"}
    check = verifier_of(Auth(AuthType.SIGV4, values), {})
    right = signed("GET", URLS[0], b"", values)
    assert check(right, NOW()) == Verified("AKID")
    assert isinstance(check(replace(right, headers={**right.headers, "x-amz-security-token": "x"}), NOW()), Unverified)


def bearing(token: str) -> Incoming:
    return Incoming("GET", "/", "", {"authorization": f"Bearer {token}"}, b"")


def test_a_token_is_pinned_to_its_algorithm_audience_and_time() -> None:
    check = verifier_of(Auth(AuthType.JWT, {"algorithm": "HS256", "secret": SECRET, "audience": "us"}), {})
    ends = int(NOW().timestamp()) + 60
    assert check(bearing(jwt.encode({"sub": "me", "aud": "us", "exp": ends}, SECRET)), NOW()) == Verified("me")
    for claims in ({"sub": "me", "aud": "them", "exp": ends}, {"sub": "me", "exp": ends}, {"sub": "me", "aud": "us"}):
        assert isinstance(check(bearing(jwt.encode(claims, SECRET)), NOW()), Unverified)
    late = check(bearing(jwt.encode({"aud": "us", "exp": ends}, SECRET)), NOW() + timedelta(minutes=2))
    assert isinstance(late, Unverified)
    assert late.code == "expired"
    assert isinstance(check(bearing(jwt.encode({"aud": "us", "exp": ends}, SECRET, "HS384")), NOW()), Unverified)


def test_a_bearer_token() -> None:
    check = verifier_of(Auth(AuthType.BEARER, {"token": "${T}"}), {"T": "abc"})
    assert check(bearing("abc"), NOW()) == Verified("bearer")
    assert isinstance(check(bearing("abd"), NOW()), Unverified)
    assert isinstance(check(Incoming("GET", "/", "", {}, b""), NOW()), Unverified)


def test_what_can_t_be_verified_is_refused_at_the_start() -> None:
    with pytest.raises(Misconfigured, match="can't be verified"):
        verifier_of(Auth(), {})
