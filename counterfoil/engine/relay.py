"""A relay's call from beginning to end, while the caller waits: accepted or refused, remembered, passed on once, answered in time.

Every call stands in the ledger before anything is asked behind. The same call again is answered from the record; where the first one's
reply was lost, it is looked up before anything is sent. Killed in between: the call stands there without an end, which is a doubt as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from counterfoil.engine.log import get_logger
from counterfoil.flows.delivery import RelayFlow
from counterfoil.ledger import deliveries
from counterfoil.ledger.deliveries import Proof
from counterfoil.ledger.pool import PASSING, Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Answer, Outcome
from counterfoil.model.errors import CounterfoilError, Misconfigured, Refused, Transient
from counterfoil.model.ports import Door
from counterfoil.model.relay import Accepted, Incoming, Reply

log = get_logger(__name__)

REMEMBERED = timedelta(days=7)  # the same call within so long is the same call
MARGIN = 0.5  # seconds kept of the deadline to write down and answer


@dataclass(slots=True)
class RelayJob:
    """A relay flow at work in this process. `under_way`: calls whose caller has been answered and that go on."""

    flow: RelayFlow
    door: Door
    ledger: Ledger
    clock: Clock
    under_way: set[asyncio.Task[Any]] = field(default_factory=set)


class ReplyError(Exception):
    """What was answered behind can't be put into the declared reply."""


@dataclass(slots=True)
class _Call:
    """A call in the ledger, and the proofs of what was asked behind."""

    id: int
    proofs: list[Proof] = field(default_factory=list)

    def prove(self, answer: Answer) -> None:
        exchanges = (*answer.earlier, *([answer.exchange] if answer.exchange is not None else []))
        self.proofs += [Proof(exchange, call_id=self.id) for exchange in exchanges]


async def handle(job: RelayJob, incoming: Incoming) -> Reply:
    """The reply to a call, whatever happens, within the deadline."""
    accepted = job.door.accept(incoming)
    try:
        call = await _start(job, incoming, accepted)
    except PASSING:
        # What can't be written down is not passed on: nobody could tell later what became of it.
        log.error("relay.database_lost", flow=job.flow.name)
        return job.door.refuse(503, "down", "The call can't be recorded now.")
    if isinstance(accepted, Reply):
        await _end(job, call, accepted, "refused")
        return accepted
    return await _in_time(job, call, accepted)


async def _in_time(job: RelayJob, call: _Call, accepted: Accepted) -> Reply:
    """What is under way when the time is up goes on without its caller, so that its end is known to the next one."""
    working = asyncio.create_task(_work(job, call, accepted))
    job.under_way.add(working)
    working.add_done_callback(job.under_way.discard)
    done, _ = await asyncio.wait({working}, timeout=max(0.1, job.door.deadline - MARGIN))
    if done:
        return working.result()
    log.warning("relay.late", flow=job.flow.name, call=call.id, operation=accepted.operation)
    return job.door.refuse(504, "late", "No answer came in time from the system behind.")


async def _work(job: RelayJob, call: _Call, accepted: Accepted) -> Reply:
    """One at a time for what must not run beside it; then the call, and its end in the ledger."""
    try:
        async with _alone(job, accepted) as connection:
            reply, outcome = await _answered(job, call, accepted, connection)
    except Refused as error:
        reply, outcome = job.door.refuse(400, "bad", error.problem), "refused"
    except Transient as error:
        reply, outcome = job.door.refuse(503, "down", error.problem), "temporary"
    except Misconfigured as error:
        log.error("relay.misconfigured", flow=job.flow.name, problem=str(error))
        reply, outcome = job.door.refuse(500, "down", "The relay is not set up rightly."), "temporary"
    except PASSING as error:
        log.error("relay.database_lost", flow=job.flow.name, error=type(error).__name__)
        reply, outcome = job.door.refuse(503, "down", "The call can't be recorded now."), "temporary"
    except Exception:
        log.exception("relay.failed", flow=job.flow.name, call=call.id)
        reply, outcome = job.door.refuse(500, "down", "The relay failed."), "unknown"
    await _end(job, call, reply, outcome)
    return reply


async def _answered(job: RelayJob, call: _Call, accepted: Accepted, connection: Any) -> tuple[Reply, str]:
    before = await _before(job, call, accepted, connection)
    if before is not None and before["outcome"] in ("done", "replayed") and before["reply"] is not None:
        return Reply(before["status"], before["reply"].encode(), said="The same call was answered before."), "replayed"
    found = await job.door.find(accepted)
    if found is not None:
        call.prove(found.answer)
        if found.answer.outcome not in (Outcome.DONE, Outcome.NOT_FOUND):
            # Without it the parent would be wrong, or the document there twice: nothing is sent.
            raise Transient(f"What must be looked up first could not be: {found.answer.problem}")
        if before is not None and (again := job.door.again(accepted, found)) is not None:
            return again, "replayed"
    passed = await job.door.call(accepted, found)
    call.prove(passed.answer)
    try:
        return job.door.reply(accepted, passed), passed.answer.outcome.value
    except CounterfoilError as error:
        # It may be done behind: whatever the reply lacks, the caller must not read that it was refused.
        raise ReplyError(str(error)) from error


async def _before(job: RelayJob, call: _Call, accepted: Accepted, connection: Any) -> Any:
    """An earlier call with the same content that may have arrived: done, in doubt, or without an end."""
    if not accepted.replays:
        return None
    since = job.clock.now() - REMEMBERED
    row = await deliveries.same_call(connection, job.flow.name, accepted.fingerprint, before=call.id, since=since)
    return row if row is not None and row["outcome"] in (None, "done", "replayed", "unknown") else None


@asynccontextmanager
async def _alone(job: RelayJob, accepted: Accepted) -> AsyncIterator[Any]:
    """Over all hosts: the lock goes with the transaction, however this process ends. Gives that transaction's connection."""
    names = sorted({name for name in (accepted.alone, accepted.fingerprint if accepted.replays else "") if name})
    async with job.ledger.transaction() as connection:
        for name in names:
            await deliveries.hold_alone(connection, f"{job.flow.name}:{name}")
        yield connection


async def _start(job: RelayJob, incoming: Incoming, accepted: Accepted | Reply) -> _Call:
    known = accepted if isinstance(accepted, Accepted) else None
    async with job.ledger.session() as session:
        return _Call(
            await deliveries.start_call(
                session,
                job.flow.name,
                operation=known.operation if known else None,
                caller=known.caller if known else None,
                method=incoming.method[:16],
                path=incoming.path[:500],
                fingerprint=known.fingerprint if known else None,
                size=len(incoming.body),
            )
        )


async def _end(job: RelayJob, call: _Call, reply: Reply, outcome: str) -> None:
    """Where the end can't be written, the call stays without one: a doubt that the next same call looks up."""
    kept = reply.body.decode("utf-8", "replace") if outcome in ("done", "replayed") else None

    async def write() -> None:
        async with job.ledger.transaction() as connection:
            if call.proofs:
                await deliveries.note_exchanges(connection, job.flow.name, call.proofs)
            await deliveries.end_call(
                connection, call.id, status=reply.status, outcome=outcome, reply=kept, problem=reply.said[:500] or None
            )

    try:
        await job.ledger.patiently(write, tries=3)
    except PASSING as error:
        log.error("relay.end_not_written", flow=job.flow.name, call=call.id, error=type(error).__name__)
