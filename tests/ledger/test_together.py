"""Many sessions over the same families at once. A transaction works, or ends with a deadlock and works when it is done again; none hangs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from counterfoil.ledger import deliveries, items, polls
from counterfoil.ledger.deliveries import Claimed, Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import Result
from counterfoil.model.delivery import HandIn, Lane
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    LEASE,
    NOON,
    again,
    books_agree,
    claim,
    declare,
    exchange,
    kind,
    sessions,
    set_database_clock,
    settle,
    start_worker,
    states,
    take_in,
)

FLOW = "docs"
GROUPS = 6
HANGS = 120  # seconds; a deadlock is found after one


@pytest.fixture
async def docs(app: Any) -> Any:
    await declare(
        app, FLOW,
        kind("report", updates=True, resend="look_up", poll_first=timedelta(0)),
        kind("doc", "report", updates=True, parent_wait=timedelta(minutes=1)), kind("note", "doc", parent_wait=timedelta(minutes=1)),
    )  # fmt: skip
    await set_database_clock(app, NOON)
    return app


async def together(database: str, *works: Callable[[Any], Awaitable[None]]) -> None:
    """Each in a session of its own, all at once."""
    async with sessions(database, len(works)) as some:
        for session in some:
            await set_database_clock(session, NOON)
        await asyncio.wait_for(
            asyncio.gather(*(work(session) for work, session in zip(works, some, strict=True))), HANGS
        )


def shuffled(some: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(some, len(some))


async def test_slices_with_parents_and_children_in_opposite_orders_all_end(docs: Any, database: str) -> None:
    """Orphans have smaller ids than the parents that adopt them: whoever settles those locks against the order of ids."""
    await take_in(docs, FLOW, *(HandIn(f"doc {n}", {"n": 0}, kind="doc", group=f"g{n % GROUPS}") for n in range(60)))
    await take_in(docs, FLOW, *(HandIn(f"report {n}", {"n": 0}, kind="report", group=f"g{n}") for n in range(GROUPS)))
    keys = [*(f"doc {n}" for n in range(60)), *(f"report {n}" for n in range(GROUPS))]

    async def churn(n: int, session: Any) -> None:
        for step in range(12):
            event = [E.FAIL, E.RETRY, E.HOLD, E.RELEASE][(n + step) % 4]
            moves = [
                Move(event, key=key, fault="ab"[n % 2], next_action_at=NOON) for key in shuffled(keys, n * 100 + step)
            ]
            await again(partial(items.move, session, FLOW, moves, actor=f"person {n}"))

    async def arrive(session: Any) -> None:
        for n in range(GROUPS):
            moves = [
                Move(E.TRANSFER, key=f"report {n}", reference="S-1"),
                Move(E.FAIL, key=f"doc {(n * 7) % 60}", fault="c"),
            ]
            await again(partial(items.move, session, FLOW, moves, actor="eve"))

    await together(database, *(partial(churn, n) for n in range(4)), arrive)
    assert {key: state for key, state in (await states(docs)).items() if key.startswith("report")} == {
        f"report {n}": "TRANSFERRED" for n in range(GROUPS)
    }
    await books_agree(docs)


async def work_off(session: Any, worker: int, tries: int, seed: int) -> None:
    """A worker: claims, marks, settles whatever is due, and sometimes does not come to settle."""
    chance = random.Random(seed)
    for _ in range(tries):
        got: dict[str, Claimed] = await again(
            partial(claim, session, FLOW, worker, limit=20, lease=chance.choice([LEASE, timedelta(0)]))
        )
        some = list(got.values())
        may = await again(partial(deliveries.mark_sending, session, FLOW, [(one.id, one.attempt_id) for one in some]))
        moves = [_settled(one, chance) for one in shuffled(some, seed) if one.attempt_id in may]
        proofs = [Proof(exchange(), one.id, one.attempt_id) for one in some]
        if chance.random() < 0.8:
            await again(partial(deliveries.settle, session, FLOW, moves, proofs, worker=worker))


def _settled(one: Claimed, chance: random.Random) -> Move:
    event = chance.choice([E.CONFIRM, E.CONFIRM, E.RECEIVE, E.FAIL, E.FAIL_TEMPORARILY, E.DOUBT, E.GIVE_BACK])
    receipt = f"u {one.key}" if event in (E.CONFIRM, E.RECEIVE) else None
    later = NOON + timedelta(minutes=5) if event is E.RECEIVE else NOON
    return Move(event, id=one.id, attempt_id=one.attempt_id, receipt=receipt, fault="http_503", next_action_at=later)


async def hand_in_families(session: Any, n: int, tries: int) -> None:
    """Parents, children by name and by group, in any order, again and again with newer content."""
    for step in range(tries):
        groups = shuffled(list(range(GROUPS)), n * 1000 + step)
        given = [HandIn(f"report {g}", {"n": step}, kind="report", group=f"g{g}") for g in groups[:3]]
        given += [HandIn(f"doc {n} {g} {step % 4}", {"n": step}, kind="doc", group=f"g{g}") for g in groups]
        await again(partial(items.accept, session, FLOW, given, actor=f"program {n}"))
        notes = [
            HandIn(f"note {n} {g}", {"n": step}, kind="note", parent_key=f"doc {n} {g} {step % 4}") for g in groups[::2]
        ]
        await again(partial(items.accept, session, FLOW, notes, actor=f"program {n}"))


async def upkeep(session: Any, tries: int) -> None:
    """What runs beside: rescue, wake with a clock that is ahead, requeue, polls."""
    for step in range(tries):
        await set_database_clock(session, NOON + timedelta(minutes=2) * (step % 2))
        await again(partial(items.rescue, session, FLOW, crashes=50))
        await again(partial(items.wake, session, FLOW))
        await again(
            partial(
                items.requeue,
                session,
                FLOW,
                ["http_*", "parent_late"],
                accepted_since=None,
                limit=30,
                actor="requeue",
                reason="x",
            )
        )
        due = await polls.due(session, FLOW, 50)
        results = [Result(one.item_id, NOON) for one in due[::-1]]
        moves = [
            Move(E.CONFIRM if n % 3 else E.FAIL_TEMPORARILY, id=one.item_id, fault="revoked", next_action_at=NOON)
            for n, one in enumerate(due)
        ]
        await again(partial(polls.settle, session, FLOW, results=results, moves=moves, actor="poll"))


async def test_hand_ins_workers_and_upkeep_beside_each_other_all_end_and_forget_nobody(
    docs: Any, database: str
) -> None:
    ids = [await start_worker(docs) for _ in range(2)]
    await together(
        database, *(partial(hand_in_families, n=n, tries=12) for n in range(2)),
        *(partial(work_off, worker=worker, tries=15, seed=worker) for worker in ids), partial(upkeep, tries=12),
    )  # fmt: skip
    await books_agree(docs)
    await settle_all(docs, ids[0])
    assert set((await states(docs)).values()) == {"SUCCESS"}, "in the end everything arrives"
    await books_agree(docs)


async def settle_all(docs: Any, worker: int) -> None:
    """Nothing is left to chance any more: all that can be done is done, until nothing is due."""
    later = NOON + timedelta(days=1)
    await set_database_clock(docs, later)
    for _ in range(20):
        await items.rescue(docs, FLOW, crashes=50)
        await items.wake(docs, FLOW)
        await items.requeue(docs, FLOW, ["*"], accepted_since=None, limit=1000, actor="requeue", reason="x")
        got = await deliveries.claim(docs, FLOW, Lane.LIVE, limit=100, lease=LEASE, worker=worker)
        moves = [Move(E.CONFIRM, id=one.id, attempt_id=one.attempt_id, receipt=f"u {one.key}") for one in got]
        await settle(docs, FLOW, worker, *moves)
