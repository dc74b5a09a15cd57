"""The database of a project, for acts that need no flow and no connector: embedded or by DSN, migrated or refused with a remedy.

Light on purpose: `items list` opens it without the connectors. What runs syncs opens `app.open_app` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterfoil.ledger import migrate
from counterfoil.ledger.pool import APP_ROLE, Ledger, connect
from counterfoil.model.errors import ConflictError
from counterfoil.settings import Settings


@dataclass(frozen=True, slots=True)
class Database:
    """`notes`: what had to be done to have it, in plain sentences. `revive`: starts an embedded server that was killed; waits for it."""

    ledger: Ledger
    dsn: str = field(repr=False)
    owner_dsn: str = field(repr=False)
    notes: tuple[str, ...] = ()
    revive: Callable[[], None] | None = None


def _reviver(folder: Path, settings: Settings) -> Callable[[], None] | None:
    """On the same port, so that every connection string stays good. A server that is up is left alone."""
    if settings.dsn is not None:
        return None

    def revive() -> None:
        from counterfoil.ledger.embedded import ensure_running, release  # a DSN needs no launcher

        release(
            ensure_running(folder / settings.data_dir, durable=settings.durable)
        )  # we count among its users already

    return revive


@asynccontextmanager
async def server_of(folder: Path, settings: Settings) -> AsyncIterator[tuple[str, str, tuple[str, ...]]]:
    """DSN, owner's DSN and notes. An embedded server is started or joined, and left at the end."""
    if settings.dsn is not None:
        yield settings.dsn, settings.owner_dsn or settings.dsn, ()
        return
    from counterfoil.ledger.embedded import embedded  # a DSN needs no launcher

    manager = embedded(folder / settings.data_dir, durable=settings.durable)
    server: Any = await asyncio.to_thread(manager.__enter__)
    try:
        yield server.dsn, server.dsn, tuple(server.notes)
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


@asynccontextmanager
async def open_database(folder: Path, settings: Settings, *, size: int = 2) -> AsyncIterator[Database]:
    """`size`: most connections of the pool. Raises UnhealthyError where it can't be reached, ConflictError where it is not migrated."""
    async with AsyncExitStack() as stack:
        dsn, owner_dsn, notes = await stack.enter_async_context(server_of(folder, settings))
        await _require_schema(dsn, owner_dsn, embedded=settings.dsn is None)
        ledger = await Ledger.open(dsn, role=APP_ROLE, size=size, idle=settings.worker_lease)
        stack.push_async_callback(ledger.close)
        yield Database(ledger, dsn, owner_dsn, notes, _reviver(folder, settings))


async def _require_schema(dsn: str, owner_dsn: str, *, embedded: bool) -> None:
    connection = await connect(owner_dsn if embedded else dsn)
    try:
        todo = await migrate.pending(connection)
        if todo and embedded:
            await migrate.migrate(connection)
        elif todo:
            count = f"{len(todo)} migration{'s' * (len(todo) != 1)}"
            raise ConflictError(f"The database lacks {count} of this release.", "Run `counterfoil migrate`.")
    finally:
        await connection.close()
