"""From what was measured to the table that is printed and the JSON that is kept. Medians; nothing is left out in silence."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Taken
from benchmarks.works import FLOORS, GOALS, Goal, Work


@dataclass(slots=True)
class Results:
    """`taken[work][contestant]`: all runs ("C again" is a work of its own); `floors[work]` in seconds, `parts` what they consist of."""

    size: float
    counts: dict[str, int] = field(default_factory=dict)
    taken: dict[str, dict[str, list[Taken]]] = field(default_factory=dict)
    floors: dict[str, list[float]] = field(default_factory=dict)
    parts: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # contestant → why it did not take part
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, work: str, who: str, taken: Taken) -> None:
        self.taken.setdefault(work, {}).setdefault(who, []).append(taken)

    def median(self, work: str, who: str, measure: str) -> float | None:
        """None where it did not take part or any run went wrong."""
        runs = self.taken.get(work, {}).get(who, [])
        if not runs or any(taken.problem for taken in runs):
            return None
        return statistics.median(getattr(taken, measure) for taken in runs)

    def at_least(self, work: str, who: str) -> float | None:
        """Wall of a contestant that the time limit stopped: it would have taken longer."""
        runs = self.taken.get(work, {}).get(who, [])
        return min(taken.wall for taken in runs) if runs and all(taken.stopped for taken in runs) else None

    def floor(self, work: str) -> float | None:
        return statistics.median(self.floors[work]) if self.floors.get(work) else None


def reached(results: Results, goal: Goal) -> tuple[float | None, bool | None]:
    """The ratio (or figure) and whether it meets the goal; None where something was not measured."""
    ours = results.median(goal.work, "ours", goal.measure)
    if not goal.against:
        other: float | None = 1.0
    elif goal.against == "floor":
        other = results.floor(goal.work)
    elif goal.against == "first":
        other = results.median(goal.work.removesuffix(" again"), "ours", goal.measure)
    else:
        other = results.median(goal.work, goal.against, goal.measure)
        if other is None and goal.measure == "wall":
            other = results.at_least(goal.work, goal.against)
    if ours is None or not other:
        return None, None
    return ours / other, ours / other <= goal.most


def table(results: Results, works: Sequence[Work]) -> str:
    """All of it as text: machine and versions, what everyone took, ours against the goals."""
    parts = [machine(results), *dict.fromkeys(results.notes), "", *_grid(list(_taken_rows(results, works))), ""]
    parts += _grid(list(_goal_rows(results)))
    parts += [f"{who} did not take part: {why}" for who, why in sorted(results.missing.items())]
    return "\n".join(parts)


def machine(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    load = os.getloadavg()[0]
    size = (
        "" if results.size == 1 else f"SIZE {results.size:g} OF THE FULL TABLE: no ratio here says anything about it. "
    )
    return (
        f"{size}{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}, "
        f"load average now {load:.1f}. {versions}. Medians; CPU without the database's."
    )


def _taken_rows(results: Results, works: Sequence[Work]) -> Iterator[tuple[str, ...]]:
    yield ("work", "who", "runs", "wall s", "CPU s", "peak MB", "x floor", "ours is")
    for name, title in _sections(works, results):
        floor = results.floor(name)
        yield ("", title, *[""] * 6)
        if floor is not None:
            yield (
                name,
                "floor",
                str(len(results.floors[name])),
                f"{floor:.2f}",
                "",
                "",
                "1.00",
                _floor_note(results, name),
            )
        for who, runs in results.taken.get(name, {}).items():
            yield (name, who, str(len(runs)), *_figures(results, name, who, floor))


def _sections(works: Sequence[Work], results: Results) -> Iterator[tuple[str, str]]:
    for work in works:
        yield work.name, f"{results.counts.get(work.name, 0):,} {work.title}"
        if work.again:
            yield f"{work.name} again", "the same once more, nothing has changed"


def _floor_note(results: Results, name: str) -> str:
    note = FLOORS[name]
    if not results.parts.get(name):
        return note
    parts = results.parts[name]
    middle = {part: statistics.median(one[part] for one in parts) for part in ("read", "parse", "copy")}
    return f"{note}: {middle['parse']:.2f} + {middle['copy']:.2f} (reading the bytes: {middle['read']:.2f})"


def _figures(results: Results, work: str, who: str, floor: float | None) -> tuple[str, ...]:
    problem = next((taken.problem for taken in results.taken[work][who] if taken.problem), "")
    wall, ours = results.median(work, who, "wall"), results.median(work, "ours", "wall")
    least = results.at_least(work, who)
    if wall is None:
        compared = f"< {ours / least:.3f} of it" if ours and least else ""
        return (problem[:120], "", "", f"> {least / floor:.1f}" if least and floor else "", compared)
    cpu, memory = results.median(work, who, "cpu"), results.median(work, who, "memory")
    against = "" if who == "ours" or not ours else f"{ours / wall:.3f} of it"
    return (f"{wall:.2f}", f"{cpu:.2f}", f"{memory:.0f}", f"{wall / floor:.2f}" if floor else "", against)


def _goal_rows(results: Results) -> Iterator[tuple[str, ...]]:
    yield ("work", "goal", "ours", "met")
    for goal in GOALS:
        if goal.work not in results.taken:
            continue
        ratio, met = reached(results, goal)
        shown = "not measured" if ratio is None else f"{ratio:.0f} MB" if goal.measure == "memory" else f"{ratio:.3f}"
        yield (goal.work, goal.text, shown, {True: "yes", False: "NO", None: "?"}[met])


def _grid(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest short cell; a long one in `wall s` (a problem) may run over."""
    widths = [max(len(row[at]) for row in rows if len(row[at]) <= 40) for at in range(len(rows[0]))]
    if len(rows[0]) > 4:
        widths[1] = 8
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def as_json(results: Results) -> dict[str, object]:
    """Everything, every run, for those who want to draw it."""
    return {
        "size": results.size,
        "cores": os.cpu_count(),
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "versions": results.versions,
        "counts": results.counts,
        "floors": {
            work: {"seconds": results.floors[work], "parts": results.parts.get(work, [])} for work in results.floors
        },
        "runs": {
            work: {
                who: [{"wall_s": t.wall, "cpu_s": t.cpu, "peak_mb": t.memory, "problem": t.problem} for t in runs]
                for who, runs in people.items()
            }
            for work, people in results.taken.items()
        },
        "goals": [
            {"work": goal.work, "goal": goal.text, "ours": ratio, "met": met}
            for goal in GOALS
            if goal.work in results.taken
            for ratio, met in [reached(results, goal)]
        ],
        "missing": results.missing,
        "notes": results.notes,
    }
