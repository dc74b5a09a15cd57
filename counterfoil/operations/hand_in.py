"""Handing items in: from the terminal and from programs, one or many. The same key twice is one item; a bad one keeps out no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from counterfoil.ledger import items
from counterfoil.ledger.items import Accepted
from counterfoil.ledger.pool import Ledger
from counterfoil.model.delivery import HandIn, Lane
from counterfoil.model.errors import UsageError

CHUNK = 500
_FIELDS = ("key", "kind", "payload", "parent", "group", "lane", "due_at", "receipt", "file")


@dataclass(slots=True)
class HandedIn:
    """What became of what was handed in. `refused`: key and sentence."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def count(self, outcome: str) -> int:
        return sum(one.outcome == outcome for one in self.accepted)


async def hand_in(
    ledger: Ledger, flow: str, given: Iterable[HandIn], *, actor: str, reason: str | None = None
) -> HandedIn:
    """Take items in, a chunk a transaction. Safe to repeat."""
    done = HandedIn()
    for chunk in _chunks(given):

        async def work(some: Sequence[HandIn] = chunk) -> tuple[list[Accepted], list[tuple[HandIn, str]]]:
            async with ledger.transaction() as connection:
                return await items.accept_each(connection, flow, some, actor=actor, reason=reason)

        accepted, refused = await ledger.patiently(work)
        done.accepted += accepted
        done.refused += [(one.key, why) for one, why in refused]
    return done


def _chunks(given: Iterable[HandIn]) -> Iterator[list[HandIn]]:
    chunk: list[HandIn] = []
    for one in given:
        chunk.append(one)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def parse_line(line: str, number: int) -> tuple[HandIn, str | None]:
    """A line of JSONL: {"key", "payload", "kind", "parent", "group", "lane", "due_at", "receipt", "file"}; the item and its file's path.

    Raises UsageError with the line's number.
    """
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise UsageError(f"Line {number} is no JSON: {error}.", "Write one object a line.") from error
    if not isinstance(value, dict) or not isinstance(value.get("key"), str | int):
        raise UsageError(f"Line {number} has no `key`.", 'Write {"key": "report:1", "payload": {...}}.')
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise UsageError(f"Line {number}: unknown field `{unknown[0]}`.", f"Known: {', '.join(_FIELDS)}.")
    return item_of(value, f"Line {number}"), value.get("file")


def item_of(value: Mapping[str, Any], where: str) -> HandIn:
    """Raises UsageError for a lane or a time that is none."""
    try:
        lane = Lane(value.get("lane") or "live")
        due_at = datetime.fromisoformat(value["due_at"]) if value.get("due_at") else None
    except ValueError as error:
        raise UsageError(f"{where}: {error}.", "lane is live or bulk; due_at is 2026-11-16T09:30+00:00.") from error
    return HandIn(
        key=str(value["key"]),
        payload=value.get("payload"),
        kind=value.get("kind"),
        parent_key=value.get("parent"),
        group=value.get("group"),
        lane=lane,
        due_at=due_at,
        receipt=value.get("receipt"),
    )
