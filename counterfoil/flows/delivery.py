"""Delivery and relay flows as declared: frozen values only, as `flow.py` has them for syncs. `load.py` makes them from YAML.

Strings may hold `{placeholders}`, filled for each item by `template.py`, and `${NAME}` references to the environment, resolved by the
connectors only. Paths are dotted, as in `paths.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from counterfoil.flows.flow import Auth, OnFailure, Schedule, Timeouts
from counterfoil.model.delivery import Outcome, Resend, StepState
from counterfoil.model.retry import RetryPolicy

# --- the other side -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tls:
    """Files, as paths in the project folder or `${NAME}`: our certificate and key (mutual TLS), and whom we trust."""

    certificate: str | None = None
    key: str | None = None
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    failures: int = 10  # in a row, over all hosts, each lane by itself
    open: timedelta = timedelta(seconds=30)  # at first; twice as long each time, up to sixteen times


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes, and how much it takes."""

    url: str
    auth: Auth = Auth()
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = Tls()
    contract: str | None = None  # file in contracts/
    timeouts: Timeouts = Timeouts()
    reply_bytes: int = 1024 * 1024  # what is read of a reply
    concurrency: int = 10  # calls at one time, over all hosts
    rate: float | None = None  # calls a second, over all hosts
    bulk_share: float = 0.25  # the part of concurrency and rate that the bulk lane may use
    breaker: Breaker = Breaker()


# --- requests -----------------------------------------------------------------------------------------------------


