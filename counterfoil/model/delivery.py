"""Words of a delivery: what an answer means, what is sent of an item, and the proof that is kept of each exchange. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Lane(StrEnum):
    """Two budgets towards one destination, so that a bulk re-run can't trip the breaker of live work."""

    LIVE = "live"
    BULK = "bulk"


class Outcome(StrEnum):
    """What an answer means for the item, whatever its status. Declared in the flow file by status and body."""

    DONE = "done"  # the other side has it; `receipt` is what it gave for it
    DUPLICATE = "duplicate"  # it had it already: done, with the first receipt
    REFUSED = "refused"  # understood and declined: the same request is declined again
    TEMPORARY = "temporary"  # not done, may work later
    THROTTLED = "throttled"  # not done, asks for less
    UNKNOWN = "unknown"  # it may have been done: look before anything is sent again
    NOT_FOUND = "not_found"  # of a look-up: the other side does not have it


class Resend(StrEnum):
    """What may be done after a lost reply."""

    SAFE = "safe"  # the receiver takes an idempotency key, or the call only replaces: send again
    LOOK_UP = "look_up"  # ask the other side first
    PERSON = "person"  # nobody can tell by machine


class ExchangeKind(StrEnum):
    SEND = "send"
    LOOK_UP = "look_up"
    POLL = "poll"
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Exchange:
    """The proof of one request and its answer. Bodies are redacted when they are written, sizes and hashes are of the real ones.

    `took` in seconds; hashes are lower-case hex SHA-256 of the body as it went over the wire; `status` None: no answer came.
    """

    kind: ExchangeKind
    at: datetime
    method: str
    address: str  # without credentials
    status: int | None
    outcome: Outcome
    took: float
    sent_bytes: int = 0
    sent_sha256: str | None = None
    got_bytes: int = 0
    got_sha256: str | None = None
    request: str | None = None  # redacted
    reply: str | None = None  # redacted
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to. `problem` is a sentence without personal data; `fault` its stable word. Without an exchange nothing has left."""

    outcome: Outcome
    exchange: Exchange | None
    receipt: str | None = None
    fault: str | None = None
    problem: str | None = None
    retry_after: float | None = None  # seconds, where the other side said so
    earlier: tuple[Exchange, ...] = ()  # of the same call, with credentials that were refused


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of an item. `object`: its key in the object store; without one the declared flow says where it comes from."""

    name: str
    type: str = "application/octet-stream"
    size: int | None = None
    sha256: str | None = None
    object: str | None = None


@dataclass(frozen=True, slots=True)
class HandIn:
    """One thing handed in. `kind` None where the flow has one kind only; `receipt`: the other side has it already."""

    key: str
    payload: Any = None
    kind: str | None = None
    parent_key: str | None = None
    group: str | None = None
    lane: Lane = Lane.LIVE
    file: StoredFile | None = None
    due_at: datetime | None = None
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class Parent:
    """The item that a child belongs to. `key` None: no item, only the declared stand-in receipt."""

    receipt: str
    key: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that a request is built from: one claimed item, its parent's receipt, its file."""

    key: str
    kind: str
    payload: Mapping[str, Any]
    group: str | None = None
    parent: Parent | None = None
    receipt: str | None = None  # set: it was delivered before, and is updated where the kind says how
    file: StoredFile | None = None
    idempotency_key: str = ""
    attempt: int = 1
    accepted_at: datetime | None = None


class StepState(StrEnum):
    """Of a step in somebody else's system, as declared by the flow; what it calls so itself is kept beside it."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # a value the flow does not name: kept and shown, never fatal


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of an item in somebody else's system. `status` is its own word."""

    name: str
    status: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What one answer of a bulk poll says of one receipt."""

    receipt: str
    state: StepState
    status: str  # as the other side said it
    steps: tuple[Step, ...] = ()
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    error_step: str | None = None


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """One bulk call. Every receipt asked for is in `found`, in `not_found`, or was left out by the other side.

    `outcome` DONE: the answer could be read (also where it knows none of them). `broken`: entries that could not be, each a sentence.
    """

    outcome: Outcome
    exchange: Exchange
    found: tuple[Confirmation, ...] = ()
    not_found: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    fault: str | None = None
    problem: str | None = None
    retry_after: float | None = None
