"""FLOOR 6: delivery and relay flows made runnable: their targets, file desks, lanes, intakes, kinds and schedules. `app.py` holds one of these.

As `app.py`: the only places that pick connectors. How a delivery goes is the engine's business.
"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from counterfoil.connectors import contract
from counterfoil.connectors.auth import resolve
from counterfoil.connectors.door import HttpDoor
from counterfoil.connectors.objects import Objects, open_store, safe_key
from counterfoil.connectors.target import HttpTarget
from counterfoil.connectors.watched import FolderIntake, TableIntake
from counterfoil.documents.desk import Desk
from counterfoil.engine.intake import Intakes, Watched
from counterfoil.engine.job import DeliveryJob
from counterfoil.engine.lanes import Lanes, lanes_to
from counterfoil.engine.relay import RelayJob
from counterfoil.engine.upkeep.requeue import PREFIX
from counterfoil.flows.delivery import DeliveryFlow, Expected, KindSpec, RelayFlow
from counterfoil.flows.flow import Schedule
from counterfoil.flows.load import Project, load_project
from counterfoil.ledger import flows
from counterfoil.ledger.flows import Kind
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import StoredFile
from counterfoil.model.errors import NotFoundError
from counterfoil.settings import Settings


def load_checked(folder: Path) -> Project:
    """The project of a folder, its contracts looked into."""
    return load_project(folder, check_contract=_contract_faults)


def _contract_faults(path: Path) -> list[tuple[str, str]]:
    return [(f"{fault.file}:{fault.line}: {fault.problem}", fault.remedy) for fault in contract.faults(path)]


WAIT = timedelta(days=7)  # of a kind without a parent; never used


@dataclass(slots=True)
class Deliveries:
    """The delivery flows of a project in this process: one job each, so that all slices share window and gate."""

    folder: Path
    settings: Settings
    project: Project
    ledger: Ledger
    clock: Clock
    environment: Mapping[str, str]
    _jobs: dict[str, DeliveryJob] = field(default_factory=dict)
    _lanes: dict[str, Lanes] = field(default_factory=dict)
    _objects: Objects | None = None

    def flow(self, name: str) -> DeliveryFlow:
        """Raises NotFoundError with the known names."""
        if name not in self.project.deliveries:
            known = ", ".join(sorted(self.project.deliveries)) or "none yet"
            raise NotFoundError(f"There is no delivery flow `{name}` in {self.folder.name}.", f"Known: {known}.")
        return self.project.deliveries[name]

    @property
    def objects(self) -> Objects:
        """The project's object store. Raises Misconfigured."""
        if self._objects is None:
            given = self.settings
            self._objects = open_store(
                given.objects_url,
                folder=self.folder,
                endpoint=given.objects_endpoint,
                region=given.objects_region,
                access_key=given.objects_access_key,
                secret_key=given.objects_secret_key,
            )
        return self._objects

    def job(self, name: str, worker: int) -> DeliveryJob:
        """Raises Misconfigured for what the flow or the environment lacks."""
        if name not in self._jobs:
            flow = self.flow(name)
            self._jobs[name] = DeliveryJob(
                flow=flow,
                target=HttpTarget(
                    flow,
                    environment=self.environment,
                    folder=self.folder,
                    clock=self.clock,
                    objects=self.objects,
                    functions=self.project.functions,
                ),
                files=Desk(flow, self.objects, safe_key, self.project.functions.by_name, self.folder),
                lanes=self._lanes_to(flow),
                ledger=self.ledger,
                clock=self.clock,
                worker=worker,
                lease=self.settings.worker_lease.total_seconds(),
            )
        return self._jobs[name]

    def _lanes_to(self, flow: DeliveryFlow) -> Lanes:
        """Flows to the same address share gate, window and rate."""
        name = f"to:{resolve(flow.target.url, self.environment)}"[:200]
        if name not in self._lanes:
            self._lanes[name] = lanes_to(flow.target, name, ledger=self.ledger, clock=self.clock, retry=flow.retry)
        return self._lanes[name]

    async def store_file(self, flow: str, key: str, path: Path) -> StoredFile:
        """A file that is handed in with an item: in the object store, before its item is."""
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        place = safe_key("in", flow, key, path.name)
        stored = await self.objects.put(place, _chunks(path), size=path.stat().st_size)
        return StoredFile(path.name, kind, stored.size, stored.sha256, stored.key)

    def intakes(self) -> Intakes:
        return Intakes(self.ledger, self.clock, self.project.deliveries, self.watched)

    def watched(self, flow: DeliveryFlow) -> Watched:
        assert flow.intake is not None
        if flow.intake.table is not None:
            return TableIntake(flow.intake.table, list(flow.kinds))
        assert flow.intake.folder is not None  # `check` refuses an intake with neither
        return FolderIntake(flow.intake.folder, self.folder, self.objects, self.clock, flow.name)

    async def register_kinds(self, session: Any, flow: DeliveryFlow) -> None:
        """What the ledger itself must know of a flow: it makes children wait, and lets them go."""
        await flows.keep_kinds(
            session, flow.name, [kind_row(flow, place, kind) for place, kind in enumerate(flow.kinds.values())]
        )

    def schedules(self) -> Iterator[tuple[str, str, Schedule]]:
        """Flow, the schedule's name, the schedule."""
        for flow in self.project.deliveries.values():
            for rule in flow.requeue:
                yield flow.name, f"{PREFIX}{rule.name}", rule.schedule
            if flow.intake is not None and flow.intake.schedule is not None:
                yield flow.name, flows.INTAKE, flow.intake.schedule

    def schedule_lines(self, flow: str) -> tuple[str, ...]:
        """The schedules of a flow, each as `plan` shows it."""
        return tuple(f"schedule {name}: {schedule.cron}" for owner, name, schedule in self.schedules() if owner == flow)

    @asynccontextmanager
    async def relays(self, dsn: str) -> AsyncIterator[dict[str, RelayJob]]:
        """Every relay of the project by the path it listens to. Each call holds a session while it is under way: a pool of their own.

        Raises Misconfigured.
        """
        calls = sum(flow.target.concurrency for flow in self.project.relays.values())
        ledger = await Ledger.open(dsn, size=calls + 4, name="counterfoil relay")
        jobs: dict[str, RelayJob] = {}
        try:
            for flow in self.project.relays.values():
                jobs[flow.endpoint.path.rstrip("/")] = RelayJob(flow, self._door(flow), ledger, self.clock)
            yield jobs
        finally:
            for job in jobs.values():
                await asyncio.gather(*job.under_way, return_exceptions=True)
                await job.door.close()
            await ledger.close()

    def _door(self, flow: RelayFlow) -> HttpDoor:
        return HttpDoor(
            flow,
            environment=self.environment,
            folder=self.folder,
            clock=self.clock,
            objects=self.objects,
            functions=self.project.functions,
        )

    async def close(self) -> None:
        for job in self._jobs.values():
            await job.target.close()
        self._jobs.clear()


def kind_row(flow: DeliveryFlow, place: int, kind: KindSpec) -> Kind:
    """A declared kind as the ledger keeps it."""
    has_look_up = flow.look_up is not None
    parent = kind.parent
    return Kind(
        flow=flow.name,
        kind=kind.name,
        position=place,
        parent_kind=None if parent is None else parent.kind,
        inherits="last" if parent is None else parent.inherits.value,
        stand_in=None if parent is None else parent.stand_in,
        parent_wait=WAIT if parent is None else parent.wait,
        resend=kind.resend(has_look_up=has_look_up).value,
        resend_update=kind.resend(has_look_up=has_look_up, updating=True).value,
        look_up_after=timedelta(0) if flow.look_up is None else flow.look_up.after,
        updates=kind.update is not None,
        poll_first=flow.poll.first if kind.confirmed and flow.poll is not None else None,
        complete_within=_within(flow, kind.name),
    )


def _within(flow: DeliveryFlow, kind: str) -> timedelta | None:
    """When what an item of this kind expects is looked for: when the last of its rules says so."""
    rules: list[Expected] = [rule for other in flow.kinds.values() for rule in other.expected if rule.of == kind]
    return max((rule.within for rule in rules), default=None)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, 1024 * 1024):
            yield chunk