class PartType(StrEnum):
    JSON = "json"  # a template, sent as application/json
    TEXT = "text"
    FILE = "file"  # the item's file, streamed


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body. `content`: a template; of a file its name (default: the file's own)."""

    name: str
    type: PartType
    content: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request. At most one of `body` (a JSON template), `function` (makes the JSON body) and `parts` (multipart)."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    function: str | None = None
    parts: tuple[Part, ...] = ()


# --- files --------------------------------------------------------------------------------------------------------


class FileFrom(StrEnum):
    ITEM = "item"  # handed in with the item: in the object store already
    OBJECT = "object"  # the payload names a key of the object store
    PAYLOAD = "payload"  # the payload carries it, base64
    RENDER = "render"  # a named function makes it: bytes, or (bytes, name)
    STATIC = "static"  # a file of the project folder


class NameRule(StrEnum):
    AS_IT_IS = "as_it_is"
    UNDERSCORE = "underscore"  # spaces, dots and dashes of the stem to `_`, other signs dropped, one extension kept
    LAST_DOT = "last_dot"  # all dots but the last one removed


@dataclass(frozen=True, slots=True)
class FileSpec:
    """The file of a kind: where it comes from, and what the other side takes. Checked before anything is sent."""

    source: FileFrom = FileFrom.ITEM
    value: str = ""  # object: template of the key; payload: path of the base64 text; render: function; static: path
    name: str | None = None  # template; default: the item's, or the last part of key or path
    content_type: str | None = None  # default: by extension
    types: tuple[str, ...] = ()  # extensions in small letters; () takes all
    least: int = 1  # bytes
    most: int | None = None
    most_by_type: Mapping[str, int] = field(default_factory=dict)
    encrypted: bool = False  # whether encrypted PDFs are taken
    ascii_text: bool = False  # whether .txt must be ASCII
    names: NameRule = NameRule.AS_IT_IS
    name_length: int = 255
    required: bool = True


# --- kinds --------------------------------------------------------------------------------------------------------


class Inherits(StrEnum):
    """Which item of the parent's kind in the same group a child gets that names no parent."""

    LAST = "last"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class ParentSpec:
    kind: str
    inherits: Inherits = Inherits.LAST
    stand_in: str | None = None  # the receipt where the group has no such item at all; None: it waits for one
    wait: timedelta = timedelta(days=7)  # how long a child waits before a person must look


@dataclass(frozen=True, slots=True)
class Expected:
    """What must exist beside an item of `kind` in the same flow, `within` so long after it was accepted."""

    of: str  # kind whose payload says so
    key: str  # template over that item, with {each} where `for_each` is given
    for_each: str | None = None  # path of a list in its payload
    when: Mapping[str, Any] = field(default_factory=dict)  # path in its payload: value
    within: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KindSpec:
    """One kind of item of a delivery flow."""

    name: str
    create: Call | None  # None: such items are never sent; they are handed in with their receipt
    update: Call | None = None  # where a receipt exists
    parent: ParentSpec | None = None
    receipt: str | None = None  # path in the reply; None: a reply without one is enough
    file: FileSpec | None = None
    idempotency_header: str | None = None
    confirmed: bool = False  # its receipt is not yet success: the flow's `poll` confirms it
    expected: tuple[Expected, ...] = ()

    def resend(self, *, has_look_up: bool, updating: bool = False) -> Resend:
        """What may be done after a lost reply to this kind's request."""
        call = self.update if updating and self.update is not None else self.create
        if self.idempotency_header or (call is not None and call.method in ("PUT", "DELETE")):
            return Resend.SAFE
        return Resend.LOOK_UP if has_look_up else Resend.PERSON


# --- replies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplyRule:
    """The first rule that fits decides. All that is given must fit."""

    outcome: Outcome
    statuses: tuple[range, ...] = ()
    code: str | None = None  # the error code, in whatever of the known shapes it came; `*` at the end
    says: str | None = None  # a part of the body, whatever its case
    body: Mapping[str, Any] = field(default_factory=dict)  # path: value
    receipt: str | None = None  # path, for done and duplicate
    fault: str | None = None
    after: timedelta | None = None  # of temporary and throttled: not before


@dataclass(frozen=True, slots=True)
class LookUp:
    """Asked when a reply was lost. `after`: how long the other side may still be at it; before that, "not found" proves nothing."""

    call: Call
    target: Target | None = None  # another system than the destination's
    items: str = ""  # path of the list in the answer; "" the body itself
    match: Mapping[str, Any] = field(default_factory=dict)  # path in an entry: template
    function: str | None = None  # (answer, item) -> receipt or None, instead of items and match
    receipt: str = "id"  # path in the matching entry
    absent: tuple[int, ...] = (404,)  # statuses that mean "not there"
    after: timedelta = timedelta(minutes=2)


# --- confirmation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recheck:
    every: timedelta = timedelta(days=7)
    keep: timedelta = timedelta(days=365)  # after so long a success is final


@dataclass(frozen=True, slots=True)
class Poll:
    """How ACCEPTED items are confirmed, many in one call. Paths are those of the answer; of `items` on, of one entry."""

    call: Call  # {receipts} in its body or query is the list
    ids: int = 100  # receipts in one call
    id_type: str = "string"  # how they are written: string or integer
    items: str = ""
    id: str = "id"
    status: str = "status"
    values: Mapping[str, StepState] = field(default_factory=dict)
    steps: str | None = None
    step_name: str = "name"
    step_status: str = "status"
    error: str | None = None
    error_step: str | None = None
    started: str | None = None
    ended: str | None = None
    not_found: str | None = None  # path of the list of ids it does not know
    none_found: tuple[int, ...] = (404,)  # statuses that say it knows none of them
    not_found_limit: int = 3  # answers in a row after which a person must look
    first: timedelta = timedelta(minutes=5)  # after the receipt
    every: timedelta = timedelta(hours=1)
    deadline: timedelta = timedelta(hours=24)  # after the receipt: then a person has it
    recheck: Recheck | None = None


# --- upkeep of a delivery -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requeue:
    """Tries again by itself what stopped for a fault that passes: seed 000's overnight run."""

    name: str
    schedule: Schedule
    faults: tuple[str, ...]  # fault words, `*` at the end
    younger: timedelta | None = None  # accepted within
    limit: int = 1000


class BodyKeeping(StrEnum):
    FAILURES = "failures"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is kept of each exchange beside time, address, status, sizes and hashes."""

    bodies: BodyKeeping = BodyKeeping.FAILURES
    redact: tuple[str, ...] = ()  # paths in request and reply bodies, `*` for any name or every entry of a list
    most: int = 4096  # characters of a body


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """Rows of a table in the ledger's database become items: the seed's "find what is QUEUED". One transaction for both."""

    table: str  # schema.table
    key: str  # column
    where: Mapping[str, Any]  # column: value that says it is waiting
    taken: Mapping[str, Any]  # column: value it is given
    kind: str  # a kind, or `{column}`
    parent: str | None = None  # column
    group: str | None = None  # column
    file: str | None = None  # column that names a key of the object store
    limit: int = 100


@dataclass(frozen=True, slots=True)
class WatchedFolder:
    """Files of a folder become items; `NAME.json` beside a file is its payload. Taken files are moved into `taken`."""

    folder: str
    kind: str
    pattern: str = "*"
    taken: str = "taken"
    settled_for: timedelta = timedelta(seconds=5)  # a file that still changes is left alone


@dataclass(frozen=True, slots=True)
class Intake:
    schedule: Schedule | None = None  # None: looked at every few seconds
    table: WatchedTable | None = None
    folder: WatchedFolder | None = None


# --- flows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeliveryFlow:
    name: str
    title: str
    target: Target
    kinds: Mapping[str, KindSpec]  # in their order: a parent stands before its children
    replies: tuple[ReplyRule, ...] = ()
    look_up: LookUp | None = None
    poll: Poll | None = None
    retry: RetryPolicy = RetryPolicy()
    requeue: tuple[Requeue, ...] = ()
    evidence: Evidence = Evidence()
    intake: Intake | None = None
    on_failure: OnFailure = OnFailure()
    file: str = ""


class ErrorShape(StrEnum):
    """How the relay's own refusals look."""

    GATEWAY = "gateway"  # {"errors": {...}} with the gateway's codes
    PROBLEM = "problem"  # problem details (RFC 9457)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What we listen to. Deny by default: an endpoint without `auth` is refused by `check`."""

    path: str  # where the contract's paths begin, such as /v2
    auth: Auth
    contract: str
    errors: ErrorShape = ErrorShape.GATEWAY
    body_bytes: int = 10 * 1024 * 1024
    deadline: timedelta = timedelta(seconds=27)  # for the whole call; the gateway gives up after 29 s


@dataclass(frozen=True, slots=True)
class Find:
    """Asked of the system behind. One call at a time for each `alone`: two callers at once would both find nothing."""

    call: Call
    alone: str  # template
    function: str | None = None  # (answer, request) -> what `{found}` is; None is allowed. Asked before every call
    same: str | None = (
        None  # (answer, request) -> the entry that is this very document, or None. Asked where a reply was lost
    )


@dataclass(frozen=True, slots=True)
class RelayOperation:
    """One operation of the contract, by its operationId: what is asked of the other side, and how its answer is passed back."""

    name: str
    call: Call
    find: Find | None = None
    file: FileSpec | None = None
    reply_status: int = 200
    reply: Any = None  # a template over {answer}


@dataclass(frozen=True, slots=True)
class RelayFlow:
    name: str
    title: str
    endpoint: Endpoint
    target: Target
    operations: Mapping[str, RelayOperation]
    replies: tuple[ReplyRule, ...] = ()
    evidence: Evidence = Evidence()
    on_failure: OnFailure = OnFailure()
    file: str = ""
