"""Deliveries read no settled history: plans and touched rows on a flow with a long past, and in sessions whose plans were made before it."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from counterfoil.ledger import deliveries, items, polls, pool
from counterfoil.ledger.deliveries import Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import Result, StepRow
from counterfoil.ledger.queries import load
from counterfoil.model.delivery import HandIn, Lane
from counterfoil.model.item import ItemEvent as E
from tests.support import (
    LEASE,
    Databases,
    act,
    declare,
    exchange,
    kind,
    reads_no_history,
    settle,
    start_worker,
    stays_hot,
    take_in,
    touched,
)

FLOW = "docs"
SETTLED = 100_000
# A report with nine documents in each group; all are done, some are asked about still, in a year or so.
PAST = """
insert into counterfoil.item (flow, key, kind, group_key, parent_id, state, state_since, accepted_at, settled_at, receipt, sent_version)
select 'docs', 'old ' || n, case n % 10 when 0 then 'report' else 'doc' end, 'old group ' || n / 10, null, 'SUCCESS', t, t, t, 'receipt ' || n, 1
from generate_series(0, $1::int - 1) n cross join lateral (select now() - make_interval(mins => n) as t) w
"""
FAMILIES = """
update counterfoil.item c set parent_id = p.id from counterfoil.item p
where c.flow = 'docs' and c.kind = 'doc' and p.flow = 'docs' and p.kind = 'report' and p.group_key = c.group_key
"""
BESIDE = """
create temporary table past as select id, flow, kind, key, receipt, accepted_at as at from counterfoil.item where starts_with(key, 'old ');
insert into counterfoil.content select flow, id, '{}', key, null, null, at from past;
insert into counterfoil.attempt (id, flow, item_id, number, started_at, lease_until) select gen_random_uuid(), flow, id, 1, at, at from past;
insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor)
  select at, flow, id, 'NEW', 'confirm', 'SUCCESS', 'program' from past;
insert into counterfoil.exchange (at, flow, item_id, kind, method, address, outcome, took_ms, sent_bytes, got_bytes)
  select at, flow, id, 'send', 'POST', 'x', 'done', 1, 1, 1 from past;
insert into counterfoil.item_step (at, flow, item_id, step, status) select at, flow, id, '', 'x' from past;
insert into counterfoil.poll (flow, item_id, receipt, phase, next_poll_at)
  select flow, id, receipt, 'recheck', now() + interval '1 year' from past where id % 3 = 0;
