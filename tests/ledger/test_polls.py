"""Confirmation by polling: rows that come and go with their items, bulk settling in a constant number of statements, deadlines."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from counterfoil.ledger import cases, deliveries, items, polls
from counterfoil.ledger.deliveries import Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import Result, StepRow
from counterfoil.model.delivery import ExchangeKind, HandIn
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    NOON,
    act,
    again,
    books_agree,
    claim,
    declare,
    exchange,
    hand_in,
    history,
    kind,
    row_of,
    send,
    sessions,
    set_database_clock,
    settle,
    states,
    take_in,
)

FIRST, DEADLINE = timedelta(minutes=5), timedelta(days=1)
FLOW = "docs"


@pytest.fixture
async def docs(app: Any) -> Any:
    """Uploads that are confirmed by polling, and forms whose receipt is their success."""
    await declare(app, FLOW, kind("upload", updates=True, poll_first=FIRST), kind("form"))
    await set_database_clock(app, NOON)
    return app


async def accepted(docs: Any, *keys: str, of: str = "upload") -> dict[str, int]:
    """Sent, with a receipt, and waiting for the other side's word; their ids."""
    await take_in(docs, FLOW, *(HandIn(key, {"n": 1}, kind=of) for key in keys))
    got = await claim(docs, limit=1000)
    moves = [
        Move(E.RECEIVE, id=one.id, attempt_id=one.attempt_id, receipt=f"q-{key}", next_action_at=NOON + DEADLINE)
        for key, one in got.items()
    ]
    assert {m.to_state for m in await settle(docs, FLOW, 1, *moves)} == {"ACCEPTED"}
    return {key: got[key].id for key in keys}


async def told(docs: Any, *results: Result, **more: Any) -> list[items.Moved]:
    return await polls.settle(docs, FLOW, results=results, actor="poll", **more)


# --- rows come and go ----------------------------------------------------------------------------------------


async def test_a_receipt_is_asked_about_after_its_first_wait(docs: Any) -> None:
    ids = await accepted(docs, "a", "b")
    assert await polls.due(docs, FLOW, 10) == []
    assert await polls.polling_flows(docs) == []
    await set_database_clock(docs, NOON + FIRST)
    assert await polls.polling_flows(docs) == [FLOW]
    assert await polls.due(docs, FLOW, 1) == [polls.Due(ids["a"], "q-a", "confirm", None, None, 0)]
    (sums,) = await polls.sums(docs)
    assert tuple(sums) == (FLOW, "confirm", 2, NOON + FIRST)


async def test_a_kind_that_is_not_polled_has_no_row(docs: Any) -> None:
    ids = await accepted(docs, "f", of="form")
    assert await polls.get(docs, FLOW, ids["f"]) is None


async def test_what_was_accepted_without_a_receipt_has_nothing_to_ask_by(docs: Any) -> None:
    await hand_in(docs, FLOW, "a", kind="upload")
    await send(docs, FLOW, "a", E.RECEIVE, next_action_at=NOON + DEADLINE)
    assert await docs.fetchval("select count(*) from counterfoil.poll") == 0
    await set_database_clock(docs, NOON + DEADLINE)
    assert await items.wake(docs, FLOW) == (0, 1)
    assert "since 2030-01-01 12:00" in (await row_of(docs, "a", FLOW))["problem"]


LEAVES = [(E.FAIL_TEMPORARILY, "TEMPORARY_ERROR"), (E.REGENERATE, "QUEUED"), (E.TRANSFER, "TRANSFERRED"), (E.ARCHIVE, "ARCHIVED"),
          (E.CANCEL, "CANCELLED"), (E.REVISE, "QUEUED")]  # fmt: skip


@pytest.mark.parametrize(("event", "state"), LEAVES)
@pytest.mark.parametrize("failed_before", [False, True])
async def test_the_row_goes_when_the_item_leaves(docs: Any, event: E, state: str, failed_before: bool) -> None:
    ids = await accepted(docs, "a", "b")
    if failed_before:
        await act(docs, FLOW, E.FAIL, "a", fault="unconfirmed")
        assert await polls.get(docs, FLOW, ids["a"]), "a late answer may still come"
    if event is E.REVISE:
        await take_in(docs, FLOW, HandIn("a", {"n": 2}, kind="upload"))
    else:
        await act(docs, FLOW, event, "a", fault="x", actor="eve")
    assert (await states(docs))["a"] == state
    assert await polls.get(docs, FLOW, ids["a"]) is None
    assert await polls.get(docs, FLOW, ids["b"]) is not None
    await books_agree(docs)


