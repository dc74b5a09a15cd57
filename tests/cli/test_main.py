"""The command line itself: what it loads, what errors become, which commands there are."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from counterfoil import __version__
from counterfoil.cli.admin import SIMULATORS
from counterfoil.cli.main import COMMANDS, build
from tests.cli.conftest import Cli

HEAVY = {"rich", "aiohttp", "botocore", "pgqueuer", "structlog", "uvloop", "jsonschema"}


def _loaded(*arguments: str) -> set[str]:
    """Top names of the modules one command line loads, and our own in full."""
    code = (
        "import sys, json; from counterfoil.cli.main import main; main(sys.argv[1:]);"
        "print(json.dumps(sorted({m if m.startswith('counterfoil') else m.split('.')[0] for m in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_version_loads_nothing(cli: Cli) -> None:
    assert cli("--version").out == f"counterfoil {__version__}\n"
    assert not _loaded("--version") & {*HEAVY, "cyclopts", "asyncio", "msgspec", "ruamel"}


@pytest.mark.parametrize(
    "command", [["items", "list", "--json"], ["status", "--json"], ["sync", "list", "--json"], ["audit", "--json"]]
)
def test_reading_the_ledger_loads_no_connector_and_no_rich(folder: Path, command: list[str]) -> None:
    loaded = _loaded(*command)
    assert "asyncpg" in loaded
    assert not loaded & HEAVY
    assert not {m for m in loaded if m.startswith(("counterfoil.connectors", "counterfoil.engine", "counterfoil.app"))}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_every_command_is_there_and_tells_what_it_does(command: object, cli: Cli) -> None:
    path, where, about = command  # type: ignore[misc]
    module, _, name = where.partition(":")
    assert callable(getattr(import_module(module), name))
    said = cli(*path.split(), "--help")
    assert said.code == 0
    assert about or said.out
    assert "Usage: counterfoil" in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["itms", "list"], 2, ["items", "`counterfoil --help`"]),
        (["items", "list", "--flwo", "x"], 2, ["--flow", "`counterfoil items list --help`"]),
        (["items", "list", "--limit", "many"], 2, ["many"]),
        (["items", "list", "--limit", "0"], 2, ["--limit"]),
        (["items", "list", "--state", "SAD"], 2, ["PERMANENT_ERROR"]),
        (["items", "retry"], 2, ["which items are meant"]),
        (["items", "retry", "a", "--where", "state=QUEUED"], 2, ["Items are named and a filter"]),
        (["items", "retry", "a", "--file", "x", "--reason", "y"], 2, ["Use one of them"]),
        (["items", "list", "--where", "state=QUEUED", "--flow", "x"], 2, ["--where stands beside"]),
        (["sync", "run"], 2, ["FLOW"]),
        (["sync", "run", "x", "--since", "soon"], 2, ["2026-11-16"]),
        (["sync", "run", "x", "--step", "1 day"], 2, ["7d"]),
        (["sync", "run", "x", "--since", "2026-02-01", "--until", "2026-01-01"], 2, ["not before"]),
        (["simulate", "nobody"], 3, ["occ-lambda"]),
        (["completion", "cmd"], 2, ["bash"]),
        (["status", "--project", "/nowhere"], 3, ["counterfoil init"]),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(
    arguments: list[str], code: int, words: list[str], cli: Cli
) -> None:
    said = cli(*arguments)
    assert said.code == code
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_an_error_for_other_programs(cli: Cli) -> None:
    said = cli("items", "list", "--state", "SAD", "--json")
    error = json.loads(said.err)["error"]
    assert error["code"] == "usage"
    assert set(error) == {"code", "message", "hint"}


def test_with_debug_the_trace_is_shown() -> None:
    command = [sys.executable, "-m", "counterfoil", "status", "--project", "/nowhere", "--debug"]
    assert "Traceback" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str, cli: Cli) -> None:
    script = cli("completion", shell).out
    for word in ("sync", "items", "explain", "doctor", "--project"):
        assert word.lstrip("-") in script


def test_the_bash_completion_is_bash(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "c.sh").write_text(cli("completion", "bash").out)
    assert subprocess.run(["bash", "-n", str(tmp_path / "c.sh")], check=False).returncode == 0


@pytest.mark.parametrize("name", SIMULATORS)
def test_a_simulators_own_help(name: str, cli: Cli) -> None:
    said = cli("simulate", name, "--help")
    assert said.code == 0
    assert "--fault" in said.out
    assert f"  {name}  " in cli("simulate", "--help").out


def test_the_table_and_the_application_agree() -> None:
    app = build()
    assert {command.path.split()[0] for command in COMMANDS} <= set(app)
