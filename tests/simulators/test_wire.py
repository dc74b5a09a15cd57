"""The simulators as processes: one JSON line when they listen, an end on a signal and with their parent, words when they cannot."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

MODULES = [f"counterfoil.simulators.{name}" for name in ("customer_api", "occ_lambda", "case_system", "deputy_gateway")]


@contextmanager
def process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running simulator, ended if it still runs."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.mark.parametrize("module", MODULES)
def test_a_process_says_where_it_listens_and_ends_on_a_signal(module: str) -> None:
    with process(module, "--seed", "3") as started:
        assert started.stdout
        told = json.loads(started.stdout.readline())
        assert told == {"port": told["port"], "url": f"http://127.0.0.1:{told['port']}"}
        with urlopen(told["url"] + "/_sim/record", timeout=10) as reply:
            assert json.load(reply)["bytes_sent"] == 0
        started.send_signal(signal.SIGTERM)
        assert started.wait(10) == 0


def test_it_ends_with_its_parent() -> None:
    script = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-m', {MODULES[0]!r}, '--with-parent'], stdout=subprocess.PIPE)\n"
        "print(child.pid, child.stdout.readline().decode(), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    read, write = os.pipe()  # stays open in the grandchild as long as it lives: its end tells of the death
    command = [
        sys.executable,
        "-c",
        script.replace("stdout=subprocess.PIPE", f"stdout=subprocess.PIPE, pass_fds=[{write}]"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[write]
    ) as parent:
        assert parent.stdout
        assert '"port"' in parent.stdout.readline()
        os.close(write)
        parent.kill()
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "nonsense"], "Known:"),
        (["--data", "no-such-file.csv"], "no-such-file.csv"),
        (["--latency", "soon"], "--latency"),
    ],
)
def test_it_says_why_it_cannot_start(arguments: list[str], said: str) -> None:
    with process(MODULES[0], *arguments) as started:
        assert started.stderr
        words = started.stderr.read()
        assert started.wait(10) == 2
        assert said in words
        assert "Traceback" not in words
