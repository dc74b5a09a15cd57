"""FLOOR 6: settings + flows + connectors → a running whole. The only place that picks connectors, reads the environment, opens the ledger.

What the terminal asks for stands here as a few plain calls; how a run goes is the engine's business.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from counterfoil import __version__
from counterfoil.app_deliveries import Deliveries, load_checked
from counterfoil.connectors.registry import build_source
from counterfoil.connectors.table import Table, TablePlan
from counterfoil.engine import dry, poll, presence, push, retry, sync
from counterfoil.engine.caller import Caller, Gate
from counterfoil.engine.job import DeliveryJob, SyncJob
from counterfoil.engine.log import get_logger
from counterfoil.engine.progress import DryRun, OnProgress, Progress
from counterfoil.engine.retry import Retried
from counterfoil.engine.upkeep.complete import Complete
from counterfoil.engine.upkeep.prune import Prune
from counterfoil.engine.upkeep.rescue import Rescue
from counterfoil.engine.upkeep.schedule import next_fire
from counterfoil.engine.upkeep.wake import Wake
from counterfoil.flows.delivery import DeliveryFlow, RelayFlow
from counterfoil.flows.flow import SyncFlow
from counterfoil.flows.load import Project
from counterfoil.flows.mapping import compile_mapping
from counterfoil.ledger import flows, health, runs
from counterfoil.ledger.pool import PASSING, Ledger, connect
from counterfoil.model.clock import Clock, SystemClock
from counterfoil.model.delivery import Lane
from counterfoil.model.errors import (
    ConflictError,
    ConnectorError,
    InvalidFilesError,
    NotFoundError,
    TableMismatch,
    UsageError,
)
from counterfoil.model.run import ENDED_RUN, RunCounts, RunState
from counterfoil.operations.database import open_database
from counterfoil.settings import Settings, load_settings

log = get_logger(__name__)

DATABASE_PATIENCE = 60.0  # seconds a run in the foreground waits for a database that went away


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What applying a flow would change, in plain sentences, and what forbids it."""

    flow: str
    changes: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(slots=True)
