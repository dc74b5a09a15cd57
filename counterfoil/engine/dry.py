"""A dry run: list, fetch, check and load as a run does, on a connection whose transaction is rolled back. No item, no run, no watermark."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from counterfoil.engine.book import OUTCOMES, faults_of, load_rows
from counterfoil.engine.check import Checked, Deviation, Fetched, check
from counterfoil.engine.job import SyncJob
from counterfoil.engine.progress import DryRun
from counterfoil.flows.rows import RowFault
from counterfoil.ledger import flows
from counterfoil.ledger.pool import Connection
from counterfoil.ledger.runs import RunFault
from counterfoil.model.errors import ConnectorError
from counterfoil.model.item import ItemEvent
from counterfoil.model.run import RunCounts, Window, window_since

AT_ONCE = 500  # records fetched together; the window decides how many calls are under way


@dataclass(slots=True)
class _Found:
    counts: RunCounts = RunCounts()
    faults: dict[tuple[str, str], RunFault] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def add(self, counts: RunCounts, faults: Sequence[RunFault]) -> None:
        self.counts += counts
        for fault in faults:
            known = self.faults.get((fault.outcome, fault.fault))
            records = fault.records + (known.records if known else 0)
            keys = ((known.keys if known else ()) + fault.keys)[:10]
            self.faults[fault.outcome, fault.fault] = RunFault(fault.outcome, fault.fault, fault.problem, records, keys)


async def run(
    job: SyncJob, connection: Connection, statements: Sequence[str], *, since: datetime | None, until: datetime | None
) -> DryRun:
    """Everything but the writing. `statements` prepare the table, inside the transaction that is rolled back."""
    found = _Found()
    window = await _window(job, connection, since, until)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for statement in statements:
            await connection.execute(statement)
        async for fetched, entries, broken in _batches(job, window, found):
            await _try(job, connection, check(job, fetched, broken, entries=entries), found)
    finally:
        await transaction.rollback()
    return DryRun(found.counts, tuple(found.faults.values()))


async def _window(job: SyncJob, connection: Connection, since: datetime | None, until: datetime | None) -> Window:
    mark = job.flow.source.watermark
    if since is not None or until is not None or mark is None:
        return Window(since, until)
    row = await flows.get(connection, job.flow.name)
    watermark = row["watermark"] if row else None
    return Window(window_since(watermark, now=job.clock.now(), overlap=mark.overlap, lookback=mark.lookback))


async def _batches(
    job: SyncJob, window: Window, found: _Found
) -> AsyncIterator[tuple[list[Fetched], Sequence[bytes], Sequence[Any]]]:
    cursor = None
    while True:
        page = await job.caller(lambda cursor=cursor: job.source.page(window, cursor))  # type: ignore[misc]
        if not job.source.has_detail:
            yield [], page.entries, page.broken
        else:
            keys = _keys(job, page.entries, found)
            for start in range(0, len(keys), AT_ONCE):
                yield list(await asyncio.gather(*(_fetch(job, key) for key in keys[start : start + AT_ONCE]))), (), ()
        cursor = page.cursor
        if cursor is None:
            return


def _keys(job: SyncJob, entries: Sequence[bytes], found: _Found) -> list[str]:
    keys = []
    for raw in entries:
        entry = job.mapper.list_entry(raw)
        if isinstance(entry, RowFault):
            deviation = Deviation(entry.key or "", ItemEvent.REJECT, entry.fault, entry.problem)
            found.add(RunCounts(listed=1, found=1, rejected=1), faults_of([deviation]))
        else:
            keys.append(entry[0])
    return keys


async def _fetch(job: SyncJob, key: str) -> Fetched:
    try:
        return Fetched(key, await job.caller(lambda: job.source.record(key)))
    except ConnectorError as error:
        return Fetched(key, None, error)


async def _try(job: SyncJob, connection: Connection, checked: Checked, found: _Found) -> None:
    fresh = [(row, raw) for row, raw in zip(checked.rows, checked.raws, strict=True) if row.key not in found.seen]
    deviations = [deviation for deviation in checked.deviations if deviation.key not in found.seen]
    found.seen.update(checked.keys)
    loaded, refused = await load_rows(job, connection, [row for row, _ in fresh], [raw for _, raw in fresh])
    deviations += refused
    tally = Counter(OUTCOMES[deviation.event] for deviation in deviations)
    total = len(fresh) + len(deviations) - len(refused)
    counts = RunCounts(
        listed=checked.listed,
        duplicates=checked.listed - total,
        found=total,
        inserted=loaded.inserted,
        updated=loaded.updated,
        unchanged=loaded.unchanged,
        rejected=tally["rejected"],
        review=tally["review"],
        failed=tally["failed"],
    )
    found.add(counts, faults_of(deviations))
