"""What tests of several floors share: a server of their own, databases from a template, a clock that is moved by hand.

No test sleeps and none fakes the ledger. Fixtures stand in conftest.py and use what is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from counterfoil.ledger import deliveries, flows, health, items, pool, workers
from counterfoil.ledger.embedded import embedded
from counterfoil.ledger.flows import Kind
from counterfoil.ledger.items import Accepted, Move, Moved
from counterfoil.model.delivery import Exchange, ExchangeKind, HandIn, Lane, Outcome
from counterfoil.model.item import ItemEvent

PREFIX = "counterfoil_test_"
_LOCK = 7999  # advisory locks of test sessions; the ledger has 7246 and 7247

# --- the server ----------------------------------------------------------------------------------------------


@contextmanager
def throw_away_server() -> Iterator[str]:
    """A server for the tests alone, without durability; gives its DSN and leaves nothing behind.

    COUNTERFOIL_TEST_PG names a folder of other binaries (with `initdb` in it): the oldest version we support is tested so.
    """
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-test-"))
    try:
        with (
            _of_binaries(Path(given), folder)
            if (given := os.environ.get("COUNTERFOIL_TEST_PG"))
            else _embedded(folder) as dsn
        ):
            yield dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _embedded(folder: Path) -> Iterator[str]:
    with embedded(folder / "data", durable=False) as server:
        yield server.dsn


@contextmanager
def _of_binaries(binaries: Path, folder: Path) -> Iterator[str]:
    unprivileged = ["unshare", "-U", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c synchronous_commit=off"
    )
    tool = [*unprivileged, str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w", "-s"]
    subprocess.run(
        [*tool, "init", "-o", "-U tester -A trust --no-sync -E UTF8 --locale=C"], check=True, stdout=subprocess.DEVNULL
    )
    subprocess.run([*tool, "start", "-l", str(folder / "log"), "-o", options], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*tool, "stop", "-m", "immediate"], check=False)


# --- databases -----------------------------------------------------------------------------------------------


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


class Databases:
    """Databases of one test session, all called PREFIX + session number + a number.

    The session holds an advisory lock on its number. One that was killed holds nothing, and the next session removes what it
    left; sessions at the same time leave each other alone.
    """

    def __init__(self, dsn: str, connection: Any, session: int) -> None:
        self._dsn, self._connection, self._session, self._made = dsn, connection, session, 0

    @classmethod
    async def open(cls, dsn: str) -> Databases:
        connection = await asyncpg.connect(dsn)
        session = secrets.randbelow(2**31)
        await connection.execute("select pg_advisory_lock($1, $2)", _LOCK, session)
        databases = cls(dsn, connection, session)
        await databases._remove_leftovers()
        return databases

    async def _remove_leftovers(self) -> None:
        names = await self._connection.fetch("select datname from pg_database where starts_with(datname, $1)", PREFIX)
        for (name,) in names:
            session = int(name.removeprefix(PREFIX).split("_")[0])
            if session != self._session and await self._connection.fetchval(
                "select pg_try_advisory_lock($1, $2)", _LOCK, session
            ):
                await self.drop(name)
                await self._connection.execute("select pg_advisory_unlock($1, $2)", _LOCK, session)

    async def create(self, template: str = "template1") -> str:
        """A new database; returns its name."""
        self._made += 1
        name = f"{PREFIX}{self._session}_{self._made}"
        await self._connection.execute(f"create database {name} template {template} strategy file_copy")
        return name

    async def drop(self, name: str) -> None:
        await self._connection.execute(f"drop database if exists {name} with (force)")

    def dsn(self, name: str) -> str:
        return with_database(self._dsn, name)

    async def close(self) -> None:
        for (name,) in await self._connection.fetch(
            "select datname from pg_database where starts_with(datname, $1)", f"{PREFIX}{self._session}_"
        ):
            await self.drop(name)
        await self._connection.close()


_USED_TABLES = """
select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'counterfoil' and c.relkind in ('r', 'p') and c.relname not in ('item_move', 'migration')
  and pg_relation_size(c.oid) > 0
"""
_ADDED_SCHEMAS = """
select nspname from pg_namespace n where nspname not like 'pg\\_%' and nspname not in ('information_schema', 'counterfoil')
  and (nspname <> 'public' or exists (select 1 from pg_class where relnamespace = n.oid)
    or exists (select 1 from pg_proc where pronamespace = n.oid) or exists (select 1 from pg_type where typnamespace = n.oid))
