"""Completeness: what a flow says must exist beside an item is looked for when its time has come; what is missing becomes an item that a
case owns, under the very key it should have had. Handed in later, it is simply that item, and goes its way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from counterfoil.engine.log import get_logger
from counterfoil.flows.delivery import DeliveryFlow, Expected, KindSpec
from counterfoil.flows.expect import expected_keys
from counterfoil.ledger import deliveries, items
from counterfoil.ledger.items import Move
from counterfoil.ledger.pool import Connection, Ledger
from counterfoil.model.item import ItemEvent

log = get_logger(__name__)

AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Complete:
    ledger: Ledger
    flows: Mapping[str, DeliveryFlow]
    every: float = 5.0  # seconds

    async def run_once(self) -> dict[str, int]:
        """Counts: groups looked at, expected, missing."""
        counts = {"groups": 0, "expected": 0, "missing": 0}
        for flow in self.flows.values():
            if any(kind.expected for kind in flow.kinds.values()):
                async with self.ledger.transaction() as connection:
                    for name, number in (await _look(connection, flow)).items():
                        counts[name] += number
        return counts


async def _look(connection: Connection, flow: DeliveryFlow) -> dict[str, int]:
    rows = await deliveries.due_expectations(connection, flow.name, AT_ONCE)
    wanted = {row["item_id"]: [*_wanted(flow, row)] for row in rows}
    keys = sorted({key for some in wanted.values() for key, _, _ in some})
    known = await deliveries.known_keys(connection, flow.name, keys)
    missing = {item_id: [one for one in some if one[0] not in known] for item_id, some in wanted.items()}
    moves = [_missing(row, key, kind, why) for row in rows for key, kind, why in missing[row["item_id"]]]
    await items.move(connection, flow.name, moves, actor="completeness")
    found = {item_id: (len(wanted[item_id]), len(missing[item_id])) for item_id in wanted}
    await deliveries.finish_expectations(connection, flow.name, found)
    if moves:
        log.warning("deliveries.missing", flow=flow.name, missing=len(moves), groups=len(rows))
    return {
        "groups": len(rows),
        "expected": sum(one for one, _ in found.values()),
        "missing": sum(one for _, one in found.values()),
    }


def _wanted(flow: DeliveryFlow, row: Mapping[str, Any]) -> Iterator[tuple[str, KindSpec, Expected]]:
    payload = msgspec.json.decode(row["payload"]) if row["payload"] else {}
    scope = {"key": row["key"], "group": row["group_key"], "payload": payload if isinstance(payload, dict) else {}}
    for kind in flow.kinds.values():
        for rule in kind.expected:
            if rule.of == row["kind"]:
                yield from ((key, kind, rule) for key in expected_keys(rule, scope))


def _missing(row: Mapping[str, Any], key: str, kind: KindSpec, rule: Expected) -> Move:
    return Move(
        ItemEvent.FAIL,
        key=key,
        kind=kind.name,
        group=row["group_key"],
        parent_id=row["item_id"] if kind.parent is not None and kind.parent.kind == row["kind"] else None,
        fault="missing",
        problem=f"{row['key']} should have a {kind.name}, and none was handed in.",
    )
