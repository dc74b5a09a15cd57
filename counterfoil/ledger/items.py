"""Items in the ledger. Every change of state goes through `move`, with an actor and, for a person, a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load
from counterfoil.model.item import ItemEvent, ItemState

SQL = load("items")


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


async def accept(
    connection: Connection, flow: str, key: str, payload: Any = None, parent_key: str | None = None
) -> int:
    """The id of the item; the same key twice is one item."""
    return int(await connection.fetchval(SQL["accept_item"], flow, key, payload, parent_key))


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


async def due_flows(connection: Connection) -> dict[str, int]:
    return {row["flow"]: row["due"] for row in await connection.fetch(SQL["due_flows"])}


async def held_flows(connection: Connection) -> list[str]:
    return [row["flow"] for row in await connection.fetch(SQL["held_flows"])]


async def any_(connection: Connection, flow: str) -> bool:
    return bool(await connection.fetchval(SQL["any_items"], flow))


async def known(connection: Connection, flow: str, keys: Sequence[str]) -> dict[str, tuple[ItemState, str | None]]:
    """State and released content of those keys that are items."""
    rows = await connection.fetch(SQL["known_items"], flow, list(keys))
    return {row["key"]: (ItemState(row["state"]), row["released_sha256"]) for row in rows}


async def get(
    connection: Connection, *, flow: str | None = None, key: str | None = None, item_id: int | None = None
) -> Sequence[Mapping[str, Any]]:
    """The item as a row, none, or two where the key is in more than one flow."""
    return await connection.fetch(SQL["get_item"], flow, key, item_id)


async def list_(
    connection: Connection,
    *,
    flow: str | None = None,
    state: str | None = None,
    fault: str | None = None,
    case_id: int | None = None,
    unfinished: bool = False,
    prefix: str | None = None,
    before: tuple[datetime, int] | None = None,
    limit: int = 50,
) -> Sequence[Mapping[str, Any]]:
    """Newest first; `before` is the (accepted_at, id) of the last row seen."""
    at, item_id = before or (None, None)
    return await connection.fetch(
        SQL["list_items"], flow, state, fault, case_id, unfinished, prefix, at, item_id, limit
    )


async def list_events(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_events"], flow, item_id)


async def list_attempts(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_attempts"], flow, item_id)


async def count_states(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["count_states"], flow)
