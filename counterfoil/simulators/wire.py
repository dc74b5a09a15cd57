"""Sockets of the simulators: one request met by one passing fault, answers sent whole, dripped, cut or never.

A simulator hands over `classify`, which turns a request into a Call or at once into a Reply, and a table of refusals.
Also here: the /_sim/ endpoints of a running simulator, and running one as a process. What is served is not known here.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import uvloop
from aiohttp import web

from counterfoil.simulators.options import Common, instant
from counterfoil.simulators.side import Side
from counterfoil.simulators.store import encode

PARTS = 20
BODY_LIMIT = 64 * 1024 * 1024
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Please sign in</h1></body></html>"


@dataclass(slots=True)
class Reply:
    """An answer. `sent` is called when it went out whole; a spoilt answer is never counted as served."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    sent: Callable[[], None] | None = None


@dataclass(slots=True)
class Call:
    """A request that may be answered: its endpoint (list, detail, write), the key it asks, and how to answer.

    `answer` is given the passing fault it meets (or None), so that a fault may lie inside the payload.
    """

    endpoint: str
    key: str
    answer: Callable[[str | None], Awaitable[Reply]]


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Classify = Callable[[web.BaseRequest], Awaitable[Call | Reply]]
Control = Callable[[Side, dict[str, Any]], "dict[str, object] | Iterator[bytes]"]
Controls = Mapping[tuple[str, str], Control]
Refusals = Mapping[str, Callable[[Side], Reply]]


