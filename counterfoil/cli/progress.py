"""A run under way: a moving bar on a terminal, elsewhere a line every five seconds. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from counterfoil.cli.output import is_lively, say

if TYPE_CHECKING:
    from rich.progress import TaskID

    from counterfoil.engine.progress import Progress

EVERY = 5.0  # seconds
Watcher = Callable[["Progress"], None]


@contextmanager
def watching(*, bar: bool) -> Iterator[Watcher]:
    """Something to hand to `App.work`."""
    if bar and is_lively(sys.stderr):
        with _bar() as watcher:
            yield watcher
    else:
        yield _lines()


def line_of(progress: Progress) -> str:
    """One look at a run as one line."""
    counts = progress.counts
    of = f"{counts.found:,}" if progress.list_ended else f"{counts.found:,} so far"
    kinds = ("inserted", "updated", "unchanged", "rejected", "review", "failed")
    parts = ", ".join(f"{name} {getattr(counts, name):,}" for name in kinds if getattr(counts, name))
    said = f"{progress.flow}: {counts.accounted:,} of {of}, {progress.per_second:,.0f}/s"
    return f"{said}{'; ' + parts if parts else ''}{'; ' + progress.note if progress.note else ''}"


def _lines(clock: Callable[[], float] = time.monotonic) -> Watcher:
    last = clock()

    def watch(progress: Progress) -> None:
        nonlocal last
        if clock() - last >= EVERY:
            last = clock()
            say(line_of(progress))

    return watch


@contextmanager
def _bar() -> Iterator[Watcher]:
    # rich takes 0.1 s to load: only where there is a terminal to move something on.
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
    tasks: dict[int, TaskID] = {}
    with Bars(*columns, TextColumn("{task.fields[told]}"), console=Console(stderr=True), transient=True) as bars:

        def watch(progress: Progress) -> None:
            if progress.run_id not in tasks:
                tasks[progress.run_id] = bars.add_task(progress.flow, total=None, told="")
            task, told = tasks[progress.run_id], line_of(progress).partition(": ")[2]
            bars.update(task, completed=progress.counts.accounted, told=told)
            if progress.list_ended:
                bars.update(task, total=progress.counts.found)

        yield watch
