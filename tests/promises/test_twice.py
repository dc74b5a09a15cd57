"""Promise 8: running any command, sync or batch twice does the work once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from counterfoil.engine.upkeep.schedule import FireSchedules
from counterfoil.ledger import flows
from counterfoil.ledger.migrate import migrate, pending
from counterfoil.ledger.pool import Ledger, connect
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import ConflictError
from tests.promises.support import FLOW, proven
from tests.support import Databases


async def test_the_same_sync_twice_at_once_is_one_conflict(project):
    made, _ = project(count=20)
    async with made.app() as one, made.app() as two:
        answers = await asyncio.gather(
            *(app.start_run(FLOW, actor="test") for app in (one, two) * 5), return_exceptions=True
        )
    assert sum(isinstance(answer, int) for answer in answers) == 1
    conflicts = [answer for answer in answers if isinstance(answer, ConflictError)]
    assert len(conflicts) == 9
    assert "one run at a time" in conflicts[0].problem
    assert "counterfoil sync run" in conflicts[0].remedy
    assert await made.value("select count(*) from counterfoil.run") == 1


async def test_two_processes_on_one_run_do_it_once(project):
    """Both follow it to its end; one of them works."""
    made, other = project("--latency", "1-3ms", count=200)
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    codes = await asyncio.gather(made.finish("run", FLOW), made.finish("run", FLOW))
    assert codes == [0, 0]
    run = await made.run()
    assert (run["state"], run["inserted"], run["attempts"]) == ("completed", 200, 1)
    assert all(line["served"] == 1 for line in other.served().values())
    await proven(made, other)


async def test_a_second_run_finds_everything_unchanged(project):
    made, other = project(count=150, detail=False, write_back=True)
    first, second = await made.sync(), await made.sync()
    assert (first["inserted"], first["written_back"]) == (150, 150)
    assert (second["inserted"], second["updated"], second["unchanged"], second["written_back"]) == (0, 0, 150, 0)
    assert all(line["times"] == 1 for line in other.written().values()), "told exactly once per change"
    before = {key: row["updated_at"] for key, row in (await made.table()).items()}
    other.change(7)
    third = await made.sync()
    assert (third["updated"], third["unchanged"], third["written_back"]) == (7, 143, 7)
    after = {key: row["updated_at"] for key, row in (await made.table()).items()}
    assert sum(before[key] != after[key] for key in before) == 7
    await proven(made, other)


async def test_two_migrations_at_once(databases: Databases):
    dsn = databases.dsn(await databases.create())

    async def one() -> object:
        connection = await connect(dsn)
        try:
            return await migrate(connection)
        finally:
            await connection.close()

    await asyncio.gather(*(one() for _ in range(3)))
    connection = await connect(dsn)
    assert not await pending(connection)
    await connection.close()


async def test_apply_on_two_hosts_at_once(project):
    """Both start with an empty database: one table, one flow, one schedule."""
    made, _ = project(count=1, schedule='"*/5 * * * *"')
    async with made.app() as one, made.app() as two:
        await asyncio.gather(*(app.apply() for app in (one, two) * 4))
        await asyncio.gather(*(app.set_schedules() for app in (one, two) * 4))
    assert await made.value("select count(*) from counterfoil.schedule") == 1


@pytest.mark.parametrize("hosts", [2, 5])
async def test_a_schedule_fires_once_over_many_hosts(project, hosts: int):
    made, _ = project(count=1, schedule='"*/5 * * * *"')
    async with made.app() as app:
        await app.set_schedules()
        due = datetime.now(UTC) - timedelta(minutes=7)
        async with app.ledger.transaction() as connection:
            await flows.fire_schedule(connection, FLOW, next_fire_at=due, last_fire_at=None, outcome="fired")
        ledgers = [await Ledger.open(made.dsn, size=2) for _ in range(hosts)]
        try:
            told = await asyncio.gather(*(FireSchedules(ledger, SystemClock()).run_once() for ledger in ledgers))
        finally:
            for ledger in ledgers:
                await ledger.close()
    assert sum(counts["fired"] for counts in told) == 1
    assert sum(counts["coalesced"] for counts in told) == 0
    assert await made.value("select count(*) from counterfoil.run") == 1
