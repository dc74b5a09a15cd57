"""A project folder on a database of the test's own, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from counterfoil.cli.main import main


class Said(NamedTuple):
    """What one command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("items", "list")`: exit code, stdout, stderr."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(arguments)
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def folder(tmp_path: Path, cli: Cli, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `init` makes, on the test's database; the current folder."""
    folder = tmp_path / "club"
    assert cli("init", str(folder)).code == 0
    (folder / "counterfoil.toml").write_text('[project]\noperator = "ana@desk"\n[database]\ndsn = "${DATABASE_URL}"\n')
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.chdir(folder)
    return folder
