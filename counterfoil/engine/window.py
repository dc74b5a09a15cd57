"""The sliding window: how many calls to one source are under way. Never barrier batches; grows while all is well, halves when pushed back.

Additive increase, multiplicative decrease, under the declared cap (or `adaptive_max`, where the source allows more). No IO.
"""

from __future__ import annotations

import asyncio
from collections import deque


class SlidingWindow:
    """`limit` calls at a time. A push-back counts once for all calls that were under way when it came."""

    def __init__(self, cap: int, adaptive_max: int | None = None) -> None:
        self.ceiling = max(cap, adaptive_max or cap)
        self._cap = cap
        self.limit = float(cap)
        self.in_flight = 0
        self.most_in_flight = 0
        self._cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> int:
        """Wait for a place; returns a ticket for `leave`."""
        while self.in_flight >= int(self.limit):
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake()  # the place was ours: hand it on
                raise
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return self._cuts

    def leave(self, ticket: int, *, pushed_back: bool = False) -> None:
        """The call is over. Success widens the window by one for each full window; a push-back halves it."""
        if pushed_back:
            if ticket == self._cuts:  # else the cut for this push-back was made already
                self.limit = max(1.0, self.limit / 2)
                self._cuts += 1
        elif self.limit < self.ceiling and self.in_flight >= int(self.limit):
            step = (
                1.0 if self.limit < self._cap / 2 else 1 / self.limit
            )  # quickly back to half of what was declared, then gently
            self.limit = min(float(self.ceiling), self.limit + step)
        self.in_flight -= 1
        self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1
