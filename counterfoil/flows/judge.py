"""Ask a named function for its verdict on one record. Whatever it answers or raises, the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from counterfoil.model.verdict import Outcome, Verdict

KNOWN = ", ".join(outcome.value for outcome in Outcome)


@dataclass(frozen=True, slots=True)
class JudgeFault:
    """The function gave no verdict. `fault` is the stable word for a case, `problem` the sentence."""

    fault: str  # judge_failed | judge_answer
    problem: str


def judge(function: Callable[..., Any], fields: Mapping[str, Any]) -> Verdict | JudgeFault:
    """The verdict on `fields` (internal names). Takes from the function a Verdict, an outcome, or (outcome, reason).

    Never raises for what the function does. The text of its exception is left out: it may quote the record.
    """
    name = getattr(function, "__name__", "function")
    try:
        answer = function(dict(fields))
    except Exception as error:
        return JudgeFault("judge_failed", f"Function `{name}` raised {type(error).__name__}.")
    if isinstance(answer, Verdict):
        return answer
    outcome, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
    try:
        return Verdict(Outcome(outcome), str(reason or ""), rule=name)
    except ValueError:
        return JudgeFault(
            "judge_answer", f"Function `{name}` answered with a {type(answer).__name__} that is none of {KNOWN}."
        )
