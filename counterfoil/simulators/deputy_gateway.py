"""The deputy-reporting gateway of seed 000 with its function and, unless told otherwise, the case system behind it.

It checks signature (SigV4), size, media type and contract, calls the function (gateway_function.py) and gives up on it after 29 s, while
the function goes on: the answer is lost, the document is filed. Start it with `python -m counterfoil.simulators.deputy_gateway`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import aiohttp
import msgspec
from aiohttp import web

from counterfoil.simulators import case_system, contract, faults, options
from counterfoil.simulators.case_store import Document, Sent
from counterfoil.simulators.case_system import CaseSystem
from counterfoil.simulators.contract import Contract, Operation, Wrong
from counterfoil.simulators.gateway_errors import crash_page, function_error, gateway_error
from counterfoil.simulators.gateway_function import Asked, Cases, Function, HttpCases, Outcome, files
from counterfoil.simulators.gateway_record import GatewayRecord, key_of
from counterfoil.simulators.side import Side
from counterfoil.simulators.sigv4 import Credentials, Signed, verify
from counterfoil.simulators.store import Shape
from counterfoil.simulators.wire import (
    Call,
    Controls,
    Handle,
    Refusals,
    Reply,
    forward,
    handler,
    run,
    serving,
    set_faults,
    spoil_body,
)

CONTRACT = "deputy-documents/contracts/deputy-reporting.yaml"
KNOWN = (*faults.PASSING, *faults.GATEWAY_PASSING)
BODY_LIMIT = 10 * 1024 * 1024
UNSIGNED = {
    "MissingAuthenticationTokenException": "MISSING_AUTHENTICATION_TOKEN",
    "UnrecognizedClientException": "FORBIDDEN",
}
INSIDE = ("cases", "case_faults", "case_latency", "case_contract", "duplicates", "visible_after", "store_takes")


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the gateway, and of the case system inside it."""

    without: ClassVar[frozenset[str]] = options.RECORDS | {"retry_after", "retry_after_form"}

    contract: str = options.option("", "OpenAPI file it keeps to; without it the one in the examples folder")
    region: str = options.option("eu-west-1", "region that signatures must be made for")
    access_key: str = options.option("AKIDSIMULATOR", "access key id that is known")
    secret_key: str = options.option("simulator-secret", "secret access key that belongs to it")
    body_limit: int = options.option(BODY_LIMIT, "largest body that is taken, in bytes", int)
    gateway_timeout: float = options.option(29.0, "how long the gateway waits for the function", options.duration)
    function_timeout: float = options.option(
        120.0, "how long the function may take before it is ended", options.duration
    )
    file_store: str = options.option("", "folder or URL (s3://bucket) of the files; without it any key has one")
    jwt_secret: str = options.option(
        "", "secret of tokens for the case system; else CASE_SYSTEM_SECRET, else a known one"
    )
    case_system: str = options.option("", "URL of a case system; without it one inside this process, also served here")
    case_contract: str = options.option("", "case system inside: its OpenAPI file")
    cases: str = options.option("", "case system inside: case numbers that exist, with commas; without it all")
    case_faults: tuple[str, ...] = options.option((), "case system inside: its faults, as --fault", str, True)
    case_latency: tuple[float, float] = options.option(
        (0.0, 0.0), "case system inside: each answer takes so long", options.span
    )
    duplicates: str = options.option("accept", "case system inside: accept, refuse or flag the same document again")
    visible_after: float = options.option(
        0.0, "case system inside: so long after it was filed a search finds a document", options.duration
    )
    store_takes: float = options.option(
        5.0, "case system inside: how long slow_store and late_store take", options.duration
    )


