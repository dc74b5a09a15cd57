"""Two worker processes on one flow: each fire once, the cap over both, and promise 2: who lost the lease settles nothing."""

from __future__ import annotations

import signal
from typing import Any

from tests.promises.support import FLOW, Project, accounts_hold, ended, eventually, proven, signal_


async def test_five_fires_are_five_runs(project):
    """Show 4, with the schedule's time moved into the past instead of five minutes of waiting."""
    made, other = project("--latency", "1-3ms", count=60, schedule='"* * * * *"')
    workers = [made.start("worker", "schedules") for _ in range(2)]
    await eventually(
        lambda: _value(made, "select count(*) = 2 from counterfoil.worker where counterfoil.worker_alive(id)"),
        "both are at work",
    )
    for number in range(1, 6):
        # Time passes: what was is long ago (each run a day of its own, whatever minute the real clock is in), and the schedule is due.
        await made.value(
            "update counterfoil.run set fired_for = fired_for - make_interval(days => id::int)"
            " where fired_for > now() - interval '1 hour'"
        )
        await made.value("update counterfoil.schedule set next_fire_at = date_trunc('minute', now())")
        await eventually(lambda number=number: _value(
            made, f"select count(*) >= {number} from counterfoil.run where ended_at is not null"), f"fire {number} has run")  # fmt: skip
    for worker in workers:
        signal_(worker, signal.SIGTERM)
    assert [await ended(worker) for worker in workers] == [0, 0]
    runs = await made.rows("select * from counterfoil.run order by id")
    fired = [run["fired_for"] for run in runs]
    assert len(set(fired)) == len(fired), "a fire ran twice"
    assert [run["state"] for run in runs[:5]] == ["completed"] * 5
    assert all(run["attempts"] == 1 for run in runs[:5])
    assert runs[0]["inserted"] == 60
    await accounts_hold(made)
    await proven(made, other)


async def test_the_cap_holds_over_both_and_over_retries(project):
    """Runs and retries of items at the same time, in two processes: never more calls under way than declared."""
    made, other = project("--latency", "5-15ms", "--fault", "error503=0.3@detail", "--max-in-a-row", "3", count=400,
                          retry="tries: 1", pull="concurrency: 15, breaker_failures: 1000")  # fmt: skip
    workers = [made.start("worker") for _ in range(2)]
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    await eventually(made.ended_run, "the run ends")
    other.faults(error503=0)
    await eventually(
        lambda: _value(made, "select count(*) = 0 from counterfoil.item where next_action_at is not null"),
        "all items are settled",
    )
    for worker in workers:
        signal_(worker, signal.SIGTERM)
        assert await ended(worker) == 0
    assert other.record()["max_in_flight"]["all"] <= 15
    assert (await made.run())["failed"] > 20, "this run had nothing to retry"
    await proven(made, other)


async def test_a_worker_that_lost_its_lease_settles_nothing(project):
    """Stopped (not dead) past its lease; another takes over; continued, it finds itself fenced off."""
    made, other = project("--latency", "4-8ms", count=500, lease="1s", chunk=20)
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    first = made.start("worker")
    await eventually(
        lambda: _value(made, "select inserted >= 100 from counterfoil.run"), "the first worker is half way"
    )
    signal_(first, signal.SIGSTOP)
    owner = (await made.run())["worker_id"]
    # Its silence is as old as the lease: the clock is moved, so that nobody waits for it.
    await made.value("update counterfoil.worker set heartbeat_at = now() - interval '1 minute' where id = $1", owner)
    second = made.start("worker")
    run = await eventually(made.ended_run, "the second worker ends the run")
    assert (run["state"], run["inserted"], run["found"]) == ("completed", 500, 500)
    assert run["worker_id"] != owner
    chunks, stamps = run["chunks"], await _stamps(made)
    signal_(first, signal.SIGCONT)
    signal_(first, signal.SIGTERM)
    assert await ended(first) == 0
    assert (await made.run())["chunks"] == chunks, "it settled a chunk without a lease"
    assert await _stamps(made) == stamps
    signal_(second, signal.SIGTERM)
    assert await ended(second) == 0
    await proven(made, other)


async def test_a_worker_stopped_in_order_gives_its_run_back(project):
    """SIGTERM: no crash is counted, and another goes on at once."""
    made, other = project("--latency", "2-4ms", count=400, chunk=20)
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    first = made.start("worker")
    await eventually(lambda: _value(made, "select inserted >= 60 from counterfoil.run"), "it has begun")
    signal_(first, signal.SIGTERM)
    assert await ended(first) == 0
    run = await made.run()
    assert (run["state"], run["crashes"]) == ("queued", 0)
    assert 0 < run["inserted"] < 400
    assert await made.finish("run", FLOW) == 0
    assert ((await made.run())["inserted"], (await made.run())["attempts"]) == (400, 2)
    await proven(made, other)


async def _value(made: Project, query: str) -> Any:
    return await made.value(query)


async def _stamps(made: Project) -> set[Any]:
    return {(key, row["updated_at"]) for key, row in (await made.table()).items()}
