"""Tokens, judged by PyJWT: what it makes is taken, what we make it takes, and each kind of wrong one is refused in words."""

import json
from typing import Any

import jwt
import pytest

from counterfoil.simulators import tokens

SECRET = "a-secret-of-more-than-thirty-two-bytes"
NOW = 1_800_000_000.0
RIGHT = {"session-data": "sync@example.com", "iat": int(NOW), "exp": int(NOW) + 3600}


def made(claims: Any = RIGHT, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """A token of PyJWT's."""
    return jwt.encode(claims, secret, algorithm)


def test_what_pyjwt_makes_is_taken() -> None:
    assert tokens.refusal(made(), SECRET, NOW) is None
    assert tokens.refusal(made({**RIGHT, "name": "Zoë"}), SECRET, NOW) is None


def test_what_we_make_pyjwt_takes() -> None:
    token = tokens.sign("sync@example.com", SECRET, NOW)
    assert tokens.refusal(token, SECRET, NOW) is None
    told = jwt.decode(token, SECRET, ["HS256"], options={"verify_exp": False, "verify_iat": False})
    assert told == RIGHT


@pytest.mark.parametrize(
    ("token", "said"),
    [(made(secret="x" * 40), "signature"), (made(secret=SECRET * 2, algorithm="HS512"), "signature"), ("", "signature"), ("a.b.c", "signature"),
     (made() + "=", "signature"), (made() + "x", "signature"), (made().rpartition(".")[0] + ".", "signature"), ("\udcff.\udcfe.x", "signature"),
     (made() + ".x", "signature"), (jwt.encode(RIGHT, None, "none"), "signature"), (made({**RIGHT, "session-data": "nobody"}), "session-data"),
     (made({"iat": RIGHT["iat"], "exp": RIGHT["exp"]}), "session-data"), (made({**RIGHT, "session-data": ["@"]}), "session-data"),
     (made({"session-data": "a@b", "iat": 1}), "exp"), (made({"session-data": "a@b", "exp": 2**40}), "iat"),
     (made({**RIGHT, "exp": True}), "exp"), (made({**RIGHT, "exp": int(NOW)}), "expired"), (made({**RIGHT, "iat": int(NOW) + 90}), "future")],
)  # fmt: skip
def test_a_wrong_token(token: str, said: str) -> None:
    refusal = tokens.refusal(token, SECRET, NOW)
    assert refusal is not None
    assert said in refusal


def test_a_token_whose_claims_were_changed_is_refused() -> None:
    head, _, signature = made().split(".")
    claims = tokens._encoded(json.dumps({**RIGHT, "exp": 2**40}).encode()).decode()
    assert tokens.refusal(f"{head}.{claims}.{signature}", SECRET, NOW) == "The token's signature is wrong."


def test_the_algorithm_is_not_the_callers_choice() -> None:
    """Signed rightly as HS256 is, but its header claims another algorithm."""
    parts = (tokens._encoded(json.dumps(part).encode()) for part in ({"alg": "none"}, RIGHT))
    text = b".".join(parts)
    token = b".".join((text, tokens._signature(text, SECRET))).decode()
    assert tokens.refusal(token, SECRET, NOW) == "The token is not signed with HS256."
