"""The tables of the flow file and of the mapping file: each name, what it may hold, and one line of help.

The published JSON Schema and the reference in the docs follow from these tables; a name added here must appear there.
"""

from __future__ import annotations

from typing import Any

from counterfoil.flows.flow import (
    Auth,
    AuthType,
    CatchUp,
    Deletes,
    Destination,
    DetailCall,
    FieldSpec,
    FieldType,
    Granularity,
    Limits,
    ListCall,
    OnFailure,
    Paging,
    PagingStyle,
    PullSettings,
    RecordMapping,
    Schedule,
    SourceSpec,
    Timeouts,
    Watermark,
    WriteBack,
)
from counterfoil.flows.kinds import (
    column,
    cron,
    duration,
    duration_text,
    index_column,
    lookback,
    matching,
    qualified_table,
    record_path,
    secret,
    size,
    snake_case,
    strptime_format,
    zone,
)
from counterfoil.flows.shape import (
    BAD,
    Entry,
    Kind,
    Shape,
    anything,
    choice,
    either,
    flag,
    listed,
    number,
    table,
    text,
    whole,
)
from counterfoil.flows.yamlfile import Node, Report, did_you_mean
from counterfoil.model.retry import RetryPolicy

CONNECTORS = ("http", "aws_lambda", "file")
E = Entry

# --- schedule -----------------------------------------------------------------------------------------------------

SCHEDULE = Shape(
    "schedule",
    (
        E("cron", cron(), 'five fields: "0 * * * *" is every hour.', required=True, blank="0 0 1 1 *"),
        E("timezone", zone(), "whose clock the schedule follows; UTC if not given."),
        E("catch_up", choice(CatchUp), "after a stop: `once` runs at once, `skip` waits for the next time."),
    ),
    Schedule,
)
_CRON = Kind(lambda n, r, label: got if (got := cron().read(n, r, label)) is BAD else Schedule(got), cron().schema)
SCHEDULE_KIND = either(lambda node: SCHEDULE.kind if isinstance(node.value, dict) else _CRON, _CRON, SCHEDULE.kind)

# --- source -------------------------------------------------------------------------------------------------------

PAGING = Shape(
    "paging",
    (
        E("style", choice(PagingStyle), "how the list is cut into pages."),
        E("size", whole(1, 100_000), "entries on a page."),
        E("size_param", text(), "the query parameter that carries the size."),
        E("param", text(), "the query parameter of page number, offset or cursor."),
        E("first", whole(), "the number of the first page."),
        E("next_at", text(), "where the next cursor or URL stands in the body: `meta.next`."),
    ),
    Paging,
)
_QUERY = table(
    text(empty=True), 'Write names and values; put placeholders in quotes, such as `updated_since: "{since}"`.'
)
_PAYLOAD = table(anything(), 'Write names and values; put placeholders in quotes, such as `since: "{since}"`.')
_CALL = (
    E("path", text(empty=True), "the path after the URL, such as /api/v1/data."),
    E("query", _QUERY, "query parameters."),
    E("function", text(), "name or ARN of the Lambda function."),
    E("payload", _PAYLOAD, "what the Lambda function is given."),
)
LIST = Shape(
    "list",
    (
        *_CALL,
        E("items", text(empty=True), "where the list stands in the body; nothing for the body itself."),
        E("paging", PAGING.kind, "how the list is cut into pages."),
    ),
    ListCall,
)
DETAIL = Shape(
    "detail",
    (*_CALL, E("record", text(empty=True), "where the record stands in the body; nothing for the body itself.")),
    DetailCall,
)
WRITE_BACK = Shape(
    "write_back",
    (
        E("path", text(), "where to tell the source, with {key}: /api/v1/data/{key}.", required=True),
        E("method", choice(("PUT",)), "PUT: the only one that may safely be told twice, after a lost reply."),
        E(
            "body",
            table(text(empty=True), "Write external names and internal ones."),
            'external name: internal name, or "=a text".',
        ),
    ),
    WriteBack,
)
WATERMARK = Shape(
    "watermark",
    (
        E("granularity", choice(Granularity), "`time`, or `date` where the source knows only days."),
        E("overlap", duration(zero=True), "how far each run looks back behind the last one; 5m if not given."),
        E("lookback", lookback(), "how far the first run looks back; `all` for everything."),
        E("timezone", zone(), "the source's, for dates and for times that name none."),
    ),
    Watermark,
)
TIMEOUTS = Shape(
    "timeouts",
    (
        E("connect", duration(), "until a connection stands."),
        E("first_byte", duration(), "until the answer begins."),
        E("total", duration(), "until the answer is whole."),
    ),
    Timeouts,
)
LIMITS = Shape(
    "limits",
    (
        E("page_bytes", size(), "the largest page that is read."),
        E("record_bytes", size(), "the largest record that is read."),
        E("pages", whole(1), "the most pages of one list."),
    ),
    Limits,
)

