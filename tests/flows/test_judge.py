from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from counterfoil.flows.judge import JudgeFault, judge
from counterfoil.model.verdict import Outcome, Verdict


def answers(answer: Any) -> Callable[[dict[str, Any]], Any]:
    def band(record: dict[str, Any]) -> Any:
        return answer

    return band


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Verdict(Outcome.WARNING, "low", "mine"), Verdict(Outcome.WARNING, "low", "mine")),
        ("VALID", Verdict(Outcome.VALID, "", "band")),
        (Outcome.INVALID, Verdict(Outcome.INVALID, "", "band")),
        (("INVALID", "score under 50"), Verdict(Outcome.INVALID, "score under 50", "band")),
        (("VALID", None), Verdict(Outcome.VALID, "", "band")),
    ],
)
def test_an_answer_is_a_verdict(answer: Any, verdict: Verdict) -> None:
    assert judge(answers(answer), {}) == verdict


@pytest.mark.parametrize("answer", [None, "maybe", "valid", 5, ("VALID",), ("a", "b"), (["VALID"], "x"), {}, ()])
def test_an_answer_that_is_none(answer: Any) -> None:
    found = judge(answers(answer), {})
    assert isinstance(found, JudgeFault)
    assert found.fault == "judge_answer"
    assert "VALID, WARNING, INVALID" in found.problem


def test_an_exception_is_a_fault_without_the_record_in_it() -> None:
    def band(record: dict[str, Any]) -> str:
        raise ValueError(f"bad name {record['name']}")

    assert judge(band, {"name": "Jane"}) == JudgeFault("judge_failed", "Function `band` raised ValueError.")


def test_a_function_cannot_change_the_record() -> None:
    fields = {"score": 1}
    judge(lambda record: record.update(score=2) or "VALID", fields)
    assert fields == {"score": 1}
