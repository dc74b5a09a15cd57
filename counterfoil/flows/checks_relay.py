"""What a relay flow says, beyond its shape. As `checks_delivery.py` is for deliveries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from counterfoil.flows.checks import Known
from counterfoil.flows.checks_call import (
    FILE,
    REQUEST,
    DeliveryDraft,
    check_call,
    check_contract,
    check_evidence,
    check_file,
    check_file_parts,
    check_names,
    check_references,
    check_replies,
    check_secrets,
    check_target,
    given,
)
from counterfoil.flows.checks_mapping import check_function
from counterfoil.flows.delivery import Endpoint, FileFrom, Find, RelayOperation
from counterfoil.flows.flow import AuthType
from counterfoil.flows.yamlfile import Node, Report

GATEWAY_PATIENCE = timedelta(seconds=29)
VERIFIED = (AuthType.SIGV4, AuthType.BEARER, AuthType.JWT)


def _endpoint(draft: DeliveryDraft, known: Known, report: Report) -> None:
    endpoint = draft.values.get("endpoint")
    if not isinstance(endpoint, Endpoint):
        return
    node = draft.root.at("endpoint")
    check_contract(endpoint.contract, node.at("contract").place, known, report)
    if endpoint.auth is not None and endpoint.auth.type not in VERIFIED:
        problem = f"Callers can't be verified by auth of type {endpoint.auth.type}."
        report.fault(node.at("auth").place, problem, "Use sigv4, jwt or bearer.")
    if endpoint.deadline >= GATEWAY_PATIENCE:
        problem = "The deadline is longer than a gateway waits (29 s): its callers would not get our answer."
        report.note(node.at("deadline").place, problem, "Write 27s or less where a gateway stands in front.")


def _destination(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_target(draft.target, draft.root.at("destination"), known, report)


def _operations(draft: DeliveryDraft, known: Known, report: Report) -> None:
    for one in draft.values.get("operations") or ():
        if isinstance(one, RelayOperation):
            _operation(one, draft, known, report)
            _file(one, draft, known, report)
            _found_and_answered(one, draft, report)


def _operation(one: RelayOperation, draft: DeliveryDraft, known: Known, report: Report) -> None:
    node = draft.root.at("operations", one.name)
    names = REQUEST + _found(one) + (FILE if given(node, "file") is not None else ())
    if one.call is not None:
        check_call(one.call, node.at("call"), names, known, report)
    if one.find is not None:
        check_call(one.find.call, node.at("find"), REQUEST, known, report)
        _find(one.find, node.at("find"), known, report)


def _find(find: Find, node: Node, known: Known, report: Report) -> None:
    for what, name in (("function", find.function), ("same", find.same)):
        if name is not None:
            check_function(name, node.at(what).place, known.functions, report)
    if given(node, "function") is None and given(node, "same") is None:
        remedy = "Add `function` (for {found}) or `same` (where a reply was lost)."
        report.fault(node.place, "`find` asks and does nothing with the answer.", remedy)


def _found(one: RelayOperation) -> tuple[str, ...]:
    return ("found",) if one.find is not None and one.find.function is not None else ()


def _found_and_answered(one: RelayOperation, draft: DeliveryDraft, report: Report) -> None:
    """`alone` is known before anything is asked, the reply after all of it."""
    node = draft.root.at("operations", one.name)
    find, reply = given(node, "find"), given(node, "reply")
    if find is not None:
        check_names(given(find, "alone"), REQUEST, report)
    if reply is not None:
        check_names(given(reply, "body"), (*REQUEST, *_found(one), "answer"), report)


def _file(one: RelayOperation, draft: DeliveryDraft, known: Known, report: Report) -> None:
    node = draft.root.at("operations", one.name)
    if one.call is not None:
        check_file_parts(one.call, one.file, node.at("call"), report)
    if one.file is None:
        return
    if one.file.source is not FileFrom.OBJECT:
        problem = f"A relay can't take a file from {one.file.source}: it has no items."
        report.fault(
            node.at("file").place, problem, 'Write `file: {from: object, value: "{body.file.s3_reference?}"}`.'
        )
        return
    check_file(one.file, node.at("file"), REQUEST + _found(one), known, report)


def _replies(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_replies(draft.values.get("replies") or (), given(draft.root, "replies"), report)


def _evidence(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_evidence(draft.values.get("evidence"), draft.root.at("evidence"), report)


def _secrets(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_secrets(draft.root, report)


def _references(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_references(draft.root, (("destination",), ("endpoint",)), report)


CHECKS: tuple[Callable[[DeliveryDraft, Known, Report], None], ...] = (
    _endpoint,
    _destination,
    _operations,
    _replies,
    _evidence,
    _secrets,
    _references,
)
