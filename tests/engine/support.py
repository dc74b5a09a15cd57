"""What tests of the engine share: a source made of plain values, and a SyncJob around it on a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from counterfoil.connectors.table import Table
from counterfoil.engine.caller import Caller, Gate
from counterfoil.engine.job import SyncJob
from counterfoil.flows.flow import SyncFlow
from counterfoil.flows.load import load_flow_text
from counterfoil.flows.mapping import compile_mapping
from counterfoil.ledger import flows, runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock, SystemClock
from counterfoil.model.ports import BrokenEntry, Cursor, Page
from counterfoil.model.run import Window
from tests.promises.support import FLOW, flow_text


def raw(key: str | None, name: Any = "Ann", updated_at: str | None = None, **more: Any) -> bytes:
    """A record as it travels."""
    given = {"id": key, "name": name, "email": "a@example.org", "score": 1, "updated_at": updated_at, **more}
    return json.dumps({at: value for at, value in given.items() if value is not None}).encode()


@dataclass
class Listed:
    """A source of pages that stand here; `records` makes it one with details. What is an exception is raised."""

    pages: Sequence[Sequence[bytes] | Exception] = ()
    records: Mapping[str, bytes | Exception] | None = None
    broken: Sequence[BrokenEntry] = ()
    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def has_detail(self) -> bool:
        return self.records is not None

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        at = (cursor or {"n": 0})["n"]
        given = self.pages[at]
        if isinstance(given, Exception):
            raise given
        return Page(given, {"n": at + 1} if at + 1 < len(self.pages) else None, self.broken)

    async def record(self, key: str) -> bytes:
        self.asked.append(key)
        assert self.records is not None
        given = self.records[key]
        if isinstance(given, Exception):
            raise given
        return given

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None:
        self.told.append(key)

    async def probe(self) -> str:
        return "here"

    async def close(self) -> None: ...


def flow_of(**given: Any) -> SyncFlow:
    return load_flow_text(flow_text(**given))


def job_of(
    flow: SyncFlow,
    source: Any,
    ledger: Ledger,
    *,
    clock: Clock | None = None,
    worker: int = 0,
    decide: Callable[..., Any] | None = None,
) -> SyncJob:
    clock = clock or SystemClock()
    mapper = compile_mapping(flow.mapping, key_path=flow.source.key, changed_path=flow.source.changed)
    caller = Caller(Gate("test"), ledger, clock, flow.pull, flow.retry)
    table = Table(flow.destination, flow.mapping.fields)
    return SyncJob(flow, source, mapper, decide, table, caller, ledger, clock, worker)


async def prepared(owner: Any, flow: SyncFlow) -> None:
    """The flow registered, its table made."""
    await flows.register(owner, flow.name, title="", owner="testers", case_due=timedelta(hours=1), definition="")
    table = Table(flow.destination, flow.mapping.fields)
    await table.apply(owner, await table.plan(owner))


async def new_run(ledger: Ledger, flow: str = FLOW) -> int:
    async with ledger.transaction() as connection:
        run_id = await runs.create(connection, flow, trigger="person", actor="test")
    assert run_id is not None
    return run_id


__all__ = ["FLOW", "Listed", "flow_of", "job_of", "new_run", "prepared", "raw", "replace"]
