"""Makes slices again from the ledger: whatever is due and has no slice gets one, so an emptied queue loses nothing."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from counterfoil.engine.queue import ITEMS, POLL, PUSH, RUN, Queue
from counterfoil.ledger import items, polls, runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock

SAME_SLICE = 5  # seconds within which asking for a flow's items twice is asking once


@dataclass(frozen=True, slots=True)
class Sweep:
    ledger: Ledger
    queue: Queue
    clock: Clock
    syncs: Set[str]  # flows this project declares; others wait for a worker that knows them
    deliveries: Set[str] = frozenset()
    every: float = 1.0

    async def run_once(self) -> dict[str, int]:
        """Counts: slices asked for (the queue leaves out those it has)."""
        async with self.ledger.session() as session:
            due_runs = [(run_id, tries) for run_id, flow, tries in await runs.due(session) if flow in self.syncs]
            due_items = await items.due_flows(session)
            due_polls = [flow for flow in await polls.polling_flows(session) if flow in self.deliveries]
        moment = int(self.clock.now().timestamp() // SAME_SLICE)
        # The number of attempts is in a run's slice: that of a worker which died must not stand in the way.
        slices = [(RUN, f"{run_id}:{tries}") for run_id, tries in due_runs]
        slices += [(ITEMS, f"{flow}:{moment}") for flow, _ in due_items if flow in self.syncs]
        slices += [(PUSH, f"{flow}:{lane}:{moment}") for flow, lane in due_items if flow in self.deliveries]
        slices += [(POLL, f"{flow}:{moment}") for flow in due_polls]
        for kind, payload in slices:
            await self.queue.enqueue(kind, payload)
        return {"runs": len(due_runs), "items": len(due_items), "polls": len(due_polls)}
