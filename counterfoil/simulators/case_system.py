"""The case system of seed 000: its public API for documents, with tokens, problem details, slow stores and faults.

POST and GET /api/public/v1/documents, PUT /api/public/v1/documents/{uuid}. What it files is in case_store.py. Start it with
`python -m counterfoil.simulators.case_system`; the gateway's simulator holds one inside. Imports only its fellow simulators.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from counterfoil.simulators import contract, faults, options, tokens
from counterfoil.simulators.case_store import CaseStore, Document, Sent
from counterfoil.simulators.contract import Contract, Wrong
from counterfoil.simulators.side import Side
from counterfoil.simulators.store import Shape, encode
from counterfoil.simulators.wire import (
    Call,
    Controls,
    Refusals,
    Reply,
    forward,
    listening,
    met,
    retry_after,
    run,
    set_faults,
    spoil_body,
)

CONTRACT = "deputy-documents/contracts/case-system.yaml"
KNOWN = (*faults.PASSING, *faults.CASE_PASSING, *faults.CASE_MARKS)
SECRET = "simulator-secret-of-thirty-two-bytes!"
POLICIES = ("accept", "refuse", "flag")
PROBLEM = "application/problem+json"
EMPTY = {"isEmpty": "Value is required and can't be empty"}
EMPTY_KEYWORDS = frozenset(("required", "type", "minLength"))
SILENT = frozenset(("disconnect", "lost_reply", "truncated"))


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the case system. The secret falls back to the environment's CASE_SYSTEM_SECRET."""

    without: ClassVar[frozenset[str]] = options.RECORDS

    contract: str = options.option("", "OpenAPI file it keeps to; without it the one in the examples folder")
    jwt_secret: str = options.option(
        "", "secret that tokens are signed with; else CASE_SYSTEM_SECRET, else a known one"
    )
    cases: str = options.option("", "case numbers that exist, with commas; without it all (see the fault unknown_case)")
    duplicates: str = options.option("accept", "the same document again: accept, refuse or flag")
    visible_after: float = options.option(0.0, "so long after it was filed a search finds a document", options.duration)
    store_takes: float = options.option(5.0, "how long slow_store and late_store take", options.duration)


class SilentError(Exception):
    """The connection ended without a whole answer."""


