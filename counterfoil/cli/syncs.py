"""`sync run | list | show | cancel`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterfoil.cli import summary
from counterfoil.cli.common import COMMON, Common, DryRunFlag, Limit, Reason, database, go, project
from counterfoil.cli.output import emit, room, say, show, table
from counterfoil.cli.progress import Watcher, watching
from counterfoil.cli.words import duration, moment
from counterfoil.ledger import flows, health, runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import UsageError
from counterfoil.model.run import ENDED_RUN, RunState
from counterfoil.operations import flows as named
from counterfoil.operations import runs as operations
from counterfoil.operations.actor import actor_of, needed_reason

if TYPE_CHECKING:
    from counterfoil.app import App

WIDE = 120  # columns of a terminal that has room for every count of a run
FlowName = Annotated[str, Parameter(help="Name of a flow.")]


def run(
    flow: FlowName,
    /,
    *,
    since: Annotated[
        str | None,
        Parameter(
            help="Records changed at or after this: a date, a time (UTC where it names no zone), or 7d for that long ago."
        ),
    ] = None,
    until: Annotated[str | None, Parameter(help="Records changed before this, written as --since is.")] = None,
    step: Annotated[
        str | None, Parameter(help="A backfill from --since to --until in windows of this size, such as 1d.")
    ] = None,
    dry_run: DryRunFlag = False,
    follow: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Where a run is open already, watch it to its end, wherever it is worked on.",
        ),
    ] = False,
    wait: Annotated[
        bool, Parameter(name="--wait", negative="--no-wait", help="Do it here; --no-wait leaves it to a worker.")
    ] = True,
    reason: Reason = None,
    common: Common = COMMON,
) -> int:
    """Run a sync here and now, or go on with one that was left.

    Ends with the sum: found = inserted + updated + unchanged + rejected + review + failed. Exit 0 completed, 5 some records are items,
    1 failed, 7 nothing found where there used to be records.
    """
    now = datetime.now(UTC)
    window = (_moment(since, "--since", now), _moment(until, "--until", now))
    size = duration(step, "--step") if step else None
    if window[0] and window[1] and window[0] >= window[1]:
        raise UsageError("--since is not before --until.", "Turn them round.")

    async def work() -> int:
        async with project(common) as app:
            for sentence in operations.unheeded(app.flow(flow), *window, size):
                say(sentence)
            if dry_run:
                return await _dry_run(app, flow, window, common)
            run_id = await _started(app, flow, window, size, follow, reason, common)
            return await _worked(app, run_id, common) if wait or follow else _left(run_id, common)

    return go(work(), fast=True)


def _moment(text: str | None, flag: str, now: datetime) -> datetime | None:
    return moment(text, flag, now=now) if text else None


Span = tuple[datetime | None, datetime | None]


async def _dry_run(app: App, flow: str, window: Span, common: Common) -> int:
    found = await app.dry_run(flow, since=window[0], until=window[1])
    if common.json:
        emit("dry_run", flow=flow, counts=found.counts, faults=found.faults, changes=found.changes)
    else:
        show(summary.of_dry_run(flow, found.counts, found.faults, found.changes))
        say("Nothing was written.")
    return 0


async def _started(
    app: App, flow: str, window: Span, step: timedelta | None, follow: bool, reason: str | None, common: Common
) -> int:
    """A new run, or the open one where that is what was asked for, or where nobody works on it any more."""
    async with app.ledger.session() as session:
        known = await runs.get_open(session, flow)
    asked = window != (None, None) or step is not None
    if known is not None and not asked and (follow or operations.is_left(known)):
        say(f"Going on with run {known['id']} of {flow}, {known['found']:,} records found so far.")
        return int(known["id"])
    for plan in await app.apply([flow]):
        for change in plan.changes:
            say(f"{plan.flow}: {change}")
    actor = actor_of(app.settings)
    return await app.start_run(flow, actor=actor, reason=reason, since=window[0], until=window[1], step=step)


def _left(run_id: int, common: Common) -> int:
    if common.json:
        emit("run", run={"id": run_id, "state": "queued"})
    else:
        say(f"Run {run_id} is queued. A worker takes it: `counterfoil up`; watch it: `counterfoil sync show {run_id}`.")
    return 0


async def _worked(app: App, run_id: int, common: Common) -> int:
    """Work on a run, and on the further windows of its backfill; the worst outcome counts."""
    codes: list[int] = []
    told: list[Mapping[str, Any]] = []
    following: int | None = run_id
    with watching(bar=not common.json) as watcher:
        while following is not None:
            row = await _one_run(app, following, watcher)
            codes.append(summary.EXIT_CODES[row["state"]])
            told.append(row)
            following = await _next_window(app.ledger, row)
            if following is not None and not common.json:
                say(summary.sum_line(runs.counts_of(row)) + f" (run {row['id']})")
    await _tell(app.ledger, told, common)
    return next((code for code in (1, 7, 5) if code in codes), 0)


async def _one_run(app: App, run_id: int, watcher: Watcher) -> Mapping[str, Any]:
    try:
        return await app.work(run_id, on_progress=watcher)
    except asyncio.CancelledError:
        say(
            f"Run {run_id} was given back in order; `counterfoil sync run` of its flow, or any worker, goes on with it."
        )
        raise


async def _next_window(ledger: Ledger, row: Mapping[str, Any]) -> int | None:
    if row["backfill_until"] is None or RunState(row["state"]) not in ENDED_RUN:
        return None
    async with ledger.session() as session:
        following = await runs.get_open(session, row["flow"])
    same = following is not None and following["backfill_until"] == row["backfill_until"]
    return int(following["id"]) if following is not None and same else None


async def _tell(ledger: Ledger, told: list[Mapping[str, Any]], common: Common) -> None:
    row = told[-1]
    async with ledger.session() as session:
        faults = [await runs.list_faults(session, one["id"]) for one in told]
        (sums,) = await health.sums(session, row["flow"])
        known = next(f for f in await flows.list_(session) if f["name"] == row["flow"])
    if common.json:
        each = [as_json(one) | {"faults": some} for one, some in zip(told, faults, strict=True)]
        emit("run", run=each[-1], runs=each, items=sums, next_fire_at=known["next_fire_at"])
        return
    for one, some in zip(told, faults, strict=True):
        show(summary.of_run(one, some))
    for sentence in summary.next_steps(row, sums, known):
        show(sentence)


_HIDDEN = ("attempt_id", "cursor", "suspect_key", "suspect_crashes", "next_key", "worker_id")


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A run for other programs: what a person may know of it, and whether its sum holds."""
    counts = runs.counts_of(row)
    return {name: value for name, value in row.items() if name not in _HIDDEN} | {"balanced": counts.balanced}


