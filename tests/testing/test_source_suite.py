"""The suite itself: a source that loses, repeats, mistranslates or leaks is caught by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from counterfoil.model.errors import ConnectorError, Gone, Refused, Transient
from counterfoil.model.ports import Cursor, Page
from counterfoil.model.run import Window
from counterfoil.testing.source_suite import SourceSuite


@dataclass
class Memory:
    """A source and its world in one, with one flaw by name."""

    flaw: str
    keys: list[str] = field(default_factory=lambda: ["1", "2", "3", "4"])
    unknown_key: str = "9"
    hangs: bool = True
    failures: dict[str, tuple[type[ConnectorError], str]] = field(default_factory=lambda: {"down": (Transient, "down")})
    has_detail: bool = True
    failing: str = ""
    seen: int = 0
    open: int = 0
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def source(self) -> Memory:
        return self

    def key_of(self, entry: bytes) -> str:
        return entry.decode()[7:-2]

    def fail(self, name: str) -> None:
        self.failing = name

    async def asked(self) -> None:
        await self.was_asked.wait()

    async def all_closed(self) -> bool:
        return self.open == 0

    async def _answer(self) -> None:
        self.was_asked.set()
        if self.failing == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                self.open += self.flaw == "leaks"
        if self.failing == "down":
            raise (
                Refused("x", fault="down")
                if self.flaw == "wrong kind"
                else Transient("x", fault="up" if self.flaw == "wrong fault" else "down")
            )

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        await self._answer()
        start = self.seen if self.flaw == "keeps its place in memory" and cursor else int((cursor or {"at": 0})["at"])
        self.seen = start + 2
        shown = self.keys[start : start + 2][: 1 if self.flaw == "loses" and start else 2]
        if self.flaw == "one page":
            start, shown = len(self.keys), self.keys
        at = {"at": start + 2} if start + 2 < len(self.keys) else None
        return Page([b'{"id":"%s"}' % key.encode() for key in shown], at)

    async def record(self, key: str) -> bytes:
        await self._answer()
        if key not in self.keys and self.flaw != "knows all":
            raise Gone("x")
        return b"[]" if self.flaw == "no object" else b"{}"

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None: ...

    async def probe(self) -> str:
        return "" if self.flaw == "silent" else "Here."

    async def close(self) -> None:
        self.open += self.flaw == "stays"


def suite_for(flaw: str) -> SourceSuite:
    class Suite(SourceSuite):
        @asynccontextmanager
        async def world(self) -> AsyncIterator[Memory]:  # type: ignore[override]
            yield Memory(flaw)

    return Suite()


TESTS = [name for name in dir(SourceSuite) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
async def test_a_right_source_passes(test: str) -> None:
    await getattr(suite_for(""), test)()


@pytest.mark.parametrize(
    ("flaw", "test"),
    [
        ("loses", "test_each_record_is_listed_once_in_order"),
        ("one page", "test_each_record_is_listed_once_in_order"),
        ("keeps its place in memory", "test_another_process_goes_on_from_any_cursor"),
        ("keeps its place in memory", "test_a_page_asked_for_again_is_the_same"),
        ("no object", "test_a_record_is_an_object_and_the_same_again"),
        ("knows all", "test_an_unknown_key_is_gone"),
        ("silent", "test_a_probe_answers_with_a_sentence"),
        ("wrong kind", "test_each_failure_is_the_right_error_and_the_source_recovers"),
        ("wrong fault", "test_each_failure_is_the_right_error_and_the_source_recovers"),
        ("leaks", "test_a_cancelled_call_leaves_nothing_open"),
        ("stays", "test_closing_leaves_nothing_open_and_may_be_repeated"),
    ],
)
async def test_a_flaw_is_caught(flaw: str, test: str) -> None:
    with pytest.raises(AssertionError):
        await getattr(suite_for(flaw), test)()
