"""Brings a database to the newest schema: numbered files, `pre` before the release runs, `post` after the old one is gone.

Each file is one transaction; two migrators wait for each other. `schema.sql` is the dump of the result, proven equal by a test.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import asyncpg

from counterfoil.ledger.pool import Connection
from counterfoil.model.errors import ConflictError, NotAllowedError

_FILE = re.compile(r"^(\d{4})_(pre|post)_(\w+)\.sql$")
_LOCK = 7246_0001  # advisory lock: one migrator at a time

_OWN_TABLE = """
create schema if not exists counterfoil;
create table if not exists counterfoil.migration (
  number     integer primary key,
  name       text not null,
  sha256     text not null,
  applied_at timestamptz not null default now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    phase: Literal["pre", "post"]
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def known() -> tuple[Migration, ...]:
    """All migrations of this release, in order."""
    found = []
    for file in files("counterfoil.ledger.migrations").iterdir():
        if match := _FILE.match(file.name):
            phase: Literal["pre", "post"] = "pre" if match[2] == "pre" else "post"
            found.append(Migration(int(match[1]), phase, match[3], file.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.number))


async def applied(connection: Connection) -> dict[int, str]:
    """Numbers and checksums of what the database has; empty for a database that never saw us."""
    if await connection.fetchval("select to_regclass('counterfoil.migration')") is None:
        return {}
    return {
        row["number"]: row["sha256"]
        for row in await connection.fetch("select number, sha256 from counterfoil.migration")
    }


async def pending(connection: Connection, phase: str | None = None) -> tuple[Migration, ...]:
    """What is still to be applied. Raises ConflictError where the database is newer or differs from this release."""
    have, ours = await applied(connection), {migration.number: migration for migration in known()}
    if unknown := sorted(set(have) - set(ours)):
        raise ConflictError(
            f"The database has migration {unknown[-1]:04d}, which this release does not know: it is newer.",
            "Run the newer release of counterfoil, or restore the database from before the upgrade.",
        )
    for number, digest in have.items():
        if ours[number].sha256 != digest:
            raise ConflictError(
                f"Migration {number:04d} was applied in another form than this release has it.",
                "Use the release that applied it, or a fresh database; `counterfoil doctor` compares the schema.",
            )
    return tuple(m for number, m in sorted(ours.items()) if number not in have and phase in (None, m.phase))


async def migrate(connection: Connection, phase: str | None = None) -> tuple[Migration, ...]:
    """Apply what is pending, each in a transaction of its own; safe to repeat and to run twice at the same time."""
    await connection.execute("select pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute("set client_min_messages = warning")
        todo = await pending(connection, phase)
        if todo:  # a login that may not create anything may still ask
            await connection.execute(_OWN_TABLE)
        for migration in todo:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into counterfoil.migration (number, name, sha256) values ($1, $2, $3)",
                    migration.number,
                    f"{migration.phase}_{migration.name}",
                    migration.sha256,
                )
        return todo
    except asyncpg.InsufficientPrivilegeError as error:
        raise await _not_allowed(connection, error) from error
    finally:
        await connection.execute("select pg_advisory_unlock($1)", _LOCK)


async def _not_allowed(connection: Connection, error: Exception) -> NotAllowedError:
    login, database = await connection.fetchrow("select quote_ident(session_user), quote_ident(current_database())")
    roles = ("counterfoil_owner", "counterfoil_app", "counterfoil_reader")
    there = await connection.fetch("select rolname from pg_roles where rolname = any($1)", list(roles))
    made = [f"create role {role} nologin" for role in roles if role not in {row["rolname"] for row in there}]
    given = [
        f"grant {', '.join(roles)} to {login} with admin option",
        f"grant create on database {database} to {login}",
    ]
    return NotAllowedError(
        f"The login {login} may not migrate: {error}.",
        f"As an administrator of the server: {'; '.join([*made, *given])}.",
    )
