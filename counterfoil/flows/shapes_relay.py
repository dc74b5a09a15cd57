"""The tables of a relay flow's file, as `shapes_delivery.py` has them for deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterfoil.flows.delivery import Call, Endpoint, ErrorShape, Find, RelayOperation
from counterfoil.flows.kinds import duration, matching, size
from counterfoil.flows.shape import Entry, Shape, choice, listed, whole
from counterfoil.flows.shapes import AUTH_KIND, FUNCTION, ON_FAILURE
from counterfoil.flows.shapes_delivery import CALL, EVIDENCE, FILE, REPLY, TARGET, named, template

E = Entry
CONTRACT_FILE = matching(r"[\w.-]+\.(yaml|yml|json)", "Name a file in contracts/, such as gateway.yaml.")
ENDPOINT = Shape(
    "endpoint",
    (
        E("path", matching(r"/[\w./-]*", "Write a path, such as /v2."), "where the contract's paths begin, such as /v2.", required=True),
        E("auth", AUTH_KIND, "what callers must prove; an endpoint for everybody is refused.", required=True, blank=None),
        E("contract", CONTRACT_FILE, "the OpenAPI file in contracts/ that calls are held to.", required=True),
        E("errors", choice(ErrorShape), "how our own refusals look: gateway or problem."),
        E("body_limit", size(), "the largest body taken; 10MB if not given.", attribute="body_bytes"),
        E("deadline", duration(), "for a whole call; shorter than the caller's patience. 27s if not given."),
    ),
    Endpoint,
)  # fmt: skip
FIND = Shape(
    "find",
    (
        E("method", choice(("GET", "POST")), "GET or POST.", required=True, blank="GET"),
        E("path", template(), "after the destination's address.", required=True),
        E("query", CALL.entries[2].kind, "parameters."),
        E("alone", template(), "one call at a time for each of these: {path.caseref}/{path.id}.", required=True),
        E("function", FUNCTION, "a function (answer, request) that gives what {found} is.", required=True),
    ),
    lambda alone="", function="", **given: Find(Call(**given), alone, function),
)
REPLY_BACK = Shape(
    "reply",
    (
        E("status", whole(200, 299), "the status that is answered."),
        E("body", template(), "what is answered, over {answer}, {path}, {body} and {found}."),
    ),
    lambda **given: given,
)


def _operation(name: str, reply: Mapping[str, Any] | None = None, **given: Any) -> RelayOperation:
    reply = reply or {}
    return RelayOperation(name=name, reply_status=reply.get("status", 200), reply=reply.get("body"), **given)


OPERATION = Shape(
    "operation",
    (
        E("call", CALL.kind, "what is asked of the destination.", required=True, blank=None),
        E("find", FIND.kind, "what is looked up before."),
        E("file", FILE.kind, "a file that the call names, fetched from the object store."),
        E("reply", REPLY_BACK.kind, "what is answered where that was done."),
    ),
    _operation,
)
OPERATIONS = named(
    OPERATION,
    _operation,
    "Write operationIds of the contract with sections: `createReport: {call: {...}}`.",
    matching(r"[A-Za-z][\w.-]*", "Write an operationId of the contract."),
)


RELAY_ENTRIES = (
    E("endpoint", ENDPOINT.kind, "what we listen to.", required=True, blank=None),
    E("destination", TARGET.kind, "the system behind.", attribute="target", required=True, blank=None),
    E("operations", OPERATIONS, "operations of the contract, and what each asks of the system behind.", required=True, blank=()),
    E("replies", listed(REPLY.kind, "Write a list of rules: [{is: temporary, status: 403}].", least=0), "what its replies mean."),
    E("evidence", EVIDENCE.kind, "what is kept of each exchange."),
    E("on_failure", ON_FAILURE.kind, "who looks at what went wrong, and by when."),
)  # fmt: skip
