"""The tables of a delivery flow's file: each name, what it may hold, and one line of help. `shapes.py` has what it shares with syncs.

The published JSON Schema and the reference in the docs follow from these tables; a name added here must appear there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from counterfoil.flows.delivery import (
    BodyKeeping,
    Breaker,
    Call,
    Evidence,
    Expected,
    FileFrom,
    FileSpec,
    Inherits,
    Intake,
    KindSpec,
    LookUp,
    NameRule,
    ParentSpec,
    Part,
    PartType,
    Poll,
    Recheck,
    ReplyRule,
    Requeue,
    Target,
    Tls,
    WatchedFolder,
    WatchedTable,
)
from counterfoil.flows.kinds import column, duration, matching, qualified_table, size
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
    plain,
    said,
    table,
    text,
    whole,
)
from counterfoil.flows.shapes import AUTH_KIND, FUNCTION, NAME, ON_FAILURE, SCHEDULE_KIND, TIMEOUTS
from counterfoil.flows.template import TemplateError, compile_template
from counterfoil.flows.yamlfile import Node, Report
from counterfoil.model.delivery import Outcome, StepState
from counterfoil.model.retry import RetryPolicy

E = Entry
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PATH = matching(r"\S(?:.*\S)?", "Write a path with dots between names, such as data.id.", most=300)
HEADER = matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "Write the name of a header, such as Idempotency-Key.")


def template() -> Kind:
    """Any value whose texts may hold placeholders."""

    def read(node: Node, report: Report, label: str) -> Any:
        value = plain(node)
        try:
            compile_template(value)
        except TemplateError as error:
            report.fault(node.place, str(error), "Write {payload.name}; a brace as such is written twice: {{ or }}.")
            return BAD
        return value

    return Kind(read, {})


def named(shape: Shape, build: Callable[..., Any], needed: str, pattern: Kind = NAME) -> Kind:
    """A section of free names, each a section: a tuple of `build(name=…)` in the order written."""

    def read(node: Node, report: Report, label: str) -> Any:
        if not isinstance(node.value, dict) or not node.value:
            report.fault(node.place, f"{label} is {said(node.value)}, not a section with names.", needed)
            return BAD
        made = []
        for name, part in node.value.items():
            good = pattern.read(Node(name, part.line, part.key_line), report, f"A name in {label}") is not BAD
            values = shape.values(part, report)
            if good and values is not None:
                made.append(build(name=name, **values))
        return tuple(made)

    return Kind(read, {"type": "object", "additionalProperties": shape.schema})


# --- the other side -----------------------------------------------------------------------------------------------

_VALUES = table(text(empty=True), "Write names and values.")
TLS = Shape(
    "tls",
    (
        E("certificate", text(), "our certificate: a PEM file in the project folder, or ${NAME} for its path."),
        E("key", text(), "its private key, in the same ways."),
        E("authority", text(), "certificates of whom we trust, instead of the machine's own."),
    ),
    Tls,
)
BREAKER = Shape(
    "breaker",
    (
        E("failures", whole(1), "failures in a row, over all hosts, after which nothing is sent for a while."),
        E("open", duration(), "for how long at first; longer each time."),
    ),
    Breaker,
)
_TARGET = (
    E("url", text(), 'the base address: "${GATEWAY_URL}".', required=True),
    E("auth", AUTH_KIND, "how we show who we are; secrets as ${NAME}."),
    E("headers", _VALUES, "headers of every call."),
    E("tls", TLS.kind, "certificates of our own, and whom we trust."),
    E(
        "contract",
        matching(r"[\w.-]+\.(yaml|yml|json)", "Name a file in contracts/, such as gateway.yaml."),
        "the OpenAPI file in contracts/ that requests are held to.",
    ),
    E("timeouts", TIMEOUTS.kind, "how long to wait."),
    E("reply_bytes", size(), "how much of a reply is read."),
    E("concurrency", whole(1, 1000), "calls at one time, over all hosts."),
    E("rate", number(above=0), "calls a second, over all hosts."),
    E("bulk_share", number(0.01, 1), "the part of both that bulk re-runs may use; 0.25 is a quarter."),
    E("breaker", BREAKER.kind, "when to stop for a while."),
)
TARGET = Shape("destination", _TARGET, Target, '{url: "${GATEWAY_URL}"}')

# --- requests -----------------------------------------------------------------------------------------------------

PART = Shape(
    "part",
    (
        E("json", template(), "a template, sent as JSON."),
        E("text", template(), "a template, sent as text."),
        E("file", template(), "the item's file under this name; `true` for its own name."),
    ),
    lambda **given: given,
)


def _parts(node: Node, report: Report, label: str) -> Any:
    if not isinstance(node.value, dict) or not node.value:
        report.fault(
            node.place, f"{label} is {said(node.value)}.", "Write `parameters: {json: {...}}` and `file: {file: true}`."
        )
        return BAD
    made = []
    for name, part in node.value.items():
        given = PART.values(part, report)
        if given is None:
            return BAD
        if len(given) != 1:
            report.fault(part.place, f"The part `{name}` needs one of json, text and file.", "Write exactly one.")
            return BAD
        ((kind, content),) = given.items()
        made.append(Part(name, PartType(kind), None if kind == "file" and content is True else content))
    return tuple(made)


PARTS = Kind(_parts, {"type": "object", "additionalProperties": PART.schema})
_CALL = (
    E("method", choice(METHODS), "GET, POST, PUT, PATCH or DELETE.", required=True, blank="POST"),
    E("path", template(), "after the address, with placeholders: /clients/{payload.caseref}/reports.", required=True),
    E("query", table(template(), "Write names and values."), "parameters."),
    E("headers", table(template(), "Write names and values."), "headers of this call."),
    E("body", template(), "the JSON body, with placeholders."),
    E("function", FUNCTION, "a function of functions.py that makes the JSON body of an item."),
    E("parts", PARTS, "a multipart body: its parts by name."),
)
CALL = Shape("call", _CALL, Call, "{method: POST, path: /documents, body: {...}}")
_CALL_NAMES = frozenset(entry.name for entry in _CALL)


def with_call(build: Callable[..., Any]) -> Callable[..., Any]:
    """A section that holds a call and more: the call's names go into one Call."""

    def make(**given: Any) -> Any:
        call = Call(**{name: given.pop(name) for name in list(given) if name in _CALL_NAMES and name != "function"})
        return build(call=call, **given)

    return make


