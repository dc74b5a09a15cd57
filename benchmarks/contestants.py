"""Who takes part, as a table: how each is made ready (not timed) and which command does the work (timed).

Each gets an empty database of its own and the same source; `place` is where its rows end, to be checked afterwards.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks import data, peer_environments, project

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
QUIET = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "DO_NOT_TRACK": "1"}
# dlt: as many calls at a time as everyone else has; no progress lines.
DLT = {"EXTRACT__WORKERS": "15", "EXTRACT__MAX_PARALLEL_ITEMS": "15", **QUIET}
JSON_TYPES = {
    "text": {"type": "string"},
    "bigint": {"type": "integer"},
    "double precision": {"type": "number"},
    "boolean": {"type": "boolean"},
    "timestamptz": {"type": "string", "format": "date-time"},
}

Commands = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Task:
    """One run: `kind` is changed or pages, `flow` our flow for it, `folder` its own empty folder, `dsn` its own database."""

    kind: str
    flow: str
    base: str
    dsn: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Contestant:
    """`prepare` gives commands to run first, untimed; `work` the timed pipeline; both may write files into the task's folder."""

    name: str
    place: str
    environment: Callable[[Task], Mapping[str, str]]
    prepare: Callable[[Task], Sequence[Commands]]
    work: Callable[[Task], Commands]
    peers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # its environments, and the packages to name


def clean() -> dict[str, str]:
    """Our environment without what could steer a contestant."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COUNTERFOIL", "DLT"))}


# --- ours ---------------------------------------------------------------------------------------------------------

OURS = (sys.executable, "-m", "counterfoil")


def ours_environment(task: Task) -> Mapping[str, str]:
    return {**clean(), "PYTHONPATH": str(ROOT), "DATABASE_URL": task.dsn, "API_BASE_URL": task.base}


def ours_prepare(task: Task) -> Sequence[Commands]:
    project.write(task.folder / "project")
    return [[[*OURS, "migrate", "--project", str(task.folder / "project")]]]


def ours_work(task: Task) -> Commands:
    return [[*OURS, "sync", "run", task.flow, "--json", "--project", str(task.folder / "project")]]


# --- the seed's own design ----------------------------------------------------------------------------------------


def seed_environment(task: Task) -> Mapping[str, str]:
    return {**clean(), "PYTHONPATH": str(ROOT), "DATABASE_URL": task.dsn}


def seed_prepare(task: Task) -> Sequence[Commands]:
    columns = ", ".join(f"{name} {kind}" for name, kind in data.COLUMNS.items())
    statement = f"create table records ({columns}, primary key (id))"
    return [[[sys.executable, "-m", "benchmarks.database", statement]]]


def seed_work(task: Task) -> Commands:
    return [[sys.executable, str(PEERS / "with_seed.py"), task.kind, task.base]]


# --- dlt ----------------------------------------------------------------------------------------------------------


def dlt_environment(task: Task) -> Mapping[str, str]:
    return {
        **clean(),
        **DLT,
        "DATABASE_URL": task.dsn,
        "HOME": str(task.folder),
        "DLT_DATA_DIR": str(task.folder / "dlt"),
    }


def dlt_work(task: Task) -> Commands:
    python = str(peer_environments.ensure("dlt") / "python")
    return [[python, str(PEERS / "with_dlt.py"), task.kind, task.base, str(task.folder / "dlt/pipelines")]]


# --- Singer -------------------------------------------------------------------------------------------------------


def singer_prepare(task: Task) -> Sequence[Commands]:
    """The configuration files of tap and target."""
    schema = {"type": "object", "properties": {name: JSON_TYPES[kind] for name, kind in data.COLUMNS.items()}}
    stream = {
        "name": "records",
        "path": "/page",
        "params": {"per_page": 1000},
        "records_path": "$.data[*]",
        "next_page_token_path": "$.next_page",
        "primary_keys": ["id"],
        "schema": schema,
    }
    at = urlsplit(task.dsn)
    files = {
        "bench-tap.json": {"base_url": task.base, "schema": schema},
        "rest-tap.json": {"api_url": task.base, "streams": [stream]},
        "target.json": {
            "host": at.hostname,
            "port": at.port or 5432,
            "user": unquote(at.username or ""),
            "password": unquote(at.password or ""),
            "database": at.path.lstrip("/"),
            "default_target_schema": "public",
        },
    }
    for name, content in files.items():
        path = task.folder / name
        path.touch(mode=0o600)  # the target's holds the password
        path.write_text(json.dumps(content))
    return []


def singer_work(task: Task) -> Commands:
    target = peer_environments.ensure("singer-target")
    into = [str(target / "target-postgres"), "--config", str(task.folder / "target.json")]
    if task.kind == "changed":  # the ready-made tap knows no child streams; this one is ours, on the target's newer SDK
        tap = [str(target / "python"), str(PEERS / "singer_tap.py"), "--config", str(task.folder / "bench-tap.json")]
    else:
        rest = peer_environments.ensure("singer-tap")
        tap = [str(rest / "tap-rest-api-msdk"), "--config", str(task.folder / "rest-tap.json")]
    return [tap, into]


def singer_environment(task: Task) -> Mapping[str, str]:
    return {**clean(), **QUIET, "HOME": str(task.folder)}


CONTESTANTS: Mapping[str, Contestant] = {
    one.name: one
    for one in (
        Contestant("ours", "public.records", ours_environment, ours_prepare, ours_work),
        Contestant("seed", "public.records", seed_environment, seed_prepare, seed_work),
        Contestant("dlt", "bench.records", dlt_environment, lambda task: [], dlt_work, {"dlt": ("dlt",)}),
        Contestant(
            "singer",
            "public.records",
            singer_environment,
            singer_prepare,
            singer_work,
            {"singer-target": ("meltanolabs-target-postgres", "singer-sdk"), "singer-tap": ("tap-rest-api-msdk",)},
        ),
    )
}
