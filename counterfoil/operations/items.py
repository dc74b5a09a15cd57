"""What a person may do to items: retry, regenerate, release, transfer, cancel, archive. One function for all; a chunk is a transaction.

The ledger judges every single move (state, fence, legality); here stands only who is meant, and what was said about each. Killed between
two chunks: the chunks done stay done with their events, and the same command again skips them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from counterfoil.ledger import flows, items
from counterfoil.ledger.items import Move, Moved
from counterfoil.ledger.pool import Connection, Ledger
from counterfoil.model.delivery import Lane
from counterfoil.model.errors import NotFoundError, UsageError
from counterfoil.model.item import SENTENCES, ItemEvent, ItemState, next_state

CHUNK = 500
SHOWN = 10  # names of a file that nobody knows, told at once

ACTS: Mapping[str, ItemEvent] = MappingProxyType(
    {
        "retry": ItemEvent.RETRY,
        "regenerate": ItemEvent.REGENERATE,
        "release": ItemEvent.RELEASE,
        "transfer": ItemEvent.TRANSFER,
        "cancel": ItemEvent.CANCEL,
        "archive": ItemEvent.ARCHIVE,
    }
)
ARRIVED = frozenset({ItemState.SUCCESS, ItemState.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are meant. Without a state: those that are unfinished."""

    flow: str | None = None
    state: ItemState | None = None
    fault: str | None = None
    case: int | None = None
    kind: str | None = None
    group: str | None = None

    @property
    def empty(self) -> bool:
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Target:
    """An item an act is meant for, as it stood when it was found."""

    id: int
    flow: str
    key: str
    state: ItemState
    kind: str = "record"
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Touched:
    """What became of one target. `changed`: it moved, or would. `why` is a sentence; of one that changes, what to know before."""

    target: Target
    changed: bool
    to: ItemState
    why: str = ""


@dataclass(frozen=True, slots=True)
class Doing:
    """How an act is done. `reference`: where it was handed over. `again`: also what has arrived, though it may be there twice then."""

    actor: str
    reason: str
    reference: str | None = None
    lane: Lane | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Select:
    """Targets by name (`references`: ids or keys) or by filter, never both."""

    references: tuple[str, ...] = ()
    filter: Filter = field(default_factory=Filter)

    def __post_init__(self) -> None:
        if not self.references and self.filter.empty:
            raise UsageError(
                "Nothing says which items are meant.",
                "Give an id, a key, --file, or a filter: --flow, --state, --fault, --case, --kind, --group.",
            )


async def count(ledger: Ledger, select: Select) -> int:
    """How many items `select` means now."""
    return sum([len(chunk) async for chunk in _found(ledger, select)])


async def preview(ledger: Ledger, act: str, select: Select, *, again: bool = False) -> AsyncIterator[list[Touched]]:
    """What `act` would do to each item meant, in chunks; changes nothing."""
    async for chunk in _found(ledger, select):
        async with ledger.session() as session:
            twice = frozenset() if again else await _would_be_twice(session, ACTS[act], chunk)
        yield [_twice(target) if target.id in twice else _would(ACTS[act], target) for target in chunk]


async def act(ledger: Ledger, name: str, select: Select, doing: Doing) -> AsyncIterator[list[Touched]]:
    """Do it, a chunk a transaction, and tell what became of each item. Raises UsageError for a transfer without its reference."""
    if name == "transfer" and not doing.reference:
        raise UsageError(
            "A transfer needs the reference it has there; children and proofs go by it.", "Add --reference ID."
        )
    async for chunk in _found(ledger, select):

        async def work(targets: Sequence[Target] = chunk) -> list[Touched]:
            async with ledger.transaction() as connection:
                return await _act(connection, ACTS[name], targets, doing)

        yield await ledger.patiently(work)


async def _act(connection: Connection, event: ItemEvent, targets: Sequence[Target], doing: Doing) -> list[Touched]:
    twice = frozenset() if doing.again else await _would_be_twice(connection, event, targets)
    by_flow: dict[str, list[Target]] = defaultdict(list)
    for target in targets:
        if target.id not in twice:
            by_flow[target.flow].append(target)
    told: dict[int, Moved] = {}
    for flow, some in sorted(by_flow.items()):
        moves = [Move(event, id=target.id, reference=doing.reference, lane=doing.lane) for target in some]
        moved = await items.move(connection, flow, moves, actor=doing.actor, reason=doing.reason)
        told |= {one.id: one for one in moved}
    return [_twice(target) if target.id in twice else _became(event, target, told.get(target.id)) for target in targets]


async def _would_be_twice(session: Connection, event: ItemEvent, targets: Sequence[Target]) -> frozenset[int]:
    """Those that have arrived, and whose kind knows no update: sent again, they would be there twice."""
    arrived = [target for target in targets if event is ItemEvent.REGENERATE and target.state in ARRIVED]
    updating = {
        (flow, row["kind"])
        for flow in sorted({target.flow for target in arrived})
        for row in await flows.list_kinds(session, flow)
        if row["updates"]
    }
    return frozenset(target.id for target in arrived if (target.flow, target.kind) not in updating)


def _twice(target: Target) -> Touched:
    why = "It has arrived; sent again, it would be there twice. --again sends it all the same."
    return Touched(target, False, target.state, why)


def _became(event: ItemEvent, target: Target, moved: Moved | None) -> Touched:
    if moved is None:
        return Touched(target, False, target.state, "It is gone from the ledger.")
    if moved.moved:
        return Touched(target, True, moved.to_state)
    return Touched(target, False, moved.from_state, _why_not(event, moved.from_state))


