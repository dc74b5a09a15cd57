"""The machine of an item under random events, without a database: what the table allows is all that happens."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from counterfoil.model.item import DUE, EITHER, MOVES, OWNED, SETTLED, ItemEvent, ItemState, events_from, next_state

CLOSED = frozenset(state for state in ItemState if not events_from(state))


class Machine(RuleBasedStateMachine):
    """One item and its history."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ItemState.NEW
        self.history: list[tuple[ItemState, ItemEvent, ItemState]] = []

    @rule(event=st.sampled_from(ItemEvent))
    def happens(self, event: ItemEvent) -> None:
        to = next_state(self.state, event)
        assert (to is not None) == ((self.state, event) in MOVES)
        if to is not None:
            assert self.state not in CLOSED
            self.history.append((self.state, event, to))
            self.state = to

    @rule(data=st.data())
    def goes_on(self, data: st.DataObject) -> None:
        """A legal event, so that runs get far."""
        if events := events_from(self.state):
            self.happens(data.draw(st.sampled_from(events)))

    @invariant()
    def history_is_a_chain(self) -> None:
        assert [ItemState.NEW, *(to for _, _, to in self.history)] == [*(a for a, _, _ in self.history), self.state]

    @invariant()
    def accounted_for_in_one_way(self) -> None:
        if self.history:
            assert sum(self.state in kind for kind in (SETTLED, DUE, OWNED, EITHER)) == 1


TestMachine = Machine.TestCase


@given(st.lists(st.sampled_from(ItemEvent), max_size=30))
def test_where_a_history_ends_depends_on_its_events_alone(events: list[ItemEvent]) -> None:
    def end() -> ItemState:
        state = ItemState.NEW
        for event in events:
            state = next_state(state, event) or state
        return state

    assert end() is end()


def test_settled_is_never_due_and_never_claimed() -> None:
    assert not SETTLED & (DUE | OWNED | EITHER)
    for state, event in itertools.product(SETTLED, ItemEvent):
        assert next_state(state, event) not in {ItemState.IN_PROGRESS}
