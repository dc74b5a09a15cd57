"""The sum of a run, and a watermark that hides nothing."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.model.run import ACCOUNTED_RUN, ENDED_RUN, OPEN_RUN, RunCounts, RunState, next_watermark, window_since
from tests.support import NOON

moments = st.timedeltas(timedelta(days=-400), timedelta(days=400)).map(lambda delta: NOON + delta)
maybe = st.none() | moments
counts = st.builds(RunCounts, **{field.name: st.integers(0, 10**12) for field in fields(RunCounts)})


def test_states_are_open_or_ended() -> None:
    assert OPEN_RUN | ENDED_RUN == frozenset(RunState)
    assert not OPEN_RUN & ENDED_RUN
    assert ACCOUNTED_RUN < ENDED_RUN


@given(maybe, moments, maybe, maybe)
def test_a_watermark_never_goes_back(
    old: datetime | None, started: datetime, latest: datetime | None, until: datetime | None
) -> None:
    new = next_watermark(old, started_at=started, latest_changed=latest, until=until)
    assert old is None or (new is not None and new >= old)


@given(maybe, moments, maybe, maybe)
def test_a_watermark_moves_to_no_moment_that_was_not_asked_for_and_answered(
    old: datetime | None, started: datetime, latest: datetime | None, until: datetime | None
) -> None:
    new = next_watermark(old, started_at=started, latest_changed=latest, until=until)
    if new is not None and new != old:
        assert latest is not None and new <= latest
        assert new <= started
        assert until is None or new <= until


@given(maybe, moments)
def test_a_run_that_saw_no_change_leaves_the_watermark(old: datetime | None, started: datetime) -> None:
    assert next_watermark(old, started_at=started, latest_changed=None) == old


def test_a_record_stamped_in_the_future_does_not_hide_others() -> None:
    assert next_watermark(None, started_at=NOON, latest_changed=NOON + timedelta(days=300)) == NOON


@given(
    maybe,
    moments,
    st.timedeltas(timedelta(), timedelta(days=9)),
    st.none() | st.timedeltas(timedelta(), timedelta(days=9)),
)
def test_a_window_starts_no_later_than_the_watermark(
    watermark: datetime | None, now: datetime, overlap: timedelta, lookback: timedelta | None
) -> None:
    since = window_since(watermark, now=now, overlap=overlap, lookback=lookback)
    if watermark is not None:
        assert since == watermark - overlap
    else:
        assert since == (None if lookback is None else now - lookback)


@given(counts, counts)
def test_balanced_runs_add_up_to_a_balanced_run(one: RunCounts, other: RunCounts) -> None:
    one, other = (replace(c, found=c.accounted, listed=c.accounted + c.duplicates) for c in (one, other))
    assert one.balanced
    assert (one + other).balanced
    assert (one + other).found == one.found + other.found


@pytest.mark.parametrize(
    "field", ["listed", "duplicates", "found", "inserted", "updated", "unchanged", "rejected", "review", "failed"]
)
def test_one_record_too_many_anywhere_breaks_the_sum(field: str) -> None:
    whole = RunCounts(
        listed=7, duplicates=1, found=6, inserted=1, updated=1, unchanged=1, rejected=1, review=1, failed=1
    )
    assert whole.balanced
    assert not replace(whole, **{field: getattr(whole, field) + 1}).balanced


def test_a_record_that_was_listed_and_then_forgotten_breaks_the_sum() -> None:
    assert not RunCounts(listed=1).balanced