"""
_SHAPE = """
select array[
  (select count(*)::text from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database()),
  (select count(*) || '/' || sum(oid::bigint) || '/' || max(xmin::text::bigint) from pg_proc where pronamespace = 'counterfoil'::regnamespace),
  (select count(*) || '/' || sum(oid::bigint) from pg_constraint where connamespace = 'counterfoil'::regnamespace),
  (select count(*) || '/' || sum(oid::bigint) from pg_class where relnamespace = 'counterfoil'::regnamespace),
  (select md5(string_agg(m::text, ',' order by m.number)) from counterfoil.migration m),
  (select md5(string_agg(m::text, ',' order by m::text)) from counterfoil.item_move m)]
"""

_BYTES = "select sum(pg_relation_size(oid))::bigint from pg_class where relnamespace = 'counterfoil'::regnamespace"


class Recycler:
    """Migrated databases that are emptied and used again, since to make one costs twenty times as much.

    A test may write rows, make tables outside the ledger's schema, and leave connections. One that changes the ledger's schema
    itself spoils its database, and that is noticed: it is not used again.
    """

    def __init__(self, databases: Databases, template: str) -> None:
        self._databases, self._template = databases, template
        self._free: list[tuple[str, Any]] = []

    async def take(self) -> tuple[str, Any]:
        """Name of an empty database and its shape, to be given back."""
        if self._free:
            return self._free.pop()
        name = await self._databases.create(self._template)
        connection = await asyncpg.connect(self._databases.dsn(name))
        shape = await connection.fetchval(_SHAPE)
        await connection.close()
        return name, shape

    async def give_back(self, name: str, shape: Any) -> None:
        connection = await asyncpg.connect(self._databases.dsn(name))
        try:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            if await connection.fetchval(_SHAPE) != shape or await connection.fetchval(_BYTES) > 2**23:
                return
            for (schema,) in await connection.fetch(_ADDED_SCHEMAS):
                await connection.execute(f'drop schema "{schema}" cascade')
            await connection.execute("create schema if not exists public")
            if used := [table for (table,) in await connection.fetch(_USED_TABLES)]:
                # Rows go without their foreign keys being asked; to truncate would make a dozen files anew.
                await connection.execute(
                    ";".join(["set session_replication_role = replica", *(f"delete from {t}" for t in used)])
                )
            self._free.append((name, shape))
        finally:
            await connection.close()


# --- time ----------------------------------------------------------------------------------------------------

NOON = datetime(
    2030, 1, 1, 12, tzinfo=UTC
)  # in the future: nothing a test writes with this clock is due by the real one


@dataclass
class FakeClock:
    """A clock that stands until it is moved; `sleep` moves it and returns at once."""

    at: datetime = NOON
    elapsed: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.move(seconds)

    def move(self, seconds: float) -> datetime:
        """Let time pass; the new time."""
        self.at += timedelta(seconds=seconds)
        self.elapsed += seconds
        return self.at


async def set_database_clock(connection: Any, time: datetime | None) -> None:
    """What counterfoil.now() says on this connection from now on; None: the server's own clock."""
    await connection.execute("select set_config('counterfoil.now', $1, false)", time.isoformat() if time else "")


# --- a ledger with something in it ---------------------------------------------------------------------------


async def register(connection: Any, *names: str) -> None:
    """Flows with nothing special about them."""
    for name in names:
        await flows.register(
            connection, name, title=name, owner="operators", case_due=timedelta(hours=4), definition=""
        )


async def start_worker(connection: Any) -> int:
    """A registered worker, not yet present: see `workers.hold_presence`."""
    return await workers.start(connection, host="test", pid=os.getpid(), version="0")


async def act(
    connection: Any, flow: str, event: ItemEvent, *keys: str, actor: str = "test", **said: Any
) -> list[Moved]:
    """The same event for each key."""
    return await items.move(connection, flow, [Move(event, key=key, **said) for key in keys], actor=actor)


async def hand_in(
    connection: Any, flow: str, key: str, payload: Any = None, parent_key: str | None = None, **more: Any
) -> int:
    """One item handed in; its id."""
    (taken,) = await items.accept(connection, flow, [HandIn(key, payload, parent_key=parent_key, **more)], actor="test")
    return taken.id


async def row_of(connection: Any, key: str, flow: str = "pets") -> Any:
    return await connection.fetchrow("select * from counterfoil.item where flow = $1 and key = $2", flow, key)


# --- deliveries ----------------------------------------------------------------------------------------------

LEASE = timedelta(minutes=5)


