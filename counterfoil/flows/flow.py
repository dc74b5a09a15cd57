"""A flow as declared: frozen values only. `load.py` makes them from YAML; nothing here reads a file or opens anything.

Strings that may hold `${NAME}` (an environment variable) are kept as written; `app.py` resolves them when it builds the connector,
so that no secret stands in a Flow, in a log of it or in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from counterfoil.model.retry import RetryPolicy


class CatchUp(StrEnum):
    ONCE = "once"  # fires were missed while nothing ran: one run now
    SKIP = "skip"  # wait for the next one


@dataclass(frozen=True, slots=True)
class Schedule:
    cron: str  # five fields
    timezone: str = "UTC"
    catch_up: CatchUp = CatchUp.ONCE


class Granularity(StrEnum):
    TIME = "time"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a sync has come and how far it looks back. Absent in a flow: each run reads the complete list."""

    granularity: Granularity = Granularity.TIME
    overlap: timedelta = timedelta(minutes=5)
    lookback: timedelta | None = timedelta(days=7)  # first run; None ("all"): everything
    timezone: str = "UTC"  # the source's, for dates and for times without a zone


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: timedelta = timedelta(seconds=5)
    first_byte: timedelta = timedelta(seconds=30)
    total: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Limits:
    page_bytes: int = 64 * 1024 * 1024
    record_bytes: int = 10 * 1024 * 1024
    pages: int = 100_000


class PagingStyle(StrEnum):
    NONE = "none"
    PAGE = "page"
    OFFSET = "offset"
    CURSOR = "cursor"
    LINK = "link"
    NEXT_URL = "next_url"


@dataclass(frozen=True, slots=True)
class Paging:
    style: PagingStyle = PagingStyle.NONE
    size: int = 1000
    size_param: str | None = None  # query parameter of the page size
    param: str | None = None  # query parameter of page number, offset or cursor
    first: int = 1  # number of the first page
    next_at: str | None = None  # path in the body of the next cursor or URL, "meta.next"


@dataclass(frozen=True, slots=True)
class ListCall:
    """The list. HTTP: path + query (+ paging). Lambda: function + payload. File: path, from the source itself.

    Placeholders in query and payload: {since} {until}; a parameter whose placeholder has no value is left out.
    """

    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    function: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    items: str = ""  # where the list stands in the body; "" = the body itself
    paging: Paging = Paging()


@dataclass(frozen=True, slots=True)
class DetailCall:
    """One record. {key} in path, query or payload."""

    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    function: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    record: str = ""  # where the record stands in the body


@dataclass(frozen=True, slots=True)
class WriteBack:
    """After a record was inserted or updated: tell the source. `body` maps external names to internal field names or constants ("=text")."""

    path: str
    method: str = "PUT"
    body: Mapping[str, str] = field(default_factory=dict)


class AuthType(StrEnum):
    NONE = "none"
    BEARER = "bearer"
    API_KEY = "api_key"
    BASIC = "basic"
    SIGV4 = "sigv4"
    JWT = "jwt"
    OAUTH = "oauth"


@dataclass(frozen=True, slots=True)
class Auth:
    """Values are `${NAME}` references, or plain where they are no secret. What each type takes stands in `shapes.AUTH_VALUES`.

    jwt: a token we sign for each call, with `claims` beside the usual ones. oauth: client credentials, by secret or by signed assertion.
    """

    type: AuthType = AuthType.NONE
    values: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    connector: str  # http | aws_lambda | file
    url: str = (
        ""  # http: base URL; aws_lambda: endpoint; file: path of a .csv or .jsonl, relative to the project folder
    )
    key: str = "id"  # path of the business key in a list entry and in a record
    changed: str | None = None  # path of the time of the last change
    auth: Auth = Auth()
    list: ListCall = ListCall()
    detail: DetailCall | None = None
    write_back: WriteBack | None = None
    watermark: Watermark | None = None
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    headers: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"  # file
    delimiter: str = ","  # file, CSV


@dataclass(frozen=True, slots=True)
class PullSettings:
    concurrency: int = 15  # the declared cap on calls at one time
    adaptive_max: int | None = None  # where the source allows more: grow up to this while it stays healthy
    rate: float | None = None  # calls a second, over all workers
    chunk_rows: int = 5000
    chunk_seconds: float = 1.0
    breaker_failures: int = 20  # failures in a row that open the circuit
    breaker_open: timedelta = timedelta(seconds=30)


class FieldType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One row of a mapping: external | internal | type, and what else is known of it."""

    external: str  # a dotted path in the record; `["odd name"]` for a name with dots
    internal: str
    type: FieldType
    column: str  # default: the internal name in snake_case
    required: bool = False
    default: Any = None
    format: str | None = None  # strptime, for dates that are not ISO 8601
    max_length: int | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class RecordMapping:
    """A mapping by fields, or `function`: a named Python function from the raw record to the internal fields."""

    name: str
    fields: tuple[FieldSpec, ...]
    function: str | None = None
    empty_is_null: bool = True


class Deletes(StrEnum):
    IGNORE = "ignore"
    SOFT = "soft"


@dataclass(frozen=True, slots=True)
class Destination:
    """A table of the same PostgreSQL database as the ledger: rows and accounts commit together."""

    schema: str
    table: str
    key: tuple[str, ...]  # columns
    create: bool = True
    created_column: str | None = None  # set once, at insert
    updated_column: str | None = None  # set at insert and when something changed
    indexes: tuple[tuple[str, ...], ...] = ()  # each a list of columns, "name desc" allowed
    deletes: Deletes = Deletes.IGNORE
    deleted_column: str | None = None
    row_security: bool = False  # enable row level security; only counterfoil_app may see and write

    @property
    def qualified(self) -> str:
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True, slots=True)
class OnFailure:
    owner: str = "operators"
    due: timedelta = timedelta(hours=4)
    rejected_ratio: float = 0.2  # more than this share of a run rejected: a case (seed 004)


@dataclass(frozen=True, slots=True)
class SyncFlow:
    name: str
    title: str
    source: SourceSpec
    mapping: RecordMapping
    destination: Destination
    schedule: Schedule | None = None
    pull: PullSettings = PullSettings()
    retry: RetryPolicy = RetryPolicy()
    decision: str | None = None  # a named function: internal fields -> Verdict
    on_failure: OnFailure = OnFailure()
    empty_is_news: bool = True  # nothing found where there used to be many ends the run as `empty`
    file: str = ""  # where it was declared, relative to the project folder
