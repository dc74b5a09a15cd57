"""What is said of a run: the sum in sight, the watermark, what comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from counterfoil.cli import summary
from counterfoil.ledger.runs import COUNT_COLUMNS, RunFault
from counterfoil.model.run import RunCounts, RunState

AT = datetime(2026, 11, 23, 14, tzinfo=UTC)


def _row(state: RunState = RunState.PARTIAL, **other: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COUNT_COLUMNS, 0)
    row |= {
        "reason": None,
        "id": 7,
        "flow": "pets",
        "state": state.value,
        "problem": None,
        "since": None,
        "until": None,
        "attempts": 1,
    }
    row |= {"created_at": AT, "started_at": AT, "ended_at": AT + timedelta(seconds=10)}
    return row | {"watermark_before": None, "watermark_after": None} | other


def test_the_sum_is_in_sight() -> None:
    counts = RunCounts(listed=10_000, found=10_000, inserted=9_480, rejected=20, failed=500)
    assert summary.sum_line(counts) == (
        "found 10,000 = inserted 9,480 + updated 0 + unchanged 0 + rejected 20 + review 0 + failed 500 (each an item)"
    )


def test_a_sum_that_does_not_hold_yet_is_not_called_equal() -> None:
    assert summary.sum_line(RunCounts(found=10, inserted=4)).startswith("found 10 ≠ 4 = inserted 4 +")


def test_a_run_under_way_is_not_told_as_one_whose_sum_is_wrong() -> None:
    text = summary.of_run(_row(RunState.RUNNING, found=10, inserted=4, ended_at=None), [])
    assert "found 10 so far, 4 of them done = inserted 4" in text
    assert "≠" not in text
    assert "≠" in summary.of_run(_row(RunState.FAILED, found=10, inserted=4), [])


def test_who_cancelled_a_run_and_why() -> None:
    text = summary.of_run(_row(RunState.CANCELLED, reason="not now (cancelled by ana@desk)", attempts=2), [])
    assert "not now (cancelled by ana@desk)" in text
    assert "resumed 1 time\n" in f"{text}\n"


def test_a_run_that_ended() -> None:
    row = _row(
        listed=12,
        duplicates=2,
        found=10,
        inserted=9,
        failed=1,
        watermark_before=AT,
        watermark_after=AT + timedelta(hours=1),
    )
    fault = {"outcome": "failed", "fault": "http_503", "records": 1, "keys": ["a"], "problem": "Later."}
    text = summary.of_run(row, [fault])
    for words in (
        "Run 7 of pets is partly done",
        "listed 12 = found 10 + duplicates 2",
        "window: the beginning to now",
        "watermark: 2026-11-23 14:00:00 UTC -> 2026-11-23 15:00:00 UTC",
        "took 10.0 s, 1 records a second",
        "http_503",
    ):
        assert words in text


@pytest.mark.parametrize("state", RunState)
def test_every_state_has_words_and_an_exit_code(state: RunState) -> None:
    ended = None if state in (RunState.QUEUED, RunState.RUNNING) else AT
    assert summary.of_run(_row(state, ended_at=ended, problem="Why."), [])
    assert state in summary.EXIT_CODES


def test_only_a_clean_end_is_zero() -> None:
    ended = {state: summary.EXIT_CODES[state] for state in RunState if state not in (RunState.QUEUED, RunState.RUNNING)}
    assert [state for state, code in ended.items() if code == 0] == [RunState.COMPLETED]


def test_what_comes_next() -> None:
    sums = {"due": 3, "owned": 1, "next_action_at": AT}
    said = summary.next_steps(_row(), sums, {"next_fire_at": AT})
    assert said[0].startswith("3 items to be tried again without you, the next at 2026-11-23 14:00:00 UTC")
    assert said[1] == "1 item for a person: `counterfoil case list --flow pets`."
    assert said[2] == "The next run is due 2026-11-23 14:00:00 UTC."
    assert summary.next_steps(_row(), {"due": 0, "owned": 0}, {"next_fire_at": None}) == []


def test_a_dry_run() -> None:
    text = summary.of_dry_run(
        "pets",
        RunCounts(found=1, rejected=1),
        [RunFault("rejected", "missing", "No name.", 1, ("a",))],
        ["new table pets"],
    )
    assert "first: new table pets" in text
    assert "No name." in text
