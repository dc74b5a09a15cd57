"""The Lambda function of the loan system: what runs inside the function, whichever runtime carries it.

It dispatches on `functionName` and asks the core for a list or one application, as the real one asks the banking system.
`answer` is used in-process; `lambda_handler` is what AWS's own runtime client calls in a child process, with the core over HTTP.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

Event = dict[str, Any]
Result = dict[str, Any]

LIST_SPELLINGS = (("changedDatSince", "clientId"), ("changed_date_since", "client_id"))
DETAIL_SPELLINGS = (
    ("applicationExternalNumber", "clientId"),
    ("application_external_number", "staff_client_number"),
    ("application_external_number", "client_id"),
)


class CoreError(Exception):
    """The loan system behind the function gave up; AWS reports it as a FunctionError."""


class Core(Protocol):
    """The loan system behind the function. Each call gives the JSON text, None when there is no such application."""

    def changed_since(self, day: str) -> str | None:
        """The list of applications saved on or after a local date; None when the date is none."""

    def application(self, number: str) -> str | None:
        """One application."""


@dataclass(frozen=True)
class Names:
    """The values of `functionName`."""

    by_date: str = "applications-by-date"
    medium: str = "application-medium"


def answer(event: object, core: Core, names: Names, fault: str | None = None) -> Result:
    """{"statusCode": int, "body": JSON text} for one event. Raises CoreError when the fault is `function_error`."""
    if fault == "function_error":
        raise CoreError("The core did not answer: connection reset by peer")
    if fault in SPOILT:
        return SPOILT[fault]
    result = _dispatch(event if isinstance(event, dict) else {}, core, names)
    if fault == "invalid_json":
        return {**result, "body": result["body"][: max(1, len(result["body"]) // 2)]}
    return result


def _dispatch(event: Event, core: Core, names: Names) -> Result:
    called = event.get("functionName")
    if called == names.by_date:
        return _by_date(event, core)
    if called == names.medium:
        return _medium(event, core)
    return _result(400, {"message": f"functionName {called!r} is not known."})


def _by_date(event: Event, core: Core) -> Result:
    value = spelt(event, LIST_SPELLINGS)
    if value is None:
        return _result(400, {"message": "changedDatSince and clientId are required."})
    found = core.changed_since(value[1])
    if found is None:
        return _result(400, {"message": f"changedDatSince must be YYYY-MM-DD, not {value[1]!r}."})
    return {"statusCode": 200, "body": found}


def _medium(event: Event, core: Core) -> Result:
    value = spelt(event, DETAIL_SPELLINGS)
    if value is None:
        return _result(400, {"message": "applicationExternalNumber and clientId are required."})
    found = core.application(value[1])
    return (
        {"statusCode": 200, "body": found} if found else _result(404, {"message": f"Application {value[1]} not found."})
    )


def spelt(event: Event, spellings: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """The first spelling (key name, value) whose keys are all there as non-empty strings; None when there is none."""
    for key, client in spellings:
        if isinstance(event.get(key), str) and event[key] and event.get(client):
            return key, event[key]
    return None


def _result(status: int, body: Mapping[str, object]) -> Result:
    return {"statusCode": status, "body": json.dumps(body)}


SPOILT: dict[str | None, Result] = {
    "error_body": {"statusCode": 200, "body": '{"error":{"code":"internal","message":"Something went wrong."}}'},
    "status500": {"statusCode": 500, "body": '{"message":"Internal server error"}'},
    "html": {"statusCode": 200, "body": "<!DOCTYPE html><html><body><h1>Please sign in</h1></body></html>"},
    "empty_body": {"statusCode": 200, "body": ""},
}


class HttpCore:
    """The core as a child process sees it: over HTTP, at the simulator's private address."""

    def __init__(self, url: str) -> None:
        self._url = url

    def changed_since(self, day: str) -> str | None:
        """The list, see Core."""
        return self._get(f"/core/changed/{quote(day, safe='')}")

    def application(self, number: str) -> str | None:
        """One application, see Core."""
        return self._get(f"/core/application/{quote(number, safe='')}")

    def _get(self, path: str) -> str | None:
        try:
            with urlopen(self._url + path, timeout=60) as response:
                text: str = response.read().decode()
                return text
        except HTTPError as error:
            if error.code == 404:
                return None
            raise CoreError(f"The core answered {error.code}") from error


def lambda_handler(event: object, context: Any) -> Result:
    """Entry point for AWS's runtime client. The fault to play comes in the client context, the core's address in the environment."""
    custom = getattr(getattr(context, "client_context", None), "custom", None) or {}
    names = Names(os.environ["OCC_BY_DATE"], os.environ["OCC_MEDIUM"])
    return answer(event, HttpCore(os.environ["OCC_CORE"]), names, custom.get("fault"))
