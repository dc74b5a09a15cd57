"""How things stand now: each flow with its last run, its sum and what needs a person. Reads only, from counters and small indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from counterfoil.ledger import cases, flows, gates, health, runs, workers
from counterfoil.ledger.pool import Connection, Ledger

LATE = timedelta(minutes=15)  # a due item or schedule may wait this long before it is worth a word


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """One flow. `run` is its newest run, `row` what the ledger knows of the flow, `sums` its items."""

    flow: str
    row: Mapping[str, Any]
    sums: Mapping[str, Any]
    run: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Status:
    """`attention`: everything that needs a person, the most urgent first, each a sentence with what to do."""

    at: datetime
    flows: tuple[FlowStatus, ...]
    cases: tuple[Mapping[str, Any], ...]
    workers: tuple[Mapping[str, Any], ...]
    attention: tuple[str, ...]


async def status(ledger: Ledger) -> Status:
    async with ledger.session() as session, session.transaction(isolation="repeatable_read", readonly=True):
        at = (await health.server_facts(session))["clock"]
        known = await flows.list_(session)
        sums = {row["flow"]: row for row in await health.sums(session)}
        found = tuple([FlowStatus(f["name"], f, sums[f["name"]], await _newest(session, f["name"])) for f in known])
        opened = tuple(await cases.list_(session, limit=1000))
        alive = tuple(row for row in await workers.list_(session) if row["alive"])
        stale = await health.stale_runs(session)
        closed = await gates.list_(session)
    return Status(at, found, opened, alive, tuple(_attention(at, found, opened, bool(alive), stale, closed)))


async def _newest(session: Connection, flow: str) -> Mapping[str, Any] | None:
    rows = await runs.list_(session, flow, limit=1)
    return rows[0] if rows else None


def _attention(
    at: datetime,
    found: Sequence[FlowStatus],
    opened: Sequence[Mapping[str, Any]],
    alive: bool,
    stale: Sequence[Mapping[str, Any]],
    closed: Sequence[Mapping[str, Any]],
) -> list[str]:
    said = [_of_case(case, at) for case in opened if case["due_at"] <= at]
    said += [
        f"Run {run['id']} of {run['flow']} is called running and nobody works on it. Start a worker: `counterfoil up`."
        for run in stale
    ]
    for flow in found:
        said += _of_flow(flow, at, alive)
    said += [
        f"Calls to {gate['name']} are held until {gate['closed_until']:%H:%M:%S} UTC: {gate['reason']}."
        for gate in closed
        if gate["closed_until"] is not None and gate["closed_until"] > at
    ]
    return said


def _of_case(case: Mapping[str, Any], at: datetime) -> str:
    late = int((at - case["due_at"]).total_seconds() // 60)
    return (
        f"Case {case['id']} ({case['title'].rstrip('.')}) is overdue by {late:,} min; owner {case['owner']}. "
        f"Look: `counterfoil case show {case['id']}`."
    )


def _of_flow(flow: FlowStatus, at: datetime, alive: bool) -> list[str]:
    said = []
    if flow.run is not None and flow.run["state"] in ("failed", "empty"):
        problem = flow.run["problem"] or "nothing was found where there used to be many."
        said.append(f"Run {flow.run['id']} of {flow.flow} ended as {flow.run['state']}: {problem}")
    number = flow.sums["overdue"] or 0
    late = f"{number:,} item{'s' * (number != 1)} overdue by more than 15 min"
    fire = flow.row["next_fire_at"]
    if fire is not None and fire < at - LATE:
        said.append(f"The schedule of {flow.flow} is late. Start `counterfoil up`.")
    if number and not alive:
        said.append(f"{late} of {flow.flow}, and no worker is at work. Start `counterfoil up`.")
    elif number:
        said.append(f"{late} of {flow.flow}, although a worker is at work.")
    return said
