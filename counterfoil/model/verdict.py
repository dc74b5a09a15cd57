"""What a rule says about one record: load it, ask a person, or refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    VALID = "VALID"
    WARNING = "WARNING"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is the sentence an operator reads; `rule` names what decided, for one case per fault."""

    outcome: Outcome
    reason: str = ""
    rule: str = "decision"


VALID = Verdict(Outcome.VALID)
