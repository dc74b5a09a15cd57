"""A relay's own endpoint and the system behind it: callers verified, calls held to the contract, passed on, answered in the contract's shape.

Deny by default: what is not verified, not in the contract or not declared is refused. Nothing here keeps a record; `engine/relay.py` does.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from counterfoil.connectors.contract import FindingKind, Operation, load_contract, told
from counterfoil.connectors.line import Line, Opening
from counterfoil.connectors.objects import Objects
from counterfoil.connectors.redact import sentence
from counterfoil.connectors.requests import Built, CallBuilder, CompiledCall, file_scope
from counterfoil.connectors.verify import Unverified, verifier_of
from counterfoil.connectors.wire import Reply as WireReply
from counterfoil.flows.delivery import ErrorShape, FileFrom, RelayFlow, RelayOperation
from counterfoil.flows.functions import Functions
from counterfoil.flows.replies import Judged, classifier
from counterfoil.flows.template import Template, compile_template
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Answer, ExchangeKind, Outcome, StoredFile
from counterfoil.model.errors import Gone, Misconfigured, Refused
from counterfoil.model.relay import Accepted, Found, Incoming, Passed, Reply

CODE = "OPGDATA-API-"
JSON = "application/json"
# What our own refusals are called by the contract: status and code, by what they are about.
_UNVERIFIED: Mapping[str, tuple[int, str]] = {
    "missing": (403, "MISSING_AUTHENTICATION_TOKEN"),
    "incomplete": (403, "INVALID_SIGNATURE"),
    "unknown": (403, "FORBIDDEN"),
    "expired": (403, "EXPIRED_TOKEN"),
    "wrong_scope": (403, "INVALID_SIGNATURE"),
    "wrong_signature": (403, "INVALID_SIGNATURE"),
}
_OURS: Mapping[str, str] = {
    "late": "INTEGRATION_TIMEOUT",
    "busy": "THROTTLED",
    "down": "INTEGRATION_FAILURE",
    "too_large": "FILESIZELIMIT",
    "bad": "INVALIDREQUEST",
}
# What the system behind said, as the function that stood here passed it on.
_PASSED: Mapping[Outcome, tuple[int, str]] = {
    Outcome.REFUSED: (400, "INVALIDREQUEST"),
    Outcome.TEMPORARY: (503, "UNAVAILABLE"),
    Outcome.THROTTLED: (503, "UNAVAILABLE"),
}


class HttpDoor:
    """Implements `model.ports.Door`. Raises Misconfigured at construction for what the flow file or the environment lacks."""

    def __init__(
        self,
        flow: RelayFlow,
        *,
        environment: Mapping[str, str],
        folder: Path,
        clock: Clock,
        objects: Objects,
        functions: Functions,
    ) -> None:
        endpoint = flow.endpoint
        self._flow, self._clock, self._objects = flow, clock, objects
        self.limit, self.deadline = endpoint.body_bytes, endpoint.deadline.total_seconds()
        self._verify = verifier_of(endpoint.auth, environment)
        self._contract = load_contract(folder / "contracts" / endpoint.contract)
        self._line = Line(flow.target, Opening(environment, folder, clock, objects, flow.evidence))
        self._judge = classifier(flow.replies, receipt=None)
        build = CallBuilder(self._line.base, environment, functions)
        self._operations = {name: _Operation(spec, build, functions) for name, spec in flow.operations.items()}
        for name in self._operations:
            if self._contract.by_id(name) is None:
                known = ", ".join(f"`{one.id}`" for one in self._contract.operations)
                raise Misconfigured(f"The contract {endpoint.contract} has no operation `{name}`.", f"Known: {known}.")

    # --- what comes -------------------------------------------------------------------------------------------

    def accept(self, incoming: Incoming) -> Accepted | Reply:
        """Refused in the gateway's order: who, where, how large, which type, and only then the content."""
        who = self._verify(incoming, self._clock.now())
        if isinstance(who, Unverified):
            status, code = _UNVERIFIED[who.code]
            return self._gateway(status, code, who.problem)
        base = self._flow.endpoint.path.rstrip("/")
        path = incoming.path.removeprefix(base) if incoming.path.startswith(f"{base}/") else incoming.path
        operation = self._contract.operation(incoming.method, path)
        if operation is None:
            known = self._contract.knows(path)
            return self._gateway(*((405, "NOT-ALLOWED") if known else (404, "NOTFOUND")), "There is no such operation.")
        declared = self._operations.get(operation.id)
        if declared is None:
            return self._gateway(404, "NOTFOUND", "This operation is not passed on.")
        if len(incoming.body) > self.limit:
            return self.refuse(
                413, "too_large", f"The body has {len(incoming.body):,} bytes; {self.limit:,} are taken."
            )
        kind = incoming.headers.get("content-type", "")
        if operation.body is not None and kind.partition(";")[0].strip().lower() not in operation.body.media:
            return self._gateway(415, "MEDIA", "The content type is not taken.")
        return self._held(incoming, operation, declared, path, who.caller)

    def _held(
        self, incoming: Incoming, operation: Operation, declared: _Operation, path: str, caller: str
    ) -> Accepted | Reply:
        try:
            body = msgspec.json.decode(incoming.body) if incoming.body else None
        except (msgspec.DecodeError, RecursionError):
            return self._gateway(400, "INVALIDREQUEST", "The body is no JSON.", many=True)
        query = dict(parse_qsl(incoming.query, keep_blank_values=True))
        values = operation.path_values(path)
        findings = self._contract.check_request(operation, values, query, incoming.headers, incoming.body or None)
        if findings:
            bad_path = all(one.kind is FindingKind.PARAMETER for one in findings)
            return self._gateway(
                400, "BAD_REQUEST_PARAMETERS" if bad_path else "INVALIDREQUEST", told(findings), many=not bad_path
            )
        request = {
            "path": values,
            "query": query,
            "body": body,
            "caller": caller,
            "operation": operation.id,
        }
        digest = hashlib.sha256(f"{operation.id} {path} {incoming.query} ".encode() + incoming.body).hexdigest()
        alone = "" if declared.alone is None else str(declared.alone.fill(request))
        return Accepted(operation.id, caller, request, digest, incoming.method == "POST", alone)

    # --- what is asked behind ---------------------------------------------------------------------------------

    async def find(self, accepted: Accepted) -> Found | None:
        declared = self._operations[accepted.operation]
        if declared.find is None:
            return None
        documents: list[Any] = []
        built = declared.find.fill(accepted.request)
        answer = await self._ask(ExchangeKind.LOOK_UP, built, declared.find, documents)
        if answer.outcome is not Outcome.DONE:
            return Found(answer)
        document = documents[-1] if documents else None
        value = declared.function(document, accepted.request) if declared.function is not None else None
        same = declared.same(document, accepted.request) if declared.same is not None else None
        return Found(answer, value, same)

    async def call(self, accepted: Accepted, found: Found | None) -> Passed:
        declared = self._operations[accepted.operation]
        scope = {**accepted.request, "found": None if found is None else found.value}
        file = await self._file(declared.spec, scope)
        scope["file"] = None if file is None else file_scope(file)
        documents: list[Any] = []
        built = declared.call.fill(scope, accepted.request)
        answer = await self._ask(ExchangeKind.RELAY, built, declared.call, documents)
        return Passed(answer, documents[-1] if documents else None, scope["found"])

    async def _ask(self, kind: ExchangeKind, built: Built, call: CompiledCall, documents: list[Any]) -> Answer:
        def judge(reply: WireReply) -> Judged:
            judged = self._judge(reply.status, reply.content_type, reply.body)
            try:
                documents.append(msgspec.json.decode(reply.body))
            except (msgspec.DecodeError, RecursionError):
                if judged.outcome is Outcome.DONE:  # a success that says nothing is none
                    return Judged(Outcome.UNKNOWN, fault="no_receipt", said="The answer is no JSON.")
            return judged

        return await self._line.ask(kind, built, f"{built.method} {call.spec.path}", judge)

    async def _file(self, spec: RelayOperation, scope: Mapping[str, Any]) -> StoredFile | None:
        """The file a call names. Missing it is the caller's to mend; a store that can't be reached is not."""
        if spec.file is None or spec.file.source is not FileFrom.OBJECT:
            return None
        key = compile_template(spec.file.value).fill(scope)
        if not isinstance(key, str) or not key:
            return None
        try:
            size = (await self._objects.head(key)).size
        except Gone as error:
            raise Refused(
                "The file is not in the object store.", "Put it there, then send it again.", fault="file_missing"
            ) from error
        name = key.rpartition("/")[2]
        return StoredFile(name, mimetypes.guess_type(name)[0] or "application/octet-stream", size, None, key)

    # --- what is answered -------------------------------------------------------------------------------------

    def reply(self, accepted: Accepted, passed: Passed) -> Reply:
        declared, answer = self._operations[accepted.operation], passed.answer
        if answer.outcome in (Outcome.DONE, Outcome.DUPLICATE):
            return declared.answered({**accepted.request, "answer": passed.document, "found": passed.found})
        if answer.outcome is Outcome.UNKNOWN:
            return self.refuse(504, "late", answer.problem or "No answer came.")
        status, code = _PASSED.get(answer.outcome, (503, "UNAVAILABLE"))
        return self._function(status, code, answer.problem or "It was refused.")

    def again(self, accepted: Accepted, found: Found) -> Reply | None:
        if found.same is None:
            return None
        scope = {**accepted.request, "answer": found.same, "found": found.value}
        return self._operations[accepted.operation].answered(scope)

    def refuse(self, status: int, code: str, problem: str) -> Reply:
        return self._gateway(status, _OURS[code], problem)

    def _gateway(self, status: int, code: str, problem: str, *, many: bool = False) -> Reply:
        """A refusal before anything was asked behind: plural, and a list only for a bad body."""
        if self._flow.endpoint.errors is ErrorShape.PROBLEM:
            return _problem(status, problem)
        title = code.replace("_", " ").replace("-", " ").capitalize()
        error = {"id": str(uuid.uuid4()), "code": CODE + code, "title": title, "detail": problem, "meta": {"x-ray": ""}}
        return Reply(status, json.dumps({"errors": [error] if many else error}).encode(), said=problem)

    def _function(self, status: int, code: str, problem: str) -> Reply:
        """What the system behind said no to: singular."""
        if self._flow.endpoint.errors is ErrorShape.PROBLEM:
            return _problem(status, problem)
        error = {"id": str(uuid.uuid4()), "code": CODE + code, "title": "Error", "detail": problem}
        body = {"isBase64Encoded": False, "statusCode": status, "headers": {}, "error": error}
        return Reply(status, json.dumps(body).encode(), said=sentence(problem))

    async def close(self) -> None:
        await self._line.close()


class _Operation:
    """One declared operation, compiled."""

    def __init__(self, spec: RelayOperation, build: CallBuilder, functions: Functions) -> None:
        self.spec, self.call = spec, build.call(spec.call)
        self.find = build.call(spec.find.call) if spec.find is not None else None
        self.alone: Template | None = compile_template(spec.find.alone) if spec.find is not None else None
        self.function = _named(functions, spec.find.function if spec.find is not None else None)
        self.same = _named(functions, spec.find.same if spec.find is not None else None)
        self._reply = compile_template(spec.reply) if spec.reply is not None else None

    def answered(self, scope: Mapping[str, Any]) -> Reply:
        body = self._reply.fill(scope) if self._reply is not None else scope["answer"]
        return Reply(self.spec.reply_status, msgspec.json.encode(body))


def _named(functions: Functions, name: str | None) -> Callable[..., Any] | None:
    return None if name is None else functions.get(name)


def _problem(status: int, problem: str) -> Reply:
    body = {"type": "about:blank", "title": "Refused", "status": status, "detail": problem}
    return Reply(status, json.dumps(body).encode(), "application/problem+json", problem)
