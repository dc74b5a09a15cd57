"""The two shapes of error of the deputy gateway: `errors` of the gateway itself, `error` of the function behind it.

A table says what each of the gateway's codes is answered with. When which is said stands in deputy_gateway.py and
gateway_function.py.
"""

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Reply

PREFIX = "OPGDATA-API-"


@dataclass(frozen=True, slots=True)
class Said:
    """What goes with a code."""

    status: int
    title: str
    detail: str


GATEWAY = {
    "INVALIDREQUEST": Said(400, "Invalid Request", "The body of the request does not keep to the contract."),
    "BAD_REQUEST_PARAMETERS": Said(400, "Bad Request Parameters", "The path of the request is wrong."),
    "MISSING_AUTHENTICATION_TOKEN": Said(403, "Missing Authentication Token", "The request is not signed."),
    "INVALID_SIGNATURE": Said(403, "Invalid Signature", "The signature of the request is wrong."),
    "EXPIRED_TOKEN": Said(403, "Expired Token", "The security token of the request has expired."),
    "FORBIDDEN": Said(403, "Access Denied", "Who signed the request may not do this."),
    "NOTFOUND": Said(404, "Not Found", "There is nothing at this path."),
    "FILESIZELIMIT": Said(413, "Payload Too Large", "The body of the request is larger than is taken."),
    "MEDIA": Said(415, "Unsupported Media Type", "The body of the request has to be application/json."),
    "THROTTLED": Said(429, "Too Many Requests", "There are more requests than are taken at a time."),
    "QUOTA_EXCEEDED": Said(429, "Quota Exceeded", "There are more requests than are allowed for the period."),
    "SERVERERROR": Said(500, "Internal Server Error", "The gateway failed."),
    "INTEGRATION_FAILURE": Said(504, "Integration Failure", "What stands behind the gateway failed."),
    "INTEGRATION_TIMEOUT": Said(504, "Integration Timeout", "What stands behind the gateway took too long."),
}

FUNCTION_TITLES = {
    "INVALIDREQUEST": "Invalid Request",
    "NOT-ALLOWED": "Method Not Allowed",
    "SERVERERROR": "Internal Server Error",
    "UNAVAILABLE": "Service Unavailable",
    "DUPLICATE": "Filed Before",
}

CRASH_PAGE = (
    b"<!doctype html>\n<html lang=en>\n<title>500 Internal Server Error</title>\n<h1>Internal Server Error</h1>\n"
    b"<p>The application met a fault that it had not foreseen.</p>\n"
)


def gateway_error(code: str, details: Iterable[str] = ()) -> Reply:
    """An error of the gateway in the plural shape: an object, or with details a list with one entry for each."""
    said, told = GATEWAY[code], list(details)
    entries = [_entry(code, said.title, detail) for detail in told or [said.detail]]
    return Reply(said.status, encode({"errors": entries if told else entries[0]}))


def function_error(status: int, code: str, detail: str, **more: str) -> Reply:
    """An error of the function in the singular shape; `more` stands beside its code."""
    head = {"isBase64Encoded": False, "statusCode": status, "headers": {"Content-Type": "application/json"}}
    error = {"id": str(uuid.uuid4()), "code": PREFIX + code, "title": FUNCTION_TITLES[code], "detail": detail, **more}
    return Reply(status, encode({**head, "error": error}))


def crash_page() -> Reply:
    """What the function's web framework answers when the function crashed."""
    return Reply(500, CRASH_PAGE, content_type="text/html")


def trace_id() -> str:
    """A trace id as AWS X-Ray writes it."""
    return f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"


def _entry(code: str, title: str, detail: str) -> dict[str, object]:
    meta = {"x-ray": trace_id()}
    return {"id": str(uuid.uuid4()), "code": PREFIX + code, "title": title, "detail": detail, "meta": meta}