def list_(
    flow: Annotated[str | None, Parameter(help="Only runs of this flow.")] = None,
    /,
    *,
    limit: Limit = 20,
    before: Annotated[int | None, Parameter(help="Only runs with a smaller number: to read on.")] = None,
    common: Common = COMMON,
) -> int:
    """List runs, newest first."""

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            await named.require(session, flow)
            rows = await runs.list_(session, flow, before=before, limit=limit)
        if common.json:
            emit("runs", runs=[as_json(row) for row in rows], complete=len(rows) < limit)
        elif not rows:
            say("No run yet. `counterfoil sync run FLOW` makes one.")
        else:
            show(_table_of(rows))
        return 0

    return go(work())


_COUNTS = ("inserted", "updated", "unchanged", "rejected", "review", "failed")


def _table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for each count; on a terminal too narrow for that, one for all that are not zero."""
    wide = [[r[name] for name in _COUNTS] for r in rows]
    narrow = [[", ".join(f"{name} {r[name]:,}" for name in _COUNTS if r[name]) or None] for r in rows]
    counts, names = (wide, _COUNTS) if (room(sys.stdout) or WIDE) >= WIDE else (narrow, ("of which",))
    first = [[f"{r['id']}", r["flow"], r["state"], r["trigger"], r["created_at"], r["found"]] for r in rows]
    lines = [[*place, *some] for place, some in zip(first, counts, strict=True)]
    return table(("run", "flow", "state", "by", "at", "found", *names), lines)


def show_(
    run: Annotated[str, Parameter(help="Number of a run, or name of a flow for its newest.")],
    /,
    *,
    common: Common = COMMON,
) -> int:
    """Show one run with its sum and its faults."""

    async def work() -> int:
        async with database(common) as opened:
            row = await operations.one(opened.ledger, run)
            async with opened.ledger.session() as session:
                faults = await runs.list_faults(session, row["id"])
        if common.json:
            emit("run", run=as_json(row) | {"faults": faults})
            return 0
        show(summary.of_run(row, faults))
        if row["state"] == RunState.RUNNING:
            where = f"process {row['worker_pid']} on {row['worker_host']}"
            gone = "" if row["worker_alive"] else ", which is gone: any worker goes on with it"
            show(f"  worked on by {where}{gone}")
        return 0

    return go(work())


def cancel(flow: FlowName, /, *, reason: Reason = None, dry_run: DryRunFlag = False, common: Common = COMMON) -> int:
    """Stop the open run of a flow. What it has loaded stays, and so does the watermark: the next run asks again."""
    why = None if dry_run else needed_reason(reason)

    async def work() -> int:
        async with database(common) as opened:
            if why is None:
                row = await operations.open_one(opened.ledger, flow)
                say(f"Would cancel run {row['id']} of {flow}, {row['found']:,} records found so far.")
                return 0
            done = await operations.cancel(opened.ledger, flow, actor=actor_of(common.settings()), reason=why)
        if common.json:
            emit("cancelled", run=done.run_id, was=done.was, untold=done.untold)
            return 0
        say(f"Run {done.run_id} of {flow} is cancelled. What it has loaded stays; the watermark stays.")
        if done.untold:
            say(
                f"{done.untold:,} records are loaded and their source was not told (write-back); the next run tells it."
            )
        return 0

    return go(work())
