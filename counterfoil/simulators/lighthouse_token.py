"""The token endpoint's judgement: client credentials by a signed assertion (RS256) or by a secret, and the tokens it gave.

An assertion is judged by RFC 7523: its signature first, then who made it, for whom and when. Written from the RFCs, so that it
shares no code with the client it judges. Knows no socket; time is handed in.
"""

import base64
import binascii
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Reply

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SCOPES = ("documents.read", "documents.write")
LONGEST = 300
SKEW = 5.0
Claims = dict[str, Any]


@dataclass(frozen=True)
class Client:
    """The one client that is known: its id, the audience of its assertions, and its public key or its secret."""

    name: str
    audience: str
    key: rsa.RSAPublicKey | None
    secret: str = ""


@dataclass
class Tokens:
    """Tokens that were given: when each ends and what it may be used for. `given` counts all of them."""

    lasts: float
    given: int = 0
    _living: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)

    def give(self, scopes: frozenset[str], now: float) -> str:
        """A new token."""
        self._living = {token: kept for token, kept in self._living.items() if kept[0] > now}
        token = secrets.token_urlsafe(48)
        self._living[token] = (now + self.lasts, scopes)
        self.given += 1
        return token

    def scopes(self, header: str, now: float) -> frozenset[str] | None:
        """What the token in an Authorization header may be used for; None when it is unknown or has ended."""
        kind, _, token = header.partition(" ")
        ends, scopes = self._living.get(token.strip(), (0.0, frozenset[str]()))
        return scopes if kind.lower() == "bearer" and ends > now else None

    def expire(self) -> int:
        """End all of them now; how many there were."""
        count = len(self._living)
        self._living = {}
        return count


class Refused(Exception):
    """The request for a token is refused: an error code of RFC 6749 and its description."""

    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.code, self.status = code, status


def answer(body: bytes, authorization: str, client: Client, tokens: Tokens, now: float, judged: float) -> Reply:
    """A token, or the refusal. Tokens live from `now`; an assertion is judged at `judged` (both epoch seconds)."""
    try:
        form = _form(body)
        _prove(form, authorization, client, judged)
        scopes = _scopes(form)
    except Refused as refused:
        headers = {"WWW-Authenticate": 'Basic realm="token"'} if refused.status == 401 else {}
        told = {"error": refused.code, "error_description": str(refused)}
        return Reply(refused.status, encode(told), {"Cache-Control": "no-store", **headers})
    token = tokens.give(frozenset(scopes), now)
    given = {
        "access_token": token,
        "token_type": "Bearer",
        "scope": " ".join(scopes),
        "expires_in": round(tokens.lasts),
    }
    return Reply(200, encode({**given, "state": None}), {"Cache-Control": "no-store"})


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except (UnicodeDecodeError, ValueError):
        raise Refused("invalid_request", "The body must be form-encoded.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Refused("invalid_request", "A parameter is given more than once.")
    if "grant_type" not in form:
        raise Refused("invalid_request", "grant_type is missing.")
    if form["grant_type"] != "client_credentials":
        raise Refused("unsupported_grant_type", "grant_type must be client_credentials.")
    return form


def _prove(form: Mapping[str, str], authorization: str, client: Client, now: float) -> None:
    """Raises Refused unless the caller is the client."""
    if authorization:
        name, secret = _basic(authorization)
        return _with_secret(name, secret, client, 401)
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise Refused("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}.")
        return check_assertion(form["client_assertion"], client, now)
    return _with_secret(form.get("client_id", ""), form.get("client_secret", ""), client, 400)


def _basic(authorization: str) -> tuple[str, str]:
    kind, _, encoded = authorization.partition(" ")
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        name = secret = ""
    if kind.lower() != "basic" or not name:
        raise Refused("invalid_client", "The Authorization header is no basic one.", 401)
    return unquote_plus(name), unquote_plus(secret)


def _with_secret(name: str, secret: str, client: Client, status: int) -> None:
    right = hmac.compare_digest(name.encode(), client.name.encode())
    if not client.secret or not hmac.compare_digest(secret.encode(), client.secret.encode()) or not right:
        raise Refused("invalid_client", "The client is unknown, or its secret is wrong.", status)


def _scopes(form: Mapping[str, str]) -> list[str]:
    scopes = form.get("scope", "").split()
    if not scopes or not set(scopes) <= set(SCOPES):
        raise Refused("invalid_scope", f"scope must be one or both of: {' '.join(SCOPES)}.")
    return scopes


def check_assertion(assertion: str, client: Client, now: float) -> None:
    """Raises Refused (`invalid_client`) unless the client signed this assertion for this endpoint, and it is valid at `now`."""
    head, _, signature = assertion.rpartition(".")
    header, _, payload = head.partition(".")
    if _json(header).get("alg") != "RS256":
        raise Refused("invalid_client", "client_assertion must be signed with RS256.")
    _verify(head.encode(), signature, client.key)
    claims = _json(payload)
    if claims.get("iss") != client.name or claims.get("sub") != client.name:
        raise Refused("invalid_client", "iss and sub of client_assertion must both be the client id.")
    audience = claims.get("aud")
    if client.audience not in (audience if isinstance(audience, list) else [audience]):
        raise Refused("invalid_client", "aud of client_assertion is not this authorization server.")
    _check_times(claims, now)


def _verify(text: bytes, signature: str, key: rsa.RSAPublicKey | None) -> None:
    if key is None:
        raise Refused("invalid_client", "No public key is known of this client.")
    try:
        key.verify(_decoded(signature), text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refused("invalid_client", "The signature of client_assertion is wrong.") from None


def _check_times(claims: Claims, now: float) -> None:
    made, ends = _number(claims, "iat"), _number(claims, "exp")
    if made > now + SKEW:
        raise Refused("invalid_client", "client_assertion was made in the future.")
    if ends <= now:
        raise Refused("invalid_client", "client_assertion has expired.")
    if ends > made + LONGEST:
        raise Refused("invalid_client", f"client_assertion may be valid for {LONGEST} seconds at most.")


def _number(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise Refused("invalid_client", f"{name} of client_assertion must be a number.")
    return float(value)


def _json(part: str) -> Claims:
    try:
        value = json.loads(_decoded(part))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused("invalid_client", "client_assertion is no signed JSON Web Token.")
    return value


def _decoded(part: str) -> bytes:
    try:
        return base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Refused("invalid_client", "client_assertion is no signed JSON Web Token.") from None


def read_public_key(path: str) -> rsa.RSAPublicKey:
    """The RSA public key of a PEM file. ValueError when it holds none."""
    try:
        key = serialization.load_pem_public_key(Path(path).read_bytes())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no public key in PEM. Make one with `openssl rsa -pubout`.") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError(f"The key in {path} is no RSA key, which RS256 needs.")
    return key


def make_private_key() -> tuple[rsa.RSAPublicKey, bytes]:
    """A new key pair: the public key, and the private key as PEM (PKCS #8, unencrypted)."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return private.public_key(), private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write_private_key(path: str, pem: bytes) -> None:
    """Write it so that only its owner can read it."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(pem)
