"""JSON Web Tokens of the one kind the case system takes: HS256, `session-data`, `iat` and `exp`. Made, and checked.

Written from RFC 7515 and 7519, so that it shares no code with the client it judges. The signature is compared in constant time
and before anything that the token says is believed. Knows no request and no document.
"""

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any

HEADER = {"alg": "HS256", "typ": "JWT"}
LASTS = 3600
SKEW = 60.0


def sign(session: str, secret: str, now: float, lasts: float = LASTS) -> str:
    """A token for a service's e-mail address that ends `lasts` seconds after `now` (epoch seconds)."""
    claims = {"session-data": session, "iat": int(now), "exp": int(now + lasts)}
    text = b".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (HEADER, claims))
    return b".".join((text, _signature(text, secret))).decode()


def refusal(token: str, secret: str, now: float) -> str | None:
    """None for a token that is right at `now`; otherwise what is wrong with it. Says nothing of its content."""
    raw = token.encode("utf-8", "surrogateescape")
    text, _, signature = raw.rpartition(b".")
    if raw.count(b".") != 2 or not hmac.compare_digest(_signature(text, secret), signature):
        return "The token's signature is wrong."
    header, claims = (_decoded(part) for part in text.split(b"."))
    if header is None or header.get("alg") != "HS256":
        return "The token is not signed with HS256."
    if claims is None or not isinstance(claims.get("session-data"), str) or "@" not in claims["session-data"]:
        return "The token's session-data is no e-mail address."
    return _time(claims, now)


def _time(claims: dict[str, Any], now: float) -> str | None:
    issued, ends = _number(claims, "iat"), _number(claims, "exp")
    if issued is None or ends is None:
        return "The token has no iat or no exp."
    if ends <= now:
        return "The token has expired."
    return "The token is of the future." if issued > now + SKEW else None


def _number(claims: dict[str, Any], name: str) -> int | float | None:
    value = claims.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _signature(text: bytes, secret: str) -> bytes:
    return _encoded(hmac.digest(secret.encode(), text, hashlib.sha256))


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decoded(part: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(base64.b64decode(part + b"=" * (-len(part) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
