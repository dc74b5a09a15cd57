"""How things look at the terminal: data on stdout, words on stderr, one JSON document, plain tables that fit. No rich here: it costs 0.1 s."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

import msgspec

SCHEMA_VERSION = 1
MOST_LINES = 4  # of a cell in the last column
_COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


def say(text: str) -> None:
    """Words for whoever watches: stderr."""
    print(fold(text, room(sys.stderr)), file=sys.stderr, flush=True)


def show(text: str = "") -> None:
    """Data: stdout."""
    print(fold(text, room(sys.stdout)))


def room(stream: TextIO) -> int | None:
    """Columns of a terminal; None for a file or a pipe, which take any width."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fold(text: str, width: int | None) -> str:
    """Lines that are too long for a terminal, broken between words; never within `a command`, which is there to be copied."""
    if width is None:
        return text
    return "\n".join(line if len(line) <= width else _folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", "\0"), line)
    indent = " " * (len(line) - len(line.lstrip()))
    lines = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def encode(value: Any) -> str:
    """JSON. Times in UTC, durations in seconds, rows of the database as objects."""
    return msgspec.json.encode(_plain(value)).decode()


def emit(kind: str, **values: Any) -> None:
    """The one JSON document of a command on stdout."""
    print(encode({"schema_version": SCHEMA_VERSION, "kind": kind, **values}))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping) or type(value).__name__ == "Record":  # asyncpg's rows are no Mapping
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return value


# --- times -----------------------------------------------------------------------------------------------------


def when(moment: datetime | None) -> str:
    """A time in the zone of this machine and in UTC."""
    if moment is None:
        return "-"
    local, utc = moment.astimezone(), moment.astimezone(UTC)
    if local.utcoffset() == timedelta(0):
        return f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    day = "" if local.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({day}{utc:%H:%M:%S} UTC)"


def short(moment: datetime | None) -> str:
    """The same for a column: local time, and UTC where it differs."""
    if moment is None:
        return "-"
    local, utc = moment.astimezone(), moment.astimezone(UTC)
    if local.utcoffset() == timedelta(0):
        return f"{utc:%m-%d %H:%M}Z"
    return f"{local:%m-%d %H:%M} ({utc:%H:%M}Z)"


def many(number: int, what: str) -> str:
    """`1 item`, `2 items`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def took(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


# --- colour ----------------------------------------------------------------------------------------------------


def is_lively(stream: TextIO) -> bool:
    """Whether colour and moving things are welcome."""
    environment = os.environ
    quiet = environment.get("NO_COLOR") or environment.get("CI") or environment.get("TERM") == "dumb"
    return stream.isatty() and not quiet


def paint(text: str, colour: str) -> str:
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if is_lively(sys.stdout) else text


# --- tables ----------------------------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int | None = None) -> str:
    """Aligned columns. On a terminal they fit its width: the last is folded, others are cut; or one under the other where it is too narrow."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[at], int | float | None) for row in rows) for at in range(len(headers))]
    widths = [max([len(headers[at]), *(len(row[at]) for row in texts)]) for at in range(len(headers))]
    most = width or room(sys.stdout)
    if most is not None and not _shrink(widths, headers, most):
        return "\n\n".join(_block(headers, row) for row in texts)
    lines = [_line(headers, widths, right), *[_line(row, widths, right) for row in texts]]
    return "\n".join([paint(lines[0], "bold"), *lines[1:]])


def _shrink(widths: list[int], headers: Sequence[str], room: int) -> bool:
    """Take from the widest column until all fit; False where there is not room enough for that."""
    least = [min(have, max(len(header), 8)) for have, header in zip(widths, headers, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > room:
        spare = [have - need for have, need in zip(widths, least, strict=True)]
        if max(spare) <= 0:
            return False
        widest = max(range(len(widths)), key=lambda at: (spare[at] > 0) * widths[at])
        widths[widest] -= 1
    return True


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    last, *more = textwrap.wrap(cells[-1], widths[-1], max_lines=MOST_LINES, placeholder=" …") or [""]
    for cell, size, to_right in zip([*cells[:-1], last], widths, right, strict=True):
        cut = cell if len(cell) <= size else cell[: size - 1] + "…"
        parts.append(cut.rjust(size) if to_right else cut.ljust(size))
    indent = " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))
    return "\n".join(["  ".join(parts).rstrip(), *(indent + rest for rest in more)])


def _block(headers: Sequence[str], row: Sequence[str]) -> str:
    size = max(len(header) for header in headers)
    return "\n".join(f"{header.ljust(size)}  {cell}" for header, cell in zip(headers, row, strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return short(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "".join(
        char if char.isprintable() else " " for char in str(value)
    )  # a key may hold anything, a terminal obeys
