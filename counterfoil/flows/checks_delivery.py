"""What a delivery flow says, beyond its shape: whether its kinds, rules, look-up and poll fit together. As `checks.py` is for syncs.

Each check is one function of a draft, listed in `CHECKS`; it reports and never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from counterfoil.flows.checks import Known
from counterfoil.flows.checks_call import (
    AT_DESK,
    FILE,
    ITEM,
    PARENT,
    DeliveryDraft,
    check_call,
    check_evidence,
    check_file,
    check_file_parts,
    check_names,
    check_references,
    check_replies,
    check_secrets,
    check_target,
    given,
    texts,
)
from counterfoil.flows.checks_mapping import check_function
from counterfoil.flows.delivery import Intake, KindSpec, LookUp, Poll
from counterfoil.flows.template import TemplateError, compile_template
from counterfoil.flows.yamlfile import Node, Report, did_you_mean
from counterfoil.model.delivery import Resend, StepState

Check = Callable[[DeliveryDraft, Known, Report], None]


def _destination(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_target(draft.target, draft.root.at("destination"), known, report)
    look_up = draft.values.get("look_up")
    if look_up is not None:
        check_target(look_up.target, draft.root.at("look_up", "destination"), known, report)


# --- kinds --------------------------------------------------------------------------------------------------------


def _parents(draft: DeliveryDraft, known: Known, report: Report) -> None:
    """A parent stands before its children (so there is no circle), and gets a receipt that they can wait for."""
    before: dict[str, KindSpec] = {}
    for kind in draft.kinds.values():
        name = kind.parent.kind if kind.parent is not None else ""
        line = draft.line("kinds", kind.name, "parent")
        if name and name not in before:
            there = name in draft.kinds
            problem = f"`{kind.name}` waits for `{name}`, which " + (
                "does not stand before it." if there else "is no kind of this flow."
            )
            remedy = "Put the parent first." if there else did_you_mean(name, list(draft.kinds))
            report.fault(line, problem, remedy)
        elif name and before[name].receipt is None and before[name].create is not None:
            problem = f"`{kind.name}` waits for the receipt of `{name}`, which gets none."
            report.fault(line, problem, f"Add `receipt: data.id` to `{name}`, where the reply holds it.")
        before[kind.name] = kind


def _ways(draft: DeliveryDraft, known: Known, report: Report) -> None:
    """A kind is sent, or handed in with its receipt."""
    for kind in draft.kinds.values():
        node = draft.root.at("kinds", kind.name)
        handed, create = given(node, "handed_in"), given(node, "create")
        if create is None and handed is None:
            remedy = "Add `create: {method: POST, path: ...}`; or `handed_in: with_receipt` where it is there already."
            report.fault(node.place, f"The kind `{kind.name}` says nothing about how it is sent.", remedy)
        elif create is not None and handed is not None:
            problem = f"The kind `{kind.name}` is handed in with its receipt, and sent."
            report.fault(handed.place, problem, "Keep one of the two.")
        elif create is None:
            _never_sent(node, report)


def _never_sent(node: Node, report: Report) -> None:
    for name in ("update", "receipt", "file", "idempotency_header"):
        part = given(node, name)
        if part is not None:
            problem = f"`{name}` says nothing about a kind that is never sent."
            report.fault(part.place, problem, "Remove it, or `handed_in`.")


def _confirmed(draft: DeliveryDraft, known: Known, report: Report) -> None:
    poll = given(draft.root, "poll")
    waiting = [kind for kind in draft.kinds.values() if kind.confirmed]
    for kind in waiting:
        line = draft.line("kinds", kind.name, "confirmed")
        if poll is None:
            remedy = "Add `poll`, or remove `confirmed`."
            report.fault(line, f"`{kind.name}` is to be confirmed, but there is no `poll`.", remedy)
        if kind.receipt is None and kind.create is not None:
            remedy = "Add `receipt: data.id`, where the reply holds it."
            report.fault(line, f"`{kind.name}` is to be confirmed, but has no `receipt` to ask about.", remedy)
    if poll is not None and draft.kinds and not waiting:
        remedy = "Add `confirmed: true` to the kinds whose receipt is not yet success, or remove `poll`."
        report.fault(poll.place, "There is a `poll`, but no kind is to be confirmed.", remedy)


def _doubt(draft: DeliveryDraft, known: Known, report: Report) -> None:
    """A note, no fault: what only people can decide."""
    has_look_up = given(draft.root, "look_up") is not None
    for kind in draft.kinds.values():
        if kind.create is not None and kind.resend(has_look_up=has_look_up) is Resend.PERSON:
            problem = f"Where a reply to `{kind.name}` is lost, only a person can tell whether it arrived."
            remedy = "Add `look_up` to the flow, or `idempotency_header` where the other side takes a key."
            report.note(draft.line("kinds", kind.name), problem, remedy)


def _expected(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        nodes = draft.root.at("kinds", kind.name, "expected").value
        for rule, node in zip(kind.expected, nodes if isinstance(nodes, list) else (), strict=False):
            if rule.of and rule.of not in draft.kinds:
                remedy = did_you_mean(rule.of, list(draft.kinds))
                report.fault(node.at("of").place, f"`{rule.of}` is no kind of this flow.", remedy)
            names = ("key", "group", "payload", *(("each",) if given(node, "for_each") is not None else ()))
            check_names(given(node, "key"), names, report)


# --- calls and files ----------------------------------------------------------------------------------------------


def _calls(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for kind in draft.kinds.values():
        node = draft.root.at("kinds", kind.name)
        names = ITEM + _of_parent(node) + (FILE if given(node, "file") is not None else ())
        for what, call in (("create", kind.create), ("update", kind.update)):
            if call is not None:
                check_call(call, node.at(what), names, known, report)
                check_file_parts(call, kind.file, node.at(what), report)
        if kind.update is not None and kind.create is not None and kind.receipt is None:
            remedy = "Add `receipt: data.id`, where the reply holds it."
            report.fault(node.at("update").place, f"`{kind.name}` has an update, but no `receipt`.", remedy)
        if kind.file is not None:
            check_file(kind.file, node.at("file"), AT_DESK + _of_parent(node), known, report)


def _of_parent(node: Node) -> tuple[str, ...]:
    return PARENT if given(node, "parent") is not None else ()


# --- look-up and poll ---------------------------------------------------------------------------------------------


def _look_up(draft: DeliveryDraft, known: Known, report: Report) -> None:
    look_up: LookUp | None = draft.values.get("look_up")
    if look_up is None:
        return
    node = draft.root.at("look_up")
    check_call(look_up.call, node, ITEM + PARENT + FILE, known, report)
    check_names(given(node, "match"), ITEM + PARENT + FILE, report)
    for part in ("path", "query", "headers", "body", "match"):
        _every_kind_has(given(node, part), draft, report)
    match = given(node, "match")
    if (match is None) == (given(node, "function") is None) or (match is not None and match.value == {}):
        remedy = "Write `match: {metadata.id: ...}` or `function: name`, one of them."
        report.fault(node.place, "A look-up needs `match` or `function`.", remedy)
    if look_up.function is not None:
        check_function(look_up.function, node.at("function").place, known.functions, report)


def _every_kind_has(node: Node | None, draft: DeliveryDraft, report: Report) -> None:
    """A look-up is made for every kind that is sent: what one of them has not must be allowed to be absent."""
    sent = [kind for kind in draft.kinds.values() if kind.create is not None]
    without = {
        "parent": [kind.name for kind in sent if kind.parent is None],
        "file": [kind.name for kind in sent if kind.file is None],
    }
    for text, line in texts(node):
        try:
            required = compile_template(text).required
        except TemplateError:
            continue  # told by the shape
        for name in sorted(required):
            for kind in without.get(name.partition(".")[0], [])[:1]:
                problem = f"`{{{name}}}` in look_up: a `{kind}` has no {name.partition('.')[0]}."
                report.fault(line, problem, f"Write {{{name}?}}: it may be absent.")


def _poll(draft: DeliveryDraft, known: Known, report: Report) -> None:
    poll: Poll | None = draft.values.get("poll")
    if poll is None:
        return
    node = draft.root.at("poll")
    for part, names in (("path", ()), ("headers", ()), ("query", ("receipts",)), ("body", ("receipts",))):
        check_names(given(node, part), names, report)
    if poll.call.body is not None and poll.call.method in ("GET", "DELETE"):
        report.fault(node.at("body").place, f"A {poll.call.method} has no body.", "Use POST, or put it in `query`.")
    if not any(
        text in ("{receipts}", "{receipts?}") for part in ("query", "body") for text, _ in texts(given(node, part))
    ):
        remedy = 'Put it in, as in body: {ids: "{receipts}"}.'
        report.fault(node.place, "The poll does not say about what: `{receipts}` is not used.", remedy)
    for state in (StepState.DONE, StepState.FAILED):
        if state not in poll.values.values():
            problem = f"No status of the poll means {state}."
            report.fault(node.at("values").place, problem, f"Add one: `values: {{SUCCESS: {state}}}`.")
    _times(poll, node, report)


def _times(poll: Poll, node: Node, report: Report) -> None:
    if poll.deadline <= poll.every:
        problem = (
            "`deadline` of the poll is not more than `every`: a person would have it before it is asked about twice."
        )
        report.fault(node.at("deadline").place, problem, "Raise `deadline` or lower `every`.")
    if poll.deadline <= poll.first:
        problem = "`deadline` of the poll is not more than `first`: it would never be asked about."
        report.fault(node.at("deadline").place, problem, "Raise `deadline` or lower `first`.")
    if poll.recheck is not None and poll.recheck.keep <= poll.recheck.every:
        problem = "`keep` in recheck is not more than `every`: no success would be asked about again."
        report.fault(node.at("recheck").place, problem, "Raise `keep` or lower `every`.")


# --- the rest -----------------------------------------------------------------------------------------------------


def _replies(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_replies(draft.values.get("replies") or (), given(draft.root, "replies"), report)


def _intake(draft: DeliveryDraft, known: Known, report: Report) -> None:
    intake: Intake | None = draft.values.get("intake")
    if intake is None:
        return
    node = draft.root.at("intake")
    if (given(node, "table") is None) == (given(node, "folder") is None):
        report.fault(node.place, "An intake needs `table` or `folder`, one of them.", "Write the one that is meant.")
    watched = intake.table or intake.folder
    if watched is not None and watched.kind and not watched.kind.startswith("{") and watched.kind not in draft.kinds:
        line = node.at("table" if intake.table is not None else "folder", "kind").place
        report.fault(line, f"`{watched.kind}` is no kind of this flow.", did_you_mean(watched.kind, list(draft.kinds)))
    if intake.table is not None and intake.table.where == intake.table.taken:
        problem = "`taken` is the same as `where`: the same rows would be taken again and again."
        report.fault(node.at("table", "taken").place, problem, "Write what a row is given once it was taken.")
    if intake.folder is not None:
        _folder_inside(intake.folder.folder, node.at("folder", "folder").place, known, report)
        _folder_inside(intake.folder.taken, node.at("folder", "taken").place, known, report)


def _folder_inside(name: str, line: int, known: Known, report: Report) -> None:
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or name.startswith("~")
    if not outside and known.folder is not None:
        outside = not (known.folder / path).resolve().is_relative_to(known.folder.resolve())
    if outside:
        report.fault(line, "The watched folder is outside the project's folder.", "Put it inside, such as inbox.")


def _in_order(draft: DeliveryDraft, known: Known, report: Report) -> None:
    retry = draft.values.get("retry")
    if retry is not None and retry.item_max_delay < retry.item_first_delay:
        problem = "`max_delay` in retry is less than `first_delay`."
        report.fault(draft.line("retry", "max_delay"), problem, "Raise `max_delay` or lower `first_delay`.")


def _evidence(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_evidence(draft.values.get("evidence"), draft.root.at("evidence"), report)


def _secrets(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_secrets(draft.root, report)


def _references(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_references(draft.root, (("destination",), ("look_up", "destination")), report)


CHECKS: tuple[Check, ...] = (
    _destination,
    _parents,
    _ways,
    _confirmed,
    _doubt,
    _expected,
    _calls,
    _replies,
    _look_up,
    _poll,
    _intake,
    _in_order,
    _evidence,
    _secrets,
    _references,
)
