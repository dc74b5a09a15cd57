"""The whole put together: what the terminal asks for, on a real project folder, database and source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterfoil.app import App, open_app
from counterfoil.model.errors import ConflictError, ConnectorError, InvalidFilesError, NotFoundError, UsageError
from tests.promises.support import FLOW, Project, Side, flow_text, people, side


@pytest.fixture
async def opened(tmp_path: Path, database: str) -> AsyncIterator[tuple[App, Project, Side]]:
    with side("--data", people(tmp_path / "people.csv", 40), "--key", "id") as other:
        made = Project.make(
            tmp_path / "project", database, other.url, flow_text(detail=False, schedule='"*/5 * * * *"')
        )
        async with open_app(made.folder, environment=made.environment) as app:
            yield app, made, other


async def test_a_project_with_faults_is_not_opened(tmp_path: Path, database: str):
    made = Project.make(tmp_path, database, "http://127.0.0.1:1", "flow: broken\nkind: sync\n")
    with pytest.raises(InvalidFilesError) as error:
        async with open_app(made.folder, environment=made.environment):
            pass
    assert error.value.faults
    assert all(fault.remedy for fault in error.value.faults)
    async with open_app(made.folder, environment=made.environment, need_flows=False) as app:
        assert not app.project.flows


async def test_an_unknown_flow_is_told_with_the_known_ones(opened: Any):
    app, _, _ = opened
    with pytest.raises(NotFoundError, match=FLOW):
        app.flow("poeple")
    with pytest.raises(NotFoundError):
        await app.work(10**9)


async def test_plan_says_what_apply_does_and_changes_nothing(opened: Any):
    app, made, _ = opened
    first = (await app.plan())[0]
    assert any("new flow people" in change for change in first.changes)
    assert any("people" in change and "table" in change.lower() for change in first.changes)
    assert not first.faults
    assert await made.value("select to_regclass('public.people')") is None
    await app.apply()
    await app.set_schedules()
    assert (await app.plan())[0].changes == ()


async def test_a_table_that_does_not_match_is_refused_before_the_first_record(opened: Any):
    app, made, other = opened
    await made.value("create table public.people (id text primary key, name text not null, email text, score date)")
    with pytest.raises(UsageError, match="score"):
        await app.apply()
    assert await made.value("select count(*) from counterfoil.flow") == 0
    assert not other.record()["requests"].get("list")


async def test_a_dry_run_counts_and_leaves_nothing(opened: Any):
    app, made, other = opened
    found = await app.dry_run(FLOW)
    assert (found.counts.found, found.counts.inserted) == (40, 40)
    assert found.counts.balanced
    assert found.changes
    assert await made.value("select to_regclass('public.people')") is None
    await app.apply()
    await app.work(await app.start_run(FLOW, actor="test"))
    other.change(4)
    found = await app.dry_run(FLOW)
    assert (found.counts.updated, found.counts.unchanged) == (4, 36)
    assert await made.value("select count(*) from counterfoil.run") == 1
    assert await made.value("select count(*) from public.people where name like '%change%'") == 0


async def test_a_second_run_is_a_conflict_that_says_how_to_go_on(opened: Any):
    app, _, _ = opened
    await app.apply()
    await app.start_run(FLOW, actor="test")
    with pytest.raises(ConflictError, match="one run at a time"):
        await app.start_run(FLOW, actor="test")


async def test_a_backfill_needs_its_start(opened: Any):
    app, _, _ = opened
    await app.apply()
    with pytest.raises(UsageError, match="start"):
        await app.start_run(FLOW, actor="test", step=timedelta(days=1))
    with pytest.raises(NotFoundError):
        await app.start_run("nobody", actor="test", since=datetime(2026, 1, 1, tzinfo=UTC))


async def test_progress_is_told_and_ends_with_the_run(opened: Any):
    app, _, _ = opened
    await app.apply()
    seen: list[Any] = []
    row = await app.work(await app.start_run(FLOW, actor="test"), on_progress=seen.append)
    assert row["state"] == "completed"
    assert all(look.flow == FLOW and look.open_keys >= 0 for look in seen)


async def test_sources_are_probed_with_our_credentials(opened: Any, tmp_path: Path, database: str):
    app, _, _ = opened
    assert "answered" in str((await app.probe())[FLOW])
    nobody = Project.make(tmp_path / "nobody", database, "http://127.0.0.1:9", flow_text(detail=False))
    async with open_app(nobody.folder, environment=nobody.environment) as other:
        assert isinstance((await other.probe())[FLOW], ConnectorError)


async def test_a_changed_schedule_starts_anew_and_a_removed_one_goes(opened: Any):
    app, made, _ = opened
    await app.apply()
    await app.set_schedules()
    first = await made.value("select next_fire_at from counterfoil.schedule")
    assert first > datetime.now(UTC)
    await app.set_schedules()
    assert await made.value("select next_fire_at from counterfoil.schedule") == first
    (made.folder / "flows" / "flow0.yaml").write_text(flow_text(detail=False))
    async with open_app(made.folder, environment=made.environment) as later:
        await later.apply()
        await later.set_schedules()
    assert await made.value("select count(*) from counterfoil.schedule") == 0
