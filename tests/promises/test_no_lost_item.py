"""Promise 1: nothing accepted is ever unaccounted for, whatever is killed and wherever. The simulator's own record is the judge."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from tests.promises.support import (
    FLOW,
    PASSING,
    QUICK,
    Project,
    Side,
    ended,
    eventually,
    faults,
    outcome,
    proven,
    signal_,
    some_time,
)

SMALL: Mapping[str, Any] = {"count": 60, "page": 20, "chunk": 20, "write_back": True}
EVERYTHING = "overlap: 3650d, lookback: all"  # a watermark, and still the whole list in each run
BAD = ("--fault", "missing_required=0.06", "--required-field", "name")

# Kill points by shape: the n-th call of each is not reached. What stands beside is what must not happen there.
DETAIL = [
    "claim:1",  # no attempt has the run: it stays due
    "set_window:1",  # claimed, no window yet: the next attempt asks for everything the first would have
    "page:1",
    "page:3",  # two pages are noted, the third is read
    "add_listed:2",
    "add_keys:2",
    "hold:1",  # before the first chunk
    "hold:5",  # between two chunks
    "open_keys:1",  # the whole list is noted, nothing fetched
    "record:1",
    "record:45",  # in the middle of the details
    "load:1",
    "load:5",
    "move:1",  # rows are in the table, not committed; their items are not
    "add_faults:1",
    "add_write_backs:1",
    "finish_keys:1",
    "finish_keys:2",
    "advance:1",  # everything of a chunk but the run's own row
    "advance:6",
    "write_back:1",  # all is loaded, the source has not been told
    "write_back:5",  # half of it was told
    "finish_write_backs:1",  # all was told, and is not noted
    "outcome:1",
    "finish:1",
    "move_watermark:1",  # the run's end is written, not committed: run and watermark move together or not at all
    "settle_cases:1",
    "prune:1",  # after the end
]
PAGES = [
    "page:2",
    "add_keys:1",
    "add_keys:3",
    "hold:2",
    "load:1",
    "load:3",
    "move:2",
    "advance:1",
    "advance:3",
    "finish:1",
]
DELETES = ["soft_delete:1", "advance:4", "finish:1"]


@pytest.mark.parametrize("point", DETAIL)
async def test_killed_at_a_point_of_a_run_with_details(shared, point: str):
    made, other = shared(*BAD, detail=True, watermark=EVERYTHING, **SMALL)
    await _killed_and_whole(made, other, point)


@pytest.mark.parametrize("point", PAGES)
async def test_killed_at_a_point_of_a_run_of_whole_pages(shared, point: str):
    made, other = shared(*BAD, detail=False, watermark=EVERYTHING, **SMALL)
    await _killed_and_whole(made, other, point)


async def _killed_and_whole(made: Project, other: Side, point: str) -> None:
    """Ten records change; the run dies at the point and is gone on with: as if nothing had happened."""
    other.change(10)
    assert await made.finish("run", FLOW, die=point) == -signal.SIGKILL
    if point not in ("prune:1",):
        assert (await made.run())["ended_at"] is None
        assert await made.finish("run", FLOW) == 0
    run = await made.run()
    assert (run["state"], run["found"], run["listed"]) == ("completed", 60, 60)
    assert outcome(run)["loaded"] + run["rejected"] == 60
    assert run["rejected"] == sum(1 for content in other.truth().values() if "name" not in content)
    assert run["watermark_after"] is not None
    await proven(made, other)
    await _told(made, other)


async def _told(made: Project, other: Side) -> None:
    """The source was told of each row as it stands: write-backs may be told twice around a crash, and are never lost."""
    written = other.written()
    for key, row in (await made.table()).items():
        assert written[key]["value"]["name"] == row["name"], f"{key} was not told"
    assert await made.value("select count(*) from counterfoil.write_back") == 0


@pytest.mark.parametrize("point", DELETES)
async def test_killed_around_soft_deletes(shared, point: str):
    made, other = shared(detail=False, destination="deletes: {soft: deleted_at}", count=60, page=20, chunk=20)
    assert await made.finish("run", FLOW) == 0
    gone = other.truth().keys()
    other.delete(2)
    gone -= other.truth().keys()
    assert await made.finish("run", FLOW, die=point) == -signal.SIGKILL
    assert await made.finish("run", FLOW) == 0
    run, table = await made.run(), await made.table()
    assert (run["state"], run["deleted"]) == ("completed", 2)
    assert {key for key, row in table.items() if row["deleted_at"]} >= gone
    assert {key for key, row in table.items() if not row["deleted_at"]} == other.truth().keys()


@pytest.mark.parametrize("point", ["items.claim:1", "record:1", "items.settle:1", "items.renew:1", "load:1", "move:1"])
async def test_killed_while_items_are_retried(shared, point: str):
    """Claimed items of a dead worker are due again; none is loaded twice, none forgotten."""
    made, other = shared("--max-in-a-row", "0", count=12, retry="tries: 1, crashes: 9", pull="breaker_failures: 1000")
    other.change(12)
    other.faults(error503="1@detail")
    assert await made.finish("run", FLOW) == 0
    other.faults(error503=0)
    assert (await made.run())["failed"] > 0
    assert await made.finish("items", FLOW, die=point) == -signal.SIGKILL

    async def all_settled() -> bool:
        await made.finish("items", FLOW)
        return all(item["settled_at"] for item in (await made.items()).values())

    await eventually(all_settled, "every item is settled")
    await proven(made, other)


# --- random instants ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_killed_three_times_in_a_row(project, detail: bool):
    """Show 3: the same end state as a run that was not killed."""
    await _killed_at_random(project, detail, kills=3, seed=random.randrange(10**6))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_killed_again_and_again(project, detail: bool, number: int):
    """Seven runs of each shape, four kills each: 56."""
    await _killed_at_random(project, detail, kills=4, seed=random.randrange(10**6))


async def _killed_at_random(project: Any, detail: bool, *, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    bad = ["--fault", "missing_required=0.02", "--required-field", "name", "--fault", "duplicates=0.05"]
    made, other = project(
        *faults(0.01, *PASSING), *bad, *QUICK, "--seed", str(seed), "--latency", "1-3ms" if detail else "20-60ms",
        count=600, page=30, chunk=30, detail=detail, write_back=True, retry="tries: 6, crashes: 9",
    )  # fmt: skip
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    killed = 0
    while killed < kills and await made.ended_run() is None:
        process, before = made.start("worker"), (await made.run())["attempts"]
        await eventually(lambda before=before: _claimed_since(made, before), "a worker has the run")
        await some_time(chance.uniform(0, 0.3))
        signal_(process, signal.SIGKILL)
        assert await ended(process) == -signal.SIGKILL
        killed += 1
    assert killed == kills, "the run ended before it was killed often enough: it is too short for this test"
    process = made.start("worker")
    await eventually(made.ended_run, "the run ends by itself", 60)
    await eventually(lambda: _nothing_due(made), "what failed was tried again")
    signal_(process, signal.SIGTERM)
    assert await ended(process) == 0
    run, nameless = await made.run(), sum(1 for content in other.truth().values() if "name" not in content)
    assert run["found"] == 600
    assert run["rejected"] == nameless
    assert run["listed"] == 600 + run["duplicates"]
    assert len(await made.table()) == 600 - nameless
    await proven(made, other)
    await _told(made, other)


async def _claimed_since(made: Project, attempts: int) -> bool:
    run = await made.run()
    return bool(run["attempts"] > attempts or run["ended_at"])


async def _nothing_due(made: Project) -> bool:
    return not await made.value("select count(*) from counterfoil.item where next_action_at is not null")
