"""Deliveries under random events on PostgreSQL, with two workers and another side that tells the truth when it is asked.

Beside the ledger stands what really is on the other side. After each step: the books agree, no child is forgotten, nothing that may have
arrived is claimed without a doubt, nothing is created there twice unlooked, and what counts as delivered is the newest content.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from counterfoil.ledger import deliveries, items, polls, pool, workers
from counterfoil.ledger.deliveries import Claimed, Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import Result, StepRow
from counterfoil.model.delivery import HandIn, Lane
from counterfoil.model.item import ItemEvent as E
from tests.support import NOON, books_agree, declare, exchange, kind, set_database_clock, start_worker

LEASE, FIRST, DEADLINE = timedelta(minutes=5), timedelta(minutes=1), timedelta(minutes=30)
CRASHES = 3
WAIT = timedelta(minutes=20)
KINDS = [
    kind("report", resend="look_up", resend_update="safe", updates=True, poll_first=FIRST),
    kind("doc", "report", resend="look_up", updates=True, parent_wait=WAIT),
    kind("note", "doc", resend="safe", parent_wait=WAIT),
    kind("list", "report", resend="person", inherits="first", stand_in="9999", parent_wait=WAIT),
]
RESEND = {one.kind: one.resend for one in KINDS}
PARENT = {one.kind: one.parent_kind for one in KINDS}
KEYS = {f"{one.kind} {n}": one.kind for one in KINDS for n in range(3)}
GROUPS = [None, "g", "h"]
BY_HAND = [E.RETRY, E.RELEASE, E.REGENERATE, E.ARCHIVE, E.CANCEL, E.TRANSFER, E.HOLD, E.FAIL]
ENDS = ["done", "done", "accepted", "lost", "refused", "busy", "given back", "held", "silent"]


@dataclass
class There:
    """What the other side has of one item."""

    receipt: str
    content: str
    created: int = 1


@dataclass
class Worker:
    connection: Any
    id: int
    held: dict[str, Claimed] = field(default_factory=dict)
    turned_to: int = 0


class DeliveryMachine(RuleBasedStateMachine):
    """Subclassed with a DSN and an event loop by the tests below."""

    dsn: str
    loop: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.there: dict[str, There] = {}
        self.newest: dict[str, str] = {}  # content that counts, of keys that are items
        self.unanswered: set[str] = set()  # a request left and nobody knows what became of it
        self.stale: list[Claimed] = []
        self.workers: dict[int, Worker] = {}
        self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    async def _open(self) -> None:
        self.app = await pool.connect(self.dsn, role=pool.APP_ROLE)
        self.flow = f"docs-{uuid4().hex[:12]}"
        await declare(self.app, self.flow, *KINDS)
        await self._let_pass(timedelta())

    async def _let_pass(self, time: timedelta) -> None:
        self.now += time
        for connection in (self.app, *(worker.connection for worker in self.workers.values())):
            await set_database_clock(connection, self.now)

    async def _worker(self, which: int) -> Worker:
        """Hired when it is first asked for, and again after it died."""
        if which not in self.workers:
            connection = await pool.connect(self.dsn, role=pool.APP_ROLE)
            worker = Worker(connection, await start_worker(connection))
            await workers.hold_presence(connection, worker.id)
            await set_database_clock(connection, self.now)
            self.workers[which] = worker
        return self.workers[which]

    def teardown(self) -> None:
        async def close() -> None:
            for connection in (self.app, *(worker.connection for worker in self.workers.values())):
                await connection.close()

        self.run(close())

    async def rows(self) -> dict[str, Any]:
        return {
            row["key"]: row for row in await self.app.fetch("select * from counterfoil.item where flow = $1", self.flow)
        }

    # --- what is handed in ---

    given = st.tuples(
        st.sampled_from(sorted(KEYS)), st.integers(0, 3), st.sampled_from([*["", "named"] * 6, "strange"]), st.sampled_from(GROUPS),
        st.integers(0, 2), st.sampled_from([0, 0, 0, 90, 3000]), st.sampled_from([False] * 6 + [True]), st.sampled_from(list(Lane)),
    )  # fmt: skip

    @rule(wanted=st.lists(given, min_size=1, max_size=4))
    def hand_in(self, wanted: list[Any]) -> None:
        some = [self._given(*one) for one in wanted]
        before = self.run(self.rows())
        try:
            taken = {one.key: one for one in self.run(items.accept(self.app, self.flow, some, actor="program"))}
        except asyncpg.PostgresError as error:
            assert error.sqlstate == "CF003", error
            assert self.run(self.rows()) == before, "nothing is taken in"
            return
        assert set(taken) == {one.key for one in some}
        for one in some:
            said = taken[one.key]
            assert (said.outcome == "new") == (one.key not in before)
            updated = KEYS[one.key] in ("report", "doc")
            if said.outcome == "revised" or (said.outcome == "new" and (updated or one.key not in self.newest)):
                self.newest[one.key] = f'{{"n":{one.payload["n"]}}}'
            if said.outcome == "new" and one.receipt:
                self.there[one.key] = There(one.receipt, self.newest[one.key])
        for key, row in before.items():
            if row["state"] in ("TRANSFERRED", "ARCHIVED", "CANCELLED") and key in taken:
                assert taken[key].outcome == "known"

    def _given(
        self, key: str, n: int, by: str, group: str | None, parent: int, delay: int, there: bool, lane: Lane
    ) -> HandIn:
        of = KEYS[key]
        named = None if not by or PARENT[of] is None else f"{PARENT[of]} {parent}" if by == "named" else "note 0"
        return HandIn(
            key, {"n": n}, kind=of, parent_key=named, group=group, lane=lane, due_at=self.now + timedelta(seconds=delay) if delay else None,
            receipt=f"receipt of {key}" if there and key not in self.there else None,
        )  # fmt: skip

    @rule(key=st.sampled_from(sorted(KEYS)), group=st.sampled_from(GROUPS))
    def find_missing(self, key: str, group: str | None) -> None:
        if key not in self.run(self.rows()):
            move = Move(E.FAIL, key=key, fault="missing", problem="It is expected.", kind=KEYS[key], group=group)
            self.run(items.move(self.app, self.flow, [move], actor="completeness"))

    # --- what workers do ---

    @rule(which=st.integers(0, 1), lane=st.sampled_from(list(Lane)), limit=st.integers(1, 6))
    def claim(self, which: int, lane: Lane, limit: int) -> None:
        worker = self.run(self._worker(which))
        before = self.run(self.rows())
        got = self.run(
            deliveries.claim(
                worker.connection, self.flow, lane, limit=limit, lease=LEASE, worker=worker.id, after=worker.turned_to
            )
        )
        due = {
            key for key, row in before.items()
            if row["lane"] == lane and row["next_action_at"] and row["next_action_at"] <= self.now
            and row["state"] in ("QUEUED", "TEMPORARY_ERROR", "IN_DOUBT")
        }  # fmt: skip
        assert {one.key for one in got} <= due
        assert bool(got) == bool(due), "what is due is claimed by who asks"
        assert len(got) == 1 or all(not before[one.key]["crashes"] for one in got), "a suspect is claimed alone"
        for one in got:
            worker.turned_to = one.turned_to
            worker.held[one.key] = one
            if one.key in self.unanswered and RESEND[one.kind] != "safe":
                assert one.doubt_at is not None, f"{one.key} may be there already, and nobody would look"
            if PARENT[one.kind]:
                assert one.parent_receipt or (one.parent_id is None and one.kind == "list")
            assert one.payload == self.newest.get(one.key)

    @rule(
        which=st.integers(0, 1), ends=st.lists(st.sampled_from(ENDS), min_size=6, max_size=6), before_mark=st.booleans()
    )
    def work(self, which: int, ends: list[str], before_mark: bool) -> None:
        """What the worker holds, it sends and settles; `silent` stays in hand, marked or not, until its lease ends or it dies."""
        worker = self.run(self._worker(which))
        if not worker.held:
            return
        chosen = list(zip(worker.held.values(), ends * 9, strict=False))
        sends = [
            one for one, end in chosen if end not in ("given back", "held") and not (end == "silent" and before_mark)
        ]
        may = self.run(
            deliveries.mark_sending(worker.connection, self.flow, [(one.id, one.attempt_id) for one in sends])
        )
        rows = self.run(self.rows())
        for one in sends:
            assert (one.attempt_id in may) == (rows[one.key]["attempt_id"] == one.attempt_id), (
                "who holds it may send it, and nobody else"
            )
        moves = [self._move(one, end, one.attempt_id in may) for one, end in chosen]
        proofs = [Proof(exchange(), one.id, one.attempt_id) for one in sends]
        asked = [move for move in moves if move is not None]
        told = self.run(deliveries.settle(worker.connection, self.flow, asked, proofs, worker=worker.id))
        self.stale += [
            worker.held.pop(one.key) for (one, _), move in zip(chosen, moves, strict=True) if move is None
        ]  # it hangs
        for moved in told:
            held = worker.held.pop(moved.key)
            fenced = rows[moved.key]["attempt_id"] != held.attempt_id
            assert (moved.why == "lease_lost") == fenced
            self.stale.append(held)

    def _move(self, one: Claimed, end: str, may_send: bool) -> Move | None:
        """As a worker does it: look first where there is a doubt, send only what may be sent, say what was learnt."""

        def settled(event: E, **said: Any) -> Move:
            return Move(event, id=one.id, attempt_id=one.attempt_id, **said)

        if end in ("given back", "held"):
            return settled(
                E.GIVE_BACK if end == "given back" else E.HOLD, next_action_at=self.now + timedelta(seconds=30)
            )
        if one.payload is None:  # it is expected, and was not handed in
            return settled(E.FAIL, fault="missing")
        if not may_send:
            return None if end == "silent" else settled(E.CONFIRM, receipt="of nobody")
        if one.doubt_at is not None and RESEND[one.kind] == "person":
            return settled(E.DOUBT, fault="in_doubt")
        if one.doubt_at is not None and one.key in self.there and one.receipt is None:
            self.unanswered.discard(one.key)
            return settled(E.CONFIRM if end != "accepted" else E.RECEIVE, receipt=self.there[one.key].receipt,
                           next_action_at=self.now + DEADLINE)  # fmt: skip
        if end in ("refused", "busy"):
            self.unanswered.discard(one.key)
            event = E.FAIL if end == "refused" else E.FAIL_TEMPORARILY
            return settled(event, fault=f"http_{end}", problem="No.", next_action_at=self.now + timedelta(minutes=2))
        self._arrives(one)
        if end in ("lost", "silent"):
            self.unanswered.add(one.key)
            looks = self.now + timedelta(minutes=2) if RESEND[one.kind] != "person" else None
            return None if end == "silent" else settled(E.DOUBT, fault="in_doubt", next_action_at=looks)
        self.unanswered.discard(one.key)
        polled = end == "accepted" and one.kind == "report"
        return settled(
            E.RECEIVE if polled else E.CONFIRM, receipt=self.there[one.key].receipt, next_action_at=self.now + DEADLINE
        )

    def _arrives(self, one: Claimed) -> None:
        assert one.payload is not None
        there = self.there.get(one.key)
        if there is None:
            self.there[one.key] = There(f"receipt of {one.key}", one.payload)
            return
        there.content = one.payload
        if one.receipt is None and RESEND[one.kind] != "safe":
            raise AssertionError(f"{one.key} was created there twice")

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """The worker is gone, in the middle of whatever it had."""

        async def die() -> None:
            if worker := self.workers.pop(which, None):
                worker.connection.terminate()
                self.stale += worker.held.values()
                while await self.app.fetchval("select counterfoil.worker_alive($1)", worker.id):
                    await asyncio.sleep(0)

        self.run(die())

    @rule()
    def rescue(self) -> None:
        self.run(items.rescue(self.app, self.flow, crashes=CRASHES))

    @precondition(lambda self: self.stale)
    @rule(event=st.sampled_from([E.CONFIRM, E.RECEIVE, E.FAIL, E.DOUBT]))
    def settle_with_lost_attempts(self, event: E) -> None:
        """Every attempt that is over tries to go on: nothing moves, and nothing may be sent."""
        rows = self.run(self.rows())
        gone = {one.key: one for one in self.stale if rows[one.key]["attempt_id"] != one.attempt_id}
        moves = [Move(event, id=one.id, attempt_id=one.attempt_id, fault="x") for one in gone.values()]
        assert not self.run(
            deliveries.mark_sending(self.app, self.flow, [(one.id, one.attempt_id) for one in gone.values()])
        )
        assert {m.why for m in self.run(deliveries.settle(self.app, self.flow, moves, [], worker=1))} <= {"lease_lost"}
        assert self.run(self.rows()) == rows

    # --- what time, people and the other side do ---

    @rule(seconds=st.sampled_from([1, 60, 301, 1300]))
    def time_passes(self, seconds: int) -> None:
        self.run(self._let_pass(timedelta(seconds=seconds)))

    @rule()
    def wake(self) -> None:
        self.run(items.wake(self.app, self.flow))

    @rule(
        keys=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3, unique=True),
        event=st.sampled_from(BY_HAND),
        n=st.integers(0, 1),
    )
    def act_by_hand(self, keys: list[str], event: E, n: int) -> None:
        known = self.run(self.rows())
        later = self.now + timedelta(minutes=10) if event is E.HOLD else None
        moves = [Move(event, key=key, next_action_at=later, fault="by_hand" if event is E.FAIL else None,
                      reference="S-1" if n else None) for key in keys if key in known]  # fmt: skip
        self.run(items.move(self.app, self.flow, moves, actor="eve", reason="asked"))
        if event is E.FAIL:  # a person who says so has looked: it is not there, or does not count
            rows = self.run(self.rows())
            self.unanswered -= {
                key
                for key in keys
                if key in rows and rows[key]["doubt_at"] is None and rows[key]["state"] != "IN_PROGRESS"
            }

    @rule(fault=st.sampled_from(["http_*", "parent_*", "*"]))
    def requeue(self, fault: str) -> None:
        before = self.run(self.rows())
        self.run(
            items.requeue(
                self.app, self.flow, [fault], accepted_since=None, limit=3, actor="requeue", reason="overnight"
            )
        )
        rows = self.run(self.rows())
        for key, row in before.items():
            if row["fault"] == "parent_failed" and row["state"] == "PERMANENT_ERROR":
                assert rows[key]["state"] == "PERMANENT_ERROR"

    @rule(ends=st.lists(st.sampled_from(["confirmed", "pending", "failed", "unknown"]), min_size=4, max_size=4))
    def poll(self, ends: list[str]) -> None:
        due = self.run(polls.due(self.app, self.flow, 4))
        at = self.now + FIRST
        results, moves = [], []
        for one, end in zip(due, ends, strict=False):
            results.append(
                Result(one.item_id, None if end == "confirmed" else at, status=end, not_found=int(end == "unknown"))
            )
            if end in ("confirmed", "failed"):
                moves.append(Move(E.CONFIRM if end == "confirmed" else E.FAIL, id=one.item_id, fault="revoked"))
        steps = [StepRow(one.item_id, "", "x") for one in due]
        self.run(polls.settle(self.app, self.flow, results=results, steps=steps, moves=moves, actor="poll"))

    @rule(key=st.sampled_from(sorted(KEYS)))
    def reopen(self, key: str) -> None:
        move = Move(E.REOPEN, key=key, next_action_at=self.now + DEADLINE)
        self.run(items.move(self.app, self.flow, [move], actor="poll"))

    # --- what must always be true ---

    @invariant()
    def the_books_agree(self) -> None:
        self.run(books_agree(self.app, self.flow))

    @invariant()
    def what_counts_as_delivered_is_the_newest(self) -> None:
        for key, row in self.run(self.rows()).items():
            if row["state"] in ("SUCCESS", "ACCEPTED") and key in self.there:
                assert self.there[key].content == self.newest[key], key

    @invariant()
    def only_what_has_a_receipt_and_may_be_confirmed_is_polled(self) -> None:
        rows = self.run(self.app.fetch(
            "select i.key, i.state, i.kind, i.receipt = p.receipt as same from counterfoil.poll p "
            "join counterfoil.item i on i.flow = p.flow and i.id = p.item_id where p.flow = $1", self.flow))  # fmt: skip
        assert all(
            row["same"] and row["kind"] == "report" and row["state"] in ("ACCEPTED", "SUCCESS", "PERMANENT_ERROR")
            for row in rows
        )
        polled = {row["key"] for row in rows}
        accepted = {
            key for key, row in self.run(self.rows()).items() if row["state"] == "ACCEPTED" and row["kind"] == "report"
        }
        assert accepted <= polled


def run_machine(dsn: str, examples: int, steps: int) -> None:
    with asyncio.Runner() as loop:
        machine = type("Machine", (DeliveryMachine,), {"dsn": dsn, "loop": loop})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip


def test_whatever_happens_to_deliveries_the_promises_hold(database: str) -> None:
    run_machine(database, examples=40, steps=40)


@pytest.mark.soak
def test_whatever_happens_to_deliveries_the_promises_hold_for_long(database: str) -> None:
    run_machine(database, examples=400, steps=80)
