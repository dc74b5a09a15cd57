"""Flows in the ledger: registration, watermark, schedules. One function per query, no logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("flows")


async def register(
    connection: Connection, name: str, *, title: str, owner: str, case_due: timedelta, definition: str
) -> bool:
    """True where the flow is new to the ledger."""
    return bool(await connection.fetchval(SQL["register_flow"], name, title, owner, case_due, definition))


async def get(connection: Connection, name: str) -> Mapping[str, Any] | None:
    return await connection.fetchrow(SQL["get_flow"], name)


async def list_(connection: Connection) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_flows"])


async def move_watermark(connection: Connection, name: str, watermark: datetime) -> datetime | None:
    """The new watermark, or None where it stands as far or farther already."""
    return await connection.fetchval(SQL["move_watermark"], name, watermark)


async def set_schedule(
    connection: Connection, name: str, *, cron: str, timezone: str, catch_up: str, next_fire_at: datetime
) -> None:
    await connection.execute(SQL["set_schedule"], name, cron, timezone, catch_up, next_fire_at)


async def drop_schedules(connection: Connection, *, keep: Sequence[str]) -> None:
    await connection.execute(SQL["drop_schedules"], list(keep))


async def claim_schedules(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """Schedules whose time has come, locked until the end of the transaction."""
    return await connection.fetch(SQL["claim_schedules"])


async def fire_schedule(
    connection: Connection, name: str, *, next_fire_at: datetime, last_fire_at: datetime | None, outcome: str
) -> None:
    await connection.execute(SQL["fire_schedule"], name, next_fire_at, last_fire_at, outcome)


async def list_schedules(connection: Connection) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_schedules"])
