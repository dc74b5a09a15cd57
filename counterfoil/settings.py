"""FLOOR 4: the settings of a project, read from counterfoil.toml; secrets come from the environment by `${NAME}`.

One frozen record, one table of what may be written. Nothing here opens a database or reads a flow file. `docs/reference/settings.md`
is made from the same table (`reference`), so page and code cannot drift.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from counterfoil.flows.kinds import REFERENCE, duration, secret
from counterfoil.flows.shape import Entry, Kind, Shape, flag, scalar_kind, text, whole
from counterfoil.flows.yamlfile import Node, Report
from counterfoil.model.errors import InvalidFilesError, NotFoundError

FILE = "counterfoil.toml"


_DSN = re.compile(r"postgres(ql)?://")


def _dsn() -> Kind:
    """A DSN, or `${NAME}`. A password in clear is refused and never shown."""

    def check(value: Any) -> str:
        if isinstance(value, str) and REFERENCE.fullmatch(value):
            return value
        if not isinstance(value, str) or not _DSN.match(value):
            raise ValueError
        if re.match(r"postgres(ql)?://[^/?#@:]*:[^@]*@", value) or "password=" in value:
            raise ValueError("A password stands in clear here; it would be in every copy of this file.")
        return value

    needed = 'Write "${DATABASE_URL}" and set that variable to postgresql://user:password@host:5432/name.'
    return scalar_kind(check, needed, {"type": "string"}, secret=True)


_OBJECTS_URL = re.compile(
    r"file:(?!//)[^\x00-\x1f]+|s3://[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9](/[^\x00-\x1f?#]*)?"
)
_HTTP_URL = re.compile(r"https?://[^\s/?#@]+/?")


def _matching(pattern: re.Pattern[str], needed: str) -> Kind:
    """A text that `pattern` fits, or `${NAME}`. What stands there instead is not shown: it may be an address with a password."""

    def check(value: Any) -> str:
        if isinstance(value, str) and (REFERENCE.fullmatch(value) or pattern.fullmatch(value)):
            return value
        raise ValueError

    return scalar_kind(check, needed, {"type": "string"}, secret=True)


def _setting(place: str, kind: Kind, default: Any, help: str, shown: str = "", *, secret: bool = False) -> Any:
    """A field of Settings: where it stands in the file ("section.name"), what it takes, what it is for, its default as written."""
    about = {"place": place, "kind": kind, "help": help, "shown": shown}
    return field(default=default, repr=not secret, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a project folder says about itself. `dsn` None: the embedded database."""

    project_name: str = _setting("project.name", text(), "", "What this project is called.", "the folder's name")
    operator: str = _setting(
        "project.operator",
        text(),
        "",
        "Who acts at this terminal, in the record of every act by hand.",
        "the user and host of the session",
    )
    dsn: str | None = field(
        default=None,
        repr=False,
        metadata={
            "place": "database.dsn",
            "kind": _dsn(),
            "help": 'PostgreSQL 15 or newer, as "${NAME}" or without a password.',
            "shown": "none: an embedded PostgreSQL",
        },
    )
    owner_dsn: str | None = field(
        default=None,
        repr=False,
        metadata={
            "place": "database.owner_dsn",
            "kind": _dsn(),
            "help": "The login that may create tables: for `migrate`, `plan` and new destinations.",
            "shown": "the same as dsn",
        },
    )
    data_dir: str = _setting(
        "database.data_dir",
        text(),
        ".counterfoil/pg",
        "Folder of the embedded database, seen from the project folder.",
        '".counterfoil/pg"',
    )
    durable: bool = _setting(
        "database.durable",
        flag(),
        True,
        "Whether the embedded database waits for the disk. Only a test may say false.",
        "true",
    )
    worker_slices: int = _setting(
        "worker.slices", whole(1, 64), 4, "How many flows one worker process works on at the same time.", "4"
    )
    worker_lease: timedelta = _setting(
        "worker.lease",
        duration(),
        timedelta(seconds=30),
        "How long a worker holds a run or an item without a sign of life.",
        '"30s"',
    )
    objects_url: str = _setting(
        "objects.url",
        _matching(_OBJECTS_URL, "Write file:FOLDER or s3://BUCKET/PREFIX."),
        "file:.counterfoil/objects",
        "Where files are kept: `file:` and a folder, seen from the project folder, or `s3://bucket/prefix`.",
        '"file:.counterfoil/objects"',
    )
    objects_endpoint: str | None = _setting(
        "objects.endpoint",
        _matching(_HTTP_URL, "Write https://host or http://host:port, without a path."),
        None,
        "Address of an S3 server that is not Amazon's.",
        "Amazon's own",
    )
    objects_region: str | None = _setting(
        "objects.region",
        _matching(re.compile(r"[A-Za-z0-9-]{1,40}"), "Write eu-west-2."),
        None,
        "Region of the bucket.",
        "us-east-1",
    )
    objects_access_key: str | None = _setting(
        "objects.access_key",
        secret(),
        None,
        'Access key of the bucket, as "${NAME}"; together with `secret_key`.',
        "the role of the host",
        secret=True,
    )
    objects_secret_key: str | None = _setting(
        "objects.secret_key",
        secret(),
        None,
        'Secret key of the bucket, as "${NAME}".',
        "the role of the host",
        secret=True,
    )
    serve_host: str = _setting("serve.host", text(), "127.0.0.1", "Address that relays listen on.", '"127.0.0.1"')
    serve_port: int = _setting(
        "serve.port", whole(0, 65535), 8080, "Port that relays listen on; 0 takes a free one.", "8080"
    )


