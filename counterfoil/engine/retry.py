"""Items of a sync that are due: claim → fetch → check → settle, set-wise. Each record's failure is retried by itself, outside any run.

Every settling move names the attempt that claimed the item; one that lost its lease settles nothing and loads nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

import msgspec

from counterfoil.engine.book import load_rows, move_of, write_back_body
from counterfoil.engine.caller import GateClosedError
from counterfoil.engine.check import Checked, Deviation, Fetched, check
from counterfoil.engine.job import SyncJob
from counterfoil.engine.log import get_logger
from counterfoil.flows.rows import Row
from counterfoil.ledger import items
from counterfoil.ledger.items import Claimed, Move
from counterfoil.ledger.pool import Connection
from counterfoil.model.errors import ConnectorError, Gone, Transient
from counterfoil.model.item import ItemEvent

log = get_logger(__name__)

AT_ONCE = 100
UNTOLD = "write_back_"  # faults of records that are loaded, and the source was not told


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of a slice of items."""

    claimed: int = 0
    loaded: int = 0
    rejected: int = 0
    failed: int = 0
    lost: int = 0

    def __add__(self, other: Retried) -> Retried:
        return Retried(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


async def work(job: SyncJob, *, limit: int = AT_ONCE) -> Retried:
    """Claim what is due of this flow, and settle it. Killed anywhere, the leases end and the items are due again."""
    lease = timedelta(seconds=max(job.lease, job.flow.source.timeouts.total.total_seconds() + job.lease))
    async with job.ledger.transaction() as connection:
        claimed = await items.claim(connection, job.flow.name, limit=limit, lease=lease, worker=job.worker)
    if not claimed:
        return Retried()
    fetched = await _under_lease(job, claimed, lease)
    checked = check(job, fetched)
    told_again = {one.key for one in fetched if one.key and one.raw is None and one.error is None}
    result = await _settle(job, claimed, checked, told_again, lease)
    log.info("items.retried", flow=job.flow.name, **asdict(result))
    return result


async def _under_lease(job: SyncJob, claimed: Sequence[Claimed], lease: timedelta) -> list[Fetched]:
    fetching = asyncio.gather(*(_fetch(job, item) for item in claimed))
    beating = asyncio.ensure_future(_beat(job, claimed, lease))
    try:
        return list(await fetching)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(job: SyncJob, claimed: Sequence[Claimed], lease: timedelta) -> None:
    while True:
        await asyncio.sleep(lease.total_seconds() / 3)
        async with job.ledger.session() as session:
            await items.renew(session, job.flow.name, [item.attempt_id for item in claimed], lease)


async def _fetch(job: SyncJob, item: Claimed) -> Fetched:
    """From the source by its key; what can't be fetched singly is read from what the item kept."""
    if not job.source.has_detail:
        if item.payload is not None and (item.fault or "").startswith(UNTOLD):
            return await _tell_again(job, item, item.payload)
        if item.payload is not None:
            return Fetched(item.key, item.payload.encode())
        return Fetched(item.key, None, Transient("The next run reads this record again.", fault="not_listed_yet"))
    try:
        return Fetched(item.key, await job.caller(lambda: job.source.record(item.key)))
    except Gone as error:
        return Fetched(item.key, None, error)
    except GateClosedError as error:
        return Fetched(item.key, None, Transient(error.problem, fault=error.fault))
    except ConnectorError as error:
        return Fetched(item.key, None, error)


async def _tell_again(job: SyncJob, item: Claimed, body: str) -> Fetched:
    """A record that is loaded and was not told to the source: the body is kept with the item, nothing needs to be read."""
    try:
        await job.caller(lambda: job.source.write_back(item.key, msgspec.json.decode(body)))
    except ConnectorError as error:
        return Fetched(item.key, None, Transient(error.problem, fault=f"write_back_{error.fault.removeprefix(UNTOLD)}"))
    return Fetched(item.key, None)


async def _settle(
    job: SyncJob, claimed: Sequence[Claimed], checked: Checked, told_again: Set[str], lease: timedelta
) -> Retried:
    """Load, then tell the source, then settle: killed in between, the items are due again, and both are safe to repeat."""
    held_by = {item.key: item for item in claimed}
    deviations = [_judge_again(deviation, held_by) for deviation in checked.deviations]
    released = [deviation for deviation in deviations if _was_released(deviation, held_by[deviation.key])]
    ready = [*zip(checked.rows, checked.raws, strict=True)]
    ready += [(one.row, one.raw) for one in released if one.row is not None and one.raw is not None]
    loaded, refused = await job.ledger.patiently(lambda: _load(job, claimed, ready, lease))
    untold = await _write_back(job, loaded)
    kept_back = {deviation.key for deviation in (*refused, *untold)}
    good = [row.key for row in loaded if row.key not in kept_back] + sorted(told_again)
    failed = [*(one for one in deviations if one not in released), *refused, *untold]
    return await job.ledger.patiently(lambda: _move(job, claimed, good, failed, lease))


async def _mine(
    job: SyncJob, connection: Connection, claimed: Sequence[Claimed], lease: timedelta
) -> dict[str, Claimed]:
    """The fence, first in each transaction: locks the items still ours, so that nothing is done on behalf of the others."""
    kept = await items.renew(connection, job.flow.name, [item.attempt_id for item in claimed], lease)
    return {item.key: item for item in claimed if item.attempt_id in kept}


async def _load(
    job: SyncJob, claimed: Sequence[Claimed], ready: Sequence[tuple[Row, bytes]], lease: timedelta
) -> tuple[list[Row], list[Deviation]]:
    """The rows that are in the table now, and those the table refused."""
    async with job.ledger.transaction() as connection:
        mine = await _mine(job, connection, claimed, lease)
        held = [(row, raw) for row, raw in ready if row.key in mine]
        rows = [row for row, _ in held]
        _, refused = await load_rows(job, connection, rows, [raw for _, raw in held])
    bad = {deviation.key for deviation in refused}
    return [row for row in rows if row.key not in bad], refused


async def _move(
    job: SyncJob, claimed: Sequence[Claimed], good: Sequence[str], failed: Sequence[Deviation], lease: timedelta
) -> Retried:
    now = job.clock.now()
    async with job.ledger.transaction() as connection:
        mine = await _mine(job, connection, claimed, lease)
        moves = [Move(ItemEvent.LOAD, key=key, attempt_id=mine[key].attempt_id) for key in good if key in mine]
        loaded = len(moves)
        moves += [_move_of(job, one, mine[one.key], now) for one in failed if one.key in mine]
        await items.move(connection, job.flow.name, moves, actor=f"worker {job.worker}")
    rejected = sum(move.event is ItemEvent.REJECT for move in moves)
    return Retried(len(claimed), loaded, rejected, len(moves) - loaded - rejected, len(claimed) - len(mine))


def _move_of(job: SyncJob, deviation: Deviation, item: Claimed, now: datetime) -> Move:
    return move_of(
        job,
        deviation,
        now,
        attempt_id=item.attempt_id,
        attempts=item.attempts,
        first_failed_at=item.first_failed_at,
    )


def _judge_again(deviation: Deviation, held_by: dict[str, Claimed]) -> Deviation:
    """A record the source does not know the second time either is gone: nothing is left to load."""
    if deviation.fault == Gone.fault and held_by[deviation.key].fault == Gone.fault:
        problem = "The source listed it and does not know it any more; asked twice."
        return replace(deviation, event=ItemEvent.REJECT, problem=problem)
    return deviation


def _was_released(deviation: Deviation, item: Claimed) -> bool:
    return (
        deviation.event is ItemEvent.REVIEW
        and item.released_sha256 is not None
        and item.released_sha256 == deviation.sha256
    )


async def _write_back(job: SyncJob, rows: Sequence[Row]) -> list[Deviation]:
    """Tell the source what is loaded; what it does not take comes back, to be tried again."""
    if job.flow.source.write_back is None:
        return []

    async def tell(row: Row) -> Deviation | None:
        try:
            await job.caller(lambda: job.source.write_back(row.key, write_back_body(job, row)))
        except ConnectorError as error:
            problem = f"Loaded, but the source was not told: {error.problem}"
            return Deviation(row.key, ItemEvent.FAIL_TEMPORARILY, f"write_back_{error.fault}", problem)
        return None

    return [deviation for deviation in await asyncio.gather(*map(tell, rows)) if deviation is not None]
