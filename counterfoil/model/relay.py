"""Words of a relay: a call that came, who made it, what it asks, and what is answered. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from counterfoil.model.delivery import Answer


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came. `path` still encoded, header names in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered. `said`: a sentence for our own record, without personal data."""

    status: int
    body: bytes
    content_type: str = "application/json"
    said: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that is who it says and keeps the contract. `fingerprint` is the same for the same call again; `replays`: it may be answered
    from the record then. `alone`: what it must not run beside, "" where nothing."""

    operation: str
    caller: str
    request: Mapping[str, Any]
    fingerprint: str
    replays: bool
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up before a call gave: `value` for the call, `same` where this very document is there already."""

    answer: Answer
    value: Any = None
    same: Any = None


@dataclass(frozen=True, slots=True)
class Passed:
    """What the system behind made of a call."""

    answer: Answer
    document: Any = None  # its body, decoded
    found: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
