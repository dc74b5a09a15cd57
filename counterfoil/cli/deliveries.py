"""`items accept`, `delivery run | show`, `relay calls`: handing in, sending here and now, and how it stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, Limit, Reason, database, go, project
from counterfoil.cli.output import emit, is_lively, many, say, show, table, took, when
from counterfoil.model.delivery import HandIn, StoredFile
from counterfoil.model.errors import UsageError
from counterfoil.operations import flows
from counterfoil.operations.actor import actor_of
from counterfoil.operations.hand_in import HandedIn, hand_in, item_of, parse_line

if TYPE_CHECKING:
    from counterfoil.app import App
    from counterfoil.engine.poll import Polled
    from counterfoil.engine.push import Pushed

FlowName = Annotated[str, Parameter(help="The delivery flow.")]


# --- handing in -----------------------------------------------------------------------------------------------


def accept(
    flow: FlowName,
    key: Annotated[str | None, Parameter(help="The item's key, unique in the flow.")] = None,
    /,
    *,
    payload: Annotated[
        str | None, Parameter(help="Its payload: JSON, @FILE, or - for stdin.", allow_leading_hyphen=True)
    ] = None,
    kind: Annotated[str | None, Parameter(help="Its kind, where the flow has several.")] = None,
    parent: Annotated[str | None, Parameter(help="Key of the item it belongs to.")] = None,
    group: Annotated[str | None, Parameter(help="What it belongs to beyond its parent, such as a claim.")] = None,
    file: Annotated[Path | None, Parameter(help="Its file; it is put into the object store.")] = None,
    lane: Annotated[Literal["live", "bulk"], Parameter(help="bulk gives way to live work.")] = "live",
    due_at: Annotated[str | None, Parameter(help="Not before this time: 2026-11-16T09:30+00:00.")] = None,
    receipt: Annotated[str | None, Parameter(help="Where the other side has it already: its receipt there.")] = None,
    from_: Annotated[
        str | None,
        Parameter(name="--from", allow_leading_hyphen=True, help="A JSONL file with an item a line; - is stdin."),
    ] = None,
    reason: Reason = None,
    common: Common = COMMON,
) -> int:
    """Hand items in: one, or a file of them. The same key twice is one item; the command may be repeated.

    A line of --from is {"key": "report:1", "kind": "report", "payload": {...}, "parent": ..., "group": ..., "file": PATH}.
    """
    if (key is None) == (from_ is None):
        raise UsageError("Nothing says what is handed in, or two things do.", "Give a KEY, or --from FILE.")

    async def work() -> int:
        async with project(common) as app:
            app.deliveries.flow(flow)
            await app.register_deliveries()
            given = (
                _lines(from_)
                if from_ is not None
                else iter([(_one(key or "", payload, kind, parent, group, lane, due_at, receipt), file)])
            )
            with _counted("handed in") as tick:
                items = [await _with_file(app, flow, one, path, tick) for one, path in given]
            done = await hand_in(app.ledger, flow, items, actor=actor_of(common.settings()), reason=reason)
        return _told(flow, done, common)

    return go(work())


def _one(key: str, payload: str | None, *given: Any) -> HandIn:
    names = ("kind", "parent", "group", "lane", "due_at", "receipt")
    value = {"key": key, "payload": _payload(payload), **dict(zip(names, given, strict=True))}
    return item_of(value, "The item")


def _payload(text: str | None) -> Any:
    if text is None:
        return {}
    raw = sys.stdin.read() if text == "-" else Path(text[1:]).read_text("utf-8-sig") if text.startswith("@") else text
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"The payload is no JSON: {error}.", "Write an object, or name a file: @payload.json."
        ) from error


def _lines(name: str) -> Iterator[tuple[HandIn, Path | None]]:
    base = Path.cwd() if name == "-" else Path(name).resolve().parent
    with Path(name).open(encoding="utf-8-sig") if name != "-" else sys.stdin as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                one, path = parse_line(line, number)
                yield one, None if path is None else base / path


async def _with_file(app: App, flow: str, one: HandIn, path: Path | None, tick: Any) -> HandIn:
    tick()
    if path is None:
        return one
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", f"It is named for the item `{one.key}`.")
    stored: StoredFile = await app.deliveries.store_file(flow, one.key, path)
    return replace(one, file=stored)


def _told(flow: str, done: HandedIn, common: Common) -> int:
    if common.json:
        refused = [{"key": key, "why": why} for key, why in done.refused]
        emit("accepted", flow=flow, items=[asdict(one) for one in done.accepted], refused=refused)
    else:
        if len(done.accepted) == 1:
            one = done.accepted[0]
            show(f"Item {one.id}, key {one.key}: {one.state}" + (" (known before)" if one.outcome == "known" else ""))
        words = [f"{done.count(outcome):,} {outcome}" for outcome in ("new", "revised", "known") if done.count(outcome)]
        say(f"{many(len(done.accepted), 'item')}: {', '.join(words) or 'none'}.")
        for key, why in done.refused[:20]:
            say(f"{key}: {why}")
        if len(done.refused) > 20:
            say(f"… and {len(done.refused) - 20:,} more are refused; --json has all of them.")
    if not done.refused:
        return 0
    return 5 if done.accepted else 2


# --- sending --------------------------------------------------------------------------------------------------


def run(
    flow: FlowName,
    /,
    *,
    within: Annotated[float, Parameter(help="Go on with what falls due within so many seconds.")] = 0.0,
    common: Common = COMMON,
) -> int:
    """Send what is due of a delivery flow, and ask about what is accepted, here and now; then say how it stands."""

    async def work() -> int:
        began = time.monotonic()
        async with project(common) as app:
            app.deliveries.flow(flow)
            await app.register_deliveries()
            with _counted("sent") as tick:
                pushed, polled = await app.deliver(flow, within=within, on_progress=tick)
        if common.json:
            emit("delivered", flow=flow, sent=asdict(pushed), asked=asdict(polled), seconds=time.monotonic() - began)
        else:
            _print_run(flow, pushed, polled, time.monotonic() - began)
        return 5 if pushed.stopped + pushed.doubtful + pushed.later + polled.failed else 0

    return go(work(), fast=True)


def _print_run(flow: str, pushed: Pushed, polled: Polled, seconds: float) -> None:
    parts = ("arrived", "stopped", "later", "doubtful", "given_back", "lost")
    told = " + ".join(f"{name.replace('_', ' ')} {getattr(pushed, name):,}" for name in parts)
    show(f"{flow}: sent {pushed.claimed:,} = {told}")
    if polled.asked:
        names = ("confirmed", "failed", "reopened", "running", "not_found", "silent", "unanswered")
        answers = " + ".join(
            f"{name.replace('_', ' ')} {getattr(polled, name):,}" for name in names if getattr(polled, name)
        )
        show(f"  asked about {polled.asked:,} in {many(polled.calls, 'call')} = {answers}")
    rate = f", {pushed.claimed / seconds:,.0f} a second" if pushed.claimed and seconds else ""
    show(f"  took {took(seconds)}{rate}")
    if pushed.stopped or polled.failed:
        say(f"What needs a person: `counterfoil case list --flow {flow}`.")
    if pushed.doubtful:
        say("What is in doubt is looked up before anything is sent again; where it can't be, a case has it.")
    if pushed.later or pushed.doubtful:
        say("`counterfoil up` goes on with it by itself; here and now: --within 60.")


@contextmanager
def _counted(what: str) -> Iterator[Any]:
    """Something to call with a number more: a moving count on a terminal, silence elsewhere."""
    if not is_lively(sys.stderr):
        yield lambda number=1: None
        return
    from rich.console import Console  # 0.1 s: only where there is a terminal to move something on
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:,}} {what}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda number=1: bars.advance(task, number)


# --- looking --------------------------------------------------------------------------------------------------


def show_(flow: FlowName, /, *, common: Common = COMMON) -> int:
    """How a delivery flow stands: by state, what waits for an answer, what is missing, and whether the way is open."""
    from counterfoil.monitor import deliveries as monitor

    async def work() -> int:
        async with database(common) as opened:
            found = await monitor.show(opened.ledger, flow)
        if common.json:
            emit("delivery", **{name: getattr(found, name) for name in found.__dataclass_fields__})
            return 0
        states = {row["state"]: row["items"] for row in found.states if row["state"] != "NEW"}
        show(table(("state", "items"), sorted(states.items())) if states else "No item was handed in yet.")
        sums = found.sums
        show(
            f"\n{sums['accepted']:,} accepted = {sums['settled']:,} settled + {sums['due']:,} due + {sums['owned']:,} owned"
        )
        for poll in found.polls:
            show(f"{poll['items']:,} are asked about ({poll['phase']}), next at {when(poll['oldest_due'])}.")
        if found.expectations is not None:
            one = found.expectations
            show(
                f"{one['checked']:,} groups complete or told: {one['expected']:,} expected, {one['missing_now']:,} missing now."
            )
        for gate in found.closed:
            show(f"The way to {gate['name'][3:]} is closed until {when(gate['closed_until'])}: {gate['reason']}.")
        for case in found.cases:
            show(f"Case {case['id']} ({case['fault']}): {many(case['open_items'], 'item')}. {case['title']}")
        return 0

    return go(work())


def calls(
    *,
    flow: Annotated[str | None, Parameter(help="Only calls of this relay.")] = None,
    outcome: Annotated[
        str | None, Parameter(help="Only calls that ended so: done, replayed, refused, temporary, unknown.")
    ] = None,
    limit: Limit = 50,
    common: Common = COMMON,
) -> int:
    """List the calls that came to relays, newest first."""
    from counterfoil.ledger import deliveries

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            await flows.require(session, flow)
            rows = await deliveries.list_calls(session, flow, outcome, limit)
        if common.json:
            emit("calls", calls=rows, complete=len(rows) < limit)
            return 0
        lines = [
            (
                f"{r['id']}",
                r["at"],
                r["flow"],
                r["operation"],
                r["caller"],
                r["request_bytes"],
                f"{r['status'] or '-'}",
                r["outcome"],
                r["problem"],
            )
            for r in rows
        ]
        columns = ("call", "at", "flow", "operation", "caller", "bytes", "status", "outcome", "why")
        show(table(columns, lines) if rows else "No call came yet.")
        return 0

    return go(work())
