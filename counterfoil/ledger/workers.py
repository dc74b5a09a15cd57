"""Who is at work. A worker's presence is an advisory lock on its own connection: it goes with the process, at once, however it died."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("workers")


async def start(connection: Connection, *, host: str, pid: int, version: str) -> int:
    """Register this process; returns its worker id."""
    return int(await connection.fetchval(SQL["start_worker"], host, pid, version))


async def hold_presence(connection: Connection, worker: int) -> bool:
    """Take the lock on this very connection, which must stay open as long as the worker lives."""
    return bool(await connection.fetchval(SQL["hold_presence"], worker))


async def beat(connection: Connection, worker: int) -> None:
    await connection.execute(SQL["beat_worker"], worker)


async def stop(connection: Connection, worker: int) -> None:
    await connection.execute(SQL["stop_worker"], worker)


async def list_(connection: Connection, limit: int = 50) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_workers"], limit)


async def take_flow(connection: Connection, flow: str) -> bool:
    """On the presence connection. Taken again by the same process it counts up; give back as often."""
    return bool(await connection.fetchval(SQL["take_flow"], flow))


async def flow_holder_silent(connection: Connection, flow: str, silence: timedelta) -> bool:
    """Whether the process that has the flow has given no sign of life for so long."""
    return bool(await connection.fetchval(SQL["flow_holder_silent"], flow, silence))


async def leave_flow(connection: Connection, flow: str) -> None:
    await connection.execute(SQL["leave_flow"], flow)
