"""`counterfoil demo`: the example projects against their simulators with faults on, then the sum, and what needs a person and why.

It uses what everybody uses: the examples' own files, the simulators as processes of their own, an embedded PostgreSQL in the demo's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterfoil.cli import demo_deliveries
from counterfoil.cli.common import go, log_to_stderr
from counterfoil.cli.demo_deliveries import DELIVERIES, Example
from counterfoil.cli.output import is_lively, paint, say, show, table, took
from counterfoil.model.errors import NotFoundError, UnhealthyError, UsageError

if TYPE_CHECKING:
    from counterfoil.app import App
    from counterfoil.engine.progress import OnProgress, Progress

MARK = ".counterfoil-demo"  # stands in a folder that a demo made, and only such a folder is made anew
PARTS = ("flows", "mappings", "contracts", "files")
FOLLOW_UP = 12.0  # seconds the demo waits for what is tried again by itself


EXAMPLES = (
    Example(
        "loan-applications",
        "loan-applications",
        "occ_lambda",
        ("--records", "600", "--latency", "20-120ms", "--fault", "throttle=0.005", "--fault", "function_error=0.3@detail", "--max-in-a-row", "0",
         "--fault", "status500=0.02", "--fault", "empty=0.01", "--fault", "invalid_json=0.01", "--fault", "duplicates=0.03",
         "--fault", "vanish=0.01", "--fault", "wrong_type=0.01", "--fault", "missing_required=0.01", "--typed-field", "lastSavedDateTime"),
        ("OCC_LAMBDA_URL",),
        {
            "AWS_ACCESS_KEY_ID": "AKIDSIMULATOR",
            "AWS_SECRET_ACCESS_KEY": "simulator-secret",
            "LAMBDA_FUNCTION_APPLICATIONS_MAIN": "occ-applications",
            "LAMBDA_FUNCTION_APPLICATIONS_BY_DATE": "applications-by-date",
            "LAMBDA_FUNCTION_APPLICATION_MEDIUM": "application-medium",
            "SOV_AWS_CLIENT_NUMBER": "0000012345",
        },
        rows="select count(*) from public.tblsovereignapplications",
    ),
    Example(
        "customer-records",
        "customer-records",
        "customer_api",
        ("--records", "900", "--latency", "10-80ms", "--token", "simulator-token", "--fault", "throttle=0.003", "--fault", "error503=0.02",
         "--fault", "error500=0.01", "--fault", "truncated=0.01", "--fault", "html=0.01", "--fault", "disconnect=0.01",
         "--fault", "duplicates=0.02", "--fault", "vanish=0.01", "--fault", "missing_required=0.01", "--fault", "score_out_of_range=0.01"),
        ("API_BASE_URL",),
        {"API_TOKEN": "simulator-token"},
        rows="select count(*) from public.customers",
    ),
)  # fmt: skip

ALL = (*EXAMPLES, *DELIVERIES)


def demo(
    *,
    folder: Annotated[Path, Parameter(help="Where the demo works; made anew each time.")] = Path("demo-project"),
    debug: Annotated[bool, Parameter(negative="", help="Show the engine's log.")] = False,
) -> int:
    """See it work: the examples against their simulators, faults on, and the sum proven at the end."""
    log_to_stderr(level="error", debug=debug)
    return go(_demo(folder.absolute()), fast=True)


async def _demo(folder: Path) -> int:
    began = time.monotonic()
    _lay_out(folder)
    say(f"A project of all four examples in {folder.name}/; simulators and an embedded PostgreSQL are started …")
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(_simulator(example, folder)) for example in ALL]
        environment = dict(os.environ)
        for example, url in zip(ALL, urls, strict=True):
            environment |= {name: value.format(folder=folder, url=url) for name, value in example.environment.items()}
            environment |= dict.fromkeys(example.url_variables, url)
        from counterfoil.app import open_app  # loads the engine: only here is it needed

        app = await stack.enter_async_context(open_app(folder, environment=environment))
        for note in app.notes:
            say(note)
        for plan in await app.apply():
            for change in plan.changes:
                say(f"  {plan.flow}: {change}")
        holds = await _play(app, urls[: len(EXAMPLES)], urls[len(EXAMPLES) :])
    say("")
    say(f"Everything is stopped; nothing is left but {folder.name}/. It took {took(time.monotonic() - began)}.")
    return 0 if holds else 7


def _lay_out(folder: Path) -> None:
    """A project folder with the flows, mappings, functions and views of all examples."""
    examples = Path(__file__).parents[2] / "examples"
    if not examples.is_dir():
        raise NotFoundError(
            "The examples are not here: they come with the repository.", "Clone it, and run `make demo` there."
        )
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists and was not made by a demo.", "Name another with --folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    (folder / ".counterfoil" / "objects").mkdir(mode=0o700, parents=True)  # the gateway's function reads files there
    (folder / "counterfoil.toml").write_text('[project]\nname = "demo"\n', encoding="utf-8")
    views: list[str] = []
    functions: list[str] = []
    for example in ALL:
        source = examples / example.folder
        for part in filter(lambda name: (source / name).is_dir(), PARTS):
            shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
        for name, texts in (("views.sql", views), ("functions.py", functions)):
            texts += [path.read_text(encoding="utf-8") for path in (source / name,) if path.is_file()]
        _shorten(folder, example)
    (folder / "views.sql").write_text("\n".join(views), encoding="utf-8")
    (folder / "functions.py").write_text("\n".join(functions), encoding="utf-8")


def _shorten(folder: Path, example: Example) -> None:
    """The waits of an example's flow made short enough to be watched."""
    path = folder / "flows" / f"{example.flow}.yaml"
    flow = path.read_text(encoding="utf-8")
    for declared, shown in example.shorter:
        if declared not in flow:
            raise UnhealthyError(f"`{declared}` is not in {path.name}.", "Correct `shorter` of the demo.")
        flow = flow.replace(declared, shown)
    path.write_text(flow, encoding="utf-8")


