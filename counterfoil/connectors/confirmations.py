"""Reading the answer of a bulk poll: entries by receipt, whatever is odd about them kept and shown, one bad entry never the others' trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from counterfoil.connectors.redact import sentence
from counterfoil.connectors.requests import Built, CompiledCall
from counterfoil.flows.delivery import Poll
from counterfoil.flows.replies import Judged, classifier
from counterfoil.model.delivery import Answer, Confirmation, Outcome, PollAnswer, Step, StepState

MOST_WORD = 80  # characters of another system's own word that are kept
_MILLISECONDS = 10**11  # a number above it can't be seconds

Getter = Callable[[Any], Any]


class ConfirmationReader:
    """One flow's polls."""

    def __init__(self, spec: Poll, call: CompiledCall) -> None:
        self.spec, self._call = spec, call
        self._classify = classifier((), receipt=None)
        self._items, self._id, self._status = getter(spec.items), getter(spec.id), getter(spec.status)
        self._steps, self._step_name, self._step_status = (
            getter(spec.steps),
            getter(spec.step_name),
            getter(spec.step_status),
        )
        self._error, self._error_step = getter(spec.error), getter(spec.error_step)
        self._started, self._ended = getter(spec.started), getter(spec.ended)
        self._not_found = getter(spec.not_found)

    def build(self, receipts: Sequence[str]) -> Built:
        """One call about these receipts."""
        ids: list[Any] = (
            [int(one) if one.isdecimal() else one for one in receipts]
            if self.spec.id_type == "integer"
            else list(receipts)
        )
        return self._call.fill({"receipts": ids})

    def judge(self, status: int, content_type: str, body: bytes) -> Judged:
        """DONE: the body can be read, or the status says that it knows none of them."""
        if 200 <= status < 300 or status in self.spec.none_found:
            return Judged(Outcome.DONE)
        judged = self._classify(status, content_type, body)
        # A question that was lost is asked again: nothing is in doubt.
        outcome = Outcome.TEMPORARY if judged.outcome is Outcome.UNKNOWN else judged.outcome
        return Judged(outcome, None, judged.fault, judged.code, judged.said)

    def read(self, answer: Answer, body: bytes, receipts: Sequence[str]) -> PollAnswer:
        """What the answer says of each receipt."""
        assert answer.exchange is not None
        outcome = Outcome.TEMPORARY if answer.outcome is Outcome.UNKNOWN else answer.outcome
        if outcome is not Outcome.DONE:
            return PollAnswer(
                outcome, answer.exchange, fault=answer.fault, problem=answer.problem, retry_after=answer.retry_after
            )
        if answer.exchange.status in self.spec.none_found:
            return PollAnswer(Outcome.DONE, answer.exchange, not_found=tuple(receipts))
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return _unreadable(answer, "The answer is no JSON.")
        entries = self._items(document)
        if not isinstance(entries, list):
            return _unreadable(answer, f"There is no list at `{self.spec.items}` in the answer.")
        return self._read(answer, document, entries)

    def _read(self, answer: Answer, document: Any, entries: list[Any]) -> PollAnswer:
        found, broken = [], []
        for number, entry in enumerate(entries, 1):
            try:
                found.append(self._confirmation(entry))
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                broken.append(f"Entry {number} can't be read: {error}.")
        unknown = self._not_found(document)
        not_found = tuple(str(one) for one in unknown if one is not None) if isinstance(unknown, list) else ()
        assert answer.exchange is not None
        return PollAnswer(Outcome.DONE, answer.exchange, tuple(found), not_found, tuple(broken))

    def _confirmation(self, entry: Any) -> Confirmation:
        receipt, status = self._id(entry), self._status(entry)
        if receipt is None or isinstance(receipt, dict | list | bool):
            raise ValueError("it has no id")
        word = _word(status)
        error = self._error(entry)
        return Confirmation(
            str(receipt),
            self.spec.values.get(word, StepState.UNKNOWN),
            word,
            tuple(self._step(step) for step in self._steps(entry) or ()) if self.spec.steps else (),
            _moment(self._started(entry)),
            _moment(self._ended(entry)),
            None if error is None else sentence(str(error)),
            None if (where := self._error_step(entry)) is None else _word(where),
        )

    def _step(self, step: Any) -> Step:
        return Step(_word(self._step_name(step)), _word(self._step_status(step)))


def _unreadable(answer: Answer, problem: str) -> PollAnswer:
    assert answer.exchange is not None
    return PollAnswer(Outcome.TEMPORARY, answer.exchange, fault="poll_unreadable", problem=problem)


def _word(value: Any) -> str:
    """Another system's own word, as it is, bounded."""
    if isinstance(value, str):
        return value[:MOST_WORD] if value.isprintable() else sentence(value)[:MOST_WORD]
    return "(none)" if value is None else str(value)[:MOST_WORD]


def _moment(value: Any) -> datetime | None:
    """Epoch milliseconds or seconds, or ISO 8601; None for what is no time."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def getter(path: str | None) -> Getter:
    """A function that gives the value at a dotted path, or None; without a path always None, with "" the value itself."""
    if path is None:
        return lambda value: None
    names = path.split(".") if path else []
    if not names:
        return lambda value: value
    if len(names) == 1:
        name = names[0]
        return lambda value: value.get(name) if isinstance(value, dict) else None

    def get(value: Any) -> Any:
        for one in names:
            if not isinstance(value, dict):
                return None
            value = value.get(one)
        return value

    return get
