"""The works of the table: what is asked of everyone, and the goals ours is held to. Pure: nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """`base` as the server has it, `count` records at full size, `who` takes part. `before`: another source to load first, untimed.
    `again`: do it a second time on the same table, timed apart."""

    name: str
    title: str
    kind: str
    flow: str
    base: str
    count: int
    who: tuple[str, ...]
    before: str = ""
    again: bool = False


ALL = ("ours", "seed", "dlt", "singer")
WORKS: Mapping[str, Work] = {
    work.name: work
    for work in (
        Work("A", "changed ids, a detail call each of 50-150 ms, 15 at a time", "changed", "details", "/a", 1000, ALL),
        Work("A60", "the same, ours may go up to 60 at a time", "changed", "details-adaptive", "/a", 1000, ("ours",)),
        Work(
            "B",
            "changed ids, a detail call each without latency, 15 at a time",
            "changed",
            "details",
            "/b",
            20_000,
            ALL,
        ),
        Work("C", "records in pages of 1,000, half exist", "pages", "pages", "/c/full", 200_000, ALL, "/c/half", True),
    )
}
FLOORS = {
    "A": "sum of latencies / 15",
    "A60": "sum of latencies / 15",
    "B": "parse + COPY",
    "C": "parse + COPY, one after the other",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours divided by something must be at most `most`. `measure` of ours in `work`; `against` the same measure of that contestant,
    "floor", "first" (the first load), or "" for an absolute figure."""

    work: str
    measure: str
    against: str
    most: float
    text: str


GOALS: Sequence[Goal] = (
    Goal("A", "wall", "floor", 1.08, "≤ 1.08x the floor"),
    Goal("A60", "wall", "floor", 1.0, "below the floor of 15"),
    Goal("B", "wall", "dlt", 1 / 10, "wall ≤ 1/10 of dlt"),
    Goal("B", "cpu", "dlt", 1 / 15, "CPU ≤ 1/15 of dlt"),
    Goal("C", "wall", "floor", 3.0, "≤ 3x the floor"),
    Goal("C", "wall", "dlt", 1 / 8, "wall ≤ 1/8 of dlt"),
    Goal("C again", "wall", "first", 0.6, "unchanged re-run ≤ 0.6 of the first"),
    *(Goal(work, "memory", "", 120.0, "J: ≤ 120 MB") for work in ("A", "B", "C")),
)
