"""Taking items in: once, all or nothing, where they belong; newer content of what is updated; what was only expected so far."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import cases, deliveries, items
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import HandIn, Lane, StoredFile
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    NOON,
    act,
    again,
    books_agree,
    claim,
    declare,
    hand_in,
    history,
    kind,
    register,
    row_of,
    send,
    sessions,
    set_database_clock,
    settle,
    states,
    take_in,
)

FILE = StoredFile("a.pdf", "application/pdf", 12, "ab" * 32, "in/a.pdf")


@pytest.fixture
async def docs(app: Any) -> Any:
    """Reports that are updated, their documents, and notes that belong to a document; the clock stands at noon."""
    await declare(
        app,
        "docs",
        kind("report", updates=True),
        kind("doc", "report"),
        kind("note", "doc", parent_wait=timedelta(days=2)),
    )
    await set_database_clock(app, NOON)
    return app


# --- once ----------------------------------------------------------------------------------------------------


async def test_what_is_handed_in_is_due_at_once_with_all_it_was_given(docs: Any) -> None:
    given = HandIn("r1", {"n": 1}, kind="report", group="g", lane=Lane.BULK, file=FILE)
    (taken,) = (await take_in(docs, "docs", given)).values()
    assert (taken.state, taken.outcome) == ("QUEUED", "new")
    row = await row_of(docs, "r1", "docs")
    assert (row["kind"], row["group_key"], row["lane"], row["next_action_at"], row["version"]) == (
        "report",
        "g",
        "bulk",
        NOON,
        1,
    )
    assert row["payload"] is None, "content stands apart from the item"
    content = await deliveries.get_content(docs, "docs", taken.id)
    assert content is not None
    assert (content["payload"], content["file"]["object"], content["handed_in_at"]) == ('{"n":1}', "in/a.pdf", NOON)
    await books_agree(docs)


async def test_the_same_key_twice_is_one_item_also_in_one_call(docs: Any) -> None:
    first = await hand_in(docs, "docs", "d1", {"n": 1}, kind="doc")
    taken = await take_in(
        docs,
        "docs",
        HandIn("d1", {"n": 2}, kind="doc"),
        HandIn("d2", {"n": 1}, kind="doc"),
        HandIn("d2", {"n": 2}, kind="doc"),
    )
    assert {key: (one.outcome, one.state) for key, one in taken.items()} == {
        "d1": ("known", "WAITING"),
        "d2": ("new", "WAITING"),
    }
    assert taken["d1"].id == first
    for key in ("d1", "d2"):
        content = await deliveries.get_content(docs, "docs", taken[key].id)
        assert content is not None
        assert content["payload"] == '{"n":1}', "the first counts"
        assert await history(docs, key) == ["hold"]
    await books_agree(docs)


async def test_of_an_updated_kind_the_last_in_one_call_counts(docs: Any) -> None:
    taken = await take_in(docs, "docs", *(HandIn("r1", {"n": n}, kind="report") for n in range(3)))
    content = await deliveries.get_content(docs, "docs", taken["r1"].id)
    assert content is not None
    assert content["payload"] == '{"n":2}'
    assert await history(docs, "r1") == ["accept"]


async def test_the_same_keys_from_many_sessions_in_any_order_are_each_one_item(docs: Any, database: str) -> None:
    keys = [f"r{n}" for n in range(40)]

    async def accept(session: Any, n: int) -> None:
        mine = keys[n * 5 :] + keys[: n * 5]
        given = [HandIn(key, {"from": n}, kind="report", group=key) for key in (mine if n % 2 else mine[::-1])]
        given += [HandIn(f"{key} doc", {"from": n}, kind="doc", parent_key=key) for key in mine]
        await again(lambda: items.accept(session, "docs", given, actor=f"program {n}"))

    async with sessions(database, 8) as some:
        await asyncio.gather(*(accept(session, n) for n, session in enumerate(some)))
    counts = await docs.fetch(
        "select event, count(*) from counterfoil.item_event where event <> 'revise' group by event order by event"
    )
    assert [tuple(row) for row in counts] == [("accept", 40), ("hold", 40)]
    await books_agree(docs)


async def test_a_key_that_another_session_brings_at_the_same_moment_is_known_and_not_moved(
    docs: Any, database: str
) -> None:
    """A hands in a receipt for it, a child's `hold` and a failed parent's `fail` of B would be legal moves of what A made."""
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "r2", kind="report")
    await act(docs, "docs", E.FAIL, "r2", fault="http_400")
    async with sessions(database) as (one, other):
        await set_database_clock(one, NOON)
        async with one.transaction():
            await take_in(
                one,
                "docs",
                HandIn("d1", kind="doc", parent_key="r1", receipt="u-1"),
                HandIn("d2", kind="doc", parent_key="r2", receipt="u-2"),
            )
            late = asyncio.create_task(
                take_in(
                    other, "docs", HandIn("d1", kind="doc", parent_key="r1"), HandIn("d2", kind="doc", parent_key="r2")
                )
            )
            while not await docs.fetchval("select count(*) from pg_locks where not granted"):
                await asyncio.sleep(0)
        assert {key: (one.state, one.outcome) for key, one in (await late).items()} == {
            "d1": ("SUCCESS", "known"),
            "d2": ("SUCCESS", "known"),
        }
    assert await history(docs, "d1") == await history(docs, "d2") == ["confirm"]
    await books_agree(docs)


async def test_a_hand_in_that_is_rolled_back_leaves_nothing(docs: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with docs.transaction():
            await take_in(docs, "docs", HandIn("r1", kind="report", group="g"), HandIn("d1", kind="doc", group="g"))
            raise ZeroDivisionError
    for table in ("item", "item_event", "content", "group_lock", "item_count"):
        assert await docs.fetchval(f"select count(*) from counterfoil.{table}") == 0, table


# --- all or nothing ------------------------------------------------------------------------------------------

REFUSED = {
    "no key": (HandIn("", kind="report"), "CF003", "an item needs a key"),
    "a kind the flow has not": (HandIn("x", kind="letter"), "CF006", 'no kind "letter"'),
    "no kind where there are several": (HandIn("x"), "CF006", "names no kind"),
    "a parent nobody knows": (
        HandIn("x", kind="doc", parent_key="nobody"),
        "CF003",
        'names the parent "nobody", which is no item',
    ),
    "a parent of another kind": (HandIn("x", kind="note", parent_key="there"), "CF003", 'a "note" belongs to a "doc"'),
    "itself": (HandIn("x", kind="doc", parent_key="x"), "CF003", "no item"),
    "a lane there is not": (HandIn("x", kind="report", lane="fast"), "CF006", 'no lane "fast"'),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", REFUSED)
async def test_one_that_is_refused_is_told_and_nothing_is_taken_in(docs: Any, what: str) -> None:
    await hand_in(docs, "docs", "there", kind="report")
    given, sqlstate, sentence = REFUSED[what]
    with pytest.raises(asyncpg.PostgresError) as caught:
        await take_in(docs, "docs", HandIn("good", kind="report"), given)
    assert (caught.value.sqlstate, sentence in str(caught.value)) == (sqlstate, True), caught.value
    assert caught.value.hint
    assert await states(docs) == {"there": "QUEUED"}
    await books_agree(docs)


async def test_a_flow_that_is_not_registered_is_told_as_that(docs: Any) -> None:
    with pytest.raises(asyncpg.PostgresError, match=r'flow "cats" is not registered') as caught:
        await take_in(docs, "cats", HandIn("x", kind="report"))
    assert caught.value.sqlstate == "CF002"


async def test_nobody_hands_in_without_a_name(docs: Any) -> None:
    with pytest.raises(asyncpg.PostgresError, match="needs an actor"):
        await take_in(docs, "docs", HandIn("x", kind="report"), actor="")


async def test_where_a_flow_has_one_kind_it_need_not_be_said(app: Any) -> None:
    await declare(app, "letters", kind("letter"))
    await take_in(app, "letters", HandIn("l1"))
    assert (await row_of(app, "l1", "letters"))["kind"] == "letter"


async def test_a_sync_waits_for_no_parent_and_has_no_lanes(app: Any) -> None:
    """Its items are fetched, not delivered: a parent is noted and nothing more; and what the bulk lane held nobody would claim."""
    await register(app, "pets")
    taken = await take_in(app, "pets", HandIn("litter", {"n": 1}))
    await take_in(app, "pets", HandIn("pup", {"n": 2}, parent_key="litter", lane=Lane.BULK))
    row = await row_of(app, "pup")
    assert (row["state"], row["parent_id"], row["lane"], row["payload"]) == (
        "QUEUED",
        taken["litter"].id,
        "live",
        '{"n":2}',
    )
    assert len(await items.claim(app, "pets", limit=10, lease=timedelta(minutes=1), worker=1)) == 2


async def test_other_programs_hand_in_with_the_sql_function_by_as_many_parts_as_they_need(docs: Any) -> None:
    await register(docs, "pets")
    assert await docs.fetchval("select counterfoil.accept('pets', 'rex')") == (await row_of(docs, "rex"))["id"]
    await docs.fetchval("""select counterfoil.accept('pets', 'tom', '{"a": 1}', 'rex')""")
    await docs.fetchval(
        "select counterfoil.accept('docs', 'r1', '{}', p_kind => 'report', p_group => 'g', p_lane => 'bulk')"
    )
    await docs.fetchval(
        "select counterfoil.accept('docs', 'd1', '{}', 'r1', 'doc', p_due_at => now() + interval '1 year')"
    )
    assert await states(docs) == {"r1": "QUEUED", "d1": "WAITING"}


# --- when, and with what -------------------------------------------------------------------------------------


async def test_due_at_holds_an_item_until_then(docs: Any) -> None:
    at = NOON + timedelta(hours=1)
    await hand_in(docs, "docs", "r1", kind="report", due_at=at)
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["next_action_at"]) == ("WAITING", at)
    assert await claim(docs) == {}
    assert await items.waking_flows(docs) == []
    await set_database_clock(docs, at)
    assert await items.waking_flows(docs) == ["docs"]
    assert await items.wake(docs, "docs") == (1, 0)
    assert set(await claim(docs)) == {"r1"}
    await books_agree(docs)


async def test_a_due_at_that_has_passed_holds_nothing(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report", due_at=NOON)
    assert await states(docs) == {"r1": "QUEUED"}


async def test_what_has_its_receipt_already_is_done_at_once(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report", receipt="u-1")
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["receipt"], row["receipt_at"], row["settled_at"]) == ("SUCCESS", "u-1", NOON, NOON)
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    assert await states(docs) == {"r1": "SUCCESS", "d1": "QUEUED"}
    await books_agree(docs)


# --- newer content -------------------------------------------------------------------------------------------


async def test_newer_content_of_an_updated_kind_is_sent_again_as_an_update(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report", file=FILE)
    await send(docs, "docs", "r1", receipt="u-1")
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    assert (taken["r1"].outcome, taken["r1"].state) == ("revised", "QUEUED")
    (one,) = (await claim(docs)).values()
    assert (one.payload, one.file, one.receipt, one.version) == ('{"n":2}', None, "u-1", 2)
    assert await history(docs, "r1") == ["accept", "claim", "confirm", "revise", "claim"]
    await books_agree(docs)


async def test_the_same_content_again_is_known_and_sent_no_more(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report", file=FILE)
    await send(docs, "docs", "r1", receipt="u-1")
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 1}, kind="report", file=FILE))
    assert (taken["r1"].outcome, taken["r1"].state) == ("known", "SUCCESS")
    changed = await take_in(docs, "docs", HandIn("r1", {"n": 1}, kind="report", file=StoredFile("a.pdf", size=13)))
    assert changed["r1"].outcome == "revised", "another file is newer content too"


async def test_a_kind_without_updates_keeps_its_first_content(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report", receipt="u-1")
    await hand_in(docs, "docs", "d1", {"n": 1}, kind="doc", parent_key="r1")
    await send(docs, "docs", "d1", receipt="v-1")
    taken = await take_in(docs, "docs", HandIn("d1", {"n": 2}, kind="doc"))
    assert (taken["d1"].outcome, taken["d1"].state) == ("known", "SUCCESS")
    assert (await row_of(docs, "d1", "docs"))["version"] == 1


async def test_what_is_revised_before_it_left_keeps_its_time_and_place(docs: Any) -> None:
    at = NOON + timedelta(hours=1)
    await hand_in(docs, "docs", "held", {"n": 1}, kind="report", due_at=at)
    await hand_in(docs, "docs", "due", {"n": 1}, kind="report")
    await set_database_clock(docs, NOON + timedelta(minutes=5))
    await take_in(docs, "docs", HandIn("held", {"n": 2}, kind="report"), HandIn("due", {"n": 2}, kind="report"))
    for key, state, due in (("held", "WAITING", at), ("due", "QUEUED", NOON)):
        row = await row_of(docs, key, "docs")
        assert (row["state"], row["next_action_at"], row["version"]) == (state, due, 2)
    await books_agree(docs)


async def test_newer_content_with_a_time_is_held_until_then(docs: Any) -> None:
    at = NOON + timedelta(hours=1)
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", receipt="u-1")
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report", due_at=at))
    row = await row_of(docs, "r1", "docs")
    assert (taken["r1"].state, row["state"], row["next_action_at"]) == ("WAITING", "WAITING", at)
    await books_agree(docs)


@pytest.mark.parametrize(
    ("event", "state"), [(E.FAIL_TEMPORARILY, "TEMPORARY_ERROR"), (E.FAIL, "PERMANENT_ERROR"), (E.REJECT, "REJECTED")]
)
async def test_newer_content_of_what_failed_is_a_fresh_start_now(docs: Any, event: E, state: str) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", event, fault="http_400", problem="No.", next_action_at=NOON + timedelta(hours=5))
    assert await states(docs) == {"r1": state}
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    row = await row_of(docs, "r1", "docs")
    assert (row["state"], row["next_action_at"], row["first_failed_at"], row["fault"]) == ("QUEUED", NOON, None, None)
    assert await cases.list_(docs) == []
    await books_agree(docs)


async def test_newer_content_of_what_is_accepted_does_not_wait_for_the_deadline(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", E.RECEIVE, receipt="u-1", next_action_at=NOON + timedelta(days=1))
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    assert set(await claim(docs)) == {"r1"}


@pytest.mark.parametrize("look_at", [None, NOON + timedelta(minutes=2)], ids=["a case has it", "it is looked up"])
async def test_newer_content_of_what_is_in_doubt_leaves_it_where_it_is(docs: Any, look_at: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", E.DOUBT, fault="in_doubt", next_action_at=look_at)
    before = await row_of(docs, "r1", "docs")
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    row = await row_of(docs, "r1", "docs")
    for name in ("state", "next_action_at", "case_id", "doubt_at", "fault"):
        assert row[name] == before[name], name
    assert [case["fault"] for case in await cases.list_(docs)] == (["in_doubt"] if look_at is None else [])
    await books_agree(docs)


@pytest.mark.parametrize("end", [E.TRANSFER, E.ARCHIVE, E.CANCEL])
async def test_what_a_person_closed_is_never_touched_again(docs: Any, end: E) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await act(docs, "docs", end, "r1", reference="S-1")
    before = await row_of(docs, "r1", "docs")
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report", receipt="u-1"))
    assert taken["r1"].outcome == "known"
    assert await row_of(docs, "r1", "docs") == before
    content = await deliveries.get_content(docs, "docs", before["id"])
    assert content is not None
    assert content["payload"] == '{"n":1}'


ARRIVED = [(E.CONFIRM, "SUCCESS"), (E.RECEIVE, "ACCEPTED"), (E.FAIL, "PERMANENT_ERROR"), (E.REJECT, "REJECTED")]


@pytest.mark.parametrize(("event", "state"), ARRIVED)
async def test_newer_content_of_what_is_under_way_is_sent_right_after(docs: Any, event: E, state: str) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    (one,) = (await claim(docs)).values()
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    assert (taken["r1"].outcome, taken["r1"].state) == ("revised", "IN_PROGRESS")
    receipt = "u-1" if event in (E.CONFIRM, E.RECEIVE) else None
    (moved,) = await settle(
        docs, "docs", 1, Move(event, id=one.id, attempt_id=one.attempt_id, fault="http_400", receipt=receipt)
    )
    assert moved.to_state == state
    (again_,) = (await claim(docs)).values()
    assert (again_.payload, again_.receipt, again_.version) == ('{"n":2}', receipt, 2)
    assert await history(docs, "r1") == ["accept", "claim", event.value, "revise", "claim"]
    await send_and_rest(docs, again_)


async def send_and_rest(docs: Any, one: deliveries.Claimed) -> None:
    """Once the newest content has arrived nothing follows."""
    await settle(docs, "docs", 1, Move(E.CONFIRM, id=one.id, attempt_id=one.attempt_id, receipt="u-1"))
    assert await states(docs) == {one.key: "SUCCESS"}
    assert await claim(docs) == {}
    await books_agree(docs)


async def test_what_a_look_up_finds_is_the_version_that_left_and_the_newer_one_follows(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    (one,) = (await claim(docs)).values()
    await deliveries.mark_sending(docs, "docs", [(one.id, one.attempt_id)])
    await settle(docs, "docs", 1, Move(E.DOUBT, id=one.id, attempt_id=one.attempt_id, next_action_at=NOON))
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    (two,) = (await claim(docs)).values()
    assert (two.doubt_at, two.version) == (NOON, 2)
    await settle(docs, "docs", 1, Move(E.CONFIRM, id=two.id, attempt_id=two.attempt_id, receipt="u-1"))
    (three,) = (await claim(docs)).values()
    assert (three.payload, three.receipt) == ('{"n":2}', "u-1")
    await deliveries.mark_sending(docs, "docs", [(three.id, three.attempt_id)])
    await send_and_rest(docs, three)


async def test_what_was_not_found_by_a_look_up_and_was_sent_then_is_the_newest(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", E.DOUBT, next_action_at=NOON)
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    (two,) = (await claim(docs)).values()
    await take_in(docs, "docs", HandIn("r1", {"n": 3}, kind="report"))
    assert await deliveries.mark_sending(docs, "docs", [(two.id, two.attempt_id)]) == {two.attempt_id}
    assert (await row_of(docs, "r1", "docs"))["sent_version"] == 2, (
        "what left is what the claim gave, whatever came since"
    )
    await settle(docs, "docs", 1, Move(E.CONFIRM, id=two.id, attempt_id=two.attempt_id, receipt="u-1"))
    (three,) = (await claim(docs)).values()
    assert three.payload == '{"n":3}'
    await send_and_rest(docs, three)


# --- what was only expected ----------------------------------------------------------------------------------


async def expect(docs: Any, key: str, of: str, **more: Any) -> None:
    """As completeness leaves it: an item of which nothing is known but that it is missing."""
    await items.move(
        docs,
        "docs",
        [Move(E.FAIL, key=key, fault="missing", problem="It is expected.", kind=of, **more)],
        actor="completeness",
    )


async def test_an_item_that_was_missing_becomes_a_real_one(docs: Any) -> None:
    await expect(docs, "r1", "report")
    taken = await take_in(docs, "docs", HandIn("r1", {"n": 1}, kind="report", group="g", lane=Lane.BULK))
    assert (taken["r1"].outcome, taken["r1"].state) == ("revised", "QUEUED")
    row = await row_of(docs, "r1", "docs")
    assert (row["fault"], row["problem"], row["group_key"], row["lane"]) == (None, None, "g", "bulk")
    (one,) = (await claim(docs, lane=Lane.BULK)).values()
    assert one.payload == '{"n":1}'
    assert await cases.list_(docs) == []
    await books_agree(docs)


async def test_a_missing_child_waits_for_its_parent_once_it_is_there(docs: Any) -> None:
    parent = await hand_in(docs, "docs", "r1", kind="report")
    await expect(docs, "d1", "doc", parent_id=parent)
    taken = await take_in(docs, "docs", HandIn("d1", {"n": 1}, kind="doc"))
    assert (taken["d1"].outcome, taken["d1"].state) == ("revised", "WAITING")
    await send(docs, "docs", "r1", receipt="u-1")
    assert await states(docs) == {"r1": "SUCCESS", "d1": "QUEUED"}
    again_ = await take_in(docs, "docs", HandIn("d1", {"n": 2}, kind="doc"))
    assert again_["d1"].outcome == "known", "from now on its first content counts"
    await books_agree(docs)


async def test_a_missing_item_that_has_its_receipt_is_done_and_its_children_go(docs: Any) -> None:
    await expect(docs, "r1", "report")
    await take_in(docs, "docs", HandIn("d1", kind="doc", parent_key="r1"))
    assert await states(docs) == {"r1": "PERMANENT_ERROR", "d1": "PERMANENT_ERROR"}
    await take_in(docs, "docs", HandIn("r1", {"n": 1}, kind="report", receipt="u-1"))
    assert await states(docs) == {"r1": "SUCCESS", "d1": "QUEUED"}
    await books_agree(docs)


async def test_a_missing_parent_adopts_when_it_comes(docs: Any) -> None:
    await expect(docs, "r1", "report")
    await hand_in(docs, "docs", "d1", kind="doc", group="g")
    assert (await row_of(docs, "d1", "docs"))["parent_id"] is None
    await take_in(docs, "docs", HandIn("r1", kind="report", group="g"))
    assert (await row_of(docs, "d1", "docs"))["parent_id"] == (await row_of(docs, "r1", "docs"))["id"]
    await books_agree(docs)
