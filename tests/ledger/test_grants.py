"""Least privilege, tried from the outside: what the application and a reader cannot do, whatever code they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import deliveries, polls
from counterfoil.ledger.deliveries import Proof
from counterfoil.ledger.items import Move
from counterfoil.ledger.polls import StepRow
from counterfoil.model.delivery import Lane
from counterfoil.model.item import ItemEvent as E
from tests.support import act, declare, exchange, hand_in, kind

CLOSED = ["item", "item_event", "attempt", "item_count", '"case"', "item_move", "migration", "reader_flow", "content", "exchange", "poll",
          "item_step", "group_lock"]  # fmt: skip
READABLE = [
    "item_event",
    "attempt",
    '"case"',
    "run",
    "item_count",
    "schedule",
    "flow",
    "run_fault",
    "flow_kind",
    "poll",
    "item_step",
    "expectation",
]
# Of these a reader has columns, not the table: what is in their other columns is somebody's data.
IN_PART = {"item": "key", "exchange": "address", "relay_call": "path"}


@pytest.fixture
async def filled(owner: Any) -> Any:
    """Two flows, each with an item that failed, an attempt, a run with a fault, a schedule, and a delivery that is polled."""
    for flow in ("pets", "loans"):
        await declare(owner, flow, kind("record", poll_first=timedelta(0), complete_within=timedelta(days=1)))
        await hand_in(owner, flow, "1", {"name": "secret"})
        (one,) = await deliveries.claim(owner, flow, Lane.LIVE, limit=1, lease=timedelta(minutes=5), worker=1)
        received = Move(E.RECEIVE, id=one.id, attempt_id=one.attempt_id, receipt=f"r of {flow}")
        await deliveries.settle(
            owner, flow, [received], [Proof(exchange(request="secret", reply="secret"), one.id)], worker=1
        )
        await polls.settle(
            owner, flow, results=[], steps=[StepRow(one.id, "", "secret" if flow == "loans" else "x")], actor="poll"
        )
        call = await deliveries.start_call(
            owner, flow, operation="o", caller="c", method="GET", path="/", fingerprint="f", size=1
        )
        await deliveries.end_call(owner, call, status=200, outcome="done", reply="secret", problem=None)
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
                 "give_birth('pets', '{}', 'x', 'x', now())", "move_existing('pets', '{}', 'x', 'x', 1, now())",
                 "follow_moves('pets', '{}', 'x', now())", "claim_these('pets', '{}', '1 s', 1)", "adopt('pets', '{}')",
                 "accept_kind('pets', null, '{}', 'x', 'x')", "revise_content('pets', '{}', '{}', now())", "count_results('pets', '{}')",
                 "lock_groups('pets', '{}')", "expect('pets', null, '{}', now())", "next_due('pets', 'live', 1, 0)"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(f"select counterfoil.{call}")


async def test_the_application_declares_kinds_and_keeps_the_books_of_completeness_and_calls(
    filled: Any, app: Any
) -> None:
    """And deletes neither: `expectation` and `relay_call` are history."""
    await app.execute("update counterfoil.flow_kind set updates = true")
    await app.execute("update counterfoil.expectation set expected = 1, missing = 0")
    for table in ("expectation", "relay_call", "exchange", "item_step", "content"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(f"delete from counterfoil.{table}")
    assert await app.fetchval("select count(payload) from counterfoil.content") == 2, "a worker reads what it sends"


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
    for table, column in IN_PART.items():
        assert await reader.fetchval(f"select count({column}) from counterfoil.{table}") == 0, table


async def test_a_reader_sees_the_flow_it_was_granted_and_no_other(reader: Any, filled: Any) -> None:
    login = await reader.fetchval("select session_user")
    await filled.execute("insert into counterfoil.reader_flow values ($1, 'pets')", login)
    for table in IN_PART:
        assert await reader.fetchval(f"select array_agg(distinct flow) from counterfoil.{table}") == ["pets"], table
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
                    "* from counterfoil.run_key", "* from counterfoil.reader_flow", "1 from counterfoil.content",
                    "payload from counterfoil.content", "request from counterfoil.exchange", "reply from counterfoil.exchange",
                    "* from counterfoil.exchange",
                    "reply from counterfoil.relay_call", "* from counterfoil.relay_call", "1 from counterfoil.group_lock"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(f"select {reading}")


async def test_a_reader_writes_nothing(reader: Any, filled: Any) -> None:
    await filled.execute(
        "insert into counterfoil.reader_flow values ($1, '*')", await reader.fetchval("select session_user")
    )
    for statement in ("select counterfoil.accept('pets', '9')", "select counterfoil.move('pets', '1', 'cancel', 'why')",
                      "select counterfoil.settle_polls('pets', '{}', '{}', '{}', '{}', 'eve')", "delete from counterfoil.poll",
                      "select counterfoil.mark_sending('pets', '{}', '{}')", "update counterfoil.flow_kind set resend = 'safe'",
                      "update counterfoil.expectation set missing = 0", "insert into counterfoil.exchange default values",
                      "update counterfoil.run set state = 'failed'", "delete from counterfoil.flow",
                      "insert into counterfoil.reader_flow values (session_user, '*')"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)
