"""What was held until a time that has come goes on; children that waited too long and items nobody confirmed become a person's."""

from __future__ import annotations

from dataclasses import dataclass

from counterfoil.ledger import items
from counterfoil.ledger.pool import Ledger


@dataclass(frozen=True, slots=True)
class Wake:
    ledger: Ledger
    every: float = 2.0  # seconds

    async def run_once(self) -> dict[str, int]:
        """Counts: released, failed."""
        released = failed = 0
        async with self.ledger.session() as session:
            waking = await items.waking_flows(session)
        for name in waking:
            async with self.ledger.transaction() as connection:
                one = await items.wake(connection, name)
            released, failed = released + one[0], failed + one[1]
        return {"released": released, "failed": failed}
