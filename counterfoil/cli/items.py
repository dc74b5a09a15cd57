"""`items list | show | explain`: reading. What changes items stands in acts.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from counterfoil import __version__
from counterfoil.cli.common import COMMON, Common, Limit, database, go
from counterfoil.cli.output import emit, say, show, table, when
from counterfoil.ledger import items
from counterfoil.model.errors import UsageError
from counterfoil.model.item import SENTENCES, ItemState
from counterfoil.monitor import deliveries
from counterfoil.monitor import evidence as proofs
from counterfoil.monitor import explain as stories
from counterfoil.operations import flows
from counterfoil.operations.items import Filter, filter_of, one, parse_where

FlowOption = Annotated[str | None, Parameter(help="Only items of this flow.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Meant:
    """Which items: the filters that all commands on many items share."""

    flow: FlowOption = None
    state: Annotated[str | None, Parameter(help="Only items in this state, such as PERMANENT_ERROR.")] = None
    fault: Annotated[str | None, Parameter(help="Only items with this fault, such as http_503.")] = None
    case: Annotated[int | None, Parameter(help="Only items this case owns.")] = None
    kind: Annotated[str | None, Parameter(help="Only items of this kind of a delivery flow.")] = None
    group: Annotated[str | None, Parameter(help="Only items of this group.")] = None
    where: Annotated[str | None, Parameter(help='The same in one text: "state=PERMANENT_ERROR fault=not_unique".')] = (
        None
    )

    def filter(self) -> Filter:
        """Raises UsageError for a word that means nothing, and where --where stands beside others."""
        if self.where is None:
            return filter_of(self.flow, self.state, self.fault, self.case, self.kind, self.group)
        others = (self.flow, self.state, self.fault, self.case, self.kind, self.group)
        if any(value is not None for value in others):
            raise UsageError("--where stands beside other filters.", "Write all of them in --where, or none.")
        return parse_where(self.where)


ALL = Meant()
_COLUMNS = ("id", "flow", "key", "state", "since", "tries", "fault", "next", "case")


def list_(
    *,
    meant: Meant = ALL,
    prefix: Annotated[str | None, Parameter(help="Only keys that start with this.")] = None,
    all: Annotated[bool, Parameter(negative="", show_default=False, help="Also items that are settled.")] = False,
    limit: Limit = 50,
    common: Common = COMMON,
) -> int:
    """List items, newest first; without a filter those unfinished.

    An item is a record that deviated: its fetch failed, a rule refused it, the table did not take it. Records that were simply
    loaded are counted in their run and have no item.
    """
    chosen = meant.filter()

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            await flows.require(session, chosen.flow)
            rows = await items.list_(
                session,
                flow=chosen.flow,
                state=chosen.state.value if chosen.state else None,
                fault=chosen.fault,
                case_id=chosen.case,
                unfinished=not all and chosen.state is None,
                prefix=prefix,
                kind=chosen.kind,
                group=chosen.group,
                limit=limit,
            )
        if common.json:
            emit("items", items=rows, complete=len(rows) < limit)
        else:
            _print(rows, limit, chosen)
        return 0

    return go(work())


def _print(rows: Any, limit: int, chosen: Filter) -> None:
    if not rows:
        say("No item." if not chosen.empty else "No unfinished item: nothing waits and nothing needs a person.")
        return
    lines = [
        [f"{r['id']}", r["flow"], r["key"], r["state"], r["state_since"], r["attempts"], r["fault"], r["next_action_at"],
         f"{r['case_id']}" if r["case_id"] else None]
        for r in rows
    ]  # fmt: skip
    show(table(_COLUMNS, lines))
    if len(rows) == limit:
        say(f"The first {limit}; --limit shows more.")


def _show_item(
    common: Common, item: Mapping[str, Any], events: Any, attempts: Any, payload: bool, delivered: stories.Delivered
) -> None:
    """One item, its events and attempts. The payload may hold personal data: only where it was asked for."""
    row = {name: value for name, value in item.items() if payload or name not in ("payload",)}
    if payload and delivered.content is not None:
        row["payload"] = delivered.content["payload"]
    if common.json:
        emit(
            "item",
            item=row,
            sentence=SENTENCES[ItemState(item["state"])],
            events=events,
            attempts=attempts,
            exchanges=delivered.exchanges,
            steps=delivered.steps,
            poll=delivered.poll,
        )
        return
    names = [name for name, value in row.items() if value is not None]
    size = max(map(len, names))
    for name in names:
        value = when(row[name]) if isinstance(row[name], datetime) else row[name]
        show(f"{name.ljust(size)}  {value}")
    show()
    lines = [
        [e["at"], e["event"], e["from_state"], e["to_state"], e["actor"], e["reason"] or e["problem"]] for e in events
    ]
    show(table(("at", "event", "from", "to", "by", "why"), lines))
    if attempts:
        show()
        tries = [
            [a["number"], a["started_at"], a["lease_until"], f"{a['host'] or '-'} {a['pid'] or ''}"] for a in attempts
        ]
        show(table(("attempt", "started", "lease until", "worker"), tries))
    if delivered.exchanges:
        show()
        sent = [
            [
                e["at"],
                e["kind"],
                e["method"],
                e["address"],
                f"{e['status'] or '-'}",
                e["outcome"],
                e["took_ms"],
                e["fault"],
            ]
            for e in delivered.exchanges
        ]
        show(table(("at", "what", "method", "address", "status", "outcome", "ms", "fault"), sent))


async def _read(common: Common, reference: str, flow: str | None) -> tuple[Any, Any, Any, stories.Delivered]:
    async with database(common) as opened, opened.ledger.session() as session:
        item = await one(session, reference, flow)
        events = await items.list_events(session, item["flow"], item["id"])
        attempts = await items.list_attempts(session, item["flow"], item["id"])
        return item, events, attempts, await deliveries.of_item(session, item)


Reference = Annotated[str, Parameter(help="Key, receipt or id of an item; id:17, key:17 and receipt:17 say which.")]


def show_(
    item: Reference,
    /,
    *,
    flow: FlowOption = None,
    payload: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also what came for it; that may be personal data.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Show one item with its events and attempts."""

    async def work() -> int:
        row, events, attempts, delivered = await _read(common, item, flow)
        _show_item(common, row, events, attempts, payload, delivered)
        return 0

    return go(work())