@asynccontextmanager
async def _simulator(example: Example, folder: Path) -> AsyncIterator[str]:
    """The other side as a process of its own; its address."""
    module = f"counterfoil.simulators.{example.simulator}"
    arguments = [argument.format(folder=folder) for argument in example.arguments]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, "--with-parent", *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        if not line:
            raise UnhealthyError(
                f"The simulator {example.simulator} did not start.", f"Try `counterfoil simulate {example.simulator}`."
            )
        yield str(json.loads(line)["url"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _play(app: App, urls: Sequence[str], others: Sequence[str]) -> bool:
    """First runs, a change at the sources, second runs, what is tried again by itself; deliveries; and then the proof."""
    show(paint("1. Records arrive, faults and all", "bold"))
    for example in EXAMPLES:
        await _sync(app, example.flow)
    show()
    show(paint("2. Twenty records change at each source; the next run sees them", "bold"))
    for example, url in zip(EXAMPLES, urls, strict=True):
        await asyncio.to_thread(_post, f"{url}/_sim/change", {"count": 20})
        await _sync(app, example.flow)
    show()
    show(paint("3. What failed is tried again by itself", "bold"))
    await _follow_up(app)
    show()
    await demo_deliveries.play(app, others)

    show(paint("7. The proof", "bold"))
    return await _prove(app, urls, others)


async def _sync(app: App, flow: str) -> None:
    began = time.monotonic()
    run_id = await app.start_run(flow, actor="demo", reason="the demo")
    with _watching(flow) as on_progress:
        row = await app.work(run_id, on_progress=on_progress)
    sums = (
        f"found {row['found']:,} = inserted {row['inserted']:,} + updated {row['updated']:,} + unchanged {row['unchanged']:,}"
        f" + rejected {row['rejected']:,} + review {row['review']:,} + failed {row['failed']:,}"
    )
    show(f"  {flow}: {row['state']} in {took(time.monotonic() - began)}")
    show(f"    {sums}   ({row['duplicates']:,} listed twice)")


@contextmanager
def _watching(flow: str) -> Iterator[OnProgress | None]:
    """A bar where somebody watches; silence elsewhere."""
    if not is_lively(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("  {task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(flow, total=None, note="reading the list")

        def on_progress(progress: Progress) -> None:
            counts = progress.counts
            note = progress.note or f"{progress.per_second:,.0f}/s"
            bars.update(
                task, completed=counts.accounted, total=counts.found if progress.list_ended else None, note=note
            )

        yield on_progress


async def _follow_up(app: App) -> None:
    """Work on items that fall due within a few seconds, as a worker would; then the story of one of them."""
    from counterfoil.ledger import items

    done = await app.retry_due([example.flow for example in EXAMPLES], within=FOLLOW_UP)
    for flow, result in done.items():
        show(
            f"  {flow}: {result.claimed:,} tried again: {result.loaded:,} loaded, {result.rejected:,} rejected, "
            f"{result.failed:,} due again later"
        )
    async with app.ledger.session() as session:
        mended = await items.list_(session, flow=EXAMPLES[0].flow, state="SUCCESS", limit=1)
        for item in mended:
            events = await items.list_events(session, item["flow"], item["id"])
            show(
                f"  One of them, {item['key']}: " + " → ".join(f"{event['event']} ({_why(event)})" for event in events)
            )


def _why(event: Mapping[str, Any]) -> str:
    """What stands behind an event, in a word or two."""
    return str(event["fault"] or event["actor"])


async def _prove(app: App, urls: Sequence[str], others: Sequence[str]) -> bool:
    from counterfoil.ledger import cases, items
    from counterfoil.monitor.audit import audit

    audited = await audit(app.ledger)
    rows = [(one.flow, one.accepted, one.settled, one.due, one.owned, one.oldest_due or one.oldest_owned,
             "holds" if one.holds else "DOES NOT HOLD") for one in audited]  # fmt: skip
    show(table(("flow", "items", "settled", "due", "owned", "oldest unfinished", "the sum"), rows))
    async with app.ledger.session() as session:
        for example, url in zip(EXAMPLES, urls, strict=True):
            loaded = await session.fetchval(example.rows)
            counts = {row["state"]: row["items"] for row in await items.count_states(session, example.flow)}
            kept = sum(number for state, number in counts.items() if state not in ("NEW", "SUCCESS"))
            there = await asyncio.to_thread(_count, f"{url}/_sim/records")
            show(
                f"  {example.flow}: {loaded:,} rows in PostgreSQL, {kept:,} records are items; the source has {there:,} records."
            )
        await demo_deliveries.compare(session, others)
        show()
        show(paint("What needs a person, and why", "bold"))
        opened = await cases.list_(session)
        found = [
            (case["id"], case["flow"], case["title"], case["open_items"], case["owner"], case["due_at"])
            for case in opened
        ]
    show(table(("case", "flow", "why", "items", "owner", "due"), found) if found else "  Nothing.")
    show()
    show(
        f"Look around: cd {app.folder.name} && counterfoil status; counterfoil items list; counterfoil items explain ID"
    )
    return all(one.holds for one in audited)


def _post(url: str, body: Mapping[str, Any]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        reply.read()


def _count(url: str) -> int:
    """How many records the other side says it has, by key."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return sum(1 for line in reply if line.strip())
