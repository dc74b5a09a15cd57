"""The one clock. Everything that needs the time takes a `Clock`; SQL reads `counterfoil.now()`. Tests move time, nothing sleeps."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, with zone UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; for leases, time-outs and durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, or in a test: move on."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
