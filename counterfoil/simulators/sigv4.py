"""Checks AWS Signature Version 4 as AWS does, by computing it anew; says which of AWS's own errors a wrong one gets.

Written from the published algorithm, so that it shares no code with the client it judges. Knows no function and no record.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = 300.0
WRONG_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_CREDENTIAL = re.compile(
    rf"{ALGORITHM} +Credential=(?P<key>[^/,]+)/(?P<day>\d{{8}})/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request, *"
    r"SignedHeaders=(?P<signed>[^,]+), *Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one key pair that is known, and the scope a signature must be made for."""

    access_key: str
    secret_key: str
    region: str
    service: str = "lambda"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One of AWS's own errors: the x-amzn-ErrorType and the message."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts of a request that a signature covers. `path` is the path as it stood on the wire, header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


def verify(request: Signed, known: Credentials, now: float) -> Refusal | None:
    """None when the signature is right; otherwise the 403 that AWS would answer. `now` is epoch seconds."""
    given = request.headers.get("authorization")
    if not given:
        return Refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    parts = _CREDENTIAL.fullmatch(given.strip())
    if not parts:
        return Refusal("IncompleteSignatureException", "Authorization header is not a complete SigV4 header.")
    if parts["key"] != known.access_key:
        return Refusal("UnrecognizedClientException", "The security token included in the request is invalid.")
    return _scope(parts, known) or _time(request, parts["day"], now) or _signature(request, parts, known)


def _scope(parts: re.Match[str], known: Credentials) -> Refusal | None:
    if parts["service"] != known.service:
        return Refusal(
            "InvalidSignatureException", f"Credential should be scoped to correct service: '{known.service}'."
        )
    if parts["region"] != known.region:
        return Refusal(
            "InvalidSignatureException", f"Credential should be scoped to a valid region, not '{parts['region']}'."
        )
    return None


def _time(request: Signed, day: str, now: float) -> Refusal | None:
    stamp = request.headers.get("x-amz-date", "")
    try:
        made = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return Refusal("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.")
    if stamp[:8] != day:
        return Refusal(
            "InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version."
        )
    if abs(now - made) > SKEW:
        words = "Signature expired" if made < now else "Signature not yet current"
        return Refusal("InvalidSignatureException", f"{words}: {stamp} is more than 5 min. from the server's time.")
    return None


def _signature(request: Signed, parts: re.Match[str], known: Credentials) -> Refusal | None:
    signed = parts["signed"].split(";")
    if "host" not in signed or any(name not in request.headers for name in signed):
        return Refusal("InvalidSignatureException", WRONG_SIGNATURE)
    scope = f"{parts['day']}/{known.region}/{known.service}/aws4_request"
    canonical = hashlib.sha256(_canonical(request, signed).encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{request.headers['x-amz-date']}\n{scope}\n{canonical}"
    key = _key(known, parts["day"])
    right = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (
        None
        if hmac.compare_digest(right, parts["signature"])
        else Refusal("InvalidSignatureException", WRONG_SIGNATURE)
    )


def _canonical(request: Signed, signed: list[str]) -> str:
    pairs = sorted(parse_qsl(request.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in signed)
    body = hashlib.sha256(request.body).hexdigest()
    return "\n".join((request.method, quote(request.path, safe="/-_.~"), query, headers, ";".join(signed), body))


@lru_cache(maxsize=8)
def _key(known: Credentials, day: str) -> bytes:
    key = f"AWS4{known.secret_key}".encode()
    for part in (day, known.region, known.service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
