"""What both other sides share: their records, faults, own record and clock, and the acts a test may do to them.

The acts (change, delete, set faults) are what /_sim/change and its neighbours call. No HTTP here: see wire.py.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from counterfoil.simulators.faults import Faults, parse_faults
from counterfoil.simulators.options import Common
from counterfoil.simulators.record import Positions, Record
from counterfoil.simulators.store import Row, Shape, Store, encode, first_beside

WRONG = {"wrong": "type"}
OUT_OF_RANGE = 150


@dataclass
class Side:
    """One running other side. `url` is set once it listens."""

    options: Common
    store: Store
    faults: Faults
    record: Record
    clock: Callable[[], float]
    url: str = ""
    touched: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, options: Common, rows: Iterable[Row], shape: Shape, known: Iterable[str]) -> "Side":
        """A side with these rows and the options' faults. ValueError on an unknown fault or a row without its key."""
        faults = Faults(known, options.seed, options.max_in_a_row, options.burst_length)
        return cls.with_faults(options, rows, shape, faults)

    @classmethod
    def without_rows(
        cls, options: Common, known: Iterable[str], endpoints: Iterable[str], lasting: Iterable[str]
    ) -> "Side":
        """A side that keeps no records of this kind, with endpoints and lasting faults of its own. ValueError on an unknown fault."""
        faults = Faults(known, options.seed, options.max_in_a_row, options.burst_length, endpoints, lasting)
        return cls.with_faults(options, (), Shape("key", "changed"), faults)

    @classmethod
    def with_faults(cls, options: Common, rows: Iterable[Row], shape: Shape, faults: Faults) -> "Side":
        """A side with these rows, on which the options' faults are set."""
        faults.set(parse_faults(options.faults))
        clock = _clock(options.now)
        store = Store(shape)
        store.load(rows, clock() if options.now is None else options.now, options.changed_over)
        side = cls(options, store, faults, Record.of(len(store)), clock)
        store.spoil, store.before_change = side._spoil, side._before_change
        if faults.rates:
            store.respoil()
        return side

    def change(self, count: int, at: float | None = None) -> list[str]:
        """Change `count` records at `at` (epoch seconds, now when None); returns their keys."""
        chosen = self.store.choose(count, f"change:{self.options.seed}:{self.store.generation}")
        for position in chosen:
            self.store.touch(position, self.clock() if at is None else at)
        return [self.store.keys[position] for position in chosen]

    def delete(self, count: int) -> list[str]:
        """Take `count` records away for good; returns their keys."""
        chosen = self.store.choose(count, f"delete:{self.options.seed}:{self.store.generation}")
        self.store.vanish(chosen)
        return [self.store.keys[position] for position in chosen]

    def set_faults(self, changes: dict[str, object]) -> None:
        """Change faults while it runs; rows that turn bad or sound change now. ValueError on an unknown name or rate."""
        self.faults.set(changes)
        if not SPOILERS.keys().isdisjoint(changes):
            self.store.respoil(self.clock())

    def find(self, key: str) -> int | None:
        """Position of a record for a detail; None when unknown, gone, or when the fault `vanish` lies on it."""
        return None if self.faults.marks("vanish", key) else self.store.find(key)

    def with_duplicates(self, positions: Positions) -> Positions:
        """The positions, each one twice on which the fault `duplicates` lies."""
        if not self.faults.on("duplicates"):
            return positions
        keys = self.store.keys
        return [p for p in positions for _ in range(2 if self.faults.marks("duplicates", keys[p]) else 1)]

    def change_some(self, positions: Positions) -> None:
        """The fault `change_during_run`: after a list went out, change its marked records, each only once."""
        if not self.faults.on("change_during_run"):
            return
        for position in sorted(set(positions) - self.touched):
            if self.faults.marks("change_during_run", self.store.keys[position]):
                self.touched.add(position)
                self.store.touch(position, self.clock())

    def padding(self, key: str) -> bytes:
        """Bytes of a field that makes a `huge_record`; empty for all others."""
        return b',"padding":"' + b"x" * self.options.huge_bytes + b'"' if self.faults.marks("huge_record", key) else b""

    def padded(self, position: int) -> bytes:
        """The record as served now, with its padding when the fault `huge_record` lies on it."""
        content, more = self.store.content(position), self.padding(self.store.keys[position])
        return content[:-1] + more + b"}" if more else content

    def join(self, positions: Positions) -> bytes:
        """The records with commas between, padded where huge."""
        if self.faults.on("huge_record"):
            return b",".join([self.padded(position) for position in positions])
        return self.store.join(positions)

    def _spoil(self, key: str, raw: bytes) -> bytes | None:
        spoiler = next((spoil for name, spoil in SPOILERS.items() if self.faults.marks(name, key)), None)
        return encode(spoiler(self.store.shape, json.loads(raw))) if spoiler else None

    def _before_change(self, position: int) -> None:
        self.record.served.content_changes(position, self.store.versions[position], self.store.content(position))

    def served_lines(self) -> Iterator[bytes]:
        """JSONL: key, times listed and served, version and sha256 of the content last served, for every key seen."""
        served, listed, twins = self.record.served, self.record.listed, self._twins()
        for key, last in self.store.index.items():
            rows = twins.get(key, [last])
            counts = [sum(tally.times[row] for row in rows) for tally in (listed, served)]
            if any(counts):
                yield encode({"key": key, "listed": counts[0], "served": counts[1], **self._last_served(last)}) + b"\n"

    def _twins(self) -> dict[str, list[int]]:
        if len(self.store.index) == len(self.store):
            return {}
        rows: dict[str, list[int]] = {}
        for position, key in enumerate(self.store.keys):
            rows.setdefault(key, []).append(position)
        return rows

    def _last_served(self, position: int) -> dict[str, object]:
        served, store = self.record.served, self.store
        version = served.version[position]
        now = version == store.versions[position]
        sha = store.sha(position) if now else served.stale_sha.get(position)
        return {"version": version or None, "sha256": sha if version else None}

    def record_lines(self) -> Iterator[bytes]:
        """JSONL of the truth: every living key with its version, changed-at and content as a detail would serve it."""
        store = self.store
        for key, position in store.index.items():
            if self.find(key) is not None:
                head = {"key": key, "version": store.versions[position], "changed_at": store.changed[position]}
                yield encode(head)[:-1] + b',"content":' + store.content(position) + b"}\n"

    def written_lines(self) -> Iterator[bytes]:
        """JSONL of the write-backs: key, times written, distinct contents, the last value."""
        for key, hashes in self.record.writes.items():
            value = self.record.written[key]
            yield encode({"key": key, "times": len(hashes), "contents": len(set(hashes)), "value": value}) + b"\n"

    def truth(self) -> dict[str, Row]:
        """The living records by key, decoded; for tests."""
        return {line["key"]: line["content"] for line in map(json.loads, self.record_lines())}


def _without_required(shape: Shape, row: Row) -> Row:
    gone = shape.required_field or first_beside(row, shape.key_field)
    return {name: value for name, value in row.items() if name != gone}


def _wrong_type(shape: Shape, row: Row) -> Row:
    return {**row, shape.typed_field or list(row)[-1]: WRONG}


def _out_of_range(shape: Shape, row: Row) -> Row:
    return {**row, shape.score_field: OUT_OF_RANGE} if shape.score_field in row else row


SPOILERS: dict[str, Callable[[Shape, Row], Row]] = {
    "missing_required": _without_required,
    "wrong_type": _wrong_type,
    "score_out_of_range": _out_of_range,
}


def _clock(now: float | None) -> Callable[[], float]:
    if now is None:
        return time.time
    ahead = now - time.time()
    return lambda: time.time() + ahead
