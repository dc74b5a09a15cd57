"""How a delivery flow stands: items by kind and state, what waits for an answer, what is expected and missing, and whether its way is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from counterfoil.ledger import cases, deliveries, flows, gates, health, items, polls
from counterfoil.ledger.pool import Connection, Ledger
from counterfoil.model.errors import NotFoundError
from counterfoil.monitor.explain import Delivered

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One flow. `missing` counts what was expected and is not there; `closed`: gates of destinations that are closed now."""

    flow: str
    at: datetime
    sums: Row
    states: Sequence[Row]
    kinds: Sequence[Row]
    polls: Sequence[Row]
    expectations: Row | None
    cases: Sequence[Row]
    closed: Sequence[Row]


async def show(ledger: Ledger, flow: str) -> DeliveryStatus:
    """Raises NotFoundError for a flow the ledger does not know."""
    async with ledger.session() as session, session.transaction(isolation="repeatable_read", readonly=True):
        sums = await health.sums(session, flow)
        if not sums:
            raise NotFoundError(f"The ledger knows no flow `{flow}`.", "`counterfoil status` shows those it knows.")
        at = (await health.server_facts(session))["clock"]
        expectations = await deliveries.sum_expectations(session, flow)
        return DeliveryStatus(
            flow,
            at,
            sums[0],
            await items.count_states(session, flow),
            await flows.list_kinds(session, flow),
            await polls.sums(session, flow),
            expectations[0] if expectations else None,
            await cases.list_(session, flow=flow),
            [gate for gate in await gates.list_(session) if gate["name"].startswith("to:") and _closed(gate, at)],
        )


def _closed(gate: Row, at: datetime) -> bool:
    return gate["closed_until"] is not None and gate["closed_until"] > at


async def of_item(session: Connection, item: Row) -> Delivered:
    """What is known of a delivery beside its item."""
    flow, item_id = item["flow"], item["id"]
    at = (await health.server_facts(session))["clock"]
    closed = [gate for gate in await gates.list_(session) if gate["name"].startswith("to:") and _closed(gate, at)]
    exchanges = await deliveries.list_exchanges(session, flow, item_id)
    kinds = await flows.list_kinds(session, flow)
    return Delivered(
        exchanges,
        await deliveries.list_steps(session, flow, item_id),
        await polls.get(session, flow, item_id),
        await deliveries.get_content(session, flow, item_id),
        await items.list_children(session, flow, item_id, limit=10_000),
        closed[0] if kinds and len(closed) == 1 else None,
    )
