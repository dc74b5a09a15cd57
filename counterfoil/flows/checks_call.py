"""What calls, their templates, files and destinations say, beyond their shape. Shared by the checks of deliveries and of relays.

As in `checks.py`: each check reports and never raises; what is missing or wrong has its fault already, and is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from counterfoil.flows.checks import Known
from counterfoil.flows.checks_mapping import check_function
from counterfoil.flows.delivery import Call, Evidence, FileFrom, FileSpec, KindSpec, PartType, ReplyRule, Target
from counterfoil.flows.kinds import REFERENCE, REFERENCE_REMEDY
from counterfoil.flows.paths import PATH_REMEDY, parse_path
from counterfoil.flows.template import TemplateError, compile_template
from counterfoil.flows.yamlfile import Node, Report, did_you_mean
from counterfoil.model.delivery import Outcome

MOST_KEPT = 1024 * 1024  # bytes of a body, as evidence

# What templates may name, by where they stand.
ITEM = ("key", "kind", "group", "payload", "receipt", "idempotency_key", "attempt", "accepted_at")
AT_DESK = ("key", "kind", "group", "payload")  # before a file is ready
PARENT = ("parent.receipt", "parent.key", "parent.payload")
FILE = ("file.name", "file.type", "file.size", "file.sha256", "file.object", "file.base64")
REQUEST = ("path", "query", "body", "caller", "operation")
# These hold more; the others are single values.
_SECTIONS = frozenset({"payload", "parent.payload", "path", "query", "body", "found", "answer", "each"})
_LISTS = frozenset({"receipts", *_SECTIONS} - {"found", "each"})  # can't stand inside a longer text
# What is known elsewhere only: why not here, and what to do.
_ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "parent": ("the kind has no parent", "Add `parent:` with the kind it waits for."),
    "file": ("there is no `file` here", "Add `file: {from: item}` where the item has one."),
    "each": ("there is no `for_each`", "Add `for_each:` with the path of the list."),
    "receipts": ("only the query or body of `poll` has it", "Write {receipt} for the item's own."),
    "found": ("there is no `find` with a `function` here", "Add it, or remove the placeholder."),
    "answer": ("only `reply` has it", "Use it in `reply: {body: ...}`."),
}


@dataclass(frozen=True, slots=True)
class DeliveryDraft:
    """A delivery or relay flow as far as it could be read."""

    values: Mapping[str, Any]
    root: Node

    @property
    def target(self) -> Target | None:
        found = self.values.get("target")
        return found if isinstance(found, Target) else None

    @property
    def kinds(self) -> dict[str, KindSpec]:
        return {kind.name: kind for kind in self.values.get("kinds") or () if isinstance(kind, KindSpec)}

    def line(self, *names: str) -> int:
        return self.root.at(*names).place


def given(node: Node, name: str) -> Node | None:
    """The node of an entry, where it is written at all."""
    found = node.value.get(name) if isinstance(node.value, dict) else None
    return found if isinstance(found, Node) else None


# --- templates ----------------------------------------------------------------------------------------------------


def texts(node: Node | None) -> Iterator[tuple[str, int]]:
    """All texts in a node, with their lines."""
    if node is None:
        return
    if isinstance(node.value, str):
        yield node.value, node.line
    parts = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    for part in parts:
        yield from texts(part)


def check_names(node: Node | None, names: tuple[str, ...], report: Report) -> None:
    """Every placeholder in `node` is one of `names`, or inside one that holds more."""
    for text, line in texts(node):
        try:
            used = compile_template(text).names
        except TemplateError:
            continue  # told by the shape
        for name in sorted(used):
            if not _known(name, names):
                report.fault(line, *_unknown(name, names))
            elif name in _LISTS and text not in (f"{{{name}}}", f"{{{name}?}}"):
                problem = f"`{{{name}}}` is no single value, and stands inside a text."
                report.fault(line, problem, f'Write it alone, as "{{{name}}}", or name a value in it.')


def _known(name: str, names: tuple[str, ...]) -> bool:
    return name in names or any(name.startswith(f"{one}.") for one in names if one in _SECTIONS)


def _unknown(name: str, names: tuple[str, ...]) -> tuple[str, str]:
    root = name.partition(".")[0]
    if root in _ELSEWHERE and not any(one.partition(".")[0] == root for one in names):
        why, remedy = _ELSEWHERE[root]
        return f"`{{{name}}}` is used, but {why}.", remedy
    return f"Unknown placeholder `{{{name}}}`.", did_you_mean(name, list(names))


# --- calls --------------------------------------------------------------------------------------------------------

_TEXTS = ("path", "query", "headers", "body", "parts")


def check_call(call: Call, node: Node, names: tuple[str, ...], known: Known, report: Report) -> None:
    """One body, placeholders that exist, a function that exists."""
    bodies = {"body": call.body is not None, "function": call.function is not None, "parts": bool(call.parts)}
    kept = [name for name, there in bodies.items() if there]
    if len(kept) > 1:
        said = " and ".join(f"`{name}`" for name in kept)
        report.fault(node.place, f"The call has {said}.", "Keep one of them: it has one body.")
    if kept and call.method in ("GET", "DELETE"):
        report.fault(
            node.at(kept[0]).place, f"A {call.method} has no body.", "Use another method, or put it in `query`."
        )
    if call.function:
        check_function(call.function, node.at("function").place, known.functions, report)
    for part in _TEXTS:
        check_names(given(node, part), names, report)


def check_file_parts(call: Call, file: FileSpec | None, node: Node, report: Report) -> None:
    parts = [part for part in call.parts if part.type is PartType.FILE]
    if parts and file is None:
        problem = f"The part `{parts[0].name}` sends a file, but there is none."
        report.fault(node.at("parts").place, problem, "Add `file: {from: item}` beside the call.")
    if len(parts) > 1:
        report.fault(node.at("parts").place, "The call has two parts of type file.", "Keep one: an item has one file.")


# --- files --------------------------------------------------------------------------------------------------------

_NEEDS: Mapping[FileFrom, str] = {
    FileFrom.OBJECT: 'the key: value: "{payload.storage_key}"',
    FileFrom.PAYLOAD: "the path of the base64 text: value: document.content",
    FileFrom.RENDER: "the function: value: letter_pdf",
    FileFrom.STATIC: "the file: value: files/instructions.pdf",
}


def check_file(spec: FileSpec, node: Node, names: tuple[str, ...], known: Known, report: Report) -> None:
    """Where a file comes from is said whole, and is there."""
    if spec.source in _NEEDS and not spec.value:
        report.fault(node.place, f"A file from {spec.source} needs `value`.", f"Add {_NEEDS[spec.source]}.")
    elif spec.source is FileFrom.ITEM and spec.value:
        problem = "`value` says nothing about a file that is handed in with the item."
        report.fault(node.at("value").place, problem, "Remove it, or write another `from`.")
    elif spec.source is FileFrom.OBJECT:
        check_names(given(node, "value"), names, report)
    elif spec.source is FileFrom.PAYLOAD:
        _payload_path(spec.value, node.at("value").place, report)
    elif spec.source is FileFrom.RENDER:
        check_function(spec.value, node.at("value").place, known.functions, report)
    elif spec.source is FileFrom.STATIC:
        _static_file(spec, node.at("value").place, known, report)
    check_names(given(node, "name"), names, report)
    _sizes(spec, node, report)


def _payload_path(value: str, line: int, report: Report) -> None:
    try:
        good = "{" not in value and bool(parse_path(value))
    except ValueError:
        good = False
    if not good:
        report.fault(line, "`value` of a file from payload is no path to a value.", PATH_REMEDY)


def _static_file(spec: FileSpec, line: int, known: Known, report: Report) -> None:
    path = PurePosixPath(spec.value)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:|~|.*\\", spec.value):
        report.fault(line, "The file is outside the project's folder.", "Put it inside, such as files/letter.pdf.")
    elif known.folder is not None and not (known.folder / path).is_file():
        report.fault(line, f"The file {spec.value} is not there.", "Put it into the project's folder.")
    elif known.folder is not None and not (known.folder / path).resolve().is_relative_to(known.folder.resolve()):
        report.fault(line, "The file is outside the project's folder.", "Put it inside; a link does not count.")
    elif spec.types and path.suffix.lower().lstrip(".") not in spec.types:
        report.fault(line, f"The file {spec.value} is of a type that is not taken.", did_you_mean("", list(spec.types)))


def _sizes(spec: FileSpec, node: Node, report: Report) -> None:
    if spec.most is not None and spec.most < spec.least:
        report.fault(
            node.at("most").place, "`most` of the file is less than `least`.", "Raise `most` or lower `least`."
        )
    for ending, most in sorted(spec.most_by_type.items()):
        line = node.at("most_by_type").place
        if spec.types and ending not in spec.types:
            problem = f"`{ending}` in most_by_type is no type that is taken."
            report.fault(line, problem, did_you_mean(ending, list(spec.types)))
        if most < spec.least:
            problem = f"`{ending}` in most_by_type is less than `least`."
            report.fault(line, problem, "Raise it, or lower `least`.")


# --- the other side -----------------------------------------------------------------------------------------------


def check_target(target: Target | None, node: Node, known: Known, report: Report) -> None:
    """Address, contract, certificates and shares of a destination, wherever one is declared."""
    if target is None:
        return
    check_url(target.url, node.at("url").place, report)
    for low in ("first_byte", "connect"):
        if getattr(target.timeouts, low) > target.timeouts.total:
            place = node.at("timeouts").place
            report.fault(place, f"`total` in timeouts is less than `{low}`.", f"Raise `total` or lower `{low}`.")
    if target.contract is not None:
        check_contract(target.contract, node.at("contract").place, known, report)
    if (target.tls.certificate is None) != (target.tls.key is None):
        problem = "`certificate` and `key` in tls belong together; one of them is missing."
        report.fault(node.at("tls").place, problem, "Add the other: PEM files in the project folder.")
    if given(node, "bulk_share") is not None and target.concurrency * target.bulk_share < 1:
        problem = "The share of bulk work is less than one call; it still gets one at a time."
        report.note(node.at("bulk_share").place, problem, "Raise `bulk_share` or `concurrency` to say what is meant.")


def check_url(url: str, line: int, report: Report) -> None:
    if url and not re.match(r"https?://[^/]|\$\{", url):
        report.fault(line, "`url` is no web address.", "It begins with https:// or with ${NAME}.")
    if re.match(r"https?://[^/]*:[^/]*@", url) and "${" not in url.rpartition("@")[0]:
        remedy = "Use `auth: {type: basic, ...}` with ${NAME} references."
        report.fault(line, "A password stands in clear in the `url`.", remedy)
    if "?" in url or "#" in url:
        report.fault(line, "`url` holds parameters.", "Put them into `query` of the calls; `url` is where paths begin.")


def check_contract(name: str, line: int, known: Known, report: Report) -> None:
    if known.folder is None or not name:
        return
    folder = known.folder / "contracts"
    if not (folder / name).is_file():
        there = sorted(path.name for path in folder.glob("*.*")) if folder.is_dir() else []
        remedy = did_you_mean(name, there) if there else f"Write contracts/{name}."
        report.fault(line, f"There is no contract `{name}`: contracts/{name} is not there.", remedy)
    elif known.check_contract is not None:
        for problem, remedy in known.check_contract(folder / name):
            report.fault(line, problem, remedy)


# --- secrets and references ---------------------------------------------------------------------------------------

_SECRET = {
    "headers": re.compile(r"authorization|cookie|.*(api[-_]?key|token|secret|password).*", re.IGNORECASE),
    "query": re.compile(
        r"(api_?key|access_?token|auth_?token|token|secret|client_?secret|password|passwd)", re.IGNORECASE
    ),
}
_FREE = frozenset({"body", "parts", "match", "values", "when"})  # names in them are the other side's


def check_secrets(node: Node, report: Report) -> None:
    """No header and no parameter that is called like a secret holds one in clear, in any call of the file."""
    for name, part in node.value.items() if isinstance(node.value, dict) else ():
        if name in _SECRET and isinstance(part.value, dict):
            for called, value in part.value.items():
                if _SECRET[name].fullmatch(called) and isinstance(value.value, str) and "{" not in value.value:
                    remedy = 'Use `auth`, or in the headers of the destination its variable: "${API_TOKEN}". Then change the secret.'
                    report.fault(value.place, f"A secret stands in clear in `{called}`.", remedy)
        elif name not in _FREE:
            check_secrets(part, report)


Place = tuple[str, ...]


def check_references(root: Node, allowed: tuple[Place, ...], report: Report) -> None:
    """`${NAME}` is read where a connector is built, and nowhere else."""
    for place, text, line in _placed(root, ()):
        for found in re.findall(r"\$\{(?!\{)[^}]*\}?", text):
            if not REFERENCE.fullmatch(found):
                report.fault(line, "A reference to an environment variable is not well formed.", REFERENCE_REMEDY)
            elif not any(place[: len(one)] == one for one in allowed):
                where = " and ".join(f"`{'.'.join(one)}`" for one in allowed)
                problem = f"`${{NAME}}` is only read in {where}, not in `{place[0] if place else 'flow'}`."
                report.fault(line, problem, "Write the value itself.")


def _placed(node: Node, place: Place) -> Iterator[tuple[Place, str, int]]:
    if not isinstance(node.value, dict):
        yield from ((place, text, line) for text, line in texts(node))
        return
    for name, part in node.value.items():
        yield from _placed(part, (*place, name))


# --- replies and evidence -----------------------------------------------------------------------------------------

_ONLY_FOR: Mapping[str, tuple[Outcome, ...]] = {
    "receipt": (Outcome.DONE, Outcome.DUPLICATE),
    "after": (Outcome.TEMPORARY, Outcome.THROTTLED),
    "fault": (Outcome.REFUSED, Outcome.TEMPORARY, Outcome.THROTTLED, Outcome.UNKNOWN),
}


def check_replies(rules: tuple[ReplyRule, ...], node: Node | None, report: Report) -> None:
    """Each rule says when it fits, and nothing that its outcome has no use for."""
    nodes = node.value if node is not None and isinstance(node.value, list) else []
    for rule, part in zip(rules, nodes, strict=False):
        if not (rule.statuses or rule.code or rule.says or rule.body):
            problem = "The rule fits every reply, a plain success too."
            report.fault(part.place, problem, "Say when: add `status`, `code`, `says` or `body`.")
        for name, outcomes in _ONLY_FOR.items():
            meant = part.at("is").value == rule.outcome  # else it has its fault already
            if meant and getattr(rule, name) is not None and rule.outcome not in outcomes:
                fitting = " and ".join(outcomes)
                problem = f"`{name}` says nothing about a reply that is {rule.outcome}."
                report.fault(part.at(name).place, problem, f"It is for {fitting}; remove it.")


def check_evidence(evidence: Evidence | None, node: Node, report: Report) -> None:
    if evidence is not None and evidence.most > MOST_KEPT:
        report.fault(node.at("most").place, "`most` of evidence is more than 1MB of each body.", "Write 1MB or less.")
