"""Items in the ledger. Every change of state goes through `move`, with an actor and, for a person, a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load
from counterfoil.model.delivery import HandIn, Lane
from counterfoil.model.item import ItemEvent, ItemState

SQL = load("items")
REFUSED_AT_THE_DOOR = frozenset({"CF003", "CF006"})  # no key, unknown parent; unknown kind


@dataclass(frozen=True, slots=True)
class Move:
    """One move asked for: by `id`, or by `key`. The constructors below make only combinations that hold together."""

    event: ItemEvent
    key: str | None = None
    id: int | None = None
    next_action_at: datetime | None = None
    fault: str | None = None
    problem: str | None = None
    attempt_id: UUID | None = None
    run_id: int | None = None
    payload: str | None = None
    payload_sha256: str | None = None
    reference: str | None = None
    superseded_by: int | None = None
    receipt: str | None = None
    case_fault: str | None = None  # whose case it joins, where that is not its own fault's
    doubtful: bool | None = None  # True: whether it arrived stays open, whatever the new state
    kind: str | None = None  # of a new item, as the next three
    group: str | None = None
    parent_id: int | None = None
    lane: Lane | None = None
    not_before: datetime | None = None
    reason: str | None = None  # of this one; None: that of the call

    def as_request(self) -> tuple[Any, ...]:
        """In the order of counterfoil.move_request."""
        return (
            self.id,
            self.key,
            self.event.value,
            self.next_action_at,
            self.fault,
            self.problem,
            self.attempt_id,
            self.run_id,
            self.payload,
            self.payload_sha256,
            self.reference,
            self.superseded_by,
            self.receipt,
            self.case_fault,
            self.doubtful,
            self.kind,
            self.group,
            self.parent_id,
            self.lane,
            self.not_before,
            self.reason,
        )


@dataclass(frozen=True, slots=True)
class Moved:
    """`why`: moved, same (nothing new to say), illegal, lease_lost."""

    id: int
    key: str
    from_state: ItemState
    to_state: ItemState
    moved: bool
    why: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item held by one attempt until its lease ends."""

    id: int
    key: str
    attempt_id: UUID
    attempts: int
    first_failed_at: datetime | None
    fault: str | None
    payload: str | None
    released_sha256: str | None


