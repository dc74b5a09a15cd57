"""Map, validate and judge: each record becomes a row to load, or a deviation that says why not. One record's fault is its own. No IO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from counterfoil.engine.job import SyncJob
from counterfoil.flows.judge import JudgeFault, judge
from counterfoil.flows.rows import Row, RowFault
from counterfoil.model.errors import ConnectorError, Gone, Transient
from counterfoil.model.item import ItemEvent
from counterfoil.model.ports import BrokenEntry
from counterfoil.model.verdict import Outcome


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record as it came, or why it did not. `key` None: a full record of a list, whose key stands in it."""

    key: str | None
    raw: bytes | None
    error: ConnectorError | None = None


@dataclass(frozen=True, slots=True)
class Deviation:
    """A record that can't simply be loaded, and the move its item makes. `row` is kept where a person may let it pass."""

    key: str
    event: ItemEvent
    fault: str
    problem: str
    raw: bytes | None = None
    row: Row | None = None

    @property
    def sha256(self) -> str | None:
        return None if self.raw is None else hashlib.sha256(self.raw).hexdigest()


@dataclass(slots=True)
class Checked:
    """A chunk after mapping and judging. Keys are unique over rows and deviations; `raws` is parallel to `rows`."""

    rows: list[Row] = field(default_factory=list)
    raws: list[bytes] = field(default_factory=list)
    deviations: list[Deviation] = field(default_factory=list)
    listed: int = 0
    duplicates: int = 0
    latest_changed: datetime | None = None

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.rows] + [deviation.key for deviation in self.deviations]


def check(
    job: SyncJob,
    fetched: Sequence[Fetched] = (),
    broken: Sequence[BrokenEntry] = (),
    *,
    entries: Sequence[bytes] = (),
) -> Checked:
    """Sort a chunk into rows and deviations: `entries` of a list of full records, or records `fetched` one by one.

    Never raises for what stands in a record.
    """
    out = Checked(listed=len(entries) + len(fetched) + len(broken))
    raws = [*entries, *(one.raw for one in fetched if one.raw is not None)]
    asked = [one.key for one in fetched if one.raw is not None]
    results = job.mapper.map_page(raws)
    best = _choose(out, results, raws, asked)
    out.latest_changed = max((row.changed_at for row in best.values() if row.changed_at is not None), default=None)
    place = {id(row): at for at, row in enumerate(results)} if len(best) < len(raws) else None
    came = raws if place is None else [raws[place[id(row)]] for row in best.values()]
    if job.decide is None:
        out.rows, out.raws = list(best.values()), came
    else:
        for row, raw in zip(best.values(), came, strict=True):
            _judge(job, job.decide, out, row, raw)
    out.deviations.extend(_unfetched(one.key or "", one.error) for one in fetched if one.error is not None)
    out.deviations.extend(_broken(entry) for entry in broken)
    if out.deviations:
        drop_repeated(out)
    return out


def _choose(
    out: Checked, results: Sequence[Row | RowFault], raws: Sequence[bytes], asked: Sequence[str | None]
) -> dict[str, Row]:
    """One row for each key: the one changed last, else the first. Faults become deviations. `asked`: the keys of those
    fetched singly, which come last."""
    best: dict[str, Row] = {}
    first_asked = len(results) - len(asked)
    for at, result in enumerate(results):
        key = asked[at - first_asked] if at >= first_asked else None
        if type(result) is not Row:
            assert isinstance(result, RowFault)
            known_as = key or result.key or no_key(raws[at])
            out.deviations.append(Deviation(known_as, ItemEvent.REJECT, result.fault, result.problem, raws[at]))
        elif key is not None and key != result.key:
            problem = "The reply holds another record than the one asked for."
            out.deviations.append(Deviation(key, ItemEvent.FAIL_TEMPORARILY, "other_record", problem))
        elif (known := best.setdefault(result.key, result)) is not result:
            out.duplicates += 1
            if _newer(result, known):
                best[result.key] = result
    return best


def _newer(row: Row, known: Row) -> bool:
    return row.changed_at is not None and known.changed_at is not None and row.changed_at > known.changed_at


def _judge(job: SyncJob, decide: Callable[..., Any], out: Checked, row: Row, raw: bytes) -> None:
    """What the named function says of a mapped row."""
    verdict = judge(decide, job.mapper.fields(row))
    if isinstance(verdict, JudgeFault):
        out.deviations.append(Deviation(row.key, ItemEvent.FAIL, verdict.fault, verdict.problem, raw, row))
    elif verdict.outcome is Outcome.VALID:
        out.rows.append(row)
        out.raws.append(raw)
    else:
        event = ItemEvent.REVIEW if verdict.outcome is Outcome.WARNING else ItemEvent.REJECT
        reason = verdict.reason or f"The decision says {verdict.outcome.value}."
        out.deviations.append(Deviation(row.key, event, verdict.rule, reason, raw, row))


def _broken(entry: BrokenEntry) -> Deviation:
    key = f"broken:{hashlib.sha256(entry.raw).hexdigest()[:24]}"
    return Deviation(key, ItemEvent.REJECT, "broken_entry", f"{entry.where}: {entry.problem}")


def drop_repeated(out: Checked) -> None:
    """One fate for each key of a chunk: a row that loads wins over a deviation of the same key, the first deviation over the next."""
    seen = {row.key for row in out.rows}
    kept = []
    for deviation in out.deviations:
        if deviation.key in seen:
            out.duplicates += 1
            continue
        seen.add(deviation.key)
        kept.append(deviation)
    out.deviations = kept


def _unfetched(key: str, error: ConnectorError) -> Deviation:
    """A record that did not come: tried again where that may help, else a person must look."""
    later = isinstance(error, Transient | Gone)
    return Deviation(key, ItemEvent.FAIL_TEMPORARILY if later else ItemEvent.FAIL, error.fault, error.problem)


def no_key(raw: bytes) -> str:
    """A record without a key is still accounted for: under its own content."""
    return f"no-key:{hashlib.sha256(raw).hexdigest()[:24]}"


def payload_of(raw: bytes | None) -> str | None:
    """The record as kept in an item, where it can't be fetched again: its own text, so that a retry reads what the source sent."""
    return None if raw is None else raw.decode("utf-8", "replace").replace("\0", "\ufffd")
