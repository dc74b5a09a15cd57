"""AWS Lambda with the loan system of seed 003 behind it: the true Invoke API, its signature, its limits and its errors.

POST /2015-03-31/functions/{name}/invocations, signed with SigV4. What the function answers is in occ_function.py, what runs
it in occ_runtime.py. Start it with `python -m counterfoil.simulators.occ_lambda`. Imports nothing of counterfoil but its fellows.
"""

import json
import random
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from datetime import time as clock_time
from functools import partial
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from aiohttp import web

from counterfoil.simulators import faults, options, samples
from counterfoil.simulators.occ_function import DETAIL_SPELLINGS, LIST_SPELLINGS, Names, spelt
from counterfoil.simulators.occ_runtime import Invoke, error_payload, runtime
from counterfoil.simulators.record import Positions
from counterfoil.simulators.side import Side
from counterfoil.simulators.sigv4 import Credentials, Signed, verify
from counterfoil.simulators.store import MICRO, Row, Shape, encode, read_rows
from counterfoil.simulators.wire import Call, Refusals, Reply, listening, retry_after, run

FUNCTION = "occ-applications"
PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
REQUEST_LIMIT = 6_291_456
KNOWN = (*faults.PASSING, *faults.LAMBDA_PASSING, *faults.MARKS)


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the Lambda simulator."""

    function: str = options.option(FUNCTION, "name of the function; it is also called by its ARN")
    by_date: str = options.option(Names.by_date, "functionName that lists what changed since a date")
    medium: str = options.option(Names.medium, "functionName that gives one application")
    region: str = options.option("ap-southeast-2", "region that signatures must be made for")
    account: str = options.option("123456789012", "account in the function's ARN")
    access_key: str = options.option("AKIDSIMULATOR", "access key id that is known")
    secret_key: str = options.option("simulator-secret", "secret access key that belongs to it")
    zone: str = options.option("Pacific/Auckland", "time zone of the source's dates")
    runtime: str = options.option("inprocess", "inprocess, or awslambdaric (AWS's runtime client in child processes)")
    instances: int = options.option(4, "child processes of --runtime awslambdaric", int)
    concurrency: int = options.option(0, "calls at once before 429 as by reserved concurrency; 0 for no limit", int)
    payload_limit: int = options.option(6_291_556, "largest answer in bytes, as AWS has it; 0 for no limit", int)
    function_error: str = options.option(
        "Unhandled", "value of X-Amz-Function-Error: Unhandled, or Handled as old runtimes"
    )


@dataclass
class OccCore:
    """The loan system: lists and applications as JSON text, from the side's records."""

    side: Side
    zone: ZoneInfo

    def positions(self, day: str) -> Positions | None:
        """Positions saved on or after midnight of a local date; None when the text is no date."""
        try:
            since = datetime.combine(date.fromisoformat(day), clock_time(), self.zone)
        except ValueError:
            return None
        return self.side.store.between(round(since.timestamp() * MICRO))

    def changed_since(self, day: str) -> str | None:
        """JSON array of ApplicationDateSince."""
        positions = self.positions(day)
        if positions is None:
            return None
        keys, stamps = self.side.store.keys, self.side.store.stamps
        entries = [_entry(keys[p], stamps[p].decode()) for p in self.side.with_duplicates(positions)]
        return f"[{','.join(entries)}]"

    def application(self, number: str) -> str | None:
        """JSON object of ApplicationMedium."""
        position = self.side.find(number)
        if position is None:
            return None
        attributes = self.side.padded(position).decode()
        name = json.dumps(number)
        return (
            f'{{"type":"applications","id":{name},"attributes":{attributes},"relationships":{_relationships(number)}}}'
        )


def _entry(key: str, stamp: str) -> str:
    name = json.dumps(key)
    link = json.dumps(f"/applications/{key}")
    return f'{{"type":"applications","id":{name},"attributes":{{{stamp[1:]},"links":{{"self":{link}}}}}'