# --- files --------------------------------------------------------------------------------------------------------

FILE = Shape(
    "file",
    (
        E("from", choice(FileFrom), "item, object, payload, render or static.", attribute="source"),
        E(
            "value",
            template(),
            "the object's key, the payload's path, the function, or the file in the project folder.",
        ),
        E("name", template(), "what it is called there; the item's own name if not given."),
        E("content_type", text(), "such as application/pdf; by extension if not given."),
        E(
            "types",
            listed(
                matching(r"[a-z0-9]{1,10}", "Write extensions in small letters: [pdf, png]."),
                "Write a list: [pdf, png].",
            ),
            "extensions the other side takes.",
        ),
        E("least", size(), "the smallest it may be."),
        E("most", size(), "the largest it may be."),
        E("most_by_type", table(size(), "Write extensions and sizes: {pdf: 150MB}."), "the largest by extension."),
        E("encrypted", flag(), "whether encrypted PDFs are taken; false if not given."),
        E("ascii_text", flag(), "whether text files must be plain ASCII."),
        E("names", choice(NameRule), "how names are cleaned: as_it_is, underscore or last_dot."),
        E("name_length", whole(5, 1000), "the most characters of a name."),
        E("required", flag(), "false: an item without a file is sent without."),
    ),
    FileSpec,
    "{from: item, types: [pdf], most: 15MB}",
)