# Secret values must be `${NAME}`; the others may be written out.
AUTH_VALUES: dict[AuthType, dict[str, tuple[bool, Kind]]] = {  # name: (required, kind)
    AuthType.NONE: {},
    AuthType.BEARER: {"token": (True, secret())},
    AuthType.API_KEY: {"header": (False, text()), "key": (True, secret())},
    AuthType.BASIC: {"username": (True, text()), "password": (True, secret())},
    AuthType.SIGV4: {
        "access_key": (True, secret()),
        "secret_key": (True, secret()),
        "session_token": (False, secret()),
        "region": (True, text()),
        "service": (False, text()),
    },
    AuthType.JWT: {
        "algorithm": (True, choice(("HS256", "RS256"))),
        "secret": (False, secret()),  # HS256
        "private_key": (False, secret()),  # RS256, PEM
        "key_id": (False, text()),
        "issuer": (False, text()),
        "subject": (False, text()),
        "audience": (False, text()),
        "expires": (False, duration_text()),
    },
    AuthType.OAUTH: {
        "token_url": (True, text()),
        "client_id": (True, text()),
        "client_secret": (False, secret()),
        "private_key": (False, secret()),  # PEM: a signed assertion (RS256) instead of the secret
        "key_id": (False, text()),
        "audience": (False, text()),
        "scope": (False, text()),
        "assertion_expires": (False, duration_text()),
    },
}
# Of these exactly one.
_ONE_OF: dict[AuthType, tuple[str, str]] = {
    AuthType.JWT: ("secret", "private_key"),
    AuthType.OAUTH: ("client_secret", "private_key"),
}
_CLAIMS = table(text(), "Write names of claims and their values.")


def _read_auth(node: Node, report: Report, label: str) -> Any:
    if not isinstance(node.value, dict):
        report.fault(node.place, f"{label} is not a section.", 'Write {type: bearer, token: "${API_TOKEN}"}.')
        return BAD
    given = node.value.get("type")
    if given is None:
        report.fault(node.place, f"`type` is missing in {label}.", did_you_mean("", [str(t) for t in AuthType]))
        return BAD
    kind = choice(AuthType).read(given, report, "`type` in auth")
    if kind is BAD:
        return BAD
    known = AUTH_VALUES[kind]
    takes_claims = kind is AuthType.JWT
    names = ["type", *known, *(["claims"] if takes_claims else [])]
    for name, part in node.value.items():
        if name not in names:
            report.fault(part.place, f"Unknown field `{name}` in auth of type {kind}.", did_you_mean(name, names))
    if kind in _ONE_OF and len([name for name in _ONE_OF[kind] if name in node.value]) != 1:
        first, second = _ONE_OF[kind]
        report.fault(
            node.place,
            f"Auth of type {kind} needs `{first}` or `{second}`, one of them.",
            f'Add `{first}: "${{NAME}}"`.',
        )
    for name, (required, _) in known.items():
        if required and name not in node.value:
            report.fault(
                node.place, f"`{name}` is missing in auth of type {kind}.", f'Add `{name}: "${{{name.upper()}}}"`.'
            )
    values = {n: k.read(node.value[n], report, f"`{n}` in auth") for n, (_, k) in known.items() if n in node.value}
    claims = (
        _CLAIMS.read(node.value["claims"], report, "`claims` in auth")
        if "claims" in node.value and takes_claims
        else {}
    )
    return BAD if any(value is BAD for value in (*values.values(), claims)) else Auth(kind, values, claims)


