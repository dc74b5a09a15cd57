"""The four-call port over the queue engine: enqueue, register, schedule, run and stop. Only coarse slices travel here.

The engine behind it (PgQueuer) brings work to a free worker at once and leaves a dead worker's slices to others. It is a convenience: what
is due stands in the ledger, slices are safe to do twice, and the sweep makes missing ones again. Nothing else may import pgqueuer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job

from counterfoil.engine.log import get_logger
from counterfoil.ledger.pool import APP_ROLE, PASSING, Connection, Ledger

log = get_logger(__name__)

RUN = "sync_run"  # payload: the run's id
ITEMS = "sync_items"  # payload: the flow
PUSH = "push"  # payload: the flow and its lane
POLL = "poll"  # payload: the flow
SCHEMA = "counterfoil_queue"

Handler = Callable[[str], Awaitable[None]]
Duty = Callable[[], Awaitable[Any]]


async def is_installed(ledger: Ledger) -> bool:
    """Whether the engine's tables are there and open to a worker's own login."""
    async with ledger.session() as session:
        return bool(
            await session.fetchval(
                "select exists (select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
                " where n.nspname = 'counterfoil_queue' and c.relname = 'pgqueuer'"
                " and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'insert, delete'))"
            )
        )


async def install(owner: Connection) -> None:
    """The engine's own tables, in a schema of their own. Safe to repeat."""
    async with owner.transaction():
        await owner.execute("select pg_advisory_xact_lock(72460002)")
        if await owner.fetchval("select to_regclass('counterfoil_queue.pgqueuer')") is None:
            await owner.execute("create schema if not exists counterfoil_queue")
            await owner.execute("set local search_path = counterfoil_queue")
            await Queries.from_asyncpg_connection(owner).install()
        await owner.execute(
            """
            grant usage, create on schema counterfoil_queue to counterfoil_app;
            grant select, insert, update, delete, truncate on all tables in schema counterfoil_queue to counterfoil_app;
            grant usage on all sequences in schema counterfoil_queue to counterfoil_app;
            """
        )


class Queue:
    """One process's end of the queue, on connections of its own."""

    def __init__(self, dsn: str, *, concurrent: int, revive: Callable[[], None] | None = None) -> None:
        self._dsn, self._concurrent, self._revive = dsn, concurrent, revive
        self._handlers: dict[str, Handler] = {}
        self._duties: list[tuple[str, float, Duty]] = []
        self._sender: Any = None
        self._stopping = asyncio.Event()
        self._engine: PgQueuer | None = None

    def register(self, kind: str, handler: Handler) -> None:
        """What to do with a slice of this kind; the handler takes its payload and must be safe to repeat."""
        if kind in self._handlers:
            raise ValueError(f"slice kind {kind} is registered already")
        self._handlers[kind] = handler

    def schedule(self, name: str, every: float, duty: Duty) -> None:
        """Do `duty` every so many seconds in this process; duties are safe to do in many processes."""
        self._duties.append((name, every, duty))

    async def enqueue(self, kind: str, payload: str) -> None:
        """Ask for a slice; one that is asked for already is left out."""
        if self._sender is None or self._sender.is_closed():
            self._sender = await self._connect()
        queries = Queries.from_asyncpg_connection(self._sender)
        await queries.enqueue([kind], [payload.encode()], [0], dedupe_key=[f"{kind}:{payload}"], on_conflict="skip")

    async def run(self) -> None:
        """Work until `stop`. A lost database is waited for."""
        duties = [asyncio.create_task(self._repeat(*duty)) for duty in self._duties]
        try:
            while not self._stopping.is_set():
                try:
                    await self._run_engine()
                except PASSING as error:
                    log.warning("queue.database_lost", error=type(error).__name__)
                    await self._rest(1.0)
                    await self._bring_back()
        finally:
            for task in duties:
                task.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
            if self._sender is not None:
                self._sender.terminate()

    def stop(self) -> None:
        """Take no more slices; `run` returns when the ones under way have given back what they hold."""
        self._stopping.set()
        if self._engine is not None:
            self._engine.shutdown.set()

    async def _run_engine(self) -> None:
        logging.getLogger("pgqueuer").setLevel(logging.ERROR)
        connection = await self._connect()
        try:
            engine = PgQueuer.from_asyncpg_connection(connection)
            for kind, handler in self._handlers.items():
                engine.entrypoint(kind)(_as_entrypoint(handler))
            self._engine = engine
            if self._stopping.is_set():
                return
            await engine.qm.run(
                batch_size=1,
                dequeue_timeout=timedelta(seconds=5),
                max_concurrent_tasks=self._concurrent + 1,
                heartbeat_timeout=timedelta(seconds=30),
                shutdown_on_listener_failure=True,
            )
        finally:
            self._engine = None
            connection.terminate()

    async def _bring_back(self) -> None:
        """An embedded server that was killed is started again; one of somebody else's is waited for."""
        if self._revive is not None and not self._stopping.is_set():
            try:
                await asyncio.to_thread(self._revive)
            except Exception as error:
                log.warning("queue.database_not_back", error=str(error))

    async def _repeat(self, name: str, every: float, duty: Duty) -> None:
        while not self._stopping.is_set():  # in Python 3.11 a wait that ends as it is cancelled swallows the cancellation
            try:
                counts = await duty()
                if any(counts.values()):
                    log.debug("upkeep", duty=name, **counts)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.warning("upkeep.failed", duty=name, error=f"{type(error).__name__}: {error}")
            await self._rest(every)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
            await asyncio.sleep(0.05)

    async def _connect(self) -> Any:
        settings = {"application_name": "counterfoil queue", "search_path": SCHEMA, "role": APP_ROLE}
        return await asyncpg.connect(self._dsn, server_settings=settings, timeout=10)


def _as_entrypoint(handler: Handler) -> Callable[[Job], Awaitable[None]]:
    async def entrypoint(job: Job) -> None:
        await handler((job.payload or b"").decode())

    return entrypoint
