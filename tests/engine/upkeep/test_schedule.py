"""Schedules: what was missed is caught up once or skipped; clock changes of the zone, and of the machine, lose and double nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from counterfoil.engine.upkeep.schedule import FireSchedules, last_fire, next_fire
from counterfoil.ledger import flows
from counterfoil.ledger.pool import Ledger
from tests.support import FakeClock, register

PARIS = "Europe/Paris"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("*/5 * * * *", "UTC", "2026-01-01T12:00:00", "2026-01-01T12:05:00"),
        ("0 6 * * *", PARIS, "2026-01-01T12:00:00", "2026-01-02T05:00:00"),
        ("0 6 * * *", PARIS, "2026-07-01T12:00:00", "2026-07-02T04:00:00"),
        ("30 2 * * *", PARIS, "2026-03-28T12:00:00", "2026-03-29T01:00:00"),  # half past two does not exist that night
        ("30 2 * * *", PARIS, "2026-03-29T01:00:00", "2026-03-30T00:30:00"),
        ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
    ],
)
def test_the_next_time(cron: str, zone: str, after: str, expected: str):
    assert next_fire(cron, zone, at(after)) == at(expected)


def test_an_hour_that_comes_twice_fires_once():
    """At the end of summer time half past two stands twice on the clock."""
    first = next_fire("30 2 * * *", PARIS, at("2026-10-24T12:00:00"))
    assert next_fire("30 2 * * *", PARIS, first) > first + timedelta(hours=20)


def test_every_hour_goes_on_through_both_changes():
    for start in ("2026-03-28T20:30:00", "2026-10-24T20:30:00"):
        times = [at(start)]
        for _ in range(10):
            times.append(next_fire("0 * * * *", PARIS, times[-1]))
        assert {two - one for one, two in pairwise(times[1:])} == {timedelta(hours=1)}


def test_the_newest_time_that_was_missed():
    first = at("2026-01-01T00:00:00")
    assert last_fire("*/5 * * * *", "UTC", first, at("2026-01-01T03:04:00")) == at("2026-01-01T03:00:00")
    assert last_fire("*/5 * * * *", "UTC", first, first) == first
    assert last_fire("0 * * * *", "UTC", first, at("2026-03-01T10:30:00")) == at("2026-03-01T10:00:00")


class Scheduled:
    """One flow with a schedule on a real ledger, fired by a clock of the test's own."""

    def __init__(self, ledger: Ledger, clock: FakeClock) -> None:
        self.ledger, self.clock, self.duty = ledger, clock, FireSchedules(ledger, clock)

    async def set(self, cron: str, *, catch_up: str = "once", next_at: datetime) -> None:
        async with self.ledger.transaction() as connection:
            await flows.set_schedule(
                connection, "pets", cron=cron, timezone="UTC", catch_up=catch_up, next_fire_at=next_at
            )

    async def fire(self) -> dict[str, int]:
        return {name: count for name, count in (await self.duty.run_once()).items() if count}

    async def rows(self, query: str) -> list[Any]:
        async with self.ledger.session() as session:
            return [row[0] for row in await session.fetch(query)]

    async def end_runs(self) -> None:
        async with self.ledger.session() as session:
            await session.execute(
                "update counterfoil.run set state = 'cancelled', ended_at = now(), next_action_at = null where ended_at is null"
            )


@pytest.fixture
async def scheduled(ledger: Ledger, owner: Any) -> Scheduled:
    await register(owner, "pets")
    return Scheduled(ledger, FakeClock(at=datetime.now(UTC).replace(second=30, microsecond=0)))


async def test_missed_fires_are_caught_up_by_one_run(scheduled: Scheduled):
    now = scheduled.clock.now()
    await scheduled.set("*/5 * * * *", next_at=now - timedelta(hours=3))
    assert await scheduled.fire() == {"fired": 1}
    assert await scheduled.fire() == {}
    fired = (await scheduled.rows("select fired_for from counterfoil.run"))[0]
    assert now - timedelta(minutes=5) < fired <= now
    assert (await scheduled.rows("select next_fire_at from counterfoil.schedule"))[0] > now


async def test_missed_fires_are_skipped_where_declared(scheduled: Scheduled):
    now = scheduled.clock.now()
    hourly = f"{(now.minute + 30) % 60} * * * *"  # its last time is half an hour ago
    await scheduled.set(hourly, catch_up="skip", next_at=now - timedelta(hours=3))
    assert await scheduled.fire() == {"skipped": 1}
    assert await scheduled.rows("select id from counterfoil.run") == []


async def test_a_fire_that_is_only_late_is_not_skipped(scheduled: Scheduled):
    now = scheduled.clock.now()
    await scheduled.set("* * * * *", catch_up="skip", next_at=now.replace(second=0))
    assert await scheduled.fire() == {"fired": 1}


async def test_a_flow_whose_run_is_still_open_is_not_run_twice(scheduled: Scheduled):
    now = scheduled.clock.now()
    await scheduled.set("* * * * *", next_at=now - timedelta(minutes=1))
    assert await scheduled.fire() == {"fired": 1}
    scheduled.clock.move(60)
    async with scheduled.ledger.session() as session:
        await session.execute("update counterfoil.schedule set next_fire_at = now() - interval '1 second'")
    assert await scheduled.fire() == {"coalesced": 1}
    await scheduled.end_runs()
    async with scheduled.ledger.session() as session:
        await session.execute("update counterfoil.schedule set next_fire_at = now() - interval '1 second'")
    scheduled.clock.move(60)
    assert await scheduled.fire() == {"fired": 1}
    assert len(await scheduled.rows("select id from counterfoil.run")) == 2


async def test_a_clock_that_jumped_forward_and_back_leaves_no_flow_silent(scheduled: Scheduled):
    """While it was wrong, the next time was set years away."""
    right = scheduled.clock.now()
    await scheduled.set("*/5 * * * *", next_at=right - timedelta(minutes=1))
    scheduled.clock.at = right + timedelta(days=3650)
    await scheduled.fire()
    assert (await scheduled.rows("select next_fire_at from counterfoil.schedule"))[0] > right + timedelta(days=3000)
    scheduled.clock.at = right
    await scheduled.fire()
    assert (await scheduled.rows("select next_fire_at from counterfoil.schedule"))[0] <= right + timedelta(minutes=5)


async def test_a_schedule_that_is_rightly_far_away_is_left_alone(scheduled: Scheduled):
    now = scheduled.clock.now()
    far = next_fire("0 0 1 1 *", "UTC", now)
    await scheduled.set("0 0 1 1 *", next_at=far)
    await scheduled.fire()
    assert await scheduled.rows("select next_fire_at from counterfoil.schedule") == [far]
