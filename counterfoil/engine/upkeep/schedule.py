"""Fires schedules: each time once over all hosts, in the transaction that makes the run, or tries again what stopped; what was missed is
caught up as declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from counterfoil.engine.upkeep.requeue import PREFIX, requeue
from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.flows.flow import CatchUp
from counterfoil.ledger import flows, runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock

FURTHER = timedelta(hours=25)  # hosts' clocks differ, and a day may be longer by an hour
LATE = timedelta(seconds=90)  # a fire older than this was missed, not delayed


def next_fire(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time of `cron` after `after`. Clock changes are the zone's business: a time that does not exist fires at the next that does."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone)))).astimezone(after.tzinfo)


def last_fire(cron: str, timezone: str, first: datetime, now: datetime) -> datetime:
    """The newest time of `cron` from `first` (which is one) up to now. At most the last day is walked."""
    latest, at = first, max(first, now - timedelta(days=1))
    while (at := next_fire(cron, timezone, at)) <= now:
        latest = at
    return latest


@dataclass(frozen=True, slots=True)
class FireSchedules:
    ledger: Ledger
    clock: Clock
    deliveries: Mapping[str, DeliveryFlow] = field(default_factory=dict)
    every: float = 1.0

    async def run_once(self) -> dict[str, int]:
        """Counts: fired, coalesced (a run of the flow was still open), skipped (missed, and declared `skip`)."""
        counts = {"fired": 0, "coalesced": 0, "skipped": 0}
        async with self.ledger.transaction() as connection:
            for row in await flows.claim_schedules(connection):
                counts[await self._fire(connection, row)] += 1
            await self._bring_back(connection)
        return counts

    async def _bring_back(self, connection: Any) -> None:
        """A clock that jumped forward and back has left times behind that are years away: they are set anew."""
        now = self.clock.now()
        for row in await flows.list_schedules(connection):
            due = next_fire(row["cron"], row["timezone"], now)
            if row["next_fire_at"] > due + FURTHER:
                await flows.fire_schedule(
                    connection,
                    row["flow"],
                    name=row["name"],
                    next_fire_at=due,
                    last_fire_at=None,
                    outcome="clock_went_back",
                )

    async def _fire(self, connection: Any, row: Mapping[str, Any]) -> str:
        now = self.clock.now()
        due = last_fire(row["cron"], row["timezone"], row["next_fire_at"], now)
        if now - due > LATE and CatchUp(row["catch_up"]) is CatchUp.SKIP:
            outcome = "skipped"
        else:
            outcome = await self._do(connection, row["flow"], row["name"], due)
        following = next_fire(row["cron"], row["timezone"], max(now, due))
        last = due if outcome == "fired" else None
        await flows.fire_schedule(
            connection, row["flow"], name=row["name"], next_fire_at=following, last_fire_at=last, outcome=outcome
        )
        return outcome

    async def _do(self, connection: Any, flow: str, name: str, due: datetime) -> str:
        """A run of a sync, or what a delivery tries again. A rule this process does not know fires for nothing: it is declared no more."""
        if not name.startswith(PREFIX):
            run = await runs.create(connection, flow, trigger="schedule", actor="schedule", fired_for=due)
            return "fired" if run is not None else "coalesced"
        declared = self.deliveries.get(flow)
        rules = {rule.name: rule for rule in declared.requeue} if declared is not None else {}
        rule = rules.get(name.removeprefix(PREFIX))
        if declared is not None and rule is not None:
            await requeue(connection, declared, rule, self.clock)
        return "fired"
