"""What a relay flow says, beyond its shape. As `checks_delivery.py` is for deliveries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from counterfoil.flows.checks import Known
from counterfoil.flows.checks_delivery import (
    DeliveryDraft,
    check_call,
    check_contract,
    check_file,
    check_references,
    check_target,
)
from counterfoil.flows.checks_mapping import check_function
from counterfoil.flows.delivery import Endpoint, RelayOperation
from counterfoil.flows.flow import AuthType
from counterfoil.flows.yamlfile import Report

REQUEST = ("path", "query", "body", "caller", "operation")
GATEWAY_PATIENCE = timedelta(seconds=29)
VERIFIED = (AuthType.SIGV4, AuthType.BEARER, AuthType.JWT)


def _endpoint(draft: DeliveryDraft, known: Known, report: Report) -> None:
    endpoint = draft.values.get("endpoint")
    if not isinstance(endpoint, Endpoint) or endpoint.auth is None:
        return
    node = draft.root.at("endpoint")
    check_contract(endpoint.contract, node.at("contract").place, known, report)
    if endpoint.auth.type not in VERIFIED:
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


def _operation(one: RelayOperation, draft: DeliveryDraft, known: Known, report: Report) -> None:
    node = draft.root.at("operations", one.name)
    names = REQUEST + (("found",) if one.find is not None else ()) + (("file",) if one.file is not None else ())
    if one.call is not None:
        check_call(one.call, node.at("call"), names, known, report)
    if one.find is not None:
        check_call(one.find.call, node.at("find"), REQUEST, known, report)
        check_function(one.find.function, node.at("find", "function").place, known.functions, report)
    if one.file is not None:
        check_file(one.file, node.at("file"), known, report)


def _references(draft: DeliveryDraft, known: Known, report: Report) -> None:
    check_references(draft.root, ("destination", "endpoint"), report)


CHECKS: tuple[Callable[[DeliveryDraft, Known, Report], None], ...] = (
    _endpoint,
    _destination,
    _operations,
    _references,
)
