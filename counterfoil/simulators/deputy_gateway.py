"""Seed 000's gateway and the function behind it, in front of a case system: signatures, contract, both error shapes, and lost replies.

POST /v2/clients/{caseref}/reports and what hangs on a report. Start it with `python -m counterfoil.simulators.deputy_gateway`. Imports
nothing of counterfoil but its fellow simulators.
"""

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from counterfoil.simulators import options
from counterfoil.simulators.case_system import PATH, System, content_of, documents_of, secret_of
from counterfoil.simulators.contracts import EXAMPLES, Contract, Operation, bad_body, bad_parameters
from counterfoil.simulators.documents import Documents, ProblemError
from counterfoil.simulators.receiver import AFTER, Before, Call, Receiver, Sending, plain, receiving
from counterfoil.simulators.sigv4 import Credentials, Refusal, Signed, verify
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import HTML, Reply, run

CODE = "OPGDATA-API-"
TYPES = {"createReport": "Report", "createSupportingDocument": "Report - General"}
TITLES = {"createReport": "reports", "createSupportingDocument": "supportingdocuments"}
BODIES = {"createReport": "report", "createSupportingDocument": "supporting_document"}
KNOWN = (
    "throttle", "quota", "forbidden", "expired_token", "error500", "error500_html", "error503", "timeout_504_unstored", "disconnect", "latency",
    "timeout_504", *AFTER,
)  # fmt: skip
ENDPOINTS = ("report", "supporting_document", "checklist", "store", "replace", "find")


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the gateway and of the case system behind it."""

    access_key: str = options.option("AKIDSIMULATOR", "the access key that is known")
    secret_key: str = options.option("simulator-secret", "its secret")
    region: str = options.option("eu-west-1", "the region signatures are made for")
    contract: str = options.option("", "the OpenAPI file calls are held to; without it that of the example")
    body_limit: int = options.option(10 * 1024 * 1024, "the largest body in bytes", int)
    gateway_timeout: float = options.option(
        29.0, "after so long the gateway gives up on what is behind it", options.duration
    )
    file_store: str = options.option(
        "", "folder with the files that s3_reference names; without it any name is a small file"
    )
    unknown_case: tuple[str, ...] = options.option(
        (), "a case number that nobody has; without one those ending in 9999", str, True
    )
    secret: str = options.option(
        "", "the secret of a JWT for the case system's own search, which is served here too; else CASE_SYSTEM_SECRET"
    )
    duplicates: str = options.option("accept", "the same document again: accept, refuse or flag")
    visible_after: float = options.option(
        0.0, "so long after it was stored a document is found by a search", options.duration
    )


@dataclass
class Gateway:
    """One running gateway."""

    receiver: Receiver
    options: Options
    documents: Documents
    contract: Contract
    credentials: Credentials
    system: System

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """The gateway's own part: everything it refuses before the function behind it is called."""
        path = request.rel_url.raw_path
        if path.startswith(PATH):  # the case system's own door, for those who were given a key to it
            return await self.system.classify(request)
        body = await request.read()
        if path == f"{self.contract.base}/healthcheck":
            return Reply(200, b'{"status":"OK"}')
        if refusal := self._signature(request, path, body):
            return gateway_error(403, _SIGNATURE.get(refusal.kind, "FORBIDDEN"), refusal.message)
        found = self.contract.operation(request.method, path)
        if found is None:
            return gateway_error(404, "NOTFOUND", "The requested resource was not found.")
        operation, values = found
        if len(body) > self.options.body_limit:
            return gateway_error(413, "FILESIZELIMIT", "Payload too large.")
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            return gateway_error(415, "MEDIA", "Unsupported media type.")
        if wrong := bad_parameters(operation, values):
            return gateway_error(400, "BAD_REQUEST_PARAMETERS", f"Invalid path parameters: {', '.join(wrong)}.")
        document = _json(body)
        if wrong := bad_body(operation, document):
            return gateway_error(400, "INVALIDREQUEST", "; ".join(wrong[:3]), many=True)
        return self._call(operation, values, document)

    def _signature(self, request: web.BaseRequest, path: str, body: bytes) -> Refusal | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        signed = Signed(request.method, path, request.rel_url.raw_query_string, headers, body)
        return verify(signed, self.credentials, self.receiver.clock())

    # --- the function behind it -------------------------------------------------------------------------------

    def _call(self, operation: Operation, values: Mapping[str, str], body: dict[str, Any]) -> Call:
        envelope = BODIES.get(operation.id, "checklist")
        data = body[envelope]["data"]
        stored: list[str] = []
        name = data["file"]["name"]
        key = f"{values['caseref']}/{data['attributes'].get('submission_id')}/{name}"
        return Call(
            endpoint=envelope,
            key=key,
            answer=partial(self._function, operation, values, data, stored),
            lost=partial(self._lost, stored),
        )

    async def _function(
        self, operation: Operation, values: Mapping[str, str], data: dict[str, Any], stored: list[str]
    ) -> Reply:
        given: dict[str, Any] = {
            "type": TYPES.get(operation.id, "Report - Checklist"),
            "caseRecNumber": values["caseref"],
            "metadata": {**data["attributes"], **({"report_id": values["id"]} if "id" in values else {})},
            "file": {
                "name": data["file"]["name"],
                "type": data["file"]["mimetype"],
                "source": self._source(data["file"]),
            },
        }
        try:
            if operation.id == "updateChecklist":
                document = self.documents.replace(values["checklistId"], given, content_of(given))
                stored.append(document.uuid)
                return Reply(200, self._answer(operation, data, document.uuid, None))
            if operation.id == "createSupportingDocument":
                given["parentUuid"] = await self._parent(values, data)
            document, before = self.documents.store(given, content_of(given), self.receiver.clock())
        except ProblemError as error:
            return self._refused(error)
        stored.append(document.uuid)
        if before and self.options.duplicates == "refuse":
            more = {"meta": {"existing": document.uuid}}
            return function_error(
                400, "INVALIDREQUEST", "Validation failed in Sirius - the document already exists", more
            )
        flag = {"duplicate": True} if before and self.options.duplicates == "flag" else {}
        return Reply(201, self._answer(operation, data, document.uuid, document.parent, flag))

    def _refused(self, error: ProblemError) -> Reply:
        """What the case system refuses, as the function passes it on; it makes a 404 a 400."""
        if error.status == 404:
            return function_error(400, "INVALIDREQUEST", "Could not verify URL params in Sirius")
        detail = f"{error.detail} - {error.errors}" if error.errors else error.detail
        return function_error(400, "INVALIDREQUEST", f"Validation failed in Sirius - {detail}")

    def _source(self, file: Mapping[str, Any]) -> str | None:
        """The file's content in base64: inline, or from the sender's store; a file that is missing there is nothing."""
        if file.get("source"):
            return str(file["source"])
        reference = file.get("s3_reference")
        if not isinstance(reference, str) or not reference:
            return None
        if not self.options.file_store:
            return base64.b64encode(f"content of {reference}".encode()).decode()
        folder = Path(self.options.file_store).resolve()
        path = (folder / reference).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        return base64.b64encode(path.read_bytes()).decode()

    async def _parent(self, values: Mapping[str, str], data: Mapping[str, Any]) -> str | None:
        """An earlier supporting document of the same submission becomes the parent. Two at once both find nothing: the real one's race."""
        wanted = {"submission_id": str(data["attributes"].get("submission_id")), "report_id": values["id"]}
        found = self.documents.find(values["caseref"], wanted, self.receiver.clock())
        await asyncio.sleep(0)
        return next((one.uuid for one in found if one.kind == "Report - General" and one.parent is None), None)

    def _answer(
        self,
        operation: Operation,
        data: Mapping[str, Any],
        known: str,
        parent: str | None,
        flag: Mapping[str, Any] | None = None,
    ) -> bytes:
        attributes = {"submission_id": data["attributes"].get("submission_id"), "parent_id": parent, **(flag or {})}
        return encode({"data": {"type": TITLES.get(operation.id, "checklists"), "id": known, "attributes": attributes}})

    def _lost(self, stored: list[str]) -> None:
        for known in stored:
            self.documents.by_uuid[known].lost += 1


