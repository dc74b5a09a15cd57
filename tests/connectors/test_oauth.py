"""Client credentials over a real socket: by secret, by assertion, one request for many, renewed in time, and every trouble of the endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import jwt
import msgspec
import pytest

from counterfoil.connectors.authorise import authoriser_of
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.errors import Misconfigured, Throttled, Transient
from counterfoil.testing.other_side import Answer, Asked, OtherSide
from tests.connectors.test_authorise import pem, private_key
from tests.support import FakeClock

__all__ = ["private_key"]


class Endpoint:
    """Answers with a new token each time, or as told."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.answer: Callable[[], Answer] | None = None

    def __call__(self, asked: Asked) -> Answer:
        self.forms.append({name: values[0] for name, values in parse_qs(asked.body.decode()).items()})
        if self.answer is not None:
            return self.answer()
        reply = {"access_token": f"token-{len(self.forms)}", "token_type": "Bearer", "expires_in": 600}
        return Answer(msgspec.json.encode(reply))


def oauth(url: str, clock: FakeClock, **values: str) -> Any:
    given = {"token_url": url, "client_id": "me", "client_secret": "${SECRET}", "scope": "a b", **values}
    given = {name: value for name, value in given.items() if value}
    return authoriser_of(Auth(AuthType.OAUTH, given), {"SECRET": "s3cret", **values}, clock)


async def sent_by(authoriser: Any) -> dict[str, str]:
    return dict(await authoriser.headers("GET", "http://x", {}, b""))


async def test_a_token_is_asked_for_once_and_renewed_before_it_ends(clock: FakeClock) -> None:
    endpoint = Endpoint()
    async with OtherSide(endpoint) as side:
        authoriser = oauth(side.url, clock)
        many = await asyncio.gather(*(sent_by(authoriser) for _ in range(20)))
        assert {one["Authorization"] for one in many} == {"Bearer token-1"}
        assert endpoint.forms == [
            {"grant_type": "client_credentials", "scope": "a b", "client_id": "me", "client_secret": "s3cret"}
        ]
        clock.move(479)
        assert (await sent_by(authoriser))["Authorization"] == "Bearer token-1"
        clock.move(2)  # four fifths of 600 s
        assert (await sent_by(authoriser))["Authorization"] == "Bearer token-2"


async def test_all_who_were_refused_with_the_same_token_get_one_new_one(clock: FakeClock) -> None:
    endpoint = Endpoint()
    async with OtherSide(endpoint) as side:
        authoriser = oauth(side.url, clock)
        old = await sent_by(authoriser)
        assert all(await asyncio.gather(*(authoriser.renew(old) for _ in range(10))))
        assert len(endpoint.forms) == 2
        assert (await sent_by(authoriser))["Authorization"] == "Bearer token-2"


async def test_an_assertion_takes_the_place_of_the_secret(clock: FakeClock, private_key: Any) -> None:
    endpoint = Endpoint()
    async with OtherSide(endpoint) as side:
        authoriser = oauth(side.url, clock, client_secret="", private_key=pem(private_key), audience="https://aud")
        await sent_by(authoriser)
    form = endpoint.forms[0]
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "client_secret" not in form
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        form["client_assertion"], private_key.public_key(), ["RS256"], audience="https://aud", options=options
    )
    assert (claims["iss"], claims["sub"]) == ("me", "me")
    assert claims["exp"] - claims["iat"] == 300


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (Answer(b'{"error":"invalid_client","error_description":"Eve"}', 400), Misconfigured, "400, invalid_client.*SECRET"),
        (Answer(b"", 401), Misconfigured, "refuses our credentials"),
        (Answer(b"", 429, {"Retry-After": "7"}), Throttled, "asks for less"),
        (Answer(b"", 503), Transient, "answered 503"),
        (Answer(b"<html>"), Transient, "holds no token"),
        (Answer(b'{"access_token": "", "expires_in": 600}'), Transient, "no usable token"),
        (Answer(b'{"access_token": "a\\nb", "expires_in": 600}'), Transient, "no usable token"),
        (Answer(b'{"access_token": "a", "expires_in": -1}'), Transient, "no usable token"),
        (Answer(raw=b""), Transient, "gave no answer"),
    ],
    ids=str,
)  # fmt: skip
async def test_trouble_of_the_endpoint(clock: FakeClock, answer: Answer, error: type, sentence: str) -> None:
    endpoint = Endpoint()
    endpoint.answer = lambda: answer
    async with OtherSide(endpoint) as side:
        with pytest.raises(error, match=sentence) as caught:
            await sent_by(oauth(side.url, clock))
    assert "Eve" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    if error is Throttled:
        assert caught.value.retry_after == 7


async def test_an_endpoint_that_is_not_there_is_passing_trouble(clock: FakeClock) -> None:
    with pytest.raises(Transient) as caught:
        await sent_by(oauth("http://127.0.0.1:9", clock))
    assert caught.value.fault == "token_unavailable"