async def test_a_new_receipt_begins_anew_and_an_old_one_remembers_what_was_said(docs: Any) -> None:
    ids = await accepted(docs, "a")
    await told(docs, Result(ids["a"], NOON + timedelta(hours=1), status="pending", seen="digest", not_found=2))
    await act(docs, FLOW, E.RECEIVE, "a", next_action_at=NOON + DEADLINE)
    (row,) = await docs.fetch("select * from counterfoil.poll")
    assert (row["seen"], row["not_found"], row["next_poll_at"]) == ("digest", 0, NOON + FIRST)
    await act(docs, FLOW, E.RECEIVE, "a", receipt="q-2", next_action_at=NOON + DEADLINE)
    (row,) = await docs.fetch("select * from counterfoil.poll")
    assert (row["receipt"], row["seen"]) == ("q-2", None)


# --- what one call found out ---------------------------------------------------------------------------------


async def test_confirmed_is_success_and_is_looked_at_again_while_it_may_be_revoked(docs: Any) -> None:
    ids = await accepted(docs, "a", "b")
    until = NOON + timedelta(days=365)
    moved = await told(
        docs, Result(ids["a"], None, status="done"), Result(ids["b"], NOON + timedelta(days=7), "recheck", until, status="done", seen="x"),
        moves=[Move(E.CONFIRM, id=one) for one in ids.values()],
        steps=[StepRow(ids["a"], "", "done", NOON, NOON), StepRow(ids["a"], "virus_scan", "passed")],
        proofs=[Proof(exchange(kind=ExchangeKind.POLL))],
    )  # fmt: skip
    assert {m.to_state for m in moved} == {"SUCCESS"}
    assert await polls.get(docs, FLOW, ids["a"]) is None
    row = await polls.get(docs, FLOW, ids["b"])
    assert row is not None
    assert (row["phase"], row["keep_until"], row["polled_at"], row["status"]) == ("recheck", until, NOON, "done")
    assert [(s["step"], s["status"]) for s in await deliveries.list_steps(docs, FLOW, ids["a"])] == [
        ("", "done"),
        ("virus_scan", "passed"),
    ]
    assert await docs.fetchval("select count(*) from counterfoil.exchange where kind = 'poll' and item_id is null") == 1
    await told(
        docs,
        Result(ids["b"], NOON + FIRST, "confirm"),
        moves=[Move(E.REOPEN, id=ids["b"], next_action_at=NOON + DEADLINE)],
    )
    row = await polls.get(docs, FLOW, ids["b"])
    assert row is not None
    assert (row["phase"], row["next_poll_at"], row["keep_until"]) == ("confirm", NOON + FIRST, None)
    assert await states(docs) == {"a": "SUCCESS", "b": "ACCEPTED"}
    await books_agree(docs)


async def test_an_answer_that_says_nothing_new_is_written_beside_the_item_only(docs: Any) -> None:
    ids = await accepted(docs, "a", "b")
    before = await row_of(docs, "a", FLOW)
    at = NOON + timedelta(hours=1)
    await told(docs, Result(ids["a"], at, status="pending"), Result(ids["b"], at, answered=False, not_found=1))
    a, b = await polls.get(docs, FLOW, ids["a"]), await polls.get(docs, FLOW, ids["b"])
    assert a is not None
    assert b is not None
    assert (a["polled_at"], a["status"], a["not_found"], a["next_poll_at"]) == (NOON, "pending", 0, at)
    assert (b["polled_at"], b["status"], b["not_found"]) == (None, None, 1)
    assert await row_of(docs, "a", FLOW) == before


async def test_what_has_left_meanwhile_is_passed_over(docs: Any) -> None:
    """One was archived, one was revised and is queued again: a failure of the old content must not stop the new."""
    ids = await accepted(docs, "archived", "revised", "there")
    await act(docs, FLOW, E.ARCHIVE, "archived", actor="eve")
    await take_in(docs, FLOW, HandIn("revised", {"n": 2}, kind="upload"))
    strange = 10**9
    at = NOON + timedelta(hours=1)
    moved = await told(
        docs, *(Result(one, at, status="failed") for one in [*ids.values(), strange]),
        moves=[Move(E.FAIL, id=one, fault="revoked") for one in [*ids.values(), strange]],
        steps=[StepRow(one, "", "failed") for one in [*ids.values(), strange]],
    )  # fmt: skip
    assert [(m.key, m.why) for m in moved] == [("there", "moved")]
    assert await states(docs) == {"archived": "ARCHIVED", "revised": "QUEUED", "there": "PERMANENT_ERROR"}
    assert await docs.fetch("select item_id from counterfoil.item_step") == [(ids["there"],)]
    assert await docs.fetch("select item_id from counterfoil.poll") == [(ids["there"],)]
    await books_agree(docs)


async def test_a_confirmation_that_another_call_brought_first_is_told_and_nothing_else(docs: Any) -> None:
    ids = await accepted(docs, "a")
    for why in ("moved", "illegal"):
        (moved,) = await told(docs, Result(ids["a"], NOON, "recheck"), moves=[Move(E.CONFIRM, id=ids["a"])])
        assert moved.why == why
    assert await history(docs, "a") == ["accept", "claim", "receive", "confirm"]


