"""What a run tells those who watch it, and what a dry run found. Values only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from counterfoil.ledger.runs import RunFault
from counterfoil.model.run import RunCounts


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a run under way. `open_keys`: listed and not fetched yet. `note`: why it is waiting, or nothing."""

    run_id: int
    flow: str
    state: str
    counts: RunCounts
    list_ended: bool = False
    open_keys: int = 0
    per_second: float = 0.0
    note: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do now. `changes`: what it would first do to the table."""

    counts: RunCounts
    faults: tuple[RunFault, ...]
    changes: tuple[str, ...] = ()