_AUTH_NAMES = sorted({name for values in AUTH_VALUES.values() for name in values})
AUTH_KIND = Kind(
    _read_auth,
    {
        "type": "object",
        "additionalProperties": False,
        "required": ["type"],
        "properties": {
            "type": {"enum": [str(t) for t in AuthType]},
            **{name: {"type": "string"} for name in _AUTH_NAMES},
            "claims": _CLAIMS.schema,
        },
    },
)
SOURCE = Shape(
    "source",
    (
        E("connector", choice(CONNECTORS), "http, aws_lambda or file.", required=True),
        E(
            "url",
            text(),
            'the address: "${API_BASE_URL}"; for files the path of a .csv or .jsonl in the project folder.',
        ),
        E("auth", AUTH_KIND, "how we show who we are; secrets as ${NAME}."),
        E("key", record_path(), "where the record's key stands; `id` if not given."),
        E("changed", record_path(), "where the time of the last change stands."),
        E("list", LIST.kind, "the call that lists records, or their keys."),
        E("detail", DETAIL.kind, "the call for one record, where the list gives only keys."),
        E("write_back", WRITE_BACK.kind, "tell the source after a record was loaded."),
        E("watermark", WATERMARK.kind, "read only what changed; without it each run reads the whole list."),
        E("timeouts", TIMEOUTS.kind, "how long to wait."),
        E("limits", LIMITS.kind, "how much to read at most."),
        E("headers", table(text(empty=True), "Write header names and values."), "headers of every call."),
        E("encoding", text(), "of a file; utf-8 if not given."),
        E(
            "delimiter",
            matching(r"[^\"\r\n]", "Write one character, such as `;`."),
            "between the values of a CSV file.",
        ),
    ),
    SourceSpec,
    "{connector: http, url: ...}",
)

# --- pull, retry, failure -----------------------------------------------------------------------------------------

PULL = Shape(
    "pull",
    (
        E("concurrency", whole(1, 10_000), "calls at one time."),
        E("adaptive_max", whole(1, 10_000), "where the source allows more: grow up to this while it stays healthy."),
        E("rate", number(above=0), "calls a second."),
        E("chunk_rows", whole(1, 100_000), "rows written in one transaction."),
        E("chunk_seconds", number(above=0, most=60), "a chunk is written after this many seconds, however small."),
        E("breaker_failures", whole(1), "failures in a row after which calls pause."),
        E("breaker_open", duration(), "how long they pause."),
    ),
    PullSettings,
)
RETRY = Shape(
    "retry",
    (
        E("tries", whole(1, 100), "of one call inside a run."),
        E("first_delay", duration(), "before the second try."),
        E("max_delay", duration(), "between two tries of a call."),
        E("item_first_delay", duration(), "before a failed record is tried again."),
        E("item_max_delay", duration(), "between two tries of a failed record."),
        E("budget", duration(), "how long a failed record is tried before a person must look."),
        E("crashes", whole(1, 100), "of a worker over one record before a person must look."),
    ),
    RetryPolicy,
)
ON_FAILURE = Shape(
    "on_failure",
    (
        E("owner", text(), "the role that looks after cases of this flow."),
        E("due", duration(), "by when."),
        E("rejected_ratio", number(0, 1), "more than this share rejected in one run opens a case; 0.2 is a fifth."),
    ),
    OnFailure,
)

# --- mapping ------------------------------------------------------------------------------------------------------


def _field(**given: Any) -> FieldSpec:
    internal = given.get("internal", "")
    return FieldSpec(**{"external": "", "column": snake_case(internal), **given})


FIELD = Shape(
    "field",
    (
        E("external", record_path(), "the name in the source's record; `a.b` for b inside a."),
        E(
            "internal",
            matching(r"[A-Za-z_][A-Za-z0-9_]*", "Letters, digits and _, not a digit first.", most=63),
            "our name for it.",
            required=True,
        ),
        E("type", choice(FieldType), "what it holds.", required=True),
        E("column", column(), "the column; if not given the internal name in snake_case."),
        E("required", flag(), "a record without it is not loaded but becomes an item."),
        E("default", anything(), "stands in where the record has none."),
        E("format", strptime_format(), "how dates look that are not ISO 8601."),
        E("max_length", whole(1), "the most characters of a string."),
        E("minimum", number(), "the least number."),
        E("maximum", number(), "the greatest number."),
    ),
    _field,
    "{external: full_name, internal: name, type: string}",
)
FIELDS_KIND = listed(FIELD.kind, "Write a list of fields: `- {external: full_name, internal: name, type: string}`.")
FUNCTION = matching(r"[A-Za-z][A-Za-z0-9_]*", "Write the name of a function in functions.py.")


def _mapping(**given: Any) -> RecordMapping:
    return RecordMapping(**{"name": "", **given})


