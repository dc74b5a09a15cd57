"""Confirmation of what the other side has accepted: due receipts, many in one call, a constant number of statements for each call.

A call is only a question: killed anywhere, it is asked again. One bad answer, one bad id or one unknown word never stops the others. What
is not answered in time is a person's (`ledger.items.wake`), and goes on being asked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

from counterfoil.engine.caller import GateClosedError
from counterfoil.engine.job import DeliveryJob
from counterfoil.engine.log import get_logger
from counterfoil.flows.delivery import Poll
from counterfoil.ledger import polls
from counterfoil.ledger.deliveries import Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import Due, Result, StepRow
from counterfoil.model.delivery import Confirmation, Lane, Outcome, PollAnswer, StepState
from counterfoil.model.errors import Misconfigured
from counterfoil.model.item import ItemEvent

log = get_logger(__name__)

AT_ONCE = 8  # calls under way at one time, where the window allows it
ACTOR = "poll"


@dataclass(frozen=True, slots=True)
class Polled:
    """What became of receipts asked about: asked = confirmed + failed + running + reopened + not_found + silent + unanswered."""

    calls: int = 0
    asked: int = 0
    confirmed: int = 0
    failed: int = 0
    reopened: int = 0
    running: int = 0
    not_found: int = 0
    silent: int = 0  # left out of an answer
    unanswered: int = 0  # the call as a whole failed

    def __add__(self, other: Polled) -> Polled:
        return Polled(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one receipt's answer means: the row that stays, the steps that are new, the move, the word it is counted under."""

    result: Result
    counted: str
    steps: tuple[StepRow, ...] = ()
    move: Move | None = None


async def all_due(job: DeliveryJob) -> Polled:
    """Call after call, until nothing is due or the other side gives no answers."""
    done = Polled()
    while (one := await work(job)).asked:
        done += one
        if one.unanswered == one.asked:
            break
    return done


async def work(job: DeliveryJob) -> Polled:
    """Ask about what is due, once. Returns what was found out; `asked` 0: nothing was due, or the way is closed."""
    spec = job.flow.poll
    if spec is None or await job.lanes.wait(Lane.LIVE) > 0:
        return Polled()
    async with job.ledger.session() as session:
        due = await polls.due(session, job.flow.name, spec.ids * AT_ONCE)
    batches = [due[at : at + spec.ids] for at in range(0, len(due), spec.ids)]
    found = sum(await asyncio.gather(*(_ask(job, spec, batch) for batch in batches)), Polled())
    if found.asked:
        log.info("deliveries.polled", flow=job.flow.name, **asdict(found))
    return found


async def _ask(job: DeliveryJob, spec: Poll, batch: Sequence[Due]) -> Polled:
    receipts = [one.receipt for one in batch]
    try:
        answer = await job.lanes.once(Lane.LIVE, lambda: job.target.poll(receipts))
    except GateClosedError:
        return Polled()
    except Misconfigured as error:
        log.error("delivery.misconfigured", flow=job.flow.name, problem=str(error))
        return Polled()
    if answer.outcome is Outcome.REFUSED and len(batch) > 1:
        # One id may spoil the whole call: halves find it, and the others get their answer.
        await _settle(job, [], answer)
        half = len(batch) // 2
        return Polled(calls=1) + await _ask(job, spec, batch[:half]) + await _ask(job, spec, batch[half:])
    now = job.clock.now()
    verdicts = [*_verdicts(spec, batch, answer, now)]
    await _settle(job, verdicts, answer)
    counts = dict.fromkeys(("confirmed", "failed", "reopened", "running", "not_found", "silent", "unanswered"), 0)
    for verdict in verdicts:
        counts[verdict.counted] += 1
    return Polled(calls=1, asked=len(batch), **counts)


async def _settle(job: DeliveryJob, verdicts: Sequence[_Verdict], answer: PollAnswer) -> None:
    """One statement for all of it."""

    async def write() -> None:
        async with job.ledger.session() as session:
            await polls.settle(
                session,
                job.flow.name,
                results=[verdict.result for verdict in verdicts],
                steps=[step for verdict in verdicts for step in verdict.steps],
                moves=[verdict.move for verdict in verdicts if verdict.move is not None],
                proofs=[Proof(answer.exchange)],
                actor=ACTOR,
            )

    await job.ledger.patiently(write)


# --- what an answer means -------------------------------------------------------------------------------------


def _verdicts(spec: Poll, batch: Sequence[Due], answer: PollAnswer, now: datetime) -> Iterator[_Verdict]:
    if answer.outcome is not Outcome.DONE:
        yield from (_unanswered(spec, one, answer, now) for one in batch)
        return
    found = {one.receipt: one for one in answer.found}
    unknown = set(answer.not_found)
    for one in batch:
        said = found.get(one.receipt)
        if said is not None:
            yield _told(spec, one, said, now)
        elif one.receipt in unknown:
            yield _not_found(spec, one, now)
        else:
            yield _Verdict(Result(one.item_id, now + spec.every, answered=False, not_found=one.not_found), "silent")


