"""What an answer makes of an item: the move each outcome stands for. Pure; one function for each outcome, chosen by a table.

Nothing here sends, waits or reads a status: the flow file has said what an answer means before it comes here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from counterfoil.flows.delivery import DeliveryFlow, KindSpec
from counterfoil.ledger.deliveries import Claimed
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import Answer, Outcome, Resend
from counterfoil.model.item import ItemEvent as E
from counterfoil.model.retry import next_item_try

IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class Judging:
    """Everything a move depends on beside the answer."""

    flow: DeliveryFlow
    item: Claimed
    now: datetime

    @property
    def kind(self) -> KindSpec:
        return self.flow.kinds[self.item.kind]

    @property
    def resend(self) -> Resend:
        updating = self.item.receipt is not None and self.kind.update is not None
        return self.kind.resend(has_look_up=self.flow.look_up is not None, updating=updating)

    def move(self, event: E, answer: Answer | None = None, **more: object) -> Move:
        """A move of the item by the attempt that has it."""
        said = {} if answer is None else {"fault": answer.fault, "problem": answer.problem}
        return Move(event, id=self.item.id, attempt_id=self.item.attempt_id, **{**said, **more})  # type: ignore[arg-type]


def move_of(judging: Judging, answer: Answer) -> Move:
    """The move after a request was sent, or found by a look-up to have arrived."""
    return _MOVES[answer.outcome](judging, answer)


def looked_up_in_vain(judging: Judging, answer: Answer) -> Move:
    """The look-up could not tell: the item stays in doubt and is looked up again, until its budget of time is over."""
    if answer.outcome is Outcome.NOT_FOUND:
        answer = replace(answer, problem="The look-up did not find it; the other side may still be at it.")
    due = _next_try(judging, answer)
    if due is None:
        problem = f"Whether it arrived could not be found out in {_span(judging.flow.retry.budget)}: {answer.problem}"
        return judging.move(E.FAIL, answer, fault=IN_DOUBT, problem=problem, doubtful=True)
    return judging.move(E.DOUBT, answer, next_action_at=due)


def given_back(judging: Judging, due: datetime) -> Move:
    """Nothing was sent. What was in doubt stays so."""
    event = E.DOUBT if judging.item.doubt_at is not None and judging.resend is Resend.LOOK_UP else E.GIVE_BACK
    return judging.move(event, next_action_at=due)


def failed_temporarily(judging: Judging, answer: Answer) -> Move:
    """Tried again by itself, or a person's when its budget of time is over. What was in doubt stays so."""
    if judging.item.doubt_at is not None and judging.resend is not Resend.SAFE:
        return looked_up_in_vain(judging, answer)
    return _failed_for_now(judging, answer)


def _arrived(judging: Judging, answer: Answer) -> Move:
    if judging.kind.receipt is not None and answer.receipt is None and judging.item.receipt is None:
        problem = f"It arrived, and gave no receipt ({answer.problem or 'the reply holds none'})."
        return judging.move(E.FAIL, answer, fault="no_receipt", problem=problem)
    if not judging.kind.confirmed:
        return judging.move(E.CONFIRM, receipt=answer.receipt)
    assert judging.flow.poll is not None  # `check` refuses a confirmed kind without
    return judging.move(E.RECEIVE, receipt=answer.receipt, next_action_at=judging.now + judging.flow.poll.deadline)


def _refused(judging: Judging, answer: Answer) -> Move:
    return judging.move(E.FAIL, answer)


def _failed_for_now(judging: Judging, answer: Answer) -> Move:
    due = _next_try(judging, answer)
    if due is None:
        return judging.move(E.FAIL, answer)
    return judging.move(E.FAIL_TEMPORARILY, answer, next_action_at=due)


def _unknown(judging: Judging, answer: Answer) -> Move:
    if judging.resend is Resend.SAFE:
        return _failed_for_now(judging, answer)
    look_up = judging.flow.look_up
    due = judging.now + look_up.after if judging.resend is Resend.LOOK_UP and look_up is not None else None
    said = replace(answer, fault=IN_DOUBT)
    return judging.move(E.DOUBT, said, next_action_at=due)


_MOVES: Mapping[Outcome, Callable[[Judging, Answer], Move]] = {
    Outcome.DONE: _arrived,
    Outcome.DUPLICATE: _arrived,
    Outcome.REFUSED: _refused,
    Outcome.TEMPORARY: _failed_for_now,
    Outcome.THROTTLED: _failed_for_now,
    Outcome.UNKNOWN: _unknown,
}


def _next_try(judging: Judging, answer: Answer) -> datetime | None:
    """Backoff with jitter, not before what the other side asked for; None when the budget is used up."""
    item = judging.item
    first = item.first_failed_at or judging.now
    due = next_item_try(
        judging.flow.retry,
        attempt=item.attempts,
        first_failed_at=first,
        now=judging.now,
        random=random.random,
    )
    if due is None or answer.retry_after is None:
        return due
    return max(due, judging.now + timedelta(seconds=answer.retry_after))


def _span(budget: timedelta) -> str:
    hours = budget.total_seconds() / 3600
    return f"{hours:g} h" if hours >= 1 else f"{budget.total_seconds() / 60:g} min"
