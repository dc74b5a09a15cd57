"""Promise 7: the watermark moves only when every record up to it is accounted for; a record that changes during the run is seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.promises.support import FLOW, Project, eventually, flow_text, people, proven, side
from tests.support import FakeClock

HOUR = timedelta(hours=1)


async def _watermark(made: Project) -> datetime | None:
    return await made.value("select watermark from counterfoil.flow where name = $1", FLOW)


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_the_next_window_starts_at_the_newest_change_seen(project, detail: bool):
    made, other = project(count=100, detail=detail, watermark="overlap: 0s, lookback: all")
    first = await made.sync()
    assert (first["since"], first["found"]) == (None, 100)
    newest = first["latest_changed"]
    assert await _watermark(made) == first["watermark_after"] == newest
    other.change(5)
    second = await made.sync()
    assert (second["since"], second["updated"]) == (newest, 5)
    assert second["found"] in (5, 6), "what changed, and the one at the watermark"
    assert await _watermark(made) > newest
    await proven(made, other)


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_a_record_that_changes_during_the_run_is_seen(project, detail: bool):
    """By this run or by the next: in the end the table is as the source."""
    made, other = project(
        "--fault", "change_during_run=0.2", count=200, page=50, detail=detail, watermark="overlap: 1m, lookback: all"
    )
    first = await made.sync()
    assert first["watermark_after"] <= first["started_at"], "never past its start: what changes later must be asked for"
    other.faults(change_during_run=0)
    await made.sync()
    await proven(made, other)
    assert other.record()["requests"]


async def test_a_failed_list_leaves_the_watermark(project):
    made, other = project(
        "--max-in-a-row", "0", count=60, page=20, detail=False, watermark="overlap: 0s, lookback: all"
    )
    await made.sync()
    before = await _watermark(made)
    other.change(30)
    other.faults(error503="1@list")
    failed = await made.sync()
    assert (failed["state"], failed["watermark_after"]) == ("failed", None)
    assert await _watermark(made) == before
    assert (
        await made.value("select count(*) from counterfoil.\"case\" where fault like 'run:%' and closed_at is null")
        == 1
    )
    other.faults(error503=0)
    good = await made.sync()
    assert (good["state"], good["updated"]) == ("completed", 30)
    assert await made.value('select count(*) from counterfoil."case" where closed_at is null') == 0
    await proven(made, other)


async def test_nothing_found_leaves_the_watermark_and_is_its_own_outcome(project):
    """Three runs that found many, then none: `empty`, not `completed`."""
    made, other = project(count=50, detail=False, watermark="overlap: 3650d, lookback: all")
    for _ in range(3):
        assert (await made.sync())["state"] == "completed"
    before = await _watermark(made)
    other.delete(50)
    run = await made.sync()
    assert (run["state"], run["watermark_after"]) == ("empty", None)
    assert "50" in run["problem"]
    assert await _watermark(made) == before


async def test_records_that_failed_do_not_hold_the_watermark(project):
    """They are items: accounted for, and tried again by themselves."""
    made, other = project("--fault", "error503=0.2@detail", "--max-in-a-row", "0", count=50, watermark="overlap: 0s, lookback: all",
                          retry="tries: 1", pull="breaker_failures: 1000")  # fmt: skip
    run = await made.sync()
    assert (run["state"], run["failed"] > 0) == ("partial", True)
    assert await _watermark(made) is not None
    other.faults(error503=0)

    async def settled() -> bool:
        await made.finish("items", FLOW)
        return all(item["settled_at"] for item in (await made.items()).values())

    await eventually(settled, "the items are settled")
    await proven(made, other)


async def test_a_record_stamped_in_the_future_hides_no_other(project):
    made, other = project(count=30, detail=False, watermark="overlap: 0s, lookback: all")
    other.change(1, at="2040-01-01T00:00:00Z")
    run = await made.sync()
    assert run["latest_changed"] >= datetime(2040, 1, 1, tzinfo=UTC)
    assert run["watermark_after"] == run["started_at"]
    other.change(4)
    assert (await made.sync())["updated"] == 4
    await proven(made, other)


async def test_a_source_that_does_not_say_when_records_changed(tmp_path: Path, database: str):
    """The watermark follows the start of each run: what it gave was everything until then."""
    with side("--data", people(tmp_path / "p.csv", 20), "--key", "id") as other:
        text = flow_text(detail=False, watermark="overlap: 5m, lookback: all").replace("  changed: updated_at\n", "")
        made = Project.make(tmp_path / "project", database, other.url, text)
        first = await made.sync()
        assert first["found"] == 20
        assert await _watermark(made) == first["started_at"]
        other.change(3)
        second = await made.sync()
        assert (second["since"], second["updated"]) == (first["started_at"] - timedelta(minutes=5), 3)


async def test_days_in_the_zone_of_the_source(tmp_path: Path, database: str):
    """A source that knows days only is asked for the day, in its own zone, in which the watermark lies."""
    zone = "Pacific/Auckland"
    with side(
        "--data", people(tmp_path / "p.csv", 10), "--key", "id", "--now", "2026-01-10T11:30:00Z", "--changed-over", "1h"
    ) as other:
        text = flow_text(detail=False, watermark=f"granularity: date, overlap: 0d, lookback: 7d, timezone: {zone}")
        made = Project.make(tmp_path / "project", database, other.url, text)
        clock = FakeClock(at=datetime(2026, 1, 10, 11, 30, tzinfo=UTC))
        async with made.app(clock=clock) as app:
            asked = await _asked(app)
            first = await app.work(await app.start_run(FLOW, actor="test"))
            assert first["found"] == 10
            await app.work(await app.start_run(FLOW, actor="test"))
        # 11:30 UTC is half past midnight of the next day in Auckland.
        assert asked[0] == "2026-01-04"
        assert asked[-1] == first["watermark_after"].astimezone(ZoneInfo(zone)).date().isoformat()


async def _asked(app: Any) -> list[str]:
    """What the source is asked for from now on: the query as it is sent."""
    from counterfoil.connectors import http

    asked: list[str] = []
    real = http.HttpSource._page_url

    def seen(self: Any, window: Any, place: Any) -> Any:
        url = real(self, window, place)
        asked.append(url.query.get("updated_since", ""))
        return url

    http.HttpSource._page_url = seen  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("jump", [timedelta(days=3650), -timedelta(days=3650)], ids=["forward", "back"])
async def test_a_clock_that_jumps(project, jump: timedelta):
    """Our clock goes wrong for one run: the watermark is taken from what the source says, and never goes back."""
    made, other = project(count=40, detail=False, watermark="overlap: 0s, lookback: all")
    await made.sync()
    before = await _watermark(made)
    await made.value(
        f"alter database \"{made.dsn.rpartition('/')[2].partition('?')[0]}\" set counterfoil.now = '{datetime.now(UTC) + jump}'"
    )
    other.change(3)
    run = await made.sync()
    assert run["state"] == "completed"
    await made.value(f'alter database "{made.dsn.rpartition("/")[2].partition("?")[0]}" reset counterfoil.now')
    after = await _watermark(made)
    assert before <= after <= datetime.now(UTC), "a run under a wrong clock moved the watermark past what it saw"
    other.change(6)
    assert (await made.sync())["state"] == "completed"
    await proven(made, other)


async def test_a_window_given_by_a_person(project):
    """--since and --until: asked for as given; the watermark moves only where the window joins on to what is known."""
    made, other = project(
        "--changed-over", "10d", count=200, detail=False, watermark="overlap: 0s, lookback: all until"
    )
    now = datetime.now(UTC)
    middle = await made.sync(since=now - 6 * 24 * HOUR, until=now - 4 * 24 * HOUR)
    assert middle["given"]
    assert 0 < middle["found"] < 200
    assert await _watermark(made) is None, "an island: nothing is known of what lies before it"
    everything = await made.sync()
    assert everything["found"] == 200
    at = await _watermark(made)
    again = await made.sync(since=now - 6 * 24 * HOUR, until=now - 4 * 24 * HOUR)
    assert (again["unchanged"], again["inserted"]) == (middle["found"], 0)
    assert await _watermark(made) == at, "never backwards"
    await proven(made, other)


async def test_a_backfill_goes_on_after_a_kill_between_two_windows(project):
    """Each window is a run of its own, made in the transaction that ends the one before: a kill in between loses none."""
    made, other = project(
        "--changed-over", "10d", count=200, detail=False, watermark="overlap: 0s, lookback: all until"
    )
    now = datetime.now(UTC)
    async with made.app() as app:
        await app.start_run(FLOW, actor="test", since=now - 11 * 24 * HOUR, until=now + HOUR, step=3 * 24 * HOUR)
    assert await made.finish("run", FLOW, die="settle_cases:1") == -9  # the end of the first window, not committed
    assert await made.finish("run", FLOW, die="next_window:2") == -9  # start_run is the first call of it

    async def done() -> bool:
        if not await made.value("select count(*) from counterfoil.run where ended_at is null"):
            return True
        await made.finish("run", FLOW)
        return False

    await eventually(done, "every window has run")
    windows = await made.rows(
        "select since, until, found, state from counterfoil.run where trigger = 'backfill' order by id"
    )
    assert len(windows) == 4
    assert all(one["until"] == two["since"] for one, two in pairwise(windows)), "a gap"
    assert {window["state"] for window in windows} == {"completed"}
    assert sum(window["found"] for window in windows) == 200
    await proven(made, other)
