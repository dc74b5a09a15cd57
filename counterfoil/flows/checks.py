"""What a flow says, beyond its shape: whether its parts fit together, its files exist, and its rows can be told apart.

Each check is one function of a draft and its nodes, listed in `CHECKS`; it reports and never raises. A part that is missing or wrong
is None or blank in the draft and has its fault already, so a check passes over it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from counterfoil.flows.checks_mapping import check_function, check_mapping
from counterfoil.flows.flow import Deletes, Destination, FieldType, PagingStyle, RecordMapping, SourceSpec
from counterfoil.flows.functions import Functions
from counterfoil.flows.kinds import REFERENCE, REFERENCE_REMEDY
from counterfoil.flows.yamlfile import Node, Report, did_you_mean


@dataclass(frozen=True, slots=True)
class Known:
    """What a flow may name. A mapping whose own file is faulty is None; so is `functions` where functions.py does not import."""

    mappings: Mapping[str, RecordMapping | None]
    functions: Functions | None
    folder: Path | None = None
    check_contract: Callable[[Path], Sequence[tuple[str, str]]] | None = (
        None  # faults of a contract: problem and remedy
    )


@dataclass(frozen=True, slots=True)
class Draft:
    """A flow as far as it could be read."""

    values: Mapping[str, Any]
    root: Node
    source: SourceSpec | None
    destination: Destination | None
    mapping: RecordMapping | None  # looked up by name, or inline

    def line(self, *names: str) -> int:
        return self.root.at(*names).place


def draft_of(values: Mapping[str, Any], root: Node, known: Known) -> Draft:
    given = values.get("mapping")
    mapping = known.mappings.get(given) if isinstance(given, str) else given
    return Draft(values, root, values.get("source"), values.get("destination"), mapping)


# --- source -------------------------------------------------------------------------------------------------------

_EVERY = frozenset({"connector", "url", "key", "changed", "limits"})
_CALLS = _EVERY | {"auth", "list", "detail", "watermark", "timeouts"}
_FIELDS = {"http": _CALLS | {"write_back", "headers"}, "aws_lambda": _CALLS, "file": _EVERY | {"encoding", "delimiter"}}
_CALL_FIELDS = {
    "http": {"path", "query", "items", "record", "paging"},
    "aws_lambda": {"function", "payload", "items", "record", "paging"},
}


def _fields_of_connector(draft: Draft, known: Known, report: Report) -> None:
    connector = draft.source.connector if draft.source else ""
    if connector not in _FIELDS:
        return
    _refuse_others(draft.root.at("source"), _FIELDS[connector], connector, report)
    for call in ("list", "detail"):
        section = draft.root.at("source").value.get(call)
        if section is not None and connector in _CALL_FIELDS and isinstance(section.value, dict):
            _refuse_others(section, _CALL_FIELDS[connector], connector, report)
            if connector == "aws_lambda" and "function" not in section.value:
                report.fault(
                    section.place, f"`function` is missing in {call}.", "Add the name or ARN of the Lambda function."
                )


_ALL_FIELDS = frozenset().union(*_FIELDS.values(), *_CALL_FIELDS.values())


def _refuse_others(section: Node, allowed: frozenset[str] | set[str], connector: str, report: Report) -> None:
    for name in section.value.keys() & (_ALL_FIELDS - allowed):
        report.fault(
            section.value[name].place,
            f"`{name}` means nothing to the connector {connector}.",
            f"Remove it. For {connector}: {', '.join(f'`{n}`' for n in sorted(allowed & _ALL_FIELDS))}.",
        )


def _url(draft: Draft, known: Known, report: Report) -> None:
    source = draft.source
    if source is None or not source.connector:
        return
    if not source.url and source.connector != "aws_lambda":
        report.fault(
            draft.line("source"), "`url` is missing in source.", 'Add `url: "${API_BASE_URL}"`, or the path of a file.'
        )
    elif source.connector == "file":
        _file_inside(source.url, draft.line("source", "url"), known, report)
    elif source.url and not re.match(r"https?://[^/]|\$\{", source.url):
        report.fault(
            draft.line("source", "url"),
            "`url` in source is no web address.",
            "It begins with https:// or with ${NAME}.",
        )


def _file_inside(url: str, line: int, known: Known, report: Report) -> None:
    path = PurePosixPath(url)
    outside = path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|\\|~", url) is not None
    if not outside and known.folder is not None:
        outside = not (known.folder / url).resolve().is_relative_to(known.folder.resolve())
    if outside:
        report.fault(
            line, "The file of the source is outside the project's folder.", "Put it inside, such as data/pets.csv."
        )
    elif "${" not in url and path.suffix.lower() not in (".csv", ".jsonl"):
        report.fault(line, "The file of the source is neither .csv nor .jsonl.", "Name a .csv or .jsonl file.")


def _paging(draft: Draft, known: Known, report: Report) -> None:
    needs = {
        PagingStyle.PAGE: ("param",),
        PagingStyle.OFFSET: ("param",),
        PagingStyle.CURSOR: ("param", "next_at"),
        PagingStyle.NEXT_URL: ("next_at",),
    }
    examples = {
        "param": "`param: page`, the query parameter",
        "next_at": "`next_at: meta.next`, where it stands in the body",
    }
    paging = draft.source.list.paging if draft.source else None
    for name in needs.get(paging.style, ()) if paging else ():
        if getattr(paging, name) is None:
            line = draft.line("source", "list", "paging")
            report.fault(line, f"Paging by {paging.style if paging else ''} needs `{name}`.", f"Add {examples[name]}.")


_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")


def _placeholders(node: Node) -> Iterator[tuple[str, int]]:
    for text, line in _texts(node):
        for name in _PLACEHOLDER.findall(text):
            yield name, line


def _texts(node: Node) -> Iterator[tuple[str, int]]:
    if isinstance(node.value, str):
        yield node.value, node.line
    parts = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    for part in parts:
        yield from _texts(part)


def _placeholders_known(draft: Draft, known: Known, report: Report) -> None:
    source = draft.root.at("source")
    for call, names in (("list", ("since", "until")), ("detail", ("key",)), ("write_back", ("key",))):
        if not isinstance(source.value, dict) or call not in source.value:
            continue
        used = list(_placeholders(source.value[call]))
        for name, line in used:
            if name not in names:
                report.fault(line, f"Unknown placeholder `{{{name}}}` in {call}.", did_you_mean(name, names))
        if call != "list" and "key" not in [name for name, _ in used]:
            line = source.value[call].place
            report.fault(
                line,
                f"`{call}` does not say which record: `{{key}}` is not used.",
                'Put it in, as in path: "/data/{key}".',
            )


def _window(draft: Draft, known: Known, report: Report) -> None:
    if draft.source is None or draft.source.connector == "file":
        return
    section = draft.root.at("source", "list")
    asks = section is not draft.root.at("source") and {n for n, _ in _placeholders(section)} & {"since", "until"}
    declared = "watermark" in draft.root.at("source").value
    if declared and not asks:
        problem = "There is a watermark, but the list call asks for no time: every run would read everything."
        report.fault(
            draft.line("source", "watermark"), problem, 'Put "{since}" in the query or payload, or remove `watermark`.'
        )
    if asks and not declared:
        problem = "The list call uses {since} or {until}, but there is no watermark to take it from."
        report.fault(section.place, problem, "Add `watermark: {overlap: 5m, lookback: 7d}` to the source.")
    if declared and draft.source.changed is None:
        problem = "There is a watermark but no `changed`: the watermark then follows the start of each run."
        report.note(
            draft.line("source", "watermark"), problem, "Add `changed:` if records hold the time of their last change."
        )


_SECRET_HEADER = re.compile(r"authorization|cookie|.*(api[-_]?key|token|secret|password).*", re.IGNORECASE)
_SECRET_PARAM = re.compile(
    r"(api_?key|access_?token|auth_?token|token|secret|client_?secret|password|passwd)", re.IGNORECASE
)


def _secrets(draft: Draft, known: Known, report: Report) -> None:
    source = draft.root.at("source")
    if not isinstance(source.value, dict):
        return
    remedy = 'Put it in an environment variable and write its name: "${API_TOKEN}". Then change the secret.'
    places = [(("headers",), _SECRET_HEADER), (("list", "query"), _SECRET_PARAM), (("list", "payload"), _SECRET_PARAM)]
    places += [(("detail", "query"), _SECRET_PARAM), (("detail", "payload"), _SECRET_PARAM)]
    for path, pattern in places:
        section = source.at(*path[:-1]).value
        section = section.get(path[-1]) if isinstance(section, dict) else None
        for name, part in section.value.items() if section is not None and isinstance(section.value, dict) else ():
            if pattern.fullmatch(name) and isinstance(part.value, str) and not _PLACED.search(part.value):
                report.fault(part.place, f"A secret stands in clear in `{name}`.", remedy)
    url = source.at("url")
    if (
        isinstance(url.value, str)
        and re.match(r"https?://[^/]*:[^/]*@", url.value)
        and "${" not in url.value.rpartition("@")[0]
    ):
        report.fault(
            url.place,
            "A password stands in clear in the `url`.",
            "Use `auth: {type: basic, ...}` with ${NAME} references.",
        )


_PLACED = re.compile(r"\$\{|\{(key|since|until)\}")


def _references(draft: Draft, known: Known, report: Report) -> None:
    for name, part in draft.root.value.items():
        for text, line in _texts(part):
            for found in re.findall(r"\$\{[^}]*\}?", text):
                if not REFERENCE.fullmatch(found):
                    report.fault(line, "A reference to an environment variable is not well formed.", REFERENCE_REMEDY)
                elif name != "source":
                    report.fault(
                        line, f"`${{NAME}}` is only read in `source`, not in `{name}`.", "Write the value itself."
                    )


# --- mapping and destination --------------------------------------------------------------------------------------


def _mapping_known(draft: Draft, known: Known, report: Report) -> None:
    name = draft.values.get("mapping")
    if isinstance(name, str) and name not in known.mappings:
        remedy = did_you_mean(name, tuple(known.mappings)) if known.mappings else f"Write mappings/{name}.yaml."
        report.fault(draft.line("mapping"), f"There is no mapping `{name}`: mappings/{name}.yaml is not there.", remedy)
    elif isinstance(name, RecordMapping):
        check_mapping(name, draft.root.at("mapping"), known.functions, report)


def _decision_known(draft: Draft, known: Known, report: Report) -> None:
    name = draft.values.get("decision")
    if name:
        check_function(name, draft.line("decision", "function"), known.functions, report)


def _key_columns(draft: Draft, known: Known, report: Report) -> None:
    fields = {spec.column: spec for spec in draft.mapping.fields} if draft.mapping else {}
    for name in draft.destination.key if draft.destination and fields else ():
        line = draft.line("destination", "key")
        if name not in fields:
            report.fault(
                line, f"The key column `{name}` is not made by the mapping.", did_you_mean(name, tuple(fields))
            )
        elif not fields[name].required:
            problem = f"The key column `{name}` may be empty: field `{fields[name].internal}` is not required."
            report.fault(line, problem, "Add `required: true` to the field; rows without a key cannot be told apart.")
        elif fields[name].type is FieldType.JSON:
            report.fault(line, f"The key column `{name}` is json.", "Use a string, a number or a date as the key.")


def _own_columns(draft: Draft, known: Known, report: Report) -> None:
    """created, updated and deletes.soft name columns of ours; the mapping must not fill them, nor two of them be one."""
    destination = draft.destination
    if destination is None:
        return
    mapped = {spec.column for spec in draft.mapping.fields} if draft.mapping else set()
    taken: dict[str, str] = {}
    ours = {
        "created": destination.created_column,
        "updated": destination.updated_column,
        "deletes": destination.deleted_column,
    }
    for what, name in ours.items():
        if name and name in mapped:
            report.fault(
                draft.line("destination", what),
                f"`{name}` ({what}) is also made by the mapping.",
                "Rename one of the two columns.",
            )
        if name and name in taken:
            report.fault(
                draft.line("destination", what),
                f"`{name}` is {taken[name]} and {what}.",
                "Give each a column of its own.",
            )
        taken.setdefault(name or "", what)


def _indexes(draft: Draft, known: Known, report: Report) -> None:
    to = draft.destination
    if to is None or draft.mapping is None or not draft.mapping.fields:
        return
    columns = [spec.column for spec in draft.mapping.fields]
    columns += [name for name in (to.created_column, to.updated_column, to.deleted_column) if name]
    nodes = draft.root.at("destination", "indexes").value
    for index, node in zip(to.indexes, nodes if isinstance(nodes, list) else (), strict=False):
        for name in (entry.split()[0] for entry in index):
            if name not in columns:
                report.fault(
                    node.line,
                    f"An index names the column `{name}`, which the table will not have.",
                    did_you_mean(name, columns),
                )


def _deletes(draft: Draft, known: Known, report: Report) -> None:
    if draft.destination is None or draft.destination.deletes is not Deletes.SOFT or draft.source is None:
        return
    if draft.source.watermark is not None:
        problem = "Soft deletes need the complete list in each run, but the watermark asks only for what changed."
        remedy = "Remove `watermark` (and {since}), or write `deletes: ignore`; else every record that did not change would be deleted."
        report.fault(draft.line("destination", "deletes"), problem, remedy)


def _write_back_names(draft: Draft, known: Known, report: Report) -> None:
    call = draft.source.write_back if draft.source else None
    names = [spec.internal for spec in draft.mapping.fields] if draft.mapping else []
    for external, name in call.body.items() if call and names else ():
        if not name.startswith("=") and name not in names:
            line = draft.line("source", "write_back", "body", external)
            remedy = f'{did_you_mean(name, names)} A fixed text begins with =, such as "=synced".'
            report.fault(
                line, f"`{external}` of write_back names the field `{name}`, which the mapping does not make.", remedy
            )


def _in_order(draft: Draft, known: Known, report: Report) -> None:
    """Pairs of settings of which one must not be above the other."""
    pairs = [
        ("pull", "concurrency", "adaptive_max"),
        ("retry", "first_delay", "max_delay"),
        ("retry", "item_first_delay", "item_max_delay"),
    ]
    sections = {name: draft.values.get(name) for name in ("pull", "retry")}
    sections["timeouts"] = draft.source.timeouts if draft.source else None
    for section, low, high in [*pairs, ("timeouts", "first_byte", "total"), ("timeouts", "connect", "total")]:
        least, most = getattr(sections[section], low, None), getattr(sections[section], high, None)
        if least is not None and most is not None and most < least:
            above = ("source", section) if section == "timeouts" else (section,)
            report.fault(
                draft.line(*above, high),
                f"`{high}` in {section} is less than `{low}`.",
                f"Raise `{high}` or lower `{low}`.",
            )


def _file_encoding(draft: Draft, known: Known, report: Report) -> None:
    try:
        "".encode(draft.source.encoding if draft.source else "utf-8")
    except LookupError:
        line = draft.line("source", "encoding")
        report.fault(
            line, "`encoding` in source is none that Python knows.", "Write utf-8, utf-8-sig, latin-1 or cp1252."
        )


CHECKS: tuple[Callable[[Draft, Known, Report], None], ...] = (
    _fields_of_connector,
    _url,
    _file_encoding,
    _paging,
    _placeholders_known,
    _window,
    _secrets,
    _references,
    _mapping_known,
    _decision_known,
    _key_columns,
    _own_columns,
    _indexes,
    _deletes,
    _write_back_names,
    _in_order,
)
