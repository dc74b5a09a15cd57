"""The story of an item, from a real ledger and from rows made up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from counterfoil.ledger import items
from counterfoil.model.item import ItemEvent, ItemState
from counterfoil.monitor.explain import _DID, Story, explain
from tests.support import act, register, row_of

NOW = datetime(2030, 1, 1, 14, 3, tzinfo=UTC)


def when(moment: datetime) -> str:
    return f"{moment:%H:%M}"


def _item(state: ItemState, **other: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ["problem", "fault", "case_id", "case_owner", "case_due_at", "next_action_at", "superseded_by", "reference",
         "receipt", "receipt_at", "parent_id", "doubt_at"]
    )  # fmt: skip
    return {"id": 17, "state": state.value, "state_since": NOW, "attempts": 0, **nothing, **other}


def _event(event: ItemEvent, at: datetime = NOW, **other: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(["reason", "problem", "fault", "run_id"])
    return {"event": event.value, "at": at, "actor": "run", **nothing, **other}


async def _story(app: Any, key: str) -> Story:
    row = (await items.get(app, flow="pets", key=key))[0]
    events = await items.list_events(app, "pets", row["id"])
    attempts = await items.list_attempts(app, "pets", row["id"])
    return explain(row, events, attempts, now=row["state_since"] + timedelta(minutes=1), when=when)


async def test_an_item_that_was_stopped(app: Any) -> None:
    await register(app, "pets")
    await act(app, "pets", ItemEvent.FAIL_TEMPORARILY, "a", fault="http_503", problem="The source answered HTTP 503.")
    await act(app, "pets", ItemEvent.RETRY, "a", actor="ana@desk")
    await act(app, "pets", ItemEvent.FAIL, "a", fault="http_400", problem="The source answered HTTP 400.")
    story = await _story(app, "a")
    item = await row_of(app, "a")
    assert story.now[0].startswith("Stopped: it cannot go on without a person.")
    assert story.now[1] == "The source answered HTTP 400. (fault http_400)"
    assert story.now[-1].startswith(f"It is owned by operators (case {item['case_id']}), and is due ")
    assert [line.partition(": ")[2] for line in story.history] == [
        "it failed for now. The source answered HTTP 503.",
        "it was set to be tried again.",
        "it was stopped. The source answered HTTP 400.",
    ]
    assert any(way.startswith(f"counterfoil items retry id:{item['id']} ") for way in story.ways)


def test_the_same_failure_many_times_is_one_sentence() -> None:
    times = [NOW + timedelta(minutes=n) for n in range(4)]
    failed = [_event(ItemEvent.FAIL_TEMPORARILY, at, fault="http_503", problem="HTTP 503") for at in times]
    events = [event for one in failed for event in (_event(ItemEvent.CLAIM), one)]
    story = explain(_item(ItemState.TEMPORARY_ERROR, next_action_at=NOW), events, [], now=NOW, when=when)
    assert story.history == ("14:03 to 14:06: it failed for now 4 times. HTTP 503.",)


def test_an_act_by_hand_says_who_and_why() -> None:
    event = _event(ItemEvent.ARCHIVE, actor="ana@desk", reason="closed account")
    story = explain(_item(ItemState.ARCHIVED), [event], [], now=NOW, when=when)
    assert story.history == ("14:03: it was archived by ana@desk. closed account.",)
    assert story.ways == ()


def test_when_it_is_due() -> None:
    later = explain(
        _item(ItemState.TEMPORARY_ERROR, next_action_at=NOW + timedelta(minutes=2)), [], [], now=NOW, when=when
    )
    assert later.now[-1] == "Next try at 14:05, by itself."
    due = explain(_item(ItemState.QUEUED, next_action_at=NOW), [], [], now=NOW, when=when)
    assert due.now[-1].startswith("It is due now")


def test_who_holds_it() -> None:
    attempt = {"started_at": NOW, "host": "host-1", "pid": 42}
    item = _item(ItemState.IN_PROGRESS, next_action_at=NOW + timedelta(minutes=1), attempts=1)
    story = explain(item, [], [attempt], now=NOW, when=when)
    assert story.now[-1] == "The attempt on host-1, process 42 holds it until 14:04."


@pytest.mark.parametrize("event", ItemEvent)
def test_every_event_has_words(event: ItemEvent) -> None:
    assert event.value in _DID


@pytest.mark.parametrize("state", [state for state in ItemState if state is not ItemState.NEW])
def test_every_state_can_be_told(state: ItemState) -> None:
    item = _item(state, next_action_at=NOW, case_id=3, case_owner="operators", case_due_at=NOW)
    assert explain(item, [], [], now=NOW, when=when).now
