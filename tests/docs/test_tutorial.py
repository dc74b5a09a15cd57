"""The tutorial and the examples' pages are run as they stand, commands and files, in order. Exit codes and sums are as the page says.

The first line of a block may say more: `exit=5` (of its last command), `terminal=2` (goes on in the background), `until=WORD` (is
stopped by Ctrl-C once it has said the word), `file=PATH` (the block is that file).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks
from tests.docs.sources import DOCS, ROOT

PAGES = (DOCS / "tutorial" / "first-sync.md", *sorted((ROOT / "examples").glob("*/README.md")))
PORT = re.compile(r"\b876\d\b")  # of the simulator, on the pages


@dataclass(slots=True)
class Terminal:
    """A person at a terminal who types what the page says."""

    folder: Path
    environment: dict[str, str]
    port: str
    open: ExitStack
    said: list[str] = field(default_factory=list)

    def do(self, block: Block) -> None:
        note = dict(part.split("=", 1) for part in block.note.split())
        text = PORT.sub(self.port, block.text)
        if name := note.get("file"):
            (self.folder / name).write_text(text, encoding="utf-8")
            return
        lines = re.findall(r"^\$ (.+)$", text, re.M)
        for at, line in enumerate(lines):
            words = shlex.split(line)
            if "terminal" in note:
                self.open.enter_context(self.beside(words))
            elif until := note.get("until"):
                self.until(words, until)
            else:
                self.one(words, line, int(note.get("exit", 0)) if at == len(lines) - 1 else 0)
        self.expect_sums(text)

    def one(self, words: list[str], line: str, code: int) -> None:
        if words[0] == "cd":
            self.folder = self.folder / words[1]
        elif words[0] == "export":
            self.environment |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "curl":
            with urllib.request.urlopen(words[3], data=words[5].encode(), timeout=20) as answer:
                assert answer.status == 200
        else:
            done = subprocess.run(
                words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
            )
            self.said.append(done.stdout)
            assert done.returncode == code, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"

    def expect_sums(self, text: str) -> None:
        for line in re.findall(r"^ *(found .+|.+: sent \d.+)$", text, re.M):
            assert any(line in said for said in self.said), f"The page says: {line}\nIt was:\n{self.said[-1]}"

    @contextmanager
    def beside(self, words: list[str]) -> Iterator[None]:
        with subprocess.Popen(
            words, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b'{"port"')  # it listens
            try:
                yield
            finally:
                process.terminate()

    def until(self, words: list[str], word: str) -> None:
        with subprocess.Popen(
            words, cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stderr is not None
            patience = threading.Timer(120, process.kill)
            patience.start()
            try:
                for line in process.stderr:
                    if word in line:
                        process.send_signal(signal.SIGINT)
                        break
                process.stderr.read()
                assert process.wait(60) == 0
            finally:
                patience.cancel()


def _command(folder: Path) -> str:
    """A folder with the command `counterfoil`, which is this very code."""
    folder.mkdir()
    script = folder / "counterfoil"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m counterfoil "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns(".counterfoil"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "PATH": f"{_command(tmp_path / 'bin')}:{os.environ['PATH']}"}
    with ExitStack() as stack:
        terminal = Terminal(tmp_path, environment, port, stack)
        for block in blocks(page):
            terminal.do(block)
