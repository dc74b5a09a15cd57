"""The one suite that every `Source` passes, ours and yours. Subclass `SourceSuite` in a test module and say what the world is.

A world is the other side with some records in it: it gives fresh sources, and it can be made to fail by name. The suite checks
what the engine relies on: nothing lost between pages, cursors that survive a process, errors of the right kind, nothing left open.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from counterfoil.model.errors import ConnectorError, Gone, Misconfigured
from counterfoil.model.ports import Cursor, Page, Source
from counterfoil.model.run import Window

MOST_PAGES = 1000  # of a world: a suite must end too


class SourceWorld(Protocol):
    """The other side, with at least two pages of records."""

    keys: Sequence[str]  # in the order listed
    unknown_key: str
    failures: Mapping[str, tuple[type[ConnectorError], str]]  # name: what every call raises then, and its fault
    hangs: bool  # True: `fail("hang")` makes the other side take a request and not answer

    def source(self) -> Source:
        """A fresh one, as another process would build it."""
        ...

    def key_of(self, entry: bytes) -> str: ...

    def fail(self, name: str) -> None:
        """From now on each answer fails in this way."""
        ...

    async def asked(self) -> None:
        """Returns once a request has come in since `fail`."""
        ...

    async def all_closed(self) -> bool:
        """True when no connection of a source is open any more."""
        ...


async def pages_of(source: Source, window: Window, cursor: Cursor | None = None) -> list[Page]:
    """All pages from `cursor` on, each cursor taken through JSON as the ledger does."""
    pages: list[Page] = []
    while len(pages) < MOST_PAGES:
        page = await source.page(window, cursor)
        pages.append(page)
        if page.cursor is None:
            return pages
        cursor = json.loads(json.dumps(page.cursor))
    raise AssertionError(f"The list has more than {MOST_PAGES} pages.")


class SourceSuite:
    """Inherit as `class TestMySource(SourceSuite)` and implement `world`."""

    window = Window()

    def world(self) -> AbstractAsyncContextManager[SourceWorld]:
        raise NotImplementedError

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[SourceWorld, Source]]:
        async with self.world() as world:
            source = world.source()
            try:
                yield world, source
            finally:
                await source.close()

    async def test_each_record_is_listed_once_in_order(self) -> None:
        async with self._opened() as (world, source):
            pages = await pages_of(source, self.window)
            assert _keys(world, pages) == list(world.keys)
            assert len(pages) > 1, "a world needs at least two pages"

    async def test_another_process_goes_on_from_any_cursor(self) -> None:
        async with self._opened() as (world, source):
            pages = await pages_of(source, self.window)
            for done, page in enumerate(pages[:-1], 1):
                fresh = world.source()
                rest = await pages_of(fresh, self.window, json.loads(json.dumps(page.cursor)))
                await fresh.close()
                assert _keys(world, pages[:done]) + _keys(world, rest) == list(world.keys), f"resumed after page {done}"

    async def test_a_page_asked_for_again_is_the_same(self) -> None:
        async with self._opened() as (_, source):
            first = await source.page(self.window, None)
            assert await source.page(self.window, None) == first
            assert await source.page(self.window, first.cursor) == await source.page(self.window, first.cursor)

    async def test_a_record_is_an_object_and_the_same_again(self) -> None:
        async with self._opened() as (world, source):
            if not source.has_detail:
                await _raises(source.record(world.keys[0]), Misconfigured, "misconfigured")
                return
            for key in world.keys:
                raw = await source.record(key)
                assert isinstance(json.loads(raw), dict), key
            assert await source.record(world.keys[-1]) == raw

    async def test_an_unknown_key_is_gone(self) -> None:
        async with self._opened() as (world, source):
            if source.has_detail:
                await _raises(source.record(world.unknown_key), Gone, "vanished")

    async def test_a_probe_answers_with_a_sentence(self) -> None:
        async with self._opened() as (_, source):
            assert (await source.probe()).endswith(".")

    async def test_each_failure_is_the_right_error_and_the_source_recovers(self) -> None:
        async with self._opened() as (world, source):
            for name, (kind, fault) in world.failures.items():
                world.fail(name)
                await _raises(source.page(self.window, None), kind, fault, name)
                if source.has_detail:
                    await _raises(source.record(world.keys[0]), kind, fault, name)
                world.fail("")
                await source.page(self.window, None)

    async def test_a_cancelled_call_leaves_nothing_open(self) -> None:
        async with self._opened() as (world, source):
            if not world.hangs:
                return
            world.fail("hang")
            calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(source.page(self.window, None))]
            if source.has_detail:
                calls.append(asyncio.ensure_future(source.record(world.keys[0])))
            await asyncio.wait_for(world.asked(), 5)
            for call in calls:
                call.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
            assert await world.all_closed(), "a connection was left open"

    async def test_closing_leaves_nothing_open_and_may_be_repeated(self) -> None:
        async with self._opened() as (world, source):
            await source.page(self.window, None)
            await source.close()
            await source.close()
            assert await world.all_closed(), "a connection was left open"


def _keys(world: SourceWorld, pages: Sequence[Page]) -> list[str]:
    return [world.key_of(entry) for page in pages for entry in page.entries]


async def _raises(call: Awaitable[object], kind: type[ConnectorError], fault: str, name: str = "") -> None:
    (end,) = await asyncio.gather(call, return_exceptions=True)
    assert isinstance(end, kind), f"{name}: {str(end)[:200]!r} ({type(end).__name__}) is no {kind.__name__}"
    assert end.fault == fault, f"{name}: fault {end.fault}, not {fault}"
    assert end.problem, f"{name}: an error says what is wrong"
