"""One call to a source with everything it takes: gate, window, rate, retry with full jitter, circuit. Pull and items both call through here.

A gate is closed for every worker and host at once: it stands in the ledger, and each process looks at least once a second while it works.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from counterfoil.engine.window import SlidingWindow
from counterfoil.flows.flow import PullSettings
from counterfoil.ledger import gates
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Answer, Outcome, PollAnswer
from counterfoil.model.errors import ConnectorError, Throttled, Transient
from counterfoil.model.retry import RetryPolicy, jittered

Result = TypeVar("Result")
Told = TypeVar("Told", Answer, PollAnswer)

LOOK_EVERY = 1.0  # seconds between two looks at the gate of all hosts
THROTTLE_TRIES = 20  # a source that asks for patience gets it, but not for ever
OVERLOADED = frozenset(
    {"timeout", "unreachable", "http_503", "http_504", "function_timeout"}
)  # these ask for less; a broken reply does not
LONGEST_WAIT = 30.0  # a gate closed for longer is not waited for: the work is put back until it opens


class GateClosedError(Transient):
    """The source asked for a longer pause, or its circuit is open; come back after `wait` seconds."""

    fault = "gate_closed"

    def __init__(self, wait: float, reason: str) -> None:
        super().__init__(f"The source is closed for {wait:.0f} s more: {reason}.")
        self.wait = wait


@dataclass(slots=True)
class Gate:
    """This process's view of the gate of one source. Times on the monotonic clock."""

    name: str
    opens_at: float = 0.0
    looked_at: float = -LOOK_EVERY
    reason: str = ""
    failures: int = 0  # in a row, seen here


class Caller:
    """Calls one source. One for each flow at work in this process."""

    def __init__(self, gate: Gate, ledger: Ledger, clock: Clock, pull: PullSettings, retry: RetryPolicy) -> None:
        self.gate, self.window = gate, SlidingWindow(pull.concurrency, pull.adaptive_max)
        self._ledger, self._clock, self._pull, self._retry = ledger, clock, pull, retry
        self._tokens = 0.0
        self.note = ""

    async def __call__(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """The result of `call`, tried again after passing faults. Raises the last ConnectorError, or GateClosedError."""
        tries = throttled = 0
        while True:
            await self._pass_gate()
            ticket = await self.window.enter()
            pushed_back = False
            try:
                result = await call()
                if self.gate.failures:
                    await self._succeeded()
                return result
            except Throttled as error:
                pushed_back = True
                throttled += 1
                if throttled >= THROTTLE_TRIES:
                    raise
                failure: Transient = error
            except Transient as error:
                pushed_back = error.fault in OVERLOADED
                tries += 1
                failure = error
            except ConnectorError:
                self.gate.failures = 0  # it answered; that it said no is another matter
                raise
            finally:
                self.window.leave(ticket, pushed_back=pushed_back)
            await self._failed(failure, tries)

    async def once(self, call: Callable[[], Awaitable[Told]], *, counted: bool = True) -> Told:
        """One try, never more: a delivery is not sent again in here. Its answer opens, closes and counts as that of any call.

        `counted` False: another lane's circuit has the failure; that the other side asks for less holds for all lanes.
        Raises GateClosedError, and what `call` raises.
        """
        await self._pass_gate()
        ticket = await self.window.enter()
        pushed_back = False
        try:
            answer = await call()
            pushed_back = answer.outcome is Outcome.THROTTLED or answer.fault in OVERLOADED
        finally:
            self.window.leave(ticket, pushed_back=pushed_back)
        await self._count(answer, counted)
        return answer

    async def _count(self, answer: Answer | PollAnswer, counted: bool) -> None:
        if answer.outcome is Outcome.THROTTLED:
            wait = answer.retry_after if answer.retry_after is not None else 1.0
            await self._close(wait, "the destination asked for less")
        elif not counted:
            return
        elif answer.outcome in (Outcome.TEMPORARY, Outcome.UNKNOWN):
            self.gate.failures += 1
            if self.gate.failures >= self._pull.breaker_failures:
                await self._open_circuit()
        elif self.gate.failures:
            await self._succeeded()

    async def wait(self) -> float:
        """Seconds until the gate opens; 0: it is open. Looks at what other hosts were told."""
        await self.look()
        return max(0.0, self.gate.opens_at - self._clock.monotonic())

    async def _failed(self, error: Transient, tries: int) -> None:
        if isinstance(error, Throttled):
            await self._close(
                error.retry_after if error.retry_after is not None else 1.0, "the source asked for less (429)"
            )
            return
        self.gate.failures += 1
        if self.gate.failures >= self._pull.breaker_failures:
            await self._open_circuit()
        if tries >= self._retry.tries:
            raise error
        pause = jittered(tries, self._retry.first_delay, self._retry.max_delay, random.random)
        await self._clock.sleep(pause.total_seconds())

    async def _pass_gate(self) -> None:
        if self._pull.rate:
            await self._take_token(self._pull.rate)
        while True:
            if self._clock.monotonic() - self.gate.looked_at >= LOOK_EVERY:
                await self.look()
            wait = self.gate.opens_at - self._clock.monotonic()
            if wait <= 0:
                self.note = ""
                return
            if wait > LONGEST_WAIT:
                raise GateClosedError(wait, self.gate.reason)
            self.note = f"waiting {wait:.0f} s: {self.gate.reason}"
            await self._clock.sleep(min(wait, LOOK_EVERY))

    async def look(self) -> None:
        """See what other hosts were told."""
        self.gate.looked_at = self._clock.monotonic()

        async def read() -> tuple[float, str]:
            async with self._ledger.session() as session:
                return await gates.wait(session, self.gate.name)

        self._closed_for(*await self._ledger.patiently(read))

    def _closed_for(self, wait: float, reason: str) -> None:
        if wait > 0:
            self.gate.opens_at = max(self.gate.opens_at, self._clock.monotonic() + wait)
            self.gate.reason = reason

    async def _close(self, seconds: float, reason: str) -> None:
        opens_at = self._clock.monotonic() + seconds
        if opens_at <= self.gate.opens_at:
            return  # told already
        self._closed_for(seconds, reason)
        async with self._ledger.session() as session:
            await gates.close(session, self.gate.name, seconds, reason)

    async def _open_circuit(self) -> None:
        failures, self.gate.failures = self.gate.failures, 0
        limit, seconds = self._pull.breaker_failures, self._pull.breaker_open.total_seconds()
        async with self._ledger.session() as session:
            wait = await gates.note_failures(session, self.gate.name, failures, limit=limit, seconds=seconds)
        self._closed_for(wait, "circuit open: too many failures in a row")

    async def _succeeded(self) -> None:
        self.gate.failures = 0
        async with self._ledger.session() as session:
            await gates.note_success(session, self.gate.name)

    async def _take_token(self, rate: float) -> None:
        """Tokens are taken from the bucket of all hosts a quarter of a second's worth at a time."""
        while self._tokens < 1:
            portion = max(1.0, rate / 4)
            async with self._ledger.session() as session:
                wait = await gates.take(session, self.gate.name, portion, rate)
            if wait > 0:
                await self._clock.sleep(wait)
            self._tokens += portion
        self._tokens -= 1
