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
from tests.support import Databases, FakeClock, Recycler, throw_away_server

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
def session_loop() -> Iterator[asyncio.Runner]:
    """Where the connections live that outlast a test."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def session_databases(server_dsn: str, session_loop: asyncio.Runner) -> Iterator[Databases]:
    """To make databases from fixtures that outlast a test."""
    databases = session_loop.run(Databases.open(server_dsn))
    yield databases
    session_loop.run(databases.close())


@pytest.fixture(scope="session")
def template(session_databases: Databases, session_loop: asyncio.Runner) -> str:
    """The name of a database that was migrated once; nothing may be written into it, nor stay connected."""

    async def make() -> str:
        name = await session_databases.create()
        connection = await pool.connect(session_databases.dsn(name))
        await migrate(connection)
        await connection.close()
        return name

    return session_loop.run(make())


@pytest.fixture(scope="session")
def recycler(session_databases: Databases, template: str) -> Recycler:
    return Recycler(session_databases, template)


@pytest.fixture
async def databases(server_dsn: str) -> AsyncIterator[Databases]:
    """To make databases, empty ones or from the template; they go with the test."""
    databases = await Databases.open(server_dsn)
    try:
        yield databases
    finally:
        await databases.close()


@pytest.fixture
def database(session_databases: Databases, recycler: Recycler, session_loop: asyncio.Runner) -> Iterator[str]:
    """The DSN of a migrated, empty database of this test's own."""
    name, shape = session_loop.run(recycler.take())
    yield session_databases.dsn(name)
    session_loop.run(recycler.give_back(name, shape))


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