_SIGNATURE = {
    "MissingAuthenticationTokenException": "MISSING_AUTHENTICATION_TOKEN",
    "InvalidSignatureException": "INVALID_SIGNATURE",
    "IncompleteSignatureException": "INVALID_SIGNATURE",
    "UnrecognizedClientException": "FORBIDDEN",
}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def gateway_error(status: int, code: str, detail: str, *, many: bool = False) -> Reply:
    """The gateway's own shape: plural, a list only for a bad body."""
    title = code.replace("_", " ").capitalize()
    error = {"id": str(uuid.uuid4()), "code": CODE + code, "title": title, "detail": detail, "meta": {"x-ray": ""}}
    return Reply(status, encode({"errors": [error] if many else error}))


def function_error(status: int, code: str, detail: str, more: Mapping[str, Any] | None = None) -> Reply:
    """The shape of the function behind it: singular."""
    error = {"id": str(uuid.uuid4()), "code": CODE + code, "title": "Error", "detail": detail, **(more or {})}
    return Reply(status, encode({"isBase64Encoded": False, "statusCode": status, "headers": {}, "error": error}))


BEFORE: Before = {
    "throttle": lambda side, call: gateway_error(429, "THROTTLED", "Too many requests."),
    "quota": lambda side, call: gateway_error(429, "QUOTA_EXCEEDED", "Limit exceeded."),
    "forbidden": lambda side, call: gateway_error(
        403, "FORBIDDEN", "You are not authorised to perform the requested action."
    ),
    "expired_token": lambda side, call: gateway_error(403, "EXPIRED_TOKEN", "Security token expired."),
    "error500": lambda side, call: function_error(500, "SERVERERROR", "Unable to send document to Sirius"),
    "error500_html": lambda side, call: Reply(
        500, HTML.replace(b"Sign in", b"500 Internal Server Error"), content_type="text/html"
    ),
    "error503": lambda side, call: function_error(503, "UNAVAILABLE", "Sirius is not available"),
}


