"""Settling a chunk: rows into the table, deviations into items, counts into the run, in one transaction that is fenced by the attempt.

Killed anywhere in here, nothing of the chunk has happened; the next attempt does it again from the cursor. The dry book does the same
and rolls it back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from msgspec import Raw

from counterfoil.engine.check import Checked, Deviation, payload_of
from counterfoil.engine.job import SyncJob
from counterfoil.flows.rows import Row
from counterfoil.ledger import items, runs
from counterfoil.ledger.items import Move
from counterfoil.ledger.pool import Connection
from counterfoil.ledger.runs import RunFault
from counterfoil.model.item import ItemEvent, ItemState
from counterfoil.model.retry import next_item_try
from counterfoil.model.run import RunCounts

OUTCOMES = {
    ItemEvent.REJECT: "rejected",
    ItemEvent.REVIEW: "review",
    ItemEvent.FAIL: "failed",
    ItemEvent.FAIL_TEMPORARILY: "failed",
}
# Items in these states say nothing a loaded record would change.
_UNMOVED_BY_LOAD = frozenset(
    {ItemState.SUCCESS, ItemState.IN_PROGRESS, ItemState.ARCHIVED, ItemState.CANCELLED, ItemState.TRANSFERRED}
)


@dataclass(frozen=True, slots=True)
class Place:
    """How far the list has been read once this chunk is settled."""

    cursor: Any = None
    pages: int = 0
    list_ended: bool = False


@dataclass(slots=True)
class RunBook:
    """The accounts of one run as one attempt keeps them."""

    job: SyncJob
    run_id: int
    attempt: UUID
    next_key: int
    chunks: int
    has_items: bool

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.job.lease)

    async def add_listed(
        self, keys: Sequence[str], faults: Checked, latest: datetime | None, place: Place
    ) -> RunCounts:
        """Note the keys of a page of a list of ids; each is fetched later. Duplicates within the whole list are found here."""
        unique = list(dict.fromkeys(keys))

        async def work(connection: Connection) -> RunCounts:
            fresh = await runs.add_keys(connection, self.run_id, unique, self.next_key, done=False)
            counts = RunCounts(listed=len(keys), found=len(fresh), duplicates=len(keys) - len(fresh))
            counts += await self._write(connection, faults, new_keys=True)
            await self.advance(connection, counts, place, latest, len(unique))
            return counts

        counts = await self.in_chunk(work)
        self.next_key += len(unique)
        return counts

    async def settle(self, checked: Checked, place: Place, *, listed_before: bool) -> RunCounts:
        """Settle a chunk. `listed_before`: its keys were noted by `add_listed`; else they are new to the run and counted now."""

        async def work(connection: Connection) -> RunCounts:
            counts = await self._write(connection, checked, new_keys=not listed_before)
            if listed_before:
                await runs.finish_keys(connection, self.run_id, checked.keys)
            await self.advance(connection, counts, place, checked.latest_changed, checked.listed)
            return counts

        counts = await self.in_chunk(work)
        self.next_key += checked.listed
        return counts

    async def in_chunk(self, work: Callable[[Connection], Awaitable[RunCounts]]) -> RunCounts:
        """One fenced transaction, done again after a passing fault of the database, and never twice: where the answer to COMMIT
        was lost, the number of chunks says that it was done."""
        done = RunCounts()

        async def once() -> RunCounts:
            nonlocal done
            async with self.job.ledger.transaction() as connection:
                if await runs.hold(connection, self.run_id, self.attempt) > self.chunks:
                    return done
                done = await work(connection)
            return done

        counts = await self.job.ledger.patiently(once)
        self.chunks += 1
        return counts

    async def advance(
        self, connection: Connection, counts: RunCounts, place: Place, latest: datetime | None, entries: int
    ) -> None:
        await runs.advance(
            connection,
            self.run_id,
            self.attempt,
            lease=self.lease,
            counts=counts,
            cursor=place.cursor,
            pages=place.pages,
            list_ended=place.list_ended,
            latest_changed=latest,
            next_key=self.next_key + entries,
        )

    async def _write(self, connection: Connection, checked: Checked, *, new_keys: bool) -> RunCounts:
        """Everything of a chunk but the run's own row."""
        counts = RunCounts()
        if new_keys:
            checked, counts = await self._drop_seen(connection, checked)
        rows, raws, deviations = await self._let_pass(connection, checked)
        loaded, refused = await load_rows(self.job, connection, rows, raws)
        deviations = deviations + refused
        tally = Counter(OUTCOMES[deviation.event] for deviation in deviations)
        mended = await self._move_items(connection, rows, refused, deviations)
        await runs.add_faults(connection, self.run_id, faults_of(deviations))
        await self._note_write_backs(connection, rows, loaded.changed_indexes, mended)
        return counts + RunCounts(
            inserted=loaded.inserted,
            updated=loaded.updated,
            unchanged=loaded.unchanged,
            rejected=tally["rejected"],
            review=tally["review"],
            failed=tally["failed"],
        )

    async def _drop_seen(self, connection: Connection, checked: Checked) -> tuple[Checked, RunCounts]:
        """Entries whose key this run has settled in an earlier chunk are duplicates."""
        keys = checked.keys
        fresh = await runs.add_keys(connection, self.run_id, keys, self.next_key, done=True)
        counts = RunCounts(listed=checked.listed, found=len(fresh), duplicates=checked.listed - len(fresh))
        if len(fresh) == len(keys):
            return checked, counts
        kept = [at for at, row in enumerate(checked.rows) if row.key in fresh]
        return (
            Checked(
                rows=[checked.rows[at] for at in kept],
                raws=[checked.raws[at] for at in kept],
                deviations=[deviation for deviation in checked.deviations if deviation.key in fresh],
            ),
            counts,
        )

    async def _let_pass(
        self, connection: Connection, checked: Checked
    ) -> tuple[list[Row], list[bytes], list[Deviation]]:
        """Records in review whose very content a person has released are loaded."""
        reviews = [deviation.key for deviation in checked.deviations if deviation.event is ItemEvent.REVIEW]
        if not reviews or not self.has_items:
            return checked.rows, checked.raws, checked.deviations
        known = await items.known(connection, self.job.flow.name, reviews)
        rows, raws, kept = list(checked.rows), list(checked.raws), []
        for deviation in checked.deviations:
            released = known.get(deviation.key, (None, None))[1]
            if deviation.event is ItemEvent.REVIEW and released is not None and released == deviation.sha256:
                assert deviation.row is not None
                assert deviation.raw is not None
                rows.append(deviation.row)
                raws.append(deviation.raw)
            else:
                kept.append(deviation)
        return rows, raws, kept

    async def _move_items(
        self, connection: Connection, rows: Sequence[Row], refused: Sequence[Deviation], deviations: Sequence[Deviation]
    ) -> frozenset[str]:
        """Items of what deviates, and of what loaded and was an item before; the keys of the latter are returned."""
        now = self.job.clock.now()
        moves = [move_of(self.job, deviation, now, run_id=self.run_id) for deviation in deviations]
        mended: frozenset[str] = frozenset()
        if rows and self.has_items:
            off = {deviation.key for deviation in refused}
            known = await items.known(connection, self.job.flow.name, [row.key for row in rows if row.key not in off])
            mended = frozenset(key for key, (state, _) in known.items() if state not in _UNMOVED_BY_LOAD)
            moves += [Move(ItemEvent.LOAD, key=key, run_id=self.run_id) for key in sorted(mended)]
        if moves:
            await items.move(connection, self.job.flow.name, moves, actor=f"run {self.run_id}")
            self.has_items = True
        return mended

    async def note_unwritten(self, connection: Connection, refused: Sequence[Deviation]) -> None:
        """Records that are loaded and counted, but the source could not be told: items all the same."""
        now = self.job.clock.now()
        moves = [move_of(self.job, deviation, now, run_id=self.run_id) for deviation in refused]
        await items.move(connection, self.job.flow.name, moves, actor=f"run {self.run_id}")
        self.has_items = self.has_items or bool(moves)

    async def _note_write_backs(
        self, connection: Connection, rows: Sequence[Row], changed: Sequence[int], mended: frozenset[str]
    ) -> None:
        """The source is told of what changed, and of what was an item until now: it may be one because telling it failed."""
        if self.job.flow.source.write_back is not None:
            told = {rows[at].key: rows[at] for at in changed} | {row.key: row for row in rows if row.key in mended}
            bodies = {key: write_back_body(self.job, row) for key, row in told.items()}
            await runs.add_write_backs(connection, self.run_id, bodies)