def _relationships(key: str) -> str:
    names = ("originator", "associatedClients")
    links = {name: {"links": {"related": f"/applications/{key}/{name}"}} for name in names}
    return json.dumps(links)


@dataclass
class Front:
    """One running Lambda endpoint."""

    side: Side
    options: Options
    core: OccCore
    invoke: Invoke
    known: Credentials

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """The invocation a request asks for, or the error AWS answers at once."""
        path, _, query = request.raw_path.partition("?")
        found = PATH.fullmatch(path)
        if not found or request.method != "POST":
            return _error(404, "UnknownOperationException", f"Unable to determine operation of {request.method} {path}")
        sent = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        refusal = verify(Signed("POST", path, query, headers, sent), self.known, time.time())
        if refusal:
            return _error(403, refusal.kind, refusal.message)
        return self._function(unquote(found[1])) or self._call(request, sent or b"{}")

    def _function(self, called: str) -> Reply | None:
        name = called.rpartition("function:")[2].partition(":")[0]
        if name == self.options.function:
            return None
        arn = f"arn:aws:lambda:{self.options.region}:{self.options.account}:function:{name}"
        return _error(404, "ResourceNotFoundException", f"Function not found: {arn}", Type="User")

    def _call(self, request: web.BaseRequest, body: bytes) -> Call | Reply:
        if len(body) > REQUEST_LIMIT:
            words = f"Request must be smaller than {REQUEST_LIMIT} bytes for the InvokeFunction operation"
            return _error(413, "RequestTooLargeException", words, Type="User")
        try:
            event = json.loads(body)
        except ValueError as error:
            words = f"Could not parse request body into json: {error}"
            return _error(400, "InvalidRequestContentException", words, Type="User")
        kind = request.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind != "RequestResponse":
            return _other_kind(kind)
        limit = self.options.concurrency
        if limit and self.side.record.in_flight["all"] >= limit:
            self.side.record.faults["concurrency"] += 1
            return _throttled(self.side)
        return self._asked(event if isinstance(event, dict) else {}, body)

    def _asked(self, event: dict[str, object], body: bytes) -> Call:
        listed, detailed = spelt(event, LIST_SPELLINGS), spelt(event, DETAIL_SPELLINGS)
        spelling = listed or detailed
        if spelling:
            self.side.record.notes[spelling[0]] += 1
        if event.get("functionName") == self.options.by_date:
            return Call("list", "", partial(self._answer, body, listed, None))
        number = detailed[1] if detailed else ""
        return Call("detail", number, partial(self._answer, body, None, number))

    async def _answer(self, body: bytes, day: tuple[str, str] | None, number: str | None, fault: str | None) -> Reply:
        request_id = str(uuid.uuid4())
        if fault == "task_timeout":
            words = f"RequestId: {request_id} Error: Task timed out after 3.00 seconds"
            return self._failed(request_id, encode({"errorType": "Sandbox.Timedout", "errorMessage": words}))
        outcome = await self.invoke(body, request_id, fault)
        if outcome.failed:
            return self._failed(request_id, outcome.payload)
        limit = self.options.payload_limit
        if limit and len(outcome.payload) > limit:
            words = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
            return self._failed(request_id, error_payload(words, "Function.ResponseSizeTooLarge", request_id, []))
        payload = b"" if fault == "empty" else outcome.payload
        sent = None if fault in SPOILS else partial(self._sent, day, number)
        return Reply(200, payload, _headers(request_id), sent=sent)

    def _failed(self, request_id: str, payload: bytes) -> Reply:
        return Reply(200, payload, {**_headers(request_id), "X-Amz-Function-Error": self.options.function_error})

    def _sent(self, day: tuple[str, str] | None, number: str | None) -> None:
        record, versions = self.side.record, self.side.store.versions
        if day:
            positions = self.side.with_duplicates(self.core.positions(day[1]) or [])
            record.listed.mark(positions, versions)
            self.side.change_some(positions)
        position = self.side.find(number) if number else None
        if position is not None:
            record.served.mark([position], versions)


