"""Acts by hand on runs: stopping the open one, and knowing one that was left."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from counterfoil.ledger import runs as ledger_runs
from counterfoil.ledger import workers
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import NotFoundError
from counterfoil.model.run import RunState
from counterfoil.operations import runs
from tests.support import register, start_worker


async def _open(app: Any) -> int:
    await register(app, "pets")
    run_id = await ledger_runs.create(app, "pets", trigger="person", actor="ana")
    assert run_id is not None
    return run_id


async def test_cancel_ends_the_open_run_with_who_and_why(ledger: Ledger, app: Any) -> None:
    run_id = await _open(app)
    done = await runs.cancel(ledger, "pets", actor="ana@desk", reason="wrong source")
    assert (done.run_id, done.was, done.untold) == (run_id, RunState.QUEUED, 0)
    row = await ledger_runs.get(app, run_id)
    assert row is not None
    assert (row["state"], row["reason"]) == ("cancelled", "wrong source (cancelled by ana@desk)")


async def test_cancel_tells_what_the_source_was_not_told(ledger: Ledger, app: Any) -> None:
    run_id = await _open(app)
    await ledger_runs.add_write_backs(app, run_id, {"a": {"ok": True}, "b": {"ok": True}})
    assert (await runs.cancel(ledger, "pets", actor="ana", reason="x")).untold == 2
    assert await app.fetchval("select count(*) from counterfoil.write_back") == 2, "the next run tells it"


async def test_nothing_open_is_told(ledger: Ledger, app: Any) -> None:
    await register(app, "pets")
    with pytest.raises(NotFoundError, match="No run of pets is open"):
        await runs.cancel(ledger, "pets", actor="ana", reason="x")


async def test_a_run_is_left_when_nobody_has_it(ledger: Ledger, app: Any, owner: Any) -> None:
    run_id = await _open(app)
    assert runs.is_left(await runs.open_one(ledger, "pets"))
    worker = await start_worker(app)
    await workers.hold_presence(owner, worker)
    await ledger_runs.claim(app, run_id, attempt=uuid4(), worker=worker, lease=timedelta(hours=1))
    assert not runs.is_left(await runs.open_one(ledger, "pets"))
    await owner.close()  # its process dies: the lock goes with the connection
    assert runs.is_left(await runs.open_one(ledger, "pets"))


async def test_one_by_number_and_the_newest_of_a_flow(ledger: Ledger, app: Any) -> None:
    run_id = await _open(app)
    assert (await runs.one(ledger, str(run_id)))["id"] == run_id
    assert (await runs.one(ledger, "pets"))["id"] == run_id
    with pytest.raises(NotFoundError):
        await runs.one(ledger, "cats")
