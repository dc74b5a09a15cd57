"""The records a simulator serves, held as encoded JSON so that 200,000 of them stay light and pages are joins of bytes.

A record at a position is its row's bytes plus a stamp, the field that says when it changed. Rows come from a CSV or JSONL
file as they stand, duplicates included, or from the simulator's own sample. Knows nothing of HTTP or of faults' names.
"""

import csv
import json
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from counterfoil.simulators.record import Positions

Row = dict[str, Any]
MICRO = 1_000_000


def read_rows(path: str) -> Iterator[Row]:
    """Rows of a CSV (every value a string) or JSONL file, as they stand. ValueError names the line that is no record."""
    file = Path(path)
    with file.open(encoding="utf-8-sig", newline="") as text:
        if file.suffix.lower() == ".csv":
            yield from csv.DictReader(text, restkey="_more")
            return
        for number, line in enumerate(text, 1):
            if line.strip():
                yield _json_row(line, f"{file.name}:{number}")


def _json_row(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place} is no JSON ({error}). Mend the line or leave it out.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place} is no JSON object. Each line has to be one record.")
    return row


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def iso_utc(micros: int) -> str:
    """2026-11-23T08:15:00.123456Z of microseconds since the epoch."""
    return datetime.fromtimestamp(micros / MICRO, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Shape:
    """How rows of one simulator look: the stamp field and its form, and the fields that changes and faults touch."""

    key_field: str
    stamp_field: str
    stamp: Callable[[int], str] = iso_utc
    derive: Callable[[Row, str], Row] = lambda row, key: row
    change_field: str = ""
    required_field: str = ""
    typed_field: str = ""
    score_field: str = ""


@dataclass
class Store:
    """Records by position. `raw[p][:-1] + stamps[p]` is the JSON of the record at position p."""

    shape: Shape
    keys: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    stamps: list[bytes] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    sound: dict[int, bytes] = field(default_factory=dict)
    generation: int = 0
    spoil: Callable[[str, bytes], bytes | None] = lambda key, raw: None
    before_change: Callable[[int], None] = lambda position: None
    _found: dict[tuple[int | None, int | None], Positions] = field(default_factory=dict)
    _found_in: int = -1

    def load(self, rows: Iterable[Row], now: float, spread: float) -> None:
        """Take the rows in; their changed-at lie spread over `spread` seconds before `now`, by their keys."""
        for row in rows:
            key = row.get(self.shape.key_field)
            if key is None or key == "":
                raise ValueError(f"Row {len(self.keys) + 1} has no {self.shape.key_field!r}. Name another with --key.")
            self._add(str(key), row, int((now - _part(str(key)) * spread) * MICRO))

    def _add(self, key: str, row: Row, changed: int) -> None:
        self.index[key] = len(self.keys)
        self.keys.append(key)
        full = self.shape.derive(row, key)
        full.pop(self.shape.stamp_field, None)
        self.raw.append(encode(full))
        self.changed.append(changed)
        self.stamps.append(self._stamp(changed))
        self.versions.append(1)

    def _stamp(self, changed: int) -> bytes:
        return f',"{self.shape.stamp_field}":"{self.shape.stamp(changed)}"}}'.encode()

    def __len__(self) -> int:
        return len(self.keys)

    def content(self, position: int) -> bytes:
        """The record's JSON as served now."""
        return self.raw[position][:-1] + self.stamps[position]

    def sha(self, position: int) -> str:
        """Hex SHA-256 of the record as served now."""
        return sha256(self.content(position)).hexdigest()

    def find(self, key: str) -> int | None:
        """Position of the last row with this key, None when there is none or it is gone."""
        position = self.index.get(key)
        return None if position is None or position in self.gone else position

    def between(self, since: int | None = None, until: int | None = None) -> Positions:
        """Positions changed at or after `since` and before `until` (microseconds), in the order of the data."""
        if self._found_in != self.generation:
            self._found, self._found_in = {}, self.generation
        if (since, until) not in self._found:
            self._found[since, until] = self._between(since, until)
        return self._found[since, until]

    def _between(self, since: int | None, until: int | None) -> Positions:
        if since is None and until is None and not self.gone:
            return range(len(self.keys))
        low, high = since or -(1 << 62), until or 1 << 62
        found = [position for position, changed in enumerate(self.changed) if low <= changed < high]
        return [position for position in found if position not in self.gone] if self.gone else found

    def join(self, positions: Positions) -> bytes:
        """The records at these positions as JSON objects with commas between."""
        if isinstance(positions, range):
            cut = slice(positions.start, positions.stop)
            return b",".join([raw[:-1] + stamp for raw, stamp in zip(self.raw[cut], self.stamps[cut], strict=True)])
        return b",".join([self.raw[position][:-1] + self.stamps[position] for position in positions])

    def respoil(self, at: float | None = None) -> None:
        """Apply the bad-row faults now in force, mend the rows that are bad no more. With `at` such a row counts as changed."""
        for position in range(len(self.keys)):
            sound = self.sound.get(position, self.raw[position])
            bad = self.spoil(self.keys[position], sound)
            if (sound if bad is None else bad) != self.raw[position]:
                self._put(position, sound, at)
        self.generation += 1

    def touch(self, position: int, at: float) -> None:
        """Change one record: a new version, a later changed-at, another value in the field that changes touch."""
        row = json.loads(self.sound.get(position, self.raw[position]))
        name = self.shape.change_field or _name_like(row, self.shape.key_field)
        self._rename(row, name, self.versions[position] + 1)
        self._put(position, encode(row), at)
        self.generation += 1

    def _put(self, position: int, sound: bytes, at: float | None) -> None:
        if at is not None:
            self.before_change(position)
            self.versions[position] += 1
            self.changed[position] = max(int(at * MICRO), self.changed[position] + 1)
            self.stamps[position] = self._stamp(self.changed[position])
        bad = self.spoil(self.keys[position], sound)
        self.raw[position] = sound if bad is None else bad
        self.sound.pop(position, None)
        if bad is not None:
            self.sound[position] = sound

    def _rename(self, row: Row, name: str, version: int) -> None:
        text = "" if row.get(name) is None else str(row[name])
        row[name] = f"{text.partition(' (change ')[0]} (change {version})"

    def choose(self, count: int, seed: object) -> list[int]:
        """Positions of `count` different living keys (fewer when there are not so many), the same for the same seed."""
        living = sorted(position for position in self.index.values() if position not in self.gone)
        return random.Random(str(seed)).sample(living, min(count, len(living)))

    def vanish(self, positions: Iterable[int]) -> None:
        """Take the records with these positions' keys away from lists and details."""
        names = {self.keys[position] for position in positions}
        self.gone.update(position for position, key in enumerate(self.keys) if key in names)
        self.generation += 1


def after(positions: Positions, position: int) -> int:
    """Where in `positions` the first one beyond `position` stands."""
    return bisect_left(positions, position + 1)


def _part(key: str) -> float:
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48


def _name_like(row: Row, key_field: str) -> str:
    texts = [name for name, value in row.items() if isinstance(value, str) and name != key_field]
    named = [name for name in texts if "name" in name.lower()]
    return (named or texts or [key_field])[0]


def first_beside(row: Row, key_field: str) -> str:
    """The first field that is not the key; the key itself when there is no other."""
    return next((name for name in row if name != key_field), key_field)
