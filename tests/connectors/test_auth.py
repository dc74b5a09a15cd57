"""References to the environment and what credentials become on a request."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterfoil.connectors.auth import credentials, fixed_headers, resolve, resolve_all, variables
from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.errors import Misconfigured

ENVIRONMENT = {"A": "one", "B": "two", "EMPTY": "", "LINE": "s3cret\n"}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [("plain", "plain"), ("${A}", "one"), ("x${A}y${B}", "xoneytwo"), ("$A {A} ${}", "$A {A} ${}"), ("", "")],
)
def test_references_are_resolved(text: str, resolved: str) -> None:
    assert resolve(text, ENVIRONMENT) == resolved


@pytest.mark.parametrize(("text", "name"), [("${NOT_SET}", "NOT_SET"), ("${A}${EMPTY}", "EMPTY")])
def test_a_missing_or_empty_variable_is_named(text: str, name: str) -> None:
    with pytest.raises(Misconfigured, match=name):
        resolve(text, ENVIRONMENT)


def test_a_value_is_not_resolved_a_second_time() -> None:
    assert resolve("${A}", {"A": "${B}", "B": "x"}) == "${B}"


def test_nested_values_are_resolved() -> None:
    assert resolve_all({"x": ["${A}", {"y": "${B}"}, 5, None, True]}, ENVIRONMENT) == {
        "x": ["one", {"y": "two"}, 5, None, True]
    }


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        (Auth(), {}),
        (Auth(AuthType.BEARER, {"token": "${A}"}), {"Authorization": "Bearer one"}),
        (Auth(AuthType.API_KEY, {"key": "${A}"}), {"X-API-Key": "one"}),
        (Auth(AuthType.API_KEY, {"key": "${A}", "header": "apikey"}), {"apikey": "one"}),
        (Auth(AuthType.BASIC, {"username": "Aladdin", "password": "open sesame"}),
         {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}),  # the example of RFC 7617
    ],
)  # fmt: skip
def test_headers(auth: Auth, headers: dict[str, str]) -> None:
    assert fixed_headers(auth, credentials(auth, ENVIRONMENT)) == headers


@pytest.mark.parametrize("kind", [kind for kind in AuthType if kind is not AuthType.NONE])
def test_a_missing_value_is_named(kind: AuthType) -> None:
    with pytest.raises(Misconfigured, match="has no `"):
        credentials(Auth(kind, {}), ENVIRONMENT)


def test_a_token_with_a_line_break_is_refused_without_showing_it() -> None:
    with pytest.raises(Misconfigured, match="LINE") as caught:
        credentials(Auth(AuthType.BEARER, {"token": "${LINE}"}), ENVIRONMENT)
    assert "s3cret" not in str(caught.value)


def test_variables_are_named_for_a_message() -> None:
    auth = Auth(AuthType.BASIC, {"username": "me", "password": "${A}"})
    assert variables(auth) == "A"
    assert variables(auth, "username") == "`source.auth`"
    assert variables(auth, "absent") == "`source.auth`"


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from a file\n")
    assert resolve("${T}", {"T_FILE": str(file)}) == "from a file"
    assert resolve("${T}", {"T": "given", "T_FILE": str(file)}) == "given"


@pytest.mark.parametrize("content", [None, ""])
def test_a_file_that_holds_no_secret_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Misconfigured, match="T_FILE names"):
        resolve("${T}", {"T_FILE": str(file)})