def explain(
    item: Reference,
    /,
    *,
    flow: FlowOption = None,
    evidence: Annotated[
        Path | None, Parameter(help="Write the proof into this new folder: what was sent and answered, and when.")
    ] = None,
    common: Common = COMMON,
) -> int:
    """Tell an item's story in plain sentences, how it stands first; with --evidence its proof as a folder."""

    async def work() -> int:
        row, events, attempts, delivered = await _read(common, item, flow)
        story = stories.explain(row, events, attempts, now=datetime.now(UTC), when=when, delivered=delivered)
        if evidence is not None:
            utc = stories.explain(row, events, attempts, now=datetime.now(UTC), when=_utc, delivered=delivered)
            written = proofs.write(evidence, row, events, attempts, delivered, utc, version=__version__)
            say(f"{len(written)} files are in {evidence}. Proof of the proof: cd {evidence} && sha256sum -c SHA256SUMS")
        if common.json:
            emit("story", item=row["id"], flow=row["flow"], key=row["key"], state=row["state"], **_as_json(story))
            return 0
        show_story(row, story)
        return 0

    return go(work())


def show_story(row: Any, story: stories.Story) -> None:
    """How it stands first, then what happened, then what can be done."""
    show(f"Item {row['id']}, key {row['key']}, flow {row['flow']}: {row['state']}")
    for sentence in story.now:
        show(f"  {sentence}")
    for title, sentences in (
        ("What happened:", story.history),
        ("What was exchanged:", story.exchanges),
        ("Its way through the other side's systems:", story.steps),
    ):
        if sentences:
            show(f"\n{title}")
        for sentence in sentences:
            show(f"  {sentence}")
    show("\nYou can:" if story.ways else "\nNothing is left to be done about it.")
    for way in story.ways:
        show(f"  {way}")


def _as_json(story: stories.Story) -> dict[str, Any]:
    return {name: getattr(story, name) for name in story.__dataclass_fields__}


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
