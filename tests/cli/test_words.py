"""Times and durations as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from counterfoil.cli.words import duration, moment
from counterfoil.model.errors import UsageError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-16", datetime(2026, 11, 16, tzinfo=UTC)),
        ("2026-11-16T09:30", datetime(2026, 11, 16, 9, 30, tzinfo=UTC)),
        ("2026-11-16T09:30+13:00", datetime(2026, 11, 15, 20, 30, tzinfo=UTC)),
        ("2026-11-16T09:30Z", datetime(2026, 11, 16, 9, 30, tzinfo=UTC)),
        ("7d", NOW - timedelta(days=7)),
        ("90m", NOW - timedelta(minutes=90)),
    ],
)
def test_a_time(text: str, expected: datetime) -> None:
    assert moment(text, "--since", now=NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "7", "7x", ""])
def test_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        moment(text, "--since", now=NOW)


def test_a_duration() -> None:
    assert duration("1d", "--step") == timedelta(days=1)
    with pytest.raises(UsageError, match="7d"):
        duration("a day", "--step")
