"""The function behind the deputy gateway: it reads the file, looks for the parent, files the document and translates the answer.

It is as truthful as it is weak: a look-up that fails means "no parent", a file that cannot be read is sent as null, and an answer that
it cannot read crashes it, whatever was filed. What is sent to it stands in the contract; who may call it is the gateway's business.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
from yarl import URL

from counterfoil.simulators import tokens
from counterfoil.simulators.case_system import SilentError
from counterfoil.simulators.gateway_errors import crash_page, function_error, trace_id
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Reply

SESSION = "documents@service.example"
SUPPORTING = "Report - General"

Pairs = tuple[tuple[str, str], ...]
Files = Callable[[str], Awaitable[bytes | None]]


class Cases(Protocol):
    """The case system as the function calls it: status and body of an answer. Raises SilentError when none came."""

    async def __call__(self, method: str, path: str, query: Pairs, body: object) -> tuple[int, bytes]:
        """One call; `path` is below the API's base."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of document: its endpoint here, its envelope and type in the gateway's words, its type in the case system."""

    name: str
    envelope: str
    type: str
    filed_as: str


REPORT = Kind("report", "report", "reports", "Report")
SUPPORTING_DOCUMENT = Kind("supporting", "supporting_document", "supportingdocuments", SUPPORTING)
CHECKLIST = Kind("checklist", "checklist", "checklists", "Report - Checklist")
KINDS = {
    "createReport": REPORT,
    "createSupportingDocument": SUPPORTING_DOCUMENT,
    "createChecklist": CHECKLIST,
    "updateChecklist": CHECKLIST,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that keeps to the contract. `report` is the uuid in its path, `replaces` that of a checklist filed before."""

    kind: Kind
    case: str
    report: str | None
    replaces: str | None
    attributes: Mapping[str, Any]
    file: Mapping[str, Any]

    @classmethod
    def of(cls, operation: str, path: Mapping[str, str], body: Mapping[str, Any]) -> "Asked":
        """From the parameters of the path and the decoded body."""
        kind = KINDS[operation]
        data = body[kind.envelope]["data"]
        return cls(kind, path["caseref"], path.get("id"), path.get("checklistId"), data["attributes"], data["file"])

    @property
    def submission(self) -> object:
        """The id of the submission, None when there is none."""
        return self.attributes.get("submission_id")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the function answered. `filed` is the uuid, where it knows that it filed something; `payload` what it sent."""

    reply: Reply
    payload: Mapping[str, Any]
    filed: str | None = None


class Filed(msgspec.Struct):
    """What the function reads of the case system's answer."""

    uuid: str
    parentUuid: str | None = None
    duplicate: bool = False


class Found(msgspec.Struct):
    """What it reads of an entry of the look-up."""

    type: str
    uuid: str
    parentUuid: str | None = None


class Problem(msgspec.Struct):
    """What it reads of a problem. `uuid`: the same document was filed before, and a second one is refused."""

    detail: str
    validation_errors: dict[str, Any] = {}
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """The function, with the case system and the object store it may use."""

    cases: Cases
    files: Files

    async def __call__(self, asked: Asked) -> Outcome:
        """File one document. Never raises: a crash is answered by the framework's page."""
        payload: dict[str, Any] = {}
        try:
            payload |= await self._payload(asked)
            status, body = await self._send(asked, payload)
            return _translated(asked, payload, status, body)
        except (SilentError, ValueError):
            return Outcome(crash_page(), payload)

    async def _payload(self, asked: Asked) -> dict[str, Any]:
        metadata = {**asked.attributes, **({"report_id": asked.report} if asked.report else {})}
        file = {"name": asked.file["name"], "source": await self._source(asked.file), "type": asked.file["mimetype"]}
        parent = await self._parent(asked) if asked.kind is SUPPORTING_DOCUMENT else None
        payload = {"type": asked.kind.filed_as, "caseRecNumber": asked.case, "metadata": metadata, "file": file}
        return {**payload, "parentUuid": parent} if parent else payload

    async def _source(self, file: Mapping[str, Any]) -> str | None:
        if "source" in file or "s3_reference" not in file:
            return file.get("source")
        raw = await self.files(file["s3_reference"])
        return None if raw is None else base64.b64encode(raw).decode()

    async def _parent(self, asked: Asked) -> str | None:
        """The first supporting document of the submission that has no parent itself; a look-up that fails finds none."""
        wanted = (
            ("metadata[submission_id]", encode(asked.submission).decode()),
            ("metadata[report_id]", asked.report or ""),
        )
        status, body = await self.cases("GET", "/documents", (("caserecnumber", asked.case), *wanted), None)
        if status != 200:
            return None
        found = msgspec.json.decode(body, type=list[Found])
        return next((one.uuid for one in found if one.type == SUPPORTING and not one.parentUuid), None)

    async def _send(self, asked: Asked, payload: Mapping[str, Any]) -> tuple[int, bytes]:
        if asked.replaces:
            return await self.cases("PUT", f"/documents/{asked.replaces}", (), payload)
        return await self.cases("POST", "/documents", (), payload)


