"""A file against what the other side takes of its kind, before anything is sent. Big files are read in pieces, and only as far as needed.

Every refusal is a sentence for somebody who is no programmer. It may hold the name of the file, and never what is in it.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from counterfoil.documents import pdf
from counterfoil.documents.content import HEAD, KINDS, content_type, contradiction
from counterfoil.documents.names import clean_name, extension
from counterfoil.flows.delivery import FileSpec
from counterfoil.model.errors import Refused, Transient

__all__ = ["Inspected", "check_name", "clean_name", "inspect"]

_PIECE = 1024 * 1024
_SHOWN = 100  # characters of a name in a sentence
_UNITS = ((1024**3, "GB"), (1024**2, "MB"), (1024, "KB"))
_AGAIN = "then hand it in again"


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that may be sent. `name` as the other side takes it, `type` its extension in small letters, `size` in bytes."""

    name: str
    type: str
    content_type: str
    size: int


def inspect(file: bytes | Path | BinaryIO, name: str, spec: FileSpec) -> Inspected:
    """What the file is, where `spec` takes it. A stream must be able to seek, and stands at its beginning afterwards.

    Raises Refused with a fault that begins with `file_`, and Transient (`file_unchecked`) where this host could not look at a PDF.
    """
    cleaned = check_name(name, spec)
    ending = extension(cleaned)
    with _opened(file, cleaned) as stream:
        size = _size(stream)
        _check_size(cleaned, ending, size, spec)
        _check_content(cleaned, ending, stream)
        if ending == "pdf":
            _check_pdf(cleaned, file, stream, spec)
        if ending == "txt" and spec.ascii_text:
            _check_ascii(cleaned, stream)
    return Inspected(cleaned, ending, spec.content_type or content_type(ending), size)


def check_name(name: str, spec: FileSpec) -> str:
    """The cleaned name. Raises Refused (`file_extension_missing`, `file_type_not_taken`, `file_name_too_long`)."""
    cleaned = clean_name(name, spec.names)
    ending = extension(cleaned)
    taken = [kind.lower().lstrip(".") for kind in spec.types]
    if taken and not ending:
        raise Refused(
            f"The name of the file {_shown(cleaned)} has no ending that says what it is.",
            f"Give it one of {_list(taken)}, {_AGAIN}.",
            fault="file_extension_missing",
        )
    if taken and ending not in taken:
        raise Refused(
            f"The file {_shown(cleaned)} is of a type that is not taken.",
            f"Save it as one of {_list(taken)}, {_AGAIN}.",
            fault="file_type_not_taken",
        )
    if len(cleaned) > spec.name_length:
        raise Refused(
            f"The name of the file {_shown(cleaned)} has {len(cleaned)} characters; {spec.name_length} are taken.",
            f"Give it a shorter name, {_AGAIN}.",
            fault="file_name_too_long",
        )
    return cleaned


# --- the checks ---------------------------------------------------------------------------------------------------


def _check_size(name: str, ending: str, size: int, spec: FileSpec) -> None:
    if size == 0 or size < spec.least:
        few = "is empty" if size == 0 else f"has only {_bytes(size)}; at least {_bytes(spec.least)} are needed"
        raise Refused(
            f"The file {_shown(name)} {few}.",
            "Look at the original: the copy or the upload went wrong. Hand the whole file in.",
            fault="file_empty",
        )
    most = spec.most_by_type.get(ending, spec.most)
    if most is not None and size > most:
        kind = f" of type {ending}" if ending in spec.most_by_type else ""
        raise Refused(
            f"The file {_shown(name)} has {_bytes(size)}; a file{kind} may have {_bytes(most)}.",
            f"Make it smaller, or split it, {_AGAIN}.",
            fault="file_too_large",
        )


def _check_content(name: str, ending: str, stream: BinaryIO) -> None:
    stream.seek(0)
    seems = contradiction(ending, stream.read(HEAD))
    if seems is not None:
        raise Refused(
            f"The file {_shown(name)} says by its ending that it is {KINDS[ending].family}; its content is {seems}.",
            f"Open it, save it as what it should be (a new name alone does not help), {_AGAIN}.",
            fault="file_not_what_it_says",
        )


def _check_pdf(name: str, file: bytes | Path | BinaryIO, stream: BinaryIO, spec: FileSpec) -> None:
    with _on_disk(file, stream) as path:
        seen = pdf.look(path)
    if seen.encrypted and not spec.encrypted:
        raise Refused(
            f"The file {_shown(name)} is an encrypted PDF; the other side takes none.",
            f"Ask for it without a password and without restrictions, {_AGAIN}.",
            fault="file_encrypted",
        )
    if seen.broken:
        raise Refused(
            f"The file {_shown(name)} is a PDF that {_BROKEN[seen.broken]}.",
            f"Open it and print it to a new PDF, or ask for it once more, {_AGAIN}.",
            fault="file_broken",
        )


def _check_ascii(name: str, stream: BinaryIO) -> None:
    stream.seek(0)
    line = 1
    while piece := stream.read(_PIECE):
        if not piece.isascii():
            at = next(place for place, byte in enumerate(piece) if byte > 127)
            raise Refused(
                f"The text {_shown(name)} holds signs that are not plain English letters (line {line + piece.count(10, 0, at)}).",
                f"Replace accents, curly quotes and long dashes, or save it as PDF, {_AGAIN}.",
                fault="file_not_ascii",
            )
        line += piece.count(10)


_BROKEN = {
    "cut": "ends in the middle: a part of it is missing",
    "memory": "needs more memory to be read than a document should",
    "time": "takes longer to be read than a document should, or makes the reader fail",
    "unreadable": "cannot be read, or has no pages",
}

# --- the file -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: bytes | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    if isinstance(file, bytes):
        yield BytesIO(file)
    elif isinstance(file, Path):
        with _regular(file, name) as stream:
            yield stream
    else:
        try:
            yield file
        finally:
            file.seek(0)


def _regular(path: Path, name: str) -> BinaryIO:
    """Opened without waiting: a pipe or a device would never end."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise Transient(
            f"The file {_shown(name)} cannot be read on this host ({error.strerror}).",
            "Is it there, and may this process read it?",
            fault="file_missing" if missing else "file_unreadable",
        ) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Transient(f"What should be the file {_shown(name)} is none.", "Look at it.", fault="file_unreadable")
    return os.fdopen(handle, "rb")


def _size(stream: BinaryIO) -> int:
    return stream.seek(0, os.SEEK_END)


@contextmanager
def _on_disk(file: bytes | Path | BinaryIO, stream: BinaryIO) -> Iterator[Path]:
    """A path with the content of `file`; what has none is copied to a file that only this user can read, and that goes away."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="counterfoil-", suffix=".pdf") as copy:
        stream.seek(0)
        shutil.copyfileobj(stream, copy, _PIECE)
        copy.flush()
        yield Path(copy.name)


# --- words --------------------------------------------------------------------------------------------------------


def _shown(name: str) -> str:
    return f"`{name[:_SHOWN]}…`" if len(name) > _SHOWN else f"`{name}`"


def _list(types: list[str]) -> str:
    return ", ".join(types)


def _bytes(size: int) -> str:
    """`15 MB`, `1.5 KB`, `12 bytes`; never rounded to the other side of a limit."""
    for unit, word in _UNITS:
        if size >= unit:
            return f"{size // unit} {word}" if size % unit == 0 else f"{size:,} bytes (about {size / unit:.1f} {word})"
    return f"{size} byte{'s' * (size != 1)}"
