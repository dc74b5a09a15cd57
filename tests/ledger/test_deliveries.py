"""Claims of deliveries by lane and family, marks, rescue and doubt, the proof that is kept, what is tried again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import deliveries, items, workers
from counterfoil.ledger.deliveries import Claimed, Proof
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import HandIn, Lane, StoredFile
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    NOON,
    act,
    books_agree,
    claim,
    declare,
    exchange,
    hand_in,
    held,
    history,
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

MADE = StoredFile("made.pdf", "application/pdf", 7, "cd" * 32, "rendered/1")


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


# --- claims --------------------------------------------------------------------------------------------------


async def test_a_claim_gives_all_that_a_request_is_built_from(docs: Any, worker: int) -> None:
    file = StoredFile("a.pdf", "application/pdf", 12, "ab" * 32, "in/a.pdf")
    parent = await hand_in(docs, "docs", "r1", {"year": 2030}, kind="report", group="g", receipt="u-1")
    await hand_in(docs, "docs", "d1", {"n": 1}, "r1", kind="doc", file=file)
    (one,) = (await claim(docs, worker=worker)).values()
    assert one == Claimed(
        id=one.id, key="d1", kind="doc", group=None, attempt_id=one.attempt_id, attempts=1, first_failed_at=None, doubt_at=None, receipt=None,
        accepted_at=NOON, fault=None, problem=None, parent_id=parent, parent_key="r1", parent_state="SUCCESS", parent_receipt="u-1",
        parent_payload='{"year":2030}', payload='{"n":1}', file=one.file, rendered=None, version=1, turned_to=0,
    )  # fmt: skip
    assert one.file is not None
    assert StoredFile(**one.file) == file
    (attempt,) = await items.list_attempts(docs, "docs", one.id)
    assert (attempt["id"], attempt["worker_id"], attempt["sent_at"]) == (one.attempt_id, worker, None)


async def test_the_longest_due_comes_first_and_what_waits_never(docs: Any) -> None:
    await hand_in(docs, "docs", "second", kind="letter")
    await hand_in(docs, "docs", "waits", kind="doc", group="g")
    await hand_in(docs, "docs", "failed", kind="letter")
    await act(docs, "docs", E.FAIL_TEMPORARILY, "failed", next_action_at=NOON - timedelta(minutes=1))
    await hand_in(docs, "docs", "doubtful", kind="letter")
    await send(docs, "docs", "failed", E.DOUBT, next_action_at=NOON - timedelta(minutes=2))
    await act(docs, "docs", E.FAIL_TEMPORARILY, "doubtful", next_action_at=NOON + timedelta(seconds=1))
    assert list(await claim(docs)) == ["failed", "second"]
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    assert list(await claim(docs)) == ["doubtful"]


async def test_lanes_are_apart(docs: Any) -> None:
    await take_in(
        docs,
        "docs",
        *(HandIn(f"bulk {n}", kind="letter", lane=Lane.BULK) for n in range(5)),
        HandIn("live", kind="letter"),
    )
    assert sorted(await items.due_flows(docs)) == [("docs", "bulk"), ("docs", "live")]
    assert set(await claim(docs)) == {"live"}
    assert set(await claim(docs, lane=Lane.BULK, limit=2)) == {"bulk 0", "bulk 1"}
    assert len(await claim(docs, lane=Lane.BULK)) == 3


async def test_one_parents_ten_thousand_children_keep_nobody_waiting(docs: Any) -> None:
    """Two slices: in them another parent's only child is claimed, and the big family goes on. Families in any order of their ids."""
    for name in ("small before", "big", "small after"):
        await hand_in(docs, "docs", name, kind="report", receipt=f"u of {name}")
    for start in range(0, 10_000, 2500):
        await take_in(
            docs, "docs", *(HandIn(f"big {n:05}", kind="doc", parent_key="big") for n in range(start, start + 2500))
        )
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    for name in ("small before", "small after"):
        await hand_in(docs, "docs", f"child of {name}", None, name, kind="doc")
    first = await claim(docs)
    after = next(iter(first.values())).turned_to
    second = await claim(docs, after=after)
    assert {"child of small before", "child of small after"} <= {*first, *second}
    assert len(first) == len(second) == 100
    assert sum(key.startswith("big") for key in [*first, *second]) == 198
    assert list(first)[:90] == [f"big {n:05}" for n in range(90)], "the longest due still come first"


async def test_many_big_families_keep_a_small_one_waiting_no_longer_than_their_turn(docs: Any) -> None:
    families = 60
    for n in range(families):
        await hand_in(docs, "docs", f"f{n}", kind="report", receipt=f"u{n}")
    await take_in(
        docs,
        "docs",
        *(HandIn(f"{m} of f{n}", kind="doc", parent_key=f"f{n}") for n in range(families) for m in range(40)),
    )
    await hand_in(docs, "docs", "small", kind="report", receipt="u")
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    await hand_in(docs, "docs", "only child", None, "small", kind="doc")
    after, slices = 0, 0
    while slices < 8:
        got = await claim(docs, after=after)
        after, slices = next(iter(got.values())).turned_to, slices + 1
        if "only child" in got:
            break
    assert slices <= 7, "61 families, a tenth of a hundred places each time"