MAPPING_NAME = matching(
    r"[A-Za-z0-9][A-Za-z0-9_-]*", "Write the name of a file in mappings/, without folder and .yaml."
)
_MAPPING = (
    E("fields", FIELDS_KIND, "a list of fields.", required=True, blank=()),
    E("function", FUNCTION, "a function in functions.py that makes the internal fields from the raw record."),
    E("empty_is_null", flag(), "an empty text is stored as null; true if not given."),
)
MAPPING_FILE = Shape(
    "mapping",
    (E("mapping", MAPPING_NAME, "its name, as the file's.", attribute="name", required=True), *_MAPPING),
    _mapping,
)
MAPPING_INLINE = Shape("mapping", _MAPPING, _mapping)
_BARE_FIELDS = Kind(
    lambda n, r, label: got if (got := FIELDS_KIND.read(n, r, label)) is BAD else RecordMapping("", got),
    FIELDS_KIND.schema,
)


def _pick_mapping(node: Node) -> Kind:
    if isinstance(node.value, dict):
        return MAPPING_INLINE.kind
    return _BARE_FIELDS if isinstance(node.value, list) else MAPPING_NAME


MAPPING_KIND = either(_pick_mapping, MAPPING_NAME, _BARE_FIELDS, MAPPING_INLINE.kind)  # a str: the name of a file

# --- destination --------------------------------------------------------------------------------------------------

_SOFT = Shape(
    "deletes", (E("soft", column(), "the column for the time of deletion.", required=True),), lambda soft: soft
)
_IGNORE = choice(("ignore",))
DELETES_KIND = either(lambda node: _SOFT.kind if isinstance(node.value, dict) else _IGNORE, _IGNORE, _SOFT.kind)


def _destination(**given: Any) -> Destination:
    schema, name = given.pop("table") or ("", "")
    soft = given.pop("deletes", "ignore")
    if soft != "ignore":
        given.update(deletes=Deletes.SOFT, deleted_column=soft or None)
    return Destination(schema=schema, table=name, **given)


_COLUMNS = "Write a list of columns: [customer_id]."
_INDEXES = listed(listed(index_column(), _COLUMNS), "Write lists of columns: [[email], [created_at desc]].", least=0)
DESTINATION = Shape(
    "destination",
    (
        E("table", qualified_table(), "schema.table, such as public.customers.", required=True),
        E(
            "key",
            listed(column(), _COLUMNS),
            "the columns that tell rows apart: [customer_id].",
            required=True,
            blank=(),
        ),
        E("create", flag(), "make the table where it is missing; true if not given."),
        E("created", column(), "a column set once, at insert.", attribute="created_column"),
        E("updated", column(), "a column set whenever something changed.", attribute="updated_column"),
        E(
            "indexes",
            listed(listed(index_column(), _COLUMNS), "Write lists of columns: [[email], [created_at desc]].", least=0),
            "further indexes.",
        ),
        E("deletes", DELETES_KIND, "`ignore`, or {soft: deleted_at} to mark rows that are gone from the source."),
        E("row_security", flag(), "only our own role may see and write the table."),
    ),
    _destination,
    "{table: public.customers, key: [customer_id]}",
)
DECISION = Shape(
    "decision",
    (E("function", FUNCTION, "its name in functions.py.", required=True),),
    lambda function: function,
    "{function: score_band}",
)
NAME = matching(r"[a-z0-9][a-z0-9_-]*", "Small letters, digits, - and _, at most 63 characters.", most=63)


def head(kind: str) -> tuple[Entry, ...]:
    """What every flow file begins with."""
    return (
        E("flow", NAME, "its name, such as customer-records.", attribute="name", required=True),
        E("kind", choice((kind,)), f"{kind}.", required=True),
        E("title", text(), "what people call it."),
    )


FLOW = Shape(
    "flow",
    (
        *head("sync"),
        E("schedule", SCHEDULE_KIND, "when it runs; without one only by hand."),
        E("source", SOURCE.kind, "where records come from.", required=True, blank=None),
        E("pull", PULL.kind, "how fast."),
        E("retry", RETRY.kind, "when to try again."),
        E("mapping", MAPPING_KIND, "the name of a file in mappings/, or the fields.", required=True, blank=None),
        E("decision", DECISION.kind, "a named function that judges each record: VALID, WARNING or INVALID."),
        E("destination", DESTINATION.kind, "where rows go.", required=True, blank=None),
        E("on_failure", ON_FAILURE.kind, "who looks at what went wrong, and by when."),
        E(
            "empty_is_news",
            flag(),
            "nothing found where there used to be many ends the run as `empty`; true if not given.",
        ),
    ),
    lambda **given: given,
    "flow: customer-records",
)
