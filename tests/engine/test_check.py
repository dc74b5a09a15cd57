"""Map, validate, judge: one fate for each key of a chunk, and nothing that stands in a record stops the others."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from counterfoil.engine.check import Fetched, check, no_key
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import Gone, Refused, TooLarge, Transient
from counterfoil.model.item import ItemEvent
from counterfoil.model.ports import BrokenEntry
from counterfoil.model.verdict import Outcome, Verdict
from tests.engine.support import Listed, flow_of, job_of, raw


@pytest.fixture
def job(ledger: Ledger) -> Any:
    return job_of(flow_of(detail=False), Listed(), ledger)


def _fates(checked: Any) -> dict[str, str]:
    return {row.key: "row" for row in checked.rows} | {d.key: f"{d.event.value}:{d.fault}" for d in checked.deviations}


def test_of_two_entries_with_one_key_the_newest_counts(job: Any):
    entries = [
        raw("1", "old", "2026-01-01T00:00:00Z"),
        raw("1", "new", "2026-01-03T00:00:00Z"),
        raw("1", "older", "2026-01-02T00:00:00Z"),
    ]
    checked = check(job, entries=entries)
    assert [row.values[1] for row in checked.rows] == ["new"]
    assert checked.raws == [entries[1]]
    assert checked.listed == 3
    assert checked.latest_changed == datetime(2026, 1, 3, tzinfo=UTC)


def test_without_a_time_of_change_the_first_counts(job: Any):
    checked = check(job, entries=[raw("1", "first"), raw("1", "second")])
    assert [row.values[1] for row in checked.rows] == ["first"]


def test_rows_and_raws_stay_parallel(job: Any):
    entries = [raw(str(n % 7), f"n{n}", f"2026-01-{n + 1:02}T00:00:00Z") for n in range(20)]
    checked = check(job, entries=entries)
    assert all(
        f'"name": "{row.values[1]}"'.encode() in one for row, one in zip(checked.rows, checked.raws, strict=True)
    )


def test_each_fault_is_its_records_own(job: Any):
    entries = [raw("1"), raw("2", None), b"{nonsense", raw("4", score="much"), b"[]", raw("6")]
    fates = _fates(check(job, entries=entries, broken=[BrokenEntry("line 7", "is none", b"#")]))
    assert {key for key, fate in fates.items() if fate == "row"} == {"1", "6"}
    assert fates["2"].startswith("reject:")
    assert fates["4"].startswith("reject:")
    assert no_key(b"{nonsense") in fates
    assert f"broken:{hashlib.sha256(b'#').hexdigest()[:24]}" in fates
    assert len(fates) == 7


def test_a_row_wins_over_a_fault_of_the_same_key(job: Any):
    checked = check(job, entries=[raw("1", None), raw("1", "good"), raw("1", None)])
    assert _fates(checked) == {"1": "row"}


def test_a_fault_twice_is_one(job: Any):
    checked = check(job, entries=[raw(None, "x"), raw(None, "x")])
    assert len(checked.deviations) == 1
    assert checked.listed == 2


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (Transient("later"), ItemEvent.FAIL_TEMPORARILY),
        (Gone("not here"), ItemEvent.FAIL_TEMPORARILY),
        (Refused("no"), ItemEvent.FAIL),
        (TooLarge("big"), ItemEvent.FAIL),
    ],
)
def test_a_record_that_did_not_come(job: Any, error: Any, event: ItemEvent):
    checked = check(job, [Fetched("1", None, error), Fetched("2", raw("2"))])
    assert [(d.key, d.event, d.fault) for d in checked.deviations] == [("1", event, error.fault)]
    assert [row.key for row in checked.rows] == ["2"]


def test_another_record_than_the_one_asked_for(job: Any):
    checked = check(job, [Fetched("1", raw("2"))])
    assert _fates(checked) == {"1": "fail_temporarily:other_record"}


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        (Verdict(Outcome.VALID), "row"),
        (Verdict(Outcome.WARNING, "Ask.", "band"), "review:band"),
        (Verdict(Outcome.INVALID, "No.", "band"), "reject:band"),
        ("nonsense", "fail:judge_answer"),
        (ZeroDivisionError(), "fail:judge_failed"),
    ],
)
def test_the_verdict_of_a_named_function(ledger: Ledger, said: Any, fate: str):
    def decide(fields: dict[str, Any]) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    checked = check(job_of(flow_of(detail=False), Listed(), ledger, decide=decide), entries=[raw("1")])
    assert _fates(checked) == {"1": fate}
    assert all(d.row is not None and d.raw == raw("1") for d in checked.deviations), "a person may let it pass"