# --- kinds --------------------------------------------------------------------------------------------------------

PARENT = Shape(
    "parent",
    (
        E("kind", NAME, "the kind its parent is of.", required=True),
        E("inherits", choice(Inherits), "which of its group's a child gets that names none: last or first."),
        E("stand_in", text(), "the receipt where its group has none; without it the child waits for one."),
        E("wait", duration(), "how long a child waits before a person must look; 7d if not given."),
    ),
    ParentSpec,
)
_PARENT_NAME = Kind(lambda n, r, label: got if (got := NAME.read(n, r, label)) is BAD else ParentSpec(got), NAME.schema)
PARENT_KIND = either(
    lambda node: PARENT.kind if isinstance(node.value, dict) else _PARENT_NAME,
    _PARENT_NAME,
    PARENT.kind,
)
EXPECTED = Shape(
    "expected",
    (
        E("of", NAME, "the kind of item that says so.", required=True),
        E("key", template(), "the key it must have, over that item: {key}/attachment/{each.id}.", required=True),
        E("for_each", PATH, "a list in that item's payload: one for each entry."),
        E("when", table(anything(), "Write paths and values: {qualified: true}."), "only where its payload says so."),
        E("within", duration(), "so long after that item was accepted; 1h if not given."),
    ),
    Expected,
)


def _kind(name: str, handed_in: str | None = None, **given: Any) -> KindSpec:
    return KindSpec(name=name, **{"create": None, **given})


KIND = Shape(
    "kind",
    (
        E("create", CALL.kind, "the request that delivers it."),
        E("update", CALL.kind, "the request where it has a receipt already."),
        E("handed_in", choice(("with_receipt",)), "with_receipt: never sent; it is there already, others hang on it."),
        E("parent", PARENT_KIND, "the kind it waits for; or a section."),
        E("receipt", PATH, "where the reply holds what it gave for the item: data.id."),
        E("file", FILE.kind, "its file, and what the other side takes."),
        E("idempotency_header", HEADER, "where the other side takes a key: a resend is safe then."),
        E("confirmed", flag(), "true: its receipt is not yet success; `poll` confirms it."),
        E(
            "expected",
            listed(EXPECTED.kind, 'Write a list of rules: [{of: claim, key: "{key}/form"}].'),
            "what must exist of this kind.",
        ),
    ),
    _kind,
)
KINDS = named(KIND, _kind, "Write the kinds in their order: `report: {create: {...}}`, a parent before its children.")

# --- replies ------------------------------------------------------------------------------------------------------


def _status(node: Node, report: Report, label: str) -> Any:
    """404, "5xx", "500-503", or a list of them."""
    nodes = node.value if isinstance(node.value, list) else [node]
    found = [_range(one.value) for one in nodes]
    if not found or any(one is None for one in found):
        report.fault(node.place, f"{label} is no status.", 'Write 404, "5xx", "500-503", or a list of them.')
        return BAD
    return tuple(one for one in found if one is not None)


def _range(value: Any) -> range | None:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return range(value, value + 1)
    if not isinstance(value, str):
        return None
    if len(value) == 3 and value[0] in "12345" and value[1:].lower() == "xx":
        return range(int(value[0]) * 100, int(value[0]) * 100 + 100)
    low, dash, high = value.partition("-")
    if dash and low.isdecimal() and high.isdecimal() and 100 <= int(low) <= int(high) <= 599:
        return range(int(low), int(high) + 1)
    return None


