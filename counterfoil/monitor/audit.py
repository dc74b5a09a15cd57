"""Proves the sum for every flow: accepted = settled + due + owned, from the counters and again from the rows themselves. Reads only.

One snapshot for all of it: workers may go on while it looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from counterfoil.ledger import health
from counterfoil.ledger.pool import Connection, Ledger
from counterfoil.model.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class FlowAudit:
    """The sum of one flow and everything that contradicts it, each a sentence."""

    flow: str
    accepted: int
    settled: int
    due: int
    owned: int
    oldest_due: datetime | None
    oldest_owned: datetime | None
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.faults


async def audit(ledger: Ledger, flow: str | None = None) -> tuple[FlowAudit, ...]:
    """Every flow, or one. Reads all items of each flow. Raises NotFoundError for a flow the ledger does not know."""
    async with ledger.session() as session, session.transaction(isolation="repeatable_read", readonly=True):
        sums = await health.sums(session, flow)
        if flow is not None and not sums:
            raise NotFoundError(f"The ledger knows no flow `{flow}`.", "`counterfoil status` shows those it knows.")
        return tuple([await _audit(session, row) for row in sums])


async def _audit(session: Connection, row: Mapping[str, Any]) -> FlowAudit:
    flow = row["flow"]
    faults = [
        *_sum_faults(row, await health.recount(session, flow)),
        *[
            f"The counter of {r['state']} says {r['counted']:,}, the rows say {r['rows']:,}."
            for r in await health.differing_counters(session, flow)
        ],
        *[
            f"The history of item {r['id']} (key {r['key']}) does not lead to {r['state']}."
            for r in await health.broken_histories(session, flow)
        ],
        *[
            f"Case {r['id']} says it owns {r['open_items']:,} items, the rows say {r['rows']:,}."
            for r in await health.differing_cases(session, flow)
        ],
        *[
            f"Run {r['id']} ended as {r['state']} and its sum does not hold (found {r['found']:,})."
            for r in await health.unbalanced_runs(session, flow)
        ],
    ]
    numbers = (row["accepted"], row["settled"], row["due"], row["owned"])
    return FlowAudit(flow, *numbers, row["oldest_due"], row["oldest_owned"], tuple(faults))


def _sum_faults(row: Mapping[str, Any], counted: Mapping[str, Any]) -> list[str]:
    faults = []
    if row["accepted"] != row["settled"] + row["due"] + row["owned"]:
        parts = f"{row['settled']:,} settled + {row['due']:,} due + {row['owned']:,} owned"
        faults.append(f"Accepted {row['accepted']:,} is not {parts}.")
    for name in ("accepted", "settled", "due", "owned"):
        if row[name] != counted[name]:
            faults.append(f"{name.capitalize()}: counted {row[name]:,}, the rows say {counted[name]:,}.")
    if counted["owned_by_closed_case"]:
        faults.append(f"{counted['owned_by_closed_case']:,} items are owned by a case that is closed.")
    return faults
