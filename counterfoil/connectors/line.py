"""One request of a delivery and what its answer means, with its proof. One try; once more only where credentials were renewed after a 401.

Every trouble of the other side becomes an `Answer`; only what nobody can wait for (credentials, certificates) is raised. What leaves is
hashed as it leaves, and redacted before it is kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from counterfoil.connectors import auth
from counterfoil.connectors.authorise import Authoriser, authoriser_of
from counterfoil.connectors.contract import load_contract
from counterfoil.connectors.objects import Objects
from counterfoil.connectors.redact import redactor, sentence
from counterfoil.connectors.replies import retry_after
from counterfoil.connectors.requests import Built
from counterfoil.connectors.templates import http_url
from counterfoil.connectors.tls import context_of
from counterfoil.connectors.wire import Ask, Reply, Wire
from counterfoil.flows.delivery import BodyKeeping, Evidence, Target
from counterfoil.flows.flow import AuthType
from counterfoil.flows.replies import Judged
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Answer, Exchange, ExchangeKind, Outcome
from counterfoil.model.errors import ConnectorError, Refused, Throttled, TooLarge, Transient, Unknown


@dataclass(frozen=True, slots=True)
class Opening:
    """What every line of a flow is opened with."""

    environment: Mapping[str, str]
    folder: Path
    clock: Clock
    objects: Objects
    evidence: Evidence


class Line:
    """The way to one system: its connections, credentials, contract. A look-up may have one of its own."""

    def __init__(self, spec: Target, opening: Opening) -> None:
        environment, folder, clock = opening.environment, opening.folder, opening.clock
        self.base = http_url(auth.resolve(spec.url, environment), "Write it like https://api.example.com/v1.")
        self.clock, self.objects, self.spec = clock, opening.objects, spec
        self.contract = None if spec.contract is None else load_contract(folder / "contracts" / spec.contract)
        tls = context_of(spec.tls, folder, environment, clock.now())
        more = {"timeouts": spec.timeouts, "ssl": tls} if spec.auth.type is AuthType.OAUTH else {}
        self.authoriser: Authoriser = authoriser_of(spec.auth, environment, clock, **more)
        self._wire = Wire(
            self.base,
            headers={
                "Accept": "application/json",
                "User-Agent": "counterfoil",
                **auth.resolve_all(spec.headers, environment),
            },
            timeouts=spec.timeouts,
            concurrency=spec.concurrency,
            authoriser=self.authoriser,
            tls=tls,
            resends=False,
        )
        self._signs = spec.auth.type is AuthType.SIGV4  # then the hash of a streamed body is needed before it leaves
        self._redact, self._keeping = redactor(opening.evidence), opening.evidence.bodies

    async def ask(self, kind: ExchangeKind, built: Built, place: str, judge: Callable[[Reply], Judged]) -> Answer:
        """One request and what its answer means; once more where credentials could be renewed after a 401.

        Raises Misconfigured. Every other trouble is an answer.
        """
        answer, reply = await self._ask(kind, built, place, judge)
        if reply is None or reply.status != 401 or not await self._renewed(reply):
            return answer
        again, _ = await self._ask(kind, built, place, judge)
        earlier = () if answer.exchange is None else (*answer.earlier, answer.exchange)
        return replace(again, earlier=earlier)

    async def _renewed(self, reply: Reply) -> bool:
        try:
            return await self.authoriser.renew(reply.sent or {})
        except Transient:
            return False

    async def _ask(
        self, kind: ExchangeKind, built: Built, place: str, judge: Callable[[Reply], Judged]
    ) -> tuple[Answer, Reply | None]:
        proof = _Proof(kind, self.clock.now(), time.monotonic(), built)
        streamed = built.body is None
        if not streamed or self._signs:
            proof.digest.whole = await built.sha256(self.objects)
        ask = Ask(
            built.method,
            built.url,
            place,
            self.spec.reply_bytes,
            "reply_bytes",
            built.body,
            cut=True,
            single=True,
            content_type=built.content_type,
            stream=proof.digest.of(built.stream(self.objects)) if streamed else None,
            length=built.length,
            sha256=proof.digest.whole if streamed else None,
        )
        try:
            reply = await self._wire.call(ask, built.headers)
        except (Transient, Unknown, TooLarge, Refused) as error:
            # A file that could not be read to its end: the body never was whole, so nothing was done with it.
            return self._unanswered(proof, proof.digest.broken or error), None
        judged = judge(reply)
        return self._answered(proof, reply, judged, place), reply

    def _unanswered(self, proof: _Proof, error: ConnectorError) -> Answer:
        """No reply: not sent at all, or nobody knows."""
        outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
        wait = error.retry_after if isinstance(error, Throttled) else None
        exchange = proof.exchange(outcome, fault=error.fault, request=self._kept(proof.built, outcome))
        return Answer(outcome, exchange, fault=error.fault, problem=str(error), retry_after=wait)

    def _answered(self, proof: _Proof, reply: Reply, judged: Judged, place: str) -> Answer:
        wait = retry_after(reply.headers.get("Retry-After"), self.clock.now())
        if judged.after is not None:
            wait = max(wait or 0.0, judged.after.total_seconds())
        keep = self._keeping is BodyKeeping.ALWAYS or (
            self._keeping is BodyKeeping.FAILURES and judged.outcome not in (Outcome.DONE, Outcome.NOT_FOUND)
        )
        exchange = proof.exchange(
            judged.outcome,
            status=reply.status,
            got=reply.body,
            request=self._kept(proof.built, judged.outcome),
            reply=self._redact(reply.body, reply.content_type) if keep else None,
            fault=judged.fault,
        )
        problem = None if judged.outcome is Outcome.DONE else _problem(place, reply.status, judged)
        return Answer(judged.outcome, exchange, judged.receipt, judged.fault, problem, wait)

    def _kept(self, built: Built, outcome: Outcome) -> str | None:
        """The request's body as far as it may be kept; that of a file's content is never part of it."""
        wanted = self._keeping is BodyKeeping.ALWAYS or (
            self._keeping is BodyKeeping.FAILURES and outcome is not Outcome.DONE
        )
        return self._redact(built.shown, "application/json") if wanted and built.shown else None

    async def close(self) -> None:
        await self._wire.close()


# The first kind that fits; subclasses stand before their parents. A reply over the limit says nothing about what was done.
_OUTCOMES: tuple[tuple[type[ConnectorError], Outcome], ...] = (
    (Throttled, Outcome.THROTTLED),
    (Transient, Outcome.TEMPORARY),
    (TooLarge, Outcome.UNKNOWN),
    (Refused, Outcome.REFUSED),
    (ConnectorError, Outcome.UNKNOWN),
)


def _problem(place: str, status: int, judged: Judged) -> str:
    code = f" {judged.code}" if judged.code else ""
    said = f": {sentence(judged.said)}" if judged.said else "."
    return f"{place} answered {status}{code}{said}"


class _Digest:
    """The hash of what is sent: known before (a body, or what is signed), or taken of what leaves."""

    def __init__(self) -> None:
        self.whole: str | None = None
        self.broken: ConnectorError | None = None
        self._running = hashlib.sha256()
        self._sent = 0

    def of(self, stream: Callable[[], AsyncIterator[bytes]]) -> Callable[[], AsyncIterator[bytes]]:
        """The stream, every chunk of it seen; what breaks it is remembered, since the client below makes something else of it."""

        async def seen() -> AsyncIterator[bytes]:
            try:
                async for chunk in stream():
                    self._running.update(chunk)
                    self._sent += len(chunk)
                    yield chunk
            except ConnectorError as error:
                self.broken = error
                raise

        return seen

    def value(self, length: int) -> str | None:
        """None where the body did not leave whole."""
        return self.whole or (self._running.hexdigest() if length and self._sent == length else None)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What is known of an exchange before its answer."""

    kind: ExchangeKind
    at: datetime
    began: float
    built: Built
    digest: _Digest = field(default_factory=_Digest)

    def exchange(
        self,
        outcome: Outcome,
        *,
        status: int | None = None,
        got: bytes = b"",
        request: str | None = None,
        reply: str | None = None,
        fault: str | None = None,
    ) -> Exchange:
        return Exchange(
            self.kind,
            self.at,
            self.built.method,
            self.built.address,
            status,
            outcome,
            time.monotonic() - self.began,
            self.built.length,
            self.digest.value(self.built.length),
            len(got),
            hashlib.sha256(got).hexdigest() if got else None,
            request,
            reply,
            fault,
        )
