"""Runs in the ledger: one open, fired once, fenced by attempt, resumed when their worker is gone, and a sum that must hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from counterfoil.ledger import health, pool, runs, workers
from counterfoil.ledger.runs import RunFault
from counterfoil.model.errors import LeaseLostError
from counterfoil.model.run import RunCounts, RunState
from tests.support import NOON, register, set_database_clock, start_worker

LEASE = timedelta(minutes=5)


@pytest.fixture
async def pets(app: Any) -> Any:
    await register(app, "pets", "loans")
    return app


@pytest.fixture
async def worker(pets: Any) -> int:
    worker = await start_worker(pets)
    assert await workers.hold_presence(pets, worker)
    return worker


async def create(connection: Any, flow: str = "pets", **said: Any) -> int | None:
    return await runs.create(connection, flow, trigger="person", actor="eve", **said)


@pytest.fixture
async def running(pets: Any, worker: int) -> tuple[int, Any]:
    """A run and the attempt that has it."""
    run, attempt = await create(pets), uuid4()
    assert run
    assert await runs.claim(pets, run, attempt=attempt, worker=worker, lease=LEASE)
    return run, attempt


async def test_a_flow_has_one_open_run(pets: Any) -> None:
    first = await create(pets)
    assert first is not None
    assert await create(pets) is None
    assert await create(pets, "loans") is not None
    assert await runs.cancel(pets, first, "not now")
    assert await create(pets) is not None


async def test_a_time_of_the_schedule_fires_once(pets: Any) -> None:
    first = await create(pets, fired_for=NOON)
    assert first is not None
    await runs.cancel(pets, first, "not now")
    assert await create(pets, fired_for=NOON) is None, "ended or not: this time was fired"
    assert await create(pets, fired_for=NOON + timedelta(minutes=1)) is not None


async def test_a_run_is_claimed_once(pets: Any, running: tuple[int, Any], worker: int) -> None:
    assert await runs.claim(pets, running[0], attempt=uuid4(), worker=worker, lease=LEASE) is None
    row = await runs.get(pets, running[0])
    assert row and (row["attempt_id"], row["crashes"], row["attempts"]) == (running[1], 0, 1)


async def test_a_run_whose_worker_is_gone_is_resumed_and_the_crash_counted(
    pets: Any, worker: int, database: str
) -> None:
    run = await create(pets)
    assert run
    other = await pool.connect(database, role=pool.APP_ROLE)
    gone = await start_worker(other)
    await workers.hold_presence(other, gone)
    lost = uuid4()
    await runs.claim(other, run, attempt=lost, worker=gone, lease=LEASE)
    await runs.advance(
        other, run, lost, lease=LEASE, counts=RunCounts(listed=1, found=1, inserted=1), cursor={"page": 2}
    )
    assert await runs.due(pets) == []
    await other.close()
    assert await runs.due(pets) == [(run, "pets", 1)]
    resumed = await runs.claim(pets, run, attempt=uuid4(), worker=worker, lease=LEASE)
    assert resumed and (resumed["crashes"], resumed["attempts"]) == (1, 2)
    assert (resumed["cursor"], resumed["inserted"]) == ({"page": 2}, 1), "it goes on where it was"
    for write in (
        runs.hold(pets, run, lost),
        runs.renew(pets, run, lost, LEASE),
        runs.set_window(pets, run, lost, None, None),
        runs.suspect(pets, run, lost, "rex"),
        runs.advance(pets, run, lost, lease=LEASE, counts=RunCounts()),
        runs.finish(pets, run, lost, RunState.FAILED),
    ):
        with pytest.raises(LeaseLostError):
            await write


async def test_a_run_whose_lease_ended_is_due(pets: Any, running: tuple[int, Any], worker: int) -> None:
    now = await pets.fetchval("select now()")
    await set_database_clock(pets, now + LEASE * 2)
    assert [run for run, _, _ in await runs.due(pets)] == [running[0]]
    resumed = await runs.claim(pets, running[0], attempt=uuid4(), worker=worker, lease=LEASE)
    assert resumed and resumed["crashes"] == 1


async def test_a_run_given_back_in_order_is_no_crash(pets: Any, running: tuple[int, Any], worker: int) -> None:
    await runs.release(pets, *running, await pets.fetchval("select now()"))
    again = await runs.claim(pets, running[0], attempt=uuid4(), worker=worker, lease=LEASE)
    assert again and (again["crashes"], again["attempts"]) == (0, 2)


async def test_progress_forgets_the_crashes(pets: Any, running: tuple[int, Any], worker: int) -> None:
    attempt = uuid4()
    await set_database_clock(pets, await pets.fetchval("select now() + interval '1 hour'"))
    await runs.claim(pets, running[0], attempt=attempt, worker=worker, lease=LEASE)
    await runs.advance(pets, running[0], attempt, lease=LEASE, counts=RunCounts())
    row = await runs.get(pets, running[0])
    assert row and row["crashes"] == 0


async def test_the_record_in_hand_at_each_crash_is_known(pets: Any, running: tuple[int, Any], worker: int) -> None:
    run, attempt = running
    assert await runs.suspect(pets, run, attempt, "rex") == 0
    for crashes in (1, 2):
        await set_database_clock(pets, await pets.fetchval("select counterfoil.now() + interval '1 hour'"))
        attempt = uuid4()
        await runs.claim(pets, run, attempt=attempt, worker=worker, lease=LEASE)
        assert await runs.suspect(pets, run, attempt, "rex") == crashes
    assert await runs.suspect(pets, run, attempt, "tom") == 0, "another record is no suspect"


WHOLE = RunCounts(listed=8, duplicates=1, found=7, inserted=1, updated=1, unchanged=1, rejected=2, review=1, failed=1)


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.PARTIAL, RunState.EMPTY])
@pytest.mark.parametrize("field", ["listed", "found", "inserted", "failed"])
async def test_a_run_whose_sum_does_not_hold_cannot_end_well(
    pets: Any, running: tuple[int, Any], state: RunState, field: str
) -> None:
    wrong = replace(WHOLE, review=0, failed=0, found=5, listed=6)
    await runs.advance(pets, *running, lease=LEASE, counts=replace(wrong, **{field: getattr(wrong, field) + 1}))
    with pytest.raises(asyncpg.CheckViolationError, match="run_sum|run_completed_is_clean"):
        await runs.finish(pets, *running, state)
    row = await runs.finish(pets, *running, RunState.FAILED, fault="sum", problem="The sum does not hold.")
    assert row["state"] == "failed"


async def test_a_run_with_items_is_partial_and_not_completed(pets: Any, running: tuple[int, Any]) -> None:
    await runs.advance(pets, *running, lease=LEASE, counts=WHOLE)
    with pytest.raises(asyncpg.CheckViolationError, match="run_completed_is_clean"):
        await runs.finish(pets, *running, RunState.COMPLETED)
    row = await runs.finish(pets, *running, RunState.PARTIAL, watermark=NOON)
    assert (row["state"], row["watermark_after"], row["next_action_at"], row["attempt_id"]) == (
        "partial",
        NOON,
        None,
        None,
    )
    assert runs.counts_of(row) == WHOLE
    assert await health.unbalanced_runs(pets) == []
    assert await runs.get_open(pets, "pets") is None


async def test_counts_of_chunks_add_up(pets: Any, running: tuple[int, Any]) -> None:
    assert await runs.hold(pets, *running) == 0
    for page in (1, 2):
        await runs.advance(pets, *running, lease=LEASE, counts=WHOLE, cursor={"page": page}, pages=1, next_key=page * 8)
    assert await runs.hold(pets, *running) == 2
    row = await runs.get(pets, running[0])
    assert row and runs.counts_of(row) == WHOLE + WHOLE
    assert (row["cursor"], row["pages"], row["next_key"]) == ({"page": 2}, 2, 16)


async def test_a_cancelled_run_fences_its_worker_off(pets: Any, running: tuple[int, Any]) -> None:
    assert await runs.cancel(pets, running[0], "wrong window")
    assert not await runs.cancel(pets, running[0], "again")
    with pytest.raises(LeaseLostError):
        await runs.hold(pets, *running)


async def test_a_run_is_open_or_due_and_nothing_else(pets: Any, running: tuple[int, Any]) -> None:
    for broken in (
        "next_action_at = null",
        "ended_at = now()",
        "attempt_id = null",
        "state = 'queued'",
        "state = 'asleep'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await pets.execute(f"update counterfoil.run set {broken}")


async def test_keys_are_listed_once_and_come_back_in_order(pets: Any, running: tuple[int, Any]) -> None:
    run = running[0]
    assert await runs.add_keys(pets, run, ["c", "a", "b"], 0, done=False) == {"a", "b", "c"}
    assert await runs.add_keys(pets, run, ["a", "d"], 3, done=False) == {"d"}
    assert [key for key, _ in await runs.open_keys(pets, run, after=0, limit=10)] == ["c", "a", "b", "d"]
    first = await runs.open_keys(pets, run, after=0, limit=2)
    assert [key for key, _ in await runs.open_keys(pets, run, after=first[-1][1], limit=10)] == ["b", "d"]
    await runs.finish_keys(pets, run, ["c", "b"])
    assert await runs.count_open_keys(pets, run) == 2
    assert await runs.prune_keys(pets, 100) == 0, "the run is open"
    await runs.cancel(pets, run, "enough")
    assert await runs.prune_keys(pets, 100) == 4


async def test_faults_of_chunks_add_up_with_ten_examples(pets: Any, running: tuple[int, Any]) -> None:
    for chunk in range(4):
        keys = tuple(f"{chunk}-{n}" for n in range(4))
        await runs.add_faults(pets, running[0], [RunFault("failed", "http_404", "Unknown.", 4, keys)])
    (fault,) = await runs.list_faults(pets, running[0])
    assert (fault["records"], len(fault["keys"]), fault["keys"][0]) == (16, 10, "0-0")


async def test_write_backs_wait_until_the_source_has_answered(pets: Any, running: tuple[int, Any]) -> None:
    await runs.add_write_backs(pets, running[0], {"a": {"ok": True}, "b": {"ok": False}})
    assert await runs.open_write_backs(pets, running[0], after="", limit=1) == [("a", {"ok": True})]
    await runs.finish_write_backs(pets, running[0], ["a"])
    assert await runs.open_write_backs(pets, running[0], after="", limit=9) == [("b", {"ok": False})]