@dataclass
class Gateway:
    """One running gateway. `case` is the case system inside it, None when it calls another."""

    side: Side
    options: Options
    contract: Contract
    function: Function
    case: CaseSystem | None
    record: GatewayRecord = field(default_factory=GatewayRecord)
    running: set["asyncio.Task[Outcome]"] = field(default_factory=set)

    def __post_init__(self) -> None:
        given = self.options
        self.known = Credentials(given.access_key, given.secret_key, given.region, "execute-api")
        self.health = f"{self.contract.base}/healthcheck"
        if self.case:
            self.case.store.filed = self._filed_inside

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.side.url

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """The document a request brings, or the gateway's error at once. Such a request meets no fault."""
        path, _, query = request.raw_path.partition("?")
        if path == self.health and request.method == "GET":
            return Reply(200, b'{"status":"OK"}')
        sent = await self._body(request)
        if sent is None:
            return gateway_error("FILESIZELIMIT")
        headers = {name.lower(): value for name, value in request.headers.items()}
        refused = verify(Signed(request.method, path, query, headers, sent), self.known, time.time())
        if refused:
            return gateway_error(UNSIGNED.get(refused.kind, "INVALID_SIGNATURE"))
        return self._routed(request, path, sent)

    async def _body(self, request: web.BaseRequest) -> bytes | None:
        """The body; None, and not read where its length was announced, when it is too large."""
        if (request.content_length or 0) > self.options.body_limit:
            return None
        try:
            sent = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return None
        return sent if len(sent) <= self.options.body_limit else None

    def _routed(self, request: web.BaseRequest, path: str, sent: bytes) -> Call | Reply:
        found = self.contract.find(request.method, path)
        if found is None:
            return gateway_error("NOTFOUND")
        operation, values = found
        if operation is None:
            return function_error(405, "NOT-ALLOWED", f"There is no {request.method} here")
        if request.content_type not in operation.media:
            return gateway_error("MEDIA")
        wrong = operation.wrong_path(values)
        return gateway_error("BAD_REQUEST_PARAMETERS") if wrong else self._asked(operation, values, sent)

    def _asked(self, operation: Operation, values: dict[str, str], sent: bytes) -> Call | Reply:
        try:
            body = msgspec.json.decode(sent)
        except (ValueError, RecursionError):
            return gateway_error("INVALIDREQUEST", ["The body is no JSON."])
        wrong = operation.wrong_body(body)
        if wrong:
            return gateway_error("INVALIDREQUEST", map(_sentence, wrong))
        asked = Asked.of(operation.name, values, body)
        return Call(asked.kind.name, "|".join(map(str, key_of(asked))), partial(self._answer, asked))

    async def _answer(self, asked: Asked, fault: str | None) -> Reply:
        if fault == "disconnect":
            return gateway_error("INTEGRATION_FAILURE")  # never sent: the connection is cut, and nothing was done
        if fault == "timeout_504_unstored":
            await asyncio.sleep(self.options.gateway_timeout)
            return gateway_error("INTEGRATION_TIMEOUT")
        began = time.monotonic()
        outcome = await self._in_time(self._begin(asked))
        if fault == "timeout_504":
            await asyncio.sleep(self.options.gateway_timeout - (time.monotonic() - began))
        if outcome is None or fault == "timeout_504":
            return gateway_error("INTEGRATION_TIMEOUT")
        if outcome.filed:
            outcome.reply.sent = partial(self.record.answered, asked)
        return spoil_body(outcome.reply, fault)

    def _begin(self, asked: Asked) -> "asyncio.Task[Outcome]":
        """The function at work; it goes on when the gateway has given up or the caller has left."""
        task = asyncio.ensure_future(self._run(asked))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def _in_time(self, task: "asyncio.Task[Outcome]") -> Outcome | None:
        done, _ = await asyncio.wait((task,), timeout=self.options.gateway_timeout)
        return task.result() if done else None

    async def _run(self, asked: Asked) -> Outcome:
        try:
            async with asyncio.timeout(self.options.function_timeout):
                outcome = await self.function(asked)
        except TimeoutError:
            return Outcome(gateway_error("INTEGRATION_FAILURE"), {})
        if outcome.filed and not self.case:
            self.record.filed(Sent.of(outcome.payload), outcome.filed, bool(asked.replaces))
        return outcome

    def _filed_inside(self, document: Document) -> None:
        self.record.filed(document.sent, document.uuid, document.versions > 1)

    def summary(self) -> dict[str, object]:
        """Totals: requests and answers, faults, answers by fault, and of documents as in GatewayRecord.counts."""
        return {**self.side.record.traffic(), "running": len(self.running), **self.record.counts()}

    def documents(self) -> Iterator[bytes]:
        """JSONL of the documents, see GatewayRecord.lines."""
        return self.record.lines()

    def controls(self) -> Controls:
        """The acts of a test."""
        return {
            ("GET", "/_sim/record"): lambda side, body: self.summary(),
            ("GET", "/_sim/documents"): lambda side, body: self.documents(),
            ("POST", "/_sim/faults"): set_faults,
            ("POST", "/_sim/clock"): self._forward,
        }

    def _forward(self, side: Side, body: dict[str, Any]) -> dict[str, object]:
        if self.case:
            forward(self.case.side, body)
        return forward(side, body)

    def handle(self) -> Handle:
        """The way of a request: to the gateway, or to the case system inside."""
        outer = handler(self.side, self.classify, REFUSALS, self.controls())
        if not self.case:
            return outer
        inner = handler(self.case.side, self.case.classify, case_system.REFUSALS, self.case.controls("/_sim/case"))
        places = (self.case.contract.base + "/", "/_sim/case/")

        async def routed(request: web.BaseRequest) -> web.StreamResponse:
            return await (inner if request.rel_url.raw_path.startswith(places) else outer)(request)

        return routed

    def stop(self) -> None:
        """End the functions that still run, and late stores of the case system inside."""
        for task in self.running:
            task.cancel()
        if self.case:
            self.case.stop()


