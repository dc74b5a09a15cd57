"""Credentials: `${NAME}` references resolved from a mapping that is passed in, or from the files that `NAME_FILE` names.

Nothing here reads the process environment, and no message holds a value. What puts them on a request stands in `authorise.py`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.errors import Misconfigured

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEEDED: Mapping[AuthType, tuple[str, ...]] = {
    AuthType.NONE: (),
    AuthType.BEARER: ("token",),
    AuthType.API_KEY: ("key",),
    AuthType.BASIC: ("username", "password"),
    AuthType.SIGV4: ("access_key", "secret_key", "region"),
    AuthType.JWT: ("algorithm",),
    AuthType.OAUTH: ("token_url", "client_id"),
}


def resolve(value: str, environment: Mapping[str, str]) -> str:
    """`value` with each `${NAME}` replaced. Raises Misconfigured naming a variable that is missing or empty."""
    return _REFERENCE.sub(lambda match: _variable(match.group(1), environment), value)


def resolve_all(value: Any, environment: Mapping[str, str]) -> Any:
    """`resolve` for every string inside nested lists and mappings."""
    if isinstance(value, str):
        return resolve(value, environment)
    if isinstance(value, Mapping):
        return {name: resolve_all(inner, environment) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [resolve_all(inner, environment) for inner in value]
    return value


def variables(auth: Auth, *names: str) -> str:
    """Where the credentials were declared, for a message: the variables named by `names` (default: all), else the settings."""
    chosen = [auth.values[name] for name in names or tuple(auth.values) if name in auth.values]
    found = list(dict.fromkeys(name for value in chosen for name in _REFERENCE.findall(value)))
    return ", ".join(found) if found else "`source.auth`"


def credentials(auth: Auth, environment: Mapping[str, str]) -> dict[str, str]:
    """The resolved values, complete for their type. Raises Misconfigured for one that is missing or cannot stand in a header."""
    for name in _NEEDED[auth.type]:
        if name not in auth.values:
            raise Misconfigured(
                f"`source.auth` of type {auth.type} has no `{name}`.", f'Add `{name}: "${{NAME}}"` to `source.auth`.'
            )
    values = {name: resolve(value, environment) for name, value in auth.values.items()}
    for name, value in values.items():
        if name != "private_key" and _CONTROL.search(value):
            raise Misconfigured(
                f"`source.auth.{name}` holds a line break or another control character.",
                f"Look at {variables(auth, name)}: a newline at its end is the usual cause.",
            )
    return values


def fixed_headers(auth: Auth, values: Mapping[str, str]) -> dict[str, str]:
    """The headers that are the same on each request; none for what signs each one (`authorise.py`)."""
    if auth.type is AuthType.BEARER:
        return {"Authorization": f"Bearer {values['token']}"}
    if auth.type is AuthType.API_KEY:
        return {values.get("header", "X-API-Key"): values["key"]}
    if auth.type is AuthType.BASIC:
        pair = f"{values['username']}:{values['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    return {}


def _variable(name: str, environment: Mapping[str, str]) -> str:
    """The variable, or the content of the file that NAME_FILE names: secrets may stand in files."""
    value = environment.get(name, "")
    if not value and environment.get(f"{name}_FILE"):
        return _from_file(name, environment[f"{name}_FILE"])
    if not value:
        raise Misconfigured(
            f"The environment variable {name} is {'empty' if name in environment else 'not set'}.",
            f"Set it in the environment of this process: export {name}=…",
        )
    return value


def _from_file(name: str, path: str) -> str:
    try:
        text = Path(path).read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"The file that {name}_FILE names can't be read ({type(error).__name__}).", "Check path and permissions."
        ) from error
    if not text:
        raise Misconfigured(f"The file that {name}_FILE names is empty.", "Put the secret into it.")
    return text
