"""The life of a run: claim, window, pull, write-back, deletes, finish. What ends it is told in its state, with its reason and what follows.

A worker that dies leaves the run under its lease; the next attempt goes on from the cursor. One that stops in order gives it back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from counterfoil.engine.book import Place, RunBook
from counterfoil.engine.caller import GateClosedError
from counterfoil.engine.check import Deviation
from counterfoil.engine.job import SyncJob
from counterfoil.engine.log import get_logger
from counterfoil.engine.pull import CRASHES_BEFORE_CARE, ListFailedError, Pull
from counterfoil.flows.flow import Deletes
from counterfoil.ledger import cases, flows, items, runs
from counterfoil.ledger.pool import PASSING, Connection, Ledger, is_passing
from counterfoil.model.errors import ConnectorError, CounterfoilError, LeaseLostError, Misconfigured, Transient
from counterfoil.model.item import ItemEvent
from counterfoil.model.run import ACCOUNTED_RUN, RunCounts, RunState, Window, next_watermark, window_since

log = get_logger(__name__)

ENOUGH_TO_JUDGE = 20  # records; below, a share of rejected ones says nothing
RUNS_FOR_BASELINE = 3
LIST_TRIES = 5  # attempts at a list that broke off half way, each later than the last


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends: the run's state, or None where it goes on later, at `due_at`."""

    state: RunState | None
    fault: str | None = None
    problem: str | None = None
    due_at: datetime | None = None


async def work(
    job: SyncJob, run_id: int, *, settled: Callable[[RunCounts], None] = lambda counts: None
) -> Mapping[str, Any] | None:
    """Work on a run until it ends or must wait. None: another worker has it, or it is over. Else the run's row as it stands after."""
    attempt = uuid4()

    async def claim() -> Mapping[str, Any] | None:
        async with job.ledger.session() as session:
            lease = timedelta(seconds=job.lease)
            return await runs.claim(session, run_id, attempt=attempt, worker=job.worker, lease=lease)

    row = await job.ledger.patiently(claim)
    if row is None:
        return None
    try:
        ending = await _under_lease(job, run_id, attempt, _pull(job, row, attempt, settled))
        try:
            return await job.ledger.patiently(lambda: _end(job, run_id, attempt, ending))
        except (CounterfoilError, asyncpg.PostgresError) as error:
            if isinstance(error, LeaseLostError) or is_passing(error):
                raise
            wrong = _no_ending(error)
            return await job.ledger.patiently(lambda: _end(job, run_id, attempt, wrong))
    except LeaseLostError:
        log.warning("run.lease_lost", flow=job.flow.name, run=run_id)
        return None
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(job, run_id, attempt))
        raise
    except PASSING:
        await _give_back(job, run_id, attempt)
        raise


async def refuse(
    ledger: Ledger, run_id: int, *, worker: int, flow: str, error: ConnectorError, lease: float = 30.0
) -> None:
    """End a run that can't even begin here, such as for a missing variable: told in the run, and owned by a case."""
    attempt = uuid4()
    async with ledger.transaction() as connection:
        if await runs.claim(connection, run_id, attempt=attempt, worker=worker, lease=timedelta(seconds=lease)) is None:
            return
        await runs.finish(connection, run_id, attempt, RunState.FAILED, fault=error.fault, problem=str(error))
        await cases.open_for_flow(connection, flow, f"run:{error.fault}", f"Sync {flow} failed: {error.problem}")
    log.error("run.refused", flow=flow, run=run_id, fault=error.fault, problem=str(error))


def _no_ending(error: Exception) -> Ending:
    """The end of a run that could not end as it should: refused by the database, or by the table. It never stays running."""
    if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name in (
        "run_sum",
        "run_completed_is_clean",
    ):
        problem = "The sum of the run does not hold: a fault of ours. Nothing was called completed."
        return Ending(RunState.FAILED, "sum", problem)
    if isinstance(error, ConnectorError):
        return Ending(RunState.FAILED, error.fault, str(error))
    return Ending(RunState.FAILED, "not_ended", f"The end of the run was refused: {type(error).__name__}: {error}")


async def _give_back(job: SyncJob, run_id: int, attempt: UUID) -> None:
    """Due again at once, for whoever is free. Where that can't be written, the end of the lease does it."""

    async def give_back() -> None:
        async with job.ledger.session() as session:
            await runs.release(session, run_id, attempt, job.clock.now())

    with contextlib.suppress(*PASSING):
        await job.ledger.patiently(give_back)


async def _under_lease(job: SyncJob, run_id: int, attempt: UUID, work: Any) -> Ending:
    """Do `work` while the lease is renewed beside it; a lost lease stops it."""
    working = asyncio.ensure_future(work)
    beating = asyncio.ensure_future(_beat(job, run_id, attempt))
    try:
        done, _ = await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            return await working
        await beating  # raises what ended it
        raise LeaseLostError("The heartbeat ended.")
    finally:
        for task in (working, beating):
            task.cancel()
        await asyncio.gather(working, beating, return_exceptions=True)


