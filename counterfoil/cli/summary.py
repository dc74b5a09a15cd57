"""What is said of a run when it has ended: the sum, in sight; then the watermark, what comes next, and the commands to go on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterfoil.cli.output import many, table, took, when
from counterfoil.ledger.runs import RunFault, counts_of
from counterfoil.model.run import RunCounts, RunState

SENTENCES: Mapping[str, str] = {
    RunState.QUEUED: "queued: due, and no worker has it now.",
    RunState.RUNNING: "running: a worker has it, under a lease.",
    RunState.COMPLETED: "completed: every record found is loaded, or rejected by a rule.",
    RunState.PARTIAL: "partly done: the sum is right, and some records are items that failed or wait for a person.",
    RunState.EMPTY: "empty: nothing was found where there used to be records. The watermark stays; look at the source.",
    RunState.FAILED: "failed: the list could not be read to its end. The watermark stays; the next run asks again.",
    RunState.CANCELLED: "cancelled by a person. What was loaded stays; the watermark stays.",
}
EXIT_CODES: Mapping[str, int] = {
    RunState.QUEUED: 0,
    RunState.RUNNING: 0,
    RunState.COMPLETED: 0,
    RunState.PARTIAL: 5,
    RunState.EMPTY: 7,
    RunState.FAILED: 1,
    RunState.CANCELLED: 1,
}


def sum_line(counts: RunCounts, *, under_way: bool = False) -> str:
    """found = inserted + updated + unchanged + rejected + review + failed, with its numbers."""
    names = ("inserted", "updated", "unchanged", "rejected", "review", "failed")
    parts = " + ".join(f"{name} {getattr(counts, name):,}" for name in names)
    items = " (each an item)" if counts.failed + counts.review else ""
    equals = "=" if counts.found == counts.accounted else f"≠ {counts.accounted:,} ="
    if under_way:
        return f"found {counts.found:,} so far, {counts.accounted:,} of them done = {parts}{items}"
    return f"found {counts.found:,} {equals} {parts}{items}"


def of_run(row: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]) -> str:
    """A run, ended or not, as text."""
    counts = counts_of(row)
    lines = [f"Run {row['id']} of {row['flow']} is {SENTENCES[row['state']]}"]
    if row["problem"] and row["state"] != RunState.COMPLETED:
        lines.append(f"  {row['problem']}")
    if row["state"] == RunState.CANCELLED and row["reason"]:
        lines.append(f"  {row['reason']}")
    lines.append(f"  {sum_line(counts, under_way=row['ended_at'] is None and counts.found != counts.accounted)}")
    lines += [f"  {line}" for line in [*_beside(counts), *_window(row), *_times(row, counts)]]
    if faults:
        lines += ["", _faults(faults)]
    return "\n".join(lines)


def of_dry_run(flow: str, counts: RunCounts, faults: Sequence[RunFault], changes: Sequence[str]) -> str:
    lines = [f"A run of {flow} now would give:", f"  {sum_line(counts)}", *[f"  {line}" for line in _beside(counts)]]
    lines += [f"  first: {change}" for change in changes]
    if faults:
        rows = [
            {"outcome": f.outcome, "fault": f.fault, "problem": f.problem, "records": f.records, "keys": f.keys}
            for f in faults
        ]
        lines += ["", _faults(rows)]
    return "\n".join(lines)


def _beside(counts: RunCounts) -> list[str]:
    said = []
    if counts.duplicates:
        said.append(f"listed {counts.listed:,} = found {counts.found:,} + duplicates {counts.duplicates:,}")
    if counts.deleted:
        said.append(f"marked as deleted {counts.deleted:,}")
    if counts.written_back:
        said.append(f"written back {counts.written_back:,}")
    return said


def _window(row: Mapping[str, Any]) -> list[str]:
    since = when(row["since"]) if row["since"] else "the beginning"
    until = when(row["until"]) if row["until"] else "now"
    said = [f"window: {since} to {until}"] if row["started_at"] else []
    before, after = row["watermark_before"], row["watermark_after"]
    if row["ended_at"] and after is not None and after != before:
        said.append(f"watermark: {when(before) if before else 'none'} -> {when(after)}")
    elif row["ended_at"]:
        said.append(f"watermark: stays at {when(before)}" if before else "watermark: none")
    return said


def _times(row: Mapping[str, Any], counts: RunCounts) -> list[str]:
    if row["ended_at"] is None or row["started_at"] is None:
        return [f"started {when(row['started_at'])}" if row["started_at"] else f"made {when(row['created_at'])}"]
    seconds = (row["ended_at"] - row["started_at"]).total_seconds()
    rate = f", {counts.accounted / seconds:,.0f} records a second" if seconds > 0 and counts.accounted else ""
    resumed = f", resumed {many(row['attempts'] - 1, 'time')}" if row["attempts"] > 1 else ""
    return [f"took {took(seconds)}{rate}{resumed}"]


def _faults(faults: Sequence[Mapping[str, Any]]) -> str:
    rows = [[f["outcome"], f["fault"], f["records"], ", ".join(f["keys"][:3]), f["problem"]] for f in faults]
    return table(("outcome", "fault", "records", "such as", "problem"), rows)


def next_steps(row: Mapping[str, Any], sums: Mapping[str, Any], flow: Mapping[str, Any]) -> list[str]:
    """What is due and when, and the commands to go on."""
    name, said = row["flow"], []
    if sums["due"]:
        said.append(
            f"{many(sums['due'], 'item')} to be tried again without you, the next at {when(sums['next_action_at'])}: `counterfoil up` does it."
        )
    if sums["owned"]:
        said.append(f"{many(sums['owned'], 'item')} for a person: `counterfoil case list --flow {name}`.")
    if flow["next_fire_at"]:
        said.append(f"The next run is due {when(flow['next_fire_at'])}.")
    if sums["due"] or sums["owned"]:
        said.append(f"Look: `counterfoil items list --flow {name}`; one record: `counterfoil items explain KEY`.")
    return said