insert into counterfoil.expectation (flow, item_id, due_at, checked_at) select flow, id, at, at from past where kind = 'report'
"""
KINDS = [
    kind("report", updates=True, resend="look_up", poll_first=timedelta(0), complete_within=timedelta(days=1)),
    kind("doc", "report", updates=True), kind("list", "report", inherits="first"),
]  # fmt: skip


async def unfinished(connection: Any, name: str, number: int = 20) -> None:
    """A few in every state that is not settled: due, late, held, waiting for a parent, accepted, in doubt, owned, in the hands of an attempt."""
    groups = [f"{name} group {n}" for n in range(number)]
    await take_in(connection, FLOW, *(HandIn(f"{name} report {g}", kind="report", group=g) for g in groups))
    await take_in(
        connection, FLOW, *(HandIn(f"{name} doc {g} {n}", kind="doc", group=g) for g in groups for n in range(3))
    )
    await take_in(connection, FLOW, *(HandIn(f"{name} orphan {g}", kind="doc", group=f"none {g}") for g in groups))
    await act(connection, FLOW, E.FAIL, *(f"{name} report {g}" for g in groups[:4]), fault="http_503")
    await act(connection, FLOW, E.FAIL_TEMPORARILY, *(f"{name} report {g}" for g in groups[4:8]), fault="http_503")
    got = await deliveries.claim(connection, FLOW, Lane.LIVE, limit=12, lease=LEASE, worker=1)
    await settle(
        connection,
        FLOW,
        1,
        *(Move(E.RECEIVE, id=c.id, attempt_id=c.attempt_id, receipt=f"{name} {c.id}") for c in got[:4]),
    )
    await settle(connection, FLOW, 1, *(Move(E.DOUBT, id=c.id, attempt_id=c.attempt_id) for c in got[4:6]))


@pytest.fixture(scope="module")
def long_past(session_databases: Databases, template: str, session_loop: Any) -> Iterator[str]:
    """The DSN of a database with 100,000 delivered items in families, and a few of each unfinished kind."""

    async def make() -> str:
        dsn = session_databases.dsn(await session_databases.create(template))
        owner = await pool.connect(dsn)
        await declare(owner, FLOW, *KINDS)
        await owner.execute(PAST, SETTLED)
        await owner.execute(FAMILIES)
        await owner.execute(BESIDE)
        await unfinished(owner, "new")
        await owner.execute("vacuum analyze")
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


def listed(**said: Any) -> tuple[Any, ...]:
    """Arguments of list_items."""
    names = ("flow", "state", "fault", "case", "unfinished", "prefix", "before", "limit", "kind")
    return tuple(({"unfinished": False, "limit": 50} | said).get(name) for name in names)


HOT: list[tuple[str, str, tuple[Any, ...], int]] = [
    # file, query, arguments, rows it may touch in any one node
    ("items", "due_flows", (), 100),
    ("items", "held_flows", (), 50),
    ("items", "waking_flows", (), 10),
    ("polls", "polling_flows", (), 10),
    ("polls", "due_polls", (FLOW, 50), 50),
    ("polls", "get_poll", (FLOW, 3), 2),
    ("items", "get_item", (None, None, None, "receipt 70000"), 10),
    ("items", "get_item", (FLOW, None, None, "nobody has it"), 10),
    ("items", "list_items", listed(flow=FLOW, kind="doc"), 60),
    ("items", "list_items", listed(flow=FLOW, kind="report", unfinished=True), 300),
    ("items", "list_group", (*listed(flow=FLOW), "old group 7000"), 20),
    ("items", "list_group", (*listed(kind="report"), "old group 7000"), 20),
    ("items", "list_group", (*listed(unfinished=True), "new group 3"), 20),
    ("items", "list_children", (FLOW, 11, 50), 20),
    ("items", "list_events", (FLOW, 5), 10),
    ("items", "list_attempts", (FLOW, 5), 10),
    ("deliveries", "list_exchanges", (FLOW, 5), 10),
    ("deliveries", "list_steps", (FLOW, 5), 10),
    ("deliveries", "get_content", (FLOW, 5), 2),
    ("deliveries", "known_keys", (FLOW, ["old 5", "nobody"]), 5),
    ("deliveries", "due_expectations", (FLOW, 50), 100),
    ("health", "sum_flows", (None,), 400),
]
IDS = [f"{name}-{n}" for n, (_, name, _, _) in enumerate(HOT)]


@pytest.mark.parametrize(("file", "name", "arguments", "most"), HOT, ids=IDS)
async def test_a_hot_query_of_deliveries_reads_no_history(
    session: Any, file: str, name: str, arguments: tuple[Any, ...], most: int
) -> None:
    async with session.transaction():
        await reads_no_history(session, load(file)[name], arguments, most)


@pytest.mark.parametrize(("file", "name", "arguments", "most"), HOT, ids=IDS)
async def test_it_stays_hot_when_its_plan_is_kept(
    session: Any, file: str, name: str, arguments: tuple[Any, ...], most: int
) -> None:
    await stays_hot(session, load(file)[name], arguments, most)


class Round:
    """Everything that is done to deliveries, a few items each time; how many rows each step has touched."""

    def __init__(self, session: Any, worker: int) -> None:
        self.session, self.worker = session, worker
        self.steps: dict[str, int] = {}

    async def step(self, name: str, doing: Awaitable[Any]) -> Any:
        before = await touched(self.session)
        done = await doing
        self.steps[name] = await touched(self.session) - before
        return done

    async def hand_in(self, n: str) -> None:
        take = partial(take_in, self.session, FLOW)
        await self.step("orphans", take(*(HandIn(f"{n} orphan {k}", kind="doc", group=f"{n} {k}") for k in range(3))))
        await self.step(
            "parents", take(*(HandIn(f"{n} report {k}", kind="report", group=f"{n} {k}") for k in range(3)))
        )
        await self.step(
            "by name", take(*(HandIn(f"{n} doc {k}", kind="doc", parent_key=f"{n} report {k}") for k in range(3)))
        )
        await self.step(
            "by group",
            take(HandIn(f"{n} list", kind="list", group=f"{n} 0"), HandIn(f"{n} late", kind="doc", group=f"{n} 1")),
        )
        await self.step("known", take(*(HandIn(f"{n} report {k}", kind="report", group=f"{n} {k}") for k in range(3))))
        await self.step("revised", take(HandIn(f"{n} report 0", {"n": 2}, kind="report")))
        await self.step("done", take(HandIn(f"{n} done", kind="report", receipt=f"{n} done", group=f"{n} done")))
        await self.step("of a done one", take(HandIn(f"{n} doc of done", kind="doc", group=f"{n} done")))

    async def deliver(self, n: str) -> None:
        claim = deliveries.claim(self.session, FLOW, Lane.LIVE, limit=4, lease=LEASE, worker=self.worker)
        got = {one.key: one for one in await self.step("claim", claim)}
        assert len(got) == 4, got.keys()
        pairs = [(one.id, one.attempt_id) for one in got.values()]
        await self.step("mark", deliveries.mark_sending(self.session, FLOW, pairs))
        await self.step("renew", items.renew(self.session, FLOW, [pairs[3][1]], timedelta(0)))
        first, second, third = list(got.values())[:3]
        proofs = [Proof(exchange(), one.id, one.attempt_id) for one in (first, second, third)]
        moves = [Move(E.RECEIVE, id=first.id, attempt_id=first.attempt_id, receipt=f"u {first.key}", next_action_at=None),
                 Move(E.FAIL, id=second.id, attempt_id=second.attempt_id, fault="http_503"),
                 Move(E.CONFIRM, id=third.id, attempt_id=third.attempt_id, receipt=f"u {third.key}")]  # fmt: skip
        await self.step("settle", deliveries.settle(self.session, FLOW, moves, proofs, worker=self.worker))
        await self.step("rescue", items.rescue(self.session, FLOW, crashes=1))
        at = await self.session.fetchval("select now() + interval '1 year'")
        await self.step("poll", polls.settle(
            self.session, FLOW, results=[Result(first.id, at, "recheck"), Result(third.id, None)], steps=[StepRow(first.id, "", "x")],
            moves=[Move(E.CONFIRM, id=first.id)], proofs=[Proof(exchange(kind="poll"))], actor="poll"))  # fmt: skip

    async def tidy(self, n: str) -> None:
        await self.step("hold", act(self.session, FLOW, E.HOLD, f"{n} list", next_action_at=None))
        await self.step("wake", items.wake(self.session, FLOW, limit=3))
        requeue = partial(items.requeue, self.session, FLOW, accepted_since=None, actor="requeue", reason="x")
        await self.step("requeue", requeue(["crashed"], limit=1))
        rest = await self.session.fetch(
            "select key from counterfoil.item where flow = $1 and starts_with(key, $2) and settled_at is null and attempt_id is null",
            FLOW, f"{n} ",
        )  # fmt: skip
        await self.step("transfer", act(self.session, FLOW, E.TRANSFER, *(row["key"] for row in rest), reference="S"))

    async def run(self, n: str) -> dict[str, int]:
        async with self.session.transaction():
            await self.hand_in(n)
            await self.deliver(n)
            await self.tidy(n)
        return self.steps


async def test_no_door_reads_the_history_of_a_long_past(long_past: str) -> None:
    """Rolled back: what is unfinished there is for the other tests."""
    connection = await pool.connect(long_past, role=pool.APP_ROLE)
    worker = await start_worker(connection)
    transaction = connection.transaction()
    await transaction.start()
    steps = await Round(connection, worker).run("r")
    await transaction.rollback()
    await connection.close()
    assert not {name: rows for name, rows in steps.items() if rows > 1000}, steps


async def test_sessions_whose_plans_were_made_on_empty_tables_read_no_history_later(ledger: Any, owner: Any) -> None:
    """Functions keep their plans. One made while there was nothing must not read everything when there is a lot."""
    async with ledger.session() as session:
        await declare(session, FLOW, *KINDS)
        worker = await start_worker(session)
        small = [await Round(session, worker).run(f"s{n}") for n in range(8)][-1]
        await owner.execute(PAST, 20_000)
        await owner.execute(FAMILIES)
        await owner.execute(BESIDE)  # nobody analyses: that alone would have the plans made anew
        large = await Round(session, worker).run("l")
    grown = {step: (small[step], large[step]) for step in small if large[step] > 3 * small[step] + 100}
    assert not grown, f"rows touched when there was little, and now: {grown}"
