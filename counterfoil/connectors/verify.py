"""Whether a caller is who it says: SigV4, JWT, bearer. We are the server here; every comparison takes the same time, and default is no.

Signatures are computed anew by botocore's own canonicalisation. No message holds what was compared.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from counterfoil.connectors import auth
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.errors import Misconfigured

SKEW = 300.0  # seconds
_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request, *"
    r"SignedHeaders=(?P<signed>[a-z0-9;\-]+), *Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came. `path` still encoded, header names in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    caller: str  # an access key, a subject: never a secret


@dataclass(frozen=True, slots=True)
class Unverified:
    """`code`: missing, incomplete, unknown, expired, wrong_scope, wrong_signature."""

    code: str
    problem: str


Verifier = Callable[[Incoming, datetime], "Verified | Unverified"]
WRONG = Unverified("wrong_signature", "The signature is not that of this request.")


def verifier_of(spec: Auth, environment: Mapping[str, str]) -> Verifier:
    """The check that a declared auth stands for. Raises Misconfigured for what can't be checked."""
    values = auth.credentials(spec, environment)
    if spec.type is AuthType.SIGV4:
        return _SigV4(values).verify
    if spec.type is AuthType.JWT:
        return _Token(values).verify
    if spec.type is AuthType.BEARER:
        wanted = values["token"].encode()
        return lambda incoming, now: _bearer(incoming, wanted)
    raise Misconfigured(f"Callers can't be verified by auth of type {spec.type}.", "Use sigv4, jwt or bearer.")


def _bearer(incoming: Incoming, wanted: bytes) -> Verified | Unverified:
    scheme, _, given = incoming.headers.get("authorization", "").partition(" ")
    if not given:
        return Unverified("missing", "There is no token.")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), wanted):
        return Unverified("unknown", "The token is not known.")
    return Verified("bearer")


class _SigV4:
    def __init__(self, values: Mapping[str, str]) -> None:
        from botocore.auth import SigV4Auth  # 130 ms, and only what verifies needs it
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        self._known, self._region = values["access_key"], values["region"]
        self._service, self._request = values.get("service", "execute-api"), AWSRequest
        keys = Credentials(self._known, values["secret_key"], values.get("session_token") or None)
        self._token = values.get("session_token", "")
        self._signer = SigV4Auth(keys, self._service, self._region)

    def verify(self, incoming: Incoming, now: datetime) -> Verified | Unverified:
        given = incoming.headers.get("authorization", "").strip()
        if not given:
            return Unverified("missing", "There is no signature.")
        parts = _CREDENTIAL.fullmatch(given)
        if parts is None:
            return Unverified("incomplete", "The signature is not complete.")
        if not hmac.compare_digest(parts["key"].encode(), self._known.encode()):
            return Unverified("unknown", "The access key is not known.")
        if (parts["region"], parts["service"]) != (self._region, self._service):
            return Unverified("wrong_scope", "The signature is made for another region or service.")
        return self._time(incoming, parts, now) or self._signature(incoming, parts)

    def _time(self, incoming: Incoming, parts: re.Match[str], now: datetime) -> Unverified | None:
        stamp = incoming.headers.get("x-amz-date", "")
        try:
            made = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return Unverified("incomplete", "The signature has no date.")
        if stamp[:8] != parts["day"]:
            return WRONG
        if abs((now - made).total_seconds()) > SKEW:
            return Unverified("expired", "The signature is older than five minutes, or from the future.")
        return None

    def _signature(self, incoming: Incoming, parts: re.Match[str]) -> Verified | Unverified:
        signed = parts["signed"].split(";")
        if "host" not in signed or any(name not in incoming.headers for name in signed):
            return WRONG
        if self._token and not hmac.compare_digest(incoming.headers.get("x-amz-security-token", ""), self._token):
            return WRONG
        right = self._computed(incoming, signed)
        return Verified(parts["key"]) if hmac.compare_digest(right, parts["signature"]) else WRONG

    def _computed(self, incoming: Incoming, signed: list[str]) -> str:
        """The signature of the request as it came, over the headers that the caller says it has signed."""
        headers = {name: incoming.headers[name] for name in signed}
        query = f"?{incoming.query}" if incoming.query else ""
        url = f"https://{incoming.headers['host']}{incoming.path}{query}"
        request = self._request(method=incoming.method, url=url, data=incoming.body, headers=headers)
        if "x-amz-content-sha256" in headers:  # what was signed is a claim: the body that came is what counts
            del request.headers["x-amz-content-sha256"]
            request.headers["x-amz-content-sha256"] = self._signer.payload(request)
        request.context["timestamp"] = incoming.headers["x-amz-date"]
        text = self._signer.string_to_sign(request, self._signer.canonical_request(request))
        return str(self._signer.signature(text, request))


class _Token:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._algorithm = values["algorithm"]
        self._key = values.get("secret") if self._algorithm == "HS256" else _public(values.get("private_key", ""))
        if not self._key:
            raise Misconfigured(
                "Auth of type jwt has no key to verify by.", "Add `secret`, or `private_key` (the public key in PEM)."
            )
        self._issuer, self._audience = values.get("issuer"), values.get("audience")

    def verify(self, incoming: Incoming, now: datetime) -> Verified | Unverified:
        scheme, _, given = incoming.headers.get("authorization", "").partition(" ")
        if not given or scheme.lower() != "bearer":
            return Unverified("missing", "There is no token.")
        claims = self._claims(given)
        if claims is None:
            return WRONG
        ends = claims.get("exp")
        if not isinstance(ends, int | float) or ends <= now.timestamp():
            return Unverified("expired", "The token has ended.")
        return Verified(str(claims.get("sub") or claims.get("iss") or "token")[:100])

    def _claims(self, token: str) -> dict[str, Any] | None:
        wanted = ["exp", *(["aud"] if self._audience else []), *(["iss"] if self._issuer else [])]
        options: Any = {"require": wanted, "verify_exp": False, "verify_iat": False}
        try:
            return dict(
                jwt.decode(
                    token,
                    self._key or "",
                    [self._algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    options=options,
                )
            )
        except jwt.PyJWTError:
            return None


def _public(pem: str) -> Any:
    """The public key in a PEM, be it itself or the private one."""
    from cryptography.hazmat.primitives import serialization

    try:
        if "PRIVATE" in pem:
            return serialization.load_pem_private_key(pem.encode(), None).public_key()
        return serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise Misconfigured("The key of auth of type jwt is no key in PEM.", "Look at `private_key`.") from error
