"""The pull: read the list, fetch what it names, check, settle. Stages at work at the same time, joined by short buffers: flat memory.

Two shapes. A list of full records is settled by whole pages, and the cursor moves with them. A list of ids is noted first (that is where
duplicates show); then each id is fetched in a sliding window, and its key is ticked off with its chunk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from counterfoil.engine.book import Place, RunBook
from counterfoil.engine.caller import GateClosedError
from counterfoil.engine.check import Checked, Deviation, Fetched, check, drop_repeated, no_key
from counterfoil.engine.job import SyncJob
from counterfoil.flows.rows import RowFault
from counterfoil.ledger import runs
from counterfoil.model.errors import ConnectorError, Misconfigured
from counterfoil.model.item import ItemEvent
from counterfoil.model.ports import BrokenEntry, Cursor, Page
from counterfoil.model.run import RunCounts, Window

CHUNK_BYTES = 8 * 1024 * 1024  # a chunk is closed at this size too, so that big records don't pile up
KEYS_AHEAD = 1000
CRASHES_BEFORE_CARE = 2  # deaths of workers in a row, without progress, after which records are taken one by one


class ListFailedError(ConnectorError):
    """The list could not be read to its end. `error` is what the source said."""

    def __init__(self, error: ConnectorError) -> None:
        super().__init__(f"The list could not be read to its end: {error.problem}", error.remedy, fault=error.fault)
        self.error = error


@dataclass(slots=True)
class Batch:
    """Records on their way to one transaction, and where the list stands after them."""

    entries: list[bytes] = field(default_factory=list)  # whole pages
    fetched: list[Fetched] = field(default_factory=list)  # one by one
    broken: list[BrokenEntry] = field(default_factory=list)
    size: int = 0
    start: Cursor | None = None
    skip: int = 0
    cursor: Cursor | None = None
    pages: int = 0
    list_ended: bool = False

    def full(self, rows: int) -> bool:
        return len(self.entries) + len(self.fetched) >= rows or self.size >= CHUNK_BYTES

    def add(self, at: Cursor | None, page: Page, skip: int) -> None:
        """Another whole page, which stood at `at`; of it the first `skip` entries are settled."""
        if not self.pages:
            self.start = at
        self.entries.extend(page.entries[skip:] if skip else page.entries)
        self.broken.extend(page.broken)
        self.size += sum(map(len, page.entries))
        self.cursor, self.pages, self.list_ended = page.cursor, self.pages + 1, page.cursor is None

    @property
    def place(self) -> Place:
        """With whole pages the list moves on; with fetched ids it has been read already."""
        return Place({"at": self.cursor, "skip": 0}, self.pages, self.list_ended) if self.pages else Place()


@dataclass(slots=True)
class Pull:
    """One attempt's pull of one run. `careful`: how many records are still taken one by one, each named before it is
    touched, because workers died here before. `suspect`: the one that was in hand then, and how often."""

    job: SyncJob
    book: RunBook
    window: Window
    careful: int = 0
    suspect: tuple[str | None, int] = (None, 0)
    settled: Callable[[RunCounts], None] = lambda counts: None

    async def run(self, *, cursor: Cursor | None, list_ended: bool) -> None:
        """From where the run stands to its end. Raises ListFailedError, GateClosedError, LeaseLostError."""
        if not self.job.source.has_detail:
            if not list_ended:
                await self._settle_all(self._whole_pages(cursor), listed_before=False)
            return
        if not list_ended:
            await self._list_keys(cursor)
        await self._settle_all(self._fetched(), listed_before=True)

    async def _settle_all(self, batches: AsyncGenerator[Batch], *, listed_before: bool) -> None:
        """Each chunk is checked while the one before it is being written. However it ends, no call is left under way."""
        async with aclosing(batches):
            await self._settle_each(batches, listed_before=listed_before)

    async def _settle_each(self, batches: AsyncGenerator[Batch], *, listed_before: bool) -> None:
        writing: asyncio.Task[None] | None = None
        try:
            async for batch in batches:
                if self.careful > 0:
                    await self._settle_carefully(batch, listed_before=listed_before)
                    continue
                checked = check(self.job, batch.fetched, batch.broken, entries=batch.entries)
                if writing is not None:
                    await writing
                writing = asyncio.create_task(self._settle(checked, batch.place, listed_before=listed_before))
            if writing is not None:
                await writing
        except (ListFailedError, GateClosedError):
            if writing is not None:
                await writing  # what came before is good: it need not be fetched again
            raise
        finally:
            if writing is not None and not writing.done():
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _settle(self, checked: Checked, place: Place, *, listed_before: bool) -> None:
        self.settled(await self.book.settle(checked, place, listed_before=listed_before))

    # --- the list -------------------------------------------------------------------------------------------------

    async def _pages(self, cursor: Cursor | None) -> AsyncGenerator[tuple[Cursor | None, Page]]:
        """Pages from `cursor` on, each with the cursor it stood at; the next one is fetched while this one is worked on."""
        at = cursor
        following: asyncio.Task[Page] | None = asyncio.create_task(self._page(at))
        try:
            while following is not None:
                page = await following
                was, at = at, page.cursor
                following = None if at is None else asyncio.create_task(self._page(at))
                yield was, page
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def _page(self, cursor: Cursor | None) -> Page:
        try:
            return await self.job.caller(lambda: self.job.source.page(self.window, cursor))
        except (Misconfigured, GateClosedError):
            raise
        except ConnectorError as error:
            raise ListFailedError(error) from error

    async def _list_keys(self, cursor: Cursor | None) -> None:
        async with aclosing(self._pages((cursor or {}).get("at"))) as pages:
            async for _, page in pages:
                place = Place({"at": page.cursor, "skip": 0}, 1, page.cursor is None)
                self.settled(await self.book.add_listed(*self._sorted_entries(page), place))

    def _sorted_entries(self, page: Page) -> tuple[list[str], Checked, datetime | None]:
        """The keys of a page of a list of ids, what is none, and the newest change."""
        keys: list[str] = []
        latest: datetime | None = None
        faults = check(self.job, (), page.broken)
        for raw in page.entries:
            entry = self.job.mapper.list_entry(raw)
            if isinstance(entry, RowFault):
                faults.listed += 1
                key = entry.key or no_key(raw)
                faults.deviations.append(Deviation(key, ItemEvent.REJECT, entry.fault, entry.problem))
            else:
                keys.append(entry[0])
                latest = max(filter(None, (latest, entry[1])), default=None)
        drop_repeated(faults)
        return keys, faults, latest

    async def _whole_pages(self, cursor: Cursor | None) -> AsyncGenerator[Batch]:
        """Whole pages, gathered to a chunk; a run that goes on inside a page skips what it has settled of it."""
        at, skip = (cursor or {}).get("at"), (cursor or {}).get("skip", 0)
        rows, batch, deadline = self.job.flow.pull.chunk_rows, Batch(start=at, skip=skip), self._deadline()
        async with aclosing(self._pages(at)) as pages:
            try:
                async for was, page in pages:
                    batch.add(was, page, skip)
                    skip = 0
                    late = self.job.clock.monotonic() >= deadline
                    if batch.list_ended or self.careful > 0 or batch.full(rows) or late:
                        yield batch
                        batch, deadline = Batch(), self._deadline()
            except (ListFailedError, GateClosedError):
                if batch.pages:
                    yield batch  # what came before is settled: the run goes on after it
                raise

    def _deadline(self) -> float:
        return self.job.clock.monotonic() + self.job.flow.pull.chunk_seconds

    # --- the records ----------------------------------------------------------------------------------------------

    async def _fetched(self) -> AsyncGenerator[Batch]:
        """Every key still open, fetched in the sliding window, gathered to chunks of so many rows or so much time."""
        gathering = Gathering(self.job.flow.pull.chunk_rows)
        pump = asyncio.create_task(self._pump(gathering))
        try:
            while True:
                batch = await gathering.take(0 if pump.done() else self.job.flow.pull.chunk_seconds)
                if batch.fetched:
                    yield batch
                elif pump.done():
                    break
            await pump  # raises what stopped it: a closed gate, wrong credentials
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _pump(self, gathering: Gathering) -> None:
        """As many fetchers as the window may grow to; the window decides how many calls are under way."""
        feed = KeyFeed(self.job, self.book.run_id)
        fetchers = [asyncio.create_task(self._fetcher(feed, gathering)) for _ in range(self.job.caller.window.ceiling)]
        try:
            await asyncio.gather(*fetchers)
        finally:
            for fetcher in fetchers:
                fetcher.cancel()
            await asyncio.gather(*fetchers, return_exceptions=True)
            gathering.ready.set()

    async def _fetcher(self, feed: KeyFeed, gathering: Gathering) -> None:
        source, caller = self.job.source, self.job.caller
        while (key := await feed.next()) is not None:
            try:
                one = Fetched(key, await caller(lambda key=key: source.record(key)))  # type: ignore[misc]
            except (GateClosedError, Misconfigured):
                raise
            except ConnectorError as error:
                one = Fetched(key, None, error)
            await gathering.put(one)

    # --- where workers have died ----------------------------------------------------------------------------------

    async def _settle_carefully(self, batch: Batch, *, listed_before: bool) -> None:
        """One record a transaction, its name noted first: the one that kills its worker is known by it, and ends in a case."""
        records = [*batch.fetched, *(Fetched(None, raw) for raw in batch.entries)]
        if not batch.pages:  # fetched one by one, in any order: the suspect first, before another takes its place
            records.sort(key=lambda one: one.key != self.suspect[0])
        last = len(records) - 1
        for at, one in enumerate(records):
            checked = await self._check_suspect(one)
            whole = at == last and not batch.broken
            place = batch.place if whole else Place({"at": batch.start, "skip": batch.skip + at + 1})
            await self._settle(checked, place if batch.pages else Place(), listed_before=listed_before)
            self.careful -= 1
        if batch.broken or last < 0:
            await self._settle(check(self.job, (), batch.broken), batch.place, listed_before=listed_before)

    async def _check_suspect(self, one: Fetched) -> Checked:
        key = one.key or self._key_of(one.raw or b"")
        async with self.job.ledger.session() as session:
            crashes = await runs.suspect(session, self.book.run_id, self.book.attempt, key)
        if key == self.suspect[0]:
            crashes = max(crashes, self.suspect[1])
        # The deaths before records were named count for the one that is found to kill; nobody is condemned without a death of its own.
        if crashes < max(1, self.job.flow.retry.crashes - CRASHES_BEFORE_CARE):
            return check(self.job, [one]) if one.key else check(self.job, entries=[one.raw or b""])
        problem = f"Its worker died {crashes + CRASHES_BEFORE_CARE} times, at last with this very record in hand."
        return Checked(deviations=[Deviation(key, ItemEvent.FAIL, "crashed", problem, one.raw)], listed=1)

    def _key_of(self, raw: bytes) -> str:
        entry = self.job.mapper.list_entry(raw)
        return (entry.key or no_key(raw)) if isinstance(entry, RowFault) else entry[0]


@dataclass(slots=True)
class KeyFeed:
    """Keys a run has listed and not fetched, in list order, read from the ledger a thousand at a time."""

    job: SyncJob
    run_id: int
    after: int = 0
    ended: bool = False
    ahead: deque[str] = field(default_factory=deque)
    refilling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def next(self) -> str | None:
        while not self.ahead:
            async with self.refilling:
                if self.ended and not self.ahead:
                    return None
                if not self.ahead:
                    await self._refill()
        return self.ahead.popleft()

    async def _refill(self) -> None:

        async def read() -> list[tuple[str, int]]:
            async with self.job.ledger.session() as session:
                return await runs.open_keys(session, self.run_id, after=self.after, limit=KEYS_AHEAD)

        found = await self.job.ledger.patiently(read)
        self.ended = len(found) < KEYS_AHEAD
        if found:
            self.after = found[-1][1]
            self.ahead.extend(key for key, _ in found)


@dataclass(slots=True)
class Gathering:
    """Where fetched records gather to a chunk. A full one makes the fetchers wait until it is taken."""

    rows: int
    batch: Batch = field(default_factory=Batch)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, one: Fetched) -> None:
        while self.batch.full(self.rows):
            self.room.clear()
            await self.room.wait()
        self.batch.fetched.append(one)
        self.batch.size += len(one.raw) if one.raw is not None else 0
        if self.batch.full(self.rows):
            self.ready.set()

    async def take(self, seconds: float) -> Batch:
        """A full chunk, or what has come after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.ready.wait()
        except TimeoutError:
            pass
        batch, self.batch = self.batch, Batch()
        self.ready.clear()
        self.room.set()
        return batch
