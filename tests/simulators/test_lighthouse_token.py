"""The token endpoint: who gets a token, who does not and why, how long it lasts; its check is judged by PyJWT's signatures."""

import base64
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from counterfoil.simulators import lighthouse_documents as lighthouse
from counterfoil.simulators.lighthouse_token import Client, Refused, check_assertion, make_private_key, read_public_key
from tests.simulators.lighthouse import opened

PUBLIC, PRIVATE = make_private_key()
OTHER = make_private_key()[1]
CLIENT = Client("client", "https://example.org/token", PUBLIC)
NOW = 1_800_000_000.0


def made(key: Any = PRIVATE, algorithm: str = "RS256", **claims: Any) -> str:
    own = {"iss": "client", "sub": "client", "aud": CLIENT.audience, "iat": int(NOW), "exp": int(NOW) + 300}
    told = {name: value for name, value in {**own, **claims}.items() if value is not None}
    return jwt.encode(told, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "claims", [{}, {"aud": ["https://elsewhere", CLIENT.audience]}, {"exp": NOW + 0.5}, {"iat": NOW + 4}, {"jti": "a"}]
)
def test_a_right_assertion(claims: dict[str, Any]) -> None:
    check_assertion(made(**claims), CLIENT, NOW)


@pytest.mark.parametrize(
    ("assertion", "said"),
    [
        (lambda: made(key=OTHER), "signature"),
        (lambda: made("secret-of-thirty-two-characters!", "HS256"), "RS256"),
        (lambda: made(None, "none"), "RS256"),
        (lambda: made()[:-8] + "AAAAAAAA", "signature"),
        (lambda: ".".join((made().split(".")[0], made(sub="x").split(".")[1], made().split(".")[2])), "signature"),
        (lambda: made(iss="other"), "iss and sub"),
        (lambda: made(sub=None), "iss and sub"),
        (lambda: made(aud="https://elsewhere"), "aud"),
        (lambda: made(aud=None), "aud"),
        (lambda: made(exp=int(NOW)), "expired"),
        (lambda: made(iat=int(NOW) - 400, exp=int(NOW) - 100), "expired"),
        (lambda: made(iat=int(NOW) + 60, exp=int(NOW) + 300), "future"),
        (lambda: made(exp=int(NOW) + 301), "300 seconds"),
        (lambda: made(iat=None), "iat"),
        (lambda: made(exp=None), "exp"),
        (lambda: made(iat=float("nan")), "iat"),
        (lambda: made(exp=10**400), "exp"),
        (lambda: "not.a.token", "no signed JSON Web Token"),
        (lambda: "", "no signed JSON Web Token"),
        (lambda: "ü.ü.ü", "no signed JSON Web Token"),
    ],
)
def test_a_wrong_assertion(assertion: Any, said: str) -> None:
    with pytest.raises(Refused, match=said) as raised:
        check_assertion(assertion(), CLIENT, NOW)
    assert raised.value.code == "invalid_client"


def test_without_a_key_no_assertion_is_right() -> None:
    with pytest.raises(Refused, match="No public key"):
        check_assertion(made(), Client("client", CLIENT.audience, None), NOW)


async def test_a_token_as_the_real_one_gives_it() -> None:
    async with opened(login=False) as caller:
        answer = await caller.ask_token()
        assert answer.status == 200
        told = answer.json
        assert isinstance(told.pop("access_token"), str)
        scope = "documents.read documents.write"
        assert told == {"token_type": "Bearer", "scope": scope, "expires_in": 600, "state": None}
        assert (await caller.control("/record")).json["tokens"] == 1


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"client_assertion_type": "jwt"}, "invalid_request"),
        ({"client_assertion": "x"}, "invalid_client"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "documents.read everything"}, "invalid_scope"),
    ],
)
async def test_a_wrong_form_is_refused_as_the_rfc_says(form: dict[str, str], code: str) -> None:
    async with opened(login=False) as caller:
        answer = await caller.ask_token(**form)
        assert (answer.status, answer.json["error"]) == (400, code)
        assert answer.json["error_description"]


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"a=1;b", b"scope=x", b"grant_type=client_credentials&grant_type=client_credentials"]
)
async def test_a_broken_form_is_refused(body: bytes) -> None:
    async with opened(login=False) as caller:
        answer = await caller.send("POST", lighthouse.TOKEN_PATH, data=body)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_an_expired_and_a_future_assertion_over_the_wire() -> None:
    async with opened(login=False) as caller:
        now = int(time.time())
        late = await caller.ask_token(caller.assertion(iat=now - 301, exp=now - 1))
        early = await caller.ask_token(caller.assertion(iat=now + 60, exp=now + 360))
        assert [answer.json["error"] for answer in (late, early)] == ["invalid_client", "invalid_client"]
        assert ("expired" in late.json["error_description"], "future" in early.json["error_description"]) == (
            True,
            True,
        )


