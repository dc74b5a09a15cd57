"""Times and durations as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from counterfoil.flows import kinds
from counterfoil.flows.shape import BAD
from counterfoil.flows.yamlfile import Node, Report
from counterfoil.model.errors import UsageError


def duration(text: str, flag: str) -> timedelta:
    """`7d`, `90m`, `30s`. Raises UsageError."""
    report = Report(flag)
    value = kinds.duration().read(Node(text, 1), report, flag)
    if value is BAD:
        raise UsageError(report.faults[0].problem, report.faults[0].remedy)
    assert isinstance(value, timedelta)
    return value


def moment(text: str, flag: str, *, now: datetime) -> datetime:
    """An ISO date or time, UTC where it names no zone; or `7d`: that long ago. Raises UsageError."""
    if text[-1:].isalpha() and text[:1].isdigit() and "-" not in text and ":" not in text:
        return now - duration(text, flag)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{flag} is `{text}`, no time.", "Write 2026-11-16, 2026-11-16T09:30+13:00, or 7d for that long ago."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
