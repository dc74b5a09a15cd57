"""Tables that fit, JSON that is stable, times in two zones, colour only where it is welcome."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil.cli.output import encode, fold, is_lively, many, short, table, took, when

NOON = datetime(2026, 11, 23, 12, 30, 5, tzinfo=UTC)


def test_columns_are_aligned_and_numbers_stand_right() -> None:
    assert table(("key", "found"), [["a", 1], ["bcd", 12345]]) == "key   found\na         1\nbcd  12,345"


def test_a_narrow_terminal_cuts_the_widest_column() -> None:
    lines = table(("key", "problem"), [["x" * 100, "No."]], width=30).splitlines()
    assert max(map(len, lines)) <= 30
    assert "… " in lines[1]


def test_the_last_column_is_folded_and_not_cut() -> None:
    text = table(("key", "problem"), [["a", "The source does not know this key."]], width=24)
    assert text.splitlines() == ["key  problem", "a    The source does not", "     know this key."]
    long = table(("key", "problem"), [["a", "word " * 100]], width=24)
    assert (len(long.splitlines()), long.endswith("…")) == (5, True)


def test_words_are_folded_between_words_and_never_within_a_command() -> None:
    text = "  Start a worker and look at it again: `counterfoil sync run pets --follow` does it."
    assert fold(text, None) == text
    assert fold(text, 40).splitlines() == [
        "  Start a worker and look at it again:",
        "  `counterfoil sync run pets --follow`",
        "  does it.",
    ]


def test_a_very_narrow_terminal_gets_blocks() -> None:
    text = table(
        ("key", "state", "problem"), [["abcdefghij", "PERMANENT_ERROR", "No."], ["b", "QUEUED", "-"]], width=16
    )
    assert text.splitlines()[0].split() == ["key", "abcdefghij"]
    assert text.count("\n\n") == 1


def test_a_key_can_not_command_the_terminal() -> None:
    assert "\x1b" not in table(("key",), [["a\x1b[2Jb\nc"]])
    assert len(table(("key",), [["a\nb"]]).splitlines()) == 2


def test_json_has_utc_and_seconds() -> None:
    moment = NOON.astimezone(datetime.fromisoformat("2026-01-01T00:00+13:00").tzinfo)
    assert encode({"at": moment, "step": timedelta(hours=1)}) == '{"at":"2026-11-23T12:30:05Z","step":3600.0}'


@pytest.mark.parametrize(
    ("zone", "long", "brief"),
    [
        ("UTC", "2026-11-23 12:30:05 UTC", "11-23 12:30Z"),
        ("NZT-13", "2026-11-24 01:30:05 NZT (2026-11-23 12:30:05 UTC)", "11-24 01:30 (12:30Z)"),
        ("XST+2", "2026-11-23 10:30:05 XST (12:30:05 UTC)", "11-23 10:30 (12:30Z)"),
    ],
)
def test_times_are_local_and_utc(zone: str, long: str, brief: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert (when(NOON), short(NOON)) == (long, brief)
    finally:
        monkeypatch.undo()
        time.tzset()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("CI", "true")])
def test_nothing_moves_where_it_is_not_welcome(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("NO_COLOR", "TERM", "CI"):
        monkeypatch.delenv(variable, raising=False)
    assert is_lively(_Terminal())
    assert not is_lively(io.StringIO())
    monkeypatch.setenv(name, value)
    assert not is_lively(_Terminal())


def test_words_for_numbers() -> None:
    assert [many(1, "item"), many(2000, "item")] == ["1 item", "2,000 items"]
    assert [took(3.21), took(75), took(7300)] == ["3.2 s", "1 min 15 s", "2 h 1 min"]
