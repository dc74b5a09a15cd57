"""Deliveries that are due: claim → check → send → settle, set-wise, under a lease, each settling fenced by its attempt.

Killed anywhere: what was not marked as leaving is due again; what may have left is in doubt, and is looked up or a person's. Nothing
that lost its lease is sent, and nothing it did is settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import timedelta
from uuid import UUID

from counterfoil.engine.answers import Judging, given_back, looked_up_in_vain, move_of
from counterfoil.engine.caller import GateClosedError
from counterfoil.engine.job import DeliveryJob
from counterfoil.engine.log import get_logger
from counterfoil.engine.parcels import Done, Ready, check
from counterfoil.ledger import cases, deliveries, gates
from counterfoil.ledger.deliveries import Claimed, Proof
from counterfoil.ledger.items import Move, Moved
from counterfoil.ledger.pool import Ledger
from counterfoil.model.delivery import Answer, Lane, Outcome, Resend
from counterfoil.model.errors import ConnectorError, CounterfoilError, Misconfigured
from counterfoil.model.item import ItemEvent, ItemState

log = get_logger(__name__)

SIDE_BY_SIDE = 2  # slices of one lane: while one is settled, the other is sent
SETTLE_ROWS = 100
SETTLE_SECONDS = 0.2
MARGIN = 2.0  # seconds before the end of a lease in which nothing is sent any more
MISCONFIGURED = "run:misconfigured"  # the fault of a flow's own case
MISCONFIGURED_PAUSE = 60.0  # seconds: credentials and certificates are not mended faster


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became of a slice: `claimed` is the sum of the others."""

    claimed: int = 0
    arrived: int = 0  # done, or accepted and to be confirmed
    stopped: int = 0  # a person's
    later: int = 0  # failed for now, or waits for its parent
    doubtful: int = 0
    given_back: int = 0
    lost: int = 0  # its lease was lost: another attempt has it

    def __add__(self, other: Pushed) -> Pushed:
        return Pushed(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


@dataclass(slots=True)
class Turn:
    """Whose turn among families it is, from one claim to the next."""

    after: int = 0


class _StoppingError(CounterfoilError):
    """The worker stops: what has not left stays here."""


class _LeaseLostError(CounterfoilError):
    """Another attempt has the item."""


@dataclass(slots=True)
class _Held:
    """The items of a slice that are ours, and until when that is sure, on the monotonic clock."""

    items: dict[UUID, Claimed]
    until: float
    stopping: bool = False
    settled: set[UUID] = field(default_factory=set)

    @property
    def open(self) -> list[UUID]:
        return [attempt for attempt in self.items if attempt not in self.settled]


async def all_due(job: DeliveryJob, lane: Lane = Lane.LIVE) -> Pushed:
    """Slice after slice, a few side by side, until nothing of the lane is due: a child goes right behind its parent."""
    turn = Turn()

    async def one_after_the_other() -> Pushed:
        done = Pushed()
        while (one := await work(job, lane, turn)).claimed:
            done += one
        return done

    done = sum(await asyncio.gather(*(one_after_the_other() for _ in range(SIDE_BY_SIDE))), Pushed())
    if done.arrived:
        async with job.ledger.session() as session:
            why = "deliveries arrive again"
            await cases.close_for_flow(session, job.flow.name, prefix=MISCONFIGURED, who="worker", why=why)
    if done.claimed:
        log.info("deliveries.sent", flow=job.flow.name, lane=lane.value, **asdict(done))
    return done


async def work(job: DeliveryJob, lane: Lane = Lane.LIVE, turn: Turn | None = None) -> Pushed:
    """Claim what is due in a lane, send it, settle it. Nothing is claimed while the way is closed."""
    if await job.lanes.wait(lane) > 0:
        return Pushed()
    lease = timedelta(seconds=job.flow.target.timeouts.total.total_seconds() + job.lease)
    turn = turn or Turn()
    asked_at = job.clock.monotonic()
    async with job.ledger.transaction() as connection:
        claimed = await deliveries.claim(
            connection, job.flow.name, lane, limit=job.slice, lease=lease, worker=job.worker, after=turn.after
        )
    if not claimed:
        return Pushed()
    turn.after = claimed[0].turned_to
    held = _Held({item.attempt_id: item for item in claimed}, asked_at + lease.total_seconds())
    async with _under_lease(job, held, lease):
        counts = await _deliver(job, lane, held)
    told = sum(asdict(counts).values())
    return replace(counts, claimed=len(claimed), lost=counts.lost + len(claimed) - told)


async def _deliver(job: DeliveryJob, lane: Lane, held: _Held) -> Pushed:
    book = _Book(job, held)
    try:
        ready, stopped = await check(job, list(held.items.values()))
    except Misconfigured as error:
        await _pause(job, error)
        ready, stopped = [], _all_given_back(job, held, MISCONFIGURED_PAUSE)
    for done in stopped:
        book.add(done)
    await _keep_files(job, ready)
    await _send_all(job, lane, held, await _mark(job, ready), book)
    return book.counts


def _all_given_back(job: DeliveryJob, held: _Held, seconds: float) -> list[Done]:
    now = job.clock.now()
    due = now + timedelta(seconds=seconds)
    return [Done(item, given_back(Judging(job.flow, item, now), due)) for item in held.items.values()]


@asynccontextmanager
async def _under_lease(job: DeliveryJob, held: _Held, lease: timedelta) -> AsyncIterator[None]:
    beating = asyncio.create_task(_beat(job, held, lease))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(job: DeliveryJob, held: _Held, lease: timedelta) -> None:
    """Renew the lease three times within it; what is ours no more is forgotten, and not sent."""
    while True:
        await asyncio.sleep(lease.total_seconds() / 3)
        asked_at, ours = job.clock.monotonic(), held.open
        try:
            async with job.ledger.session() as session:
                kept = await deliveries.renew(session, job.flow.name, ours, lease)
        except Exception as error:  # the lease says what follows; the next beat tries again
            log.warning("delivery.lease_not_renewed", flow=job.flow.name, error=type(error).__name__)
            continue
        for attempt in set(ours) - kept - held.settled:
            held.items.pop(attempt, None)
        held.until = asked_at + lease.total_seconds()


async def _keep_files(job: DeliveryJob, ready: Sequence[Ready]) -> None:
    """Files made ready are kept with their items, so that the next try sends the same ones and makes nothing anew."""
    made = [
        (one.item.id, one.item.attempt_id, one.parcel.file)
        for one in ready
        if one.parcel.file is not None and one.item.rendered is None
    ]
    if made:
        async with job.ledger.session() as session:
            await deliveries.keep_rendered(session, job.flow.name, made)


# --- send -----------------------------------------------------------------------------------------------------


async def _mark(job: DeliveryJob, ready: Sequence[Ready]) -> list[Ready]:
    """Written down before anything leaves: these may be on their way. What may safely be sent twice needs no such note."""
    now = job.clock.now()
    careful = [one for one in ready if Judging(job.flow, one.item, now).resend is not Resend.SAFE]
    if not careful:
        return list(ready)

    async def mark() -> set[UUID]:
        async with job.ledger.transaction() as connection:
            pairs = [(one.item.id, one.item.attempt_id) for one in careful]
            return await deliveries.mark_sending(connection, job.flow.name, pairs)

    kept = await job.ledger.patiently(mark)
    lost = {one.item.attempt_id for one in careful} - kept
    return [one for one in ready if one.item.attempt_id not in lost]


async def _send_all(job: DeliveryJob, lane: Lane, held: _Held, ready: Sequence[Ready], book: _Book) -> None:
    """All at once, as far as window and rate allow; what is done is settled while the others are still under way.

    A worker that is told to stop sends nothing more, waits for the answers of what has left, and settles. Told a second time it goes at
    once: then what had left is in doubt.
    """
    sending = [asyncio.create_task(_send_to(job, lane, held, one, book)) for one in ready]
    everything = asyncio.gather(*sending)
    everything.add_done_callback(lambda _: book.wake())
    try:
        while not everything.done():
            await book.due()
            await book.settle()
    except asyncio.CancelledError:
        held.stopping = True
        await asyncio.wait([everything])
        await book.settle()
        raise
    finally:
        everything.cancel()
        await asyncio.gather(everything, return_exceptions=True)
    await book.settle()
    everything.result()


async def _send_to(job: DeliveryJob, lane: Lane, held: _Held, one: Ready, book: _Book) -> None:
    done = await _send(job, lane, held, one)
    if done is not None:
        book.add(done)


async def _send(job: DeliveryJob, lane: Lane, held: _Held, one: Ready) -> Done | None:
    """One item: looked up where it is in doubt, and sent. None: its lease was lost before anything left."""
    judging, proofs = Judging(job.flow, one.item, job.clock.now()), list[Proof]()
    try:
        if judging.item.doubt_at is not None and judging.resend is Resend.LOOK_UP:
            found = await _look_up(job, lane, held, one, judging, proofs)
            if found is not None:
                return Done(one.item, found, tuple(proofs))
        answer = await job.lanes.once(lane, lambda: _leave(job, held, one))
        proofs += _proofs(one, answer)
        answer = await _with_first_receipt(job, lane, one, judging, answer, proofs)
    except _LeaseLostError:
        return None
    except _StoppingError:
        return Done(one.item, given_back(judging, judging.now), tuple(proofs))
    except GateClosedError as closed:
        due = job.clock.now() + timedelta(seconds=closed.wait)
        return Done(one.item, given_back(judging, due), tuple(proofs))
    except Misconfigured as error:
        await _pause(job, error)
        due = job.clock.now() + timedelta(seconds=MISCONFIGURED_PAUSE)
        return Done(one.item, given_back(judging, due), tuple(proofs))
    return Done(one.item, move_of(replace(judging, now=job.clock.now()), answer), tuple(proofs))


async def _leave(job: DeliveryJob, held: _Held, one: Ready) -> Answer:
    """The last look before a request leaves: is it still ours, and do we go on?"""
    if one.item.attempt_id not in held.items or job.clock.monotonic() > held.until - MARGIN:
        raise _LeaseLostError("The lease of the item was lost.")
    if held.stopping:
        raise _StoppingError("The worker stops.")
    return await job.target.send(one.prepared)


async def _look_up(
    job: DeliveryJob, lane: Lane, held: _Held, one: Ready, judging: Judging, proofs: list[Proof]
) -> Move | None:
    """The move where the look-up decides; None: the other side does not have it, and it may be sent."""
    assert job.flow.look_up is not None
    assert one.item.doubt_at is not None
    if held.stopping:
        raise _StoppingError("The worker stops.")
    answer = await job.lanes.once(lane, lambda: job.target.look_up(one.parcel))
    proofs += _proofs(one, answer)
    if answer.outcome in (Outcome.DONE, Outcome.DUPLICATE):
        return move_of(judging, answer)
    if answer.outcome is not Outcome.NOT_FOUND:
        return looked_up_in_vain(judging, answer)
    earliest = one.item.doubt_at + job.flow.look_up.after
    if judging.now < earliest:  # it may still be at it: "not found" proves nothing yet
        return judging.move(ItemEvent.DOUBT, answer, next_action_at=earliest)
    return None


async def _with_first_receipt(
    job: DeliveryJob, lane: Lane, one: Ready, judging: Judging, answer: Answer, proofs: list[Proof]
) -> Answer:
    """A duplicate that was refused without telling the first receipt: the look-up may know it."""
    wanted = answer.outcome is Outcome.DUPLICATE and answer.receipt is None and judging.kind.receipt is not None
    if not wanted or job.flow.look_up is None:
        return answer
    try:
        found = await job.lanes.once(lane, lambda: job.target.look_up(one.parcel))
    except (GateClosedError, Misconfigured):
        return replace(answer, outcome=Outcome.UNKNOWN)
    proofs += _proofs(one, found)
    if found.outcome is Outcome.DONE:
        return replace(answer, receipt=found.receipt)
    return answer if found.outcome is Outcome.NOT_FOUND else replace(answer, outcome=Outcome.UNKNOWN)


def _proofs(one: Ready, answer: Answer) -> list[Proof]:
    exchanges = (*answer.earlier, *([answer.exchange] if answer.exchange is not None else []))
    return [Proof(exchange, one.item.id, one.item.attempt_id) for exchange in exchanges]


async def _pause(job: DeliveryJob, error: Misconfigured) -> None:
    """Credentials or certificates are wrong: no item is to blame. One case for the flow, and a pause for everybody."""
    await hold_all(job.ledger, job.flow.name, error)
    async with job.ledger.session() as session:
        name = job.lanes.callers[Lane.LIVE].gate.name
        await gates.close(session, name, MISCONFIGURED_PAUSE, "credentials or certificates are refused")


async def hold_all(ledger: Ledger, flow: str, error: ConnectorError) -> None:
    """A flow that can't send at all: one case says why; its items stay due."""
    log.error("delivery.misconfigured", flow=flow, problem=str(error))
    async with ledger.transaction() as connection:
        title = f"Deliveries of {flow} are held: {error}"
        await cases.open_for_flow(connection, flow, MISCONFIGURED, title)


# --- settle ---------------------------------------------------------------------------------------------------

_COUNTED = {
    ItemState.SUCCESS: "arrived",
    ItemState.ACCEPTED: "arrived",
    ItemState.PERMANENT_ERROR: "stopped",
    ItemState.TEMPORARY_ERROR: "later",
    ItemState.WAITING: "later",
    ItemState.IN_DOUBT: "doubtful",
    ItemState.QUEUED: "given_back",
}


class _Book:
    """What is done and not yet settled. One transaction for many; that an answer to COMMIT was lost does no harm: the fence knows."""

    def __init__(self, job: DeliveryJob, held: _Held) -> None:
        self.job, self.held, self.counts = job, held, Pushed()
        self._waiting: list[Done] = []
        self._full = asyncio.Event()

    def add(self, done: Done) -> None:
        self._waiting.append(done)
        if len(self._waiting) >= SETTLE_ROWS:
            self._full.set()

    def wake(self) -> None:
        self._full.set()

    async def due(self) -> None:
        """Wait until there is enough to settle, or for a fifth of a second."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._full.wait(), SETTLE_SECONDS)

    async def settle(self) -> None:
        done, self._waiting = self._waiting, []
        self._full.clear()
        if not done:
            return
        moves, proofs = [one.move for one in done], [proof for one in done for proof in one.proofs]

        async def write() -> list[Moved]:
            async with self.job.ledger.transaction() as connection:
                return await deliveries.settle(connection, self.job.flow.name, moves, proofs, worker=self.job.worker)

        moved = await self.job.ledger.patiently(write)
        self.held.settled.update(one.item.attempt_id for one in done)
        counts = _counted(moved)
        self.counts += counts
        log.debug("deliveries.settled", flow=self.job.flow.name, **asdict(counts))


def _counted(moved: Sequence[Moved]) -> Pushed:
    counts: dict[str, int] = {}
    for one in moved:
        name = _COUNTED.get(one.to_state, "lost") if one.moved else "lost"
        counts[name] = counts.get(name, 0) + 1
    return Pushed(**counts)
