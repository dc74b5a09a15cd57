"""The records that every contestant moves, and how long the server takes over each: the same in every run, by number alone.

Standard library only; no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
CITIES = ("Auckland", "Wellington", "Christchurch", "Hamilton", "Dunedin", "Nelson", "Napier")
# A record's columns as PostgreSQL has them; twelve, as in the table of docs/explanation/performance.md.
COLUMNS = {
    "id": "text",
    "full_name": "text",
    "email": "text",
    "phone": "text",
    "street": "text",
    "city": "text",
    "postcode": "text",
    "score": "bigint",
    "balance": "double precision",
    "active": "boolean",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
SLOWEST, FASTEST = 0.150, 0.050  # seconds, work A


def key(number: int) -> str:
    return f"R{number:07d}"


def score(number: int, *, old: bool = False) -> int:
    return number * 7919 % 101 + (1000 if old else 0)


def latency(number: int) -> float:
    """Seconds a detail call of work A takes: 50 to 150 ms, even over the numbers."""
    return FASTEST + (number * 7919 % 1009) / 1008 * (SLOWEST - FASTEST)


def changed(number: int, *, old: bool = False) -> str:
    moment = EPOCH + timedelta(days=0 if old else 300, seconds=number)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def record(number: int, *, old: bool = False) -> Mapping[str, object]:
    """One record of twelve fields, about 300 bytes of JSON. `old`: as it was before it was changed."""
    return {
        "id": key(number),
        "full_name": f"Person Number {number}",
        "email": f"person.{number}@example.org",
        "phone": f"+64 21 {number % 10_000_000:07d}",
        "street": f"{number % 400 + 1} Long Bay Road",
        "city": CITIES[number % len(CITIES)],
        "postcode": f"{number % 10_000:04d}",
        "score": score(number, old=old),
        "balance": number % 100_000 / 4,
        "active": number % 3 != 0,
        "created_at": (EPOCH + timedelta(minutes=number % 500_000)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "updated_at": changed(number, old=old),
    }


def numbers(count: int) -> range:
    return range(1, count + 1)