def kind(name: str, parent: str | None = None, **said: Any) -> Kind:
    """A kind as the ledger keeps it; flow and position are filled in by `declare`. A resend is safe unless it is said otherwise."""
    usual: dict[str, Any] = {
        "flow": "", "position": 0, "inherits": "last", "stand_in": None, "parent_wait": timedelta(days=7), "resend": "safe",
        "resend_update": "safe", "look_up_after": timedelta(minutes=2), "updates": False, "poll_first": None, "complete_within": None,
    }  # fmt: skip
    return Kind(**(usual | {"kind": name, "parent_kind": parent} | said))


async def declare(connection: Any, flow: str, *kinds: Kind) -> None:
    """A delivery flow with these kinds, in this order."""
    await register(connection, flow)
    await flows.keep_kinds(connection, flow, [replace(one, flow=flow, position=n) for n, one in enumerate(kinds)])


async def take_in(connection: Any, flow: str, *given: HandIn, actor: str = "test") -> dict[str, Accepted]:
    """Many handed in with one call, by key."""
    taken = await items.accept(connection, flow, given, actor=actor)
    assert len({one.key for one in taken}) == len(taken)
    return {one.key: one for one in taken}


async def claim(
    connection: Any, flow: str = "docs", worker: int = 1, *, limit: int = 100, lease: timedelta = LEASE, lane: Lane = Lane.LIVE, after: int = 0
) -> dict[str, deliveries.Claimed]:  # fmt: skip
    """What is due, by key, in the order in which it was given."""
    got = await deliveries.claim(connection, flow, lane, limit=limit, lease=lease, worker=worker, after=after)
    return {one.key: one for one in got}


async def send(
    connection: Any, flow: str, key: str, event: ItemEvent = ItemEvent.CONFIRM, worker: int = 1, **said: Any
) -> Moved:
    """Claim the one item that is due, which must be this one, and settle it."""
    (one,) = (await claim(connection, flow, worker, limit=1)).values()
    assert one.key == key
    (moved,) = await settle(connection, flow, worker, Move(event, id=one.id, attempt_id=one.attempt_id, **said))
    assert moved.moved, moved
    return moved


async def settle(connection: Any, flow: str, worker: int, *moves: Move) -> list[Moved]:
    return await deliveries.settle(connection, flow, moves, [], worker=worker)


async def held(
    connection: Any, *keys: str, kind_: str = "report", worker: int = 1, lease: timedelta = timedelta(0)
) -> dict[str, deliveries.Claimed]:
    """Claimed under a lease that has ended; nobody has rescued them yet."""
    await take_in(connection, "docs", *(HandIn(key, {"n": 1}, kind=kind_) for key in keys))
    return await claim(connection, worker=worker, lease=lease)


def exchange(**said: Any) -> Exchange:
    """The proof of a request that was answered with 201."""
    usual = {"kind": ExchangeKind.SEND, "at": NOON, "method": "POST", "address": "https://other.test/documents", "status": 201,
             "outcome": Outcome.DONE, "took": 0.05, "request": "what was sent", "reply": "what came back"}  # fmt: skip
    return Exchange(**(usual | said))  # type: ignore[arg-type]


async def states(connection: Any, flow: str = "docs") -> dict[str, str]:
    rows = await connection.fetch("select key, state from counterfoil.item where flow = $1 order by id", flow)
    return {row["key"]: row["state"] for row in rows}


async def history(connection: Any, key: str, flow: str = "docs") -> list[str]:
    """The events of an item, oldest first."""
    row = await row_of(connection, key, flow)
    return [event["event"] for event in await items.list_events(connection, flow, row["id"])]


async def books_agree(connection: Any, flow: str = "docs") -> None:
    """Promise 1: counters = rows, histories are chains, cases own what they say; and no child waits for a receipt that is there."""
    assert not await health.differing_counters(connection, flow)
    assert not await health.broken_histories(connection, flow)
    assert not await health.differing_cases(connection, flow)
    (sums,) = await health.sums(connection, flow)
    counted = await health.recount(connection, flow)
    assert [sums[n] for n in ("accepted", "settled", "due", "owned")] == [
        counted[n] for n in ("accepted", "settled", "due", "owned")
    ]
    assert sums["accepted"] == sums["settled"] + sums["due"] + sums["owned"]
    assert counted["owned_by_closed_case"] == 0
    forgotten = [tuple(row) for row in await connection.fetch(FORGOTTEN_CHILDREN, flow)]
    assert not forgotten, forgotten


