"""One call to a source: tried again so often, with jitter, through a gate that all processes share, until the circuit opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from counterfoil.engine.caller import Caller, Gate, GateClosedError
from counterfoil.flows.flow import PullSettings
from counterfoil.ledger import gates
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import Gone, Refused, Throttled, Transient
from counterfoil.model.retry import RetryPolicy
from tests.support import FakeClock

RETRY = RetryPolicy(tries=4, first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=8))


def make(ledger: Ledger, clock: FakeClock, retry: RetryPolicy = RETRY, **pull: Any) -> Caller:
    return Caller(Gate("source"), ledger, clock, replace(PullSettings(), **pull), retry)


def answers(*given: Any) -> tuple[Callable[[], Any], list[Any]]:
    """A call that answers so, one after the other; and what is left."""
    left = list(given)

    async def call() -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return call, left


async def test_passing_faults_are_tried_again_with_jittered_pauses(ledger: Ledger, clock: FakeClock):
    call, left = answers(Transient("a"), Transient("b"), Transient("c"), "good")
    assert await make(ledger, clock)(call) == "good"
    assert not left
    assert len(clock.slept) == 3
    assert all(0 <= pause <= ceiling for pause, ceiling in zip(clock.slept, (1, 2, 4), strict=True))


async def test_after_the_last_try_the_fault_is_raised(ledger: Ledger, clock: FakeClock):
    call, left = answers(*[Transient(str(n)) for n in range(9)])
    with pytest.raises(Transient, match="3"):
        await make(ledger, clock)(call)
    assert len(left) == 5


@pytest.mark.parametrize("error", [Refused("no"), Gone("not here")])
async def test_a_refusal_is_not_tried_again(ledger: Ledger, clock: FakeClock, error: Exception):
    call, left = answers(error, "never")
    with pytest.raises(type(error)):
        await make(ledger, clock)(call)
    assert left == ["never"]
    assert clock.slept == []


async def test_a_throttle_does_not_count_as_a_try_and_is_waited_for(ledger: Ledger, clock: FakeClock):
    call, _ = answers(*[Throttled("slow down", retry_after=0.1) for _ in range(6)], "good")
    assert await make(ledger, clock)(call) == "good"
    assert sum(clock.slept) >= 0.3


async def test_a_source_that_throttles_for_ever_is_left(ledger: Ledger, clock: FakeClock):
    call, left = answers(*[Throttled("slow down", retry_after=1.0) for _ in range(100)])
    with pytest.raises(Throttled):
        await make(ledger, clock)(call)
    assert len(left) == 80


async def test_the_gate_is_shared_by_all_processes_through_the_ledger(ledger: Ledger, clock: FakeClock):
    """What one is told, the other respects, with another clock and without a call of its own."""
    one, two = make(ledger, clock), make(ledger, FakeClock())
    call, _ = answers(Throttled("go away", retry_after=3600.0))
    with pytest.raises(GateClosedError):
        await one(call)
    untouched, left = answers("never")
    with pytest.raises(GateClosedError) as closed:
        await two(untouched)
    assert left == ["never"]
    assert 3500 < closed.value.wait <= 3600
    assert "429" in closed.value.problem


async def test_a_shorter_wish_never_shortens_a_longer_one(ledger: Ledger):
    async with ledger.session() as session:
        await gates.close(session, "source", 600, "long")
        await gates.close(session, "source", 5, "short")
        assert (await gates.wait(session, "source"))[0] > 500


async def test_the_circuit_opens_after_so_many_failures_in_a_row_and_longer_each_time(ledger: Ledger, clock: FakeClock):
    caller = make(ledger, clock, replace(RETRY, tries=1), breaker_failures=3, breaker_open=timedelta(seconds=100))

    async def fail() -> Any:
        call, _ = answers(Transient("down"))
        return await caller(call)

    for _ in range(3):
        with pytest.raises(Transient, match="down"):
            await fail()
    with pytest.raises(GateClosedError) as first:
        await fail()
    assert 90 < first.value.wait <= 100
    clock.move(101)
    async with ledger.session() as session:
        await session.execute("update counterfoil.gate set closed_until = now()")
    for _ in range(3):
        with pytest.raises(Transient, match="down"):
            await fail()
    with pytest.raises(GateClosedError) as second:
        await fail()
    assert 190 < second.value.wait <= 200


async def test_success_in_between_keeps_the_circuit_closed(ledger: Ledger, clock: FakeClock):
    caller = make(ledger, clock, replace(RETRY, tries=2), breaker_failures=3)
    for _ in range(10):
        call, _ = answers(Transient("once"), "good")
        assert await caller(call) == "good"
    async with ledger.session() as session:
        assert await gates.wait(session, "source") == (0.0, "")


async def test_a_cancelled_call_gives_its_place_back(ledger: Ledger, clock: FakeClock):
    caller, begun = make(ledger, clock, concurrency=1), asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(caller(for_ever))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    call, _ = answers("good")
    assert await asyncio.wait_for(caller(call), 5) == "good"


async def test_the_rate_is_one_bucket_for_all(ledger: Ledger, clock: FakeClock):
    """Ten calls a second over two processes: thirty calls take about three seconds, by the waits they are told."""
    other = FakeClock()
    one, two = make(ledger, clock, rate=10.0), make(ledger, other, rate=10.0)
    for caller in (one, two) * 15:
        call, _ = answers("good")
        await caller(call)
    assert sum(clock.slept) + sum(other.slept) > 1.5
