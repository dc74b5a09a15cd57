"""A source that is a file of the project folder: CSV or JSON lines, read in pages from a byte offset. Flat memory.

A broken line is reported by its number and the rest goes on. A file that changed since the last page is read from its start
again. `since` and `until` are not looked at: a file has no index of changes, and unchanged records are skipped later.
"""

from __future__ import annotations

import asyncio
import codecs
import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from counterfoil.connectors import auth
from counterfoil.connectors.replies import KEPT_OF_BROKEN, entry_problem
from counterfoil.flows.flow import SourceSpec
from counterfoil.model.clock import Clock
from counterfoil.model.errors import Misconfigured, Refused, Transient
from counterfoil.model.ports import BrokenEntry, Cursor, Page
from counterfoil.model.run import Window

PAGE_ENTRIES = 2000
PAGE_BYTES = 4 * 1024 * 1024  # a page ends after either; one more record of `record_bytes` may come on top
MOST_RESTARTS = 3  # a file that changes under every page would never be read to its end
_CHUNK = 256 * 1024
_BOM = codecs.BOM_UTF8
_HEAD = 4096


class _Identity(msgspec.Struct, frozen=True):
    """Which file this is; any write to it changes something here."""

    size: int
    modified: int  # ns
    inode: int
    head: str  # digest of the first 4 KB


class _Place(msgspec.Struct, frozen=True):
    """Where the next page starts. Becomes the JSON cursor."""

    offset: int
    line: int  # number of the line there, from 1
    identity: _Identity
    restarts: int = 0


@dataclass(slots=True)
class _Batch:
    """What one page has gathered."""

    entries: list[bytes] = field(default_factory=list)
    broken: list[BrokenEntry] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.entries) + len(self.broken) >= PAGE_ENTRIES or self.size >= PAGE_BYTES

    def reject(self, line: int, problem: str, raw: bytes) -> None:
        self.broken.append(BrokenEntry(f"line {line}", problem, raw[:KEPT_OF_BROKEN]))
        self.size += min(len(raw), KEPT_OF_BROKEN)


class _BadLineError(Exception):
    """One physical line that cannot be used; reading already stands behind it."""

    def __init__(self, problem: str, raw: bytes) -> None:
        super().__init__(problem)
        self.problem, self.raw = problem, raw


