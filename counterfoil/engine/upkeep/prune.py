"""Empties what runs needed only while they ran: the keys they listed. In small pieces, off the hot path."""

from __future__ import annotations

from dataclasses import dataclass

from counterfoil.ledger import runs
from counterfoil.ledger.pool import Ledger

PIECE = 20_000


@dataclass(frozen=True, slots=True)
class Prune:
    ledger: Ledger
    every: float = 5.0

    async def run_once(self) -> dict[str, int]:
        """Counts: keys deleted."""
        async with self.ledger.session() as session:
            return {"keys": await runs.prune_keys(session, PIECE)}
