"""The tables of a delivery flow's file: kinds, replies, look-up, poll, upkeep. `shapes_call.py` has what it shares with relays.

The published JSON Schema and the reference in the docs follow from these tables; a name added here must appear there.
"""

from __future__ import annotations

from typing import Any

from counterfoil.flows.delivery import (
    BodyKeeping,
    Evidence,
    Expected,
    Inherits,
    Intake,
    KindSpec,
    LookUp,
    ParentSpec,
    Poll,
    Recheck,
    ReplyRule,
    Requeue,
    WatchedFolder,
    WatchedTable,
)
from counterfoil.flows.flow import OnFailure
from counterfoil.flows.kinds import column, duration, matching, qualified_table, size
from counterfoil.flows.shape import BAD, Entry, Kind, Shape, choice, either, flag, listed, single, table, text, whole
from counterfoil.flows.shapes import FUNCTION, NAME, SCHEDULE_KIND
from counterfoil.flows.shapes import ON_FAILURE as OF_A_SYNC
from counterfoil.flows.shapes_call import (
    CALL,
    FILE,
    HEADER,
    PATH,
    PLAIN_CALL,
    TARGET,
    named,
    reply_path,
    single_template,
    text_template,
    with_call,
)
from counterfoil.flows.yamlfile import Node, Report
from counterfoil.model.delivery import Outcome, StepState
from counterfoil.model.retry import RetryPolicy

E = Entry

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
        E("key", text_template(empty=False), "the key it must have: {key}/attachment/{each.id}.", required=True),
        E("for_each", PATH, "a list in that item's payload: one for each entry."),
        E(
            "when",
            table(single(), "Write paths and values: {qualified: true}.", names=PATH),
            "only where its payload says so.",
        ),
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
_IN_ORDER = "Write the kinds in their order: `report: {create: {...}}`, a parent before its children."
KINDS = named(KIND, _kind, _IN_ORDER, NAME)

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


_ONE_STATUS = {
    "anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^([1-5][xX]{2}|[1-5][0-9]{2}-[1-5][0-9]{2})$"},
    ]
}
STATUS = Kind(_status, {"anyOf": [*_ONE_STATUS["anyOf"], {"type": "array", "items": _ONE_STATUS, "minItems": 1}]})
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
        E(
            "body",
            table(single(), "Write paths and values: {error.code: X}.", names=PATH),
            "values at paths of the body.",
        ),
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
        *PLAIN_CALL,
        E("destination", TARGET.kind, "another system than the one that is delivered to.", attribute="target"),
        E("items", reply_path(empty=True), "where the list stands in the answer; nothing for the answer itself."),
        E(
            "match",
            table(single_template(), 'Write paths and values: {ref: "{key}"}.', names=PATH),
            "which entry is the item.",
        ),
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
        *PLAIN_CALL,
        E("ids", whole(1, 10_000), "receipts in one call."),
        E("id_type", choice(("string", "integer")), "how they are written."),
        E("items", reply_path(empty=True), "where the list of answers stands; nothing for the body itself."),
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

RETRY = Shape(
    "retry",
    (
        E("first_delay", duration(), "before the second try.", attribute="item_first_delay"),
        E("max_delay", duration(), "between two tries.", attribute="item_max_delay"),
        E("budget", duration(), "how long it is tried before a person must look."),
        E("crashes", whole(1, 100), "of a worker over one item before a person must look."),
    ),
    RetryPolicy,
)
_FAULTS = "Write fault words, * at their end for anything: [unreachable, http_5*]."
_FAULT_WORDS = matching(r"[a-z0-9][a-z0-9_]*\*?", _FAULTS, most=60)
REQUEUE = Shape(
    "requeue",
    (
        E("schedule", SCHEDULE_KIND, "when: five fields, or a section.", required=True, blank=None),
        E(
            "faults",
            listed(_FAULT_WORDS, _FAULTS),
            "which faults; * at the end for anything.",
            required=True,
            blank=(),
        ),
        E("younger", duration(), "only what was accepted within."),
        E("limit", whole(1, 100_000), "how many at one time."),
    ),
    Requeue,
)
_RULES = "Write names with sections: `overnight: {schedule: ..., faults: [...]}`."
REQUEUES = named(REQUEUE, Requeue, _RULES, NAME)
EVIDENCE = Shape(
    "evidence",
    (
        E("bodies", choice(BodyKeeping), "which bodies are kept, redacted: failures, always or never."),
        E(
            "redact",
            listed(PATH, "Write a list of paths: [data.email, items.*.name]."),
            "paths whose values are never kept; * for any.",
        ),
        E("most", size(), "how much of a body is kept; 4KB if not given."),
    ),
    Evidence,
)
_COLUMNS = table(single(), "Write columns and values: {status: QUEUED}.", names=column())
_KIND_OR_COLUMN = matching(
    r"[a-z0-9][a-z0-9_-]*|\{[A-Za-z_][A-Za-z0-9_]*\}", 'Write a kind, or "{column}" where a column names it.', most=65
)
WATCHED_TABLE = Shape(
    "table",
    (
        E("table", qualified_table(), "schema.table of the ledger's database.", required=True, blank=("", "")),
        E("key", column(), "the column that names a row.", required=True),
        E("where", _COLUMNS, "columns and values that say a row is waiting.", required=True, blank={}),
        E("taken", _COLUMNS, "columns and values it is given.", required=True, blank={}),
        E("kind", _KIND_OR_COLUMN, "the kind, or {column}.", required=True),
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
# What is rejected is counted by syncs only.
ON_FAILURE = Shape(
    "on_failure", tuple(entry for entry in OF_A_SYNC.entries if entry.name in ("owner", "due")), OnFailure
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