SPOILS = frozenset(("error_body", "status500", "html", "invalid_json", "empty", "empty_body"))


def _headers(request_id: str) -> dict[str, str]:
    return {"x-amzn-RequestId": request_id, "X-Amz-Executed-Version": "$LATEST"}


def _error(status: int, kind: str, message: str, headers: dict[str, str] | None = None, **more: str) -> Reply:
    request_id = {"x-amzn-RequestId": str(uuid.uuid4()), "x-amzn-ErrorType": kind}
    key = "Message" if kind == "ResourceNotFoundException" else "message"
    return Reply(status, encode({**more, key: message}), {**request_id, **(headers or {})})


def _other_kind(kind: str) -> Reply:
    known = {"Event": 202, "DryRun": 204}
    if kind in known:
        return Reply(known[kind], b"", _headers(str(uuid.uuid4())))
    return _error(400, "InvalidParameterValueException", f"Invocation type {kind} is not known.", Type="User")


def _throttled(side: Side) -> Reply:
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    wait = {"Retry-After": retry_after(side)}
    return _error(429, "TooManyRequestsException", "Rate Exceeded.", wait, Reason=reason, Type="User")


REFUSALS: Refusals = {
    "throttle": _throttled,
    "error500": lambda side: _error(
        500, "ServiceException", "The service encountered an internal error.", Type="Service"
    ),
    "error503": lambda side: _error(503, "ServiceUnavailableException", "Service Unavailable"),
    "expired_token": lambda side: _error(
        403, "ExpiredTokenException", "The security token included in the request is expired"
    ),
}


def _shape(given: Options, zone: ZoneInfo) -> Shape:
    return Shape(
        key_field=given.key or "id",
        stamp_field="lastSavedDateTime",
        stamp=lambda micros: datetime.fromtimestamp(micros // 1000 / 1000, zone).isoformat(timespec="milliseconds"),
        derive=_own if not given.data else _derive,
        change_field=given.change_field or "applicationTitle",
        required_field=given.required_field or "applicationName",
        typed_field=given.typed_field or "applicationTitle",
        score_field=given.score_field,
    )


def _own(row: Row, key: str) -> Row:
    return {name: value for name, value in row.items() if name != "id"}


def _derive(row: Row, key: str) -> Row:
    """The row's own fields, with the fields of an ApplicationMedium that it lacks; from the row where it tells them."""
    number = int(key) if key.isdigit() and len(key) < 12 else len(key)
    draw = random.Random(key)
    told = {
        "applicationName": str(row.get("emp_title") or f"Applicant {key}").strip().title(),
        "applicationTitle": " ".join(str(row[name]) for name in ("loan_purpose", "loan_amount") if row.get(name)),
        "appStatusDesc": str(row.get("loan_status") or ""),
    }
    drawn = samples.application_fields(number, draw)
    return {**drawn, **{name: value for name, value in told.items() if value}, **row}


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Side]:
    """Serve until the block ends; yields the side with .url, .record, .faults, .change(n), .delete(n), .truth()."""
    given = given or Options()
    if given.function_error not in ("Unhandled", "Handled"):
        raise ValueError(f"--function-error {given.function_error!r} is not known. Known: Unhandled, Handled.")
    zone = ZoneInfo(given.zone)
    rows = read_rows(given.data) if given.data else samples.loan_applications(given.records or 60)
    side = Side.of(given, rows, _shape(given, zone), KNOWN)
    core, names = OccCore(side, zone), Names(given.by_date, given.medium)
    known = Credentials(given.access_key, given.secret_key, given.region)
    async with runtime(given.runtime, core, names, given.instances) as invoke:
        front = Front(side, given, core, invoke, known)
        async with listening(side, front.classify, REFUSALS):
            yield side


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(
        Options, arguments, "AWS Lambda's Invoke API with a loan system behind it, with faults."
    )
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
