"""Parents and children: who waits for whom, who goes when, who shares whose case; also where two sessions meet."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from counterfoil.ledger import cases, items
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import HandIn
from counterfoil.model.item import ItemEvent as E
from counterfoil.model.item import ItemState as S
from tests.support import (
    NOON,
    act,
    books_agree,
    claim,
    declare,
    hand_in,
    history,
    in_turn,
    kind,
    row_of,
    send,
    sessions,
    set_database_clock,
    settle,
    states,
    take_in,
)

WAIT = timedelta(days=2)


@pytest.fixture
async def docs(app: Any) -> Any:
    """Reports, their documents, notes that belong to a document, checklists that go with the first report or with a stand-in."""
    await declare(
        app, "docs",
        kind("report", updates=True, poll_first=timedelta(minutes=5)),
        kind("doc", "report", parent_wait=WAIT, updates=True), kind("note", "doc"),
        kind("checklist", "report", inherits="first", stand_in="9999"), kind("bill", "report", inherits="first"),
    )  # fmt: skip
    await set_database_clock(app, NOON)
    return app


async def parent_of(docs: Any, key: str) -> str | None:
    return await docs.fetchval(
        "select p.key from counterfoil.item c join counterfoil.item p on p.id = c.parent_id where c.flow = 'docs' and c.key = $1",
        key,
    )


# --- a receipt lets children go ------------------------------------------------------------------------------

RECEIPTS = [
    ("receive", {"receipt": "u-1", "next_action_at": NOON + timedelta(days=1)}),
    ("confirm", {"receipt": "u-1"}),
    ("transfer", {"reference": "S-1"}),
]


@pytest.mark.parametrize(("event", "said"), RECEIPTS)
async def test_children_go_in_the_transaction_that_gives_their_parent_its_receipt(
    docs: Any, event: str, said: Any
) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await take_in(docs, "docs", HandIn("d1", kind="doc", parent_key="r1"), HandIn("d2", kind="doc", parent_key="r1"),
                  HandIn("n1", kind="note", parent_key="d1"))  # fmt: skip
    row = await row_of(docs, "d1", "docs")
    assert (row["state"], row["next_action_at"]) == ("WAITING", NOON + WAIT)
    async with docs.transaction():
        if event == "transfer":
            await act(docs, "docs", E.TRANSFER, "r1", **said)
        else:
            await send(docs, "docs", "r1", E(event), **said)
        assert await states(docs) == {"r1": (await states(docs))["r1"], "d1": "QUEUED", "d2": "QUEUED", "n1": "WAITING"}
    row = await row_of(docs, "d1", "docs")
    assert row["next_action_at"] == NOON
    claimed = await claim(docs)
    assert {one.parent_receipt for one in claimed.values()} == set(said.values()) & {"u-1", "S-1"}
    await settle(
        docs,
        "docs",
        1,
        *(Move(E.CONFIRM, id=c.id, attempt_id=c.attempt_id, receipt=f"v-{c.key}") for c in claimed.values()),
    )
    assert (await states(docs))["n1"] == "QUEUED", "a grandchild goes with its own parent's receipt"
    (event_row,) = [e for e in await items.list_events(docs, "docs", row["id"]) if e["event"] == "release"]
    assert (event_row["actor"], event_row["reason"]) == ("ledger", "its parent has a receipt")
    await books_agree(docs)


async def test_a_child_handed_in_later_goes_at_once(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await send(docs, "docs", "r1", E.RECEIVE, receipt="u-1", next_action_at=NOON + timedelta(days=1))
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    (one,) = (await claim(docs)).values()
    assert (one.key, one.parent_key, one.parent_state, one.parent_receipt) == ("d1", "r1", "ACCEPTED", "u-1")


async def test_a_receipt_is_one_whatever_becomes_of_the_parent_later(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await send(docs, "docs", "r1", receipt="u-1")
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    await send(docs, "docs", "r1", E.FAIL, fault="http_400")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    assert (await states(docs))["d1"] == "QUEUED"
    await books_agree(docs)


async def test_no_child_goes_while_its_parent_only_might_have_arrived(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    for event, said in (
        (E.FAIL_TEMPORARILY, {"next_action_at": NOON}),
        (E.DOUBT, {"next_action_at": NOON}),
        (E.GIVE_BACK, {}),
    ):
        await send(docs, "docs", "r1", event, **said)
        assert (await states(docs))["d1"] == "WAITING"
    assert await history(docs, "d1") == ["hold"]


async def test_a_reference_is_a_receipt_only_of_what_was_handed_over(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await act(docs, "docs", E.HOLD, "r1", reference="S-1", next_action_at=NOON)
    await hand_in(docs, "docs", "d2", kind="doc", parent_key="r1")
    assert await states(docs) == {"r1": "WAITING", "d1": "WAITING", "d2": "WAITING"}
    await act(docs, "docs", E.TRANSFER, "r1")
    assert await states(docs) == {"r1": "TRANSFERRED", "d1": "QUEUED", "d2": "QUEUED"}
    await books_agree(docs)


# --- held children -------------------------------------------------------------------------------------------


async def test_a_held_child_waits_for_its_time_and_for_its_parent(docs: Any) -> None:
    at = NOON + timedelta(hours=1)
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "early", kind="doc", parent_key="r1", due_at=at)
    await send(docs, "docs", "r1", E.RECEIVE, receipt="u-1", next_action_at=NOON + timedelta(days=1))
    await hand_in(docs, "docs", "late", kind="doc", parent_key="r1", due_at=at)
    for key in ("early", "late"):
        row = await row_of(docs, key, "docs")
        assert (row["state"], row["next_action_at"]) == ("WAITING", at)
    await act(docs, "docs", E.CONFIRM, "r1")
    assert await history(docs, "late") == ["hold"], "what changes nothing is not told"
    assert await claim(docs) == {}
    await set_database_clock(docs, at)
    assert await items.wake(docs, "docs") == (2, 0)
    assert set(await claim(docs)) == {"early", "late"}
    await books_agree(docs)


async def test_a_child_that_a_person_holds_is_not_let_go_by_its_parent(docs: Any) -> None:
    at = NOON + timedelta(hours=1)
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await act(docs, "docs", E.HOLD, "d1", next_action_at=at, actor="eve")
    await send(docs, "docs", "r1", receipt="u-1")
    assert (await row_of(docs, "d1", "docs"))["next_action_at"] == at
    await act(docs, "docs", E.RELEASE, "d1", actor="eve")
    assert (await states(docs))["d1"] == "QUEUED", "and is let go by a person"
    await books_agree(docs)


async def test_after_a_persons_hold_a_child_goes_on_waiting_for_its_parent(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await act(docs, "docs", E.HOLD, "d1", next_action_at=NOON + timedelta(hours=1), actor="eve")
    await set_database_clock(docs, NOON + timedelta(hours=1))
    assert await items.wake(docs, "docs") == (0, 0)
    row = await row_of(docs, "d1", "docs")
    assert (row["state"], row["next_action_at"]) == ("WAITING", NOON + WAIT)
    await send(docs, "docs", "r1", receipt="u-1")
    assert (await states(docs))["d1"] == "QUEUED"
    await books_agree(docs)


async def test_a_parent_that_does_not_come_in_time_is_a_persons_trouble_until_it_comes(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await hand_in(docs, "docs", "orphan", kind="doc", group="g")
    await set_database_clock(docs, NOON + WAIT)
    assert await items.wake(docs, "docs") == (0, 2)
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("parent_late", 2)
    assert (await row_of(docs, "d1", "docs"))["problem"] == "Its parent r1 has no receipt yet."
    assert (await row_of(docs, "orphan", "docs"))["problem"] == "No parent was handed in for it."
    await send(docs, "docs", "r1", receipt="u-1")
    await hand_in(docs, "docs", "r2", kind="report", group="g", receipt="u-2")
    assert await states(docs) == {"r1": "SUCCESS", "d1": "QUEUED", "orphan": "QUEUED", "r2": "SUCCESS"}
    assert await cases.list_(docs) == []
    await books_agree(docs)


@pytest.mark.parametrize("act_", [E.RETRY, E.RELEASE, E.REGENERATE])
async def test_a_child_that_is_tried_again_without_a_receipt_waits_again(docs: Any, act_: E) -> None:
    """Nothing could be sent: the request needs the receipt."""
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    later = NOON + WAIT
    await set_database_clock(docs, later)
    await items.wake(docs, "docs")
    await act(docs, "docs", act_, "d1", actor="eve")
    row = await row_of(docs, "d1", "docs")
    assert (row["state"], row["next_action_at"]) == ("WAITING", later + WAIT)
    assert (await history(docs, "d1"))[-2:] == [act_.value, "hold"]
    await send(docs, "docs", "r1", receipt="u-1")
    assert (await states(docs))["d1"] == "QUEUED"
    await books_agree(docs)


# --- groups --------------------------------------------------------------------------------------------------


async def test_a_child_that_names_no_parent_gets_the_newest_or_the_first_of_its_group(docs: Any) -> None:
    for key in ("r1", "r2", "r3"):
        await hand_in(docs, "docs", key, kind="report", group="g")
    await act(docs, "docs", E.TRANSFER, "r2", reference="S-2")
    for key, of in (("d1", "doc"), ("b1", "bill"), ("c1", "checklist")):
        await hand_in(docs, "docs", key, kind=of, group="g")
    await hand_in(docs, "docs", "d2", None, "r1", kind="doc", group="g")
    assert [await parent_of(docs, key) for key in ("d1", "b1", "c1", "d2")] == ["r3", "r2", "r2", "r1"]
    assert await states(docs) == {
        "r1": "QUEUED",
        "r2": "TRANSFERRED",
        "r3": "QUEUED",
        "d1": "WAITING",
        "b1": "QUEUED",
        "c1": "QUEUED",
        "d2": "WAITING",
    }
    await hand_in(docs, "docs", "r4", kind="report", group="h")
    await hand_in(docs, "docs", "r5", kind="report", group="h")
    await hand_in(docs, "docs", "b2", kind="bill", group="h")
    assert await parent_of(docs, "b2") == "r4", "where none has arrived the first there is"
    await books_agree(docs)


async def test_another_group_another_kind_and_another_flow_are_no_family(docs: Any) -> None:
    await declare(docs, "other", kind("report"), kind("doc", "report"))
    await hand_in(docs, "other", "r1", kind="report", group="g", receipt="u-1")
    await hand_in(docs, "docs", "r1", kind="report", group="h", receipt="u-1")
    await hand_in(docs, "docs", "d0", kind="doc", parent_key="r1", group="g")
    await hand_in(docs, "docs", "d1", kind="doc", group="g")
    assert (await states(docs))["d1"] == "WAITING"
    assert await parent_of(docs, "d1") is None


async def test_none_in_the_group_waits_unless_there_is_a_stand_in(docs: Any) -> None:
    await take_in(
        docs,
        "docs",
        HandIn("d1", kind="doc", group="g"),
        HandIn("c1", kind="checklist", group="g"),
        HandIn("d2", kind="doc"),
    )
    assert await states(docs) == {"d1": "WAITING", "c1": "QUEUED", "d2": "WAITING"}
    (one,) = (await claim(docs)).values()
    assert (one.key, one.parent_id, one.parent_receipt) == ("c1", None, None)


async def test_a_parent_handed_in_later_adopts_the_orphans_of_its_group_and_only_those(docs: Any) -> None:
    await hand_in(docs, "docs", "r0", kind="report", group="g0")
    for given in (HandIn("d1", kind="doc", group="g"), HandIn("named", kind="doc", group="g", parent_key="r0"), HandIn("loose", kind="doc"),
                  HandIn("elsewhere", kind="doc", group="h"), HandIn("c1", kind="checklist", group="g")):  # fmt: skip
        await take_in(docs, "docs", given)
    await take_in(docs, "docs", HandIn("r1", kind="report", group="g"), HandIn("r2", kind="report", group="g"))
    assert [await parent_of(docs, key) for key in ("d1", "named", "elsewhere", "loose", "c1")] == [
        "r2",
        "r0",
        None,
        None,
        None,
    ]
    await act(docs, "docs", E.TRANSFER, "r2", reference="S-1")
    assert (await states(docs))["d1"] == "QUEUED"
    await books_agree(docs)


async def test_a_parent_with_its_receipt_lets_its_orphans_go_at_once(docs: Any) -> None:
    await take_in(
        docs,
        "docs",
        HandIn("d1", kind="doc", group="g"),
        HandIn("d2", kind="doc", group="g", due_at=NOON + timedelta(days=9)),
    )
    await hand_in(docs, "docs", "r1", kind="report", group="g", receipt="u-1")
    assert await states(docs) == {"d1": "QUEUED", "d2": "WAITING", "r1": "SUCCESS"}
    assert (await row_of(docs, "d2", "docs"))["next_action_at"] == NOON + timedelta(days=9)
    await books_agree(docs)


async def test_an_orphan_handed_in_again_may_name_its_parent(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report", receipt="u-1")
    await hand_in(docs, "docs", "d1", {"n": 1}, kind="doc")
    taken = await take_in(docs, "docs", HandIn("d1", {"n": 2}, kind="doc", parent_key="r1"))
    assert taken["d1"].state == "QUEUED"
    await books_agree(docs)


# --- parents that stop ---------------------------------------------------------------------------------------


async def test_a_parent_that_stops_takes_its_children_into_its_very_case(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await take_in(docs, "docs", HandIn("d1", kind="doc", parent_key="r1"), HandIn("n1", kind="note", parent_key="d1"))
    await send(docs, "docs", "r1", E.FAIL, fault="http_400", problem="The year is wrong.")
    await take_in(docs, "docs", HandIn("d2", kind="doc", parent_key="r1"), HandIn("n2", kind="note", parent_key="d2"))
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["title"], case["open_items"]) == ("http_400", "The year is wrong.", 5)
    row = await row_of(docs, "d1", "docs")
    assert (row["fault"], row["problem"]) == ("parent_failed", "Its parent r1 stopped: The year is wrong.")
    await books_agree(docs)
    await act(docs, "docs", E.RETRY, "r1", actor="eve")
    assert (await cases.list_(docs))[0]["open_items"] == 4
    await send(docs, "docs", "r1", receipt="u-1")
    assert await states(docs) == {
        "r1": "SUCCESS",
        "d1": "QUEUED",
        "d2": "QUEUED",
        "n1": "PERMANENT_ERROR",
        "n2": "PERMANENT_ERROR",
    }
    await books_agree(docs)
    for one in (await claim(docs)).values():
        await settle(docs, "docs", 1, Move(E.CONFIRM, id=one.id, attempt_id=one.attempt_id, receipt="v"))
    assert {(await states(docs))[key] for key in ("n1", "n2")} == {"QUEUED"}
    assert await cases.list_(docs) == []
    await books_agree(docs)


async def test_children_follow_their_parent_from_case_to_case(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await send(docs, "docs", "r1", E.FAIL, fault="http_400")
    await act(docs, "docs", E.RETRY, "r1")
    await send(docs, "docs", "r1", E.FAIL, fault="http_500")
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("http_500", 2)
    await books_agree(docs)


async def test_a_failure_without_a_word_has_its_children_too(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await send(docs, "docs", "r1", E.FAIL)
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("fail", 2)


@pytest.mark.parametrize("end", [E.ARCHIVE, E.CANCEL, E.TRANSFER, E.SUPERSEDE])
@pytest.mark.parametrize("failed", [False, True])
async def test_children_of_what_a_person_closed_have_a_case_of_their_own(docs: Any, end: E, failed: bool) -> None:
    other = await hand_in(docs, "docs", "r0", kind="report")
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    if failed:
        await act(docs, "docs", E.FAIL, "r1", fault="http_400")
    await act(docs, "docs", end, "r1", actor="eve", superseded_by=other if end is E.SUPERSEDE else None)
    await hand_in(docs, "docs", "d2", kind="doc", parent_key="r1")
    (case,) = await cases.list_(docs)
    assert (case["fault"], case["open_items"]) == ("parent_failed", 2)
    row = await row_of(docs, "d2", "docs")
    assert row["problem"] == f"Its parent r1 stopped: {(await states(docs))['r1'].lower()}"
    await books_agree(docs)


async def test_a_stopped_parents_child_cannot_be_tried_before_it(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await act(docs, "docs", E.FAIL, "r1", fault="http_400")
    await act(docs, "docs", E.RETRY, "d1", actor="eve")
    assert await states(docs) == {"r1": "PERMANENT_ERROR", "d1": "PERMANENT_ERROR"}
    await act(docs, "docs", E.RETRY, "d1", "r1", actor="eve")
    assert await states(docs) == {"r1": "QUEUED", "d1": "WAITING"}, "all of a case together"
    await books_agree(docs)


async def test_a_parent_that_fails_with_newer_content_waiting_keeps_its_children(docs: Any) -> None:
    await hand_in(docs, "docs", "r1", {"n": 1}, kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    (one,) = (await claim(docs)).values()
    await take_in(docs, "docs", HandIn("r1", {"n": 2}, kind="report"))
    await settle(docs, "docs", 1, Move(E.FAIL, id=one.id, attempt_id=one.attempt_id, fault="http_400"))
    assert await states(docs) == {"r1": "QUEUED", "d1": "WAITING"}
    assert await history(docs, "d1") == ["hold"]


async def test_one_slice_in_which_parents_arrive_and_stop_tells_each_child_why(docs: Any) -> None:
    for key in ("r1", "r2"):
        await hand_in(docs, "docs", key, kind="report")
        await hand_in(docs, "docs", f"d of {key}", kind="doc", parent_key=key)
    got = await claim(docs)
    await settle(docs, "docs", 1, Move(E.CONFIRM, id=got["r1"].id, attempt_id=got["r1"].attempt_id, receipt="u-1"),
                 Move(E.FAIL, id=got["r2"].id, attempt_id=got["r2"].attempt_id, fault="http_400"))  # fmt: skip
    reasons = {}
    for key in ("d of r1", "d of r2"):
        reasons[key] = (await items.list_events(docs, "docs", (await row_of(docs, key, "docs"))["id"]))[-1]["reason"]
    assert reasons == {"d of r1": "its parent has a receipt", "d of r2": "its parent stopped"}
    await books_agree(docs)


# --- two sessions --------------------------------------------------------------------------------------------

SETTLES = [(E.CONFIRM, {"receipt": "u-1"}, "QUEUED"), (E.FAIL, {"fault": "http_400"}, "PERMANENT_ERROR")]


@pytest.mark.parametrize(("event", "said", "state"), SETTLES)
@pytest.mark.parametrize("by", ["name", "group"])
@pytest.mark.parametrize("settled_first", [True, False])
async def test_a_child_handed_in_while_its_parent_is_settled_is_not_forgotten(
    docs: Any, database: str, event: E, said: Any, state: str, by: str, settled_first: bool
) -> None:
    await hand_in(docs, "docs", "r1", kind="report", group="g")
    (one,) = (await claim(docs)).values()
    child = HandIn("d1", kind="doc", parent_key="r1") if by == "name" else HandIn("d1", kind="doc", group="g")
    async with sessions(database) as (program, worker):
        settling = settle(worker, "docs", 1, Move(event, id=one.id, attempt_id=one.attempt_id, **said))
        taking = take_in(program, "docs", child)
        if settled_first:
            await in_turn(docs, worker, settling, program, taking)
        else:
            await in_turn(docs, program, taking, worker, settling)
    assert (await states(docs))["d1"] == state
    await books_agree(docs)


@pytest.mark.parametrize("parent_first", [True, False])
@pytest.mark.parametrize("receipt", [None, "u-1"])
@pytest.mark.parametrize("group_seen", [True, False])
async def test_an_orphan_and_its_parent_handed_in_at_once_find_each_other(
    docs: Any, database: str, parent_first: bool, receipt: str | None, group_seen: bool
) -> None:
    if group_seen:  # its lock row is there already
        await hand_in(docs, "docs", "d0", kind="doc", group="g")
    async with sessions(database) as (one, other):
        parent, orphan = HandIn("r1", kind="report", group="g", receipt=receipt), HandIn("d1", kind="doc", group="g")
        if parent_first:
            await in_turn(docs, one, take_in(one, "docs", parent), other, take_in(other, "docs", orphan))
        else:
            await in_turn(docs, one, take_in(one, "docs", orphan), other, take_in(other, "docs", parent))
    assert await parent_of(docs, "d1") == "r1"
    assert (await states(docs))["d1"] == ("QUEUED" if receipt else "WAITING")
    await books_agree(docs)


@pytest.mark.parametrize("settled_first", [True, False])
async def test_a_child_tried_again_while_its_parent_arrives_is_not_forgotten(
    docs: Any, database: str, settled_first: bool
) -> None:
    await hand_in(docs, "docs", "r1", kind="report")
    await hand_in(docs, "docs", "d1", kind="doc", parent_key="r1")
    await set_database_clock(docs, NOON + WAIT)
    await items.wake(docs, "docs")
    (one,) = (await claim(docs)).values()
    async with sessions(database) as (person, worker):
        for session in (person, worker):
            await set_database_clock(session, NOON + WAIT)
        settling = settle(worker, "docs", 1, Move(E.CONFIRM, id=one.id, attempt_id=one.attempt_id, receipt="u-1"))
        retrying = act(person, "docs", E.RETRY, "d1", actor="eve")
        if settled_first:
            await in_turn(docs, worker, settling, person, retrying)
        else:
            await in_turn(docs, person, retrying, worker, settling)
    assert (await states(docs))["d1"] == "QUEUED"
    await books_agree(docs)


async def test_unrelated_groups_do_not_wait_for_each_other(docs: Any, database: str) -> None:
    async with sessions(database) as (one, other):
        async with one.transaction():
            await take_in(one, "docs", HandIn("r1", kind="report", group="g"))
            async with other.transaction():
                await other.execute("set local lock_timeout = '1ms'")
                taken = await take_in(
                    other, "docs", HandIn("d1", kind="doc", group="h"), HandIn("r2", kind="report", group="i")
                )
    assert {one.state for one in taken.values()} == {S.WAITING, S.QUEUED}
    await books_agree(docs)
