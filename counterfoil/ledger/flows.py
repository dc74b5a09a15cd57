"""Flows in the ledger: registration, kinds, watermark, schedules. One function per query, no logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("flows")
RUN = "run"  # the schedule of a sync's runs
INTAKE = "intake"  # of what a delivery takes in by looking


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of item as the ledger keeps it, in the order of counterfoil.flow_kind."""

    flow: str
    kind: str
    position: int
    parent_kind: str | None
    inherits: str
    stand_in: str | None
    parent_wait: timedelta
    resend: str
    resend_update: str
    look_up_after: timedelta
    updates: bool
    poll_first: timedelta | None
    complete_within: timedelta | None


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


async def keep_kinds(connection: Connection, flow: str, kinds: Sequence[Kind]) -> None:
    """The kinds as declared now; one that is declared no more goes when nothing of it is unfinished."""
    await connection.execute(SQL["keep_kinds"], flow, [astuple(kind) for kind in kinds])
    await connection.execute(SQL["drop_kinds"], flow, [kind.kind for kind in kinds])


async def list_kinds(connection: Connection, flow: str) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_kinds"], flow)


async def set_schedule(
    connection: Connection,
    flow: str,
    *,
    cron: str,
    timezone: str,
    catch_up: str,
    next_fire_at: datetime,
    name: str = RUN,
) -> None:
    await connection.execute(SQL["set_schedule"], flow, name, cron, timezone, catch_up, next_fire_at)


async def drop_schedules(connection: Connection, *, keep: Sequence[tuple[str, str]]) -> None:
    """All but these, each a flow and the schedule's name."""
    await connection.execute(SQL["drop_schedules"], [flow for flow, _ in keep], [name for _, name in keep])


async def claim_schedules(
    connection: Connection, flow: str | None = None, name: str | None = None
) -> Sequence[Mapping[str, Any]]:
    """Schedules whose time has come, locked until the end of the transaction; without a name all but those of intakes."""
    return await connection.fetch(SQL["claim_schedules"], flow, name)


async def fire_schedule(
    connection: Connection,
    flow: str,
    *,
    next_fire_at: datetime,
    last_fire_at: datetime | None,
    outcome: str,
    name: str = RUN,
) -> None:
    await connection.execute(SQL["fire_schedule"], flow, name, next_fire_at, last_fire_at, outcome)


async def list_schedules(connection: Connection) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_schedules"])
