"""A simulator's own record of what it served, for a test to lay beside the ledger.

Counts by record are kept by position in plain lists, so that a page of a thousand costs microseconds. A record counts as
served only when its whole, unspoilt answer was sent. Nothing here knows HTTP.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

Positions = range | list[int]


@dataclass
class Tally:
    """How often each record went out, and in which version last; one entry for each position of the store."""

    times: list[int]
    version: list[int]
    stale_sha: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, size: int) -> "Tally":
        """An empty tally for `size` records."""
        return cls([0] * size, [0] * size)

    def mark(self, positions: Positions, versions: list[int]) -> None:
        """Count these positions as served in their present version."""
        if isinstance(positions, range):
            cut = slice(positions.start, positions.stop)
            self.times[cut] = [times + 1 for times in self.times[cut]]
            self.version[cut] = versions[cut]
            return
        for position in positions:
            self.times[position] += 1
            self.version[position] = versions[position]

    def content_changes(self, position: int, version: int, old: bytes) -> None:
        """Called before a record changes: keeps the hash of what was last served, as its bytes go away."""
        if self.version[position] == version:
            self.stale_sha[position] = sha256(old).hexdigest()


@dataclass
class Record:
    """Everything one simulator counted. `listed` counts ids in a list, `served` whole records."""

    listed: Tally
    served: Tally
    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    writes: dict[str, list[str]] = field(default_factory=dict)
    written: dict[str, object] = field(default_factory=dict)
    in_flight: Counter[str] = field(default_factory=Counter)
    max_in_flight: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0

    @classmethod
    def of(cls, size: int) -> "Record":
        """An empty record for a store of `size` rows."""
        return cls(Tally.of(size), Tally.of(size))

    @contextmanager
    def flight(self, endpoint: str) -> Iterator[None]:
        """Counts a request while it is being answered, over all and for its endpoint."""
        self.requests[endpoint] += 1
        for name in ("all", endpoint):
            self.in_flight[name] += 1
            self.max_in_flight[name] = max(self.max_in_flight[name], self.in_flight[name])
        try:
            yield
        finally:
            for name in ("all", endpoint):
                self.in_flight[name] -= 1

    def write(self, key: str, body: bytes, value: object) -> None:
        """Keep one write-back: every content hash in order, and the last value."""
        self.writes.setdefault(key, []).append(sha256(body).hexdigest())
        self.written[key] = value

    def traffic(self) -> dict[str, object]:
        """Totals that know of no records: requests and answers by endpoint, faults by name, answers by fault, peaks."""
        return {
            "requests": dict(self.requests),
            "answers": dict(self.answers),
            "faults": dict(self.faults),
            "notes": dict(self.notes),
            "outcomes": dict(self.outcomes),
            "max_in_flight": dict(self.max_in_flight),
            "bytes_sent": self.bytes_sent,
        }

    def summary(self) -> dict[str, object]:
        """Totals as JSON types: the traffic, records and times served."""
        return {
            **self.traffic(),
            "listed_rows": _seen(self.listed.times),
            "listed_times": sum(self.listed.times),
            "served_rows": _seen(self.served.times),
            "served_times": sum(self.served.times),
            "written_keys": len(self.writes),
            "written_times": sum(map(len, self.writes.values())),
        }


def _seen(times: Iterable[int]) -> int:
    return sum(1 for count in times if count)
