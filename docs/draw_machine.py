"""`python docs/draw_machine.py` writes reference/states.md and reference/events.md anew from the table of moves.

The words stand here, the facts in counterfoil.model.item; a test holds the pages to both.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from counterfoil.model.item import DUE, EITHER, MOVES, OWNED, SENTENCES, SETTLED, ItemEvent, ItemState, events_from
from counterfoil.model.run import ACCOUNTED_RUN, OPEN_RUN, RunState

E = ItemEvent
REFERENCE = Path(__file__).parent / "reference"

EVENTS = {
    E.ACCEPT: ("taken in, due at once", "a program, a run"),
    E.HOLD: ("taken in or put back, not before a time", "a program, a worker"),
    E.CLAIM: ("one attempt has it, under a lease", "a worker"),
    E.RESCUE: ("its lease ended or its worker is gone; due again", "any worker, for another"),
    E.GIVE_BACK: ("its worker stopped in order, or the way is closed: nothing was sent, due again", "a worker"),
    E.REGENERATE: ("a person wants its file made anew, and then sent", "a person"),
    E.REVISE: ("newer content was handed in under the same key", "a program"),
    E.RELEASE: ("a person lets it go on as it is", "a person"),
    E.RETRY: ("a person wants it tried now", "a person"),
    E.LOAD: ("the record is in the destination", "a run, a worker"),
    E.RECEIVE: ("the other side gave a receipt", "a worker"),
    E.CONFIRM: ("the last system confirmed it", "a worker"),
    E.REOPEN: ("a later contrary answer", "a worker"),
    E.DOUBT: ("the request left, no reply came", "a worker"),
    E.FAIL_TEMPORARILY: ("failed; it is tried again by itself", "a run, a worker"),
    E.FAIL: ("cannot go on without a person", "a run, a worker"),
    E.REVIEW: ("verdict WARNING: a person decides", "a run, a worker"),
    E.REJECT: ("verdict INVALID: a rule refuses it", "a run, a worker"),
    E.SUPERSEDE: ("a duplicate of another, which it names", "a person, a worker"),
    E.TRANSFER: ("handed over by hand, with a reference", "a person"),
    E.ARCHIVE: ("closed by a person, never tried again", "a person"),
    E.CANCEL: ("closed by a person before it was done", "a person"),
}
RUNS = {
    RunState.QUEUED: "created; no worker has it yet",
    RunState.RUNNING: "one worker has it, under a lease",
    RunState.COMPLETED: "every record found is loaded, unchanged, or rejected by a rule",
    RunState.PARTIAL: "the sum is right, but some records are items that failed or wait for a person",
    RunState.EMPTY: "nothing was found where there used to be many",
    RunState.FAILED: "the list could not be read to its end",
    RunState.CANCELLED: "stopped by a person",
}
# Legal nearly everywhere: in a drawing they would hide the rest, so they have tables of their own.
EVERYWHERE = (E.TRANSFER, E.ARCHIVE, E.CANCEL, E.SUPERSEDE, E.FAIL, E.FAIL_TEMPORARILY, E.REVIEW, E.REJECT, E.LOAD)
MADE = "<!-- Written by docs/draw_machine.py from counterfoil/model/item.py: change those. -->"


def code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words) or "none"


def kind(state: ItemState) -> str:
    for kinds, word in ((SETTLED, "settled"), (DUE, "a known time"), (OWNED, "a case"), (EITHER, "a known time")):
        if state in kinds:
            return word
    return "not stored"


def drawing() -> str:
    """The way through the states, as mermaid draws it; events between the same two states share an arrow."""
    drawn = [
        (a.name, b.name, event.value)
        for (a, event), b in MOVES.items()
        if event not in EVERYWHERE or a is ItemState.NEW
    ]
    drawn += [
        (ItemState.IN_PROGRESS.name, MOVES[ItemState.IN_PROGRESS, event].name, event.value) for event in EVERYWHERE[4:]
    ]
    arrows = [
        f"  {'[*]' if one == 'NEW' else one} --> {other}: {', '.join(event for *_, event in group)}"
        for (one, other), group in groupby(sorted(drawn, key=lambda arrow: arrow[:2]), key=lambda arrow: arrow[:2])
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])


def states_page() -> str:
    rows = [
        f"| `{state}` | {SENTENCES[state]} | {kind(state)} | {code(events_from(state))} |"
        for state in ItemState
        if state is not ItemState.NEW
    ]
    runs = [
        f"| `{state}` | {meaning} | {'not yet' if state in OPEN_RUN else 'may move' if state in ACCOUNTED_RUN else 'stays'} |"
        for state, meaning in RUNS.items()
    ]
    return f"""# States

{MADE}

## Of an item

An item is settled, or due at a known time, or owned by a case. The database refuses a row that is none of the three, or two of them.

| state | in a sentence | accounted for by | events that move it on |
|---|---|---|---|
{chr(10).join(rows)}

An item that nothing moves on was closed by a person. No run, no worker and no second person moves it again.

The way through, drawn without what may happen nearly everywhere (by hand: {code(EVERYWHERE[:4])};
found by a run: {code(EVERYWHERE[4:])}):

{drawing()}

All legal moves by event: [events](events.md).

## Of a run

| state | meaning | watermark |
|---|---|---|
{chr(10).join(runs)}

`completed`, `partial` and `empty` are refused by the database while the sum does not hold:
`listed = found + duplicates` and `found = inserted + updated + unchanged + rejected + review + failed`.
"""


def events_page() -> str:
    rows = []
    for event, (meaning, who) in EVENTS.items():
        origins = [a for (a, said), _ in MOVES.items() if said is event]
        to = dict.fromkeys(b for (_, said), b in MOVES.items() if said is event)
        rows.append(f"| `{event}` | {meaning} | {who} | {code(origins)} | {code(to)} |")
    return f"""# Events

{MADE}

What moves an item. Each move is recorded with its event, the actor and, from a person, the reason; nobody infers an event from two states.
The same words are used in code, SQL, log and commands. `NEW` is an item before its first event; it is never stored.

| event | what happened | by | from | to |
|---|---|---|---|---|
{chr(10).join(rows)}

An event leads to the same state wherever it happens; only `revise` leaves what has not left, or is in doubt, where it is.
A move that is not in this table is refused (`illegal`). What is `IN_PROGRESS` moves
only for the attempt that has it, and an attempt that lost its item moves nothing (`lease_lost`). The same failure again is no move (`same`).

The table stands in the database too, as `counterfoil.item_move`.
"""


def pages() -> dict[Path, str]:
    return {REFERENCE / "states.md": states_page(), REFERENCE / "events.md": events_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
