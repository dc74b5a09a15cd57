"""This process at work: its id in the ledger, its presence lock, its heartbeat, and which flows it works on. All on one connection of its own.

The lock goes with the process, however it dies: others see at once that its leases are free.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from counterfoil.engine.log import get_logger
from counterfoil.ledger import workers
from counterfoil.ledger.pool import APP_ROLE, PASSING, connect, sessions_of

log = get_logger(__name__)

BEAT = 5.0  # seconds
SILENCE = timedelta(seconds=30)  # without a beat for so long, a process no longer keeps others from its flow


class Presence:
    """Open by `present()`. `worker` is the id that stands on runs and attempts."""

    def __init__(self, dsn: str, connection: Any, worker: int) -> None:
        self._dsn, self._connection, self.worker = dsn, connection, worker
        self._turn = asyncio.Lock()  # one statement at a time on the one connection
        self._flows: dict[str, int] = {}

    @asynccontextmanager
    async def flow(self, name: str) -> AsyncIterator[bool]:
        """True: this process works on the flow until the end of the block. False: another one does."""
        async with self._turn:
            taken = await self._take(name)
        try:
            yield taken
        finally:
            if taken:
                async with self._turn:
                    await self._leave(name)

    async def _take(self, name: str) -> bool:
        if self._flows.get(name, 0) == 0 and not await workers.take_flow(self._connection, name):
            # A process that hangs keeps its lock. Its leases end all the same, and then its work must not wait for it: the lock only
            # keeps the cap on calls over all hosts, the fence of each attempt is what keeps the accounts.
            silent = await workers.silent_holder(self._connection, name, SILENCE)
            if silent is None:
                return False
            log.warning("flow.holder_silent", flow=name, worker=silent["id"], host=silent["host"], pid=silent["pid"])
            await self._end_sessions(silent)
        self._flows[name] = self._flows.get(name, 0) + 1
        return True

    async def _end_sessions(self, silent: Mapping[str, Any]) -> None:
        """It may hang in a transaction that holds rows. Where we may not end it, they come free when it goes on or dies."""
        connection = await connect(self._dsn, name="counterfoil cleaner")
        try:
            await workers.end_sessions(connection, sessions_of(silent["pid"], silent["host"]))
        except asyncpg.InsufficientPrivilegeError as error:
            log.warning("flow.holder_not_ended", worker=silent["id"], error=str(error))
        finally:
            await connection.close()

    async def _leave(self, name: str) -> None:
        self._flows[name] -= 1
        if self._flows[name] == 0:
            with contextlib.suppress(*PASSING):
                await workers.leave_flow(self._connection, name)

    async def beat(self) -> None:
        """Once: say that we live; where the connection was lost, take lock and flows again on a new one."""
        async with self._turn:
            try:
                await workers.beat(self._connection, self.worker)
            except PASSING:
                self._connection.terminate()
                self._connection = await connect(self._dsn, role=APP_ROLE, name=f"counterfoil worker {self.worker}")
                await workers.hold_presence(self._connection, self.worker)
                for name in [name for name, times in self._flows.items() if times]:
                    await workers.take_flow(self._connection, name)
                log.info("worker.present_again", worker=self.worker)

    async def close(self) -> None:
        with contextlib.suppress(*PASSING):
            await workers.stop(self._connection, self.worker)
            await self._connection.close(timeout=2)


@asynccontextmanager
async def present(dsn: str, version: str) -> AsyncIterator[Presence]:
    """Register this process as a worker and keep it present until the end of the block."""
    connection = await connect(dsn, role=APP_ROLE, name="counterfoil worker")
    worker = await workers.start(connection, host=socket.gethostname(), pid=os.getpid(), version=version)
    await workers.hold_presence(connection, worker)
    presence = Presence(dsn, connection, worker)
    beating = asyncio.create_task(_keep_beating(presence))
    try:
        yield presence
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await presence.close()


async def _keep_beating(presence: Presence) -> None:
    while True:
        await asyncio.sleep(BEAT)
        try:
            await presence.beat()
        except Exception as error:  # the next beat tries again; the lease says what follows meanwhile
            log.warning("worker.heartbeat_missed", error=type(error).__name__)
