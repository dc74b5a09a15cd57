"""The hot queries never read settled history: their plans, and what they really touched, on a flow with a long past.

Nothing is timed here. A plan is read from EXPLAIN after ANALYZE, with the planner left as it is; what a function touches inside
is counted by the server itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from counterfoil.ledger import items, pool
from counterfoil.ledger.items import Move
from counterfoil.ledger.queries import load
from counterfoil.model.item import ItemEvent as E
from tests.support import Databases, act, hand_in, reads_no_history, register, start_worker, stays_hot, touched

LEASE = timedelta(minutes=5)
SETTLED, UNFINISHED = 100_000, 40
PAST = """
insert into counterfoil.item (flow, key, state, state_since, accepted_at, settled_at)
select 'pets', 'old ' || n, (array['SUCCESS', 'REJECTED', 'ARCHIVED'])[1 + n % 3], t, t, t
from generate_series(1, $1::int) n cross join lateral (select now() - make_interval(mins => n) as t) w
"""
EVENTS = """
insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor)
select accepted_at, flow, id, 'NEW', 'reject', 'REJECTED', 'run 1' from counterfoil.item where id <= 20000
"""


@pytest.fixture(scope="module")
def long_past(session_databases: Databases, template: str, session_loop: Any) -> Iterator[str]:
    """The DSN of a database with 100,000 settled items, a few of each unfinished kind, and runs that ended."""

    async def make() -> str:
        dsn = session_databases.dsn(await session_databases.create(template))
        owner = await pool.connect(dsn)
        await register(owner, "pets", "loans")
        await owner.execute(PAST, SETTLED)
        await owner.execute(EVENTS)
        for event in (E.ACCEPT, E.FAIL, E.FAIL_TEMPORARILY, E.REVIEW):
            await act(owner, "pets", event, *(f"{event} {n}" for n in range(UNFINISHED)), fault="http_503")
        await items.claim(owner, "pets", limit=10, lease=LEASE, worker=await start_worker(owner))
        await owner.execute(
            "insert into counterfoil.run (flow, state, trigger, actor, created_at, ended_at) "
            "select 'pets', 'completed', 'schedule', 'clock', now(), now() from generate_series(1, 20000)"
        )
        await owner.execute(
            "insert into counterfoil.run_key (run_id, key, n, done) select 1, 'key ' || n, n, n < 49900 from generate_series(1, 50000) n"
        )
        await owner.execute("analyze")
        await owner.close()
        return dsn

    dsn = session_loop.run(make())
    yield dsn
    session_loop.run(session_databases.drop(dsn.rsplit("/", 1)[1]))


@pytest.fixture
async def session(long_past: str) -> Any:
    connection = await pool.connect(long_past, role=pool.APP_ROLE)
    yield connection
    await connection.close()


HOT: list[tuple[str, str, tuple[Any, ...], int]] = [
    # file, query, arguments, rows it may touch in any one node
    ("items", "due_flows", (), 1000),
    ("items", "held_flows", (), 1000),
    ("items", "any_items", ("pets",), 1),
    ("items", "known_items", ("pets", ["old 5", "accept 1"]), 10),
    ("items", "get_item", ("pets", "accept 1", None, None), 10),
    ("items", "get_item", (None, "accept 1", None, "r-1"), 10),
    ("items", "get_item", (None, None, 5, None), 10),
    ("items", "list_items", (None, None, None, None, False, None, None, 50, None), 60),
    ("items", "list_items", ("pets", None, None, None, False, None, None, 50, None), 60),
    ("items", "list_items", ("pets", "REVIEW", None, None, False, None, None, 50, None), 200),
    ("items", "list_items", ("pets", None, None, None, True, None, None, 50, None), 400),
    ("items", "list_events", ("pets", 5), 10),
    ("items", "count_states", (None,), 200),
    ("health", "sum_flows", (None,), 400),
    ("runs", "due_runs", (100,), 100),
    ("runs", "open_run", ("pets",), 10),
    ("runs", "list_runs", ("pets", None, 20), 40),
    ("runs", "open_keys", (1, 0, 500), 500),
    ("runs", "count_open_keys", (1,), 500),
]


@pytest.mark.parametrize(
    ("file", "name", "arguments", "most"), HOT, ids=[f"{n}-{i}" for i, (_, n, _, _) in enumerate(HOT)]
)
async def test_a_hot_query_reads_no_history(
    session: Any, file: str, name: str, arguments: tuple[Any, ...], most: int
) -> None:
    full = ("item", "item_event", "run", "run_key")
    await reads_no_history(session, load(file)[name], arguments, most, tables=full)


@pytest.mark.parametrize(
    ("file", "name", "arguments", "most"), HOT, ids=[f"{n}-{i}" for i, (_, n, _, _) in enumerate(HOT)]
)
async def test_a_hot_query_stays_hot_when_its_plan_is_kept(
    session: Any, file: str, name: str, arguments: tuple[Any, ...], most: int
) -> None:
    """After five executions the server may keep one plan for all arguments: it must not choose a worse one then."""
    await stays_hot(session, load(file)[name], arguments, most)


async def test_a_move_touches_its_items_and_nothing_else(session: Any) -> None:
    async with session.transaction():
        before = await touched(session)
        moved = await items.move(
            session, "pets", [Move(E.FAIL, key=f"accept {n}", fault="http_404") for n in range(20, 30)], actor="test"
        )
        assert sum(m.moved for m in moved) == 10
        assert await touched(session) - before < 400


async def test_a_session_whose_plans_were_made_for_an_empty_table_reads_no_history_later(ledger: Any) -> None:
    """Functions keep their plans. One made while there was nothing must not read everything when there is a lot."""
    async with ledger.session() as session:
        await register(session, "pets")
        worker = await start_worker(session)

        async def work(n: int) -> dict[str, int]:
            """Rows touched by each step."""
            keys = [f"{n}-{k}" for k in range(5)]
            steps: dict[str, int] = {}
            async with session.transaction():

                async def step(name: str, doing: Awaitable[Any]) -> Any:
                    before = await touched(session)
                    done = await doing
                    steps[name] = await touched(session) - before
                    return done

                await step("accept", act(session, "pets", E.ACCEPT, *keys))
                await step("fail", act(session, "pets", E.FAIL, *keys[:2], fault="http_404"))
                claimed = await step("claim", items.claim(session, "pets", limit=10, lease=LEASE, worker=worker))
                loads = [Move(E.LOAD, id=c.id, attempt_id=c.attempt_id) for c in claimed[1:]]
                await step("load", items.move(session, "pets", loads, actor="w"))
                await step("renew", items.renew(session, "pets", [claimed[0].attempt_id], timedelta(0)))
                assert await step("rescue", items.rescue(session, "pets", crashes=1)) == (0, 1)
                await step("one", hand_in(session, "pets", f"{n}-one"))
                await step("cancel", act(session, "pets", E.CANCEL, f"{n}-one"))
            return steps

        small = [await work(n) for n in range(8)][-1]
        for n in range(10):  # 5,000 items by the same session, so that its kept plans stay
            await act(session, "pets", E.REJECT, *(f"past {n}-{k}" for k in range(500)), fault="rule")
        large = await work(100)
    grown = {step: (small[step], large[step]) for step in small if large[step] > 3 * small[step] + 50}
    assert not grown, f"rows touched when there was little, and now: {grown}"


async def test_a_claim_reads_what_is_due_and_not_what_was(session: Any) -> None:
    worker = await start_worker(session)
    async with session.transaction():
        before = await touched(session)
        assert len(await items.claim(session, "pets", limit=5, lease=LEASE, worker=worker)) == 5
        assert await touched(session) - before < 200


async def test_no_door_lets_the_server_compile_its_plans(owner: Any) -> None:
    """What a plan may not use counts as endlessly dear, and up to PostgreSQL 17 that alone has every call compiled: 300 ms each."""
    doors = await owner.fetch(
        "select proname, proconfig from pg_proc where pronamespace = 'counterfoil'::regnamespace and prosecdef "
        "and (proname = 'move_items' or array_to_string(proconfig, ' ') like '%enable_%')"
    )
    assert {name for name, _ in doors} >= {
        "move_items",
        "claim_items",
        "claim_deliveries",
        "rescue_items",
        "settle_polls",
    }
    assert [name for name, config in doors if "jit=off" not in config] == []
