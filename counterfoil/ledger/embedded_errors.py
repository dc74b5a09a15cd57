"""What can go wrong with the embedded PostgreSQL, one class per remedy, and the table that reads a cause from its log.

Only words live here: nothing starts, stops or touches a file. The launcher is `embedded.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from counterfoil.model.errors import CounterfoilError

OTHER_DATABASE = "or give the address of another PostgreSQL (15 or newer) as DSN"
LAST_LINES = 12


class EmbeddedError(CounterfoilError):
    """Any trouble with the embedded PostgreSQL; `str()` gives problem and remedy."""

    code, exit_code = "embedded", 7


class BinariesMissing(EmbeddedError):
    """No PostgreSQL programs for this platform."""


class NoUnprivilegedUser(EmbeddedError):
    """PostgreSQL refuses to run as root, and no other user could be found for it."""


class FolderNotWritable(EmbeddedError):
    """The data folder cannot be read, written or locked by this user."""


class FolderBusy(EmbeddedError):
    """Somebody holds the folder whom we cannot talk to: another start, a foreign server, another container."""


class DataDamaged(EmbeddedError):
    """The database folder is there but is no whole database."""


class OtherMajor(EmbeddedError):
    """The data was made by another major version of PostgreSQL."""


class PortTaken(EmbeddedError):
    """The port that was asked for is in use."""


class DiskFull(EmbeddedError):
    """No space left, while making or starting the database."""


class InitFailed(EmbeddedError):
    """`initdb` failed for a reason that is not in the table below."""


class StartFailed(EmbeddedError):
    """The server ended while starting, for a reason that is not in the table below."""


class StartTimeout(EmbeddedError):
    """The server is alive but was not ready in time."""


class StopTimeout(EmbeddedError):
    """The server is still shutting down."""


# Pattern in a log, what it means, problem, remedy. The first that matches wins.
CAUSES: tuple[tuple[str, type[EmbeddedError], str, str], ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        DiskFull,
        "The disk of {place} is full, so the embedded PostgreSQL cannot start.",
        "Free some space there (about 100 MB for an empty database) and start again; nothing that was committed is lost.",
    ),
    (
        r"Address already in use|could not bind|could not create any TCP/IP sockets",
        PortTaken,
        "The port of the embedded PostgreSQL in {place} is used by another program.",
        "Stop that program, or ask for no particular port: a free one is then chosen.",
    ),
    (
        r"files are incompatible with server|initialized by PostgreSQL version",
        OtherMajor,
        "The data in {place} was made by another version of PostgreSQL.",
        f"Dump it with that version's programs and load it into a new folder, {OTHER_DATABASE}.",
    ),
    (
        r"^unshare: |cannot be run as root|execution of the PostgreSQL server is not permitted",
        NoUnprivilegedUser,
        "PostgreSQL refuses to run as root, and this host allows no user namespace for the data in {place}.",
        "Run Counterfoil as a normal user who owns that folder, or give the folder's `pgdata` to one"
        f" (`chown -R nobody pgdata`), {OTHER_DATABASE}.",
    ),
    (
        r"could not look up effective user ID",
        NoUnprivilegedUser,
        "This user has no entry in /etc/passwd, which PostgreSQL's initdb needs.",
        f"Add one, run as a user who has one, {OTHER_DATABASE}.",
    ),
    (
        r"Permission denied|Operation not permitted|Read-only file system|has wrong ownership|invalid permissions",
        FolderNotWritable,
        "The embedded PostgreSQL may not write in {place}.",
        f"Make it writable for the user who runs Counterfoil, name another data folder, {OTHER_DATABASE}.",
    ),
    (
        r"could not locate a valid checkpoint record|invalid checkpoint|could not find .*pg_control|"
        r"incorrect checksum in control file|could not find the database system|"
        r"could not open (file|directory) \"(global|base|pg_)",
        DataDamaged,
        "The database in {place} is damaged.",
        "Restore it from a backup, or move its `pgdata` away and start again: a new, empty one is made.",
    ),
)


def last_lines(log: str) -> str:
    lines = log.strip().splitlines()[-LAST_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"


def diagnose(log: str, place: Path, otherwise: type[EmbeddedError], what: str) -> EmbeddedError:
    """The error that `log` (text of initdb or of the server) tells of; `otherwise` with its last lines where unknown."""
    for pattern, error, problem, remedy in CAUSES:
        if re.search(pattern, log, re.MULTILINE):
            return error(problem.format(place=place), remedy)
    return otherwise(
        f"{what} in {place}. Its last lines:\n{last_lines(log)}\n", f"Mend what they name, {OTHER_DATABASE}."
    )
