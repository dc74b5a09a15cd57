"""`items retry | regenerate | release | transfer | cancel | archive`: acts by hand, each with a reason, shown before and told after."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, DryRunFlag, Reason, database, go
from counterfoil.cli.items import ALL, Meant
from counterfoil.cli.output import emit, say, show, table
from counterfoil.model.delivery import Lane
from counterfoil.model.errors import NotFoundError, UsageError
from counterfoil.operations import flows
from counterfoil.operations import items as operations
from counterfoil.operations.actor import actor_of, needed_reason
from counterfoil.operations.database import Database
from counterfoil.operations.items import Filter, Select, Touched

WITHOUT_YES = 100  # items one may touch without saying --yes, and that go in the lane of live work
SHOWN = 20

Names = Annotated[str, Parameter(help="Keys or ids of items; id:17 and key:17 say which.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Doing:
    """How it is done: options of every act."""

    file: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="A file with one key or id a line; - is stdin.")
    ] = None
    reason: Reason = None
    dry_run: DryRunFlag = False
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help=f"Needed for more than {WITHOUT_YES} items.")
    ] = False


AS_IT_IS = Doing()
LaneOption = Annotated[
    Literal["live", "bulk"] | None,
    Parameter(
        help=f"Lane of a delivery; without it bulk for more than {WITHOUT_YES} items, so that live work goes first."
    ),
]
_SAID = {
    "retry": "due again",
    "regenerate": "made anew and due",
    "transfer": "handed over",
    "release": "released and due",
    "cancel": "cancelled",
    "archive": "archived",
}


def retry(
    *items: Names, meant: Meant = ALL, lane: LaneOption = None, doing: Doing = AS_IT_IS, common: Common = COMMON
) -> int:
    """Have items tried again now, as they are: those named, those in a file, or all that match a filter.

    What may have arrived is looked up first, where its flow says how.
    """
    return _act("retry", items, meant.filter(), doing, common, Told(lane=lane))


def regenerate(
    *items: Names,
    meant: Meant = ALL,
    lane: LaneOption = None,
    again: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also what has arrived and would be there twice.")
    ] = False,
    doing: Doing = AS_IT_IS,
    common: Common = COMMON,
) -> int:
    """Have the files of items made anew, and sent. For what is wrong with the file itself; `retry` sends the same one."""
    return _act("regenerate", items, meant.filter(), doing, common, Told(lane=lane, again=again))


def release(*items: Names, meant: Meant = ALL, doing: Doing = AS_IT_IS, common: Common = COMMON) -> int:
    """Let items go on: in spite of their verdict (a record), or before their time (a delivery)."""
    return _act("release", items, meant.filter(), doing, common)


def transfer(
    *items: Names,
    reference: Annotated[str | None, Parameter(help="What it is called where it was handed over.")] = None,
    meant: Meant = ALL,
    doing: Doing = AS_IT_IS,
    common: Common = COMMON,
) -> int:
    """Note that items were handed over by hand, under a reference. Their children go on with it. It can't be undone."""
    return _act("transfer", items, meant.filter(), doing, common, Told(reference=reference))


def cancel(*items: Names, meant: Meant = ALL, doing: Doing = AS_IT_IS, common: Common = COMMON) -> int:
    """Give items up before they are done. It can't be undone: nothing moves them again."""
    return _act("cancel", items, meant.filter(), doing, common)


def archive(*items: Names, meant: Meant = ALL, doing: Doing = AS_IT_IS, common: Common = COMMON) -> int:
    """Close items; they are never tried again. It can't be undone: nothing moves them again."""
    return _act("archive", items, meant.filter(), doing, common)


@dataclass(frozen=True, slots=True)
class Told:
    """What only some acts are told."""

    lane: Literal["live", "bulk"] | None = None
    again: bool = False
    reference: str | None = None


