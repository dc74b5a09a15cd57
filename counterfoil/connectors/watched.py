"""What a delivery looks at for new items: rows of a table in the ledger's database, files of a folder.

A table is read and marked in the caller's transaction. A file is streamed into the object store first, and moved away when its item is
there. Names of tables and columns are quoted, values are parameters.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import mimetypes
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from counterfoil.connectors.objects import Objects, safe_key
from counterfoil.flows.delivery import WatchedFolder, WatchedTable
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import HandIn, StoredFile
from counterfoil.model.errors import Misconfigured

FOLDER_LIMIT = 100
CHUNK = 1024 * 1024


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class TableIntake:
    """Implements `engine.intake.Watched`. `kinds` in their order: parents are taken before their children."""

    def __init__(self, spec: WatchedTable, kinds: Sequence[str]) -> None:
        self.spec, self.limit = spec, spec.limit
        self._kind_column = spec.kind[1:-1] if spec.kind.startswith("{") else None
        self._kinds = list(kinds)
        self._sql, self._values = self._statement()

    def _statement(self) -> tuple[str, list[Any]]:
        """A value is a parameter of its column's own type."""
        spec, values = self.spec, list[Any]()

        def parameter(value: Any) -> str:
            values.append(value)
            return f"${len(values)}"

        where = " and ".join(
            f"t.{_quoted(name)} is not distinct from {parameter(value)}" for name, value in spec.where.items()
        )
        order = ""
        if self._kind_column is not None:
            order = f"array_position({parameter(self._kinds)}::text[], t.{_quoted(self._kind_column)}::text), "
        marks = ", ".join(f"{_quoted(name)} = {parameter(value)}" for name, value in spec.taken.items())
        table = ".".join(map(_quoted, spec.table.split(".")))
        sql = (
            f"with due as (select t.ctid as place from {table} t where {where} order by {order}t.{_quoted(spec.key)} limit {spec.limit} "  # noqa: S608
            f"for update skip locked), taken as (update {table} t set {marks} from due where t.ctid = due.place returning t.*) "
            "select to_jsonb(taken) as row from taken"
        )
        return sql, values

    async def take(self, connection: Any) -> Sequence[HandIn]:
        try:
            rows = await connection.fetch(self._sql, *self._values)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError) as error:
            raise Misconfigured(
                f"The watched table {self.spec.table} can't be read: {error}.",
                "Correct `intake` in the flow; counterfoil_app needs select and update on the table.",
            ) from error
        return [self._hand_in(row["row"]) for row in rows]

    async def taken(self, given: Sequence[HandIn]) -> None:
        """The rows were marked in the transaction."""

    def _hand_in(self, row: Mapping[str, Any]) -> HandIn:
        spec = self.spec
        key = row.get(spec.key)
        file = row.get(spec.file) if spec.file is not None else None
        return HandIn(
            key=str(key)
            if key not in (None, "")
            else f"no-key:{hashlib.sha256(msgspec.json.encode(row)).hexdigest()[:24]}",
            payload=row,
            kind=_text(row, self._kind_column) or "" if self._kind_column else spec.kind,
            parent_key=_text(row, spec.parent),
            group=_text(row, spec.group),
            file=None if not file else StoredFile(str(file).rpartition("/")[2], object=str(file)),
        )


def _text(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    return None if value in (None, "") else str(value)


@dataclass(slots=True)
class FolderIntake:
    """Implements `engine.intake.Watched`. `NAME.json` beside a file is its payload, and says its parent and group where it has them."""

    spec: WatchedFolder
    folder: Path
    objects: Objects
    clock: Clock
    flow: str
    limit: int = FOLDER_LIMIT

    async def take(self, connection: Any) -> Sequence[HandIn]:
        return [await self._stored(path) for path in await asyncio.to_thread(self._waiting)]

    def _waiting(self) -> list[Path]:
        """Files that lie still, the oldest first. Links and what is being written are left alone."""
        place = self.folder / self.spec.folder
        if not place.is_dir():
            raise Misconfigured(f"The watched folder {self.spec.folder} is not there.", "Make it, or correct `intake`.")
        still = self.clock.now().timestamp() - self.spec.settled_for.total_seconds()
        found = [
            (status.st_mtime, path)
            for path in place.iterdir()
            if path.is_file()
            and not path.is_symlink()
            and not path.name.startswith(".")
            and not (path.suffix == ".json" and path.with_suffix("").is_file())
            and fnmatch.fnmatch(path.name, self.spec.pattern)
            and (status := path.stat()).st_mtime <= still
        ]
        return [path for _, path in sorted(found)[: self.limit]]

    async def _stored(self, path: Path) -> HandIn:
        stored = await self.objects.put(safe_key("in", self.flow, path.name), _chunks(path))
        said = await asyncio.to_thread(_beside, path)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return HandIn(
            key=path.name,
            payload=said.get("payload", {}),
            kind=self.spec.kind,
            parent_key=said.get("parent"),
            group=said.get("group"),
            file=StoredFile(path.name, kind, stored.size, stored.sha256, stored.key),
        )

    async def taken(self, given: Sequence[HandIn]) -> None:
        await asyncio.to_thread(self._put_away, [one.key for one in given])

    def _put_away(self, names: Sequence[str]) -> None:
        place = self.folder / self.spec.folder
        (place / self.spec.taken).mkdir(exist_ok=True)
        for name in names:
            for path in (place / name, place / f"{name}.json"):
                if path.is_file():
                    path.replace(place / self.spec.taken / path.name)


def _beside(path: Path) -> dict[str, Any]:
    """What the file beside says: {payload, parent, group}, or the payload itself. One that can't be read says nothing; the check will."""
    beside = path.with_name(f"{path.name}.json")
    try:
        said = msgspec.json.decode(beside.read_bytes()) if beside.is_file() else {}
    except (OSError, msgspec.DecodeError):
        return {}
    if not isinstance(said, dict):
        return {"payload": said}
    return said if "payload" in said else {"payload": said}


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
