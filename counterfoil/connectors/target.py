"""A delivery's other side over HTTP: requests built from parcels and held to the contract, look-ups, bulk polls.

One try per call, an `Answer` for whatever came of it. What a status or a body means, the flow file says (`flows.replies`); how a request
leaves and what is kept of it stands in `line.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from counterfoil.connectors.confirmations import ConfirmationReader
from counterfoil.connectors.contract import Contract, told
from counterfoil.connectors.line import Line, Opening
from counterfoil.connectors.objects import Objects
from counterfoil.connectors.requests import Built, CallBuilder, CompiledCall, scope_of
from counterfoil.connectors.wire import Reply
from counterfoil.flows.delivery import DeliveryFlow, LookUp
from counterfoil.flows.expect import value_at
from counterfoil.flows.functions import Functions
from counterfoil.flows.replies import Classifier, Judged, at, classifier
from counterfoil.flows.template import compile_template
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Answer, ExchangeKind, Outcome, Parcel, PollAnswer
from counterfoil.model.errors import Misconfigured, Refused, Transient


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to leave."""

    built: Built
    judge: Classifier
    place: str

    @property
    def length(self) -> int:
        return self.built.length


class HttpTarget:
    """Implements `model.ports.Target`. Raises Misconfigured at construction for what the flow file or the environment lacks."""

    def __init__(
        self,
        flow: DeliveryFlow,
        *,
        environment: Mapping[str, str],
        folder: Path,
        clock: Clock,
        objects: Objects,
        functions: Functions,
    ) -> None:
        self._flow = flow
        opening = Opening(environment, folder, clock, objects, flow.evidence)
        self._line = Line(flow.target, opening)
        look_up = flow.look_up
        self._other = self._line if look_up is None or look_up.target is None else Line(look_up.target, opening)
        build = CallBuilder(self._line.base, environment, functions)
        self._kinds = {
            kind.name: _KindCalls(
                create=build.call(kind.create),
                update=build.call(kind.update) if kind.update is not None else None,
                judge=classifier(flow.replies, receipt=kind.receipt),
                judge_update=classifier(flow.replies, receipt=None),
                idempotency_header=kind.idempotency_header,
            )
            for kind in flow.kinds.values()
            if kind.create is not None
        }
        self._look_up = None
        if look_up is not None:
            self._look_up = _Finder(look_up, CallBuilder(self._other.base, environment, functions), functions)
        self._poll = None if flow.poll is None else ConfirmationReader(flow.poll, build.call(flow.poll.call))

    # --- sending ----------------------------------------------------------------------------------------------

    def prepare(self, parcel: Parcel) -> Prepared:
        calls = self._kinds[parcel.kind]
        updating = parcel.receipt is not None and calls.update is not None
        call = calls.update if updating and calls.update is not None else calls.create
        built = call.build(parcel)
        if calls.idempotency_header is not None:
            built = built.with_header(calls.idempotency_header, parcel.idempotency_key)
        place = f"{built.method} {call.spec.path}"
        if self._line.contract is not None:
            _hold(self._line.contract, built, place)
        return Prepared(built, calls.judge_update if updating else calls.judge, place)

    async def send(self, prepared: Any) -> Answer:
        judge: Classifier = prepared.judge
        return await self._line.ask(
            ExchangeKind.SEND,
            prepared.built,
            prepared.place,
            lambda reply: judge(reply.status, reply.content_type, reply.body),
        )

    # --- looking up -------------------------------------------------------------------------------------------

    async def look_up(self, parcel: Parcel) -> Answer:
        finder = self._look_up
        if finder is None:
            raise Misconfigured("This flow declares no `look_up`.", "Add it, or decide by hand.")
        built = finder.call.build(parcel)
        place = f"{built.method} {finder.spec.call.path}"
        return await self._other.ask(ExchangeKind.LOOK_UP, built, place, lambda reply: finder.judge(reply, parcel))

    # --- polling ----------------------------------------------------------------------------------------------

    async def poll(self, receipts: Sequence[str]) -> PollAnswer:
        if self._poll is None:
            raise Misconfigured("This flow declares no `poll`.", "Add it.")
        reader = self._poll
        built = reader.build(receipts)
        place = f"{built.method} {reader.spec.call.path}"
        body: list[bytes] = []

        def judge(reply: Reply) -> Judged:
            body.append(reply.body)
            return reader.judge(reply.status, reply.content_type, reply.body)

        answer = await self._line.ask(ExchangeKind.POLL, built, place, judge)
        assert answer.exchange is not None
        return reader.read(answer, body[-1] if body else b"", receipts)

    async def probe(self) -> str:
        """A GET of the base address: whoever answers at all is there."""
        built = Built("GET", self._line.base, str(self._line.base), {}, b"", "application/json")
        answer = await self._line.ask(ExchangeKind.SEND, built, "GET", lambda reply: Judged(Outcome.DONE))
        if answer.exchange is None or answer.exchange.status is None:
            raise Transient(answer.problem or "No answer.", fault=answer.fault or "unreachable")
        return f"{self._line.base.authority} answered {answer.exchange.status}."

    async def close(self) -> None:
        await self._line.close()
        if self._other is not self._line:
            await self._other.close()