def _shapes() -> Mapping[str, Shape]:
    """A shape for each section of the file, from the fields of Settings."""
    sections: dict[str, list[Entry]] = {}
    for setting in fields(Settings):
        section, name = setting.metadata["place"].split(".")
        entry = Entry(name, setting.metadata["kind"], setting.metadata["help"], attribute=setting.name)
        sections.setdefault(section, []).append(entry)
    return {name: Shape(f"[{name}]", tuple(entries), dict) for name, entries in sections.items()}


SECTIONS = _shapes()
_FILE_SHAPE = Shape(FILE, tuple(Entry(name, shape.kind, "") for name, shape in SECTIONS.items()), dict)


def find_project(start: Path) -> Path:
    """The folder with counterfoil.toml: `start` or the nearest above it. Raises NotFoundError."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise NotFoundError(
        f"There is no {FILE} in {start} nor above it.", "`counterfoil init DIR` makes a project; or give --project DIR."
    )


def load_settings(folder: Path, environment: Mapping[str, str]) -> Settings:
    """The settings of a project folder. Raises InvalidFilesError with every fault, NotFoundError where there is no file."""
    path = folder / FILE
    if not path.is_file():
        find_project(folder)
    report = Report(FILE)
    node = _read(path, report)
    given = _FILE_SHAPE.read(node, report) if node is not None else {}
    flat = {name: value for section in given.values() for name, value in section.items()} if not report.faults else {}
    values = {name: _resolved(name, value, node, environment, report) for name, value in flat.items()}
    if report.faults:
        raise InvalidFilesError(tuple(report.faults))
    return Settings(**values)


def _resolved(name: str, value: Any, node: Node | None, environment: Mapping[str, str], report: Report) -> Any:
    """`${NAME}` as the environment has it."""
    if not isinstance(value, str) or not REFERENCE.fullmatch(value) or node is None:
        return value
    variable = value[2:-1]
    if not environment.get(variable):
        place = next(s.metadata["place"] for s in fields(Settings) if s.name == name)
        line = node.at(*place.split(".")).place
        report.fault(line, f"The environment has no {variable}.", f"Set it before the start: export {variable}=…")
    found = environment.get(variable)
    if found and name in ("dsn", "owner_dsn") and not _DSN.match(found):
        line = node.at("database", name).place
        report.fault(line, f"{variable} holds no DSN.", "Write postgresql://user:password@host:5432/name.")
    return found


def _read(path: Path, report: Report) -> Node | None:
    try:
        source = path.read_text("utf-8-sig")
        values = tomllib.loads(source)
    except (OSError, UnicodeDecodeError) as error:
        report.fault(1, f"The file cannot be read: {error}.", "Save it as UTF-8 text that you may read.")
        return None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else source.count("\n") + 1
        said = re.sub(r" \(at .*\)$", "", str(error))
        report.fault(line, f"Not valid TOML: {said}.", 'Write name = "value" under a [section].')
        return None
    return _node(values, _lines(source), ())


def _node(value: Any, lines: Mapping[tuple[str, ...], int], place: tuple[str, ...]) -> Node:
    line = lines.get(place, lines.get(place[:-1], 1))
    if isinstance(value, dict):
        return Node({name: _node(part, lines, (*place, name)) for name, part in value.items()}, line)
    if isinstance(value, list):
        return Node([_node(part, lines, place) for part in value], line)
    return Node(value, line)


_HEADER = re.compile(r"\s*\[+([^\]]+)\]+")
_NAME = re.compile(r"""\s*([\w."' -]+?)\s*=""")


def _lines(source: str) -> dict[tuple[str, ...], int]:
    """Where each name of a TOML text stands; tomllib does not tell."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in enumerate(source.splitlines(), 1):
        if header := _HEADER.match(line):
            section = _parts(header[1])
            found.setdefault(section, number)
        elif name := _NAME.match(line):
            found.setdefault((*section, *_parts(name[1])), number)
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def reference() -> str:
    """The table of docs/reference/settings.md."""
    rows = ["| setting | what it is | default |", "|---|---|---|"]
    for setting in fields(Settings):
        about = setting.metadata
        rows.append(f"| `{about['place']}` | {about['help']} | {about['shown']} |")
    return "\n".join(rows)
