"""The token endpoint of the upload service: client credentials by signed assertion (RS256) or secret, tokens that end. Knows no upload."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Reply

TOKEN_PATH = "/oauth2/benefits-documents/system/v1/token"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CLIENT = "simulator-client"
ASSERTION_LIFE = 300
LEEWAY = 5


@dataclass
class Tokens:
    """Tokens that are good, by their text: until when."""

    clock: Callable[[], float]
    client_id: str
    client_secret: str
    audience: str
    life: float
    public_key: Any
    good: dict[str, float] = field(default_factory=dict)
    given: int = 0

    def answer(self, body: bytes) -> Reply:
        """What the endpoint answers to a form."""
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        if form.get("grant_type") != "client_credentials":
            return _error("unsupported_grant_type", "The grant type is not supported.")
        if why := self._refused(form):
            return _error("invalid_client", why)
        token = secrets.token_urlsafe(24)
        self.good[token] = self.clock() + self.life
        self.given += 1
        reply = {
            "access_token": token,
            "token_type": "Bearer",
            "scope": form.get("scope", ""),
            "expires_in": int(self.life),
        }
        return Reply(200, encode({**reply, "state": None}))

    def takes(self, header: str) -> bool:
        """Whether an Authorization header holds a token that is good now."""
        return self.good.get(header.removeprefix("Bearer "), 0.0) > self.clock()

    def _refused(self, form: dict[str, str]) -> str:
        if "client_assertion" not in form:
            right = self.client_secret and secrets.compare_digest(form.get("client_secret", ""), self.client_secret)
            return "" if right and form.get("client_id") == self.client_id else "The client is not known."
        if form.get("client_assertion_type") != ASSERTION:
            return "The assertion type is not supported."
        claims = self._claims(form["client_assertion"])
        if claims is None:
            return "The assertion's signature is not right."
        now = self.clock()
        if claims.get("iss") != self.client_id or claims.get("sub") != self.client_id:
            return "The assertion is of another client."
        if self.audience and claims.get("aud") != self.audience:
            return "The assertion is for another audience."
        issued, ends = float(claims.get("iat", 0)), float(claims.get("exp", 0))
        if ends <= now or issued > now + LEEWAY or ends - issued > ASSERTION_LIFE:
            return "The assertion has expired, is from the future, or lives too long."
        return ""

    def _claims(self, token: str) -> dict[str, Any] | None:
        try:
            head, body, signature = token.split(".")
            if json.loads(_unpadded(head)).get("alg") != "RS256":
                return None
            self.public_key.verify(_unpadded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
            claims = json.loads(_unpadded(body))
        except (ValueError, InvalidSignature, AttributeError):
            return None
        return claims if isinstance(claims, dict) else None


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _error(code: str, description: str) -> Reply:
    return Reply(400, encode({"error": code, "error_description": description}))


def public_key_of(path: str, private_out: str) -> Any:
    """The client's public key: from a file, or of a pair made now, whose private half goes to `private_out`. ValueError for no key."""
    if path:
        return serialization.load_pem_public_key(Path(path).read_bytes())
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if private_out:
        kind = serialization.PrivateFormat.PKCS8
        pem = private.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
        Path(private_out).touch(mode=0o600)
        Path(private_out).write_bytes(pem)
    return private.public_key()
