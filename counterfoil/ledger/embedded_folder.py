"""The data folder of the embedded PostgreSQL: its files, its locks, and who uses it.

Every lock is a `flock` on a file that is never moved, so it dies with the process that holds it, however it dies:
`lock` guards start and stop, `server.lock` is inherited by all processes of the server, and each file in `users/` is
held by one user. Nothing is started here; see `embedded.py`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from counterfoil.ledger.embedded_errors import OTHER_DATABASE, DiskFull, EmbeddedError, FolderBusy, FolderNotWritable
from counterfoil.ledger.embedded_host import is_server

POLL = 0.01  # seconds between two looks at another process: a lock, a start, a stop; nothing tells us of them, each wait has an end
LOG_LIMIT = 10_000_000


@dataclass(frozen=True, slots=True)
class Postmaster:
    """`postmaster.pid` as PostgreSQL wrote it. `status` is starting, stopping, ready, standby or empty."""

    pid: int
    port: int
    status: str
    alive: bool


@dataclass(frozen=True, slots=True)
class Folder:
    root: Path

    @property
    def pgdata(self) -> Path:
        return self.root / "pgdata"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def guard(self) -> Path:
        return self.root / "lock"

    @property
    def server_lock(self) -> Path:
        return self.root / "server.lock"

    @property
    def users(self) -> Path:
        return self.root / "users"

    # --- files --------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Only a folder that was not there, or was empty, gets mode 700: one with other things keeps its own."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        if not self.root.exists() or not any(self.root.iterdir()):
            self.root.mkdir(mode=0o700, exist_ok=True)
            self.root.chmod(0o700)
            self.give(self.root, self.root.parent.stat().st_uid)
        self.users.mkdir(mode=0o700, exist_ok=True)
        self.give(self.users)

    def give(self, path: Path, uid: int | None = None) -> None:
        """As root, our files follow the owner of the folder, so that he can use them without root."""
        target = self.root.stat().st_uid if uid is None else uid
        # /tmp and the like belong to root; a folder we make there stays root's.
        if os.geteuid() == 0 and path.stat().st_uid != target:
            os.chown(path, target, -1)

    def read(self, name: str) -> str:
        try:
            return (self.root / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def write(self, name: str, text: str) -> None:
        """Whole or not at all for other processes, mode 600. No fsync: what a power cut takes, the next start makes anew."""
        draft = self.root / f"{name}.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        self.give(draft)
        draft.replace(self.root / name)

    def password(self) -> str:
        return self.read("password")

    def port(self) -> int | None:
        text = self.read("port")
        return int(text) if text.isdigit() else None

    def begin_log(self) -> int:
        """Where the next start's lines begin, in bytes."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600))
        return self.log.stat().st_size

    def log_since(self, start: int) -> str:
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read(1_000_000).decode(errors="replace")

    def sweep_drafts(self) -> int:
        """Removes what starts that were killed in the middle of `initdb` left behind."""
        drafts = list(self.root.glob("pgdata.new-*"))
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)
            if draft.is_file():
                draft.unlink()
        return len(drafts)

    def postmaster(self) -> Postmaster | None:
        try:
            lines = (self.pgdata / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid, port = int(lines[0]), int(lines[3])
        except (FileNotFoundError, IndexError, ValueError):
            # Half written: its writer is about to finish it, or died; whoever asks asks again or starts anew.
            return None
        return Postmaster(pid, port, lines[7].strip() if len(lines) > 7 else "", is_server(pid, self.pgdata))

    # --- locks --------------------------------------------------------------------------------------------

    @contextmanager
    def guarded(self, timeout: float) -> Iterator[int]:
        """One start or stop at a time. Gives the lock's descriptor, for programs that must not outlive the guard."""
        deadline = time.monotonic() + timeout
        while (guard := self.take(self.guard)) is None:
            if time.monotonic() > deadline:
                raise FolderBusy(
                    f"Another process has been starting or stopping the PostgreSQL in {self.root} for {timeout:.0f} s.",
                    f"Wait for it or end it (`fuser {self.guard}` names it), then start again.",
                )
            time.sleep(POLL)
        try:
            yield guard
        finally:
            os.close(guard)

    def take(self, path: Path) -> int | None:
        """The lock as an open descriptor; None where somebody has it. Close it to let go."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self.give(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def server_lives(self) -> bool:
        """Whether any process of the server does, seen from any container. Ask only under the guard."""
        if (lock := self.take(self.server_lock)) is None:
            return True
        os.close(lock)
        return False

    # --- users --------------------------------------------------------------------------------------------

    def join(self) -> tuple[Path, int]:
        path = self.users / f"{os.getpid()}-{secrets.token_hex(4)}"
        lock = self.take(path)
        assert lock is not None, "a new file has no other holder"
        return path, lock

    def leave(self, path: Path, lock: int) -> None:
        path.unlink(missing_ok=True)
        os.close(lock)

    def living_users(self) -> list[int]:
        """Process ids of those who use the server; the files of the dead are removed. Ask only under the guard."""
        alive: list[int] = []
        for path in sorted(self.users.iterdir()):
            if (lock := self.take(path)) is None:
                alive.append(int(path.name.partition("-")[0]))
            else:
                self.leave(path, lock)
        return alive


# --- what the operating system says, in our words -------------------------------------------------------------------


def _full(place: Path) -> EmbeddedError:
    return DiskFull(
        f"The disk of {place} is full.", "Free some space there and start again; nothing committed is lost."
    )


def _not_writable(place: Path) -> EmbeddedError:
    return FolderNotWritable(
        f"User {os.geteuid()} may not write in {place}.",
        f"Run as the folder's owner, make it writable, name another data folder, {OTHER_DATABASE}.",
    )


def _no_folder(place: Path) -> EmbeddedError:
    return FolderNotWritable(f"{place} cannot be a folder: there is a file in its way.", "Name another data folder.")


def _no_locks(place: Path) -> EmbeddedError:
    return FolderNotWritable(
        f"The file system of {place} has no file locks.", f"Name a data folder on a local disk, {OTHER_DATABASE}."
    )


REASONS: dict[int, Callable[[Path], EmbeddedError]] = {
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    errno.EACCES: _not_writable,
    errno.EPERM: _not_writable,
    errno.EROFS: _not_writable,
    errno.ENOTDIR: _no_folder,
    errno.EEXIST: _no_folder,
    errno.ENOLCK: _no_locks,
    errno.EOPNOTSUPP: _no_locks,
}


@contextmanager
def in_our_words(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS:
            raise
        raise REASONS[error.errno](place) from error
