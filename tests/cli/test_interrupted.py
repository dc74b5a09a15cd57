"""A sync that is interrupted, or killed, three times: the same command goes on with the same run, and the end is as if nothing had happened."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import Cli

ROWS = 6_000


@pytest.fixture
def many_rows(folder: Path) -> Path:
    rows = "".join(f"{n},Somebody {n},{1 + n % 28:02}/01/2020,{n % 50}\n" for n in range(ROWS))
    (folder / "data" / "example.csv").write_text("Member No,Name,Joined,Fee\n" + rows)
    flow = folder / "flows" / "example.yaml"
    flow.write_text(flow.read_text() + "pull: {chunk_rows: 200}\n")
    return folder


_FOUND = "select coalesce(max(found), 0) from counterfoil.run"


async def _strike(dsn: str, number: signal.Signals) -> int:
    """Start the sync, strike as soon as it has done something, and give its exit code."""
    connection = await asyncpg.connect(dsn)
    before = await connection.fetchval(_FOUND)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "counterfoil",
        "sync",
        "run",
        "example",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.returncode is None and await connection.fetchval(_FOUND) == before:
        pass
    process.send_signal(number)
    await connection.close()
    return await process.wait()


async def _loaded(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("select count(*) from public.members")
    finally:
        await connection.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_three_times_and_then_to_the_end(
    many_rows: Path, database: str, cli: Cli, number: signal.Signals, code: int
) -> None:
    assert [asyncio.run(_strike(database, number)) for _ in range(3)] == [code] * 3
    last = cli("sync", "run", "example", "--json")
    assert last.code == 0, last.err
    assert "Going on with run" in last.err
    (run,) = cli("sync", "list", "--json").json["runs"]
    assert (run["found"], run["inserted"], run["rejected"], run["attempts"]) == (ROWS, ROWS - ROWS // 50, ROWS // 50, 4)
    assert asyncio.run(_loaded(database)) == ROWS - ROWS // 50
    assert cli("audit").code == 0


def test_a_second_one_is_refused_or_follows(many_rows: Path, database: str, cli: Cli) -> None:
    async def start() -> Any:
        connection = await asyncpg.connect(database)
        process = subprocess.Popen(
            [sys.executable, "-m", "counterfoil", "sync", "run", "example"], stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not await connection.fetchval(_FOUND):
            pass
        await connection.close()
        return process

    with asyncio.run(start()) as process:
        refused = cli("sync", "run", "example")
        followed = cli("sync", "run", "example", "--follow", "--json")
        assert process.wait() == 0
    assert (refused.code, "--follow" in refused.err) == (6, True)
    assert (followed.code, followed.json["run"]["found"]) == (0, ROWS)
    assert len(cli("sync", "list", "--json").json["runs"]) == 1
