"""Least privilege, tried from the outside: what the application and a reader cannot do, whatever code they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import items
from counterfoil.model.item import ItemEvent as E
from tests.support import act, hand_in, register

CLOSED = ["item", "item_event", "attempt", "item_count", '"case"', "item_move", "migration", "reader_flow"]
READABLE = ["item_event", "attempt", '"case"', "run", "item_count", "schedule", "flow", "run_fault"]


@pytest.fixture
async def filled(owner: Any) -> Any:
    """Two flows, each with an item that failed, an attempt, a run with a fault, and a schedule."""
    await register(owner, "pets", "loans")
    for flow in ("pets", "loans"):
        await hand_in(owner, flow, "1", {"name": "secret"})
        await items.claim(owner, flow, limit=1, lease=timedelta(minutes=5), worker=1)
        await act(owner, flow, E.FAIL, "2", fault="http_404", payload="secret")
        run = await owner.fetchval(
            "insert into counterfoil.run (flow, state, trigger, actor, created_at, next_action_at) "
            "values ($1, 'queued', 'person', 'eve', now(), now()) returning id", flow)  # fmt: skip
        await owner.execute(
            "insert into counterfoil.run_fault values ($1, 'failed', 'http_404', 'Unknown.', 1, '{2}')", run
        )
        await owner.execute("insert into counterfoil.schedule values ($1, '* * * * *', 'UTC', 'once', now())", flow)
    return owner


@pytest.mark.parametrize("table", CLOSED)
async def test_the_application_writes_history_only_through_the_functions(filled: Any, app: Any, table: str) -> None:
    for statement in (
        f"delete from counterfoil.{table}",
        f"truncate counterfoil.{table}",
        f"insert into counterfoil.{table} default values",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)
    column = await app.fetchval(
        "select attname from pg_attribute where attrelid = $1::text::regclass and attnum = 2", f"counterfoil.{table}"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(f"update counterfoil.{table} set {column} = {column}")


async def test_the_application_calls_no_part_of_a_move_by_itself(app: Any) -> None:
    for call in ("count_moves('pets', '{}', '{}')", "count_cases('{}', '{}')", "open_cases('pets', '{}', '{}')",
                 "give_birth('pets', '{}', 'x', 'x', now())", "move_existing('pets', '{}', 'x', 'x', 1, now())"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(f"select counterfoil.{call}")


async def test_no_function_is_open_to_everybody(owner: Any) -> None:
    open_ones = await owner.fetch(
        "select proname from pg_proc where pronamespace = 'counterfoil'::regnamespace and has_function_privilege('public', oid, 'execute')"
    )
    assert open_ones == []


async def test_functions_that_run_as_their_owner_search_no_path_of_the_caller(owner: Any) -> None:
    loose = await owner.fetch(
        "select proname from pg_proc where pronamespace = 'counterfoil'::regnamespace and prosecdef "
        "and not coalesce(proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']"
    )
    assert loose == []


@pytest.fixture
async def reader(filled: Any, database: str) -> AsyncIterator[Any]:
    """A login that is a reader and nothing else; its name is its own."""
    name = f"reader_{abs(hash(database)) % 10**9}"
    await filled.execute(f"create role {name} login in role counterfoil_reader")
    connection = await asyncpg.connect(database)
    await connection.execute(f"set session authorization {name}")
    yield connection
    await connection.close()
    await filled.execute(f"drop role {name}")


async def test_a_reader_sees_nothing_until_it_is_granted_a_flow(reader: Any) -> None:
    for table in READABLE:
        assert await reader.fetchval(f"select count(*) from counterfoil.{table}") == 0, table
    assert await reader.fetchval("select count(key) from counterfoil.item") == 0


async def test_a_reader_sees_the_flow_it_was_granted_and_no_other(reader: Any, filled: Any) -> None:
    login = await reader.fetchval("select session_user")
    await filled.execute("insert into counterfoil.reader_flow values ($1, 'pets')", login)
    assert await reader.fetchval("select array_agg(distinct flow) from counterfoil.item") == ["pets"]
    for table in READABLE:
        assert await reader.fetchval(f"select count(*) from counterfoil.{table}") > 0, table
        if table != "run_fault":
            column = "name" if table == "flow" else "flow"
            assert await reader.fetchval(f"select array_agg(distinct {column}) from counterfoil.{table}") == ["pets"]
    assert await reader.fetchval("select count(*) from counterfoil.run_fault") == 1
    await filled.execute("update counterfoil.reader_flow set flow = '*'")
    assert await reader.fetchval("select count(distinct flow) from counterfoil.item") == 2


async def test_a_reader_never_sees_a_payload(reader: Any, filled: Any) -> None:
    await filled.execute(
        "insert into counterfoil.reader_flow values ($1, '*')", await reader.fetchval("select session_user")
    )
    for reading in ("payload from counterfoil.item", "* from counterfoil.item", "* from counterfoil.write_back",
                    "* from counterfoil.run_key", "* from counterfoil.reader_flow"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(f"select {reading}")


async def test_a_reader_writes_nothing(reader: Any, filled: Any) -> None:
    await filled.execute(
        "insert into counterfoil.reader_flow values ($1, '*')", await reader.fetchval("select session_user")
    )
    for statement in ("select counterfoil.accept('pets', '9')", "select counterfoil.move('pets', '1', 'cancel', 'why')",
                      "update counterfoil.run set state = 'failed'", "delete from counterfoil.flow",
                      "insert into counterfoil.reader_flow values (session_user, '*')"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)
