"""How S3 says no: an XML document with a code, by which clients know what happened. Codes and their statuses, and the refusals of faults.

No request is read here.
"""

import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape

from counterfoil.simulators.wire import Refusals, Reply

XML = "application/xml"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
STATUS: Mapping[str, int] = {
    "AccessDenied": 403, "AuthorizationHeaderMalformed": 400, "AuthorizationQueryParametersError": 400, "BadDigest": 400,
    "BucketAlreadyOwnedByYou": 409, "BucketNotEmpty": 409, "EntityTooLarge": 400, "EntityTooSmall": 400, "InternalError": 500,
    "InvalidAccessKeyId": 403, "InvalidArgument": 400, "InvalidBucketName": 400, "InvalidPart": 400, "InvalidPartOrder": 400,
    "InvalidRange": 416, "InvalidRequest": 400, "KeyTooLongError": 400, "MalformedXML": 400, "MethodNotAllowed": 405,
    "NoSuchBucket": 404, "NoSuchKey": 404, "NoSuchUpload": 404, "NotImplemented": 501, "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403, "ServiceUnavailable": 503, "SignatureDoesNotMatch": 403, "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}  # fmt: skip


def xml(root: str, inner: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A document with this root."""
    namespace = "" if root == "Error" else ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    body = f"{HEAD}<{root}{namespace}>{inner}</{root}>".encode("utf-8", "replace")
    return Reply(status, body, {"x-amz-request-id": uuid.uuid4().hex[:16].upper(), **(headers or {})}, XML)


def element(name: str, value: object) -> str:
    """One element with text."""
    return f"<{name}>{escape(str(value))}</{name}>"


def error(code: str, message: str, resource: str = "") -> Reply:
    """A refusal with the status of its code."""
    request_id = uuid.uuid4().hex[:16].upper()
    told = (("Code", code), ("Message", message), ("Resource", resource), ("RequestId", request_id))
    return xml(
        "Error", "".join(element(name, value) for name, value in told), STATUS[code], {"x-amz-request-id": request_id}
    )


REFUSALS: Refusals = {
    "slow_down": lambda side: error("SlowDown", "Please reduce your request rate."),
    "error500": lambda side: error("InternalError", "We encountered an internal error. Please try again."),
    "error503": lambda side: error("ServiceUnavailable", "Reduce your request rate."),
    "access_denied": lambda side: error("AccessDenied", "Access Denied"),
}
