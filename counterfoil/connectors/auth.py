"""Credentials: `${NAME}` references resolved from a mapping that is passed in, and what they become on a request.

No other module of the connectors sees a secret. Nothing here reads the process environment, and no message holds a value.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from counterfoil.flows.flow import Auth, AuthType
from counterfoil.model.errors import Misconfigured

# Method, URL as sent, headers, body -> all headers to send.
Signer = Callable[[str, str, Mapping[str, str], bytes], dict[str, str]]

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
        if _CONTROL.search(value):
            raise Misconfigured(
                f"`source.auth.{name}` holds a line break or another control character.",
                f"Look at {variables(auth, name)}: a newline at its end is the usual cause.",
            )
    return values


def fixed_headers(auth: Auth, values: Mapping[str, str]) -> dict[str, str]:
    """The headers that are the same on each request; none for sigv4, which signs each one."""
    if auth.type is AuthType.BEARER:
        return {"Authorization": f"Bearer {values['token']}"}
    if auth.type is AuthType.API_KEY:
        return {values.get("header", "X-API-Key"): values["key"]}
    if auth.type is AuthType.BASIC:
        pair = f"{values['username']}:{values['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}
    return {}


def sigv4_signer(values: Mapping[str, str], service: str) -> Signer:
    """AWS Signature Version 4 with the values `access_key`, `secret_key`, `region` and maybe `session_token`."""
    # Imported here: 130 ms, and only a source that signs needs it.
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(values["access_key"], values["secret_key"], values.get("session_token") or None)
    signature = SigV4Auth(keys, values.get("service", service), values["region"])

    def sign(method: str, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        signature.add_auth(request)
        return dict(request.headers.items())

    return sign


def _variable(name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name, "")
    if not value:
        raise Misconfigured(
            f"The environment variable {name} is {'empty' if name in environment else 'not set'}.",
            f"Set it in the environment of this process: export {name}=…",
        )
    return value