async def _beat(job: SyncJob, run_id: int, attempt: UUID) -> None:
    while True:
        await asyncio.sleep(job.lease / 3)
        try:
            async with job.ledger.session() as session:
                await runs.renew(session, run_id, attempt, timedelta(seconds=job.lease))
        except Exception as error:
            if isinstance(error, LeaseLostError) or not is_passing(error):
                raise
            log.warning("run.heartbeat_missed", flow=job.flow.name, run=run_id, error=type(error).__name__)


async def _pull(job: SyncJob, row: Mapping[str, Any], attempt: UUID, settled: Callable[[RunCounts], None]) -> Ending:
    """The work itself, and what its end means."""
    try:
        window = await _window(job, row, attempt)
        async with job.ledger.session() as session:
            has_items = await items.any_(session, job.flow.name)
        book = RunBook(job, row["id"], attempt, row["next_key"], row["chunks"], has_items)
        suspect = (row["suspect_key"], row["suspect_crashes"])
        careful = job.flow.pull.chunk_rows if row["crashes"] >= CRASHES_BEFORE_CARE or suspect[0] else 0
        pull = Pull(job, book, window, careful, suspect, settled)
        await pull.run(cursor=row["cursor"], list_ended=row["list_ended"])
        await _write_back(job, book)
        return await _outcome(job, book)
    except GateClosedError as error:
        return await _pause(job, error)
    except ListFailedError as error:
        return await _list_failed(job, row["id"], error)
    except (Misconfigured, ConnectorError) as error:
        return Ending(RunState.FAILED, error.fault, str(error))
    except Exception as error:
        if isinstance(error, LeaseLostError) or is_passing(error):
            raise
        log.exception("run.internal_error", flow=job.flow.name, run=row["id"])
        return Ending(RunState.FAILED, "internal_error", f"A fault of ours: {type(error).__name__}: {error}")


async def _window(job: SyncJob, row: Mapping[str, Any], attempt: UUID) -> Window:
    """The window of the run: set once, so that a resumed run asks for the same."""
    mark = job.flow.source.watermark
    if row["given"] or row["attempts"] > 1 or mark is None:
        return Window(row["since"], row["until"])
    since = window_since(row["watermark_before"], now=job.clock.now(), overlap=mark.overlap, lookback=mark.lookback)
    async with job.ledger.session() as session:
        await runs.set_window(session, row["id"], attempt, since, None)
    return Window(since, None)


async def _pause(job: SyncJob, error: GateClosedError) -> Ending:
    """The source is closed for longer than a worker should wait: the run goes on when it opens, and frees this worker meanwhile."""
    return Ending(None, error.fault, error.problem, job.clock.now() + timedelta(seconds=error.wait))


async def _list_failed(job: SyncJob, run_id: int, error: ListFailedError) -> Ending:
    """A list that broke off half way is gone on with later, from its cursor; one that never began, or was refused, ends the run."""
    async with job.ledger.session() as session:
        row = await runs.get(session, run_id)
    assert row is not None
    if isinstance(error.error, Transient) and row["pages"] > 0 and row["attempts"] < LIST_TRIES:
        pause = timedelta(seconds=5 * 2 ** row["attempts"])
        return Ending(None, error.fault, str(error), job.clock.now() + pause)
    return Ending(RunState.FAILED, error.fault, str(error))


# --- write-back ---------------------------------------------------------------------------------------------------


async def _write_back(job: SyncJob, book: RunBook) -> None:
    """Tell the source about what was loaded. What it does not take becomes an item, and is tried again by itself."""
    if job.flow.source.write_back is None:
        return

    async def adopt() -> None:
        async with job.ledger.transaction() as connection:
            await runs.hold(connection, book.run_id, book.attempt)
            await runs.adopt_write_backs(connection, book.run_id, job.flow.name)

    await job.ledger.patiently(adopt)
    after = ""
    while True:
        async with job.ledger.session() as session:
            waiting = await runs.open_write_backs(session, book.run_id, after=after, limit=500)
        if not waiting:
            return
        after = waiting[-1][0]
        answers = await asyncio.gather(*(_tell(job, key, body) for key, body in waiting))
        await _settle_told(job, book, waiting, answers)


async def _tell(job: SyncJob, key: str, body: Mapping[str, Any]) -> ConnectorError | None:
    try:
        await job.caller(lambda: job.source.write_back(key, body))
    except (GateClosedError, Misconfigured):
        raise
    except ConnectorError as error:
        return error
    return None


async def _settle_told(job: SyncJob, book: RunBook, waiting: list[tuple[str, Any]], answers: list[Any]) -> None:
    refused = [
        Deviation(
            key,
            ItemEvent.FAIL_TEMPORARILY,
            f"write_back_{error.fault}",
            f"Loaded, but the source was not told: {error.problem}",
            msgspec.json.encode(
                body
            ),  # kept with the item where the record can't be fetched by its key: what is still to be told
        )
        for (key, body), error in zip(waiting, answers, strict=True)
        if error is not None
    ]

    async def work(connection: Connection) -> RunCounts:
        await book.note_unwritten(connection, refused)
        await runs.finish_write_backs(connection, book.run_id, [key for key, _ in waiting])
        counts = RunCounts(written_back=len(waiting) - len(refused))
        await book.advance(connection, counts, Place(), None, 0)
        return counts

    await book.in_chunk(work)


