"""Facts about the table of moves, over all of its pairs."""

from __future__ import annotations

import itertools

import pytest

from counterfoil.model.item import (
    DUE,
    EITHER,
    MOVES,
    OWNED,
    SENTENCES,
    SETTLED,
    ItemEvent,
    ItemState,
    events_from,
    next_state,
)

CLOSED = frozenset({ItemState.TRANSFERRED, ItemState.ARCHIVED, ItemState.CANCELLED})
BY_A_RUN = (ItemEvent.LOAD, ItemEvent.FAIL, ItemEvent.FAIL_TEMPORARILY, ItemEvent.REVIEW, ItemEvent.REJECT)
BY_HAND = (ItemEvent.TRANSFER, ItemEvent.ARCHIVE, ItemEvent.CANCEL, ItemEvent.SUPERSEDE)


def test_every_state_is_accounted_for_in_exactly_one_way() -> None:
    kinds = [SETTLED, OWNED, DUE, EITHER, frozenset({ItemState.NEW})]
    assert frozenset().union(*kinds) == frozenset(ItemState)
    assert all(not one & other for one, other in itertools.combinations(kinds, 2))


def test_every_state_has_a_row_and_a_sentence() -> None:
    assert all(events_from(state) or state in CLOSED for state in ItemState)
    assert set(SENTENCES) == set(ItemState)


def test_all_pairs_are_decided_by_the_table() -> None:
    for state, event in itertools.product(ItemState, ItemEvent):
        assert next_state(state, event) == MOVES.get((state, event))
        assert (event in events_from(state)) == ((state, event) in MOVES)


@pytest.mark.parametrize("state", sorted(CLOSED))
def test_what_a_person_closed_never_moves(state: ItemState) -> None:
    assert events_from(state) == ()


def test_every_state_can_be_reached_and_every_event_is_used() -> None:
    reached = {ItemState.NEW}
    while more := {to for (state, _), to in MOVES.items() if state in reached} - reached:
        reached |= more
    assert reached == set(ItemState)
    assert {event for _, event in MOVES} == set(ItemEvent)


def test_nothing_returns_to_new() -> None:
    assert ItemState.NEW not in MOVES.values()


def test_every_state_that_is_not_closed_can_still_end_settled() -> None:
    ends = set(SETTLED)
    while more := {state for (state, _), to in MOVES.items() if to in ends} - ends:
        ends |= more
    assert ends == set(ItemState)


@pytest.mark.parametrize("state", sorted(OWNED | {ItemState.IN_DOUBT}))
def test_a_person_can_always_do_something_about_what_is_theirs(state: ItemState) -> None:
    assert {ItemEvent.RETRY, *BY_HAND} <= set(events_from(state))


def test_a_settled_item_is_claimed_by_nobody() -> None:
    assert not any(event is ItemEvent.CLAIM for state, event in MOVES if state in SETTLED)


def test_what_is_in_progress_cannot_be_closed_by_hand() -> None:
    assert not set(BY_HAND) - {ItemEvent.SUPERSEDE} & set(events_from(ItemState.IN_PROGRESS))


def test_one_event_leads_to_one_kind_of_end_wherever_it_comes_from() -> None:
    """`cancel` is CANCELLED from everywhere: an operator need not know the state to know what an act does.

    `revise` is no act: newer content of what is still waiting leaves it waiting.
    """
    for event in set(ItemEvent) - {ItemEvent.REVISE}:
        assert len({to for (_, said), to in MOVES.items() if said is event}) == 1


def test_an_in_doubt_item_is_never_queued_by_a_machine() -> None:
    """After a lost reply nothing is resent blindly: only a claim (to look it up) or a person moves it on."""
    queued = {event for (state, event), to in MOVES.items() if state is ItemState.IN_DOUBT and to is ItemState.QUEUED}
    assert queued == {ItemEvent.RETRY}
