"""The way to one destination, in two lanes: live work and bulk re-runs, each with its own circuit; one window and one rate over both.

A bulk call passes the bulk lane's gate first and then the common one, so that bulk work may wait for live work and never the other way
round. Gates stand in the ledger: what one host is told holds for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from counterfoil.engine.caller import Caller, Gate, Told
from counterfoil.flows.delivery import Target
from counterfoil.flows.flow import PullSettings
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Lane
from counterfoil.model.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Lanes:
    """`callers` by lane; `once` makes one call in a lane."""

    callers: Mapping[Lane, Caller]

    async def once(self, lane: Lane, call: Callable[[], Awaitable[Told]]) -> Told:
        """As Caller.once. Raises GateClosedError."""
        live = self.callers[Lane.LIVE]
        if lane is Lane.LIVE:
            return await live.once(call)
        return await self.callers[Lane.BULK].once(lambda: live.once(call, counted=False))

    async def wait(self, lane: Lane) -> float:
        """Seconds until a call in this lane may go; 0 now."""
        waits = [await caller.wait() for name, caller in self.callers.items() if name in (lane, Lane.LIVE)]
        return max(waits)

    @property
    def note(self) -> str:
        """Why calls are waiting; "" where they are not."""
        return self.callers[Lane.LIVE].note or self.callers[Lane.BULK].note


def lanes_to(target: Target, name: str, *, ledger: Ledger, clock: Clock, retry: RetryPolicy) -> Lanes:
    """The lanes to a destination whose gate has this name; all flows of a process to the same destination should share one."""

    def caller(lane: Lane, share: float) -> Caller:
        settings = PullSettings(
            concurrency=max(1, int(target.concurrency * share)),
            rate=target.rate * share if target.rate else None,
            breaker_failures=target.breaker.failures,
            breaker_open=target.breaker.open,
        )
        gate = Gate(name if lane is Lane.LIVE else f"{name}#{lane}")
        return Caller(gate, ledger, clock, settings, retry)

    return Lanes({Lane.LIVE: caller(Lane.LIVE, 1.0), Lane.BULK: caller(Lane.BULK, target.bulk_share)})
