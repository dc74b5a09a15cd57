"""What happens to an upload after it was accepted: two steps, how long each takes, and the fates that keep it from success.

All of it is drawn once, when the upload is accepted, from the seed and its request id; where it stands follows from the time alone.
Kept in arrays (17 bytes an upload) and told from ready-made JSON, so that a million are light and a thousand take a millisecond.
"""

import json
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b

FIRST = 41_000_001
LONGEST = 40 * 86400.0
EVIDENCE, GATEWAY, REMOVAL = "CLAIMS_EVIDENCE", "BENEFITS_GATEWAY_SERVICE", "REMOVE_FILE_BINARY"
STRANGE_STEP, STRANGE_STATUS, PASSING_STATUS = "DOCUMENT_CONVERSION", "COMPLETED_WITH_WARNINGS", "ON_HOLD"
GIVEN_UP = "Workflow maximum step attempts exceeded for the current step"
ABOUT = {
    EVIDENCE: "Stores the document in Claims Evidence",
    STRANGE_STEP: "Converts the document",
    GATEWAY: "Tells the Benefits Gateway Service of the document",
    REMOVAL: "Removes the file that was received",
}
FATES = (
    "fail_evidence", "fail_gateway", "stall_evidence", "stall_gateway", "reopen", "revoke", "strange_step", "strange_status",
)  # fmt: skip
FATE = {name: number for number, name in enumerate(FATES, 1)}
_DRAWN = struct.Struct("<11I")


class Phase(IntEnum):
    """Where an upload stands."""

    EVIDENCE = 0
    GATEWAY = 1
    DONE = 2
    NO_EVIDENCE = 3
    NO_GATEWAY = 4
    STRANGE = 5
    HELD = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """How a phase looks: status, the status of each step, the step that gave up."""

    status: str
    evidence: str
    gateway: str
    removal: str = "NOT_STARTED"
    failed: str = ""


SHOWN: Mapping[Phase, Shown] = {
    Phase.EVIDENCE: Shown("IN_PROGRESS", "IN_PROGRESS", "NOT_STARTED"),
    Phase.GATEWAY: Shown("IN_PROGRESS", "SUCCESS", "IN_PROGRESS"),
    Phase.DONE: Shown("SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"),
    Phase.NO_EVIDENCE: Shown("FAILED", "FAILED", "NOT_STARTED", failed=EVIDENCE),
    Phase.NO_GATEWAY: Shown("FAILED", "SUCCESS", "FAILED", failed=GATEWAY),
    Phase.STRANGE: Shown(STRANGE_STATUS, "SUCCESS", "SUCCESS", "SUCCESS"),
    Phase.HELD: Shown(PASSING_STATUS, "SUCCESS", "NOT_STARTED"),
}
ENDED = frozenset((Phase.DONE, Phase.NO_EVIDENCE, Phase.NO_GATEWAY, Phase.STRANGE))
Place = tuple[Phase, int]
Course = Callable[[int, int, int, int], Place]
"""From milliseconds passed, the ends of both steps and the wait before a success is revoked: the phase, and when it ended."""


def _plain(passed: int, first: int, second: int, wait: int) -> Place:
    if passed >= second:
        return Phase.DONE, second
    return (Phase.GATEWAY if passed >= first else Phase.EVIDENCE), 0


def _fail_evidence(passed: int, first: int, second: int, wait: int) -> Place:
    return (Phase.NO_EVIDENCE, first) if passed >= first else (Phase.EVIDENCE, 0)


def _fail_gateway(passed: int, first: int, second: int, wait: int) -> Place:
    return (Phase.NO_GATEWAY, second) if passed >= second else _plain(passed, first, second, wait)


def _stall_evidence(passed: int, first: int, second: int, wait: int) -> Place:
    return Phase.EVIDENCE, 0


def _stall_gateway(passed: int, first: int, second: int, wait: int) -> Place:
    return _plain(min(passed, second - 1), first, second, wait)


def _reopen(passed: int, first: int, second: int, wait: int) -> Place:
    if passed >= second + 2 * wait:
        return Phase.DONE, second + 2 * wait
    return (Phase.GATEWAY, 0) if passed >= second + wait else _plain(passed, first, second, wait)


def _revoke(passed: int, first: int, second: int, wait: int) -> Place:
    end = second + wait
    return (Phase.NO_GATEWAY, end) if passed >= end else _plain(passed, first, second, wait)


def _strange_status(passed: int, first: int, second: int, wait: int) -> Place:
    return (Phase.STRANGE, second) if passed >= second else _plain(passed, first, second, wait)


COURSES: tuple[Course, ...] = (
    _plain, _fail_evidence, _fail_gateway, _stall_evidence, _stall_gateway, _reopen, _revoke, _plain, _strange_status,
)  # fmt: skip


