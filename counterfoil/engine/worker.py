"""What a slice is, and a process that works: it takes slices from the queue, does the upkeep, and gives back what it holds when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from counterfoil.engine import poll, push, retry, sync
from counterfoil.engine.intake import Intakes
from counterfoil.engine.job import DeliveryJob, SyncJob
from counterfoil.engine.log import get_logger
from counterfoil.engine.presence import Presence
from counterfoil.engine.queue import ITEMS, POLL, PUSH, RUN, Queue
from counterfoil.engine.upkeep.complete import Complete
from counterfoil.engine.upkeep.prune import Prune
from counterfoil.engine.upkeep.rescue import Rescue
from counterfoil.engine.upkeep.schedule import FireSchedules
from counterfoil.engine.upkeep.sweep import Sweep
from counterfoil.engine.upkeep.wake import Wake
from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.flows.flow import SyncFlow
from counterfoil.ledger import runs
from counterfoil.ledger.pool import PASSING, Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import Lane
from counterfoil.model.errors import ConnectorError

log = get_logger(__name__)


@dataclass(slots=True)
class Worker:
    """`job_of` and `delivery_of` give the one job of a flow in this process, so that all its slices share window and gate."""

    ledger: Ledger
    clock: Clock
    flows: Mapping[str, SyncFlow]
    presence: Presence
    queue: Queue
    job_of: Callable[[str], SyncJob]
    deliveries: Mapping[str, DeliveryFlow] = field(default_factory=dict)
    delivery_of: Callable[[str], DeliveryJob] | None = None
    intakes: Intakes | None = None
    under_way: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, stop: asyncio.Event, *, schedules: bool) -> None:
        """Work until `stop` is set; then give back what is held, and return."""
        for kind, handler in {
            RUN: self._run_slice,
            ITEMS: self._items_slice,
            PUSH: self._push_slice,
            POLL: self._poll_slice,
        }.items():
            self.queue.register(kind, handler)
        for name, duty in self._duties(schedules):
            self.queue.schedule(name, duty.every, duty.run_once)
        running = asyncio.create_task(self.queue.run())
        stopping = asyncio.create_task(stop.wait())
        flows = len(self.flows) + len(self.deliveries)
        log.info("worker.started", worker=self.presence.worker, flows=flows, schedules=schedules)
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self.queue.stop()
        for task in self.under_way:
            task.cancel()
        stopping.cancel()
        await running
        log.info("worker.stopped", worker=self.presence.worker)

    def _duties(self, schedules: bool) -> list[tuple[str, Any]]:
        duties: list[tuple[str, Any]] = [
            ("sweep", Sweep(self.ledger, self.queue, self.clock, self.flows.keys(), self.deliveries.keys())),
            ("rescue", Rescue(self.ledger, {**self.flows, **self.deliveries})),
            ("prune", Prune(self.ledger)),
            ("wake", Wake(self.ledger)),
            ("complete", Complete(self.ledger, self.deliveries)),
        ]
        if self.intakes is not None:
            duties.append(("intake", self.intakes))
        if schedules:
            duties.append(("schedule", FireSchedules(self.ledger, self.clock, self.deliveries)))
        return duties

    async def _run_slice(self, payload: str) -> None:
        run_id = int(payload.split(":")[0])
        async with self.ledger.session() as session:
            row = await runs.get(session, run_id)
        if row is None or row["ended_at"] is not None or row["flow"] not in self.flows:
            return
        try:
            job = self.job_of(row["flow"])
        except ConnectorError as error:
            await sync.refuse(self.ledger, run_id, worker=self.presence.worker, flow=row["flow"], error=error)
            return
        await self._on_flow(job.flow.name, lambda: sync.work(job, run_id))

    async def _items_slice(self, payload: str) -> None:
        name = payload.split(":")[0]
        if name not in self.flows:
            return
        try:
            job = self.job_of(name)
        except ConnectorError as error:  # its next run tells it in a case; its items stay due
            log.warning("items.not_tried", flow=name, problem=str(error))
            return
        await self._on_flow(name, lambda: _all_due(job))

    async def _push_slice(self, payload: str) -> None:
        name, lane, *_ = payload.split(":")
        job = await self._delivery(name)
        if job is not None:
            await self._on_flow(name, lambda: push.all_due(job, Lane(lane)))

    async def _poll_slice(self, payload: str) -> None:
        name = payload.split(":")[0]
        job = await self._delivery(name)
        if job is not None:
            await self._on_flow(name, lambda: poll.all_due(job))

    async def _delivery(self, name: str) -> DeliveryJob | None:
        """The job, or None where the flow is not declared here or can't be built: then a case says why, and its items stay due."""
        if name not in self.deliveries or self.delivery_of is None:
            return None
        try:
            return self.delivery_of(name)
        except ConnectorError as error:
            await push.hold_all(self.ledger, name, error)
            return None

    async def _on_flow(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Do a slice where this process may work on its flow; else leave it: the sweep asks again."""
        async with self.presence.flow(name) as ours:
            if not ours:
                return
            task: asyncio.Task[Any] = asyncio.create_task(work())
            self.under_way.add(task)
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled():
                    task.cancel()
                    raise
            except PASSING as error:
                log.warning("slice.database_lost", flow=name, error=type(error).__name__)
            except Exception:
                log.exception("slice.failed", flow=name)
            finally:
                self.under_way.discard(task)


async def _all_due(job: SyncJob) -> None:
    """Slice after slice, until nothing of the flow is due: items that are claimed alone would else wait a sweep for each."""
    while (await retry.work(job)).claimed:
        pass
