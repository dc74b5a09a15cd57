"""A run under way as lines, five seconds apart."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from counterfoil.cli import progress
from counterfoil.engine.progress import Progress
from counterfoil.model.run import RunCounts


def test_one_look_as_a_line() -> None:
    counts = RunCounts(found=1000, inserted=600, failed=2)
    seen = Progress(1, "pets", "running", counts, list_ended=True, per_second=250.4, note="waiting for the source")
    assert progress.line_of(seen) == "pets: 602 of 1,000, 250/s; inserted 600, failed 2; waiting for the source"
    assert " of 1,000 so far" in progress.line_of(Progress(1, "pets", "running", counts))


def test_lines_are_five_seconds_apart(capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 1.0, 4.9, 5.0, 5.0, 6.0, 10.1, 10.1])
    watch = progress._lines(lambda: next(moments))
    for _ in range(5):
        watch(Progress(1, "pets", "running", RunCounts()))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_without_a_terminal_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.watching(bar=True) as watch:
        watch(Progress(1, "pets", "running", RunCounts()))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("variables", "moves"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_on_a_terminal_a_bar_moves(folder: Path, variables: dict[str, str], moves: bool) -> None:
    terminal, other_end = pty.openpty()
    given = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    command = [sys.executable, "-m", "counterfoil", "sync", "run", "example"]
    done = subprocess.run(
        command,
        env=given | {"TERM": "xterm"} | variables,
        stdout=subprocess.PIPE,
        stderr=other_end,
        text=True,
        check=False,
    )
    os.close(other_end)
    told = os.read(terminal, 1_000_000)
    os.close(terminal)
    assert done.returncode == 5
    assert "found 7 = inserted 3" in done.stdout
    assert "\x1b" not in done.stdout
    assert (b"\x1b[" in told) is moves
