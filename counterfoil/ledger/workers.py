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


async def silent_holder(connection: Connection, flow: str, silence: timedelta) -> Mapping[str, Any] | None:
    """The process (id, host, pid) that has the flow and has given no sign of life for so long; None: it is well, or gone."""
    return await connection.fetchrow(SQL["silent_holder"], flow, silence)


async def end_sessions(connection: Connection, name: str) -> int:
    """On a connection in the login's own role, which may end what the same login began. Returns how many sessions were ended."""
    return int(await connection.fetchval(SQL["end_sessions"], name))


async def leave_flow(connection: Connection, flow: str) -> None:
    await connection.execute(SQL["leave_flow"], flow)