async def load_rows(
    job: SyncJob, connection: Connection, rows: Sequence[Row], raws: Sequence[bytes]
) -> tuple[Any, list[Deviation]]:
    """Rows into the table; the ones PostgreSQL would not take come back as deviations for a person."""
    wanted = job.flow.source.write_back is not None
    values = [row.values for row in rows]
    if job.mapper.json_at:
        values = [_with_json(one, job.mapper.json_at) for one in values]
    loaded = await job.table.load(connection, values, now=job.clock.now(), want_changed=wanted)
    refused = [
        Deviation(rows[bad.index].key, ItemEvent.FAIL, bad.fault, bad.problem, raws[bad.index])
        for bad in loaded.refused
    ]
    return loaded, refused


def _with_json(values: tuple[Any, ...], places: tuple[int, ...]) -> tuple[Any, ...]:
    """json travels as its own text, so that the table gets what the source sent."""
    out = list(values)
    for at in places:
        if out[at] is not None:
            out[at] = Raw(out[at].encode())
    return tuple(out)


def move_of(
    job: SyncJob,
    deviation: Deviation,
    now: datetime,
    *,
    run_id: int | None = None,
    attempt_id: UUID | None = None,
    attempts: int = 0,
    first_failed_at: datetime | None = None,
) -> Move:
    """The move a deviation stands for; a temporary failure without any budget of time left needs a person."""
    keep = job.flow.source.detail is None  # what can't be fetched again by its key is kept with the item
    move = Move(
        deviation.event,
        key=deviation.key,
        fault=deviation.fault,
        problem=deviation.problem,
        run_id=run_id,
        attempt_id=attempt_id,
        payload=payload_of(deviation.raw) if keep else None,
        payload_sha256=deviation.sha256,
    )
    if deviation.event is not ItemEvent.FAIL_TEMPORARILY:
        return move
    due = next_item_try(
        job.flow.retry,
        attempt=attempts + 1,
        first_failed_at=first_failed_at or now,
        now=now,
        random=random.random,
    )
    return replace(move, event=ItemEvent.FAIL) if due is None else replace(move, next_action_at=due)


def faults_of(deviations: Sequence[Deviation]) -> list[RunFault]:
    """One row per outcome and fault, with the first keys as examples."""
    grouped: dict[tuple[str, str], list[Deviation]] = {}
    for deviation in deviations:
        grouped.setdefault((OUTCOMES[deviation.event], deviation.fault), []).append(deviation)
    return [
        RunFault(outcome, fault, group[0].problem, len(group), tuple(deviation.key for deviation in group[:10]))
        for (outcome, fault), group in grouped.items()
    ]


def write_back_body(job: SyncJob, row: Row) -> dict[str, Any]:
    """External name to value: a field of the record by its internal name, or a constant written `=text`."""
    assert job.flow.source.write_back is not None
    fields = job.mapper.fields(row)
    body = job.flow.source.write_back.body
    return {name: what[1:] if what.startswith("=") else fields.get(what) for name, what in body.items()}
