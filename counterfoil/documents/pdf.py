"""Whether a PDF can be read and is encrypted. The parser runs in a process of its own (`pdf_child.py`), with limits on time and memory.

A few such processes are kept for the next file. None sees more than a path; none outlives the process that started it.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from counterfoil.model.errors import Transient

CPU_SECONDS = 10.0
WALL_SECONDS = 60.0
_AT_ONCE = 2
_FILES_EACH = 500  # then a new process: what a parser leaks stays small
_PROGRAM = Path(__file__).with_name("pdf_child.py")
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LC_ALL": "C.UTF-8",
}  # nothing of ours: a parser that is taken over finds no secret there


# Signals that a file can bring about: out of its time, or the parser failed. Any other came from outside.
_OF_THE_FILE = frozenset(
    getattr(signal, name)
    for name in ("SIGXCPU", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")
    if hasattr(signal, name)
)


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. `broken`: "cut", "memory", "time", "unreadable"; None: it can be read, or is locked with a password."""

    encrypted: bool = False
    pages: int = 0
    broken: str | None = None


def look(path: Path, *, cpu: float = CPU_SECONDS, wall: float = WALL_SECONDS) -> Look:
    """Open the PDF at `path` and count its pages. Raises Transient (`file_unchecked`) where this host has no time or room for it."""
    with _reader() as reader:
        said = reader.ask({"path": str(path), "cpu": cpu}, wall)
        if said is None and reader.died_of not in _OF_THE_FILE:
            raise _unchecked("The file could not be checked: the program that does it was ended, or had no time.")
    return Look(**json.loads(said)) if said is not None else Look(broken="time")


def close() -> None:
    """End the processes that are kept; the next file starts new ones."""
    while _idle:
        _idle.pop().end()


class _Reader:
    """One child process."""

    def __init__(self) -> None:
        self.files = 0
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        except OSError as error:
            raise _unchecked("The program that checks PDFs could not be started.") from error
        if self._line(time.monotonic() + WALL_SECONDS) is None:
            self.end()
            raise _unchecked("The program that checks PDFs did not start.")

    def ask(self, question: dict[str, str | float], wall: float) -> bytes | None:
        """The reply line; None where the process died, or was killed after `wall` seconds."""
        self.files += 1
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
        except OSError:
            return None
        return self._line(time.monotonic() + wall)

    @property
    def usable(self) -> bool:
        return self._process.poll() is None and self.files < _FILES_EACH

    @property
    def died_of(self) -> int | None:
        """The signal that ended it."""
        code = self._process.poll()
        return None if code is None else -code

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self, until: float) -> bytes | None:
        stdout = self._process.stdout
        assert stdout is not None
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                piece = os.read(stdout.fileno(), 4096)
                if not piece:
                    self._process.wait()
                    return None
                said += piece
        return said


def _unchecked(problem: str) -> Transient:
    return Transient(problem, "Look at the load and memory of this host; it is tried again.", fault="file_unchecked")


_idle: list[_Reader] = []
_free = threading.BoundedSemaphore(_AT_ONCE)


@contextmanager
def _reader() -> Iterator[_Reader]:
    """A process nobody else uses meanwhile."""
    with _free:
        try:
            reader = _idle.pop()
        except IndexError:
            reader = _Reader()
        try:
            yield reader
        except BaseException:
            reader.end()
            raise
        if reader.usable:
            _idle.append(reader)
        else:
            reader.end()


atexit.register(close)
