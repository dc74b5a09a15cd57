"""An item's story in plain sentences, newest state first. Pure: rows in, sentences out; how a time is written is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import MappingProxyType
from typing import Any

from counterfoil.model.item import SENTENCES, SETTLED, ItemEvent, ItemState, events_from

Row = Mapping[str, Any]
When = Callable[[datetime], str]


@dataclass(frozen=True, slots=True)
class Story:
    """`now`: how it stands and who has it. `history`: what happened, oldest first. `ways`: commands that are legal now."""

    now: tuple[str, ...]
    history: tuple[str, ...]
    ways: tuple[str, ...]


_DID: Mapping[str, str] = MappingProxyType(
    {
        "accept": "was taken in",
        "hold": "was held back",
        "claim": "was taken by an attempt",
        "rescue": "was given back: its worker was gone or its lease had ended",
        "give_back": "was given back before anything was sent",
        "release": "was released",
        "retry": "was set to be tried again",
        "regenerate": "was set to be made anew and sent",
        "revise": "got newer content",
        "load": "was loaded",
        "receive": "got a receipt",
        "confirm": "was confirmed",
        "reopen": "was opened again by a contrary answer",
        "doubt": "was sent, and no reply came",
        "fail_temporarily": "failed for now",
        "fail": "was stopped",
        "review": "was set aside for a person's decision",
        "reject": "was refused by a rule",
        "supersede": "was found to be a duplicate",
        "transfer": "was handed over by hand",
        "archive": "was archived",
        "cancel": "was cancelled",
    }
)
_ACTS = {
    ItemEvent.RETRY: ("retry", "try it again now"),
    ItemEvent.RELEASE: ("release", "load it in spite of its verdict"),
    ItemEvent.CANCEL: ("cancel", "give it up"),
    ItemEvent.ARCHIVE: ("archive", "close it, never to be tried again"),
}


def explain(item: Row, events: Sequence[Row], attempts: Sequence[Row], *, now: datetime, when: When) -> Story:
    """The story of one item: its row with its case, its events and attempts, both oldest first."""
    return Story(tuple(_standing(item, attempts, now, when)), tuple(_history(events, when)), tuple(_ways(item)))


def _standing(item: Row, attempts: Sequence[Row], now: datetime, when: When) -> list[str]:
    state = ItemState(item["state"])
    said = [f"{SENTENCES[state]} Since {when(item['state_since'])}."]
    if item["problem"] and state is not ItemState.SUCCESS:
        said.append(f"{_ended(item['problem'])} (fault {item['fault']})" if item["fault"] else _ended(item["problem"]))
    if item["attempts"]:
        tries = f"{item['attempts']} time{'s' * (item['attempts'] != 1)}"
        since = f", the last time at {when(attempts[-1]['started_at'])}" if attempts else ""
        said.append(f"It was tried {tries} as an item{since}.")
    said += _owned(item, now, when) if item["case_id"] is not None else _due(item, state, attempts, now, when)
    if state is ItemState.TRANSFERRED and item["reference"]:
        said.append(f"Its reference there: {item['reference']}.")
    if item["superseded_by"] is not None:
        said.append(f"The one that counts is id:{item['superseded_by']}.")
    return said


def _owned(item: Row, now: datetime, when: When) -> list[str]:
    due = item["case_due_at"]
    verb = "was due" if due < now else "is due"
    return [f"It is owned by {item['case_owner']} (case {item['case_id']}), and {verb} {when(due)}."]


def _due(item: Row, state: ItemState, attempts: Sequence[Row], now: datetime, when: When) -> list[str]:
    at = item["next_action_at"]
    if at is None:
        return []
    if state is ItemState.IN_PROGRESS:
        held = attempts[-1] if attempts else None
        where = f" on {held['host']}, process {held['pid']}" if held and held["host"] else ""
        return [f"The attempt{where} holds it until {when(at)}."]
    if at <= now:
        return ["It is due now: a worker takes it as soon as one is free (`counterfoil up`)."]
    return [f"Next try at {when(at)}, by itself."]


def _history(events: Sequence[Row], when: When) -> list[str]:
    """A claim says nothing beside what became of it; the same failure many times in a row is one sentence."""
    told = [event for event in events if event["event"] != "claim"]
    said = []
    for _, same in groupby(told, key=lambda e: (e["event"], e["fault"], e["actor"] if e["reason"] else "")):
        some = list(same)
        said.append(_happened(some[0], some, when))
    return said


def _happened(first: Row, same: Sequence[Row], when: When) -> str:
    at = when(first["at"]) if len(same) == 1 else f"{when(first['at'])} to {when(same[-1]['at'])}"
    times = "" if len(same) == 1 else f" {len(same)} times"
    person = f" by {first['actor']}" if first["reason"] and first["event"] != "rescue" else ""
    run = f" in run {first['run_id']}" if first["run_id"] is not None and len(same) == 1 else ""
    why = first["reason"] or first["problem"] or ""
    return f"{at}: it {_DID[first['event']]}{times}{person}{run}{'. ' + _ended(why) if why else '.'}"


def _ended(sentence: str) -> str:
    return sentence if sentence.rstrip().endswith((".", "!", "?")) else f"{sentence.rstrip()}."


def _ways(item: Row) -> list[str]:
    state = ItemState(item["state"])
    legal = [
        event
        for event in events_from(state)
        if event in _ACTS and not (state in SETTLED and event is not ItemEvent.RETRY)
    ]
    return [f"counterfoil items {_ACTS[event][0]} id:{item['id']} --reason '…'   {_ACTS[event][1]}" for event in legal]
