"""Items whose attempt is gone become due again; after so many deaths of their workers they are owned by a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.flows.flow import SyncFlow
from counterfoil.ledger import items
from counterfoil.ledger.pool import Ledger


@dataclass(frozen=True, slots=True)
class Rescue:
    ledger: Ledger
    flows: Mapping[str, SyncFlow | DeliveryFlow]
    every: float = 5.0  # seconds

    async def run_once(self) -> dict[str, int]:
        """Counts: rescued, failed."""
        rescued = failed = 0
        async with self.ledger.session() as session:
            held = await items.held_flows(session)
        for name in held:
            crashes = self.flows[name].retry.crashes if name in self.flows else 3
            async with self.ledger.transaction() as connection:
                one = await items.rescue(connection, name, crashes=crashes)
            rescued, failed = rescued + one[0], failed + one[1]
        return {"rescued": rescued, "failed": failed}
