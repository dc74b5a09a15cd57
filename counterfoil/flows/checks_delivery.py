"""What a delivery flow says, beyond its shape: whether its kinds, calls, rules and functions fit together. As `checks.py` is for syncs.

Each check is one function of a draft, listed in `CHECKS`; it reports and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterfoil.flows.checks import Known
from counterfoil.flows.checks_mapping import check_function
from counterfoil.flows.delivery import (
    Call,
    FileFrom,
    FileSpec,
    KindSpec,
    PartType,
    Poll,
    Target,
)
from counterfoil.flows.kinds import REFERENCE, REFERENCE_REMEDY
from counterfoil.flows.template import TemplateError, compile_template
from counterfoil.flows.yamlfile import Node, Report, did_you_mean
from counterfoil.model.delivery import Resend, StepState

ITEM = ("key", "kind", "group", "payload", "receipt", "idempotency_key", "attempt", "accepted_at")
PARENT = ("parent.receipt", "parent.key", "parent.payload")
FILE = ("file.name", "file.type", "file.size", "file.sha256", "file.object", "file.base64")


@dataclass(frozen=True, slots=True)
class DeliveryDraft:
    """A delivery flow as far as it could be read."""

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


Check = Callable[[DeliveryDraft, Known, Report], None]


# --- the other side -----------------------------------------------------------------------------------------------


def check_target(target: Target | None, node: Node, known: Known, report: Report) -> None:
    """Address, contract and timeouts of a destination, wherever one is declared."""
    if target is None:
        return
    if target.url and not re.match(r"https?://[^/]|\$\{", target.url):
        report.fault(node.at("url").place, "`url` is no web address.", "It begins with https:// or with ${NAME}.")
    if re.match(r"https?://[^/]*:[^/]*@", target.url) and "${" not in target.url.rpartition("@")[0]:
        remedy = "Use `auth: {type: basic, ...}` with ${NAME} references."
        report.fault(node.at("url").place, "A password stands in clear in the `url`.", remedy)
    if target.timeouts.first_byte > target.timeouts.total:
        place = node.at("timeouts").place
        report.fault(place, "`total` in timeouts is less than `first_byte`.", "Raise `total` or lower `first_byte`.")
    if target.contract is not None:
        check_contract(target.contract, node.at("contract").place, known, report)
    _secret_headers(node, report)


def check_contract(name: str, line: int, known: Known, report: Report) -> None:
    if known.folder is None:
        return
    folder = known.folder / "contracts"
    if not (folder / name).is_file():
        there = sorted(path.name for path in folder.glob("*.*")) if folder.is_dir() else []
        remedy = did_you_mean(name, there) if there else f"Write contracts/{name}."
        report.fault(line, f"There is no contract `{name}`: contracts/{name} is not there.", remedy)
    elif known.check_contract is not None:
        for problem, remedy in known.check_contract(folder / name):
            report.fault(line, problem, remedy)


_SECRET = re.compile(r"authorization|cookie|.*(api[-_]?key|token|secret|password).*", re.IGNORECASE)


def _secret_headers(node: Node, report: Report) -> None:
    headers = node.at("headers").value
    for name, part in headers.items() if isinstance(headers, dict) and node.at("headers") is not node else ():
        if _SECRET.fullmatch(name) and isinstance(part.value, str) and "${" not in part.value:
            report.fault(part.place, f"A secret stands in clear in `{name}`.", 'Write its variable: "${API_TOKEN}".')


def _destination(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_target(draft.target, draft.root.at("destination"), known, report)
    look_up = draft.values.get("look_up")
    if look_up is not None and look_up.target is not None:
        check_target(look_up.target, draft.root.at("look_up", "destination"), known, report)


# --- kinds --------------------------------------------------------------------------------------------------------


def _parents(draft: DeliveryDraft, known: Known, report: Report) -> None:
    """A parent stands before its children: so there is no circle either."""
    before: list[str] = []
    for kind in draft.kinds.values():
        if kind.parent is not None and kind.parent.kind not in before:
            there = kind.parent.kind in draft.kinds
            problem = f"`{kind.name}` waits for `{kind.parent.kind}`, which " + (
                "stands after it." if there else "is no kind of this flow."
            )
            remedy = "Put the parent first." if there else did_you_mean(kind.parent.kind, list(draft.kinds))
            report.fault(draft.line("kinds", kind.name, "parent"), problem, remedy)
        before.append(kind.name)


def _creates(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        handed = "handed_in" in (draft.root.at("kinds", kind.name).value or {})
        line = draft.line("kinds", kind.name)
        if kind.create is None and not handed:
            remedy = "Add `create: {method: POST, path: ...}`; or `handed_in: with_receipt` where it is there already."
            report.fault(line, f"The kind `{kind.name}` says nothing about how it is sent.", remedy)
        elif kind.create is not None and handed:
            report.fault(
                line, f"The kind `{kind.name}` is handed in with its receipt, and sent.", "Keep one of the two."
            )


def _confirmed(draft: DeliveryDraft, known: Known, report: Report) -> None:
    poll = draft.values.get("poll")
    waiting = [kind for kind in draft.kinds.values() if kind.confirmed]
    for kind in waiting:
        line = draft.line("kinds", kind.name, "confirmed")
        if poll is None:
            report.fault(line, f"`{kind.name}` is to be confirmed, but there is no `poll`.", "Add `poll`.")
        if kind.receipt is None:
            remedy = "Add `receipt: data.id`, where the reply holds it."
            report.fault(line, f"`{kind.name}` is to be confirmed, but has no `receipt` to ask about.", remedy)
    if poll is not None and not waiting:
        remedy = "Add `confirmed: true` to the kinds whose receipt is not yet success, or remove `poll`."
        report.fault(draft.line("poll"), "There is a `poll`, but no kind is to be confirmed.", remedy)


def _doubt(draft: DeliveryDraft, known: Known, report: Report) -> None:
    """A note, no fault: what only people can decide."""
    has_look_up = draft.values.get("look_up") is not None
    for kind in draft.kinds.values():
        if kind.create is not None and kind.resend(has_look_up=has_look_up) is Resend.PERSON:
            problem = f"Where a reply to `{kind.name}` is lost, only a person can tell whether it arrived."
            remedy = "Add `look_up` to the flow, or `idempotency_header` where the other side takes a key."
            report.note(draft.line("kinds", kind.name), problem, remedy)


def _expected(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        for rule in kind.expected:
            line = draft.line("kinds", kind.name, "expected")
            if rule.of not in draft.kinds:
                report.fault(line, f"`{rule.of}` is no kind of this flow.", did_you_mean(rule.of, list(draft.kinds)))
            names = ("key", "group", "payload", *(("each",) if rule.for_each is not None else ()))
            _names_known(rule.key, names, line, report)
            if any(isinstance(value, dict | list) for value in rule.when.values()):
                report.fault(line, "A value in `when` is no single value.", "Write texts, numbers, true or false.")


# --- calls --------------------------------------------------------------------------------------------------------


def _calls(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        names = ITEM + (PARENT if kind.parent is not None else ()) + (FILE if kind.file is not None else ())
        for what, call in (("create", kind.create), ("update", kind.update)):
            if call is not None:
                node = draft.root.at("kinds", kind.name, what)
                check_call(call, node, names, known, report)
                _file_parts(call, kind.file, node, report)
        if kind.update is not None and kind.receipt is None:
            remedy = "Add `receipt: data.id`, where the reply holds it."
            report.fault(draft.line("kinds", kind.name), f"`{kind.name}` has an update, but no `receipt`.", remedy)


def check_call(call: Call, node: Node, names: tuple[str, ...], known: Known, report: Report) -> None:
    """One body, placeholders that exist, a function that exists."""
    given = [name for name, value in (("body", call.body), ("function", call.function), ("parts", call.parts)) if value]
    if len(given) > 1:
        report.fault(node.place, f"The call has {' and '.join(given)}.", "Keep one of them.")
    if given and call.method == "GET":
        report.fault(node.place, "A GET has no body.", "Use POST, or remove it.")
    if call.function:
        check_function(call.function, node.at("function").place, known.functions, report)
    for value in (call.path, call.query, call.headers, call.body, [part.content for part in call.parts]):
        _names_known(value, names, node.place, report)


def _names_known(value: Any, names: tuple[str, ...], line: int, report: Report) -> None:
    try:
        used = compile_template(value).names
    except TemplateError:
        return  # told by the shape
    for name in sorted(used):
        if not any(name == known or name.startswith(f"{known}.") for known in names):
            report.fault(line, f"Unknown placeholder `{{{name}}}`.", did_you_mean(name, list(names)))


def _file_parts(call: Call, file: FileSpec | None, node: Node, report: Report) -> None:
    parts = [part for part in call.parts if part.type is PartType.FILE]
    if parts and file is None:
        remedy = "Add `file: {from: item}` to the kind."
        report.fault(node.place, "The call sends a file, but the kind has none.", remedy)
    if len(parts) > 1:
        report.fault(node.place, "The call has two parts of type file.", "An item has one file.")


def _files(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        if kind.file is not None:
            check_file(kind.file, draft.root.at("kinds", kind.name, "file"), known, report)


def check_file(spec: FileSpec, node: Node, known: Known, report: Report) -> None:
    """Where a file comes from is said whole, and is there."""
    needs = {
        FileFrom.OBJECT: 'the key: value: "{payload.storage_key}"',
        FileFrom.PAYLOAD: "the path of the base64 text: value: document.content",
        FileFrom.RENDER: "the function: value: letter_pdf",
        FileFrom.STATIC: "the file: value: files/instructions.pdf",
    }
    if spec.source in needs and not spec.value:
        report.fault(node.place, f"A file from {spec.source} needs `value`.", f"Add {needs[spec.source]}.")
    elif spec.source is FileFrom.RENDER:
        check_function(spec.value, node.at("value").place, known.functions, report)
    elif spec.source is FileFrom.STATIC and known.folder is not None:
        path = (known.folder / spec.value).resolve()
        if not path.is_relative_to(known.folder.resolve()):
            report.fault(node.at("value").place, "The file is outside the project's folder.", "Put it inside.")
        elif not path.is_file():
            report.fault(node.at("value").place, f"The file {spec.value} is not there.", "Put it there.")
    if spec.most is not None and spec.most < spec.least:
        report.fault(node.place, "`most` of the file is less than `least`.", "Raise `most` or lower `least`.")
    for ending in sorted(set(spec.most_by_type) - set(spec.types)) if spec.types else ():
        problem = f"`{ending}` in most_by_type is no type that is taken."
        report.fault(node.at("most_by_type").place, problem, did_you_mean(ending, list(spec.types)))


# --- look-up and poll ---------------------------------------------------------------------------------------------


def _look_up(draft: DeliveryDraft, known: Known, report: Report) -> None:
    look_up = draft.values.get("look_up")
    if look_up is None:
        return
    node = draft.root.at("look_up")
    check_call(look_up.call, node, ITEM + PARENT + FILE, known, report)
    if bool(look_up.match) == (look_up.function is not None):
        remedy = "Write `match: {metadata.id: ...}` or `function: name`, one of them."
        report.fault(node.place, "A look-up needs `match` or `function`.", remedy)
    if look_up.function is not None:
        check_function(look_up.function, node.at("function").place, known.functions, report)
    _names_known(look_up.match, ITEM + PARENT + FILE, node.place, report)


def _poll(draft: DeliveryDraft, known: Known, report: Report) -> None:
    poll: Poll | None = draft.values.get("poll")
    if poll is None:
        return
    node = draft.root.at("poll")
    check_call(poll.call, node, ("receipts",), known, report)
    used = set().union(*(compile_template(v).names for v in (poll.call.path, poll.call.query, poll.call.body)))
    if "receipts" not in used:
        remedy = 'Put it in, as in body: {ids: "{receipts}"}.'
        report.fault(node.place, "The poll does not say about what: `{receipts}` is not used.", remedy)
    meant = set(poll.values.values())
    for state in (StepState.DONE, StepState.FAILED):
        if state not in meant:
            problem = f"No status of the poll means {state}."
            report.fault(node.at("values").place, problem, f"Add one: `values: {{SUCCESS: {state}}}`.")
    if poll.deadline < poll.every:
        problem = "`deadline` of the poll is less than `every`: a person would have it before it is asked about twice."
        report.fault(node.place, problem, "Raise `deadline` or lower `every`.")
    if poll.recheck is not None and poll.recheck.keep < poll.recheck.every:
        report.fault(node.at("recheck").place, "`keep` is less than `every`.", "Raise `keep` or lower `every`.")


# --- the rest -----------------------------------------------------------------------------------------------------


def _intake(draft: DeliveryDraft, known: Known, report: Report) -> None:
    intake = draft.values.get("intake")
    if intake is None:
        return
    line = draft.line("intake")
    if (intake.table is None) == (intake.folder is None):
        report.fault(line, "An intake needs `table` or `folder`, one of them.", "Write the one that is meant.")
    kind = intake.table.kind if intake.table is not None else intake.folder.kind if intake.folder is not None else ""
    if kind and not kind.startswith("{") and kind not in draft.kinds:
        report.fault(line, f"`{kind}` is no kind of this flow.", did_you_mean(kind, list(draft.kinds)))
    if intake.folder is not None and known.folder is not None:
        path = Path(intake.folder.folder)
        if path.is_absolute() or not (known.folder / path).resolve().is_relative_to(known.folder.resolve()):
            report.fault(line, "The watched folder is outside the project's folder.", "Put it inside, such as inbox.")


def _in_order(draft: DeliveryDraft, known: Known, report: Report) -> None:
    retry = draft.values.get("retry")
    if retry is not None and retry.item_max_delay < retry.item_first_delay:
        problem = "`max_delay` in retry is less than `first_delay`."
        report.fault(draft.line("retry"), problem, "Raise `max_delay` or lower `first_delay`.")


def _references(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_references(draft.root, ("destination", "look_up"), report)


def check_references(root: Node, allowed: tuple[str, ...], report: Report) -> None:
    """`${NAME}` is read where a connector is built, and nowhere else."""
    for name, part in root.value.items():
        for text, line in _texts(part):
            for found in re.findall(r"\$\{[^}]*\}?", text):
                if not REFERENCE.fullmatch(found):
                    report.fault(line, "A reference to an environment variable is not well formed.", REFERENCE_REMEDY)
                elif name not in allowed:
                    where = " and ".join(f"`{one}`" for one in allowed)
                    problem = f"`${{NAME}}` is only read in {where}, not in `{name}`."
                    report.fault(line, problem, "Write the value itself.")


def _texts(node: Node) -> Iterator[tuple[str, int]]:
    if isinstance(node.value, str):
        yield node.value, node.line
    parts = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    for part in parts:
        yield from _texts(part)


CHECKS: tuple[Check, ...] = (
    _destination,
    _parents,
    _creates,
    _confirmed,
    _doubt,
    _expected,
    _calls,
    _files,
    _look_up,
    _poll,
    _intake,
    _in_order,
    _references,
)