def _translated(asked: Asked, payload: Mapping[str, Any], status: int, body: bytes) -> Outcome:
    """The case system's answer in the gateway's words. Raises ValueError on one that cannot be read."""
    if status in (200, 201):
        filed = msgspec.json.decode(body, type=Filed)
        reply = Reply(200 if asked.replaces else 201, encode(_data(asked, filed)))
        return Outcome(reply, payload, None if filed.duplicate else filed.uuid)
    if status == 404:
        return Outcome(function_error(400, "INVALIDREQUEST", "Could not verify URL params in Sirius"), payload)
    if status == 400:
        return Outcome(_refused(msgspec.json.decode(body, type=Problem)), payload)
    return Outcome(function_error(500, "SERVERERROR", "Unable to send document to Sirius"), payload)


def _data(asked: Asked, filed: Filed) -> dict[str, object]:
    attributes = {"submission_id": asked.submission, "parent_id": filed.parentUuid}
    marked = {**attributes, "duplicate": True} if filed.duplicate else attributes
    return {"data": {"type": asked.kind.type, "id": filed.uuid, "attributes": marked}}


def _refused(problem: Problem) -> Reply:
    words = f"Validation failed in Sirius - {problem.detail}"
    if problem.uuid:
        return function_error(400, "DUPLICATE", words, uuid=problem.uuid)
    reasons = f" - {problem.validation_errors}" if problem.validation_errors else ""
    return function_error(400, "INVALIDREQUEST", words + reasons)


@dataclass(frozen=True, slots=True)
class HttpCases:
    """A case system somewhere else: a token for each call, and no time-out, as the real function has none."""

    session: aiohttp.ClientSession
    base: str
    secret: str
    clock: Callable[[], float]

    async def __call__(self, method: str, path: str, query: Pairs, body: object) -> tuple[int, bytes]:
        """See Cases."""
        token = tokens.sign(SESSION, self.secret, self.clock())
        headers = {"Authorization": f"Bearer {token}", "X-Amzn-Trace-Id": trace_id()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        url = URL(self.base + path).with_query(query)
        data = None if body is None else encode(body)
        try:
            async with self.session.request(method, url, data=data, headers=headers) as reply:
                return reply.status, await reply.read()
        except aiohttp.ClientError as error:
            raise SilentError(str(error)) from error


def files(where: str) -> Files:
    """The object store behind `s3_reference`: a folder or a URL such as s3://bucket; "" makes up a file for any key.

    ValueError when there is no such folder or the URL is of no known kind.
    """
    if not where:
        return _made_up
    from obstore.exceptions import BaseError
    from obstore.store import LocalStore, from_url

    if "://" not in where and not Path(where).is_dir():
        raise ValueError(f"There is no folder {where}. Make it, or name another with --file-store.")
    try:
        store: Any = from_url(where) if "://" in where else LocalStore(where)
    except BaseError as error:
        raise ValueError(f"--file-store {where!r} cannot be used: {error}") from error

    async def read(key: str) -> bytes | None:
        try:
            return bytes(await (await store.get_async(key)).bytes_async())
        except (OSError, ValueError, BaseError):  # whatever is wrong with the store: the real one sends null
            return None

    return read


async def _made_up(key: str) -> bytes:
    """The same few bytes for the same key."""
    return f"%PDF-1.4\n% {key}\n%%EOF\n".encode()
