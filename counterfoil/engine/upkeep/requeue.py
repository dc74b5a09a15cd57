"""Tries again what stopped for a fault that passes, when its schedule fires: the overnight run that used to be done by hand."""

from __future__ import annotations

from counterfoil.engine.log import get_logger
from counterfoil.flows.delivery import DeliveryFlow, Requeue
from counterfoil.ledger import items
from counterfoil.ledger.pool import Connection
from counterfoil.model.clock import Clock

log = get_logger(__name__)

PREFIX = "requeue:"  # of the schedule's name


async def requeue(connection: Connection, flow: DeliveryFlow, rule: Requeue, clock: Clock) -> int:
    """How many items are due again. In the transaction that fires the schedule: once over all hosts."""
    since = None if rule.younger is None else clock.now() - rule.younger
    number = await items.requeue(
        connection,
        flow.name,
        rule.faults,
        accepted_since=since,
        limit=rule.limit,
        actor="schedule",
        reason=f"requeue {rule.name}",
    )
    if number:
        log.info("deliveries.requeued", flow=flow.name, rule=rule.name, items=number)
    return number
