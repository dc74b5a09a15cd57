"""The sliding window: its cap is never exceeded, whatever is cancelled; it halves once per push-back and grows back."""

from __future__ import annotations

import asyncio
import random

import pytest

from counterfoil.engine.window import SlidingWindow


async def test_no_more_than_the_cap():
    window = SlidingWindow(3)
    tickets = [await window.enter() for _ in range(3)]
    fourth = asyncio.ensure_future(window.enter())
    await asyncio.sleep(0)
    assert not fourth.done()
    window.leave(tickets[0])
    await fourth
    assert (window.in_flight, window.most_in_flight) == (3, 3)


async def test_a_push_back_counts_once_for_all_that_were_under_way():
    window = SlidingWindow(16)
    tickets = [await window.enter() for _ in range(16)]
    for ticket in tickets:
        window.leave(ticket, pushed_back=True)
    assert window.limit == 8
    window.leave(await window.enter(), pushed_back=True)
    assert window.limit == 4


async def test_it_never_falls_below_one_call():
    window = SlidingWindow(2)
    for _ in range(10):
        window.leave(await window.enter(), pushed_back=True)
    assert window.limit == 1


async def _full_of_success(window: SlidingWindow) -> None:
    tickets = [await window.enter() for _ in range(int(window.limit))]
    for ticket in tickets:
        window.leave(ticket)


@pytest.mark.parametrize(("most", "ends_at"), [(None, 8), (12, 12)])
async def test_success_widens_it_up_to_the_cap_or_to_what_is_allowed(most: int | None, ends_at: int):
    window = SlidingWindow(8, most)
    window.leave(await window.enter(), pushed_back=True)
    for _ in range(200):
        await _full_of_success(window)
    assert window.limit == ends_at
    assert window.most_in_flight == ends_at


async def test_an_idle_window_does_not_grow():
    window = SlidingWindow(8, 16)
    for _ in range(50):
        window.leave(await window.enter())
    assert window.limit == 8


@pytest.mark.parametrize("seed", range(5))
async def test_cancelled_waiters_lose_no_place_and_take_none(seed: int):
    """Many callers, cancelled at any instant: the cap holds, and in the end every place is free."""
    chance, window, inside, most = random.Random(seed), SlidingWindow(4), 0, 0

    async def one() -> None:
        nonlocal inside, most
        ticket = await window.enter()
        inside += 1
        most = max(most, inside)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            inside -= 1
            window.leave(ticket, pushed_back=chance.random() < 0.1)

    callers = [asyncio.ensure_future(one()) for _ in range(200)]
    while not all(caller.done() for caller in callers):
        chance.choice(callers).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*callers, return_exceptions=True)
    assert most <= 4
    assert window.in_flight == 0
    assert sum(not caller.cancelled() for caller in callers) > 0
    await asyncio.wait_for(_full_of_success(window), 5)