async def move(
    connection: Connection,
    flow: str,
    moves: Iterable[Move],
    *,
    actor: str,
    reason: str | None = None,
    worker: int | None = None,
) -> list[Moved]:
    """Move many items of one flow in one statement. Illegal or fenced-off moves are told, not raised."""
    requests = [move.as_request() for move in moves]
    if not requests:
        return []
    rows = await connection.fetch(SQL["move_items"], flow, requests, actor, reason, worker)
    return [
        Moved(row["id"], row["key"], ItemState(row["from_state"]), ItemState(row["to_state"]), row["moved"], row["why"])
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Accepted:
    """`outcome`: new; known (nothing changed); revised (newer content counts now)."""

    key: str
    id: int
    state: ItemState
    outcome: Literal["new", "known", "revised"]


async def accept(
    connection: Connection, flow: str, given: Sequence[HandIn], *, actor: str, reason: str | None = None
) -> list[Accepted]:
    """Take items in; the same key twice is one item. One row for each key, in no particular order.

    Raises asyncpg's error with SQLSTATE CF003 (no key, unknown parent) or CF006 (unknown kind), whose text and hint are for people.
    """
    requests = [_accept_request(one) for one in given]
    if not requests:
        return []
    rows = await connection.fetch(SQL["accept_items"], flow, requests, actor, reason)
    return [Accepted(row["key"], row["id"], ItemState(row["state"]), row["outcome"]) for row in rows]


async def accept_each(
    connection: Connection, flow: str, given: Sequence[HandIn], *, actor: str, reason: str | None = None
) -> tuple[list[Accepted], list[tuple[HandIn, str]]]:
    """As `accept`, and one that can't be taken in keeps none of the others out: it comes back with the sentence that says why.

    Within the caller's transaction, which stays usable.
    """
    try:
        async with connection.transaction():
            return await accept(connection, flow, given, actor=actor, reason=reason), []
    except asyncpg.PostgresError as error:
        if error.sqlstate not in REFUSED_AT_THE_DOOR:
            raise
        if len(given) == 1:
            return [], [(given[0], f"{error.args[0][:1].upper()}{error.args[0][1:]}. {error.hint or ''}".strip())]
    half = len(given) // 2
    first = await accept_each(connection, flow, given[:half], actor=actor, reason=reason)
    second = await accept_each(connection, flow, given[half:], actor=actor, reason=reason)
    return first[0] + second[0], first[1] + second[1]


def _accept_request(given: HandIn) -> tuple[Any, ...]:
    """In the order of counterfoil.accept_request."""
    payload = None if given.payload is None else msgspec.json.encode(given.payload).decode()
    file = None if given.file is None else asdict(given.file)
    return (
        given.key, given.kind, payload, given.parent_key, given.group, given.lane, file, given.due_at, given.receipt,
    )  # fmt: skip


async def claim(connection: Connection, flow: str, *, limit: int, lease: timedelta, worker: int) -> list[Claimed]:
    rows = await connection.fetch(SQL["claim_items"], flow, limit, lease, worker)
    return [Claimed(*row.values()) for row in rows]


async def renew(connection: Connection, flow: str, attempts: Sequence[UUID], lease: timedelta) -> set[UUID]:
    """The attempts that still hold their items; the others lost their lease."""
    return {row[0] for row in await connection.fetch(SQL["renew_items"], flow, list(attempts), lease)}


async def rescue(connection: Connection, flow: str, *, crashes: int, limit: int = 1000) -> tuple[int, int]:
    """How many items became due again, and how many are a person's now."""
    row = await connection.fetchrow(SQL["rescue_items"], flow, crashes, limit)
    return row["rescued"], row["failed"]


async def due_flows(connection: Connection) -> list[tuple[str, Lane]]:
    return [(row["flow"], Lane(row["lane"])) for row in await connection.fetch(SQL["due_flows"])]


async def held_flows(connection: Connection) -> list[str]:
    return [row["flow"] for row in await connection.fetch(SQL["held_flows"])]


async def waking_flows(connection: Connection) -> list[str]:
    return [row["flow"] for row in await connection.fetch(SQL["waking_flows"])]


async def wake(connection: Connection, flow: str, *, limit: int = 1000) -> tuple[int, int]:
    """What was held until a time that has come: how many go on, and how many are a person's now."""
    row = await connection.fetchrow(SQL["wake_items"], flow, limit)
    return row["released"], row["failed"]


async def requeue(
    connection: Connection,
    flow: str,
    faults: Sequence[str],
    *,
    accepted_since: datetime | None,
    limit: int,
    actor: str,
    reason: str,
) -> int:
    """Try again what stopped for one of these faults (`*` at the end stands for anything); how many."""
    return int(
        await connection.fetchval(SQL["requeue_items"], flow, list(faults), accepted_since, limit, actor, reason)
    )


async def any_(connection: Connection, flow: str) -> bool:
    return bool(await connection.fetchval(SQL["any_items"], flow))


async def known(connection: Connection, flow: str, keys: Sequence[str]) -> dict[str, tuple[ItemState, str | None]]:
    """State and released content of those keys that are items."""
    rows = await connection.fetch(SQL["known_items"], flow, list(keys))
    return {row["key"]: (ItemState(row["state"]), row["released_sha256"]) for row in rows}


async def get(
    connection: Connection,
    *,
    flow: str | None = None,
    key: str | None = None,
    item_id: int | None = None,
    receipt: str | None = None,
) -> Sequence[Mapping[str, Any]]:
    """The item as a row with its case and its parent's receipt; none, or two where more than one is meant."""
    return await connection.fetch(SQL["get_item"], flow, key, item_id, receipt)


async def list_(
    connection: Connection,
    *,
    flow: str | None = None,
    state: str | None = None,
    fault: str | None = None,
    case_id: int | None = None,
    unfinished: bool = False,
    prefix: str | None = None,
    kind: str | None = None,
    group: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Sequence[Mapping[str, Any]]:
    """Newest first; `before` is the id of the last row seen."""
    arguments = (flow, state, fault, case_id, unfinished, prefix, before, limit, kind)
    if group is not None:
        return await connection.fetch(SQL["list_group"], *arguments, group)
    return await connection.fetch(SQL["list_items"], *arguments)


async def list_children(
    connection: Connection, flow: str, item_id: int, *, limit: int = 50
) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_children"], flow, item_id, limit)


async def list_events(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_events"], flow, item_id)


async def list_attempts(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_attempts"], flow, item_id)


async def count_states(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["count_states"], flow)
