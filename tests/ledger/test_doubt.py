"""After a lost reply: marks before anything leaves, rescue, doubt that only an answer ends, crashes that end in a case."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from counterfoil.ledger import cases, deliveries, items, workers
from counterfoil.ledger.deliveries import Claimed
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import HandIn
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    NOON,
    act,
    books_agree,
    claim,
    declare,
    hand_in,
    held,
    kind,
    row_of,
    send,
    sessions,
    set_database_clock,
    settle,
    start_worker,
    states,
    take_in,
)


@pytest.fixture
async def docs(app: Any) -> Any:
    """Reports with documents, each kind with another way after a lost reply."""
    await declare(
        app, "docs",
        kind("report", resend="look_up", resend_update="safe", updates=True), kind("doc", "report", resend="safe"),
        kind("letter", resend="person"),
    )  # fmt: skip
    await set_database_clock(app, NOON)
    return app


@pytest.fixture
async def worker(docs: Any) -> int:
    worker = await start_worker(docs)
    assert await workers.hold_presence(docs, worker)
    return worker


# --- marks ---------------------------------------------------------------------------------------------------


async def test_only_attempts_that_hold_their_item_may_send(docs: Any) -> None:
    got = await held(docs, "r1", "r2", "r3")
    await items.rescue(docs, "docs", crashes=3)
    ((_, anew),) = (await claim(docs, limit=1)).items()
    asked = [(one.id, one.attempt_id) for one in got.values()] + [(anew.id, anew.attempt_id), (anew.id, uuid4())]
    assert await deliveries.mark_sending(docs, "docs", asked) == {anew.attempt_id}
    sent = await docs.fetch("select id from counterfoil.attempt where sent_at is not null")
    assert [row["id"] for row in sent] == [anew.attempt_id], "an attempt that lost its item has not sent"
    assert await deliveries.mark_sending(docs, "docs", []) == set()


@pytest.mark.parametrize("marked_first", [True, False])
async def test_a_mark_and_a_rescue_at_once_see_each_other(docs: Any, database: str, marked_first: bool) -> None:
    """Either the attempt may send, and then the item is in doubt; or it was rescued, and then nothing is sent."""
    (one,) = (await held(docs, "r1")).values()
    async with sessions(database) as (sender, rescuer):
        await set_database_clock(rescuer, NOON)
        pair = [(one.id, one.attempt_id)]
        if marked_first:
            async with sender.transaction():
                may_send = await deliveries.mark_sending(sender, "docs", pair)
                rescue = asyncio.create_task(items.rescue(rescuer, "docs", crashes=3))
                while not await docs.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0)
            await rescue
        else:
            async with rescuer.transaction():
                await items.rescue(rescuer, "docs", crashes=3)
                mark = asyncio.create_task(deliveries.mark_sending(sender, "docs", pair))
                while not await docs.fetchval("select count(*) from pg_locks where not granted"):
                    await asyncio.sleep(0)
            may_send = await mark
    assert (may_send, await states(docs)) == (
        ({one.attempt_id}, {"r1": "IN_DOUBT"}) if marked_first else (set(), {"r1": "QUEUED"})
    )
    marks = await docs.fetchval("select count(sent_at) from counterfoil.attempt")
    assert marks == (1 if marked_first else 0)


# --- rescue and doubt ----------------------------------------------------------------------------------------


async def mark(docs: Any, *some: Claimed) -> None:
    pairs = [(one.id, one.attempt_id) for one in some]
    assert len(await deliveries.mark_sending(docs, "docs", pairs)) == len(pairs)


RESCUED = [
    # kind, marked, state, rescue's counts
    ("report", False, "QUEUED", (1, 0)),
    ("report", True, "IN_DOUBT", (1, 0)),
    ("letter", False, "QUEUED", (1, 0)),
    ("letter", True, "IN_DOUBT", (0, 1)),
    ("safe", True, "QUEUED", (1, 0)),
]


@pytest.mark.parametrize(("of", "marked", "state", "counts"), RESCUED)
async def test_what_becomes_of_an_item_whose_worker_is_gone(
    docs: Any, of: str, marked: bool, state: str, counts: Any
) -> None:
    await declare(docs, "docs", kind("report", resend="look_up"), kind("letter", resend="person"), kind("safe"))
    got = await held(docs, "x", kind_=of)
    if marked:
        await mark(docs, *got.values())
    assert await items.rescue(docs, "docs", crashes=3) == counts
    row = await row_of(docs, "x", "docs")
    looks = NOON + timedelta(minutes=2) if of == "report" else None
    assert (row["state"], row["crashes"]) == (state, 1)
    assert row["next_action_at"] == (NOON if state == "QUEUED" else looks)
    assert row["doubt_at"] == (NOON if state == "IN_DOUBT" else None)
    assert [case["fault"] for case in await cases.list_(docs)] == (["in_doubt"] if counts == (0, 1) else [])
    await books_agree(docs)


async def test_an_update_that_is_safe_to_repeat_is_repeated_where_the_first_request_was_not(docs: Any) -> None:
    got = await held(docs, "r1")
    await settle(docs, "docs", 1, Move(E.CONFIRM, id=got["r1"].id, attempt_id=got["r1"].attempt_id, receipt="u-1"))
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    await mark(docs, *(await claim(docs, lease=timedelta(0))).values())
    assert await items.rescue(docs, "docs", crashes=3) == (1, 0)
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["doubt_at"]) == ("QUEUED", None)


async def test_what_was_doubtful_stays_so_although_the_next_attempt_sent_nothing(docs: Any) -> None:
    got = await held(docs, "r1")
    await mark(docs, *got.values())
    await items.rescue(docs, "docs", crashes=9)
    later = NOON + timedelta(minutes=2)
    await set_database_clock(docs, later)
    assert (await claim(docs, lease=timedelta(0)))["r1"].doubt_at == NOON
    assert await items.rescue(docs, "docs", crashes=9) == (1, 0)
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["next_action_at"], row["doubt_at"], row["crashes"]) == (
        "IN_DOUBT",
        later + timedelta(minutes=2),
        NOON,
        2,
    )


async def test_after_k_crashes_a_person_has_it_and_the_doubt_is_not_forgotten(docs: Any) -> None:
    for crash in range(3):
        (one,) = (await held(docs, "r1") if crash == 0 else await claim(docs, lease=timedelta(0))).values()
        await mark(docs, one)
        expected = (1, 0) if crash < 2 else (0, 1)
        assert await items.rescue(docs, "docs", crashes=3) == expected
        await set_database_clock(docs, NOON + timedelta(minutes=2 * (crash + 1)))
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["fault"], row["doubt_at"]) == ("PERMANENT_ERROR", "crashed", NOON)
    await act(docs, "docs", E.RETRY, "r1", actor="eve")
    assert (await claim(docs))["r1"].doubt_at == NOON, "a later retry looks first"
    await books_agree(docs)


async def test_an_item_that_crashed_is_claimed_alone_once_it_is_the_longest_due(docs: Any) -> None:
    await held(docs, "suspect", kind_="letter")
    await take_in(docs, "docs", *(HandIn(f"before {n}", kind="letter") for n in range(5)))
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    await items.rescue(docs, "docs", crashes=3)
    await set_database_clock(docs, NOON + timedelta(seconds=2))
    await take_in(docs, "docs", *(HandIn(f"after {n}", kind="letter") for n in range(5)))
    assert len(await claim(docs, limit=3)) == 3
    assert set(await claim(docs, limit=8)) == {"before 3", "before 4", *(f"after {n}" for n in range(5))}
    assert set(await claim(docs)) == {"suspect"}


async def test_a_suspect_that_is_the_longest_due_comes_alone_although_others_have_turns(docs: Any) -> None:
    for name in ("a", "b"):
        await hand_in(docs, "docs", name, kind="report", receipt=name)
    await hand_in(docs, "docs", "suspect", None, "b", kind="doc")
    await claim(docs, lease=timedelta(0))
    await items.rescue(docs, "docs", crashes=3)
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    await take_in(
        docs, "docs", *(HandIn(f"{name} {n}", kind="doc", parent_key=name) for name in "ab" for n in range(50))
    )
    assert list(await claim(docs, limit=10)) == ["suspect"]
    assert len(await claim(docs, limit=10)) == 10


KEEPS = [E.GIVE_BACK, E.HOLD, E.DOUBT]
CLEARS = [E.RECEIVE, E.CONFIRM, E.FAIL_TEMPORARILY, E.FAIL]


async def in_doubt(docs: Any) -> Claimed:
    """Claimed with a doubt from noon."""
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", E.DOUBT, next_action_at=NOON, fault="in_doubt")
    await set_database_clock(docs, NOON + timedelta(minutes=1))
    (one,) = (await claim(docs)).values()
    assert one.doubt_at == NOON
    return one


@pytest.mark.parametrize("event", KEEPS + CLEARS)
async def test_doubt_goes_with_an_answer_and_with_nothing_else(docs: Any, event: E) -> None:
    one = await in_doubt(docs)
    await settle(
        docs, "docs", 1, Move(event, id=one.id, attempt_id=one.attempt_id, fault="x", next_action_at=NOON, receipt=None)
    )
    row = await row_of(docs, "r1", "docs")
    assert row["doubt_at"] == (NOON if event in KEEPS else None)
    if event is E.HOLD:
        await act(docs, "docs", E.RELEASE, "r1")
        assert (await row_of(docs, "r1", "docs"))["doubt_at"] == NOON


@pytest.mark.parametrize("event", [E.FAIL_TEMPORARILY, E.FAIL])
@pytest.mark.parametrize("after", [E.RETRY, E.REGENERATE, E.REVISE])
async def test_doubt_that_is_told_stays_whatever_a_person_does_next(docs: Any, event: E, after: E) -> None:
    one = await in_doubt(docs)
    await settle(docs, "docs", 1, Move(event, id=one.id, attempt_id=one.attempt_id, fault="http_503", doubtful=True))
    assert (await row_of(docs, "r1", "docs"))["doubt_at"] == NOON
    if after is E.REVISE:
        await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    else:
        await act(docs, "docs", after, "r1")
    assert (await row_of(docs, "r1", "docs"))["doubt_at"] == NOON


async def test_what_only_a_person_can_tell_leaves_its_case_when_they_do(docs: Any) -> None:
    await hand_in(docs, "docs", "l1", kind="letter")
    await send(docs, "docs", "l1", E.DOUBT, fault="in_doubt")
    assert await claim(docs) == {}
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("in_doubt", 1)
    await act(docs, "docs", E.CONFIRM, "l1", receipt="seen there", actor="eve")
    assert await cases.list_(docs) == []
    await books_agree(docs)


async def test_a_lease_is_renewed_for_deliveries_too(docs: Any, worker: int) -> None:
    (one,) = (await held(docs, "r1", worker=worker, lease=timedelta(minutes=1))).values()
    assert await items.renew(docs, "docs", [one.attempt_id, uuid4()], timedelta(minutes=9)) == {one.attempt_id}
    await set_database_clock(docs, NOON + timedelta(minutes=5))
    assert await items.rescue(docs, "docs", crashes=3) == (0, 0)
