"""What the upload service keeps: uploads in arrays, so that a million of them stay light, and their way through other people's systems.

Everything an upload will do hangs on its number and the seed: how long each step takes, whether it fails, stalls, or takes back a success.
No HTTP here.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from counterfoil.simulators.store import encode

FIRST = 60_000_001
STEPS = ("CLAIMS_EVIDENCE", "BENEFITS_GATEWAY_SERVICE", "REMOVE_FILE_BINARY")
EXCEEDED = "Workflow maximum step attempts exceeded for the current step"
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Ways:
    """Shares of uploads that go another way; `step`: how long a step takes, in seconds."""

    step: tuple[float, float] = (0.0, 0.0)
    fail_evidence: float = 0.0
    fail_gateway: float = 0.0
    stall: float = 0.0
    revoke: float = 0.0  # a success that goes back to IN_PROGRESS for a while
    revoke_failed: float = 0.0  # and ends as FAILED
    revoke_after: float = 3600.0
    unknown_step: float = 0.0
    unknown_status: float = 0.0
    seed: int = 0


@dataclass
class Kept:
    """What is known of an upload made over HTTP; a preloaded one has none."""

    claim: int
    doc_type: str
    name: str
    sha256: str
    size: int
    times: int = 1
    lost: int = 0


@dataclass
class Uploads:
    ways: Ways
    received: "array[float]" = field(default_factory=lambda: array("d"))
    kept: dict[int, Kept] = field(default_factory=dict)
    same: dict[tuple[int, str, str, str], int] = field(default_factory=dict)
    by_key: dict[str, int] = field(default_factory=dict)

    def add(self, now: float) -> int:
        self.received.append(now)
        return FIRST + len(self.received) - 1

    def preload(self, count: int, now: float) -> int:
        """The number of the first of `count` new uploads."""
        first = FIRST + len(self.received)
        self.received.extend([now] * count)
        return first

    def knows(self, number: int) -> bool:
        return FIRST <= number < FIRST + len(self.received)

    def status(self, number: int, now: float, *, internal: bool = False) -> bytes:
        """One entry of a status answer."""
        began = self.received[number - FIRST]
        state, at, ended, error = self._state(number, now - began)
        steps = self._steps(number, state, at, internal)
        word = (
            "PENDING_REVIEW" if state == "IN_PROGRESS" and self._draw(number, 8) < self.ways.unknown_status else state
        )
        end = f',"endTime":{int((began + ended) * 1000)}' if ended is not None else ""
        failed = f',"error":{{"detail":"{EXCEEDED}","step":"{error}"}}' if error else ""
        return f'{{"requestId":{number},"time":{{"startTime":{int(began * 1000)}{end}}},"status":"{word}","steps":[{steps}]{failed}}}'.encode()

    def _state(self, number: int, age: float) -> tuple[str, int, float | None, str | None]:
        """Status, the step it is at (2: past the last), when it ended, where it failed."""
        ways = self.ways
        low, high = ways.step
        first = low + (high - low) * self._draw(number, 1)
        second = first + low + (high - low) * self._draw(number, 2)
        if self._draw(number, 3) < ways.stall:
            return "IN_PROGRESS", 0 if age < first else 1, None, None
        if self._draw(number, 4) < ways.fail_evidence and age >= first:
            return "FAILED", 0, first, STEPS[0]
        if age < first:
            return "IN_PROGRESS", 0, None, None
        if self._draw(number, 5) < ways.fail_gateway and age >= second:
            return "FAILED", 1, second, STEPS[1]
        if age < second:
            return "IN_PROGRESS", 1, None, None
        return self._after_success(number, age, second)

    def _after_success(self, number: int, age: float, ended: float) -> tuple[str, int, float | None, str | None]:
        ways, since = self.ways, age - ended
        if since >= ways.revoke_after:
            if self._draw(number, 6) < ways.revoke_failed:
                return "FAILED", 1, ended + ways.revoke_after, STEPS[1]
            if self._draw(number, 7) < ways.revoke and since < 2 * ways.revoke_after:
                return "IN_PROGRESS", 1, None, None
        return "SUCCESS", 2, ended, None

    def _steps(self, number: int, state: str, at: int, internal: bool) -> str:
        named = STEPS if internal else STEPS[:2]
        extra = self._draw(number, 9) < self.ways.unknown_step
        parts = []
        for place, name in enumerate(named):
            word = (
                "SUCCESS"
                if place < at
                else "NOT_STARTED"
                if place > at
                else "FAILED"
                if state == "FAILED"
                else "IN_PROGRESS"
            )
            following = f',"nextStepName":"{named[place + 1]}"' if place + 1 < len(named) else ""
            parts.append(f'{{"name":"{name}"{following},"description":"Step {place + 1}","status":"{word}"}}')
        if extra:
            parts.append('{"name":"VIRUS_SCAN_2","description":"New","status":"QUEUED_FOR_SCAN"}')
        return ",".join(parts)

    def _draw(self, number: int, what: int) -> float:
        """A number in 0..1 that hangs on the upload, on what is drawn, and on the seed."""
        x = (number * 0x9E3779B97F4A7C15 + what * 0xBF58476D1CE4E5B9 + self.ways.seed) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return (x ^ (x >> 31)) / 2**64

    def lines(self, now: float) -> Iterator[bytes]:
        """JSONL, an upload that came over HTTP a line, for a test to lay beside the ledger."""
        for number, one in self.kept.items():
            state = self._state(number, now - self.received[number - FIRST])[0]
            yield encode({
                "requestId": number, "claimId": one.claim, "docType": one.doc_type, "fileName": one.name, "sha256": one.sha256,
                "size": one.size, "times": one.times, "lost": one.lost, "status": state,
            }) + b"\n"  # fmt: skip

    def summary(self) -> dict[str, object]:
        times = [one.times for one in self.kept.values()]
        return {
            "uploads": len(self.received),
            "over_http": len(times),
            "there_twice": len(self.kept) - len(self.same),
            "answers_lost": sum(one.lost for one in self.kept.values()),
        }
