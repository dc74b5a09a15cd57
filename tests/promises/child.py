"""What a process of these tests does, and how it dies: `main` works on a project, `simulate` is an other side.

A kill point is the n-th call of a function of ours: just before it, the process sends itself SIGKILL. The code under test knows nothing of it.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from counterfoil.app import App, open_app
from counterfoil.engine import queue, retry, worker
from counterfoil.model.errors import ConflictError
from counterfoil.simulators import customer_api, occ_lambda

__all__ = ["main", "queue", "simulate", "worker"]

# Where a process can be told to die: a name for the test, and the function whose n-th call is not reached.
POINTS: Mapping[str, str] = {
    "claim": "counterfoil.ledger.runs:claim",
    "set_window": "counterfoil.ledger.runs:set_window",
    "page": "counterfoil.connectors.http:HttpSource.page",
    "record": "counterfoil.connectors.http:HttpSource.record",
    "add_listed": "counterfoil.engine.book:RunBook.add_listed",
    "add_keys": "counterfoil.ledger.runs:add_keys",
    "hold": "counterfoil.ledger.runs:hold",
    "load": "counterfoil.connectors.table:Table.load",
    "move": "counterfoil.ledger.items:move",
    "add_faults": "counterfoil.ledger.runs:add_faults",
    "add_write_backs": "counterfoil.ledger.runs:add_write_backs",
    "finish_keys": "counterfoil.ledger.runs:finish_keys",
    "advance": "counterfoil.ledger.runs:advance",
    "open_keys": "counterfoil.ledger.runs:open_keys",
    "write_back": "counterfoil.connectors.http:HttpSource.write_back",
    "finish_write_backs": "counterfoil.ledger.runs:finish_write_backs",
    "outcome": "counterfoil.engine.sync:_outcome",
    "soft_delete": "counterfoil.connectors.table:Table.soft_delete",
    "finish": "counterfoil.ledger.runs:finish",
    "move_watermark": "counterfoil.ledger.flows:move_watermark",
    "settle_cases": "counterfoil.engine.sync:_settle_cases",
    "next_window": "counterfoil.ledger.runs:create",
    "prune": "counterfoil.ledger.runs:prune_keys",
    "items.claim": "counterfoil.ledger.items:claim",
    "items.renew": "counterfoil.ledger.items:renew",
    "items.settle": "counterfoil.engine.retry:_settle",
}


def main(folder: str, environment: Mapping[str, str], die: str, command: str, *arguments: str) -> None:
    """`run FLOW`: a run of it, or go on with the open one. `items FLOW`: what is due. `worker`, `up`: until SIGTERM."""
    _end_with_parent()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if die:
        _plant(*die.split(":"))
    asyncio.run(_COMMANDS[command](Path(folder), environment, *arguments))


async def _run(folder: Path, environment: Mapping[str, str], flow: str) -> None:
    async with open_app(folder, environment=environment) as app:
        await app.apply()
        await app.work(await _open_run(app, flow))


async def _open_run(app: App, flow: str) -> int:
    try:
        return await app.start_run(flow, actor="test")
    except ConflictError:
        async with app.ledger.session() as session:
            return int(
                await session.fetchval("select id from counterfoil.run where flow = $1 and ended_at is null", flow)
            )


async def _items(folder: Path, environment: Mapping[str, str], flow: str) -> None:
    from counterfoil.engine import presence
    from counterfoil.engine.upkeep.rescue import Rescue

    async with open_app(folder, environment=environment) as app, presence.present(app.dsn, "test") as here:
        await Rescue(app.ledger, app.project.flows).run_once()
        while (await retry.work(app.job(flow, here.worker))).claimed:
            pass
        await app.close_sources()


async def _worker(folder: Path, environment: Mapping[str, str], schedules: str = "") -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_app(folder, environment=environment) as app:
        await app.run_worker(schedules=bool(schedules), stop=stop)


_COMMANDS: Mapping[str, Any] = {"run": _run, "items": _items, "worker": _worker}


def _plant(point: str, number: str = "1") -> None:
    """Die at the `number`-th call of a point."""
    module_name, _, name = POINTS[point].partition(":")
    holder: Any = importlib.import_module(module_name)
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    real, left = getattr(holder, last), int(number)

    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(holder, last, deadly)


class _Told:
    """A standard output that passes its one line on."""

    def __init__(self, telling: Any) -> None:
        self._telling = telling

    def write(self, text: str) -> None:
        if text.strip():
            self._telling.send(json.loads(text))

    def flush(self) -> None: ...


def simulate(which: str, arguments: list[str], telling: Any) -> None:
    """A simulator; its first line goes to `telling`. Ends with its parent."""
    _end_with_parent()
    sys.stdout = _Told(telling)
    {"customer_api": customer_api, "occ_lambda": occ_lambda}[which].main([*arguments, "--with-parent"])


def _end_with_parent() -> None:
    """The kernel kills this process when the one it was forked from ends: a killed test leaves nothing behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