def _unanswered(spec: Poll, one: Due, answer: PollAnswer, now: datetime) -> _Verdict:
    """The call failed: asked again soon, with a little patience."""
    if answer.outcome is Outcome.REFUSED:  # a call about this one alone: it is this id that is refused
        return _not_found(spec, one, now, fault=answer.fault or "poll_refused", problem=answer.problem)
    wait = timedelta(seconds=answer.retry_after) if answer.retry_after is not None else spec.every / 10
    later = now + max(wait, timedelta(seconds=5))
    return _Verdict(Result(one.item_id, later, answered=False, not_found=one.not_found), "unanswered")


def _not_found(
    spec: Poll, one: Due, now: datetime, *, fault: str = "receipt_not_found", problem: str | None = None
) -> _Verdict:
    """An id it does not know: asked a few times more, then a person's, and asked no further."""
    times = one.not_found + 1
    if times < spec.not_found_limit:
        return _Verdict(Result(one.item_id, now + spec.every, not_found=times), "not_found")
    said = problem or f"The other side does not know its receipt; asked {times} times."
    move = Move(ItemEvent.FAIL, id=one.item_id, fault=fault, problem=said)
    return _Verdict(Result(one.item_id, None, not_found=times), "not_found", move=move)


def _told(spec: Poll, one: Due, said: Confirmation, now: datetime) -> _Verdict:
    """Nothing new costs nothing but the row's next time; what is new is written to the history, whatever it is."""
    seen = _digest(said)
    if seen == one.seen and said.state is not StepState.DONE and said.state is not StepState.FAILED:
        result = Result(one.item_id, now + _every(spec, one), status=said.status, seen=seen)
        return _Verdict(result, "running")
    steps = () if seen == one.seen else tuple(_steps(one.item_id, said))
    row = Result(one.item_id, now + spec.every, status=said.status, seen=seen)
    verdict = _JUDGE[said.state](spec, one, said, row, now)
    return replace(verdict, steps=steps)


def _every(spec: Poll, one: Due) -> timedelta:
    return spec.recheck.every if one.phase == "recheck" and spec.recheck is not None else spec.every


def _done(spec: Poll, one: Due, said: Confirmation, row: Result, now: datetime) -> _Verdict:
    if one.phase == "recheck":
        assert one.keep_until is not None
        following = now + _every(spec, one)
        final = following >= one.keep_until
        return _Verdict(replace(row, next_poll_at=None if final else following), "confirmed")
    move = Move(ItemEvent.CONFIRM, id=one.item_id)
    if spec.recheck is None:
        return _Verdict(replace(row, next_poll_at=None), "confirmed", move=move)
    row = replace(row, phase="recheck", next_poll_at=now + spec.recheck.every, keep_until=now + spec.recheck.keep)
    return _Verdict(row, "confirmed", move=move)


def _failed(spec: Poll, one: Due, said: Confirmation, row: Result, now: datetime) -> _Verdict:
    at = f" at {said.error_step}" if said.error_step else ""
    why = f": {said.error}" if said.error else ""
    once = "It had been confirmed, and now t" if one.phase == "recheck" else "T"
    problem = f"{once}he other side says {said.status}{at}{why}."
    fault = f"failed_{said.error_step}".lower() if said.error_step else "failed_there"
    move = Move(ItemEvent.FAIL, id=one.item_id, fault=fault, problem=problem)
    return _Verdict(replace(row, next_poll_at=None), "failed", move=move)


def _running(spec: Poll, one: Due, said: Confirmation, row: Result, now: datetime) -> _Verdict:
    if one.phase != "recheck":
        return _Verdict(row, "running")
    # It had said that it was done: open again, with a deadline of its own.
    move = Move(ItemEvent.REOPEN, id=one.item_id, next_action_at=now + spec.deadline)
    return _Verdict(replace(row, phase="confirm"), "reopened", move=move)


def _unknown(spec: Poll, one: Due, said: Confirmation, row: Result, now: datetime) -> _Verdict:
    """A word the flow does not name says nothing for or against: shown, and asked again."""
    return _Verdict(replace(row, next_poll_at=now + _every(spec, one)), "running")


_JUDGE = {
    StepState.DONE: _done,
    StepState.FAILED: _failed,
    StepState.RUNNING: _running,
    StepState.UNKNOWN: _unknown,
}


def _digest(said: Confirmation) -> str:
    """Of all that is shown of an answer."""
    text = "\x1e".join(
        [said.status, said.error or "", said.error_step or "", str(said.ended_at or "")]
        + [f"{step.name}\x1f{step.status}\x1f{step.error or ''}" for step in said.steps]
    )
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def _steps(item_id: int, said: Confirmation) -> Iterator[StepRow]:
    """The delivery as a whole first, then its stages in the other side's order. Every look that found something new is a layer of history."""
    yield StepRow(item_id, "", said.status, said.started_at, said.ended_at, said.error)
    for step in said.steps:
        error = step.error or (said.error if step.name == said.error_step else None)
        yield StepRow(item_id, step.name, step.status, step.started_at, step.ended_at, error)