class FileSource:
    """Implements `model.ports.Source` for a .csv, .tsv, .jsonl or .ndjson inside the project folder (links followed first)."""

    has_detail = False

    def __init__(
        self, spec: SourceSpec, *, environment: Mapping[str, str], folder: Path, concurrency: int, clock: Clock
    ) -> None:
        self._name = auth.resolve(spec.url, environment)
        self._folder = folder
        self._spec = spec
        self._read = _reader(self._name)
        self._delimiter = "\t" if self._name.lower().endswith(".tsv") and spec.delimiter == "," else spec.delimiter
        _check_encoding(spec.encoding)
        self._path()

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        """The next PAGE_ENTRIES entries. Raises Transient (`file_missing`, `file_changing`), Refused (`bad_header`)."""
        return await asyncio.to_thread(self._page, cursor)

    async def record(self, key: str) -> bytes:
        raise Misconfigured("A file source has no `detail` call.", "Remove `detail` from the flow's `source`.")

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None:
        raise Misconfigured("A file source has no write-back.", "Remove `write_back` from the flow's `source`.")

    async def probe(self) -> str:
        page = await asyncio.to_thread(self._page, None)
        more = "and goes on" if page.cursor else "and ends there"
        return f"File {self._name}: the first page has {len(page.entries)} entries, {len(page.broken)} broken, {more}."

    async def close(self) -> None:
        """Nothing is kept open between pages."""

    def _path(self) -> Path:
        folder = self._folder.resolve()
        path = (folder / self._name).resolve()
        if not path.is_relative_to(folder):
            raise Misconfigured(
                f"The file {self._name} is outside the project folder.",
                "Copy it, or let another program put it, inside.",
            )
        return path

    def _page(self, cursor: Cursor | None) -> Page:
        try:
            with self._path().open("rb") as file:
                return self._page_of(file, cursor)
        except FileNotFoundError:
            raise Transient(
                f"There is no file {self._name} in the project folder.", "Has it been delivered?", fault="file_missing"
            ) from None
        except (PermissionError, IsADirectoryError) as error:
            raise Misconfigured(
                f"The file {self._name} cannot be read: {error.strerror}.", "Look at its rights."
            ) from None
        except OSError as error:
            raise Transient(f"Reading {self._name} failed: {error.strerror}.", fault="file_unreadable") from error

    def _page_of(self, file: BinaryIO, cursor: Cursor | None) -> Page:
        identity = _identify(file)
        place = self._start(identity, cursor)
        lines = _Lines(file, place.offset, place.line, self._spec.limits.record_bytes)
        batch = _Batch()
        ended = self._read(self, lines, batch)
        file.seek(0)
        if _identify(file) != identity:
            raise self._changing()
        if ended:
            return Page(batch.entries, None, batch.broken)
        after = _Place(lines.offset, lines.number + 1, identity, place.restarts)
        return Page(batch.entries, msgspec.to_builtins(after), batch.broken)

    def _start(self, identity: _Identity, cursor: Cursor | None) -> _Place:
        if cursor is None:
            return _Place(0, 1, identity)
        try:
            place = msgspec.convert(cursor, _Place)
        except msgspec.ValidationError:
            raise Refused(
                "The stored place in the file cannot be read.", "Start a new run.", fault="unknown_cursor"
            ) from None
        if place.identity == identity:
            return place
        if place.restarts >= MOST_RESTARTS:
            raise self._changing()
        return _Place(0, 1, identity, place.restarts + 1)

    def _changing(self) -> Transient:
        return Transient(
            f"The file {self._name} changes while it is read.",
            "Let its writer write to another name and rename it at the end.",
            fault="file_changing",
        )

    def _read_jsonl(self, lines: _Lines, batch: _Batch) -> bool:
        while not batch.full:
            start = lines.number + 1
            try:
                line = lines.next()
            except _BadLineError as bad:
                batch.reject(start, bad.problem, bad.raw)
                continue
            if line is None:
                return True
            self._take_json(line.strip(), start, batch)
        return False

    def _take_json(self, line: bytes, number: int, batch: _Batch) -> None:
        if not line:
            return
        try:
            text = line if self._spec.encoding.lower() in _UTF8 else line.decode(self._spec.encoding).encode()
            msgspec.json.decode(text, type=msgspec.Raw)
            problem = entry_problem(text, self._spec.limits.record_bytes)
        except UnicodeDecodeError:
            problem = f"The line is not {self._spec.encoding}."
        except (msgspec.DecodeError, RecursionError) as error:
            problem = f"The line is not JSON ({error})."
        if problem:
            batch.reject(number, problem, line)
            return
        batch.entries.append(text)
        batch.size += len(text)

    def _read_csv(self, lines: _Lines, batch: _Batch) -> bool:
        names = self._header(lines)
        if not names:
            return True
        rows = _Rows(lines, self._spec.encoding, self._delimiter)
        encode = msgspec.json.encode
        while not batch.full:
            before = rows.mark()
            try:
                row = rows.next()
            except _BadLineError as bad:
                rows.give_up(before)
                batch.reject(before.line, bad.problem, bad.raw)
                continue
            if row is None:
                return True
            if len(row) == len(names):
                entry = encode(dict(zip(names, row, strict=True)))
                batch.entries.append(entry)
                batch.size += len(entry)
            elif row:  # not given up: its quotes are right, and its later lines alone could pass for rows
                problem = f"The line has {len(row)} values, the header has {len(names)} names."
                batch.reject(before.line, problem, rows.first)
        return False

    def _header(self, lines: _Lines) -> list[str]:
        """The names of the columns; leaves `lines` at the first row, or where the page starts."""
        offset, number = lines.offset, lines.number
        lines.seek(0, 0)
        rows = _Rows(lines, self._spec.encoding, self._delimiter)
        try:
            row = rows.next()
        except _BadLineError as bad:
            raise Refused(
                f"The header of {self._name} cannot be read: {bad.problem}",
                "Look at `encoding` and `delimiter`; a file from a spreadsheet is best saved as CSV UTF-8.",
                fault="bad_header",
            ) from None
        if row == []:
            raise Refused(f"The first line of {self._name} is empty.", "It must name the columns.", fault="bad_header")
        names = [name or f"column_{index}" for index, name in enumerate(row or [], 1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Refused(
                f"The header of {self._name} has a name twice: {twice[0]}.", "Rename one of them.", fault="bad_header"
            )
        if offset > 0:
            lines.seek(offset, number)
        return names


class _Lines:
    """Physical lines from an offset, with their numbers. Never holds more than the limit of one record."""

    def __init__(self, file: BinaryIO, offset: int, line: int, limit: int) -> None:
        self._file = file
        self.limit = limit
        self.offset, self.number = 0, 0
        self.seek(offset, line - 1)

    def seek(self, offset: int, number: int) -> None:
        """Stand at `offset`, behind line `number`."""
        self._file.seek(offset)
        self.offset, self.number = offset, number

    def next(self) -> bytes | None:
        """The next line with its end, or None. Raises _BadLineError for one over the limit, and stands behind it."""
        line = self._file.readline(self.limit + 2)
        if not line:
            return None
        self.number += 1
        self.offset += len(line)
        if len(line) > self.limit and not line.endswith(b"\n"):
            size = len(line) + self._skip()
            raise _BadLineError(f"The line has {size} bytes, more than the limit of {self.limit} (too_large).", line)
        if self.number == 1 and line.startswith(_BOM):
            return line[len(_BOM) :]
        return line

    def _skip(self) -> int:
        size = 0
        while part := self._file.readline(_CHUNK):
            size += len(part)
            if part.endswith(b"\n"):
                break
        self.offset += size
        return size


@dataclass(frozen=True, slots=True)
class _Mark:
    offset: int
    line: int  # number of the line that starts here


class _Rows:
    """CSV rows. A row may span lines inside quotes; when its quotes turn out wrong, only its first line is given up.

    The lines behind it are then read as rows of their own: a stray quote costs one row, not the file. The price is that a row whose
    text was meant to span lines may leave pieces behind, which are broken too, or wrong in a way that only the mapping can see.
    """

    def __init__(self, lines: _Lines, encoding: str, delimiter: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self._delimiter = delimiter
        self.first = b""  # the first line of the row that is being read
        self._mark = self.mark()
        self._reader = self._new_reader()

    def mark(self) -> _Mark:
        """Call before each row: where it starts."""
        self.first = b""
        self._mark = _Mark(self._lines.offset, self._lines.number + 1)
        return self._mark

    def next(self) -> list[str] | None:
        """The next row, [] for an empty line, None at the end. Raises _BadLineError."""
        try:
            return next(self._reader, None)
        except _BadLineError as bad:
            problem, raw = bad.problem, bad.raw
        except UnicodeDecodeError:
            problem, raw = f"The line is not {self._encoding}.", self.first
        except csv.Error as error:
            endless = "end of data" in str(error)
            problem, raw = (
                "A quote is opened and never closed." if endless else f"The line is no CSV: {error}.",
                self.first,
            )
        if self._lines.number > self._mark.line:
            problem, raw = "A quote is opened and never closed.", self.first
        raise _BadLineError(problem, raw)

    def give_up(self, mark: _Mark) -> None:
        """After a broken row: stand behind its first line, whatever was read after it."""
        if self._lines.number > mark.line:
            self._lines.seek(mark.offset, mark.line - 1)
            self._lines.next()  # it was read before, so it is within the limit
        self._reader = self._new_reader()

    def _new_reader(self) -> Iterator[list[str]]:
        # The limit of the csv module is one per process and 128 KB by default; ours is the limit of the line.
        csv.field_size_limit(max(csv.field_size_limit(), self._lines.limit))
        return csv.reader(self._decoded(), delimiter=self._delimiter, strict=True)

    def _decoded(self) -> Iterator[str]:
        while self._lines.offset - self._mark.offset <= self._lines.limit:
            line = self._lines.next()
            if line is None:
                return
            self.first = self.first or line
            yield line.decode(self._encoding)


_UTF8 = frozenset({"utf-8", "utf8", "utf-8-sig", "ascii"})


def _reader(name: str) -> Callable[[FileSource, _Lines, _Batch], bool]:
    readers = {
        ".csv": FileSource._read_csv,
        ".tsv": FileSource._read_csv,
        ".jsonl": FileSource._read_jsonl,
        ".ndjson": FileSource._read_jsonl,
    }
    ending = Path(name).suffix.lower()
    if ending not in readers:
        raise Misconfigured(f"The file {name or '(none)'} has no known ending.", f"Known: {', '.join(readers)}.")
    return readers[ending]


def _check_encoding(name: str) -> None:
    try:
        usable = '\n",{'.encode(name) == b'\n",{'
    except LookupError:
        usable = False
    if not usable:
        raise Misconfigured(
            f"The encoding {name} is unknown, or its lines cannot be told apart.",
            "Save the file as utf-8, or use cp1252.",
        )


def _identify(file: BinaryIO) -> _Identity:
    status = os.fstat(file.fileno())
    head = hashlib.blake2b(file.read(_HEAD), digest_size=12).hexdigest()
    return _Identity(status.st_size, status.st_mtime_ns, status.st_ino, head)
