"""Makes slices again from the ledger: whatever is due and has no slice gets one, so an emptied queue loses nothing."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from counterfoil.engine.queue import ITEMS, RUN, Queue
from counterfoil.ledger import items, runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock

SAME_SLICE = 5  # seconds within which asking for a flow's items twice is asking once


@dataclass(frozen=True, slots=True)
class Sweep:
    ledger: Ledger
    queue: Queue
    clock: Clock
    flows: Set[str]  # flows this project declares; others wait for a worker that knows them
    every: float = 1.0

    async def run_once(self) -> dict[str, int]:
        """Counts: slices asked for (the queue leaves out those it has)."""
        async with self.ledger.session() as session:
            due_runs = [(run_id, attempts) for run_id, flow, attempts in await runs.due(session) if flow in self.flows]
            due_flows = [flow for flow, _ in await items.due_flows(session) if flow in self.flows]
        for (
            run_id,
            attempts,
        ) in due_runs:  # the number of attempts is in it: a dead worker's slice must not stand in the way
            await self.queue.enqueue(RUN, f"{run_id}:{attempts}")
        moment = int(self.clock.now().timestamp() // SAME_SLICE)
        for flow in due_flows:
            await self.queue.enqueue(ITEMS, f"{flow}:{moment}")
        return {"runs": len(due_runs), "flows": len(due_flows)}
