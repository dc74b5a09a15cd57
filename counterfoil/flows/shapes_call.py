"""The tables of what goes over the wire: the other side, calls with their templates, files. Shared by deliveries and relays.

The published JSON Schema and the reference in the docs follow from these tables; a name added here must appear there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from counterfoil.flows.delivery import Breaker, Call, FileFrom, FileSpec, NameRule, Part, PartType, Target, Tls
from counterfoil.flows.kinds import duration, matching, size
from counterfoil.flows.shape import (
    BAD,
    Entry,
    Kind,
    Shape,
    choice,
    flag,
    good_name,
    listed,
    number,
    plain,
    said,
    scalar_kind,
    single,
    table,
    text,
    unquoted,
    whole,
)
from counterfoil.flows.shapes import AUTH_KIND, FUNCTION, TIMEOUTS
from counterfoil.flows.template import TemplateError, compile_template
from counterfoil.flows.yamlfile import Node, Report

E = Entry
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
CONTRACT_FILE = matching(r"[A-Za-z0-9][\w.-]*\.(yaml|yml|json)", "Name a file in contracts/, such as gateway.yaml.")
_BRACES = "placeholders such as {payload.name}; a brace as such is written twice: {{ or }}."

# --- templates ----------------------------------------------------------------------------------------------------


def template() -> Kind:
    """Any value whose texts may hold placeholders."""

    def read(node: Node, report: Report, label: str) -> Any:
        return BAD if _bare_brace(node, report, label) or _wrong(node, report) else plain(node)

    return Kind(read, {})


def single_template() -> Kind:
    """A single value; a text may hold placeholders."""
    kind = single()

    def read(node: Node, report: Report, label: str) -> Any:
        value = kind.read(node, report, label)
        return BAD if value is BAD or _wrong(node, report) else value

    return Kind(read, kind.schema)


def text_template(*, empty: bool = True, odd: Callable[[str], str] = lambda text: "") -> Kind:
    """A text with placeholders. `odd(text)` gives a sentence for what it may not be, or ""."""

    def check(value: Any) -> str:
        written = value if isinstance(value, str) else json.dumps(value)
        compile_template(written)
        if not written and not empty:
            raise ValueError
        if problem := odd(written):
            raise ValueError(problem)
        return written

    return scalar_kind(check, f"Write a text, with {_BRACES}", {"type": ["string", "number", "boolean"]})


def _inside(node: Node) -> list[Node]:
    return (
        list(node.value.values())
        if isinstance(node.value, dict)
        else node.value
        if isinstance(node.value, list)
        else []
    )


def _bare_brace(node: Node, report: Report, label: str) -> bool:
    inside = [_bare_brace(part, report, label) for part in _inside(node)]  # all of them are told
    return unquoted(node, report, label) or any(inside)


def _wrong(node: Node, report: Report) -> bool:
    """Told at the line of the very text, or of the very name."""
    found = [_wrong(part, report) for part in _inside(node)]
    own: list[tuple[Any, int]] = [(node.value, node.place)] if isinstance(node.value, str) else []
    if isinstance(node.value, dict):
        own = [({name: None}, part.place) for name, part in node.value.items()]
    return any([*found, *(_odd_template(value, line, report) for value, line in own)])


def _odd_template(value: Any, line: int, report: Report) -> bool:
    try:
        compile_template(value)
    except TemplateError as error:
        report.fault(line, str(error), f"Write {_BRACES}")
        return True
    return False


_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def odd_path(path: str) -> str:
    """What is wrong with the path of a call, seen without its placeholders."""
    fixed = _PLACEHOLDER.sub("x", path)
    if fixed and not fixed.startswith("/"):
        return f"The path `{path[:60]}` does not begin with /."
    if "?" in fixed or "#" in fixed:
        return f"The path `{path[:60]}` holds parameters; they stand in `query`."
    if any(segment in (".", "..") for segment in fixed.split("/")) or "//" in fixed or "\\" in fixed:
        return f"The path `{path[:60]}` is not straight: it holds `..`, `.`, `//` or a backslash."
    return "" if fixed.isprintable() else "The path holds a character that no address has."


def odd_header(value: str) -> str:
    return (
        "" if all(char == "\t" or char.isprintable() for char in value) else "The value of a header holds a line break."
    )


def reply_path(*, empty: bool = False) -> Kind:
    """A path in a body: names with dots between. `empty`: may be the body itself."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > 300 or not value.isprintable():
            raise ValueError
        if any(not name or name != name.strip() for name in value.split(".")) and (value or not empty):
            raise ValueError
        return value

    return scalar_kind(check, "Write names with dots between them, such as data.id.", {"type": "string"})


PATH = reply_path()
# Set by the connection itself; a second one would say something else to each side.
_OURS = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"})
_HEADER = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"