# --- the end ------------------------------------------------------------------------------------------------------


async def _outcome(job: SyncJob, book: RunBook) -> Ending:
    async with job.ledger.session() as session:
        row = await runs.get(session, book.run_id)
        assert row is not None
        counts = runs.counts_of(row)
        if counts.found == 0 and job.flow.empty_is_news and not row["given"]:
            lately = await runs.found_lately(session, job.flow.name, without=book.run_id)
            if len(lately) >= RUNS_FOR_BASELINE and min(lately) > 0:
                usual = sorted(lately)[len(lately) // 2]
                return Ending(RunState.EMPTY, "empty", f"Nothing was found; the last runs found about {usual:,} each.")
    if counts.review + counts.failed:
        return Ending(RunState.PARTIAL)
    return Ending(RunState.COMPLETED)


async def _end(job: SyncJob, run_id: int, attempt: UUID, ending: Ending) -> Mapping[str, Any] | None:
    """One transaction: deletes, the run's end, the watermark last, the cases of the flow, the next window of a backfill."""
    name = job.flow.name
    async with job.ledger.transaction() as connection:
        await runs.hold(connection, run_id, attempt)
        if ending.state is None:
            await runs.release(
                connection, run_id, attempt, ending.due_at or job.clock.now(), ending.fault, ending.problem
            )
            return await runs.get(connection, run_id)
        row = await runs.get(connection, run_id)
        assert row is not None
        deletes = job.flow.destination.deletes is Deletes.SOFT and not row["given"]
        complete = ending.state in ACCOUNTED_RUN and row["found"] > 0
        if deletes and complete and not await runs.any_unknown_key(connection, run_id):
            deleted = await job.table.soft_delete(connection, run_id, now=job.clock.now())
            counts = RunCounts(deleted=deleted)
            await runs.advance(connection, run_id, attempt, lease=timedelta(seconds=job.lease), counts=counts)
        watermark = _watermark_after(job, row) if ending.state in ACCOUNTED_RUN else None
        fault, problem = ending.fault, ending.problem
        ended = await runs.finish(
            connection, run_id, attempt, ending.state, fault=fault, problem=problem, watermark=watermark
        )
        if watermark is not None:
            await flows.move_watermark(connection, name, watermark)
        await _settle_cases(job, connection, ended, ending)
        await _next_window(job, connection, ended)
    log.info("run.ended", flow=name, run=run_id, state=ending.state.value, fault=ending.fault)
    return ended


def _watermark_after(job: SyncJob, row: Mapping[str, Any]) -> datetime | None:
    """Moved by a run over the ordinary window, and by a given one that joins on to what is known."""
    if job.flow.source.watermark is None:
        return None
    before: datetime | None = row["watermark_before"]
    if row["given"] and (before is None or (row["since"] is not None and row["since"] > before)):
        return None
    # A source that does not say when records changed: what it gave now was everything up to the start of the run.
    latest = row["latest_changed"] if job.flow.source.changed else row["started_at"]
    return next_watermark(before, started_at=row["started_at"], latest_changed=latest, until=row["until"])


async def _settle_cases(job: SyncJob, connection: Connection, row: Mapping[str, Any], ending: Ending) -> None:
    """Trouble of the whole flow is owned by a case from its first day, and the case goes with the next good run."""
    name, counts = job.flow.name, runs.counts_of(row)
    if ending.state is RunState.FAILED:
        await cases.open_for_flow(connection, name, f"run:{ending.fault}", f"Sync {name} failed: {ending.problem}")
        return
    if ending.state is RunState.EMPTY and job.flow.source.watermark is None:
        await cases.open_for_flow(connection, name, "run:empty", f"Sync {name}: {ending.problem}")
        return
    if ending.state not in ACCOUNTED_RUN:
        return
    await cases.close_for_flow(connection, name, who=f"run {row['id']}", why=f"run {row['id']} went well")
    limit = job.flow.on_failure.rejected_ratio
    if counts.found >= ENOUGH_TO_JUDGE and counts.rejected / counts.found > limit:
        title = f"Sync {name}: {counts.rejected:,} of {counts.found:,} records were rejected, more than {limit:.0%}."
        await cases.open_for_flow(connection, name, "run:rejected", title)


async def _next_window(job: SyncJob, connection: Connection, row: Mapping[str, Any]) -> None:
    """The next window of a backfill is a run of its own, made in the transaction that ends this one."""
    if row["backfill_until"] is None or row["until"] is None or row["until"] >= row["backfill_until"]:
        return
    if RunState(row["state"]) not in ACCOUNTED_RUN:
        return
    await runs.create(
        connection,
        job.flow.name,
        trigger="backfill",
        actor=row["actor"],
        reason=row["reason"],
        since=row["until"],
        until=min(row["until"] + row["backfill_step"], row["backfill_until"]),
        given=True,
        backfill_until=row["backfill_until"],
        backfill_step=row["backfill_step"],
    )