async def test_turns_pass_over_families_that_are_not_due(docs: Any) -> None:
    await take_in(docs, "docs", *(HandIn(f"later {n}", kind="letter") for n in range(300)))
    await act(
        docs, "docs", E.FAIL_TEMPORARILY, *(f"later {n}" for n in range(300)), next_action_at=NOON + timedelta(hours=1)
    )
    await hand_in(docs, "docs", "big", kind="report", receipt="u-1")
    await take_in(docs, "docs", *(HandIn(f"big {n}", kind="doc", parent_key="big") for n in range(500)))
    await hand_in(docs, "docs", "small", kind="report", receipt="u-2")
    await set_database_clock(docs, NOON + timedelta(seconds=1))
    await hand_in(docs, "docs", "only child", None, "small", kind="doc")
    assert "only child" in await claim(docs)


async def test_each_family_has_one_turn_and_all_places_are_used(docs: Any) -> None:
    for name in ("a", "b"):
        await hand_in(docs, "docs", name, kind="report", receipt=name)
    await take_in(
        docs, "docs", *(HandIn(f"{name} {n}", kind="doc", parent_key=name) for name in "ab" for n in range(30))
    )
    seen: list[str] = []
    after = 0
    while got := await claim(docs, limit=10, after=after):
        after = next(iter(got.values())).turned_to
        assert len(got) == 10
        seen += got
    assert len(seen) == len(set(seen)) == 60


async def test_two_sessions_claim_disjoint_sets_also_by_turns(docs: Any, database: str) -> None:
    for name in ("a", "b", "c"):
        await hand_in(docs, "docs", name, kind="report", receipt=name)
    await take_in(
        docs, "docs", *(HandIn(f"{name} {n}", kind="doc", parent_key=name) for name in "abc" for n in range(200))
    )

    async def claim_all(session: Any, worker: int) -> list[str]:
        await set_database_clock(session, NOON)
        keys: list[str] = []
        after = 0
        while got := await claim(session, worker=worker, limit=20, after=after):
            after = next(iter(got.values())).turned_to
            keys += got
        return keys

    async with sessions(database, 3) as some:
        found = await asyncio.gather(*(claim_all(session, n) for n, session in enumerate(some)))
    keys = [key for part in found for key in part]
    assert len(keys) == len(set(keys)) == 600
    await books_agree(docs)


async def test_two_open_claims_are_disjoint_and_neither_waits(docs: Any, database: str) -> None:
    await hand_in(docs, "docs", "big", kind="report", receipt="u-1")
    await take_in(docs, "docs", *(HandIn(f"d{n}", kind="doc", parent_key="big") for n in range(50)))
    async with sessions(database) as (one, other), one.transaction(), other.transaction():
        for session in (one, other):
            await set_database_clock(session, NOON)
            await session.execute("set local lock_timeout = '1ms'")
        first, second = await claim(one, limit=10), await claim(other, limit=10)
    assert len(first) == len(second) == 10
    assert not first.keys() & second.keys()


# --- settling ------------------------------------------------------------------------------------------------


async def test_the_proof_is_kept_also_where_the_move_is_fenced_off(docs: Any) -> None:
    (one,) = (await held(docs, "r1")).values()
    await items.rescue(docs, "docs", crashes=3)
    proof = Proof(exchange(), one.id, one.attempt_id)
    (told,) = await deliveries.settle(
        docs, "docs", [Move(E.CONFIRM, id=one.id, attempt_id=one.attempt_id, receipt="u-1")], [proof], worker=1
    )
    assert (told.why, await states(docs)) == ("lease_lost", {"r1": "QUEUED"})
    (kept,) = await deliveries.list_exchanges(docs, "docs", one.id)
    assert (kept["attempt_id"], kept["status"], kept["took_ms"], kept["request"]) == (
        one.attempt_id,
        201,
        50,
        "what was sent",
    )


async def test_proof_alone_can_be_kept(docs: Any) -> None:
    await deliveries.note_exchanges(docs, "docs", [Proof(exchange(), call_id=7), Proof(exchange(status=None))])
    assert await docs.fetchval("select count(*) from counterfoil.exchange") == 2