def _would(event: ItemEvent, target: Target) -> Touched:
    to = next_state(target.state, event)
    if to is None:
        return Touched(target, False, target.state, _why_not(event, target.state))
    return Touched(target, True, to, _MAY_BE_THERE if target.doubtful and event is ItemEvent.RETRY else "")


_MAY_BE_THERE = "It may have arrived already. Where its flow can look it up, that is done first; else look there before you retry it."


def _why_not(event: ItemEvent, state: ItemState) -> str:
    if state is ItemState.IN_PROGRESS:
        return "An attempt has it; it can be touched when that has ended or its lease is over."
    return f"{SENTENCES[state]} `{event.value}` changes nothing there."


# --- who is meant ---------------------------------------------------------------------------------------------


async def _found(ledger: Ledger, select: Select) -> AsyncIterator[list[Target]]:
    if select.references:
        references = list(dict.fromkeys(select.references))
        for at in range(0, len(references), CHUNK):
            yield await _named(ledger, references[at : at + CHUNK], select.filter.flow)
        return
    before: int | None = None
    while rows := await _page(ledger, select.filter, before):
        before = rows[-1]["id"]
        yield _targets(rows)


async def _page(ledger: Ledger, meant: Filter, before: int | None) -> Sequence[Mapping[str, Any]]:
    async with ledger.session() as session:
        return await items.list_(
            session,
            flow=meant.flow,
            state=meant.state.value if meant.state else None,
            fault=meant.fault,
            case_id=meant.case,
            kind=meant.kind,
            group=meant.group,
            unfinished=meant.state is None,
            before=before,
            limit=CHUNK,
        )


def _targets(rows: Iterable[Mapping[str, Any]]) -> list[Target]:
    return [
        Target(row["id"], row["flow"], row["key"], ItemState(row["state"]), row["kind"], row["doubt_at"] is not None)
        for row in rows
    ]


async def _named(ledger: Ledger, references: Sequence[str], flow: str | None) -> list[Target]:
    found: list[Mapping[str, Any]] = []
    unknown: list[NotFoundError] = []
    async with ledger.session() as session:
        for reference in references:
            try:
                found.append(await one(session, reference, flow))
            except NotFoundError as error:
                unknown.append(error)
    if len(unknown) == 1:
        raise unknown[0]
    if unknown:
        raise _many_unknown(unknown)
    return _targets(found)


def _many_unknown(errors: Sequence[NotFoundError]) -> NotFoundError:
    more = f" … and {len(errors) - SHOWN:,} more are unknown" if len(errors) > SHOWN else ""
    return NotFoundError(" ".join(error.problem for error in errors[:SHOWN]) + more, errors[0].remedy)


async def one(session: Connection, reference: str, flow: str | None = None) -> Mapping[str, Any]:
    """The item with this key, this receipt, or this id; `id:17`, `key:17` and `receipt:17` say which.

    Raises NotFoundError, or UsageError where more than one item could be meant: nothing is guessed.
    """
    said, _, rest = reference.partition(":")
    named = said if said in ("id", "key", "receipt") else ""
    by_key = rest if named == "key" else None if named else reference
    by_receipt = rest if named == "receipt" else None if named else reference
    by_id = rest if named == "id" else "" if named else reference
    rows = []
    if by_key is not None or by_receipt is not None:
        rows = list(await items.get(session, flow=flow, key=by_key, receipt=by_receipt))
    if by_id.isdecimal() and len(by_id) < 19:
        found = await items.get(session, item_id=int(by_id))
        rows += [row for row in found if flow in (None, row["flow"])]
    rows = list({row["id"]: row for row in rows}.values())
    if len(rows) > 1:
        meant = " and ".join(f"id:{row['id']} ({row['flow']}, key {row['key']})" for row in rows)
        raise UsageError(f"`{reference}` may mean {meant}.", "Write id:NUMBER, or key:KEY with --flow NAME.")
    if not rows:
        where = f" of flow {flow}" if flow else ""
        raise NotFoundError(
            f"There is no item `{reference}`{where}.",
            "A record that was simply loaded has no item: `counterfoil items list` shows those that deviated.",
        )
    return rows[0]


# --- --where ---------------------------------------------------------------------------------------------------

_WORDS = ("flow", "state", "fault", "case", "kind", "group")


def parse_where(text: str) -> Filter:
    """`state=PERMANENT_ERROR fault=not_unique` as a Filter. Raises UsageError for anything it does not understand."""
    given: dict[str, str] = {}
    for part in text.split():
        name, equals, value = part.partition("=")
        if not equals or not value or name not in _WORDS:
            raise UsageError(
                f"`{part}` is no filter.", f"Write name=value with spaces between; names: {', '.join(_WORDS)}."
            )
        if name in given:
            raise UsageError(f"`{name}` stands twice in --where.", "Give it once.")
        given[name] = value
    return filter_of(**given)


def filter_of(
    flow: str | None = None,
    state: str | None = None,
    fault: str | None = None,
    case: str | int | None = None,
    kind: str | None = None,
    group: str | None = None,
) -> Filter:
    """A Filter from words as typed. Raises UsageError for a state or case that is none."""
    known = [known.value for known in ItemState if known is not ItemState.NEW]
    if state is not None and state.upper() not in known:
        raise UsageError(f"`{state}` is no state of an item.", f"States: {', '.join(known)}.")
    if case is not None and not str(case).isdecimal():
        raise UsageError(f"`{case}` is no number of a case.", "`counterfoil case list` shows them.")
    number = int(case) if case is not None else None
    return Filter(flow, ItemState(state.upper()) if state else None, fault, number, kind, group)