STATUS = Kind(_status, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "array"}]})
REPLY = Shape(
    "reply",
    (
        E(
            "is",
            choice([str(one) for one in Outcome if one is not Outcome.NOT_FOUND]),
            "done, duplicate, refused, temporary, throttled or unknown.",
            attribute="outcome",
            required=True,
            blank="unknown",
        ),
        E("status", STATUS, "statuses it is about.", attribute="statuses"),
        E("code", text(), "the error's code, `*` at its end for anything."),
        E("says", text(), "a part of the body, whatever its case."),
        E("body", table(anything(), "Write paths and values: {error.code: X}."), "values at paths of the body."),
        E("receipt", PATH, "where the receipt stands, of done and duplicate."),
        E(
            "fault",
            matching(r"[a-z][a-z0-9_]*", "Small letters, digits and _.", most=60),
            "the fault word its items get.",
        ),
        E("after", duration(), "of temporary and throttled: not before so long."),
    ),
    lambda outcome, **given: ReplyRule(Outcome(outcome), **given),
    "{is: temporary, status: 403}",
)


def _absent(node: Node, report: Report, label: str) -> Any:
    found = _status(node, report, label)
    return BAD if found is BAD else tuple(status for some in found for status in some)


STATUSES = Kind(_absent, STATUS.schema)
LOOK_UP = Shape(
    "look_up",
    (
        *(entry for entry in _CALL if entry.name != "function"),
        E("destination", TARGET.kind, "another system than the one that is delivered to.", attribute="target"),
        E("items", PATH, "where the list stands in the answer; nothing for the answer itself."),
        E("match", table(template(), "Write paths of an entry and what must stand there."), "which entry is the item."),
        E("function", FUNCTION, "a function (answer, item) that gives the receipt or None, instead."),
        E("receipt", PATH, "where the entry holds the receipt; id if not given."),
        E("absent", STATUSES, "statuses that mean: not there; 404 if not given."),
        E("after", duration(), "how long the other side may still be at it; 2m if not given."),
    ),
    with_call(LookUp),
)

# --- confirmation -------------------------------------------------------------------------------------------------

RECHECK = Shape(
    "recheck",
    (
        E("every", duration(), "how often a success is asked about again."),
        E("keep", duration(), "after so long it is final."),
    ),
    Recheck,
)
POLL = Shape(
    "poll",
    (
        *(entry for entry in _CALL if entry.name != "function"),
        E("ids", whole(1, 10_000), "receipts in one call."),
        E("id_type", choice(("string", "integer")), "how they are written."),
        E("items", PATH, "where the list of answers stands; nothing for the body itself."),
        E("id", PATH, "of an entry: its receipt."),
        E("status", PATH, "of an entry: its status."),
        E(
            "values",
            table(choice([s for s in StepState if s is not StepState.UNKNOWN]), "Write statuses: {SUCCESS: done}."),
            "what statuses mean: done, failed or running.",
        ),
        E("steps", PATH, "of an entry: the list of its steps."),
        E("step_name", PATH, "of a step: its name."),
        E("step_status", PATH, "of a step: its status."),
        E("error", PATH, "of an entry: what went wrong."),
        E("error_step", PATH, "of an entry: at which step."),
        E("started", PATH, "of an entry: when it began there."),
        E("ended", PATH, "of an entry: when it ended there."),
        E("not_found", PATH, "the list of ids it does not know."),
        E("none_found", STATUSES, "statuses that say it knows none of them; 404 if not given."),
        E("not_found_limit", whole(1, 1000), "answers in a row after which a person must look."),
        E("first", duration(), "after the receipt."),
        E("every", duration(), "between two questions about the same."),
        E("deadline", duration(), "after the receipt: then a person has it."),
        E("recheck", RECHECK.kind, "success may be revoked: asked again."),
    ),
    with_call(lambda values=None, **given: Poll(values={n: StepState(v) for n, v in (values or {}).items()}, **given)),
)

# --- upkeep -------------------------------------------------------------------------------------------------------


def _retry(**given: Any) -> RetryPolicy:
    return RetryPolicy(**given)


