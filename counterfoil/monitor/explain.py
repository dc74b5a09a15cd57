"""An item's story in plain sentences, newest state first. Pure: rows in, sentences out; how a time is written is a parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import MappingProxyType
from typing import Any

from counterfoil.model.item import SENTENCES, SETTLED, ItemEvent, ItemState, events_from

LEDGER = "ledger"  # the actor of what follows from another item's move
Row = Mapping[str, Any]
When = Callable[[datetime], str]


@dataclass(frozen=True, slots=True)
class Story:
    """`now`: how it stands and who has it. `history`: what happened, oldest first. `exchanges`: each request that left, and its answer.
    `steps`: its way through other systems. `ways`: commands that are legal now."""

    now: tuple[str, ...]
    history: tuple[str, ...]
    ways: tuple[str, ...]
    exchanges: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivered:
    """What is known of a delivery beside its item: exchanges and steps, oldest first, what is being asked about, its content's file."""

    exchanges: Sequence[Row] = ()
    steps: Sequence[Row] = ()
    poll: Row | None = None
    content: Row | None = None
    children: Sequence[Row] = ()
    gate: Row | None = None


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
        "doubt": "may have arrived or not",
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
    ItemEvent.REGENERATE: ("regenerate", "have its file made anew, and send it"),
    ItemEvent.RELEASE: ("release", "let it go on as it is"),
    ItemEvent.TRANSFER: ("transfer", "note that it was handed over by hand (--reference)"),
    ItemEvent.CANCEL: ("cancel", "give it up"),
    ItemEvent.ARCHIVE: ("archive", "close it, never to be tried again"),
}


def explain(
    item: Row,
    events: Sequence[Row],
    attempts: Sequence[Row],
    *,
    now: datetime,
    when: When,
    delivered: Delivered = Delivered(),
) -> Story:
    """The story of one item: its row with its case, its events and attempts, both oldest first, and what was exchanged about it."""
    return Story(
        (*_standing(item, attempts, now, when, delivered.gate), *_delivered(item, delivered, when)),
        tuple(_history(events, when)),
        tuple(_ways(item)),
        tuple(_exchanges(delivered.exchanges, when)),
        tuple(_steps(delivered.steps, when)),
    )


def _standing(item: Row, attempts: Sequence[Row], now: datetime, when: When, gate: Row | None = None) -> list[str]:
    state = ItemState(item["state"])
    said = [f"{SENTENCES[state]} Since {when(item['state_since'])}."]
    if item["problem"] and state is not ItemState.SUCCESS:
        said.append(f"{_ended(item['problem'])} (fault {item['fault']})" if item["fault"] else _ended(item["problem"]))
    if item["attempts"]:
        tries = f"{item['attempts']} time{'s' * (item['attempts'] != 1)}"
        since = f", the last time at {when(attempts[-1]['started_at'])}" if attempts else ""
        said.append(f"It was tried {tries} as an item{since}.")
    said += _owned(item, now, when) if item["case_id"] is not None else _due(item, state, attempts, now, when, gate)
    if state is ItemState.TRANSFERRED and item["reference"]:
        said.append(f"Its reference there: {item['reference']}.")
    if item["superseded_by"] is not None:
        said.append(f"The one that counts is id:{item['superseded_by']}.")
    return said


def _owned(item: Row, now: datetime, when: When) -> list[str]:
    due = item["case_due_at"]
    verb = "was due" if due < now else "is due"
    return [f"It is owned by {item['case_owner']} (case {item['case_id']}), and {verb} {when(due)}."]


