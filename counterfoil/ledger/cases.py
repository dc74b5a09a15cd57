"""Cases in their simplest form: a title, an owner, a due time, the items they own. Items join and leave only through `items.move`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("cases")


async def list_(
    connection: Connection, *, flow: str | None = None, open_only: bool = True, limit: int = 50
) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_cases"], flow, open_only, limit)


async def get(connection: Connection, case_id: int) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["get_case"], case_id)


async def open_for_flow(connection: Connection, flow: str, fault: str, title: str) -> int:
    """A case for trouble of the whole flow; `fault` starts with `run:`. The same fault again is the same case."""
    return int(await connection.fetchval(SQL["open_flow_case"], flow, fault, title))


async def close_for_flow(connection: Connection, flow: str, *, prefix: str = "run:", who: str, why: str) -> int:
    return int(await connection.fetchval(SQL["close_flow_cases"], flow, prefix, who, why))