def _sentence(wrong: Wrong) -> str:
    return f"{'.'.join(wrong.place) or 'The body'}: {wrong.message}"


REFUSALS: Refusals = {
    "throttle": lambda side: gateway_error("THROTTLED"),
    "quota": lambda side: gateway_error("QUOTA_EXCEEDED"),
    "forbidden": lambda side: gateway_error("FORBIDDEN"),
    "expired_token": lambda side: gateway_error("EXPIRED_TOKEN"),
    "error500": lambda side: function_error(500, "SERVERERROR", "Unable to send document to Sirius"),
    "error500_html": lambda side: crash_page(),
    "error503": lambda side: function_error(503, "UNAVAILABLE", "The service is not available"),
}


def _inside(given: Options) -> CaseSystem:
    shared = {
        name: getattr(given, name) for name in ("seed", "max_in_a_row", "burst_length", "slow", "hang", "drip", "now")
    }
    told = {
        name: getattr(given, name) for name in ("jwt_secret", "cases", "duplicates", "visible_after", "store_takes")
    }
    own: dict[str, Any] = {"faults": given.case_faults, "latency": given.case_latency, "contract": given.case_contract}
    return CaseSystem.of(case_system.Options(**shared, **told, **own))


async def _cases(given: Options, side: Side, stack: AsyncExitStack) -> tuple[Cases, CaseSystem | None]:
    """How the function reaches the case system. ValueError when another one is named and settings of the inner one are given."""
    if not given.case_system:
        case = _inside(given)
        return case.ask, case
    meant = [name for name in INSIDE if getattr(given, name) != getattr(Options(), name)]
    if meant:
        flags = ", ".join(map(options.flag_name, meant))
        raise ValueError(f"{flags} cannot go with --case-system: give them to the case system that it names.")
    inner = contract.load("", case_system.CONTRACT).base
    session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)))
    secret = case_system.secret_of(given.jwt_secret)
    return HttpCases(session, given.case_system.rstrip("/") + inner, secret, side.clock), None


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Gateway]:
    """Serve until the block ends; yields the gateway with .url, .side, .case, .record, .documents(), .summary()."""
    given = given or Options()
    async with AsyncExitStack() as stack:
        side = Side.of(given, (), Shape("uuid", "filed"), KNOWN)
        cases, case = await _cases(given, side, stack)
        function = Function(cases, files(given.file_store))
        gateway = Gateway(side, given, contract.load(given.contract, CONTRACT), function, case)
        stack.callback(gateway.stop)
        port = await stack.enter_async_context(serving(gateway.handle(), given.host, given.port))
        side.url = f"http://{given.host}:{port}"
        if case:
            case.side.url = side.url
        yield gateway


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    about = "The deputy-reporting gateway, its function and a case system behind it, with faults."
    given = options.from_arguments(Options, arguments, about)
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
