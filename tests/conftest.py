"""Fixtures of all tests: one server a session, one migrated template, a database of its own for each test that asks.

COUNTERFOIL_TEST_DSN runs everything on another server (a superuser's DSN); COUNTERFOIL_TEST_PG names other binaries.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from counterfoil.ledger import pool
from counterfoil.ledger.migrate import migrate
from counterfoil.ledger.pool import Ledger
from tests.support import Databases, FakeClock, throw_away_server

settings.register_profile(
    "quick", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs only where they are asked for: `-m soak`."""
    if "soak" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="long; make soak runs it"))


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A superuser's DSN of the server all tests share."""
    if given := os.environ.get("COUNTERFOIL_TEST_DSN"):
        yield given
        return
    with throw_away_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[str]:
    """The name of a database that was migrated once; nothing may be written into it."""

    async def make() -> str:
        databases = await Databases.open(server_dsn)
        try:
            name = await databases.create()
            connection = await pool.connect(databases.dsn(name))
            await migrate(connection)
            await connection.close()
        except BaseException:
            await databases.close()
            raise
        made.append(databases)
        return name

    made: list[Databases] = []
    with asyncio.Runner() as runner:
        name = runner.run(make())
        yield name
        runner.run(made[0].close())


@pytest.fixture
async def databases(server_dsn: str) -> AsyncIterator[Databases]:
    """To make databases, empty ones or from the template; they go with the test."""
    databases = await Databases.open(server_dsn)
    try:
        yield databases
    finally:
        await databases.close()


@pytest.fixture
async def database(databases: Databases, template: str) -> str:
    """The DSN of a migrated database of this test's own."""
    return databases.dsn(await databases.create(template))


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """The ledger as the application sees it."""
    ledger = await Ledger.open(database)
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
async def app(database: str) -> AsyncIterator[Any]:
    """One connection in the application's role."""
    connection = await pool.connect(database, role=pool.APP_ROLE)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Any]:
    """One connection that may do everything."""
    connection = await pool.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
