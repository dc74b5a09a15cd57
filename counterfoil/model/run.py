"""A run: one execution of a sync flow, its states, its counts and the sum that must hold.

`found = inserted + updated + unchanged + rejected + review + failed`: the database checks it before a run may end as
`completed` or `partial`, and `RunCounts.balanced` is the same sentence in Python.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum


class RunState(StrEnum):
    QUEUED = "queued"  # created, no worker has it yet
    RUNNING = "running"  # one worker has it, under a lease
    COMPLETED = "completed"  # every record found is loaded or rejected by a rule
    PARTIAL = "partial"  # the sum is right, but some records are items that failed or wait for a person
    EMPTY = "empty"  # nothing found where there used to be many; the watermark stays
    FAILED = "failed"  # the list could not be read to its end; the watermark stays
    CANCELLED = "cancelled"  # stopped by a person; the watermark stays


OPEN_RUN = frozenset({RunState.QUEUED, RunState.RUNNING})
ENDED_RUN = frozenset(RunState) - OPEN_RUN
# The outcomes after which the watermark may move.
ACCOUNTED_RUN = frozenset({RunState.COMPLETED, RunState.PARTIAL})


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Records of one run. `listed` counts entries of the list, `found` the distinct records among them."""

    listed: int = 0
    duplicates: int = 0
    found: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    review: int = 0
    failed: int = 0
    deleted: int = 0
    written_back: int = 0

    @property
    def accounted(self) -> int:
        """Records whose fate in this run is known."""
        return self.inserted + self.updated + self.unchanged + self.rejected + self.review + self.failed

    @property
    def balanced(self) -> bool:
        """The sum: every record found is accounted for, every entry listed is found or a duplicate."""
        return self.found == self.accounted and self.listed == self.found + self.duplicates

    def __add__(self, other: RunCounts) -> RunCounts:
        return RunCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Window:
    """What a run asks the source for: changed at or after `since`, before `until` (None: no bound)."""

    since: datetime | None = None
    until: datetime | None = None


def next_watermark(
    old: datetime | None, *, started_at: datetime, latest_changed: datetime | None, until: datetime | None = None
) -> datetime | None:
    """Where the watermark stands after an accounted run.

    The newest change seen, never past the start of the run (a record stamped in the future must not hide others), never past
    the end of the window asked for, and never backwards (our clock may jump). Nothing seen: it stays.
    """
    if latest_changed is None:
        return old
    seen = min(moment for moment in (latest_changed, started_at, until) if moment is not None)
    return seen if old is None else max(old, seen)


def window_since(
    watermark: datetime | None, *, now: datetime, overlap: timedelta, lookback: timedelta | None
) -> datetime | None:
    """The start of the next window: the watermark less the overlap, or the look-back on a first run (None: everything)."""
    if watermark is not None:
        return watermark - overlap
    return None if lookback is None else now - lookback