def _steps(shown: Shown, strange: bool, internal: bool) -> list[dict[str, str]]:
    """The steps, each naming the next. In a strange one the upload stays as long as the gateway's step would take."""
    told = [(EVIDENCE, shown.evidence)]
    if strange:
        running = shown.gateway == "IN_PROGRESS"
        told += [
            (STRANGE_STEP, shown.gateway if running else "SUCCESS" if shown.gateway == "SUCCESS" else "NOT_STARTED")
        ]
        told += [(GATEWAY, "NOT_STARTED" if running else shown.gateway)]
    else:
        told += [(GATEWAY, shown.gateway)]
    told += [(REMOVAL, shown.removal)] if internal else []
    following = [{"nextStepName": name} for name, _ in told[1:]] + [{}]
    return [
        {"name": name, **after, "description": ABOUT[name], "status": status}
        for (name, status), after in zip(told, following, strict=True)
    ]


def _template(phase: Phase, strange: bool, internal: bool) -> bytes:
    """JSON of a status, with `%d` for request id and start, and for the end where there is one."""
    shown = SHOWN[phase]
    rest: dict[str, object] = {"status": shown.status, "steps": _steps(shown, strange, internal)}
    if shown.failed:
        rest["error"] = {"detail": GIVEN_UP, "step": shown.failed}
    end = b',"endTime":%d' if phase in ENDED else b""
    tail = json.dumps(rest, separators=(",", ":")).encode()
    return b'{"requestId":%d,"time":{"startTime":%d' + end + b"}," + tail[1:]


TEMPLATES = {
    (strange, internal): tuple(_template(phase, strange, internal) for phase in Phase)
    for strange in (False, True)
    for internal in (False, True)
}


@dataclass
class Workflow:
    """All uploads that were accepted, by position: request id less FIRST. Times are milliseconds; starts since the epoch."""

    seed: int
    step: tuple[float, float]
    wait: tuple[float, float]
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    firsts: "array[int]" = field(default_factory=lambda: array("I"))
    seconds: "array[int]" = field(default_factory=lambda: array("I"))
    fates: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        for name, (low, high) in (("--step", self.step), ("--revoke-after", self.wait)):
            if not 0 <= low <= high <= LONGEST / 4:
                raise ValueError(f"{name} is too long, or its end lies before its begin. Give at most 10d.")

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, count: int, now: float, rates: Mapping[str, float]) -> int:
        """Accept so many at `now` (epoch seconds), each with a fate by the rates in force; gives the first request id."""
        first_id, start = FIRST + len(self.starts), int(now * 1000)
        wanted = [(at, int(rates[name] * 2**32)) for at, name in enumerate(FATES) if name in rates]
        low, span = self._milliseconds(self.step)
        for request_id in range(first_id, first_id + count):
            drawn = self._drawn(request_id)
            first = low + (span * drawn[8] >> 32)
            self.firsts.append(first)
            self.seconds.append(first + low + (span * drawn[9] >> 32))
            self.fates.append(next((at + 1 for at, rate in wanted if drawn[at] < rate), 0))
        self.starts.extend([start] * count)
        return first_id

    def _drawn(self, request_id: int) -> tuple[int, ...]:
        return _DRAWN.unpack(blake2b(b"%d|%d" % (self.seed, request_id), digest_size=_DRAWN.size).digest())

    def _milliseconds(self, span: tuple[float, float]) -> tuple[int, int]:
        return int(span[0] * 1000), int((span[1] - span[0]) * 1000)

    def condemn(self, request_id: int, fate: str) -> None:
        """Give one upload another fate, or none for "". ValueError for one that is not known."""
        position = request_id - FIRST
        if not 0 <= position < len(self.starts) or (fate and fate not in FATE):
            raise ValueError(f"No upload {request_id}, or no fate {fate!r}. Known fates: {', '.join(FATES)}.")
        self.fates[position] = FATE.get(fate, 0)

    def place(self, position: int, now_ms: int) -> Place:
        """Where an upload stands, and how long after its start it ended (0 where it has not)."""
        fate, passed = self.fates[position], now_ms - self.starts[position]
        wait = self._wait(position) if fate in (FATE["reopen"], FATE["revoke"]) else 0
        return COURSES[fate](passed, self.firsts[position], self.seconds[position], wait)

    def _wait(self, position: int) -> int:
        low, span = self._milliseconds(self.wait)
        return low + (span * self._drawn(FIRST + position)[10] >> 32)

    def tell(self, request_id: int, now_ms: int, internal: bool, odd: str | None = None) -> bytes | None:
        """JSON of one status; None for an unknown id. `odd` is unknown_step or unknown_status, for this answer only."""
        position = request_id - FIRST
        if not 0 <= position < len(self.starts):
            return None
        phase, end = self.place(position, now_ms)
        if odd == "unknown_status":
            phase = Phase.HELD
        start = self.starts[position]
        strange = odd == "unknown_step" or self.fates[position] == FATE["strange_step"]
        template = TEMPLATES[strange, internal][phase]
        return template % ((request_id, start, start + end) if phase in ENDED else (request_id, start))

    def status(self, request_id: int, now_ms: int) -> str:
        """The status of one known upload."""
        return SHOWN[self.place(request_id - FIRST, now_ms)[0]].status

    def statuses(self, now_ms: int) -> dict[str, int]:
        """How many uploads have which status."""
        phases = Counter(self.place(position, now_ms)[0] for position in range(len(self.starts)))
        counts: Counter[str] = Counter()
        for phase, count in phases.items():
            counts[SHOWN[phase].status] += count
        return dict(counts)
