"""The door through which items move: legality, fences, births, claims, other programs' doors."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from counterfoil.ledger import cases, health, items, pool, workers
from counterfoil.ledger.items import Move
from counterfoil.ledger.pool import Ledger
from counterfoil.model.item import MOVES, ItemEvent, ItemState
from tests.support import act, hand_in, register, row_of, set_database_clock, start_worker

E, S = ItemEvent, ItemState
LEASE = timedelta(minutes=5)


@pytest.fixture
async def pets(app: Any) -> Any:
    """The application's connection, with a flow to work on."""
    await register(app, "pets")
    return app


@pytest.fixture
async def worker(pets: Any) -> int:
    """A worker that is present on the application's connection."""
    worker = await start_worker(pets)
    assert await workers.hold_presence(pets, worker)
    return worker


async def sums_hold(connection: Any, flow: str = "pets") -> None:
    assert not await health.differing_counters(connection, flow)
    assert not await health.broken_histories(connection, flow)
    assert not await health.differing_cases(connection, flow)


async def test_the_table_of_moves_is_the_one_in_python(app: Any) -> None:
    rows = await app.fetch("select from_state, event, to_state from counterfoil.item_move")
    assert {(S(a), E(e)): S(b) for a, e, b in rows} == dict(MOVES)


async def test_a_move_is_recorded_with_actor_and_reason(pets: Any) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    row = await row_of(pets, "rex")
    (moved,) = await items.move(pets, "pets", [Move(E.CANCEL, id=row["id"])], actor="eve", reason="asked for twice")
    assert (moved.from_state, moved.to_state, moved.moved) == (S.QUEUED, S.CANCELLED, True)
    accepted, cancelled = await items.list_events(pets, "pets", row["id"])
    assert (accepted["from_state"], accepted["to_state"], accepted["actor"]) == ("NEW", "QUEUED", "test")
    assert (cancelled["actor"], cancelled["reason"]) == ("eve", "asked for twice")


async def test_an_illegal_move_is_told_and_leaves_no_trace(pets: Any) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    before = await row_of(pets, "rex")
    (told,) = await act(pets, "pets", E.CONFIRM, "rex")
    assert (told.moved, told.why, told.to_state) == (False, "illegal", S.QUEUED)
    assert await row_of(pets, "rex") == before
    assert len(await items.list_events(pets, "pets", told.id)) == 1


async def test_an_unknown_key_whose_event_begins_no_life_is_no_item(pets: Any) -> None:
    assert await act(pets, "pets", E.LOAD, "nobody") == []
    assert not await items.any_(pets, "pets")


async def test_one_call_moves_many_and_says_what_became_of_each(pets: Any) -> None:
    await act(pets, "pets", E.ACCEPT, "rex", "tom")
    moved = await items.move(
        pets,
        "pets",
        [
            Move(E.FAIL, key="new", fault="http_404"),
            Move(E.FAIL, key="rex", fault="http_404"),
            Move(E.CONFIRM, key="tom"),
            Move(E.LOAD, key="nobody"),
        ],
        actor="test",
    )
    assert {m.key: (m.from_state, m.to_state, m.why) for m in moved} == {
        "new": (S.NEW, S.PERMANENT_ERROR, "moved"),
        "rex": (S.QUEUED, S.PERMANENT_ERROR, "moved"),
        "tom": (S.QUEUED, S.QUEUED, "illegal"),
    }
    await sums_hold(pets)


async def test_the_first_request_for_a_key_counts_and_only_that(pets: Any) -> None:
    twice = [Move(E.REVIEW, key="new", fault="a"), Move(E.FAIL, key="new", fault="b")]
    assert [m.to_state for m in await items.move(pets, "pets", twice, actor="test")] == [S.REVIEW]
    again = [Move(E.LOAD, key="new"), Move(E.ARCHIVE, key="new")]
    assert [m.to_state for m in await items.move(pets, "pets", again, actor="test")] == [S.SUCCESS]
    await sums_hold(pets)


async def test_the_same_fault_again_is_no_move(pets: Any) -> None:
    await act(pets, "pets", E.REVIEW, "rex", fault="band", payload_sha256="a")
    assert [m.why for m in await act(pets, "pets", E.REVIEW, "rex", fault="band", payload_sha256="a")] == ["same"]
    assert [m.why for m in await act(pets, "pets", E.REVIEW, "rex", fault="band", payload_sha256="b")] == ["moved"]
    assert [m.why for m in await act(pets, "pets", E.REVIEW, "rex", fault="age", payload_sha256="b")] == ["moved"]
    await sums_hold(pets)