async def test_assertions_go_by_the_real_clock_unless_told_otherwise() -> None:
    async with opened(login=False) as caller:
        await caller.forward(3600)
        assert (await caller.ask_token()).status == 200
    async with opened(login=False, assertion_clock="simulated") as caller:
        await caller.forward(3600)
        assert (await caller.ask_token()).status == 400
        now = int(time.time()) + 3600
        assert (await caller.ask_token(caller.assertion(iat=now, exp=now + 300))).status == 200


async def test_a_token_lasts_600_seconds_of_the_simulators_clock() -> None:
    async with opened() as caller:
        request_id = await caller.stored()
        await caller.forward(595)
        assert (await caller.bulk(request_id)).status == 200
        await caller.forward(6)
        refused = await caller.bulk(request_id)
        assert refused.status == 401
        assert refused.json == {"errors": [{"title": "Token Validation Error", "detail": "Invalid token."}]}
        await caller.login()
        assert (await caller.bulk(request_id)).status == 200
        assert (await caller.control("/record")).json["tokens"] == 2


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer unknown", "Basic {token}", "{token}"])
async def test_without_a_right_token_there_is_no_answer(header: str) -> None:
    async with opened() as caller:
        answer = await caller.call(
            "GET", "/uploads/1/status", headers={"Authorization": header.format(token=caller.token)}
        )
        assert answer.status == 401


async def test_a_token_serves_its_scopes_only() -> None:
    async with opened(login=False) as caller:
        await caller.login(scope="documents.read")
        assert (await caller.upload()).status == 403
        assert (await caller.bulk(1)).status == 404
        await caller.login(scope="documents.write")
        assert (await caller.upload()).status == 200
        assert (await caller.bulk(1)).status == 403


async def test_all_tokens_can_be_ended_at_once() -> None:
    async with opened() as caller:
        assert (await caller.send("POST", "/_sim/expire")).json == {"expired": 1}
        assert (await caller.upload()).status == 401


async def test_a_secret_in_the_form_or_in_the_header() -> None:
    plain = {"grant_type": "client_credentials", "scope": "documents.read"}
    async with opened(login=False, client_secret="s3cret") as caller:

        async def ask(**more: Any) -> int:
            form = {**plain, **more.pop("form", {})}
            return (await caller.send("POST", lighthouse.TOKEN_PATH, data=form, **more)).status

        assert await ask(form={"client_id": "simulator-client", "client_secret": "s3cret"}) == 200
        assert await ask(form={"client_id": "simulator-client", "client_secret": "other"}) == 400
        assert await ask(form={"client_id": "other", "client_secret": "s3cret"}) == 400
        assert await ask() == 400
        for user, status in (("simulator-client:s3cret", 200), ("simulator-client:", 401), (":s3cret", 401)):
            header = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
            assert await ask(headers=header) == status
        assert await ask(headers={"Authorization": "Basic ?"}) == 401
        assert (await caller.ask_token()).status == 200


async def test_no_secret_is_right_where_none_was_given() -> None:
    async with opened(login=False) as caller:
        form = {
            "grant_type": "client_credentials",
            "scope": "documents.read",
            "client_id": "simulator-client",
            "client_secret": "",
        }
        assert (await caller.send("POST", lighthouse.TOKEN_PATH, data=form)).json["error"] == "invalid_client"


async def test_the_key_pair_that_it_makes(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    async with opened(login=False, private_key_out=str(path)) as caller:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = (await caller.control("/key")).json
        assert key["private_key"] == path.read_text()
        answer = await caller.ask_token(caller.assertion(key=path.read_text(), aud=key["audience"]))
        assert answer.status == 200


async def test_a_public_key_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(pem(PUBLIC))
    async with opened(
        login=False, public_key=str(path), audience="https://example.org/token", client_id="me"
    ) as caller:
        assert (await caller.ask_token(caller.assertion(key=PRIVATE, aud="https://example.org/token"))).status == 200
        assert (await caller.ask_token(caller.assertion(key=PRIVATE))).status == 400
        assert (await caller.ask_token(caller.assertion(key=OTHER, aud="https://example.org/token"))).status == 400
        assert (await caller.control("/key")).json["private_key"] == ""


@pytest.mark.parametrize(("content", "said"), [(b"no key", "no public key"), (None, "no RSA key")])
def test_a_file_that_holds_no_such_key(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "public.pem"
    path.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()).public_key()) if content is None else content)
    with pytest.raises(ValueError, match=said):
        read_public_key(str(path))


def pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
