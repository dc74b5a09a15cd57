"""Status: the numbers of each flow, and a sentence for everything that needs a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

from counterfoil.ledger import flows, runs, workers
from counterfoil.ledger.pool import Ledger
from counterfoil.model.item import ItemEvent
from counterfoil.monitor.status import status
from tests.support import act, register, start_worker


async def test_a_quiet_ledger_needs_nobody(ledger: Ledger, app: Any) -> None:
    await register(app, "pets")
    found = await status(ledger)
    assert [(flow.flow, flow.run) for flow in found.flows] == [("pets", None)]
    assert (found.cases, found.workers, found.attention) == ((), (), ())


async def test_an_overdue_case(ledger: Ledger, app: Any, owner: Any) -> None:
    await register(app, "pets")
    await act(app, "pets", ItemEvent.FAIL, "a", fault="http_400", problem="No such pet.")
    assert (await status(ledger)).attention == ()
    await owner.execute("""update counterfoil."case" set due_at = now() - interval '90 minutes'""")
    (said,) = (await status(ledger)).attention
    assert "(No such pet) is overdue by 90 min; owner operators" in said


async def test_due_items_and_nobody_at_work(ledger: Ledger, app: Any, owner: Any) -> None:
    await register(app, "pets")
    await act(app, "pets", ItemEvent.ACCEPT, "a")
    await owner.execute("update counterfoil.item set next_action_at = now() - interval '20 minutes'")
    (said,) = (await status(ledger)).attention
    assert said == "1 item overdue by more than 15 min of pets, and no worker is at work. Start `counterfoil up`."
    await workers.hold_presence(owner, await start_worker(app))
    (said,) = (await status(ledger)).attention
    assert said.endswith("of pets, although a worker is at work.")


async def test_a_run_that_failed_and_one_that_was_left(ledger: Ledger, app: Any, owner: Any) -> None:
    await register(app, "cats", "pets")
    for flow in ("cats", "pets"):
        run_id = await runs.create(app, flow, trigger="person", actor="ana")
        assert run_id is not None
        attempt = uuid4()
        await runs.claim(app, run_id, attempt=attempt, worker=await start_worker(app), lease=timedelta(hours=1))
        if flow == "pets":
            await app.execute(
                "update counterfoil.run set state = 'failed', ended_at = now(), next_action_at = null, attempt_id = null,"
                " problem = 'HTTP 500.' where id = $1",
                run_id,
            )
    await owner.execute("update counterfoil.run set next_action_at = now() - interval '1 hour' where ended_at is null")
    said = (await status(ledger)).attention
    assert len(said) == 2
    assert "of cats is called running and nobody works on it" in said[0]
    assert said[1].endswith("of pets ended as failed: HTTP 500.")


async def test_a_late_schedule(ledger: Ledger, app: Any) -> None:
    await register(app, "pets")
    at = (await status(ledger)).at - timedelta(hours=1)
    await flows.set_schedule(app, "pets", cron="* * * * *", timezone="UTC", catch_up="once", next_fire_at=at)
    assert (await status(ledger)).attention == ("The schedule of pets is late. Start `counterfoil up`.",)


async def test_a_run_whose_only_worker_died_is_told_at_once(ledger: Ledger, app: Any) -> None:
    """Its lease still lasts an hour; but nobody is left who would take it over."""
    await register(app, "cats")
    run_id = await runs.create(app, "cats", trigger="person", actor="ana")
    assert run_id is not None
    await runs.claim(app, run_id, attempt=uuid4(), worker=await start_worker(app), lease=timedelta(hours=1))
    assert "nobody works on it" in (await status(ledger)).attention[0]
