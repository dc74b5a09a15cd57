"""What puts credentials on a request, one small class for each way: fixed headers, SigV4, a token signed by us. OAuth stands in `oauth.py`.

Nothing here retries. `renew` says whether credentials could be made anew after a refusal; the caller then asks once more, and only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

import jwt

from counterfoil.connectors import auth
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.flows.kinds import duration_of
from counterfoil.model.clock import Clock
from counterfoil.model.errors import Misconfigured

TOKEN_LIFE = "5m"  # of a token we sign, where the flow does not say


class Authoriser(Protocol):
    """Makes the headers of one request. Raises Misconfigured for credentials that are refused, Transient where none could be had now."""

    async def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, sha256: str | None = None
    ) -> dict[str, str]:
        """All headers to send. `sha256`: of a body that is streamed and not in `body` (lower-case hex)."""
        ...

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """The request with these headers was refused with 401: True where new credentials were had since."""
        ...


class FixedHeaders:
    """None, bearer, API key, basic."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._fixed = dict(fixed)

    async def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, sha256: str | None = None
    ) -> dict[str, str]:
        return {**headers, **self._fixed}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        return False


class SigV4:
    """AWS Signature Version 4, by botocore's own signer."""

    def __init__(self, values: Mapping[str, str], service: str = "execute-api") -> None:
        from botocore.auth import SigV4Auth  # 130 ms, and only what signs needs it
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        keys = Credentials(values["access_key"], values["secret_key"], values.get("session_token") or None)
        self._signer = SigV4Auth(keys, values.get("service", service), values["region"])
        self._request = AWSRequest

    async def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, sha256: str | None = None
    ) -> dict[str, str]:
        given = dict(headers)
        if sha256 is not None:  # the signer takes the hash from this header instead of reading the body
            given["X-Amz-Content-SHA256"] = sha256
        request = self._request(method=method, url=url, data=body, headers=given)
        self._signer.add_auth(request)
        return dict(request.headers.items())

    async def renew(self, refused: Mapping[str, str]) -> bool:
        return False


class SignedToken:
    """A JWT of our own (HS256, RS256) as a bearer token. One token serves for half of its life: signing with RSA costs a millisecond."""

    def __init__(self, spec: Auth, values: Mapping[str, str], claims: Mapping[str, str], clock: Clock) -> None:
        self._algorithm = values["algorithm"]
        name = "secret" if self._algorithm == "HS256" else "private_key"
        if name not in values:
            raise Misconfigured(
                f"Auth of type jwt with {self._algorithm} has no `{name}`.", f'Add `{name}: "${{NAME}}"`.'
            )
        self._key, self._values, self._claims, self._clock = values[name], values, dict(claims), clock
        self._life = duration_of(values.get("expires", TOKEN_LIFE))
        self._token = ""
        self._until: datetime | None = None
        self._sign()  # a key that can't sign is told at the start

    def _sign(self) -> None:
        now = self._clock.now()
        usual = {
            name: self._values[value]
            for name, value in (("iss", "issuer"), ("sub", "subject"), ("aud", "audience"))
            if value in self._values
        }
        claims = {**self._claims, **usual, "iat": int(now.timestamp()), "exp": int((now + self._life).timestamp())}
        self._token = sign_token(self._key, self._algorithm, claims, self._values.get("key_id"))
        self._until = now + self._life / 2

    async def headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, sha256: str | None = None
    ) -> dict[str, str]:
        if self._until is None or self._clock.now() >= self._until:
            self._sign()
        return {**headers, "Authorization": f"Bearer {self._token}"}

    async def renew(self, refused: Mapping[str, str]) -> bool:
        if refused.get("Authorization") == f"Bearer {self._token}":
            self._sign()
        return refused.get("Authorization") != f"Bearer {self._token}"


def sign_token(key: str, algorithm: str, claims: Mapping[str, Any], key_id: str | None = None) -> str:
    """A JWT. Raises Misconfigured for a key that can't sign."""
    try:
        return jwt.encode(dict(claims), key, algorithm, headers={"kid": key_id} if key_id else None)
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise Misconfigured(
            f"The key for {algorithm} can't sign ({type(error).__name__}).",
            "For RS256 it is a private RSA key in PEM, with its line breaks; for HS256 a secret of 32 bytes or more.",
        ) from error


def authoriser_of(spec: Auth, environment: Mapping[str, str], clock: Clock, **more: Any) -> Authoriser:
    """The one a declared auth stands for. `more` goes to oauth (its connections). Raises Misconfigured."""
    values = auth.credentials(spec, environment)
    if spec.type is AuthType.SIGV4:
        return SigV4(values)
    if spec.type is AuthType.JWT:
        claims = {name: auth.resolve(value, environment) for name, value in spec.claims.items()}
        return SignedToken(spec, values, claims, clock)
    if spec.type is AuthType.OAUTH:
        from counterfoil.connectors.oauth import ClientCredentials

        return ClientCredentials(spec, values, clock, **more)
    return FixedHeaders(auth.fixed_headers(spec, values))
