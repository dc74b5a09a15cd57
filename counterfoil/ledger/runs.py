"""Runs in the ledger. Every write of a worker names its attempt; where it is no longer the open one, `LeaseLostError` is raised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load
from counterfoil.model.errors import LeaseLostError
from counterfoil.model.run import RunCounts, RunState

SQL = load("runs")

COUNT_COLUMNS = (
    "listed",
    "duplicates",
    "found",
    "inserted",
    "updated",
    "unchanged",
    "rejected",
    "review",
    "failed",
    "deleted",
    "written_back",
)


@dataclass(frozen=True, slots=True)
class RunFault:
    """What went wrong with some records of a run; `keys` are at most ten examples."""

    outcome: str
    fault: str
    problem: str
    records: int
    keys: tuple[str, ...]


def counts_of(row: Mapping[str, Any]) -> RunCounts:
    return RunCounts(*(row[name] for name in COUNT_COLUMNS))


def _held(found: Any, run_id: int) -> None:
    if found is None:
        raise LeaseLostError(
            f"Run {run_id} is held by another attempt, or was cancelled.", "Nothing of this attempt is written."
        )


async def create(
    connection: Connection,
    flow: str,
    *,
    trigger: str,
    actor: str,
    reason: str | None = None,
    fired_for: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    given: bool = False,
    backfill_until: datetime | None = None,
    backfill_step: timedelta | None = None,
) -> int | None:
    """The id of the new run; None where one is open already, or this time of the schedule was fired."""
    arguments = (flow, trigger, actor, reason, fired_for, since, until, given, backfill_until, backfill_step)
    return await connection.fetchval(SQL["create_run"], *arguments)


async def claim(
    connection: Connection, run_id: int, *, attempt: UUID, worker: int, lease: timedelta
) -> Mapping[str, Any] | None:
    """The run's row, now ours; None where another worker has it or it has ended."""
    return await connection.fetchrow(SQL["claim_run"], run_id, attempt, worker, lease)


async def set_window(
    connection: Connection, run_id: int, attempt: UUID, since: datetime | None, until: datetime | None
) -> None:
    _held(await connection.fetchval(SQL["set_window"], run_id, attempt, since, until), run_id)


async def hold(connection: Connection, run_id: int, attempt: UUID) -> int:
    """The fence: first statement of every chunk's transaction. Returns how many chunks are settled."""
    chunks = await connection.fetchval(SQL["hold_run"], run_id, attempt)
    _held(chunks, run_id)
    return int(chunks)


async def renew(connection: Connection, run_id: int, attempt: UUID, lease: timedelta) -> None:
    _held(await connection.fetchval(SQL["renew_run"], run_id, attempt, lease), run_id)


async def suspect(connection: Connection, run_id: int, attempt: UUID, key: str) -> int:
    """Note the record in hand; returns how many workers died with this very record in hand."""
    crashes = await connection.fetchval(SQL["suspect_key"], run_id, attempt, key)
    _held(crashes, run_id)
    return int(crashes)


async def advance(
    connection: Connection,
    run_id: int,
    attempt: UUID,
    *,
    lease: timedelta,
    counts: RunCounts,
    cursor: Any = None,
    pages: int = 0,
    list_ended: bool = False,
    latest_changed: datetime | None = None,
    next_key: int = 0,
) -> None:
    """Add a chunk's counts and move the cursor; last statement of the chunk's transaction."""
    arguments = (lease, cursor, pages, list_ended, latest_changed, next_key, list(astuple(counts)))
    _held(await connection.fetchval(SQL["advance_run"], run_id, attempt, *arguments), run_id)


async def finish(
    connection: Connection,
    run_id: int,
    attempt: UUID,
    state: RunState,
    *,
    fault: str | None = None,
    problem: str | None = None,
    watermark: datetime | None = None,
) -> Mapping[str, Any]:
    row = await connection.fetchrow(SQL["finish_run"], run_id, attempt, state.value, fault, problem, watermark)
    _held(row, run_id)
    return row


async def release(
    connection: Connection,
    run_id: int,
    attempt: UUID,
    due_at: datetime,
    fault: str | None = None,
    problem: str | None = None,
) -> None:
    """Give the run back in order; a worker goes on with it at `due_at`. `problem`: why it has to wait, if it has."""
    await connection.execute(SQL["release_run"], run_id, attempt, due_at, fault, problem)


async def cancel(connection: Connection, run_id: int, reason: str) -> bool:
    return await connection.fetchval(SQL["cancel_run"], run_id, reason) is not None


async def get(connection: Connection, run_id: int) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["get_run"], run_id)


async def get_open(connection: Connection, flow: str) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["open_run"], flow)


async def list_(
    connection: Connection, flow: str | None = None, *, before: int | None = None, limit: int = 20
) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_runs"], flow, before, limit)


async def due(connection: Connection, limit: int = 100) -> list[tuple[int, str, int]]:
    """Runs nobody works on although they are due: id, flow, attempts so far."""
    return [(row["id"], row["flow"], row["attempts"]) for row in await connection.fetch(SQL["due_runs"], limit)]


async def found_lately(connection: Connection, flow: str, *, without: int, runs: int = 5) -> list[int]:
    return [row["found"] for row in await connection.fetch(SQL["found_lately"], flow, without, runs)]


async def add_keys(connection: Connection, run_id: int, keys: Sequence[str], first: int, *, done: bool) -> set[str]:
    """The keys that are new to this run; the others are duplicates in its list."""
    return {row["key"] for row in await connection.fetch(SQL["add_keys"], run_id, list(keys), first, done)}


async def open_keys(connection: Connection, run_id: int, *, after: int, limit: int) -> list[tuple[str, int]]:
    return [(row["key"], row["n"]) for row in await connection.fetch(SQL["open_keys"], run_id, after, limit)]


async def finish_keys(connection: Connection, run_id: int, keys: Sequence[str]) -> None:
    await connection.execute(SQL["finish_keys"], run_id, list(keys))


async def count_open_keys(connection: Connection, run_id: int) -> int:
    return int(await connection.fetchval(SQL["count_open_keys"], run_id))


async def any_unknown_key(connection: Connection, run_id: int) -> bool:
    return bool(await connection.fetchval(SQL["any_unknown_key"], run_id))


async def prune_keys(connection: Connection, limit: int) -> int:
    return int((await connection.execute(SQL["prune_keys"], limit)).split()[-1])


async def add_faults(connection: Connection, run_id: int, faults: Iterable[RunFault]) -> None:
    rows = [(f.outcome, f.fault, f.problem, f.records, "\x1f".join(f.keys)) for f in faults]
    if rows:
        await connection.execute(SQL["add_faults"], run_id, *(list(column) for column in zip(*rows, strict=True)))


async def list_faults(connection: Connection, run_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_faults"], run_id)


async def add_write_backs(connection: Connection, run_id: int, bodies: Mapping[str, Any]) -> None:
    if bodies:
        await connection.execute(SQL["add_write_backs"], run_id, list(bodies), list(bodies.values()))


async def adopt_write_backs(connection: Connection, run_id: int, flow: str) -> None:
    await connection.execute(SQL["adopt_write_backs"], run_id, flow)


async def open_write_backs(connection: Connection, run_id: int, *, after: str, limit: int) -> list[tuple[str, Any]]:
    return [(row["key"], row["body"]) for row in await connection.fetch(SQL["open_write_backs"], run_id, after, limit)]


async def finish_write_backs(connection: Connection, run_id: int, keys: Sequence[str]) -> None:
    await connection.execute(SQL["finish_write_backs"], run_id, list(keys))
