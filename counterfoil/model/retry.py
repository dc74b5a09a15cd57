"""When to try again: exponential delay with full jitter, within a budget of time. Pure; randomness is a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`tries` at once inside a run; after them the record is an item, tried again until `budget` has passed."""

    tries: int = 4
    first_delay: timedelta = timedelta(milliseconds=250)
    max_delay: timedelta = timedelta(seconds=20)
    item_first_delay: timedelta = timedelta(minutes=1)
    item_max_delay: timedelta = timedelta(hours=1)
    budget: timedelta = timedelta(hours=24)
    crashes: int = 3


def jittered(attempt: int, first: timedelta, longest: timedelta, random: Callable[[], float]) -> timedelta:
    """The delay before try number `attempt + 1`: anywhere between nothing and the exponential ceiling (full jitter)."""
    ceiling = min(longest.total_seconds(), first.total_seconds() * 2 ** min(max(attempt - 1, 0), 40))
    return timedelta(seconds=ceiling * random())


def next_item_try(
    policy: RetryPolicy, *, attempt: int, first_failed_at: datetime, now: datetime, random: Callable[[], float]
) -> datetime | None:
    """When the item is due again, or None when its budget of time is used up and a person must own it.

    Never sooner than half the ceiling: an item's retry is cheap to delay, and a worker must not spin on it.
    """
    due = now + jittered(attempt, policy.item_first_delay, policy.item_max_delay, lambda: 0.5 + random() / 2)
    return due if due <= first_failed_at + policy.budget else None