RETRY = Shape(
    "retry",
    (
        E("first_delay", duration(), "before the second try.", attribute="item_first_delay"),
        E("max_delay", duration(), "between two tries.", attribute="item_max_delay"),
        E("budget", duration(), "how long it is tried before a person must look."),
        E("crashes", whole(1, 100), "of a worker over one item before a person must look."),
    ),
    _retry,
)
REQUEUE = Shape(
    "requeue",
    (
        E("schedule", SCHEDULE_KIND, "when: five fields, or a section.", required=True, blank=None),
        E(
            "faults",
            listed(
                matching(r"[a-z*][a-z0-9_]*\*?", "Write fault words: [unreachable, http_5*]."),
                "Write fault words: [unreachable, http_5*].",
            ),
            "which faults; * at the end for anything.",
            required=True,
            blank=(),
        ),
        E("younger", duration(), "only what was accepted within."),
        E("limit", whole(1, 100_000), "how many at one time."),
    ),
    Requeue,
)
REQUEUES = named(REQUEUE, Requeue, "Write names with sections: `overnight: {schedule: ..., faults: [...]}`.")
EVIDENCE = Shape(
    "evidence",
    (
        E("bodies", choice(BodyKeeping), "which bodies are kept, redacted: failures, always or never."),
        E(
            "redact",
            listed(PATH, "Write a list of paths: [data.email, items.*.name]."),
            "paths whose values are never kept; * for any.",
        ),
        E("most", whole(100, 100_000), "characters of a body that are kept."),
    ),
    Evidence,
)
_COLUMNS = table(anything(), "Write columns and values: {status: QUEUED}.")
WATCHED_TABLE = Shape(
    "table",
    (
        E("table", qualified_table(), "schema.table of the ledger's database.", required=True, blank=("", "")),
        E("key", column(), "the column that names a row.", required=True),
        E("where", _COLUMNS, "columns and values that say a row is waiting.", required=True, blank={}),
        E("taken", _COLUMNS, "columns and values it is given.", required=True, blank={}),
        E("kind", text(), "the kind, or {column}.", required=True),
        E("parent", column(), "the column with the parent's key."),
        E("group", column(), "the column with the group."),
        E("file", column(), "the column with the key of its file in the object store."),
        E("limit", whole(1, 10_000), "rows taken in one transaction."),
    ),
    lambda table, **given: WatchedTable(table=".".join(table), **given),
)
WATCHED_FOLDER = Shape(
    "folder",
    (
        E("folder", text(), "the folder, seen from the project folder.", required=True),
        E("kind", NAME, "the kind its files are of.", required=True),
        E("pattern", text(), "which files: *.pdf."),
        E("taken", text(), "the folder inside it that taken files are moved to."),
        E("settled_for", duration(), "a file younger than this is left alone; 5s if not given."),
    ),
    WatchedFolder,
)
INTAKE = Shape(
    "intake",
    (
        E("schedule", SCHEDULE_KIND, "when it is looked at; without one every few seconds."),
        E("table", WATCHED_TABLE.kind, "a table whose rows are waiting."),
        E("folder", WATCHED_FOLDER.kind, "a folder whose files are waiting."),
    ),
    Intake,
)


DELIVERY_ENTRIES = (
    E(
        "destination",
        TARGET.kind,
        "where items go, and how much it takes.",
        attribute="target",
        required=True,
        blank=None,
    ),
    E("kinds", KINDS, "the kinds of items in their order.", required=True, blank=()),
    E(
        "replies",
        listed(REPLY.kind, "Write a list of rules: [{is: temporary, status: 403}].", least=0),
        "what replies mean; the first that fits.",
    ),
    E("look_up", LOOK_UP.kind, "how to find out whether an item arrived."),
    E("poll", POLL.kind, "how accepted items are confirmed."),
    E("retry", RETRY.kind, "when to try again."),
    E("requeue", REQUEUES, "what is tried again on a schedule.", attribute="requeue"),
    E("evidence", EVIDENCE.kind, "what is kept of each exchange."),
    E("intake", INTAKE.kind, "a table or folder that items come from."),
    E("on_failure", ON_FAILURE.kind, "who looks at what went wrong, and by when."),
)
