"""OAuth client credentials: a token by secret (RFC 6749) or by signed assertion (RFC 7523), kept in memory, renewed before it ends.

One request for a token at a time, however many calls wait for it. A token that is refused before its time is renewed once for all of them.
Tokens and assertions are never in a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from counterfoil.connectors import auth
from counterfoil.connectors.authorise import sign_token
from counterfoil.flows.flow import Auth, Timeouts
from counterfoil.flows.kinds import duration_of
from counterfoil.model.clock import Clock
from counterfoil.model.errors import ConnectorError, Misconfigured, Throttled, Transient

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE = "5m"
LEAST_LEFT = timedelta(seconds=30)  # a token is renewed so long before its end, or at four fifths of its life
MOST_BYTES = 64 * 1024


class ClientCredentials:
    """An Authoriser whose bearer token comes from a token endpoint."""

    def __init__(
        self, spec: Auth, values: Mapping[str, str], clock: Clock, *, timeouts: Timeouts | None = None, ssl: Any = None
    ) -> None:
        if "client_secret" not in values and "private_key" not in values:
            raise Misconfigured("Auth of type oauth has no `client_secret` and no `private_key`.", "Add one of them.")
        self._values, self._clock = values, clock
        self._login = auth.variables(spec)
        self._timeouts, self._ssl = timeouts or Timeouts(), ssl
        self._turn = asyncio.Lock()
        self._token = ""
        self._until: datetime | None = None
        if "private_key" in values:
            self._assertion()  # a key that can't sign is told at the start

    async def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, sha256: str | None = None
    ) -> dict[str, str]:
        if self._until is None or self._clock.now() >= self._until:
            await self._get(self._token)
        return {**headers, "Authorization": f"Bearer {self._token}"}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """One new token for all who were refused with the same old one."""
        old = refused.get("Authorization", "").removeprefix("Bearer ")
        await self._get(old)
        return self._token != old

    async def _get(self, old: str) -> None:
        async with self._turn:
            fresh = self._until is not None and self._clock.now() < self._until
            if fresh and self._token != old:
                return  # somebody else has got one meanwhile
            asked_at = self._clock.now()
            self._token, life = _token_of(await self._ask())
            self._until = asked_at + max(life * 0.2, min(life * 0.8, life - LEAST_LEFT))

    async def _ask(self) -> bytes:
        place = "The token endpoint"
        timeout = aiohttp.ClientTimeout(
            total=self._timeouts.total.total_seconds(), sock_connect=self._timeouts.connect.total_seconds()
        )
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.post(
                    self._values["token_url"],
                    data=self._form(),
                    headers={"Accept": "application/json"},
                    allow_redirects=False,
                    **({} if self._ssl is None else {"ssl": self._ssl}),
                ) as reply,
            ):
                body = await reply.content.read(MOST_BYTES)
                if reply.status != 200:
                    raise self._refused(reply.status, reply.headers.get("Retry-After"), body)
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(f"{place} gave no answer ({type(error).__name__}).", fault="token_unavailable") from error

    def _form(self) -> dict[str, str]:
        values = self._values
        form = {"grant_type": "client_credentials"} | ({"scope": values["scope"]} if "scope" in values else {})
        if "private_key" in values:
            return form | {"client_assertion_type": ASSERTION, "client_assertion": self._assertion()}
        return form | {"client_id": values["client_id"], "client_secret": values["client_secret"]}

    def _assertion(self) -> str:
        values, now = self._values, self._clock.now()
        life = duration_of(values.get("assertion_expires", ASSERTION_LIFE))
        claims = {
            "iss": values["client_id"],
            "sub": values["client_id"],
            "aud": values.get("audience", values["token_url"]),
            "iat": int(now.timestamp()),
            "exp": int((now + life).timestamp()),
            "jti": str(uuid4()),
        }
        return sign_token(values["private_key"], "RS256", claims, values.get("key_id"))

    def _refused(self, status: int, retry_after: str | None, body: bytes) -> ConnectorError:
        if status in (400, 401, 403):
            word = _error_word(body)
            return Misconfigured(
                f"The token endpoint refuses our credentials: {status}{f', {word}' if word else ''}.",
                f"Look at {self._login}: expired, wrong, or not for this scope and audience.",
                fault="token_refused",
            )
        if status == 429:
            seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
            return Throttled("The token endpoint asks for less.", retry_after=seconds)
        return Transient(f"The token endpoint answered {status}.", fault="token_unavailable")


def _token_of(body: bytes) -> tuple[str, timedelta]:
    """Token and its life. A reply that holds none is the endpoint's passing trouble."""
    try:
        reply = msgspec.json.decode(body)
        token, seconds = reply["access_token"], float(reply.get("expires_in", 300))
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Transient("The token endpoint's reply holds no token.", fault="token_unavailable") from error
    if not isinstance(token, str) or not token or not token.isprintable() or not 0 < seconds < 10**8:
        raise Transient("The token endpoint's reply holds no usable token.", fault="token_unavailable")
    return token, timedelta(seconds=seconds)


def _error_word(body: bytes) -> str:
    """The error's code, which RFC 6749 keeps free of personal things; never its description."""
    try:
        word = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""
    return word if isinstance(word, str) and len(word) < 60 and word.replace("_", "").isalnum() else ""
