"""What other sides that receive have in common: faults before and after something is stored, a clock that can be moved, their own counts.

A fault *before* refuses, and nothing was done. A fault *after* does what was asked and then loses or spoils the answer: the case that
makes duplicates. Routes and what is stored stand in the simulators themselves.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from counterfoil.simulators.faults import Faults, parse_faults
from counterfoil.simulators.options import Common
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import HTML, Reply, serving


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that may be answered. `answer` does what is asked; `lost` is told that its good answer never arrived whole."""

    endpoint: str
    key: str
    answer: Callable[[], Awaitable[Reply]]
    lost: Callable[[], None] = lambda: None


@dataclass
class Receiver:
    """One running other side: `url` is set once it listens."""

    options: Common
    faults: Faults
    ahead: float = 0.0
    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0

    @classmethod
    def of(cls, options: Common, known: tuple[str, ...], endpoints: tuple[str, ...]) -> "Receiver":
        """ValueError on an unknown fault."""
        faults = Faults(known, options.seed, options.max_in_a_row, options.burst_length, endpoints)
        faults.set(parse_faults(options.faults))
        return cls(options, faults, 0.0 if options.now is None else options.now - time.time())

    def clock(self) -> float:
        """Epoch seconds, as this side believes."""
        return time.time() + self.ahead

    def summary(self) -> dict[str, object]:
        return {
            "requests": dict(self.requests),
            "answers": dict(self.answers),
            "faults": dict(self.struck),
            "max_in_flight": self.most_in_flight,
        }


Before = Mapping[str, Callable[[Receiver, Call], Reply]]
Sending = Callable[[Receiver, web.BaseRequest, Reply], Awaitable[web.StreamResponse]]
Classify = Callable[[web.BaseRequest], Awaitable[Call | Reply]]
Controls = Mapping[tuple[str, str], Callable[[dict[str, Any]], "dict[str, object] | Iterator[bytes]"]]


def plain(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, headers=reply.headers, content_type=reply.content_type)


async def lose(receiver: Receiver, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """The connection is cut: no answer comes."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=reply.status)


async def truncate(receiver: Receiver, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_type, response.content_length = reply.content_type, len(reply.body)
    await response.prepare(request)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport:
        request.transport.close()
    return response


def _spoilt(body: Callable[[Reply], bytes], content_type: str = "application/json") -> Sending:
    async def send(receiver: Receiver, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        return web.Response(status=reply.status, body=body(reply), content_type=content_type)

    return send


AFTER: Mapping[str, Sending] = {
    "lost_reply": lose,
    "truncated": truncate,
    "invalid_json": _spoilt(lambda reply: reply.body[: max(1, len(reply.body) // 2)]),
    "empty": _spoilt(lambda reply: b""),
    "html": _spoilt(lambda reply: HTML, "text/html"),
}


def handler(
    receiver: Receiver, classify: Classify, before: Before, after: Mapping[str, Sending], controls: Controls
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """The whole way of a request."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.rel_url.raw_path.startswith("/_sim/"):
            return await _control(receiver, request, controls)
        receiver.in_flight += 1
        receiver.most_in_flight = max(receiver.most_in_flight, receiver.in_flight)
        try:
            return await _answered(receiver, request, await classify(request), before, after)
        finally:
            receiver.in_flight -= 1

    return handle


async def _answered(
    receiver: Receiver, request: web.BaseRequest, call: Call | Reply, before: Before, after: Mapping[str, Sending]
) -> web.StreamResponse:
    if isinstance(call, Reply):
        receiver.answers[str(call.status)] += 1
        return plain(call)
    receiver.requests[call.endpoint] += 1
    fault = receiver.faults.strike(call.endpoint, call.key)
    if fault:
        receiver.struck[fault] += 1
    await _wait(receiver, call, fault)
    if fault == "disconnect":
        return await lose(receiver, request, Reply(500, b""))
    reply = before[fault](receiver, call) if fault and fault in before else await call.answer()
    receiver.answers[f"{call.endpoint}:{reply.status}"] += 1
    if fault and fault in after and fault not in before and reply.status < 300:
        call.lost()
        return await after[fault](receiver, request, reply)
    return plain(reply)


async def _wait(receiver: Receiver, call: Call, fault: str | None) -> None:
    low, high = receiver.options.slow if fault == "latency" else receiver.options.latency
    if high:
        share = receiver.faults.draw("wait", call.key, receiver.requests[call.endpoint])
        await asyncio.sleep(low + (high - low) * share)


async def _control(receiver: Receiver, request: web.BaseRequest, controls: Controls) -> web.StreamResponse:
    place = (request.method, request.rel_url.raw_path)
    act = {**_shared(receiver), **controls}.get(place)
    if act is None:
        known = ", ".join(f"{method} {path}" for method, path in {**_shared(receiver), **controls})
        return web.json_response({"error": f"No such control. Known: {known}."}, status=404)
    try:
        answer = act(json.loads(await request.read() or b"{}"))
    except (ValueError, TypeError, KeyError) as error:
        return web.json_response({"error": str(error)}, status=400)
    if isinstance(answer, dict):
        return web.Response(body=encode(answer), content_type="application/json")
    return web.Response(body=b"".join(answer), content_type="application/x-ndjson")


def _shared(receiver: Receiver) -> Controls:
    def set_faults(body: dict[str, Any]) -> dict[str, object]:
        receiver.faults.set(body)
        return {"faults": {name: rate for name, (rate, _) in receiver.faults.rates.items()}}

    def forward(body: dict[str, Any]) -> dict[str, object]:
        receiver.ahead += float(body["forward"])
        return {"now": receiver.clock()}

    return {("POST", "/_sim/faults"): set_faults, ("POST", "/_sim/clock"): forward}


@asynccontextmanager
async def receiving(
    receiver: Receiver, classify: Classify, before: Before, after: Mapping[str, Sending], controls: Controls
) -> AsyncIterator[Receiver]:
    """The side, answering on its address until the block ends."""
    handle = handler(receiver, classify, before, after, controls)
    async with serving(handle, receiver.options.host, receiver.options.port) as port:
        receiver.url = f"http://{receiver.options.host}:{port}"
        yield receiver