class App:
    """A project at work. Open with `open_app`."""

    folder: Path
    settings: Settings
    project: Project
    ledger: Ledger
    clock: Clock
    environment: Mapping[str, str]
    owner_dsn: str
    dsn: str
    notes: tuple[str, ...] = ()
    revive: Callable[[], None] | None = None
    misfits: dict[str, str] = field(default_factory=dict)  # flows whose table does not take their records, and why
    deliveries: Deliveries = field(init=False)
    _jobs: dict[str, SyncJob] = field(default_factory=dict)
    _gates: dict[str, Gate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(
            self.folder, self.settings, self.project, self.ledger, self.clock, self.environment
        )

    # --- flows ----------------------------------------------------------------------------------------------------

    def flow(self, name: str) -> SyncFlow:
        """Raises NotFoundError with the known names."""
        if name not in self.project.flows:
            known = ", ".join(sorted(self.project.flows)) or "none yet"
            raise NotFoundError(f"There is no flow `{name}` in {self.folder.name}.", f"Known: {known}.")
        return self.project.flows[name]

    def table(self, flow: SyncFlow) -> Table:
        return Table(flow.destination, flow.mapping.fields)

    async def plan(self) -> tuple[FlowPlan, ...]:
        """What `apply` and the next `up` would change now; changes nothing."""
        async with self.ledger.session() as session:
            known = {row["name"]: row for row in await flows.list_(session)}
        plans = await self._plans(list(self.project.flows.values()))
        others = [*self.project.deliveries, *self.project.relays]
        return (
            *(
                FlowPlan(plan.flow, (*plan.changes, *self._schedule_change(plan.flow, known)), plan.faults)
                for plan, _ in plans
            ),
            *(
                FlowPlan(name, () if name in known else (f"new flow {name}", *self.deliveries.schedule_lines(name)), ())
                for name in sorted(others)
            ),
        )

    async def _plans(self, chosen: Sequence[SyncFlow]) -> list[tuple[FlowPlan, TablePlan]]:
        """As a worker sees it; where something has to change, as the owner does, who may change it."""
        async with self.ledger.session() as session:
            known = {row["name"]: row for row in await flows.list_(session)}
            plans = [await self._plan(session, flow, known) for flow in chosen]
        if not any(table.statements or table.faults for _, table in plans):
            return plans
        connection = await connect(self.owner_dsn)
        try:
            return [await self._plan(connection, flow, known) for flow in chosen]
        finally:
            await connection.close()

    async def _plan(
        self, session: Any, flow: SyncFlow, known: Mapping[str, Mapping[str, Any]]
    ) -> tuple[FlowPlan, TablePlan]:
        plan = await self.table(flow).plan(session)
        new = () if flow.name in known else (f"new flow {flow.name}",)
        return FlowPlan(flow.name, (*new, *plan.changes), plan.faults), plan

    def _schedule_change(self, name: str, known: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        was, schedule = known.get(name, {}).get("cron"), self.flow(name).schedule
        now = schedule.cron if schedule else None
        return () if was == now else (f"schedule {was or 'by hand'} → {now or 'by hand'}",)

    async def apply(self, names: Sequence[str] | None = None) -> tuple[FlowPlan, ...]:
        """Register flows, create or extend their tables. Raises UsageError before anything where a table does not match.

        The owner's login is needed only where a table has to change; a worker's own may do the rest.
        """
        chosen = [self.flow(name) for name in (names if names is not None else sorted(self.project.flows))]
        fresh = names is None and await self.register_deliveries()
        plans = await self._plans(chosen)
        if faults := [f"{plan.flow}: {fault}" for plan, _ in plans for fault in plan.faults]:
            raise UsageError("A table does not match its flow. " + " ".join(faults), "`counterfoil plan` shows it all.")
        async with self.ledger.transaction() as session:
            for flow in chosen:
                await self._register(session, flow)
        if fresh or any(table.statements for _, table in plans):
            await self._change_tables(chosen)
        return tuple(plan for plan, _ in plans)

    async def apply_what_fits(self) -> None:
        """As `apply`, for a worker: a flow whose table does not match is refused alone, each of its runs with a case; the others go on."""
        plans = await self._plans([self.flow(name) for name in sorted(self.project.flows)])
        self.misfits = {plan.flow: " ".join(plan.faults) for plan, _ in plans if plan.faults}
        for name, problem in self.misfits.items():
            log.error("flow.refused", flow=name, problem=problem)
        if await self.register_deliveries():
            await self._change_tables(())
        await self.apply([plan.flow for plan, _ in plans if plan.flow not in self.misfits])
        async with self.ledger.transaction() as session:
            for name in self.misfits:
                await self._register(session, self.flow(name))

    async def register_deliveries(self) -> bool:
        """Delivery and relay flows with their kinds, as declared now. Whether one was not there before."""
        async with self.ledger.transaction() as session:
            known = {row["name"] for row in await flows.list_(session)}
            for delivery in self.project.deliveries.values():
                await self._register(session, delivery)
                await self.deliveries.register_kinds(session, delivery)
            for relay in self.project.relays.values():
                await self._register(session, relay)
        return not known >= {*self.project.deliveries, *self.project.relays}

    async def _register(self, session: Any, flow: SyncFlow | DeliveryFlow | RelayFlow) -> None:
        definition, failure = hashlib.sha256(repr(flow).encode()).hexdigest(), flow.on_failure
        await flows.register(
            session, flow.name, title=flow.title, owner=failure.owner, case_due=failure.due, definition=definition
        )

    async def _change_tables(self, chosen: Sequence[SyncFlow]) -> None:
        if not chosen and not (self.folder / "views.sql").is_file():
            return
        connection = await connect(self.owner_dsn)
        try:
            for flow in chosen:
                async with connection.transaction():
                    table = self.table(flow)
                    await table.apply(connection, await table.plan(connection))
            await self._apply_views(connection)
        finally:
            await connection.close()

    async def _apply_views(self, connection: Any) -> None:
        """The project's own `views.sql`, if it has one: statements that are safe to repeat, run as the owner."""
        file = self.folder / "views.sql"
        if file.is_file():
            try:
                await connection.execute(file.read_text("utf-8"))
            except asyncpg.PostgresError as error:
                raise UsageError(f"views.sql: {error}.", "Every statement in it must be safe to repeat.") from error

    async def set_schedules(self) -> None:
        """Schedules as declared; a flow without one is run by hand only. A changed cron starts anew."""
        declared = [
            (name, flows.RUN, flow.schedule) for name, flow in sorted(self.project.flows.items()) if flow.schedule
        ]
        declared += self.deliveries.schedules()
        async with self.ledger.transaction() as connection:
            for flow, name, schedule in declared:
                await flows.set_schedule(
                    connection,
                    flow,
                    name=name,
                    cron=schedule.cron,
                    timezone=schedule.timezone,
                    catch_up=schedule.catch_up.value,
                    next_fire_at=next_fire(schedule.cron, schedule.timezone, self.clock.now()),
                )
            await flows.drop_schedules(connection, keep=[(flow, name) for flow, name, _ in declared])

    # --- jobs -----------------------------------------------------------------------------------------------------

    def job(self, name: str, worker: int) -> SyncJob:
        """The one runnable form of a flow in this process: its runs and its retries share window and gate. Raises ConnectorError."""
        if name in self.misfits:
            remedy = "Mend it (`counterfoil plan` shows it all), then start the worker again."
            raise TableMismatch(f"The table does not match the flow. {self.misfits[name]}", remedy)
        if name not in self._jobs:
            flow = self.flow(name)
            gate = self._gates.setdefault(_gate_name(flow), Gate(_gate_name(flow)))
            self._jobs[name] = SyncJob(
                flow=flow,
                source=self.source(flow),
                mapper=self.mapper(flow),
                decide=self.project.functions.get(flow.decision) if flow.decision else None,
                table=self.table(flow),
                caller=Caller(gate, self.ledger, self.clock, flow.pull, flow.retry),
                ledger=self.ledger,
                clock=self.clock,
                worker=worker,
                lease=self.settings.worker_lease.total_seconds(),
            )
        return self._jobs[name]

    def source(self, flow: SyncFlow) -> Any:
        most = max(flow.pull.concurrency, flow.pull.adaptive_max or 0)
        return build_source(
            flow.source, environment=self.environment, folder=self.folder, concurrency=most, clock=self.clock
        )

    def mapper(self, flow: SyncFlow) -> Any:
        function = self.project.functions.get(flow.mapping.function) if flow.mapping.function else None
        zone = flow.source.watermark.timezone if flow.source.watermark else "UTC"
        key, changed = flow.source.key, flow.source.changed
        return compile_mapping(flow.mapping, key_path=key, changed_path=changed, timezone=zone, function=function)

    async def close_sources(self) -> None:
        for job in self._jobs.values():
            await job.source.close()
        self._jobs.clear()
        await self.deliveries.close()

    async def probe(self) -> dict[str, str | ConnectorError]:
        """Reach each flow's source with our credentials: what answered, or what is wrong."""
        return {name: await self._probe(flow) for name, flow in sorted(self.project.flows.items())}

    async def _probe(self, flow: SyncFlow) -> str | ConnectorError:
        try:
            source = self.source(flow)
        except ConnectorError as error:
            return error
        try:
            return str(await source.probe())
        except ConnectorError as error:
            return error
        finally:
            await source.close()

    # --- runs -----------------------------------------------------------------------------------------------------

    async def start_run(
        self,
        name: str,
        *,
        actor: str,
        reason: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        step: timedelta | None = None,
    ) -> int:
        """A new run, due at once. `step`: a backfill from `since` to `until`, window by window. ConflictError where one is open."""
        await self.source(self.flow(name)).close()  # a missing variable is told before there is a run
        given = since is not None or until is not None
        first_until = until
        if step is not None:
            if since is None:
                raise UsageError("A backfill by windows needs its start.", "Add --since.")
            until = until or self.clock.now()
            first_until = min(since + step, until)
        async with self.ledger.transaction() as connection:
            run_id = await runs.create(
                connection,
                name,
                trigger="backfill" if step else "person",
                actor=actor,
                reason=reason,
                since=since,
                until=first_until,
                given=given,
                backfill_until=until if step else None,
                backfill_step=step,
            )
        if run_id is None:
            raise await self._conflict(name)
        return run_id

    async def _conflict(self, name: str) -> ConflictError:
        async with self.ledger.session() as session:
            row = await runs.get_open(session, name)
        if row is None:
            return ConflictError(f"Another run of {name} has just ended.", "Start again.")
        return ConflictError(
            f"Run {row['id']} of {name} is {row['state']} since {row['created_at']:%H:%M:%S} UTC; a flow has one run at a time.",
            f"Go on with it: `counterfoil sync run {name} --follow`; or stop it: `counterfoil sync cancel {name} --reason …`.",
        )

    async def work(self, run_id: int, *, on_progress: OnProgress | None = None, wait: bool = True) -> Mapping[str, Any]:
        """Work on a run in this process until it has ended; where another process has it, follow it (and take over if that one dies)."""
        async with self.ledger.session() as session:
            first = await runs.get(session, run_id)
        if first is None:
            raise NotFoundError(f"There is no run {run_id}.", "`counterfoil sync list` shows them.")
        async with presence.present(self.dsn, __version__) as here:
            watching = asyncio.create_task(self._watch(run_id, on_progress)) if on_progress else None
            try:
                row = await self._work(first["flow"], run_id, here, wait)
                await Prune(self.ledger).run_once()
                return row
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
                await self.close_sources()

    async def _work(self, name: str, run_id: int, here: presence.Presence, wait: bool) -> Mapping[str, Any]:
        lost_at: float | None = None
        while True:
            try:
                row = await self._work_once(name, run_id, here)
            except PASSING as error:  # the database is away: the run goes on when it is back, as with a worker
                now = self.clock.monotonic()
                lost_at = now if lost_at is None else lost_at
                if now - lost_at > DATABASE_PATIENCE:
                    raise
                log.warning("run.database_lost", flow=name, run=run_id, error=type(error).__name__)
                await self.clock.sleep(1.0)
                continue
            lost_at = None
            if RunState(row["state"]) in ENDED_RUN or not wait:
                return row
            pause = (row["next_action_at"] - self.clock.now()).total_seconds() if row["state"] == "queued" else 0.3
            await self.clock.sleep(min(max(pause, 0.1), 5.0))

    async def _work_once(self, name: str, run_id: int, here: presence.Presence) -> Mapping[str, Any]:
        """Work on the run if nobody else does; its row as it stands after."""
        async with here.flow(name) as ours:
            row = await sync.work(self.job(name, here.worker), run_id) if ours else None
        if row is None:
            async with self.ledger.session() as session:
                row = await runs.get(session, run_id)
        assert row is not None
        return row

    async def _watch(self, run_id: int, on_progress: OnProgress) -> None:
        """Look at the run four times a second and tell how it goes."""
        before, rate = (self.clock.monotonic(), 0), 0.0
        while True:
            await asyncio.sleep(0.25)
            async with self.ledger.session() as session:
                row = await runs.get(session, run_id)
            if row is None:
                return
            counts = runs.counts_of(row)
            now = self.clock.monotonic()
            if now - before[0] >= 1:
                rate = (counts.accounted - before[1]) / (now - before[0])
                before = (now, counts.accounted)
            on_progress(self._progress(row, counts, rate))

    def _progress(self, row: Mapping[str, Any], counts: RunCounts, rate: float) -> Progress:
        job = self._jobs.get(row["flow"])
        note = (job.caller.note if job else "") or (row["problem"] or "" if row["state"] == "queued" else "")
        open_keys = max(0, counts.found - counts.accounted)
        return Progress(row["id"], row["flow"], row["state"], counts, row["list_ended"], open_keys, rate, note)

    async def retry_due(self, names: Sequence[str], *, within: float = 0.0) -> dict[str, Retried]:
        """Work on items that are due, or fall due within so many seconds, as a worker would. What became of them, by flow."""
        done = dict.fromkeys(names, Retried())
        until = self.clock.monotonic() + within
        async with presence.present(self.dsn, __version__) as here:
            try:
                while True:
                    worked = [await self._retry(name, here, done) for name in names]
                    if not any(worked):
                        if self.clock.monotonic() >= until or not await self._due_before(names, until):
                            return done
                        await self.clock.sleep(0.25)
            finally:
                await self.close_sources()

    async def _retry(self, name: str, here: presence.Presence, done: dict[str, Retried]) -> bool:
        async with here.flow(name) as ours:
            result = await retry.work(self.job(name, here.worker)) if ours else Retried()
        done[name] += result
        return result.claimed > 0

    async def deliver(
        self, name: str, *, within: float = 0.0, on_progress: Callable[[int], None] = lambda number: None
    ) -> tuple[push.Pushed, poll.Polled]:
        """Send what is due of a delivery flow, and ask about what is accepted, as a worker would; also what falls due within so many seconds."""
        pushed, polled = push.Pushed(), poll.Polled()
        until = self.clock.monotonic() + within
        async with presence.present(self.dsn, __version__) as here:
            job = self.deliveries.job(name, here.worker)
            duties = (
                Rescue(self.ledger, self.project.deliveries),
                Wake(self.ledger),
                Complete(self.ledger, self.project.deliveries),
            )
            try:
                while True:
                    for duty in duties:
                        await duty.run_once()
                    one, asked = await self._deliver(job, here)
                    pushed, polled = pushed + one, polled + asked
                    on_progress(one.claimed)
                    if not one.claimed and not asked.asked:
                        if self.clock.monotonic() >= until:
                            return pushed, polled
                        await self.clock.sleep(0.25)
            finally:
                await self.close_sources()

    async def _deliver(self, job: DeliveryJob, here: presence.Presence) -> tuple[push.Pushed, poll.Polled]:
        """Nothing where another process works on the flow."""
        async with here.flow(job.flow.name) as ours:
            if not ours:
                return push.Pushed(), poll.Polled()
            pushed = await push.all_due(job, Lane.LIVE) + await push.all_due(job, Lane.BULK)
            return pushed, await poll.all_due(job)

    async def _due_before(self, names: Sequence[str], until: float) -> bool:
        async with self.ledger.session() as session:
            due = {row["flow"]: row["next_action_at"] for row in await health.sums(session)}
        latest = self.clock.now() + timedelta(seconds=until - self.clock.monotonic())
        return any(due.get(name) is not None and due[name] <= latest for name in names)

    async def dry_run(self, name: str, *, since: datetime | None = None, until: datetime | None = None) -> DryRun:
        """What a run would do now: everything is fetched, checked and tried on the table, and rolled back."""
        flow = self.flow(name)
        connection = await connect(self.owner_dsn)
        try:
            plan = await self.table(flow).plan(connection)
            if plan.faults:
                raise UsageError(" ".join(plan.faults), "`counterfoil plan` shows it all.")
            job = self.job(name, worker=0)
            found = await dry.run(job, connection, plan.statements, since=since, until=until)
            return DryRun(found.counts, found.faults, plan.changes)
        finally:
            await connection.close()
            await self.close_sources()

    # --- worker ---------------------------------------------------------------------------------------------------

    async def run_worker(self, *, schedules: bool, stop: asyncio.Event) -> None:
        """Work until `stop` is set. `schedules`: this process fires them too (any number of processes may)."""
        from counterfoil.engine.queue import (  # the queue engine is heavy: only a worker needs it
            Queue,
            install,
            is_installed,
        )
        from counterfoil.engine.worker import Worker

        if not await is_installed(self.ledger):
            owner = await connect(self.owner_dsn)
            try:
                await install(owner)
            finally:
                await owner.close()
        await self.apply_what_fits()
        if schedules:
            await self.set_schedules()
        async with presence.present(self.dsn, __version__) as here:
            queue = Queue(self.dsn, concurrent=self.settings.worker_slices, revive=self.revive)
            job_of: Callable[[str], SyncJob] = lambda name: self.job(name, here.worker)  # noqa: E731
            worker = Worker(
                self.ledger,
                self.clock,
                self.project.flows,
                here,
                queue,
                job_of,
                deliveries=self.project.deliveries,
                delivery_of=lambda name: self.deliveries.job(name, here.worker),
                intakes=self.deliveries.intakes(),
            )
            try:
                await worker.run(stop, schedules=schedules)
            finally:
                await self.close_sources()


def _gate_name(flow: SyncFlow) -> str:
    """One gate for each source: flows that call the same address share it."""
    address = flow.source.url or flow.source.auth.values.get("region", "")
    return f"{flow.source.connector}:{address or flow.name}"[:200]


@asynccontextmanager
async def open_app(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    need_flows: bool = True,
) -> AsyncIterator[App]:
    """Open a project: settings, flows, database. An embedded database is started (or joined), and migrated by itself.

    Raises InvalidFilesError with every fault of every file when `need_flows`; UnhealthyError where the database can't be reached;
    ConflictError where an external database is not migrated.
    """
    environment = os.environ if environment is None else environment
    settings = load_settings(folder, environment)
    project = load_checked(folder)
    if need_flows and project.faults:
        raise InvalidFilesError(project.faults)
    async with open_database(folder, settings, size=12) as database:
        yield App(
            folder=folder,
            settings=settings,
            project=project,
            ledger=database.ledger,
            clock=clock or SystemClock(),
            environment=environment,
            owner_dsn=database.owner_dsn,
            dsn=database.dsn,
            notes=database.notes,
            revive=database.revive,
        )
