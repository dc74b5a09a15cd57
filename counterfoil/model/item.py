"""The machine of an item: its states, its events, and the one table of legal moves.

No IO, no clock, no database import. The schema holds the same table (`item_move`); a test compares the two. Diagrams in the
docs are drawn from `MOVES`. Nobody infers an event from two states: the event is recorded and the state follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ItemState(StrEnum):
    """Where an item is. `NEW` is before its first event and never stored."""

    NEW = "NEW"
    WAITING = "WAITING"
    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    TEMPORARY_ERROR = "TEMPORARY_ERROR"
    IN_DOUBT = "IN_DOUBT"
    ACCEPTED = "ACCEPTED"
    REVIEW = "REVIEW"
    PERMANENT_ERROR = "PERMANENT_ERROR"
    SUCCESS = "SUCCESS"
    REJECTED = "REJECTED"
    TRANSFERRED = "TRANSFERRED"
    SUPERSEDED = "SUPERSEDED"
    ARCHIVED = "ARCHIVED"
    CANCELLED = "CANCELLED"


class ItemEvent(StrEnum):
    """What happened to an item. One verb each, the same in code, SQL, log, command and button."""

    ACCEPT = "accept"  # taken in, due at once
    HOLD = "hold"  # taken in or put back, not before a time
    CLAIM = "claim"  # one attempt has it, under a lease
    RESCUE = "rescue"  # its lease ended; due again
    GIVE_BACK = "give_back"  # its worker stopped in order, or the destination is closed: nothing was sent
    RELEASE = "release"  # a person (or a parent's receipt) lets it go on
    RETRY = "retry"  # a person or a schedule wants it tried now, as it is
    REGENERATE = "regenerate"  # a person wants its file made anew, and then sent
    REVISE = "revise"  # newer content was handed in under the same key
    LOAD = "load"  # the record is in the destination
    RECEIVE = "receive"  # the other side gave a receipt
    CONFIRM = "confirm"  # the last system confirmed it
    REOPEN = "reopen"  # a later contrary answer
    DOUBT = "doubt"  # the request left, no reply came
    FAIL_TEMPORARILY = "fail_temporarily"  # failed, will be retried
    FAIL = "fail"  # cannot go on without a person
    REVIEW = "review"  # verdict WARNING: a person decides
    REJECT = "reject"  # verdict INVALID
    SUPERSEDE = "supersede"  # a duplicate of another
    TRANSFER = "transfer"  # handed over by hand
    ARCHIVE = "archive"  # closed by a person, never sent again
    CANCEL = "cancel"  # closed by a person before it was done


S, E = ItemState, ItemEvent

SETTLED: frozenset[ItemState] = frozenset({S.SUCCESS, S.REJECTED, S.TRANSFERRED, S.SUPERSEDED, S.ARCHIVED, S.CANCELLED})
OWNED: frozenset[ItemState] = frozenset({S.REVIEW, S.PERMANENT_ERROR})
DUE: frozenset[ItemState] = frozenset({S.WAITING, S.QUEUED, S.IN_PROGRESS, S.TEMPORARY_ERROR, S.ACCEPTED})
EITHER: frozenset[ItemState] = frozenset({S.IN_DOUBT})  # due where a look-up exists, else owned

# What a person may do to anything that is neither settled nor held by an attempt.
_BY_HAND: Mapping[ItemEvent, ItemState] = {
    E.TRANSFER: S.TRANSFERRED,
    E.ARCHIVE: S.ARCHIVED,
    E.CANCEL: S.CANCELLED,
    E.SUPERSEDE: S.SUPERSEDED,
}
# What a run of a sync finds out about a record, whatever was known of it before.
_BY_RUN: Mapping[ItemEvent, ItemState] = {
    E.FAIL_TEMPORARILY: S.TEMPORARY_ERROR,
    E.FAIL: S.PERMANENT_ERROR,
    E.REVIEW: S.REVIEW,
    E.REJECT: S.REJECTED,
}
_LOADED: Mapping[ItemEvent, ItemState] = {E.LOAD: S.SUCCESS}
# What sends a delivery anew, with other content than before.
_AGAIN: Mapping[ItemEvent, ItemState] = {E.REVISE: S.QUEUED, E.REGENERATE: S.QUEUED}

_TABLE: Mapping[ItemState, Mapping[ItemEvent, ItemState]] = {
    S.NEW: {E.ACCEPT: S.QUEUED, E.HOLD: S.WAITING, E.CONFIRM: S.SUCCESS, **_BY_RUN},
    S.WAITING: {E.RELEASE: S.QUEUED, E.HOLD: S.WAITING, E.REVISE: S.WAITING, **_BY_HAND, **_BY_RUN, **_LOADED},
    S.QUEUED: {E.CLAIM: S.IN_PROGRESS, E.HOLD: S.WAITING, E.REVISE: S.QUEUED, **_BY_HAND, **_BY_RUN, **_LOADED},
    S.IN_PROGRESS: {
        E.RESCUE: S.QUEUED,
        E.GIVE_BACK: S.QUEUED,
        E.RECEIVE: S.ACCEPTED,
        E.CONFIRM: S.SUCCESS,
        E.DOUBT: S.IN_DOUBT,
        E.HOLD: S.WAITING,
        E.SUPERSEDE: S.SUPERSEDED,
        **_BY_RUN,
        **_LOADED,
    },
    S.TEMPORARY_ERROR: {E.CLAIM: S.IN_PROGRESS, E.RETRY: S.QUEUED, **_AGAIN, **_BY_HAND, **_BY_RUN, **_LOADED},
    S.IN_DOUBT: {
        E.CLAIM: S.IN_PROGRESS,
        E.RETRY: S.QUEUED,
        E.REVISE: S.IN_DOUBT,
        E.RECEIVE: S.ACCEPTED,
        E.CONFIRM: S.SUCCESS,
        E.FAIL: S.PERMANENT_ERROR,
        **_BY_HAND,
    },
    S.ACCEPTED: {
        E.CONFIRM: S.SUCCESS,
        E.RECEIVE: S.ACCEPTED,
        E.FAIL_TEMPORARILY: S.TEMPORARY_ERROR,
        E.FAIL: S.PERMANENT_ERROR,
        **_AGAIN,
        **_BY_HAND,
    },
    S.REVIEW: {E.RELEASE: S.QUEUED, E.RETRY: S.QUEUED, **_BY_HAND, **_BY_RUN, **_LOADED},
    S.PERMANENT_ERROR: {
        E.RETRY: S.QUEUED,
        E.RELEASE: S.QUEUED,
        E.CONFIRM: S.SUCCESS,  # the other side said so after all, later than its deadline
        **_AGAIN,
        **_BY_HAND,
        **_BY_RUN,
        **_LOADED,
    },
    S.SUCCESS: {E.REOPEN: S.ACCEPTED, **_AGAIN, **_BY_RUN},
    S.REJECTED: {E.RETRY: S.QUEUED, **_AGAIN, **_BY_RUN, **_LOADED},
    S.SUPERSEDED: {**_BY_RUN, **_LOADED},
    # Closed by a person: nothing moves them again, no run, no worker, no second person.
    S.TRANSFERRED: {},
    S.ARCHIVED: {},
    S.CANCELLED: {},
}

MOVES: Mapping[tuple[ItemState, ItemEvent], ItemState] = MappingProxyType(
    {(state, event): to for state, row in _TABLE.items() for event, to in row.items()}
)

SENTENCES: Mapping[ItemState, str] = MappingProxyType(
    {
        S.NEW: "Not taken in yet.",
        S.WAITING: "Waiting: held until its time, or until its parent has a receipt.",
        S.QUEUED: "Queued: due now, the next free worker takes it.",
        S.IN_PROGRESS: "In progress: one attempt has it, under a lease.",
        S.TEMPORARY_ERROR: "Failed for now: it is tried again by itself.",
        S.IN_DOUBT: "In doubt: the request left and no reply came; it is looked up before anything is sent again.",
        S.ACCEPTED: "Accepted by the other side: its confirmation is being polled.",
        S.REVIEW: "In review: a person decides whether it is loaded.",
        S.PERMANENT_ERROR: "Stopped: it cannot go on without a person.",
        S.SUCCESS: "Done: the last system has it.",
        S.REJECTED: "Rejected: a rule refuses it; it is counted and not loaded.",
        S.TRANSFERRED: "Handed over by hand.",
        S.SUPERSEDED: "A duplicate: another one counts.",
        S.ARCHIVED: "Archived by a person: never tried again.",
        S.CANCELLED: "Cancelled by a person: never tried again.",
    }
)


def next_state(state: ItemState, event: ItemEvent) -> ItemState | None:
    """The state after `event`, or None where the move is illegal."""
    return MOVES.get((state, event))


def events_from(state: ItemState) -> tuple[ItemEvent, ...]:
    """The events that are legal in `state`, in the order of the table."""
    return tuple(_TABLE[state])