async def _given_up(receiver: Receiver, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """The gateway gives up on a function that goes on: what it did stays done."""
    given: Any = receiver.options
    await asyncio.sleep(given.gateway_timeout)
    return plain(gateway_error(504, "INTEGRATION_TIMEOUT", "Endpoint request timed out"))


GATEWAY_AFTER: dict[str, Sending] = {**AFTER, "timeout_504": _given_up}


def _timed_out(side: Receiver, call: Call) -> Reply:
    return gateway_error(504, "INTEGRATION_TIMEOUT", "Endpoint request timed out")


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Receiver]:
    """Serve until the block ends; what is stored shows at /_sim/documents."""
    given = given or Options()
    contract = Contract(given.contract or EXAMPLES / "deputy-documents" / "contracts" / "deputy-reporting.yaml")
    credentials = Credentials(given.access_key, given.secret_key, given.region, "execute-api")
    documents = documents_of(given.unknown_case, given.duplicates, given.visible_after)
    receiver = Receiver.of(given, KNOWN, ENDPOINTS)
    system = System(receiver, documents, secret_of(given.secret))
    gateway = Gateway(receiver, given, documents, contract, credentials, system)
    controls = {
        ("GET", "/_sim/record"): lambda body: {**gateway.receiver.summary(), **gateway.documents.summary()},
        ("GET", "/_sim/documents"): lambda body: gateway.documents.lines(),
    }
    before = {**BEFORE, "timeout_504_unstored": _timed_out}
    async with receiving(gateway.receiver, gateway.classify, before, GATEWAY_AFTER, controls) as side:  # type: ignore[arg-type]
        yield side


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "The deputy reporting gateway, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
