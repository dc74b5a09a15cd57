"""The ledger under random events on PostgreSQL, beside a model of a few lines. After each step: row = model, history is a chain,
counters = rows, cases own what they say, and every item is in exactly one place.

The crash of a worker is its connection going away; a lost lease is its end passing. Both are rules like any other event.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from counterfoil.ledger import cases, health, items, pool, workers
from counterfoil.ledger.items import Move, Moved
from counterfoil.model.item import DUE, OWNED, SETTLED, ItemEvent, ItemState, events_from, next_state
from tests.support import NOON, hand_in, register, set_database_clock, start_worker

E, S = ItemEvent, ItemState
LEASE = timedelta(minutes=5)
CRASHES = 3
KEYS = [f"pet {n}" for n in range(6)]
FAULTS = ["http_404", "http_503", "band"]
BY_HAND = [E.RETRY, E.RELEASE, E.ARCHIVE, E.CANCEL, E.TRANSFER]
SETTLING = [E.LOAD, E.FAIL, E.FAIL_TEMPORARILY, E.REVIEW, E.REJECT, E.HOLD, E.RECEIVE, E.CONFIRM, E.DOUBT]
CLAIMABLE = (S.QUEUED, S.TEMPORARY_ERROR)
SAYS_FAULT = {E.FAIL, E.FAIL_TEMPORARILY, E.REVIEW, E.REJECT}


@dataclass
class Model:
    """What we believe about one item."""

    state: ItemState = S.NEW
    fault: str | None = None
    attempt: UUID | None = None
    due: datetime | None = None
    crashes: int = 0
    events: int = 0

    def judge(self, event: ItemEvent, fault: str | None, attempt: UUID | None) -> str:
        if (
            (self.state is S.IN_PROGRESS or (attempt and event is not E.CLAIM))
            and attempt != self.attempt
            and self.state is not S.NEW
        ):
            return "lease_lost"
        to = next_state(self.state, event)
        if to is None:
            return "illegal"
        return "same" if to is self.state and event in SAYS_FAULT and fault == self.fault else "moved"

    def move(self, event: ItemEvent, fault: str | None, attempt: UUID | None, due: datetime) -> None:
        to = next_state(self.state, event)
        assert to
        revised = event is E.REVISE and to is self.state  # newer content beside it: when it is due, and why, stays
        clean = to in (S.SUCCESS, S.ACCEPTED) or (event is E.REVISE and to is not S.IN_DOUBT)
        self.state, self.events = to, self.events + 1
        self.fault = None if clean else fault or self.fault
        self.attempt = attempt if event is E.CLAIM else None
        if not revised:
            self.due = due if to in DUE or to is S.IN_DOUBT else None
        kept = revised or event in (E.CLAIM, E.HOLD, E.GIVE_BACK)
        self.crashes = self.crashes + 1 if event is E.RESCUE else self.crashes if kept else 0


events = st.sampled_from([*BY_HAND, *SETTLING, E.ACCEPT, E.SUPERSEDE, E.REOPEN, E.CONFIRM, E.RESCUE])


class LedgerMachine(RuleBasedStateMachine):
    """Subclassed with a DSN and an event loop by the tests below."""

    dsn: str
    loop: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Model] = {}
        self.now, self.checked, self.cases_checked = NOON, -1, -1
        self.worker: Any = None
        self.lost: list[tuple[str, UUID]] = []  # attempts that once were
        self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    async def _open(self) -> None:
        self.app = await pool.connect(self.dsn, role=pool.APP_ROLE)
        # A flow of its own for each example: the database is not made anew a hundred times.
        self.flow = f"pets-{uuid4().hex[:12]}"
        await register(self.app, self.flow)
        await self._let_pass(timedelta())

    async def _let_pass(self, time: timedelta) -> None:
        self.now += time
        for connection in (self.app, self.worker):
            if connection is not None:
                await set_database_clock(connection, self.now)

    @initialize()
    def begin(self) -> None:
        self.run(self._hire())

    async def _hire(self) -> None:
        if self.worker is None:
            self.worker = await pool.connect(self.dsn, role=pool.APP_ROLE)
            self.worker_id = await start_worker(self.worker)
            await workers.hold_presence(self.worker, self.worker_id)
            await set_database_clock(self.worker, self.now)

    def teardown(self) -> None:
        async def close() -> None:
            await self.app.close()
            if self.worker is not None:
                await self.worker.close()

        self.run(close())

    # --- what happens ---

    def expect(self, moves: list[Move], moved: list[Moved]) -> None:
        """The first request for a key counts, where the item exists; else the first that begins a life."""
        told = {m.key: m for m in moved}
        assert len(told) == len(moved)
        first: dict[str, Move] = {}
        for move in moves:
            assert move.key
            known = self.models.setdefault(move.key, Model()).state is not S.NEW
            if known or next_state(S.NEW, move.event):
                first.setdefault(move.key, move)
        assert set(told) == set(first)
        for key, move in first.items():
            model, said = self.models[key], told[key]
            why = model.judge(move.event, move.fault, move.attempt_id)
            assert (said.why, said.moved, said.from_state) == (why, why == "moved", model.state)
            if why == "moved":
                model.move(move.event, move.fault, move.attempt_id, move.next_action_at or self.now)
            assert said.to_state == model.state

    def request(self, key: str, event: ItemEvent, fault: str, attempt: UUID | None, delay: int) -> Move:
        return Move(
            event, key=key, fault=fault if event in SAYS_FAULT else None, attempt_id=attempt,
            next_action_at=self.now + timedelta(seconds=delay),
            superseded_by=1 if event is E.SUPERSEDE else None,
        )  # fmt: skip

    def fence(self, key: str, which: str) -> UUID | None:
        """No attempt, the one that has the item, one that had it once, or one of nobody."""
        match which:
            case "own":
                return self.models.get(key, Model()).attempt
            case "lost":
                return next((attempt for lost, attempt in reversed(self.lost) if lost == key), uuid4())
            case "strange":
                return uuid4()
        return None

    @rule(
        wanted=st.lists(
            st.tuples(st.sampled_from(KEYS), events, st.sampled_from(FAULTS),
                      st.sampled_from(["none", "none", "own", "own", "lost", "strange"]), st.integers(0, 900)),
            min_size=1, max_size=8,
        )
    )  # fmt: skip
    def move(self, wanted: list[tuple[str, ItemEvent, str, str, int]]) -> None:
        moves = [
            self.request(key, event, fault, self.fence(key, which), delay) for key, event, fault, which, delay in wanted
        ]
        self.expect(moves, self.run(items.move(self.app, self.flow, moves, actor="test")))

    @rule(
        wanted=st.lists(
            st.tuples(st.sampled_from(KEYS), st.integers(0, 11), st.sampled_from(FAULTS)), min_size=3, max_size=10
        )
    )
    def go_on(self, wanted: list[tuple[str, int, str]]) -> None:
        """Legal moves only, so that histories get long; claims have a rule of their own."""
        moves = []
        for key, choice, fault in wanted:
            model = self.models.get(key, Model())
            if legal := [event for event in events_from(model.state) if event is not E.CLAIM]:
                moves.append(self.request(key, legal[choice % len(legal)], fault, model.attempt, 30 * choice))
        self.expect(moves, self.run(items.move(self.app, self.flow, moves, actor="test")))

    @rule(key=st.sampled_from(KEYS), event=st.sampled_from(BY_HAND))
    def act_by_hand(self, key: str, event: ItemEvent) -> None:
        moves = [self.request(key, event, FAULTS[0], None, 0)]
        self.expect(moves, self.run(items.move(self.app, self.flow, moves, actor="eve", reason="asked")))

    @rule(key=st.sampled_from(KEYS))
    def accept(self, key: str) -> None:
        self.run(hand_in(self.app, self.flow, key, {"name": key}))
        model = self.models.setdefault(key, Model())
        if model.state is S.NEW:
            model.move(E.ACCEPT, None, None, self.now)

    @rule(key=st.sampled_from(KEYS))
    def accept_and_roll_back(self, key: str) -> None:
        async def roll_back() -> None:
            transaction = self.app.transaction()
            await transaction.start()
            await hand_in(self.app, self.flow, key)
            await transaction.rollback()

        self.run(roll_back())

    @precondition(lambda self: any(m.state in CLAIMABLE for m in self.models.values()))
    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        self.run(self._hire())
        ready = {
            key: m for key, m in self.models.items()
            if m.state in CLAIMABLE and m.due and m.due <= self.now
        }  # fmt: skip
        claimed = self.run(items.claim(self.worker, self.flow, limit=limit, lease=LEASE, worker=self.worker_id))
        assert bool(claimed) == bool(ready), "what is due is claimed by who asks"
        assert len(claimed) <= limit
        assert len(claimed) == 1 or all(not ready[c.key].crashes for c in claimed), "a suspect is claimed alone"
        for one in claimed:
            ready[one.key].move(E.CLAIM, None, one.attempt_id, self.now + LEASE)
            self.lost.append((one.key, one.attempt_id))

    @precondition(lambda self: any(m.attempt for m in self.models.values()))
    @rule(event=st.sampled_from(SETTLING), fault=st.sampled_from(FAULTS))
    def settle_all(self, event: ItemEvent, fault: str) -> None:
        """A worker settles its slice in one call."""
        moves = [self.request(k, event, fault, m.attempt, 60) for k, m in self.models.items() if m.attempt]
        self.expect(moves, self.run(items.move(self.app, self.flow, moves, actor="worker")))

    @precondition(lambda self: any(self.models[key].attempt != attempt for key, attempt in self.lost))
    @rule()
    def settle_with_lost_attempts(self) -> None:
        """Every attempt there ever was, but the open ones, tries to settle: nothing moves."""
        gone = {key: attempt for key, attempt in self.lost if self.models[key].attempt != attempt}
        moves = [self.request(key, E.LOAD, "", attempt, 0) for key, attempt in gone.items()]
        moved = self.run(items.move(self.app, self.flow, moves, actor="ghost"))
        assert not any(m.moved for m in moved)
        self.expect(moves, moved)

    @rule(seconds=st.sampled_from([1, 60, 301, 1000]))
    def time_passes(self, seconds: int) -> None:
        self.run(self._let_pass(timedelta(seconds=seconds)))

    @precondition(lambda self: any(m.attempt for m in self.models.values()))
    @rule()
    def crash(self) -> None:
        """The worker is gone, in the middle of whatever it had."""

        async def die() -> None:
            if self.worker is not None:
                self.worker.terminate()
                self.worker = None
                while await self.app.fetchval("select counterfoil.worker_alive($1)", self.worker_id):
                    await asyncio.sleep(0)

        self.run(die())

    @precondition(lambda self: any(m.attempt for m in self.models.values()))
    @rule()
    def rescue(self) -> None:
        alive = set(self.run(self.app.fetchval("select array(select counterfoil.live_workers())")))
        lost = [m for m in self.models.values() if m.attempt and (m.due <= self.now or self._worker_of(m) not in alive)]  # type: ignore[operator]
        poisoned = [m for m in lost if m.crashes + 1 >= CRASHES]
        assert self.run(items.rescue(self.app, self.flow, crashes=CRASHES)) == (
            len(lost) - len(poisoned),
            len(poisoned),
        )
        for model in lost:
            model.move(
                E.FAIL if model in poisoned else E.RESCUE, "crashed" if model in poisoned else None, None, self.now
            )

    def _worker_of(self, model: Model) -> int:
        return int(
            self.run(self.app.fetchval("select worker_id from counterfoil.attempt where id = $1", model.attempt))
        )

    # --- what must always be true ---

    @invariant()
    def rows_are_the_model(self) -> None:
        rows = self.run(self.app.fetch("select * from counterfoil.item where flow = $1", self.flow))
        models = {key: m for key, m in self.models.items() if m.state is not S.NEW}
        assert {row["key"] for row in rows} == set(models)
        for row in rows:
            m = models[row["key"]]
            assert (row["state"], row["attempt_id"], row["next_action_at"], row["crashes"], row["fault"]) == (
                m.state, m.attempt, m.due, m.crashes, m.fault)  # fmt: skip
            places = (row["settled_at"] is not None, row["next_action_at"] is not None, row["case_id"] is not None)
            assert places == (m.state in SETTLED, m.due is not None, m.state in OWNED)
            assert sum(places) == 1

    @invariant()
    def the_books_agree(self) -> None:
        if (moves := sum(m.events for m in self.models.values())) == self.checked:
            return  # nothing was to change since, and rows_are_the_model saw that nothing did
        self.checked = moves
        assert not self.run(health.broken_histories(self.app, self.flow))
        assert not self.run(health.differing_counters(self.app, self.flow))
        assert not self.run(health.differing_cases(self.app, self.flow))
        (sums,) = self.run(health.sums(self.app, self.flow))
        recount = self.run(health.recount(self.app, self.flow))
        assert sums["accepted"] == sums["settled"] + sums["due"] + sums["owned"] == recount["accepted"]
        assert recount["owned_by_closed_case"] == 0
        recorded = self.run(self.app.fetchval("select count(*) from counterfoil.item_event where flow = $1", self.flow))
        assert recorded == moves

    @invariant()
    def closed_cases_own_nothing(self) -> None:
        if sum(m.events for m in self.models.values()) == self.cases_checked:
            return
        self.cases_checked = sum(m.events for m in self.models.values())
        for case in self.run(cases.list_(self.app, flow=self.flow, open_only=False, limit=1000)):
            owned = [m for m in self.models.values() if m.state in OWNED and m.fault == case["fault"]]
            assert case["open_items"] == (0 if case["closed_at"] else len(owned))
            assert case["closed_at"] is not None or owned, "an empty case does not stay open"


def run_machine(dsn: str, examples: int, steps: int) -> None:
    with asyncio.Runner() as loop:
        machine = type("Machine", (LedgerMachine,), {"dsn": dsn, "loop": loop})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_whatever_happens_the_books_agree(database: str) -> None:
    run_machine(database, examples=60, steps=30)


@pytest.mark.soak
def test_whatever_happens_the_books_agree_for_long(database: str) -> None:
    run_machine(database, examples=400, steps=60)