@dataclass
class CaseSystem:
    """One running case system."""

    side: Side
    options: Options
    contract: Contract
    secret: str
    store: CaseStore = field(default_factory=CaseStore)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    late: set["asyncio.Task[Reply]"] = field(default_factory=set)
    waiting: int = 0

    @classmethod
    def of(cls, given: Options) -> "CaseSystem":
        """An empty case system. ValueError on a wrong setting."""
        if given.duplicates not in POLICIES:
            raise ValueError(f"--duplicates {given.duplicates!r} is not known. Known: {', '.join(POLICIES)}.")
        side = Side.of(given, (), Shape("uuid", "filed"), KNOWN)
        return cls(side, given, contract.load(given.contract, CONTRACT), secret_of(given.jwt_secret))

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.side.url

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """What a request asks for; a Reply at once when it may not or cannot."""
        refused = self._refusal(request.headers.get("Authorization", ""))
        if refused:
            return problem(401, "Unauthorized", refused)
        body: object = None
        if request.method in ("POST", "PUT"):
            if request.content_type != "application/json":
                return problem(415, "Unsupported Media Type", "Send application/json.")
            try:
                body = msgspec.json.decode(await request.read())
            except (ValueError, RecursionError):
                return problem(400, "Bad Request", "The body is no JSON.")
        path, query = request.raw_path.partition("?")[0], request.rel_url.query
        return self.asked(request.method, path, tuple(query.items()), body)

    def _refusal(self, header: str) -> str | None:
        """What is wrong with a token."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return "A bearer token is required."
        return tokens.refusal(token.strip(), self.secret, self.side.clock())

    def asked(self, method: str, path: str, query: tuple[tuple[str, str], ...], body: object) -> Call | Reply:
        """The call of a request whose caller is known. `path` is that of the wire, `body` is decoded."""
        found = self.contract.find(method, path)
        if found is None:
            return problem(404, "Not Found", f"There is no {path} here.")
        operation, values = found
        if operation is None:
            return problem(405, "Method Not Allowed", f"There is no {method} of {path}.")
        if operation.wrong_path(values):
            return problem(404, "Not Found", "There is no document of that uuid.")
        wrong = operation.wrong_query(query) or operation.wrong_body(body)
        if wrong:
            return problem(400, "Bad Request", "Payload failed validation", _reasons(wrong))
        if operation.name == "findDocuments":
            return self._finding(contract.deep_objects(query))
        return self._storing(values.get("uuid"), msgspec.convert(body, dict[str, Any]))

    def _finding(self, query: Mapping[str, Any]) -> Call:
        case, metadata = query["caserecnumber"], query.get("metadata", {})
        return Call("find", f"{case}|{metadata.get('submission_id', '')}", partial(self._find, case, metadata))

    def _storing(self, uuid: str | None, payload: dict[str, Any]) -> Call:
        submission = payload["metadata"].get("submission_id", "")
        key = f"{payload['caseRecNumber']}|{payload['type']}|{submission}|{payload['file']['name']}"
        return Call("store", key, partial(self._store, uuid, payload))

    async def _find(self, case: str, metadata: Mapping[str, str], fault: str | None) -> Reply:
        until = self.side.clock() - self.options.visible_after
        found = [one.shown() for one in self.store.find(case, metadata) if one.filed_at <= until]
        return spoil_body(Reply(200, encode(found)), fault)

    async def _store(self, uuid: str | None, payload: dict[str, Any], fault: str | None) -> Reply:
        if not self._exists(payload["caseRecNumber"]):
            words = f'Client referenced by court reference "{payload["caseRecNumber"]}" was not found'
            return problem(400, "Bad Request", words)
        try:
            sent = Sent.of(payload)
        except ValueError:
            reasons = {"file -> source": {"notBase64": "Value is no base64"}}
            return problem(400, "Bad Request", "Payload failed validation", reasons)
        if fault == "disconnect":
            return problem(503, "Service Unavailable", "The connection was cut before anything was done.")
        put = partial(self._create, sent) if uuid is None else partial(self._replace, uuid, sent)
        return spoil_body(await self._in_time(put, fault), fault)

    def _exists(self, case: str) -> bool:
        known = self.options.cases
        return not self.side.faults.marks("unknown_case", case) and (not known or case in known.split(","))

    async def _in_time(self, put: Callable[[], Reply], fault: str | None) -> Reply:
        """Store at once and answer later, or store later and answer then; the latter goes on though the caller has left."""
        if fault == "late_store":
            task = asyncio.ensure_future(self._stored_late(put))
            self.late.add(task)
            task.add_done_callback(self.late.discard)
            return await asyncio.shield(task)
        reply = put()
        if fault == "slow_store":
            await self._held()
        return reply

    async def _stored_late(self, put: Callable[[], Reply]) -> Reply:
        await self._held()
        return put()

    async def _held(self) -> None:
        """Wait for --store-takes, or until a test lets all go that wait now."""
        self.waiting += 1
        try:
            async with asyncio.timeout(self.options.store_takes):
                await self.released.wait()
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    def release(self) -> int:
        """Let every slow and late store that waits now go on; how many these are."""
        self.released.set()
        self.released = asyncio.Event()
        return self.waiting

    def _create(self, sent: Sent) -> Reply:
        first = None if self.options.duplicates == "accept" else self.store.first(sent)
        if first is None:
            return Reply(201, encode(self.store.add(sent, self.side.clock()).shown()))
        self.side.record.notes[f"duplicate_{self.options.duplicates}"] += 1
        if self.options.duplicates == "flag":
            return Reply(201, encode({**first.shown(), "duplicate": True}))
        return problem(400, "Bad Request", "The same document was filed before", uuid=first.uuid)

    def _replace(self, uuid: str, sent: Sent) -> Reply:
        document: Document | None = self.store.documents.get(uuid.lower())
        if document is None:
            return problem(404, "Not Found", "There is no document of that uuid.")
        return Reply(200, encode(self.store.replace(document, sent).shown()))

    async def ask(self, method: str, path: str, query: tuple[tuple[str, str], ...], body: object) -> tuple[int, bytes]:
        """Status and body for a caller in the same process, with all faults but without a socket. Raises SilentError."""
        await asyncio.sleep(0)  # as a socket would, so that two callers at once run side by side
        call = self.asked(method, self.contract.base + path, query, body)
        if isinstance(call, Reply):
            self.side.record.answers[f"{call.status}"] += 1
            return call.status, call.body
        with self.side.record.flight(call.endpoint):
            fault, reply = await met(self.side, call, REFUSALS)
            waits = {"timeout": self.options.hang, "slow_body": self.options.drip}
            if fault in waits:
                await asyncio.sleep(waits[fault])
        if fault in SILENT or fault == "timeout":
            raise SilentError("The connection ended without a whole answer.")
        return reply.status, reply.body

    def summary(self) -> dict[str, object]:
        """Totals: requests and answers, faults, and documents, contents and duplicates."""
        return {**self.side.record.traffic(), "waiting": self.waiting, **self.store.counts()}

    def documents(self) -> Iterator[bytes]:
        """JSONL of what was filed, see CaseStore.lines."""
        return self.store.lines()

    def controls(self, under: str = "/_sim") -> Controls:
        """The acts of a test, below a path."""
        return {
            ("GET", f"{under}/record"): lambda side, body: self.summary(),
            ("GET", f"{under}/documents"): lambda side, body: self.documents(),
            ("POST", f"{under}/faults"): set_faults,
            ("POST", f"{under}/clock"): forward,
            ("POST", f"{under}/release"): lambda side, body: {"released": self.release()},
        }

    def stop(self) -> None:
        """End the late stores that still wait; what they hold is never filed."""
        for task in self.late:
            task.cancel()


def secret_of(given: str) -> str:
    """The secret of tokens: as given, of the environment, or the known one."""
    return given or os.environ.get("CASE_SYSTEM_SECRET") or SECRET


def problem(
    status: int,
    title: str,
    detail: str,
    reasons: Mapping[str, Mapping[str, str]] | None = None,
    headers: dict[str, str] | None = None,
    **more: str,
) -> Reply:
    """An error as problem details."""
    body = {
        "validation_errors": reasons or {},
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/documents",
        **more,
    }
    return Reply(status, encode(body), headers or {}, content_type=PROBLEM)


def _reasons(wrong: list[Wrong]) -> dict[str, dict[str, str]]:
    """Each field at fault with its reasons. What is missing, null or of no length is empty, as forms have it."""
    reasons: dict[str, dict[str, str]] = {}
    for one in wrong:
        reason = EMPTY if one.keyword in EMPTY_KEYWORDS else {one.keyword: one.message}
        reasons.setdefault(" -> ".join(one.place) or "body", {}).update(reason)
    return reasons


REFUSALS: Refusals = {
    "throttle": lambda side: problem(
        429, "Too Many Requests", "Too many calls.", headers={"Retry-After": retry_after(side)}
    ),
    "error500": lambda side: problem(500, "Internal Server Error", "Something went wrong."),
    "error503": lambda side: problem(503, "Service Unavailable", "The service is down for a while."),
    "expired_token": lambda side: problem(401, "Unauthorized", "The token has expired."),
}


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[CaseSystem]:
    """Serve until the block ends; yields the case system with .url, .side, .store, .documents(), .release(), .summary()."""
    case = CaseSystem.of(given or Options())
    try:
        async with listening(case.side, case.classify, REFUSALS, case.controls()):
            yield case
    finally:
        case.stop()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "The documents API of a case system, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
