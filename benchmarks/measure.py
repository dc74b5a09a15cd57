"""Runs a contestant as a user would, as processes of its own, and says what it took: wall, CPU, peak memory.

CPU and memory are what the kernel counted for the process and the children it waited for (wait4). A pipeline (`a | b`) counts as one.
Keep whoever calls this small: Linux lets a child begin with the peak memory of its parent.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Taken:
    """`wall` and `cpu` in seconds, `memory` in MB (10^6). `problem`: empty where it went well. `stopped`: the time limit ended it."""

    wall: float
    cpu: float
    memory: float
    problem: str = ""
    stopped: bool = False


def run(
    commands: Sequence[Sequence[str]], *, environment: Mapping[str, str], folder: Path, limit: float, log: Path
) -> Taken:
    """Run the commands, each one's output into the next; the last one's output and all errors into `log`."""
    usages: list[tuple[int, resource.struct_rusage]] = []
    begun = time.perf_counter()
    with log.open("ab") as out:
        processes = _pipeline(commands, environment, folder, out.fileno())
    waiters = [threading.Thread(target=lambda p=p: usages.append(os.wait4(p.pid, 0)[1:])) for p in processes]
    for waiter in waiters:
        waiter.start()
    stopped = not _join(waiters, begun + limit)
    if stopped:
        for process in processes:
            _kill_group(process.pid)
        _join(waiters, time.perf_counter() + 30)
    wall = time.perf_counter() - begun
    codes = [os.waitstatus_to_exitcode(status) for status, _ in usages]
    for process in processes:
        process.returncode = 0  # waited for above; keeps subprocess from asking again
    problem = f"> {limit:.0f} s (stopped)" if stopped else "" if not any(codes) else f"exit {codes}: {last_line(log)}"
    return Taken(
        wall,
        sum(usage.ru_utime + usage.ru_stime for _, usage in usages),
        sum(usage.ru_maxrss for _, usage in usages) * 1024 / 1e6,
        problem,
        stopped,
    )


def _pipeline(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path, out: int
) -> list[subprocess.Popen[bytes]]:
    processes: list[subprocess.Popen[bytes]] = []
    for position, command in enumerate(commands):
        last = position == len(commands) - 1
        before = processes[-1].stdout if processes else None
        processes.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=before or subprocess.DEVNULL,
                stdout=out if last else subprocess.PIPE,
                stderr=out,
                start_new_session=True,
            )
        )
        if before is not None:
            before.close()
    return processes


def _join(waiters: Sequence[threading.Thread], until: float) -> bool:
    for waiter in waiters:
        waiter.join(max(0.0, until - time.perf_counter()))
    return not any(waiter.is_alive() for waiter in waiters)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