def _act(
    name: str, named: tuple[str, ...], chosen: Filter, doing: Doing, common: Common, told: Told | None = None
) -> int:
    told = told or Told()
    select = _select(named, doing.file, chosen)
    why = None if doing.dry_run else needed_reason(doing.reason)
    if name == "transfer" and not told.reference:
        raise UsageError("A transfer needs the reference it has there.", "Add --reference ID.")

    async def work() -> int:
        async with database(common) as opened:
            number = await operations.count(opened.ledger, select)
            if not number:
                async with opened.ledger.session() as session:
                    await flows.require(session, select.filter.flow)
                raise NotFoundError("No item matches.", "`counterfoil items list` shows those unfinished.")
            if number > WITHOUT_YES and not (doing.yes or doing.dry_run):
                raise UsageError(f"That is {number:,} items.", "Look at them with --dry-run, then add --yes.")
            lane = told.lane or ("bulk" if number > WITHOUT_YES else None)
            touched = await _touch(opened, name, select, why, common, replace(told, lane=lane))
        return _tell(name, touched, doing.dry_run, common)

    return go(work())


async def _touch(
    opened: Database, name: str, select: Select, why: str | None, common: Common, told: Told
) -> list[Touched]:
    if why is None:
        chunks = operations.preview(opened.ledger, name, select, again=told.again)
    else:
        lane = Lane(told.lane) if told.lane else None
        actor = actor_of(common.settings())
        doing = operations.Doing(actor, why, reference=told.reference, lane=lane, again=told.again)
        chunks = operations.act(opened.ledger, name, select, doing)
    return [touched async for chunk in chunks for touched in chunk]


def _select(named: tuple[str, ...], file: str | None, chosen: Filter) -> Select:
    if named and file:
        raise UsageError("Items are named here and in --file.", "Use one of them.")
    references = named or (_read(file) if file else ())
    if references and chosen != Filter(flow=chosen.flow):
        raise UsageError("Items are named and a filter is given.", "Beside names only --flow has a meaning.")
    return Select(references, chosen)


def _read(file: str) -> tuple[str, ...]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{file} can't be read: {said}.", "Give a UTF-8 text file with one key a line.") from error
    found = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not found:
        raise UsageError(f"{file} names no item.", "Write one key or id a line.")
    return found


def _tell(name: str, touched: list[Touched], dry_run: bool, common: Common) -> int:
    changed = sum(one.changed for one in touched)
    if common.json:
        told = [_as_json(one) for one in touched]
        emit("act", act=name, dry_run=dry_run, meant=len(touched), changed=changed, items=told)
    else:
        _print(name, touched, changed, dry_run)
    if changed == len(touched):
        return 0
    return 5 if changed else 6


def _as_json(one: Touched) -> dict[str, object]:
    target = one.target
    place = {"id": target.id, "flow": target.flow, "key": target.key, "from": target.state, "to": one.to}
    return place | {"changed": one.changed, "why": one.why}


def _print(name: str, touched: list[Touched], changed: int, dry_run: bool) -> None:
    shown = touched if dry_run else touched[:SHOWN]
    lines = [
        [f"{t.target.id}", t.target.flow, t.target.key, t.target.state, t.to if t.changed else "left alone"]
        for t in shown
    ]
    show(table(("id", "flow", "key", "was", "would be" if dry_run else "is"), lines))
    if len(touched) > len(shown):
        say(f"… and {len(touched) - len(shown):,} more; --json has all of them.")
    would = "would be" if dry_run else "are"
    say(f"{changed:,} of {len(touched):,} items {would} {_SAID[name]}.")
    for why, number in Counter(t.why for t in touched if not t.changed).most_common():
        say(f"{number:,} left alone: {why}")
    for why, number in Counter(t.why for t in touched if t.changed and t.why).most_common():
        say(f"Of {number:,}: {why}")
    if name in ("retry", "regenerate", "release") and changed and not dry_run:
        say("A worker takes them now, or as soon as one runs: `counterfoil up`.")