def spoil_body(reply: Reply, fault: str | None) -> Reply:
    """The reply with its payload spoilt, its HTTP still well-formed; the same reply for any other fault."""
    spoilt = {
        "html": lambda: Reply(200, HTML, content_type="text/html"),
        "invalid_json": lambda: Reply(reply.status, reply.body[: max(1, len(reply.body) // 2)], reply.headers),
        "error_body": lambda: Reply(200, encode({"error": {"code": "internal", "message": "Something went wrong."}})),
        "empty": lambda: Reply(reply.status, b"", reply.headers),
    }
    return spoilt[fault]() if fault in spoilt else reply


def retry_after(side: Side) -> str:
    """The Retry-After value of a 429: seconds or an HTTP date, as the options say."""
    form, turn = side.options.retry_after_form, sum(side.record.faults.values())
    wait = side.options.retry_after
    if form == "date" or (form == "both" and turn % 2):
        return formatdate(side.clock() + wait + 1, usegmt=True)
    return str(max(1, round(wait)))


def handler(side: Side, classify: Classify, refusals: Refusals, controls: Controls | None = None) -> Handle:
    """The whole way of a request, for aiohttp's low-level server. `controls` are the acts under /_sim/, else those of records."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.rel_url.raw_path.startswith("/_sim/"):
            return await _control(side, request, CONTROLS if controls is None else controls)
        call = await classify(request)
        if isinstance(call, Reply):
            side.record.answers[f"{call.status}"] += 1
            return _plain(call)
        with side.record.flight(call.endpoint):
            return await _meet(side, request, call, refusals)

    return handle


async def _meet(side: Side, request: web.BaseRequest, call: Call, refusals: Refusals) -> web.StreamResponse:
    fault, reply = await met(side, call, refusals)
    if fault in SENDINGS:
        return await SENDINGS[fault](side, request, reply)
    return _whole(side, reply)


async def met(side: Side, call: Call, refusals: Refusals) -> tuple[str | None, Reply]:
    """The fault that a call meets, and its answer, not yet sent."""
    fault = side.faults.strike(call.endpoint, call.key)
    if fault:
        side.record.faults[fault] += 1
    await _wait(side, call, fault)
    refuse = refusals.get(fault) if fault else None
    reply = refuse(side) if refuse else await call.answer(fault)
    side.record.answers[f"{call.endpoint}:{reply.status}"] += 1
    side.record.outcomes[f"{fault or 'none'}:{reply.status}"] += 1
    return fault, reply


async def _wait(side: Side, call: Call, fault: str | None) -> None:
    low, high = side.options.slow if fault == "latency" else side.options.latency
    if high:
        share = side.faults.draw("wait", call.key, side.record.requests[call.endpoint])
        await asyncio.sleep(low + (high - low) * share)


def _whole(side: Side, reply: Reply) -> web.Response:
    if reply.sent:
        reply.sent()
    side.record.bytes_sent += len(reply.body)
    return _plain(reply)


def _plain(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers, content_type=reply.content_type)


async def _hang(side: Side, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    await asyncio.sleep(side.options.hang)
    return await _drop(side, request, reply)


async def _drop(side: Side, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    if request.transport:
        request.transport.abort()
    return web.Response(status=reply.status)


async def _begin(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type, response.content_length = reply.content_type, len(reply.body)
    await response.prepare(request)
    return response


async def _cut(side: Side, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = await _begin(request, reply)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport:
        request.transport.close()
    return response


async def _drip(side: Side, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = await _begin(request, reply)
    size = max(1, -(-len(reply.body) // PARTS))
    for start in range(0, len(reply.body), size):
        await response.write(reply.body[start : start + size])
        await asyncio.sleep(side.options.drip / PARTS)
    if reply.sent:
        reply.sent()
    return response


Sending = Callable[[Side, web.BaseRequest, Reply], Awaitable[web.StreamResponse]]
SENDINGS: dict[str | None, Sending] = {
    "timeout": _hang,
    "disconnect": _drop,
    "lost_reply": _drop,
    "truncated": _cut,
    "slow_body": _drip,
}


async def _control(side: Side, request: web.BaseRequest, controls: Controls) -> web.StreamResponse:
    act = controls.get((request.method, unquote(request.rel_url.raw_path)))
    if act is None:
        known = ", ".join(f"{method} {path}" for method, path in controls)
        return web.json_response({"error": f"No such control. Known: {known}."}, status=404)
    try:
        body = json.loads(await request.read() or b"{}")
        if not isinstance(body, dict):
            raise ValueError("The body must be a JSON object.")
        answer = act(side, body)
    except (ValueError, TypeError, KeyError) as error:
        return web.json_response({"error": str(error)}, status=400)
    if isinstance(answer, dict):
        return web.json_response(answer)
    return web.Response(body=b"".join(answer), content_type="application/x-ndjson")


def set_faults(side: Side, body: dict[str, Any]) -> dict[str, object]:
    """POST /_sim/faults: change rates, and say which are in force."""
    side.set_faults(body)
    return {"faults": {name: rate for name, (rate, _) in side.faults.rates.items()}}


def forward(side: Side, body: dict[str, Any]) -> dict[str, object]:
    """POST /_sim/clock: move the side's clock forward by so many seconds."""
    clock, seconds = side.clock, float(body["forward"])
    side.clock = lambda: clock() + seconds
    return {"now": side.clock()}


def _change(side: Side, body: dict[str, Any]) -> dict[str, object]:
    at = instant(body["at"]) if body.get("at") else None
    return {"changed": side.change(int(body.get("count", 1)), at)}


def _delete(side: Side, body: dict[str, Any]) -> dict[str, object]:
    return {"deleted": side.delete(int(body.get("count", 1)))}


def _summary(side: Side, body: dict[str, Any]) -> dict[str, object]:
    living = sum(position not in side.store.gone for position in side.store.index.values())
    return {"rows": len(side.store), "keys": living, **side.record.summary()}


CONTROLS: Controls = {
    ("GET", "/_sim/record"): _summary,
    ("GET", "/_sim/record/served"): lambda side, body: side.served_lines(),
    ("GET", "/_sim/record/written"): lambda side, body: side.written_lines(),
    ("GET", "/_sim/records"): lambda side, body: side.record_lines(),
    ("POST", "/_sim/faults"): set_faults,
    ("POST", "/_sim/change"): _change,
    ("POST", "/_sim/delete"): _delete,
}


@asynccontextmanager
async def listening(
    side: Side, classify: Classify, refusals: Refusals, controls: Controls | None = None
) -> AsyncIterator[Side]:
    """The side, answering on its address until the block ends; then no request is left hanging."""
    async with serving(handler(side, classify, refusals, controls), side.options.host, side.options.port) as port:
        side.url = f"http://{side.options.host}:{port}"
        yield side


@asynccontextmanager
async def serving(handle: Handle, host: str, port: int) -> AsyncIterator[int]:
    """A low-level HTTP server around `handle`; yields the port it listens on."""
    loop = asyncio.get_running_loop()

    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_LIMIT)

    server = web.Server(handle, request_factory=make, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def run(serve: Callable[[], Any]) -> int:
    """Run a simulator as a process until a signal (or, when asked, its parent's end); prints one JSON line when it listens."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_until_told(serve))
        except (ValueError, OSError) as error:
            print(f"The simulator cannot start: {error}", file=sys.stderr)
            return 2


async def _until_told(serve: Callable[[], Any]) -> int:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    parent = os.getppid()
    async with serve() as side:
        port = int(side.url.rpartition(":")[2])
        print(json.dumps({"port": port, "url": side.url}), flush=True)
        while not told.is_set() and not (side.options.with_parent and os.getppid() != parent):
            with_timeout = asyncio.timeout(1.0 if side.options.with_parent else None)
            try:
                async with with_timeout:
                    await told.wait()
            except TimeoutError:
                continue
    return 0


__all__ = [
    "BODY_LIMIT",
    "Call",
    "Common",
    "Controls",
    "Handle",
    "Refusals",
    "Reply",
    "forward",
    "handler",
    "listening",
    "met",
    "retry_after",
    "run",
    "serving",
    "set_faults",
    "spoil_body",
]
