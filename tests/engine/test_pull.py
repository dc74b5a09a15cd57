"""The stages of a pull: keys are fed once and in order, chunks fill up and push back, and memory stays flat."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from counterfoil.engine import presence, sync
from counterfoil.engine.check import Fetched
from counterfoil.engine.pull import KEYS_AHEAD, Gathering, KeyFeed
from counterfoil.ledger import runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import Transient
from counterfoil.model.ports import Page
from tests.engine.support import Listed, flow_of, job_of, new_run, prepared, raw


@pytest.mark.parametrize("count", [0, 1, KEYS_AHEAD, KEYS_AHEAD + 1, 2 * KEYS_AHEAD + 10])
async def test_keys_are_fed_once_and_all_whatever_their_number(ledger: Ledger, owner: Any, count: int):
    flow = flow_of()
    await prepared(owner, flow)
    run_id = await new_run(ledger)
    keys = [f"k{n:05}" for n in range(count)]
    async with ledger.transaction() as connection:
        await runs.add_keys(connection, run_id, keys, 0, done=False)
    feed = KeyFeed(job_of(flow, Listed(), ledger), run_id)
    given: list[str] = []

    async def take() -> None:
        while (key := await feed.next()) is not None:
            given.append(key)
            await asyncio.sleep(0)

    await asyncio.gather(*(take() for _ in range(15)))
    assert sorted(given) == keys
    assert len(feed.ahead) <= KEYS_AHEAD


async def test_a_full_chunk_makes_the_fetchers_wait_until_it_is_taken():
    gathering = Gathering(10)
    putting = [asyncio.ensure_future(gathering.put(Fetched(str(n), b"{}"))) for n in range(35)]
    sizes = []
    while sum(sizes) < 35:
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(gathering.batch.fetched) <= 10
        sizes.append(len((await gathering.take(0)).fetched))
    assert sizes == [10, 10, 10, 5]
    await asyncio.gather(*putting)


async def test_a_chunk_is_closed_by_its_size_too():
    gathering = Gathering(1000)
    big = b"x" * (5 * 1024 * 1024)
    putting = [asyncio.ensure_future(gathering.put(Fetched(str(n), big))) for n in range(6)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len((await gathering.take(0)).fetched) == 2
    for putter in putting:
        putter.cancel()
    await asyncio.gather(*putting, return_exceptions=True)


async def test_a_cancelled_fetcher_leaves_the_others_their_room():
    gathering = Gathering(1)
    await gathering.put(Fetched("0", b"{}"))
    waiting = [asyncio.ensure_future(gathering.put(Fetched(str(n), b"{}"))) for n in (1, 2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await gathering.take(0)
    await asyncio.wait_for(waiting[1], 5)
    assert [one.key for one in gathering.batch.fetched] == ["2"]


async def _run(database: str, ledger: Ledger, owner: Any, source: Listed, **flow: Any) -> Any:
    made = flow_of(detail=source.has_detail, **flow)
    await prepared(owner, made)
    async with presence.present(database, "test") as here:
        return await sync.work(job_of(made, source, ledger, worker=here.worker), await new_run(ledger))


async def test_entries_without_a_key_in_a_list_of_ids(database: str, ledger: Ledger, owner: Any):
    """The same one twice in a page: one is rejected, the other a duplicate, and the sum holds."""
    page = [raw("1"), raw(None, "x"), raw(None, "x"), raw("1"), b"{nonsense"]
    row = await _run(database, ledger, owner, Listed([page], {"1": raw("1")}))
    assert (row["state"], row["listed"], row["found"], row["duplicates"]) == ("completed", 5, 3, 2)
    assert (row["inserted"], row["rejected"]) == (1, 2)


async def test_what_was_read_before_the_list_broke_off_is_settled(database: str, ledger: Ledger, owner: Any):
    """And the run waits to go on after it."""
    pages = [[raw(f"{at}-{n}") for n in range(10)] for at in range(3)]
    row = await _run(database, ledger, owner, Listed([*pages, Transient("gone")]), chunk=1000, retry="tries: 1")
    assert (row["state"], row["inserted"], row["pages"]) == ("queued", 30, 3)
    assert row["next_action_at"] > row["started_at"]


async def test_memory_stays_flat(database: str, ledger: Ledger, owner: Any):
    """Ten times the records, and the same memory: what is held at any time is a few chunks."""

    class Endless(Listed):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.pages = range(count)  # type: ignore[assignment]

        async def page(self, window: Any, cursor: Any) -> Any:
            at = (cursor or {"n": 0})["n"]
            entries = [raw(f"{at}-{n}") for n in range(500)]
            return Page(entries, {"n": at + 1} if at + 1 < len(self.pages) else None)

    async def peak(count: int) -> int:
        tracemalloc.start()
        try:
            row = await _run(database, ledger, owner, Endless(count), chunk=500)
            assert row["found"] == count * 500
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = await peak(4), await peak(40)
    assert many < few * 1.5 + 2_000_000
