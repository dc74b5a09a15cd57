"""Migrations make what schema.sql says, on an empty database and on one with rows in it; once, whoever runs them and how often."""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import items, migrate, pool
from counterfoil.ledger.schema import FILE, dump, normalised
from counterfoil.model.errors import ConflictError, NotAllowedError
from tests.support import Databases, hand_in, register


async def empty(databases: Databases) -> tuple[str, Any]:
    """A DSN and a connection to a database that never saw us."""
    dsn = databases.dsn(await databases.create())
    return dsn, await pool.connect(dsn)


async def test_schema_sql_is_what_the_migrations_make(database: str) -> None:
    """The text has the form of one major version of pg_dump and server; on others only the next test can compare."""
    connection = await pool.connect(database)
    version = connection.get_server_version().major
    await connection.close()
    if version != 18:
        pytest.skip("schema.sql is written on PostgreSQL 18")
    assert dump(database) == normalised(FILE.read_text("utf-8")), "run `make schema` and review the difference"


async def test_schema_sql_loads_into_an_empty_database_and_makes_the_same(databases: Databases, database: str) -> None:
    dsn, connection = await empty(databases)
    await connection.execute("set check_function_bodies = off")
    await connection.execute(FILE.read_text("utf-8"))
    await connection.close()
    assert dump(dsn) == dump(database)


def test_names_and_numbers() -> None:
    names = sorted(f.name for f in files("counterfoil.ledger.migrations").iterdir() if f.name.endswith(".sql"))
    assert all(re.fullmatch(r"\d{4}_(pre|post)_[a-z0-9_]+\.sql", name) for name in names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert [m.number for m in migrate.known()] == list(range(1, len(names) + 1)), "none is left out"


@pytest.mark.parametrize("migration", migrate.known(), ids=lambda m: f"{m.number:04d}")
def test_each_is_small_and_says_what_it_is_for(migration: migrate.Migration) -> None:
    assert migration.sql.count("\n") < 300
    assert migration.sql.startswith("-- ")


async def test_to_migrate_twice_is_to_migrate_once(databases: Databases) -> None:
    dsn, connection = await empty(databases)
    assert await migrate.applied(connection) == {}
    assert await migrate.pending(connection) == migrate.known()
    assert await migrate.migrate(connection) == migrate.known()
    once = dump(dsn)
    assert await migrate.migrate(connection) == ()
    assert dump(dsn) == once
    await connection.close()


async def test_two_migrators_at_once_migrate_once(databases: Databases) -> None:
    dsn, connection = await empty(databases)
    other = await pool.connect(dsn)
    done = await asyncio.gather(migrate.migrate(connection), migrate.migrate(other))
    assert sorted(map(len, done)) == [0, len(migrate.known())]
    await connection.close()
    await other.close()


async def test_a_phase_alone_applies_its_own(databases: Databases) -> None:
    _, connection = await empty(databases)
    before = await migrate.migrate(connection, "pre")
    assert {m.phase for m in before} == {"pre"}
    after = await migrate.migrate(connection, "post")
    assert {*before, *after} == {*migrate.known()}
    await connection.close()


async def test_a_migration_that_fails_leaves_the_ones_before_it(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, connection = await empty(databases)
    good = migrate.known()[:2]
    bad = migrate.Migration(3, "pre", "bad", "create table counterfoil.half (); select 1 / 0")
    monkeypatch.setattr(migrate, "known", lambda: (*good, bad))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(connection)
    assert set(await migrate.applied(connection)) == {1, 2}
    assert await connection.fetchval("select to_regclass('counterfoil.half')") is None
    monkeypatch.undo()
    assert len(await migrate.migrate(connection)) == len(migrate.known()) - 2
    await connection.close()


async def test_a_newer_database_is_left_alone(owner: Any) -> None:
    await owner.execute("insert into counterfoil.migration (number, name, sha256) values (9999, 'pre_future', '')")
    with pytest.raises(ConflictError, match="9999.*newer") as caught:
        await migrate.migrate(owner)
    assert caught.value.remedy


async def test_a_migration_that_was_applied_in_another_form_is_told(owner: Any) -> None:
    await owner.execute("update counterfoil.migration set sha256 = 'other' where number = 3")
    with pytest.raises(ConflictError, match="0003.*another form"):
        await migrate.pending(owner)


async def test_rows_of_before_are_there_afterwards(owner: Any) -> None:
    await register(owner, "pets")
    await hand_in(owner, "pets", "rex", {"a": 1})
    assert await migrate.migrate(owner) == ()
    assert len(await items.get(owner, key="rex")) == 1


async def test_a_login_that_may_not_migrate_is_told_what_it_lacks(databases: Databases) -> None:
    _, connection = await empty(databases)
    await connection.execute("drop role if exists poor; create role poor login")
    try:
        await connection.execute("set session authorization poor")
        with pytest.raises(NotAllowedError, match="login poor may not migrate") as refused:
            await migrate.migrate(connection)
        assert "with admin option" in refused.value.remedy
        assert "grant create on database" in refused.value.remedy
        await connection.execute("reset session authorization")
        await migrate.migrate(connection)
        await connection.execute("grant counterfoil_app to poor; set session authorization poor")
        assert await migrate.migrate(connection) == ()  # nothing is left to do: nothing is asked for
    finally:
        await connection.execute("reset session authorization; drop owned by poor; drop role poor")
        await connection.close()
