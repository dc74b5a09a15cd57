"""Looks at everything a project needs and says, for each fault, how to mend it. Each check is a function that gives `Check`s.

Reads only. What needs connectors (reaching the sources, planning the tables) is done by the caller, who hands the answers in.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from counterfoil.ledger import health, migrate
from counterfoil.ledger.pool import APP_ROLE, Connection
from counterfoil.model.errors import ConflictError, CounterfoilError

LEAST_VERSION = 150000
LEAST_DISK = 1 << 30  # bytes free
CLOCKS_APART = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `said`: what was found; `remedy`: how to mend it, where it is not well."""

    name: str
    well: bool
    said: str
    remedy: str = ""


def check_machine(folder: Path) -> list[Check]:
    """Python and the disk of the project folder."""
    version = ".".join(map(str, sys.version_info[:3]))
    free = shutil.disk_usage(folder).free
    return [
        Check("Python", sys.version_info >= (3, 11), version, "Install Python 3.11 or newer."),
        Check(
            "Disk",
            free >= LEAST_DISK,
            f"{free / (1 << 30):,.1f} GB free in {folder}",
            "Make room, or move the project.",
        ),
    ]


def check_files(faults: Sequence[Any], flows: int) -> list[Check]:
    """The files of the project; `faults` of settings, flows, mappings and functions."""
    if not faults:
        return [Check("Files", True, f"{flows} flow{'s' * (flows != 1)} declared, no faults")]
    return [
        Check(
            "Files",
            False,
            f"{len(faults)} fault{'s' * (len(faults) != 1)}",
            "`counterfoil check` shows each with its line.",
        )
    ]


def failed(name: str, error: CounterfoilError) -> Check:
    """A check that could not be made."""
    return Check(name, False, error.problem, error.remedy)


async def check_schema(connection: Connection) -> list[Check]:
    """Migrations, on a connection in any role."""
    try:
        todo = await migrate.pending(connection)
    except ConflictError as error:
        return [failed("Schema", error)]
    missing = f"{len(todo)} migration{'s are' if len(todo) != 1 else ' is'} missing"
    said = missing if todo else "all migrations applied"
    return [Check("Schema", not todo, said, "Run `counterfoil migrate`.")]


async def check_login(connection: Connection) -> list[Check]:
    """Whether the login of the DSN may work at all. Before the first migration there is no role to ask for."""
    found = await health.login_rights(connection)
    if not found["there"]:
        return []
    login, member = found["login"], found["member"]
    said = f"{login} is {'a' if member else 'no'} member of {APP_ROLE}"
    return [Check("Login", member, said, f'As an administrator: grant {APP_ROLE} to "{login}".')]


async def check_server(connection: Connection, now: datetime) -> list[Check]:
    """Version, clock, sessions, standby."""
    facts = await health.server_facts(connection)
    apart = abs((facts["clock"] - now).total_seconds())
    used, most = facts["sessions"], facts["max_sessions"]
    return [
        Check(
            "PostgreSQL",
            facts["version_number"] >= LEAST_VERSION,
            facts["version"],
            "PostgreSQL 15 or newer is needed.",
        ),
        Check(
            "Primary",
            not facts["standby"],
            "a standby" if facts["standby"] else "takes writes",
            "Point the DSN at the primary.",
        ),
        Check(
            "Clocks",
            apart <= CLOCKS_APART,
            f"{apart:.1f} s apart",
            "Switch on time synchronisation (NTP) on both machines.",
        ),
        Check(
            "Sessions",
            used <= most * 0.8,
            f"{used} of {most} in use",
            "Raise max_connections, or close what is not needed.",
        ),
    ]


async def check_work(connection: Connection) -> list[Check]:
    """Runs and items that wait although they are due."""
    stale = await health.stale_runs(connection)
    overdue = sum(row["overdue"] or 0 for row in await health.sums(connection))
    names = ", ".join(f"{row['id']} ({row['flow']})" for row in stale)
    return [
        Check(
            "Runs",
            not stale,
            f"nobody works on {names}" if stale else "none is left behind",
            "Start a worker: `counterfoil up`.",
        ),
        Check("Items", not overdue, f"{overdue:,} overdue by more than 15 min", "Start a worker: `counterfoil up`."),
    ]


def check_sources(answers: Mapping[str, str | CounterfoilError]) -> list[Check]:
    """What each flow's source answered."""
    return [
        Check(f"Source of {flow}", True, answer) if isinstance(answer, str) else failed(f"Source of {flow}", answer)
        for flow, answer in answers.items()
    ]


def check_tables(faults: Mapping[str, Sequence[str]]) -> list[Check]:
    """Whether each flow's table takes its records; `faults` by flow."""
    return [
        Check(
            f"Table of {flow}",
            not some,
            " ".join(some) or "matches the flow",
            "`counterfoil plan` shows what differs; change the flow or the table.",
        )
        for flow, some in faults.items()
    ]
