"""Delays stay within their bounds, whatever the attempt and the dice."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.model.retry import RetryPolicy, jittered, next_item_try
from tests.support import NOON

dice = st.floats(0, 1, exclude_max=True)
attempts = st.integers(0, 10_000)
delays = st.timedeltas(timedelta(milliseconds=1), timedelta(days=1))


@given(attempts, delays, delays, dice)
def test_a_delay_is_never_negative_and_never_over_the_longest(
    attempt: int, first: timedelta, longest: timedelta, die: float
) -> None:
    assert timedelta() <= jittered(attempt, first, longest, lambda: die) <= longest


@given(attempts, delays, delays)
def test_the_ceiling_only_grows(attempt: int, first: timedelta, longest: timedelta) -> None:
    assert jittered(attempt, first, longest, lambda: 1) <= jittered(attempt + 1, first, longest, lambda: 1)


def test_the_ceiling_doubles_from_the_first_delay() -> None:
    first, longest = timedelta(seconds=1), timedelta(seconds=60)
    assert [jittered(n, first, longest, lambda: 1).total_seconds() for n in (1, 2, 3, 4, 7)] == [1, 2, 4, 8, 60]


@given(attempts, st.timedeltas(timedelta(), timedelta(days=3)), dice)
def test_an_item_is_due_later_than_now_and_within_its_budget(attempt: int, failing_for: timedelta, die: float) -> None:
    policy = RetryPolicy()
    due = next_item_try(policy, attempt=attempt, first_failed_at=NOON - failing_for, now=NOON, random=lambda: die)
    if due is not None:
        assert NOON + policy.item_first_delay / 2 <= due <= NOON + policy.item_max_delay
        assert due <= NOON - failing_for + policy.budget


@given(attempts, dice)
def test_an_item_whose_budget_is_used_up_goes_to_a_person(attempt: int, die: float) -> None:
    policy = RetryPolicy()
    assert (
        next_item_try(policy, attempt=attempt, first_failed_at=NOON - policy.budget, now=NOON, random=lambda: die)
        is None
    )