FORGOTTEN_CHILDREN = """
select c.key, c.state, c.fault, p.key as parent, p.state as parent_state from counterfoil.item c
join counterfoil.flow_kind k on k.flow = c.flow and k.kind = c.kind and k.parent_kind is not null
left join counterfoil.item p on p.flow = c.flow and p.id = c.parent_id
cross join lateral (select coalesce(p.receipt, case when p.state = 'TRANSFERRED' then p.reference end) as receipt) r
left join counterfoil."case" pc on pc.id = p.case_id
left join counterfoil."case" cc on cc.id = c.case_id
where c.flow = $1 and (
  c.state = 'WAITING' and r.receipt is not null and c.next_action_at is distinct from c.not_before
  or c.state = 'WAITING' and r.receipt is null
    and p.state in ('PERMANENT_ERROR', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED')
  or c.state = 'PERMANENT_ERROR' and c.fault = 'parent_failed' and p.state = 'PERMANENT_ERROR' and pc.id is distinct from cc.id
  or c.state = 'WAITING' and c.parent_id is null and exists (
    select 1 from counterfoil.item q join counterfoil.content w on w.flow = q.flow and w.item_id = q.id  -- was handed in
    where q.flow = c.flow and q.group_key = c.group_key and q.kind = k.parent_kind)
  or c.state in ('QUEUED', 'TEMPORARY_ERROR') and c.parent_id is not null and r.receipt is null)
"""

# --- many sessions -------------------------------------------------------------------------------------------


@asynccontextmanager
async def sessions(dsn: str, number: int = 2) -> AsyncIterator[Sequence[Any]]:
    """Connections in the application's role, each a session of its own."""
    connections = [await pool.connect(dsn, role=pool.APP_ROLE) for _ in range(number)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.terminate()


async def until_blocked(watcher: Any, session: Any) -> None:
    """Return when `session` waits for a lock that another one holds."""
    pid = session.get_server_pid()
    while not await watcher.fetchval("select cardinality(pg_blocking_pids($1))", pid):
        await asyncio.sleep(0)


async def in_turn(watcher: Any, first: Any, doing: Awaitable[Any], second: Any, waiting: Any) -> tuple[Any, Any]:
    """`doing` in an open transaction of `first`; then `waiting` begins in `second`; then the first commits. What both gave.

    Whether the second has to wait for the first is not asked for: it is given the chance to finish before the commit too.
    """
    transaction = first.transaction()
    await transaction.start()
    done = await doing
    task = asyncio.create_task(waiting)
    blocked = asyncio.create_task(until_blocked(watcher, second))
    await asyncio.wait({task, blocked}, return_when=asyncio.FIRST_COMPLETED)
    blocked.cancel()
    await transaction.commit()
    return done, await task


async def again(work: Any, tries: int = 20) -> Any:
    """What `work` gives, repeated when a deadlock ended it; anything else is raised."""
    for _ in range(tries):
        try:
            return await work()
        except asyncpg.DeadlockDetectedError:
            continue
    raise AssertionError(f"{tries} deadlocks in a row")


# --- what a statement reads ----------------------------------------------------------------------------------

HISTORY = ("item", "item_event", "attempt", "content", "exchange", "poll", "item_step", "expectation", "run", "run_key")


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def reads_no_history(
    connection: Any, sql: str, arguments: Sequence[Any], most: int, *, tables: Sequence[str] = HISTORY
) -> None:
    """The plan has no sequential scan of these tables, which are full, and no node of it touches more than `most` of their rows."""
    explained = await connection.fetchval(f"explain (analyze, format json, timing off) {sql}", *arguments)
    for node in _nodes(json.loads(explained)[0]["Plan"]):
        if node.get("Relation Name") in tables:
            assert node["Node Type"] != "Seq Scan", f"it scans {node['Relation Name']}: {node}"
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            assert rows <= most, f"it touches {rows} rows of {node['Relation Name']}: {node}"


async def stays_hot(connection: Any, sql: str, arguments: Sequence[Any], most: int) -> None:
    """After five executions the server may keep one plan for all arguments: it must not be a worse one."""
    async with connection.transaction():
        statement = await connection.prepare(sql)
        for _ in range(6):
            await statement.fetch(*arguments)
        before = await touched(connection)
        await statement.fetch(*arguments)
        assert await touched(connection) - before <= 6 * most + 50


async def touched(connection: Any) -> int:
    """Rows of what grows that this transaction has read so far, by whatever path; an index counts its entries."""
    return int(
        await connection.fetchval(
            "select sum(coalesce(pg_stat_get_xact_tuples_returned(c.oid), 0) + coalesce(pg_stat_get_xact_tuples_fetched(c.oid), 0)) "
            "from pg_class c left join pg_index x on x.indexrelid = c.oid join pg_class t on t.oid = coalesce(x.indrelid, c.oid) "
            "where t.relnamespace = 'counterfoil'::regnamespace and t.relname = any ($1)",
            list(HISTORY),
        )
    )
