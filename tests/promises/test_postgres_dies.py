"""Promise 1, the other way: the database goes away under load. The run goes on by itself, and what was committed holds."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger.migrate import migrate
from counterfoil.ledger.pool import connect
from counterfoil.model.errors import CounterfoilError
from tests.promises.support import (
    FLOW,
    Project,
    Server,
    ended,
    eventually,
    flow_text,
    people,
    proven,
    server,
    side,
    signal_,
)


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that answers for what it committed, and that may be killed."""
    with server() as running:
        yield running


@pytest.fixture
async def at_work(mortal: Server, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Project, Any]]:
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    admin = await connect(mortal.dsn("postgres"))
    await admin.execute(f"create database {name}")
    await admin.close()
    owner = await connect(mortal.dsn(name))
    await migrate(owner)
    await owner.close()
    data = people(tmp_path / "people.csv", 1500)
    with side("--data", data, "--key", "id", "--latency", "2-6ms") as other:
        text = flow_text(detail=True, chunk=50, write_back=True, pull="concurrency: 8")
        made = Project.make(tmp_path / "project", mortal.dsn(name), other.url, text)
        yield made, other
        made.stop()


HOW = {
    "restart -m fast": lambda server: server.restart("fast"),
    "restart -m immediate": lambda server: server.restart("immediate"),
    "kill -9": lambda server: server.kill(),
    "kill -9 of the backends only": lambda server: server.kill_backends(),
}


@pytest.mark.parametrize("how", HOW)
async def test_the_run_goes_on_by_itself(at_work, mortal: Server, how: str):
    """A worker that stays up: it is never restarted, the database is, twice."""
    made, other = at_work
    async with made.app() as app:
        await app.start_run(FLOW, actor="test")
    worker = made.start("worker")
    for enough in (200, 700):
        before = await eventually(lambda enough=enough: _inserted(made, enough), f"{enough} records are loaded")
        rows = await made.value("select count(*) from public.people")
        HOW[how](mortal)
        after = await eventually(lambda: _answer(made, "select count(*) from public.people"), "the database is back")
        assert after >= rows >= before, "what was committed is gone"
    await eventually(made.ended_run, "the run ends by itself", 60)
    signal_(worker, signal.SIGTERM)
    assert await ended(worker) == 0
    run = await made.run()
    assert (run["state"], run["found"], run["inserted"]) == ("completed", 1500, 1500)
    await proven(made, other)
    assert other.written().keys() == other.truth().keys()


async def test_a_run_in_the_foreground_survives_a_restart(at_work, mortal: Server):
    """`sync run` waits for the database as a worker does."""
    made, other = at_work
    process = made.start("run", FLOW)
    await eventually(lambda: _inserted(made, 300), "300 records are loaded")
    mortal.restart("immediate")
    assert await ended(process) == 0
    assert (await made.run())["state"] == "completed"
    await proven(made, other)


async def _inserted(made: Project, enough: int) -> int:
    found = await _answer(made, "select coalesce(max(inserted), 0) from counterfoil.run")
    return int(found) if found and found >= enough else 0


async def _answer(made: Project, query: str) -> Any:
    """None while the database is away."""
    with contextlib.suppress(asyncpg.PostgresError, CounterfoilError, OSError):
        return await made.value(query)
