"""Deliveries in the ledger: claims with all that a request is built from, the proof of each exchange, settling, completeness, a relay's calls.

One function per query, typed in, values out; no logic. An item moves through `items` alone, and through the doors that call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from counterfoil.ledger import items
from counterfoil.ledger.items import Move, Moved
from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load
from counterfoil.model.delivery import Exchange, Lane, StoredFile
from counterfoil.model.item import ItemState

SQL = load("deliveries")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery held by one attempt until its lease ends. Payloads are JSON texts; `parent_receipt` None where there is none yet."""

    id: int
    key: str
    kind: str
    group: str | None
    attempt_id: UUID
    attempts: int
    first_failed_at: datetime | None
    doubt_at: datetime | None
    receipt: str | None
    accepted_at: datetime
    fault: str | None
    problem: str | None
    parent_id: int | None
    parent_key: str | None
    parent_state: str | None
    parent_receipt: str | None
    parent_payload: str | None
    payload: str | None
    file: Mapping[str, Any] | None
    rendered: Mapping[str, Any] | None
    version: int
    turned_to: int


@dataclass(frozen=True, slots=True)
class Proof:
    """An exchange and what it was about: an item and its attempt, or a relay's call, or (a bulk poll) many at once."""

    exchange: Exchange
    item_id: int | None = None
    attempt_id: UUID | None = None
    call_id: int | None = None

    def as_row(self) -> tuple[Any, ...]:
        """In the order of counterfoil.exchange_row."""
        one = self.exchange
        return (
            self.item_id, self.call_id, self.attempt_id, one.at, one.kind, one.method, one.address, one.status, one.outcome,
            round(one.took * 1000), one.sent_bytes, one.sent_sha256, one.got_bytes, one.got_sha256, one.request, one.reply, one.fault,
        )  # fmt: skip


async def claim(
    connection: Connection, flow: str, lane: Lane, *, limit: int, lease: timedelta, worker: int, after: int = 0
) -> list[Claimed]:
    """What is due of a lane, each by an attempt of its own. `after`: `turned_to` of the last claim, so that families take turns."""
    rows = await connection.fetch(SQL["claim_deliveries"], flow, lane, limit, lease, worker, after)
    return [Claimed(*row.values()) for row in rows]


async def renew(connection: Connection, flow: str, attempts: Sequence[UUID], lease: timedelta) -> set[UUID]:
    """The attempts that still hold their items; the others lost their lease."""
    return await items.renew(connection, flow, attempts, lease)


async def mark_sending(connection: Connection, flow: str, held: Sequence[tuple[int, UUID]]) -> set[UUID]:
    """Note that these requests may leave from now on; the attempts that still hold their item, which alone may be sent."""
    rows = await connection.fetch(
        SQL["mark_sending"], flow, [item_id for item_id, _ in held], [attempt for _, attempt in held]
    )
    return {row[0] for row in rows}


async def keep_rendered(connection: Connection, flow: str, made: Sequence[tuple[int, UUID, StoredFile]]) -> None:
    """Files that were made for items, so that a retry sends the same ones. Of an attempt that lost its item nothing is kept."""
    items, attempts = [item_id for item_id, _, _ in made], [attempt for _, attempt, _ in made]
    await connection.execute(SQL["keep_rendered"], flow, items, attempts, [asdict(file) for _, _, file in made])


async def settle(
    connection: Connection, flow: str, moves: Sequence[Move], proofs: Sequence[Proof], *, worker: int
) -> list[Moved]:
    """The proof and the moves of a slice, in one statement. The proof is kept also where a move is fenced off."""
    rows = await connection.fetch(
        SQL["settle_deliveries"],
        flow,
        [move.as_request() for move in moves],
        [proof.as_row() for proof in proofs],
        worker,
    )
    return moved_of(rows)


def moved_of(rows: Sequence[Mapping[str, Any]]) -> list[Moved]:
    """Rows of counterfoil.move_result."""
    return [
        Moved(row["id"], row["key"], ItemState(row["from_state"]), ItemState(row["to_state"]), row["moved"], row["why"])
        for row in rows
    ]


async def note_exchanges(connection: Connection, flow: str, proofs: Sequence[Proof]) -> None:
    await connection.execute(SQL["note_exchanges"], flow, [proof.as_row() for proof in proofs])


async def list_exchanges(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_exchanges"], flow, item_id)


async def list_steps(connection: Connection, flow: str, item_id: int) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_steps"], flow, item_id)


async def get_content(connection: Connection, flow: str, item_id: int) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["get_content"], flow, item_id)


# --- completeness ---------------------------------------------------------------------------------------------


async def due_expectations(connection: Connection, flow: str, limit: int) -> Sequence[Mapping[str, Any]]:
    """Items (item_id, key, kind, group_key, payload) whose group is to be looked at now, locked until the end of the transaction."""
    return await connection.fetch(SQL["due_expectations"], flow, limit)


async def known_keys(connection: Connection, flow: str, keys: Sequence[str]) -> set[str]:
    return {row["key"] for row in await connection.fetch(SQL["known_keys"], flow, list(keys))}


async def finish_expectations(connection: Connection, flow: str, counts: Mapping[int, tuple[int, int]]) -> None:
    """Item to how much it expected and how much of that was missing."""
    expected, missing = [one[0] for one in counts.values()], [one[1] for one in counts.values()]
    await connection.execute(SQL["finish_expectations"], flow, list(counts), expected, missing)


async def sum_expectations(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["sum_expectations"], flow)


# --- a relay's calls ------------------------------------------------------------------------------------------


async def start_call(
    connection: Connection,
    flow: str,
    *,
    operation: str | None,
    caller: str | None,
    method: str,
    path: str,
    fingerprint: str | None,
    size: int,
) -> int:
    """A call has come in; its id."""
    return int(await connection.fetchval(SQL["start_call"], flow, operation, caller, method, path, fingerprint, size))


async def end_call(
    connection: Connection, call_id: int, *, status: int | None, outcome: str, reply: str | None, problem: str | None
) -> None:
    """`status` None: the caller was gone."""
    await connection.execute(SQL["end_call"], call_id, status, outcome, reply, problem)


async def same_call(
    connection: Connection, flow: str, fingerprint: str, *, before: int, since: datetime
) -> Mapping[str, Any] | None:
    """The newest earlier call with the same content."""
    return await connection.fetchrow(SQL["same_call"], flow, fingerprint, before, since)


async def list_calls(
    connection: Connection, flow: str | None = None, outcome: str | None = None, limit: int = 50
) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_calls"], flow, outcome, limit)
