"""The numbers behind audit, status and doctor. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("health")


async def sums(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    """Per flow: accepted, settled, due, owned, the oldest of each. From counters and partial indexes; never reads settled history."""
    return await connection.fetch(SQL["sum_flows"], flow)


async def recount(connection: Connection, flow: str) -> Mapping[str, Any]:
    """The same from the rows themselves. Reads every item of the flow."""
    return await connection.fetchrow(SQL["recount_flow"], flow)


async def differing_counters(connection: Connection, flow: str) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["differing_counters"], flow)


async def broken_histories(connection: Connection, flow: str, limit: int = 10) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["broken_histories"], flow, limit)


async def differing_cases(connection: Connection, flow: str) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["differing_cases"], flow)


async def unbalanced_runs(
    connection: Connection, flow: str | None = None, limit: int = 10
) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["unbalanced_runs"], flow, limit)


async def stale_runs(connection: Connection, flow: str | None = None) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["stale_runs"], flow)


async def login_rights(connection: Connection) -> Mapping[str, Any]:
    return await connection.fetchrow(SQL["login_rights"])


async def server_facts(connection: Connection) -> Mapping[str, Any]:
    return await connection.fetchrow(SQL["server_facts"])
