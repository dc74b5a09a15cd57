"""What is asked about in bulk: due receipts, and what an answer makes of them. One statement each, whatever the size of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from counterfoil.ledger.deliveries import Proof, moved_of
from counterfoil.ledger.items import Move, Moved
from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("polls")

Phase = Literal["confirm", "late", "recheck"]


@dataclass(frozen=True, slots=True)
class Due:
    """A receipt to ask about. `seen` is the digest of the last answer; `not_found` counts answers in a row that did not know it."""

    item_id: int
    receipt: str
    phase: Phase
    keep_until: datetime | None
    seen: str | None
    not_found: int


@dataclass(frozen=True, slots=True)
class Result:
    """What becomes of one receipt. `next_poll_at` None: nothing more is asked. None in the others leaves what stands there."""

    item_id: int
    next_poll_at: datetime | None
    phase: Phase | None = None
    keep_until: datetime | None = None
    answered: bool = True
    status: str | None = None
    seen: str | None = None
    not_found: int = 0

    def as_row(self) -> tuple[Any, ...]:
        """In the order of counterfoil.poll_result."""
        return (
            self.item_id, self.next_poll_at, self.phase, self.keep_until, self.answered, self.status, self.seen, self.not_found,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step of an item that changed; '' is the delivery as a whole."""

    item_id: int
    step: str
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None

    def as_row(self) -> tuple[Any, ...]:
        """In the order of counterfoil.step_row."""
        return (self.item_id, self.step, self.status, self.started_at, self.ended_at, self.error)


async def due(connection: Connection, flow: str, limit: int) -> list[Due]:
    return [Due(*row.values()) for row in await connection.fetch(SQL["due_polls"], flow, limit)]


async def polling_flows(connection: Connection) -> list[str]:
    return [row["flow"] for row in await connection.fetch(SQL["polling_flows"])]


async def settle(
    connection: Connection,
    flow: str,
    *,
    results: Sequence[Result],
    steps: Sequence[StepRow] = (),
    moves: Sequence[Move] = (),
    proofs: Sequence[Proof] = (),
    actor: str,
) -> list[Moved]:
    """All that one call found out. What has left meanwhile is passed over."""
    rows = await connection.fetch(
        SQL["settle_polls"],
        flow,
        [result.as_row() for result in results],
        [step.as_row() for step in steps],
        [move.as_request() for move in moves],
        [proof.as_row() for proof in proofs],
        actor,
    )
    return moved_of(rows)


async def get(connection: Connection, flow: str, item_id: int) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["get_poll"], flow, item_id)


async def sums(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Flow, phase, items, oldest_due."""
    return await connection.fetch(SQL["sum_polls"], flow)
