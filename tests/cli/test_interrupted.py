"""A sync that is interrupted, or killed, three times: the same command goes on with the same run, and the end is as if nothing had happened."""

from __future__ import annotations

import asyncio
import json
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


_SESSIONS = "select count(distinct client_port) from pg_stat_activity where datname = current_database()"


async def _until(dsn: str, question: str, above: int, process: subprocess.Popen[Any]) -> int:
    """Ask until the answer is above, or the process has ended; the answer."""
    connection = await asyncpg.connect(dsn)
    try:
        while (answer := int(await connection.fetchval(question))) <= above and process.poll() is None:
            pass
        return answer
    finally:
        await connection.close()


def test_a_second_one_is_refused_or_follows(many_rows: Path, database: str, cli: Cli) -> None:
    command = [sys.executable, "-m", "counterfoil", "sync", "run", "example"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    asyncio.run(_until(database, _FOUND, 0, first))
    first.send_signal(signal.SIGSTOP)  # else it might be over before the others have begun
    refused = cli("sync", "run", "example")
    sessions = asyncio.run(_until(database, _SESSIONS, 0, first))
    second = subprocess.Popen([*command, "--follow", "--json"], stdout=subprocess.PIPE)
    asyncio.run(_until(database, _SESSIONS, sessions, second))
    first.send_signal(signal.SIGCONT)
    told, _ = second.communicate()
    assert first.wait() == 0
    assert (refused.code, "--follow" in refused.err) == (6, True)
    assert (second.returncode, json.loads(told)["run"]["found"]) == (0, ROWS)
    assert len(cli("sync", "list", "--json").json["runs"]) == 1
