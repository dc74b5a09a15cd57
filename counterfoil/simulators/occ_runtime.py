"""Runs the Lambda function: in this process, or in child processes under AWS's own runtime client, awslambdaric.

For children this is the other end of AWS's Runtime API (/2018-06-01/runtime/...) on a private port, with the core behind
the function beside it. A child that dies fails its invocation as AWS does and is replaced. Knows no signature and no fault.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import sys
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote

from aiohttp import web

from counterfoil.simulators.occ_function import Core, Names, answer
from counterfoil.simulators.wire import serving

HANDLER = "counterfoil.simulators.occ_function.lambda_handler"
API = "/2018-06-01/runtime"
DEADLINE_MS = 900_000


@dataclass(slots=True)
class Outcome:
    """What one invocation came to: its payload, and whether that payload is a function error."""

    payload: bytes
    failed: bool = False


Invoke = Callable[[bytes, str, str | None], Awaitable[Outcome]]


def error_payload(message: str, kind: str, request_id: str, trace: list[str]) -> bytes:
    """The JSON that AWS's Python runtime gives for a function that raised."""
    found = {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    return json.dumps(found).encode()


async def in_process(core: Core, names: Names, event: bytes, request_id: str, fault: str | None) -> Outcome:
    """Run the function here: fast, and the same answers as under awslambdaric (a test holds them equal)."""
    try:
        return Outcome(json.dumps(answer(json.loads(event), core, names, fault)).encode())
    except Exception as error:
        trace = traceback.format_list(traceback.extract_tb(error.__traceback__))
        return Outcome(error_payload(str(error), type(error).__name__, request_id, trace), failed=True)


@dataclass(slots=True)
class Invocation:
    """One call on its way to a child."""

    event: bytes
    request_id: str
    fault: str | None
    outcome: asyncio.Future[Outcome]


@dataclass
class Runtimes:
    """The Runtime API's state: calls that wait for a child, calls a child has, and which child has which."""

    core: Core
    waiting: asyncio.Queue[Invocation] = field(default_factory=asyncio.Queue)
    taken: dict[str, Invocation] = field(default_factory=dict)
    held_by: dict[str, str] = field(default_factory=dict)

    async def invoke(self, event: bytes, request_id: str, fault: str | None) -> Outcome:
        """Hand the event to the next free child and wait for what it posts."""
        invocation = Invocation(event, request_id, fault, asyncio.get_running_loop().create_future())
        self.waiting.put_nowait(invocation)
        return await invocation.outcome

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request of a child: next, response, error, or a question to the core. Children differ by their path prefix."""
        _, child, rest = request.path.split("/", 2)
        if f"/{rest}" == f"{API}/invocation/next":
            return await self.next_for(child)
        if rest.startswith("core/"):
            return self._core(request)
        request_id, _, kind = rest.removeprefix(f"{API[1:]}/invocation/").partition("/")
        return self._settle(request_id, Outcome(await request.read(), failed=kind == "error"))

    async def next_for(self, child: str) -> web.Response:
        """The next invocation for a child, when there is one; it holds it until it posts an outcome or dies."""
        call = await self.waiting.get()
        while call.outcome.done():
            call = await self.waiting.get()
        self.taken[call.request_id] = call
        self.held_by[child] = call.request_id
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(DEADLINE_MS),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:::function:occ",
            "Lambda-Runtime-Client-Context": json.dumps({"custom": {"fault": call.fault} if call.fault else {}}),
        }
        return web.Response(body=call.event, headers=headers, content_type="application/json")

    def _settle(self, request_id: str, outcome: Outcome) -> web.StreamResponse:
        call = self.taken.pop(request_id, None)
        if call and not call.outcome.done():
            call.outcome.set_result(outcome)
        return web.json_response({"status": "OK"}, status=202)

    def _core(self, request: web.BaseRequest) -> web.StreamResponse:
        _, _, _, what, value = request.raw_path.split("/", 4)
        ask = self.core.changed_since if what == "changed" else self.core.application
        found = ask(unquote(value))
        return web.Response(status=404) if found is None else web.Response(text=found, content_type="application/json")

    def child_died(self, child: str, code: int) -> None:
        """Fail the call that a dead child held, as AWS does."""
        request_id = self.held_by.pop(child, "")
        message = f"RequestId: {request_id} Error: Runtime exited with error: exit status {code}"
        self._settle(request_id, Outcome(error_payload(message, "Runtime.ExitError", request_id, []), failed=True))


@asynccontextmanager
async def runtime(kind: str, core: Core, names: Names, instances: int) -> AsyncIterator[Invoke]:
    """How to invoke the function: `inprocess`, or `awslambdaric` with that many child processes. ValueError for another."""
    if kind == "inprocess":
        yield partial(in_process, core, names)
    elif kind == "awslambdaric":
        async with _children(Runtimes(core), names, instances) as invoke:
            yield invoke
    else:
        raise ValueError(f"--runtime {kind!r} is not known. Known: inprocess, awslambdaric.")


@asynccontextmanager
async def _children(state: Runtimes, names: Names, instances: int) -> AsyncIterator[Invoke]:
    if importlib.util.find_spec("awslambdaric") is None:
        raise ValueError(
            "--runtime awslambdaric needs AWS's package. Install counterfoil[simulators], or leave it inprocess."
        )
    async with serving(state.handle, "127.0.0.1", 0) as port:
        keepers = [asyncio.create_task(_keep(state, names, port)) for _ in range(instances)]
        try:
            yield state.invoke
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)


async def _keep(state: Runtimes, names: Names, port: int) -> None:
    """One child, replaced when it dies, ended when this task is cancelled."""
    while True:
        child = uuid.uuid4().hex
        process = await _start(child, names, port)
        try:
            state.child_died(child, await process.wait())
        finally:
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(ProcessLookupError):
                    await process.wait()


async def _start(child: str, names: Names, port: int) -> asyncio.subprocess.Process:
    address = f"127.0.0.1:{port}/{child}"
    told = {
        "AWS_LAMBDA_RUNTIME_API": address,
        "OCC_CORE": f"http://{address}",
        "OCC_BY_DATE": names.by_date,
        "OCC_MEDIUM": names.medium,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    quiet = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "awslambdaric",
        HANDLER,
        env={**os.environ, **told},
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
    )