async def test_a_call_that_failed_leaves_only_its_proof_and_the_next_time(docs: Any) -> None:
    ids = await accepted(docs, "a")
    assert (
        await told(
            docs,
            Result(ids["a"], NOON + FIRST, answered=False),
            proofs=[Proof(exchange(status=None, kind=ExchangeKind.POLL))],
        )
        == []
    )
    assert await told(docs, proofs=[Proof(exchange(status=503, kind=ExchangeKind.POLL))]) == []
    assert await docs.fetchval("select count(*) from counterfoil.exchange") == 2


# --- deadlines -----------------------------------------------------------------------------------------------


async def test_what_nobody_confirmed_in_time_is_a_persons_and_a_late_word_still_counts(docs: Any) -> None:
    ids = await accepted(docs, "a", "b")
    await told(docs, Result(ids["a"], NOON + timedelta(hours=1), status="pending"))
    await set_database_clock(docs, NOON + DEADLINE)
    assert await items.waking_flows(docs) == [FLOW]
    assert await items.wake(docs, FLOW) == (0, 2)
    problems = {(await row_of(docs, key, FLOW))["problem"] for key in ids}
    assert problems == {f"The other side has it since 2030-01-01 12:00 and has not confirmed it in time; it last said {word}."
                        for word in ("pending", "nothing")}  # fmt: skip
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("unconfirmed", 2)
    assert {one.phase for one in await polls.due(docs, FLOW, 10)} == {"late"}
    await told(docs, Result(ids["a"], None), moves=[Move(E.CONFIRM, id=ids["a"])])
    assert await states(docs) == {"a": "SUCCESS", "b": "PERMANENT_ERROR"}
    assert (await cases.list_(docs))[0]["open_items"] == 1
    await books_agree(docs)


async def test_a_deadline_is_no_ones_while_it_has_not_come(docs: Any) -> None:
    await accepted(docs, "a")
    assert await items.wake(docs, FLOW) == (0, 0)
    assert await states(docs) == {"a": "ACCEPTED"}


# --- size ----------------------------------------------------------------------------------------------------

CALLS = """
select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions where schemaname = 'counterfoil'
  and funcname not in ('now', 'request', 'is_owned', 'case_of', 'is_stopped', 'stopped_problem')
"""


@pytest.mark.parametrize("event", [None, E.CONFIRM, E.FAIL])
async def test_the_number_of_statements_does_not_grow_with_the_call(docs: Any, owner: Any, event: E | None) -> None:
    """One from the client. Within, no function is called per row (but those that only put values together), and none loops."""
    ids = list((await accepted(docs, *(f"u{n:04}" for n in range(1000)))).values())
    await owner.execute("set track_functions = 'all'")

    async def calls(some: list[int]) -> int:
        async with owner.transaction():
            before = await owner.fetchval(CALLS)
            await polls.settle(
                owner, FLOW, results=[Result(one, NOON + FIRST, status="x") for one in some], actor="poll",
                moves=[Move(event, id=one, fault="revoked") for one in some] if event else (),
                steps=[StepRow(one, "", "x") for one in some], proofs=[Proof(exchange(kind=ExchangeKind.POLL))],
            )  # fmt: skip
            return int(await owner.fetchval(CALLS)) - int(before)

    few, many = await calls(ids[:10]), await calls(ids[10:])
    assert few == many > 0
    loops = await owner.fetch(
        "select proname from pg_proc where pronamespace = 'counterfoil'::regnamespace and prosrc ~ '\\yloop\\y' order by 1"
    )
    # over kinds and over families in turn; open_cases only where somebody closed one between two statements
    assert [name for (name,) in loops] == ["accept_items", "adopt", "lonely_groups", "next_due", "open_cases"]


async def test_two_calls_about_the_same_receipts_at_once_both_end(docs: Any, database: str) -> None:
    ids = list((await accepted(docs, *(f"u{n}" for n in range(200)))).values())

    async def settle_some(session: Any, n: int) -> None:
        await set_database_clock(session, NOON)
        for step in range(5):
            mine = ids[n * 20 :] + ids[: n * 20]
            results = [
                Result(one, NOON + FIRST * step, status=f"{n} {step}") for one in (mine if n % 2 else mine[::-1])
            ]
            moves = [Move(E.CONFIRM, id=one) for one in mine[step * 10 : step * 10 + 5]]
            await again(partial(polls.settle, session, FLOW, results=results, moves=moves, actor="poll"))

    async with sessions(database, 4) as some:
        await asyncio.gather(*(settle_some(session, n) for n, session in enumerate(some)))
    await books_agree(docs)