@pytest.mark.parametrize("end", [E.TRANSFER, E.ARCHIVE, E.CANCEL])
async def test_what_a_person_closed_is_moved_by_no_run(pets: Any, end: ItemEvent) -> None:
    await act(pets, "pets", E.FAIL, "rex", fault="http_404")
    await act(pets, "pets", end, "rex", actor="eve")
    before = await row_of(pets, "rex")
    for event in ItemEvent:
        (told,) = await act(pets, "pets", event, "rex", actor="run 1", fault="http_500")
        assert told.why == "illegal"
    assert await row_of(pets, "rex") == before


async def test_a_flow_that_is_not_registered_takes_nothing_in(app: Any) -> None:
    with pytest.raises(asyncpg.PostgresError, match=r'flow "cats" is not registered') as caught:
        await act(app, "cats", E.ACCEPT, "tom")
    assert caught.value.sqlstate == "CF002"
    assert "migrate" in caught.value.hint


async def test_nobody_moves_anything_without_a_name(pets: Any) -> None:
    with pytest.raises(asyncpg.PostgresError, match="actor"):
        await act(pets, "pets", E.ACCEPT, "rex", actor="")


# --- the schema refuses what the function would never write ---------------------------------------------------

BROKEN = {
    "item_accounted_for": "update counterfoil.item set next_action_at = null",
    "item_in_one_place": 'update counterfoil.item set case_id = (select min(id) from counterfoil."case")',
    "item_settled": "update counterfoil.item set state = 'SUCCESS'",
    "item_due": "update counterfoil.item set next_action_at = null, settled_at = now()",
    "item_owned": "update counterfoil.item set state = 'PERMANENT_ERROR'",
    "item_claimed": "update counterfoil.item set state = 'IN_PROGRESS'",
    "item_state_check": "update counterfoil.item set state = 'DONE'",
    "item_superseded": "update counterfoil.item set state = 'SUPERSEDED', next_action_at = null, settled_at = now()",
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_row_that_nothing_accounts_for_is_refused(owner: Any, broken: str) -> None:
    await register(owner, "pets")
    await act(owner, "pets", E.FAIL, "tom", fault="http_404")
    await act(owner, "pets", E.ACCEPT, "rex")
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute(f"{BROKEN[broken]} where key = 'rex'")
    row = await owner.fetchrow("select conname from pg_constraint where conname = $1", broken)
    assert row, "the constraint exists under this name"


async def test_an_event_that_is_not_in_the_table_of_moves_is_refused(owner: Any) -> None:
    await register(owner, "pets")
    await act(owner, "pets", E.ACCEPT, "rex")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await owner.execute("update counterfoil.item_event set event = 'confirm'")


# --- claims and fences ---------------------------------------------------------------------------------------


async def test_a_claim_gives_each_item_an_attempt_of_its_own(pets: Any, worker: int) -> None:
    await act(pets, "pets", E.FAIL_TEMPORARILY, "rex", "tom", fault="http_503", payload="{}")
    claimed = await items.claim(pets, "pets", limit=10, lease=LEASE, worker=worker)
    assert {c.key for c in claimed} == {"rex", "tom"}
    assert len({c.attempt_id for c in claimed}) == 2
    assert {(c.attempts, c.fault, c.payload) for c in claimed} == {(1, "http_503", "{}")}
    assert await items.claim(pets, "pets", limit=10, lease=LEASE, worker=worker) == []
    (attempt,) = await items.list_attempts(pets, "pets", claimed[0].id)
    assert (attempt["id"], attempt["worker_id"], attempt["number"]) == (claimed[0].attempt_id, worker, 1)


async def test_what_is_not_due_yet_is_not_claimed(pets: Any, worker: int) -> None:
    now = await pets.fetchval("select now()")
    await act(pets, "pets", E.FAIL_TEMPORARILY, "rex", next_action_at=now + timedelta(minutes=1))
    assert await items.due_flows(pets) == []
    assert await items.claim(pets, "pets", limit=10, lease=LEASE, worker=worker) == []
    await set_database_clock(pets, now + timedelta(minutes=2))
    assert await items.due_flows(pets) == [("pets", "live")]
    assert len(await items.claim(pets, "pets", limit=10, lease=LEASE, worker=worker)) == 1


SETTLING = [E.LOAD, E.FAIL, E.FAIL_TEMPORARILY, E.REJECT, E.REVIEW, E.HOLD, E.RECEIVE, E.CONFIRM, E.DOUBT, E.RESCUE]


@pytest.mark.parametrize("event", SETTLING)
async def test_another_attempt_settles_nothing(pets: Any, worker: int, event: ItemEvent) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    (claimed,) = await items.claim(pets, "pets", limit=1, lease=LEASE, worker=worker)
    before = await row_of(pets, "rex")
    for stranger in (uuid4(), None):
        (told,) = await act(pets, "pets", event, "rex", attempt_id=stranger)
        assert (told.why, told.moved) == ("lease_lost", False)
    assert await row_of(pets, "rex") == before
    assert len(await items.list_events(pets, "pets", claimed.id)) == 2


@pytest.mark.parametrize("event", SETTLING)
async def test_an_attempt_that_lost_its_lease_settles_nothing_although_nobody_else_has_it(
    pets: Any, worker: int, event: ItemEvent
) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    (claimed,) = await items.claim(pets, "pets", limit=1, lease=timedelta(0), worker=worker)
    assert await items.rescue(pets, "pets", crashes=3) == (1, 0)
    before = await row_of(pets, "rex")
    (told,) = await act(pets, "pets", event, "rex", attempt_id=claimed.attempt_id)
    assert told.why == "lease_lost"
    assert await row_of(pets, "rex") == before


async def test_a_lease_is_renewed_only_for_the_attempt_that_has_it(pets: Any, worker: int) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    (claimed,) = await items.claim(pets, "pets", limit=1, lease=LEASE, worker=worker)
    stranger = uuid4()
    assert await items.renew(pets, "pets", [claimed.attempt_id, stranger], LEASE * 2) == {claimed.attempt_id}
    row = await row_of(pets, "rex")
    assert row["next_action_at"] - row["state_since"] > LEASE


async def test_eight_claimers_at_once_claim_each_item_once(pets: Any, database: str) -> None:
    await act(pets, "pets", E.ACCEPT, *(f"pet {n}" for n in range(400)))
    ledger = await Ledger.open(database, size=8)

    async def claim_all() -> list[str]:
        keys: list[str] = []
        while True:
            async with ledger.transaction() as session:
                claimed = await items.claim(session, "pets", limit=7, lease=LEASE, worker=1)
            if not claimed:
                return keys
            keys += [c.key for c in claimed]

    found = [key for keys in await asyncio.gather(*(claim_all() for _ in range(8))) for key in keys]
    await ledger.close()
    assert sorted(found) == sorted(f"pet {n}" for n in range(400))
    await sums_hold(pets)


# --- crashes -------------------------------------------------------------------------------------------------


async def test_an_item_whose_worker_is_gone_is_due_again_at_once(pets: Any, database: str) -> None:
    await act(pets, "pets", E.ACCEPT, "rex")
    other = await pool.connect(database, role=pool.APP_ROLE)
    worker = await start_worker(other)
    assert await workers.hold_presence(other, worker)
    await items.claim(other, "pets", limit=1, lease=LEASE, worker=worker)
    assert await items.rescue(pets, "pets", crashes=3) == (0, 0), "its worker is alive and its lease runs"
    assert await items.held_flows(pets) == []
    await other.close()
    assert await items.held_flows(pets) == ["pets"]
    assert await items.rescue(pets, "pets", crashes=3) == (1, 0)
    row = await row_of(pets, "rex")
    assert (row["state"], row["crashes"], row["attempt_id"]) == ("QUEUED", 1, None)


async def test_an_attempt_of_no_worker_keeps_its_lease(pets: Any) -> None:
    """Another program claims through `move`: it has no presence, and its lease alone counts."""
    await act(pets, "pets", E.ACCEPT, "rex")
    until = await pets.fetchval("select now() + interval '5 minutes'")
    await act(pets, "pets", E.CLAIM, "rex", attempt_id=uuid4(), next_action_at=until)
    assert await items.rescue(pets, "pets", crashes=3) == (0, 0)
    await set_database_clock(pets, until)
    assert await items.rescue(pets, "pets", crashes=3) == (1, 0)


async def test_an_item_that_kills_its_workers_ends_in_a_case(pets: Any, worker: int) -> None:
    await act(pets, "pets", E.ACCEPT, "poison", "rex")
    await items.claim(pets, "pets", limit=10, lease=timedelta(0), worker=worker)
    assert await items.rescue(pets, "pets", crashes=3) == (2, 0)
    for crash in (1, 2):
        for key in ("poison", "rex"):
            (claimed,) = await items.claim(pets, "pets", limit=10, lease=timedelta(0), worker=worker)
            assert claimed.key == key, f"after {crash} crashes each is claimed alone"
            if key == "rex":
                await act(
                    pets, "pets", E.FAIL_TEMPORARILY if crash == 1 else E.LOAD, key, attempt_id=claimed.attempt_id
                )
            else:
                assert await items.rescue(pets, "pets", crashes=3) == ((1, 0) if crash == 1 else (0, 1))
        if crash == 1:
            row = await row_of(pets, "rex")
            assert row["crashes"] == 0, "an end in order forgets the crashes"
    row = await row_of(pets, "poison")
    assert (row["state"], row["fault"]) == ("PERMANENT_ERROR", "crashed")
    (case,) = await cases.list_(pets)
    assert (case["fault"], case["open_items"]) == ("crashed", 1)
    await sums_hold(pets)


async def test_a_suspect_does_not_wait_for_ever_behind_fresh_items(pets: Any, worker: int) -> None:
    await act(pets, "pets", E.ACCEPT, "suspect")
    await items.claim(pets, "pets", limit=1, lease=timedelta(0), worker=worker)
    await items.rescue(pets, "pets", crashes=3)
    await act(pets, "pets", E.ACCEPT, "fresh")
    (claimed,) = await items.claim(pets, "pets", limit=10, lease=LEASE, worker=worker)
    assert claimed.key == "suspect", "it was due first, and it is alone"


# --- doors for other programs --------------------------------------------------------------------------------


async def test_accept_in_a_transaction_that_rolls_back_leaves_nothing(pets: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pets.transaction():
            await hand_in(pets, "pets", "rex", {"a": 1})
            raise ZeroDivisionError
    assert not await items.any_(pets, "pets")
    assert await pets.fetchval("select count(*) from counterfoil.item_event") == 0
    assert await items.count_states(pets) == []


async def test_the_same_key_twice_is_one_item(pets: Any) -> None:
    first = await hand_in(pets, "pets", "rex", {"a": 1})
    assert await hand_in(pets, "pets", "rex", {"a": 2}) == first
    assert (await row_of(pets, "rex"))["payload"] == '{"a":1}'
    assert await pets.fetchval("select count(*) from counterfoil.item_event") == 1


async def test_the_same_key_from_many_sessions_at_once_is_one_item(pets: Any, database: str) -> None:
    ledger = await Ledger.open(database, size=8)

    async def accept(n: int) -> int:
        async with ledger.transaction() as session:
            return await hand_in(session, "pets", f"pet {n % 3}")

    ids = await asyncio.gather(*(accept(n) for n in range(24)))
    await ledger.close()
    assert len(set(ids)) == 3
    await sums_hold(pets)
    assert (await health.recount(pets, "pets"))["accepted"] == 3


async def test_a_child_knows_its_parent_and_needs_one_that_exists(pets: Any) -> None:
    parent = await hand_in(pets, "pets", "litter")
    await hand_in(pets, "pets", "pup", None, "litter")
    assert (await row_of(pets, "pup"))["parent_id"] == parent
    with pytest.raises(asyncpg.PostgresError, match="Accept the parent first|is not an item"):
        await hand_in(pets, "pets", "stray", None, "nobody")


async def test_move_by_another_program_raises_where_it_does_nothing(pets: Any) -> None:
    move = "select counterfoil.move('pets', $1, $2, $3)"
    await hand_in(pets, "pets", "rex")
    for arguments, sqlstate in (
        (("rex", "confirm", "why not"), "CF004"),
        (("nobody", "cancel", "why not"), "CF003"),
        (("rex", "cancel", ""), "CF001"),
    ):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await pets.fetchval(move, *arguments)
        assert caught.value.sqlstate == sqlstate
    assert await pets.fetchval(move, "rex", "cancel", "no longer wanted") == "CANCELLED"


async def test_move_by_another_program_respects_the_attempt_that_has_the_item(pets: Any, worker: int) -> None:
    await hand_in(pets, "pets", "rex")
    await items.claim(pets, "pets", limit=1, lease=LEASE, worker=worker)
    with pytest.raises(asyncpg.PostgresError, match="held by another attempt"):
        await pets.fetchval("select counterfoil.move('pets', 'rex', 'cancel', 'too late')")


# --- cases ---------------------------------------------------------------------------------------------------


async def test_a_case_closes_with_its_last_item_and_the_fault_opens_a_new_one(pets: Any) -> None:
    await act(pets, "pets", E.FAIL, "rex", "tom", fault="http_404", problem="Unknown there.")
    (case,) = await cases.list_(pets)
    assert (case["title"], case["open_items"], case["owner"]) == ("Unknown there.", 2, "operators")
    await act(pets, "pets", E.RETRY, "rex")
    assert (await cases.list_(pets))[0]["open_items"] == 1
    await act(pets, "pets", E.ARCHIVE, "tom")
    assert await cases.list_(pets) == []
    (closed,) = await cases.list_(pets, open_only=False)
    assert (closed["id"], closed["closed_by"]) == (case["id"], "ledger")
    await act(pets, "pets", E.FAIL, "rex", fault="http_404")
    (anew,) = await cases.list_(pets)
    assert anew["id"] != case["id"]
    assert (await row_of(pets, "rex"))["case_id"] == anew["id"]


async def test_the_last_item_leaves_while_another_comes_and_the_case_stays(pets: Any) -> None:
    await act(pets, "pets", E.FAIL, "rex", fault="http_404")
    both = [Move(E.ARCHIVE, key="rex"), Move(E.FAIL, key="tom", fault="http_404")]
    await items.move(pets, "pets", both, actor="test")
    (case,) = await cases.list_(pets)
    assert case["open_items"] == 1
    await sums_hold(pets)


async def test_a_case_that_owns_items_cannot_be_closed(owner: Any) -> None:
    await register(owner, "pets")
    await act(owner, "pets", E.FAIL, "rex", fault="http_404")
    with pytest.raises(asyncpg.CheckViolationError, match="case_closed_owns_nothing"):
        await owner.execute("update counterfoil.\"case\" set closed_at = now(), reason = 'away with it'")


# --- many at once --------------------------------------------------------------------------------------------


async def test_overlapping_batches_in_opposite_order_never_deadlock(pets: Any, database: str) -> None:
    """Items to and fro between two faults, so that items, two cases and the counters are all fought over."""
    keys = [f"pet {n}" for n in range(60)]
    await act(pets, "pets", E.FAIL, *keys, fault="a")
    ledger = await Ledger.open(database, size=8)

    async def churn(n: int) -> None:
        mine = keys[n * 5 :] + keys[: n * 5]
        for step in range(8):
            moves = [
                Move(E.FAIL, key=key, fault="ab"[(n + step) % 2], problem=f"{n} {step}")
                for key in (mine if n % 2 else mine[::-1])
            ]
            moves += [Move(E.FAIL if n % 2 else E.ACCEPT, key=f"new {step}", fault="ba"[n % 2])]
            async with ledger.transaction() as session:
                await items.move(session, "pets", moves if n % 3 else moves[::-1], actor=f"worker {n}")

    await asyncio.gather(*(churn(n) for n in range(8)))
    await ledger.close()
    await sums_hold(pets)


async def test_a_key_born_elsewhere_at_the_same_moment_is_moved_not_lost(pets: Any, database: str) -> None:
    """B asks for a birth while A's birth of the same key is not committed: B waits, and then moves what A made."""
    one, other = [await pool.connect(database, role=pool.APP_ROLE) for _ in range(2)]
    transaction = one.transaction()
    await transaction.start()
    await act(one, "pets", E.ACCEPT, "rex")
    waiting = asyncio.create_task(act(other, "pets", E.FAIL, "rex", "tom", fault="http_404"))
    while not await pets.fetchval("select count(*) from pg_locks where not granted"):
        await asyncio.sleep(0)
    await transaction.commit()
    assert {(m.key, m.from_state, m.to_state) for m in await waiting} == {
        ("rex", S.QUEUED, S.PERMANENT_ERROR),
        ("tom", S.NEW, S.PERMANENT_ERROR),
    }
    await one.close()
    await other.close()
    await sums_hold(pets)
