"""Faults by name and rate, drawn so that the same seed and the same requests meet the same faults.

A draw hangs on seed, fault, key and how often that key was asked, not on the order in which parallel requests arrive.
Passing faults go to a request and are limited in a row for each key, so that retries can win. Lasting marks stay with a
record (a bad row stays bad). What a fault does to an answer is not here: see wire.py and the simulators.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

PASSING = (
    "expired_token", "burst", "throttle", "error500", "error503", "timeout", "disconnect", "truncated", "slow_body",
    "latency", "html", "invalid_json", "error_body", "empty",
)  # fmt: skip
LAMBDA_PASSING = ("function_error", "task_timeout", "status500", "empty_body")
CASE_PASSING = ("lost_reply", "slow_store", "late_store")
GATEWAY_PASSING = ("lost_reply", "timeout_504", "timeout_504_unstored", "error500_html", "quota", "forbidden")
MARKS = (
    "duplicates",
    "vanish",
    "change_during_run",
    "missing_required",
    "wrong_type",
    "score_out_of_range",
    "huge_record",
)
CASE_MARKS = ("unknown_case",)
PAGING = ("endless_list",)
LASTING = frozenset((*MARKS, *CASE_MARKS, *PAGING))
SPELLS = {"burst": ("error500", "error503"), "expired_token": ("expired_token",)}
PLACES = {"slow_store": "store", "late_store": "store"}  # faults that mean something at one endpoint only
ENDPOINTS = ("list", "detail", "write", "report", "supporting", "checklist", "store", "find")


def parse_faults(texts: Iterable[str]) -> dict[str, str]:
    """Settings of "NAME", "NAME=RATE" and "NAME=RATE@endpoint" texts: name -> "RATE" or "RATE@endpoint"."""
    pairs = (text.partition("=") for text in texts)
    return {name.strip(): rate.strip() if equals else "1" for name, equals, rate in pairs}


class Faults:
    """The faults in force. `known` are the names this simulator has; others are refused. `lasting` ones strike no request."""

    def __init__(
        self,
        known: Iterable[str],
        seed: int = 0,
        max_in_a_row: int = 2,
        burst_length: int = 10,
        endpoints: Iterable[str] = ENDPOINTS,
        lasting: Iterable[str] = LASTING,
    ) -> None:
        self.known, self._endpoints, self._lasting = tuple(known), tuple(endpoints), frozenset(lasting)
        self.rates: dict[str, tuple[float, str]] = {}
        self._seed, self._max_in_a_row, self._burst_length = seed, max_in_a_row, burst_length
        self._seen: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()
        self._spell: list[str] = []

    def set(self, changes: Mapping[str, object]) -> None:
        """Change rates: {"throttle": 0.05, "html": "0.1@detail"}; rate 0 takes a fault away. ValueError says what is wrong."""
        read = {name: self._read(name, str(rate)) for name, rate in changes.items()}
        self.rates = {name: rate for name, rate in {**self.rates, **read}.items() if rate[0] > 0}
        self._spell = []

    def _read(self, name: str, text: str) -> tuple[float, str]:
        if name not in self.known:
            raise ValueError(f"Fault {name!r} is not known here. Known: {', '.join(self.known)}.")
        rate, _, endpoint = text.partition("@")
        if endpoint and endpoint not in self._endpoints:
            raise ValueError(f"Fault {name!r} names endpoint {endpoint!r}. Known: {', '.join(self._endpoints)}.")
        try:
            number = float(rate)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise ValueError(f"Fault {name!r} has rate {rate!r}. Give a number from 0 to 1.")
        return number, endpoint

    def on(self, name: str) -> bool:
        """Whether the fault is in force at all."""
        return name in self.rates

    def marks(self, name: str, key: str) -> bool:
        """Whether a lasting fault lies on this key: always the same answer for the same seed and rate."""
        return name in self.rates and self.draw(name, key) < self.rates[name][0]

    def strike(self, endpoint: str, key: str) -> str | None:
        """The passing fault that this request meets, or None. One request meets one fault."""
        if not self.rates:
            return None
        place = f"{endpoint}:{key}"
        self._seen[place] += 1
        struck = self._drawn(endpoint, place)
        if struck and self._max_in_a_row and self._in_a_row[place] >= self._max_in_a_row:
            struck = None
        if struck:
            self._in_a_row[place] += 1
        else:
            self._in_a_row.pop(place, None)
        return struck

    def _drawn(self, endpoint: str, place: str) -> str | None:
        if self._spell:
            return self._spell.pop()
        for name, (rate, where) in self.rates.items():
            place_of = where or PLACES.get(name)
            if name in self._lasting or (place_of and place_of != endpoint):
                continue
            if self.draw(name, place, self._seen[place]) < rate:
                return self._begin_spell(name)
        return None

    def _begin_spell(self, name: str) -> str:
        if name in SPELLS:
            turns = SPELLS[name]
            self._spell = [turns[n % len(turns)] for n in range(self._burst_length - 1)]
            return turns[-1]
        return name

    def draw(self, name: str, key: str, nth: int = 0) -> float:
        """A number in 0..1 that hangs only on the seed and these three."""
        digest = blake2b(f"{self._seed}|{name}|{key}|{nth}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
