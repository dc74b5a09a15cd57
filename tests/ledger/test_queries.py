"""Every named query is compiled by the server against the migrated schema, in the role that runs it."""

from __future__ import annotations

from typing import Any

import pytest

from counterfoil.ledger.queries import FILES, load


async def test_every_query_prepares_as_the_application(app: Any) -> None:
    for file in FILES:
        for name, sql in load(file).items():
            try:
                await app.prepare(sql)
            except Exception as error:
                raise AssertionError(f"{file}.sql, {name}: {error}") from error


@pytest.mark.parametrize("file", FILES)
def test_every_query_has_a_line_that_describes_it(file: str) -> None:
    for name, sql in load(file).items():
        assert sql.startswith("-- "), f"{file}.sql: {name} has no line that tells its parameters"
