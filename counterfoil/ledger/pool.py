"""Connections: the pool, the role each session takes, JSON in and out, and what counts as a passing fault of the database.

Nothing here knows a table. `Ledger` is what the upper floors hold; `transaction()` is the only way they write.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import msgspec

from counterfoil.model.errors import CounterfoilError, UnhealthyError, UsageError

Connection = Any  # asyncpg.Connection or its pool proxy: asyncpg has no usable types
Result = TypeVar("Result")

APP_ROLE = "counterfoil_app"
READER_ROLE = "counterfoil_reader"

# Faults of the moment, not of the data: connection, resources, operator intervention, deadlock, serialization, lock time-out.
PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # its backend was killed in the middle of an answer
    asyncpg.CannotConnectNowError,
    ConnectionError,
    TimeoutError,
    OSError,
)


_NO_DSN = (asyncpg.ClientConfigurationError, ValueError)  # a port that is no number is only a ValueError


def is_passing(error: BaseException) -> bool:
    """True where the same statement may succeed a moment later."""
    return isinstance(error, PASSING)


def sessions_of(pid: int, host: str, name: str = "counterfoil") -> str:
    """What the sessions of one process's pool are called in pg_stat_activity."""
    return f"{name} {pid}@{host}"[:63]


async def prepare_session(connection: Connection) -> None:
    """JSON columns travel as Python values, in binary: a composite type that holds one can't be sent otherwise."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),  # one byte of version leads jsonb on the wire
        decoder=lambda data: msgspec.json.decode(memoryview(data)[1:]),
    )


async def connect(dsn: str, *, role: str | None = None, name: str = "counterfoil", timeout: float = 10) -> Connection:
    """One connection outside the pool. Raises UnhealthyError with a remedy where the server can't be reached."""
    settings = {"application_name": name} | ({"role": role} if role else {})
    try:
        connection = await asyncpg.connect(dsn, server_settings=settings, timeout=timeout)
    except (OSError, asyncpg.PostgresError, *_NO_DSN, TimeoutError) as error:
        raise _unreachable(error, dsn) from error
    await prepare_session(connection)
    return connection


def _unreachable(error: BaseException, dsn: str) -> CounterfoilError:
    if isinstance(error, _NO_DSN):  # its own words may hold the password
        return UsageError("The DSN can't be read.", "Write postgresql://user:password@host:5432/name.")
    host = urlsplit(dsn).netloc.rpartition("@")[2]
    return UnhealthyError(
        f"PostgreSQL{' at ' if host else ''}{host} can't be reached: {_reason(error)}.",
        "Check [database] in counterfoil.toml and that the server is up; `counterfoil doctor` looks closer.",
    )


def _reason(error: BaseException) -> str:
    """The system's own words; the numbers and addresses that the event loops add say no more."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    if isinstance(error, TimeoutError):
        return "it gave no answer in time"
    said = getattr(error, "strerror", None) or str(error)
    return str(said).splitlines()[0] if said else type(error).__name__


class Ledger:
    """A pool of sessions in one role. Holds no state of its own."""

    def __init__(self, pool: Any, dsn: str) -> None:
        self._pool = pool
        self.dsn = dsn

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        role: str | None = APP_ROLE,
        size: int = 8,
        name: str = "counterfoil",
        idle: timedelta | None = None,
    ) -> Ledger:
        """Open the pool; the first connection is made at once, so that a wrong DSN is told at the start.

        `idle`: PostgreSQL ends a transaction that stands still for so long. A process that hangs, or a host that is cut off, has lost
        its lease by then; the rows it has locked must not keep the next one waiting.
        """
        settings = {"application_name": sessions_of(os.getpid(), socket.gethostname(), name), "jit": "off"} | (
            {"role": role} if role else {}
        )
        if idle is not None:
            settings["idle_in_transaction_session_timeout"] = f"{int(idle.total_seconds() * 1000)}ms"
        try:
            pool = await asyncpg.create_pool(
                dsn,
                min_size=0,  # it holds no connection open for show, and complains of none it can't restore
                max_size=size,
                init=prepare_session,
                server_settings=settings,
                timeout=10,
                command_timeout=300,
                max_inactive_connection_lifetime=60,
            )
            await pool.release(await pool.acquire())
        except (OSError, asyncpg.PostgresError, *_NO_DSN, TimeoutError) as error:
            raise _unreachable(error, dsn) from error
        return cls(pool, dsn)

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except (TimeoutError, *PASSING):
            self._pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A session without a transaction: for one statement, or for reading."""
        async with self._pool.acquire() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A session in a transaction (read committed)."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def patiently(
        self,
        work: Callable[[], Awaitable[Result]],
        *,
        tries: int = 6,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Result:
        """Do `work` again when the database had a passing fault (restart, deadlock), with growing pauses; about 15 s in all.

        `work` must be safe to repeat: a whole transaction, fenced by attempt.
        """
        for attempt in range(tries):
            try:
                return await work()
            except PASSING as error:
                if attempt == tries - 1 or isinstance(error, CounterfoilError):
                    raise
                await sleep(0.25 * 2**attempt)
        raise AssertionError("unreachable")
