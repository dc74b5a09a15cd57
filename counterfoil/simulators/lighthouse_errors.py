"""How Lighthouse Benefits Documents says no: three shapes of error bodies, by who says it, and the refusals made of them.

`errors` is what the service itself says, `message` what the gateway in front of it says, and a third shape comes from neither.
No request is read here.
"""

import secrets
import uuid
from collections.abc import Mapping

from counterfoil.simulators.side import Side
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Refusals, Reply, retry_after

HTML500 = b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>HTTP Status 500</h1></body></html>"
LIMITED = "API rate limit exceeded"
TOO_LARGE = "Request size limit exceeded"
TOO_LONG = "The server took too long to respond"
NOT_FOUND = "Upload Request Async Status Not Found"
VERIFY = "Failed to verify payload."
BAD = "Invalid field value"


def errors(status: int, title: str, *details: str) -> Reply:
    """The service's own: one entry for each detail, each with its instance and what support would want to see."""
    entries = [
        {
            "detail": detail,
            "status": status,
            "title": title,
            "instance": str(uuid.uuid4()),
            "diagnostics": secrets.token_urlsafe(96),
        }
        for detail in details
    ]
    return Reply(status, encode({"errors": entries}))


def bad(*details: str) -> Reply:
    """400: what is wrong with the request, all of it at once."""
    return errors(400, BAD, *details)


def message(status: int, text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """The gateway's."""
    return Reply(status, encode({"message": text}), dict(headers or {}))


def no_token() -> Reply:
    """401: the token is unknown, has ended or is missing. It carries no status inside."""
    return Reply(401, encode({"errors": [{"title": "Token Validation Error", "detail": "Invalid token."}]}))


def too_large() -> Reply:
    """413; the rest of the request is not wanted."""
    return message(413, TOO_LARGE, {"Connection": "close"})


def too_long() -> Reply:
    """504."""
    return message(504, TOO_LONG)


def _throttled(side: Side) -> Reply:
    return message(429, LIMITED, {"Retry-After": retry_after(side)})


REFUSALS: Refusals = {
    "throttle": _throttled,
    "error500": lambda side: errors(500, "Internal Server Error", "An unexpected error occurred."),
    "error500_verify": lambda side: Reply(500, encode({"status": 500, "error": VERIFY})),
    "error502": lambda side: errors(502, "Bad Gateway", "The claims evidence service did not answer."),
    "error503": lambda side: message(503, "Service unavailable"),
    "error504_unstored": lambda side: too_long(),
    "html500": lambda side: Reply(500, HTML500, content_type="text/html"),
}
