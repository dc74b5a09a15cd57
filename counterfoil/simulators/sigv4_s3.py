"""Signatures (SigV4) as S3 checks them: in the Authorization header, or in the query of a presigned address.

S3 differs from other services: the path is encoded once, the hash of the body is declared in a header (or is UNSIGNED-PAYLOAD),
and it has error codes of its own. Whether the body has the declared hash is for whoever reads it. Knows no bucket and no key.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from counterfoil.simulators.sigv4 import ALGORITHM, WRONG_SIGNATURE, Credentials, Refusal, Signed, signature

UNSIGNED = "UNSIGNED-PAYLOAD"
SKEW = 900.0
LONGEST = 604_800
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Credential=(?P<credential>[^, ]+), *SignedHeaders=(?P<signed>[^, ]+), *Signature=(?P<signature>[0-9a-f]{{64}})"
)
_HASH = re.compile(rf"[0-9a-f]{{64}}|{UNSIGNED}")
_NEEDED = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a caller claims: its key and scope, when it signed, what it signed and how."""

    credential: str
    stamp: str
    signed: tuple[str, ...]
    signature: str
    payload: str


def verify(request: Signed, known: Credentials, now: float, later: float | None = None) -> Refusal | None:
    """None when a request is signed by the known key. `now` is epoch seconds; a presigned address ends by `later`, where given."""
    pairs = parse_qsl(request.query, keep_blank_values=True)
    if "X-Amz-Signature" in dict(pairs) or "X-Amz-Algorithm" in dict(pairs):
        return _presigned(request, known, pairs, now if later is None else later)
    given = request.headers.get("authorization")
    if not given:
        return Refusal("AccessDenied", "Access Denied")
    parts = _AUTHORIZATION.fullmatch(given.strip())
    if not parts:
        return Refusal("AuthorizationHeaderMalformed", "The authorization header is malformed.")
    payload = request.headers.get("x-amz-content-sha256", "")
    signed = tuple(parts["signed"].split(";"))
    claim = _Claim(parts["credential"], request.headers.get("x-amz-date", ""), signed, parts["signature"], payload)
    return _payload(payload) or _key(claim, known) or _age(claim, now) or _compare(request, known, claim, pairs)


def _presigned(request: Signed, known: Credentials, pairs: list[tuple[str, str]], now: float) -> Refusal | None:
    told = dict(pairs)
    if any(name not in told for name in _NEEDED) or told["X-Amz-Algorithm"] != ALGORITHM:
        return Refusal("AuthorizationQueryParametersError", f"Query-string authentication needs {', '.join(_NEEDED)}.")
    signed = tuple(told["X-Amz-SignedHeaders"].split(";"))
    claim = _Claim(told["X-Amz-Credential"], told["X-Amz-Date"], signed, told["X-Amz-Signature"], UNSIGNED)
    rest = [pair for pair in pairs if pair[0] != "X-Amz-Signature"]
    return _key(claim, known) or _over(claim, told["X-Amz-Expires"], now) or _compare(request, known, claim, rest)


def _payload(payload: str) -> Refusal | None:
    if not payload:
        return Refusal("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if payload.startswith("STREAMING-"):
        return Refusal("NotImplemented", "Bodies signed in chunks are not known here.")
    return None if _HASH.fullmatch(payload) else Refusal("InvalidArgument", "x-amz-content-sha256 is no SHA-256.")


def _key(claim: _Claim, known: Credentials) -> Refusal | None:
    key, _, scope = claim.credential.partition("/")
    if key != known.access_key:
        return Refusal("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    wanted = f"{claim.stamp[:8]}/{known.region}/{known.service}/aws4_request"
    return (
        None
        if scope == wanted
        else Refusal("AuthorizationHeaderMalformed", f"The credential's scope is wrong; expecting '{wanted}'.")
    )


def _made(claim: _Claim) -> float | None:
    try:
        return datetime.strptime(claim.stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _age(claim: _Claim, now: float) -> Refusal | None:
    made = _made(claim)
    if made is None:
        return Refusal("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    fits = abs(now - made) <= SKEW
    return (
        None
        if fits
        else Refusal(
            "RequestTimeTooSkewed", "The difference between the request time and the server's time is too large."
        )
    )


def _over(claim: _Claim, lasts: str, now: float) -> Refusal | None:
    made = _made(claim)
    if made is None or not re.fullmatch(r"[0-9]{1,6}", lasts) or not 1 <= int(lasts) <= LONGEST:
        return Refusal("AuthorizationQueryParametersError", f"X-Amz-Date or X-Amz-Expires (1 to {LONGEST}) is wrong.")
    if made > now + SKEW:
        return Refusal("AccessDenied", "Request is not valid yet")
    return Refusal("AccessDenied", "Request has expired") if now > made + int(lasts) else None


def _compare(request: Signed, known: Credentials, claim: _Claim, pairs: list[tuple[str, str]]) -> Refusal | None:
    wrong = Refusal("SignatureDoesNotMatch", WRONG_SIGNATURE)
    if "host" not in claim.signed or any(name not in request.headers for name in claim.signed):
        return wrong
    if any(name.startswith("x-amz-") and name not in claim.signed for name in request.headers):
        return Refusal("AccessDenied", "There were headers present in the request which were not signed")
    canonical = canonical_request(request, claim.signed, pairs, claim.payload)
    right = signature(known, claim.stamp[:8], claim.stamp, canonical)
    return None if hmac.compare_digest(right, claim.signature) else wrong


def canonical_request(request: Signed, signed: tuple[str, ...], pairs: list[tuple[str, str]], payload: str) -> bytes:
    """What is signed. The path is decoded and encoded once, the query sorted by its encoded names and values."""
    path = quote(unquote_to_bytes(request.path), safe="/-_.~")
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    query = "&".join(f"{name}={value}" for name, value in encoded)
    headers = "".join(f"{name}:{_tidy(request.headers, name)}\n" for name in signed)
    text = "\n".join((request.method, path, query, headers, ";".join(signed), payload))
    return text.encode("utf-8", "surrogateescape")


def _tidy(headers: Mapping[str, str], name: str) -> str:
    return " ".join(headers[name].split())