def _due(
    item: Row, state: ItemState, attempts: Sequence[Row], now: datetime, when: When, gate: Row | None = None
) -> list[str]:
    at = item["next_action_at"]
    if at is None:
        return []
    if state is ItemState.IN_PROGRESS:
        held = attempts[-1] if attempts else None
        where = f" on {held['host']}, process {held['pid']}" if held and held["host"] else ""
        return [f"The attempt{where} holds it until {when(at)}."]
    if state is ItemState.WAITING and item["parent_id"] is not None:
        return [f"A person looks at it if that has not come by {when(at)}."]
    if state is ItemState.ACCEPTED:
        return [f"A person has it if nothing is confirmed by {when(at)}."]
    if gate is not None and gate["closed_until"] is not None and gate["closed_until"] > now:
        return [f"Its destination is closed until {when(gate['closed_until'])}: {gate['reason']}."]
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
    own = first["event"] == "rescue" or first["actor"] == LEDGER or first["event"] == "hold"
    person = f" by {first['actor']}" if first["reason"] and not own else ""
    run = f" in run {first['run_id']}" if first["run_id"] is not None and len(same) == 1 else ""
    why = first["reason"] or first["problem"] or ""
    return f"{at}: it {_DID[first['event']]}{times}{person}{run}{_because(why, own)}"


def _because(why: str, own: bool) -> str:
    """What the ledger says of its own acts goes on with the sentence; a person's reason or another system's words stand alone."""
    return f"{': ' if own else '. '}{_ended(why)}" if why else "."


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


# --- deliveries -----------------------------------------------------------------------------------------------


def _delivered(item: Row, known: Delivered, when: When) -> list[str]:
    """Receipt, parent, doubt, what is being asked, children: each a sentence where there is something to say."""
    said = []
    if item["receipt"]:
        said.append(f"The other side has it as {item['receipt']}, since {when(item['receipt_at'])}.")
    if item["parent_id"] is not None:
        has = f"has the receipt {item['parent_receipt']}" if item["parent_receipt"] else "has no receipt yet"
        said.append(f"It belongs to {item['parent_key']} ({item['parent_state']}), which {has}.")
    if item["doubt_at"] is not None:
        said.append(f"Since {when(item['doubt_at'])} it may have arrived without our knowing.")
    if known.poll is not None:
        said.append(_asked(known.poll, when))
    if known.content is not None and (file := known.content["rendered"] or known.content["file"]) is not None:
        size = f", {file['size']:,} bytes" if file.get("size") is not None else ""
        said.append(f"Its file: {file['name']}{size}{', sha256 ' + file['sha256'] if file.get('sha256') else ''}.")
    if known.children:
        said.append(_children(known.children))
    return said


def _asked(poll: Row, when: When) -> str:
    last = (
        f"Last asked about at {when(poll['polled_at'])}: {poll['status'] or 'it was not known'}."
        if poll["polled_at"]
        else "Not asked about yet."
    )
    what = "again, as a success may be taken back," if poll["phase"] == "recheck" else "next"
    return f"{last} It is asked about {what} at {when(poll['next_poll_at'])}."


def _children(children: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for child in children:
        counts[child["state"]] = counts.get(child["state"], 0) + 1
    told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return f"Its children: {told}."


def _exchanges(exchanges: Sequence[Row], when: When) -> list[str]:
    return [_exchange(one, when) for one in exchanges]


_KINDS = {"send": "Sent", "look_up": "Looked up", "poll": "Asked", "relay": "Passed on"}


def _exchange(one: Row, when: When) -> str:
    answer = f"answered {one['status']}" if one["status"] is not None else "no answer came"
    sent = f", {one['sent_bytes']:,} bytes sent (sha256 {one['sent_sha256'][:12]}…)" if one["sent_sha256"] else ""
    fault = f", {one['fault']}" if one["fault"] else ""
    return (
        f"{when(one['at'])}: {_KINDS[one['kind']]}: {one['method']} {one['address']} {answer} after {one['took_ms']:,} ms"
        f"{sent}: {one['outcome']}{fault}."
    )


def _steps(steps: Sequence[Row], when: When) -> list[str]:
    """A line for each look that found something new."""
    said: list[str] = []
    for at, some in groupby(steps, key=lambda row: row["at"]):
        rows = list(some)
        whole = next((row for row in rows if not row["step"]), rows[0])
        parts = ", ".join(f"{row['step']} {row['status']}" for row in rows if row["step"])
        error = next((f". {row['error']}" for row in rows if row["error"]), "")
        said.append(f"{when(at)}: {whole['status']}{': ' + parts if parts else ''}{error}")
    return said