def header() -> Kind:
    def check(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(_HEADER, value) or len(value) > 100:
            raise ValueError
        if value.lower() in _OURS:
            raise ValueError(f"The header `{value}` is set by the connection itself.")
        return value

    return scalar_kind(
        check, "Write the name of a header, such as Idempotency-Key.", {"type": "string", "pattern": f"^{_HEADER}$"}
    )


HEADER = header()


def named(shape: Shape, build: Callable[..., Any], needed: str, names: Kind) -> Kind:
    """A section of free names, each a section: a tuple of `build(name=…)` in the order written."""

    def read(node: Node, report: Report, label: str) -> Any:
        if not isinstance(node.value, dict) or not node.value:
            report.fault(node.place, f"{label} is {said(node.value)}, not a section with names.", needed)
            return BAD
        made = []
        for name, part in node.value.items():
            good = good_name(names, name, part, report, label)
            values = shape.values(part, report)
            if good and values is not None:
                made.append(build(name=name, **values))
        return tuple(made)

    return Kind(read, {"type": "object", "additionalProperties": shape.schema})


# --- the other side -----------------------------------------------------------------------------------------------

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
_HEADERS = table(text(empty=True), "Write header names and values.", names=HEADER)
TARGET = Shape(
    "destination",
    (
        E("url", text(), 'the base address: "${GATEWAY_URL}".', required=True),
        E("auth", AUTH_KIND, "how we show who we are; secrets as ${NAME}."),
        E("headers", _HEADERS, "headers of every call."),
        E("tls", TLS.kind, "certificates of our own, and whom we trust."),
        E("contract", CONTRACT_FILE, "the OpenAPI file in contracts/ that requests are held to."),
        E("timeouts", TIMEOUTS.kind, "how long to wait."),
        E("reply_bytes", size(), "how much of a reply is read."),
        E("concurrency", whole(1, 1000), "calls at one time, over all hosts."),
        E("rate", number(0.001, 100_000), "calls a second, over all hosts."),
        E("bulk_share", number(0.01, 1), "the part of both that bulk re-runs may use; 0.25 is a quarter."),
        E("breaker", BREAKER.kind, "when to stop for a while."),
    ),
    Target,
    '{url: "${GATEWAY_URL}"}',
)

# --- calls --------------------------------------------------------------------------------------------------------

PART = Shape(
    "part",
    (
        E("json", template(), "a template, sent as JSON."),
        E("text", text_template(), "a template, sent as text."),
        E("file", single_template(), "the item's file under this name; `true` for its own name."),
    ),
    lambda **given: given,
)
_PARTS_REMEDY = "Write `parameters: {json: {...}}` and `file: {file: true}`."


def _parts(node: Node, report: Report, label: str) -> Any:
    if not isinstance(node.value, dict) or not node.value:
        report.fault(node.place, f"{label} is {said(node.value)}.", _PARTS_REMEDY)
        return BAD
    made = [_part(name, part, report) for name, part in node.value.items()]
    return BAD if any(part is BAD for part in made) else tuple(made)


def _part(name: str, node: Node, report: Report) -> Any:
    given = PART.values(node, report)
    if given is None or not isinstance(node.value, dict):
        return BAD
    if len(node.value) != 1:
        report.fault(node.place, f"The part `{name}` needs one of json, text and file.", "Write exactly one.")
        return BAD
    if not given:
        return BAD  # told
    ((kind, content),) = given.items()
    if kind == "file" and content is not True and (not isinstance(content, str) or not content):
        remedy = 'Write `file: true` for its own name, or a name: "{payload.name}".'
        report.fault(node.place, f"`file` of the part `{name}` is {said(content)}.", remedy)
        return BAD
    return Part(name, PartType(kind), None if content is True and kind == "file" else content)


PARTS = Kind(_parts, {"type": "object", "additionalProperties": PART.schema})
CALL_ENTRIES = (
    E("method", choice(METHODS), "GET, POST, PUT, PATCH or DELETE.", required=True, blank="POST"),
    E("path", text_template(odd=odd_path), "after the address: /clients/{payload.caseref}/reports.", required=True),
    E("query", table(text_template(), "Write names and values."), "parameters, with placeholders."),
    E(
        "headers",
        table(text_template(odd=odd_header), "Write names and values.", names=HEADER),
        "headers of this call.",
    ),
    E("body", template(), "the JSON body, with placeholders."),
    E("function", FUNCTION, "a function of functions.py that makes the JSON body of an item."),
    E("parts", PARTS, "a multipart body: its parts by name."),
)
CALL = Shape("call", CALL_ENTRIES, Call, "{method: POST, path: /documents, body: {...}}")
PLAIN_CALL = tuple(entry for entry in CALL_ENTRIES if entry.name not in ("function", "parts"))
_PLAIN_NAMES = frozenset(entry.name for entry in PLAIN_CALL)


def with_call(build: Callable[..., Any]) -> Callable[..., Any]:
    """For a section that holds a call and more: the call's names go into one Call."""

    def make(**given: Any) -> Any:
        call = Call(**{name: value for name, value in given.items() if name in _PLAIN_NAMES})
        return build(call=call, **{name: value for name, value in given.items() if name not in _PLAIN_NAMES})

    return make


# --- files --------------------------------------------------------------------------------------------------------

_EXTENSION = matching(r"[a-z0-9]{1,10}", "Write extensions in small letters: [pdf, png].")
FILE = Shape(
    "file",
    (
        E("from", choice(FileFrom), "item, object, payload, render or static.", attribute="source"),
        E("value", text_template(), "the object's key, the payload's path, the function, or the file in the project."),
        E("name", text_template(empty=False), "what it is called there; the item's own name if not given."),
        E("content_type", matching(r"[\w.+-]+/[\w.+-]+", "Write it like application/pdf."), "by extension if not given."),
        E("types", listed(_EXTENSION, "Write a list: [pdf, png]."), "extensions the other side takes."),
        E("least", size(), "the smallest it may be."),
        E("most", size(), "the largest it may be."),
        E("most_by_type", table(size(), "Write extensions and sizes: {pdf: 150MB}.", names=_EXTENSION), "the largest by extension."),
        E("encrypted", flag(), "whether encrypted PDFs are taken; false if not given."),
        E("ascii_text", flag(), "whether text files must be plain ASCII."),
        E("names", choice(NameRule), "how names are cleaned: as_it_is, underscore or last_dot."),
        E("name_length", whole(5, 1000), "the most characters of a name."),
        E("required", flag(), "false: an item without a file is sent without."),
    ),
    FileSpec,
    "{from: item, types: [pdf], most: 15MB}",
)  # fmt: skip