@dataclass(frozen=True, slots=True)
class _KindCalls:
    create: CompiledCall
    update: CompiledCall | None
    judge: Classifier
    judge_update: Classifier
    idempotency_header: str | None


def _hold(contract: Contract, built: Built, place: str) -> None:
    """The request is held to the contract before it leaves. Refused says what does not keep it."""
    path = built.url.raw_path
    operation = contract.operation(built.method, path)
    if operation is None:
        raise Misconfigured(f"{place} is not in the contract {contract.title}.", "Correct the path, or the contract.")
    findings = contract.check_request(
        operation,
        operation.path_values(path),
        {name: built.url.query.getall(name) for name in built.url.query},
        {**built.headers, "Content-Type": built.content_type},
        built.document if built.length > 0 else None,
    )
    if findings:
        raise Refused(
            f"The request does not keep the contract {contract.title}: {told(findings)}",
            "Correct the payload and hand the item in anew, or mend the flow file.",
            fault="contract",
        )


class _Finder:
    """A look-up: its call, and how its answer tells whether the item is there."""

    def __init__(self, spec: LookUp, build: CallBuilder, functions: Functions) -> None:
        self.spec, self.call = spec, build.call(spec.call)
        self._function = functions.get(spec.function) if spec.function is not None else None
        self._match = [(path, compile_template(value)) for path, value in spec.match.items()]
        self._judge = classifier((), receipt=None)

    def judge(self, reply: Reply, parcel: Parcel) -> Judged:
        """DONE with the receipt, NOT_FOUND, or the trouble that the answer says."""
        if reply.status in self.spec.absent:
            return Judged(Outcome.NOT_FOUND)
        if not 200 <= reply.status < 300:
            judged = self._judge(reply.status, reply.content_type, reply.body)
            return Judged(
                Outcome.TEMPORARY if judged.outcome is Outcome.UNKNOWN else judged.outcome,
                None,
                judged.fault,
                judged.code,
                judged.said,
            )
        try:
            document = msgspec.json.decode(reply.body)
            receipt = self._found(document, parcel)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            said = f"The answer can't be read ({type(error).__name__})."
            return Judged(Outcome.TEMPORARY, fault="look_up_unreadable", said=said)
        return Judged(Outcome.NOT_FOUND) if receipt is None else Judged(Outcome.DONE, receipt=receipt)

    def _found(self, document: Any, parcel: Parcel) -> str | None:
        if self._function is not None:
            receipt = self._function(document, parcel)
            return None if receipt is None else str(receipt)
        entries = value_at(document, self.spec.items) if self.spec.items else document
        if not isinstance(entries, list):
            raise ValueError("no list")
        scope = scope_of(parcel)
        wanted = [(path, template.fill(scope)) for path, template in self._match]
        for entry in entries:
            if all(value_at(entry, path) == value for path, value in wanted):
                receipt = at(entry, self.spec.receipt.split("."))
                return None if receipt is None else str(receipt)
        return None
