"""The server all contestants share, a fresh database for each run, and what stands in it afterwards.

Asks in processes of its own (`python -m benchmarks.database STATEMENT`, DATABASE_URL set), so that the benchmark itself stays small:
a child process begins with its parent's peak memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]


@contextmanager
def server(dsn: str | None, folder: Path) -> Iterator[str]:
    """The DSN given, or that of a server started here (the wheel's, durable) and stopped at the end."""
    if dsn is not None:
        yield dsn
        return
    from counterfoil.ledger.embedded import embedded  # only where no server is given

    with embedded(folder) as started:
        yield started.dsn


@contextmanager
def database(dsn: str, name: str) -> Iterator[str]:
    """An empty database beside the one of `dsn`, dropped at the end; the checkpoint gives everyone the same start."""
    ask(dsn, f'drop database if exists "{name}" with (force)')
    ask(dsn, f'create database "{name}"')
    ask(dsn, "checkpoint")
    try:
        yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
    finally:
        ask(dsn, f'drop database "{name}" with (force)')


def ask(dsn: str, statement: str) -> list[list[Any]]:
    """Rows of one statement. Raises RuntimeError with the server's words."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.database", statement],
        env={**os.environ, "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no answer"])[-1])
    return json.loads(done.stdout)


async def _answer(statement: str) -> list[list[Any]]:
    import asyncpg  # heavy; only the child needs it

    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        return [list(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_answer(sys.argv[1])), default=str))