async def test_a_move_that_fails_takes_its_proof_with_it(docs: Any) -> None:
    """One transaction: a proof of what was not settled would be read as settled."""
    (one,) = (await held(docs, "r1")).values()
    with pytest.raises(asyncpg.PostgresError):
        await deliveries.settle(
            docs,
            "docs",
            [Move(E.SUPERSEDE, id=one.id, attempt_id=one.attempt_id)],
            [Proof(exchange(), one.id)],
            worker=1,
        )
    assert await deliveries.list_exchanges(docs, "docs", one.id) == []


# --- files that were made ------------------------------------------------------------------------------------


async def test_a_made_file_is_kept_for_the_retry_and_not_for_newer_content(docs: Any) -> None:
    (one,) = (await held(docs, "r1")).values()
    await deliveries.keep_rendered(docs, "docs", [(one.id, one.attempt_id, MADE)])
    await items.rescue(docs, "docs", crashes=3)
    (two,) = (await claim(docs)).values()
    assert two.rendered is not None
    assert StoredFile(**two.rendered) == MADE
    await settle(docs, "docs", 1, Move(E.FAIL, id=two.id, attempt_id=two.attempt_id, fault="http_400"))
    await act(docs, "docs", E.REGENERATE, "r1", actor="eve")
    (three,) = (await claim(docs)).values()
    assert three.rendered is None, "a person wanted it made anew"
    await deliveries.keep_rendered(docs, "docs", [(three.id, three.attempt_id, MADE)])
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    await deliveries.keep_rendered(docs, "docs", [(three.id, three.attempt_id, MADE), (one.id, one.attempt_id, MADE)])
    content = await deliveries.get_content(docs, "docs", one.id)
    assert content is not None
    assert content["rendered"] is None, "made from what is no longer its content"


@pytest.mark.parametrize("revised_first", [True, False])
async def test_a_made_file_and_newer_content_at_once_do_not_mix(docs: Any, database: str, revised_first: bool) -> None:
    (one,) = (await held(docs, "r1")).values()
    async with sessions(database) as (worker, program):
        keep = deliveries.keep_rendered(worker, "docs", [(one.id, one.attempt_id, MADE)])
        revise = take_in(program, "docs", HandIn("r1", {"n": 2}, kind="report"))
        first, second, session = (revise, keep, program) if revised_first else (keep, revise, worker)
        async with session.transaction():
            await first
            task = asyncio.create_task(second)
            while not await docs.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0)
        await task
    content = await deliveries.get_content(docs, "docs", one.id)
    assert content is not None
    assert (content["payload"], content["rendered"]) == ('{"n":2}', None)


# --- trying again by fault -----------------------------------------------------------------------------------


async def test_requeue_takes_what_fits_the_patterns_is_young_enough_and_within_the_limit(docs: Any) -> None:
    faults = {
        "a": "http_503",
        "b": "httpX503",
        "c": "http_404",
        "d": "timeout",
        "e": "http_500",
        "f": "50%",
        "g": "50x",
    }
    await hand_in(docs, "docs", "old", kind="letter")
    await set_database_clock(docs, NOON + timedelta(days=1))
    await take_in(docs, "docs", *(HandIn(key, kind="letter") for key in faults))
    await act(docs, "docs", E.FAIL, "old", fault="http_503")
    for key, fault in faults.items():
        await act(docs, "docs", E.FAIL, key, fault=fault)

    async def requeue(*patterns: str, since: Any = NOON + timedelta(hours=1), limit: int = 100) -> set[str]:
        before = await states(docs)
        number = await items.requeue(
            docs, "docs", patterns, accepted_since=since, limit=limit, actor="requeue", reason="overnight"
        )
        changed = {key for key, state in (await states(docs)).items() if state != before[key]}
        assert len(changed) == number
        return changed

    assert await requeue("50%") == {"f"}
    assert await requeue("http_503") == {"a"}
    assert await requeue("http_*", limit=1) == {"c"}
    assert await requeue("http_*", "time*") == {"d", "e"}
    assert await requeue("nothing") == set()
    assert await requeue("*", since=None) == {"old", "b", "g"}
    assert {
        event["reason"] for event in await items.list_events(docs, "docs", (await row_of(docs, "a", "docs"))["id"])
    } == {None, "overnight"}
    await books_agree(docs)


async def test_requeue_leaves_children_of_stopped_parents_to_follow(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", None, "r1", kind="doc")
    await act(docs, "docs", E.FAIL, "r1", fault="http_503")
    assert (
        await items.requeue(docs, "docs", ["parent_*"], accepted_since=None, limit=9, actor="requeue", reason="x") == 0
    )
    assert await items.requeue(docs, "docs", ["*"], accepted_since=None, limit=9, actor="requeue", reason="x") == 1
    assert await states(docs) == {"r1": "QUEUED", "d1": "PERMANENT_ERROR"}
    assert await history(docs, "d1") == ["hold", "fail"]
    await send(docs, "docs", "r1", receipt="u-1")
    assert await states(docs) == {"r1": "SUCCESS", "d1": "QUEUED"}
