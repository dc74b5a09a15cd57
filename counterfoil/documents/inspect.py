"""Whether a file is what the other side takes: type, size, content, encryption, name. Checked before anything is sent.

A refusal is a sentence for an operator who is no programmer. Names may be shown, contents never. Only what is needed of a file is read.
"""

from __future__ import annotations

import logging
import mimetypes
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from counterfoil.flows.delivery import FileSpec, NameRule
from counterfoil.model.errors import Refused

logging.getLogger("pikepdf").setLevel(logging.CRITICAL)  # qpdf's warnings may quote the file

HEAD = 4096  # bytes looked at to see what a file is
MOST_TEXT = 50 * 1024 * 1024
TYPES: Mapping[str, str] = {
    "pdf": "application/pdf",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "heic": "image/heic",
    "heif": "image/heif",
    "txt": "text/plain",
    "zip": "application/zip",
    "json": "application/json",
    "xml": "application/xml",
    "csv": "text/csv",
}
# What the first bytes of a type can be. A type that is not here is taken by its extension.
_IMAGES = {"jpg": ("jpg", "jpeg"), "jpeg": ("jpg", "jpeg"), "tif": ("tif", "tiff"), "tiff": ("tif", "tiff")}
_LOOKED_AT = frozenset({"pdf", "png", "jpg", "jpeg", "gif", "bmp", "tif", "tiff", "zip"})
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"heif")


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that may be sent, under the name it is sent by."""

    name: str
    content_type: str
    size: int


def inspect(path: Path, name: str, spec: FileSpec) -> Inspected:
    """Raises Refused with the first thing that is wrong with the file."""
    cleaned = clean_name(name, spec.names)
    ending = _ending(cleaned)
    size = path.stat().st_size
    _check_name(name, cleaned, ending, spec)
    _check_size(name, size, ending, spec)
    _check_content(name, path, ending, spec)
    return Inspected(cleaned, spec.content_type or content_type_of(cleaned), size)


def content_type_of(name: str) -> str:
    return TYPES.get(_ending(name)) or mimetypes.guess_type(name)[0] or "application/octet-stream"


# --- names ----------------------------------------------------------------------------------------------------


def clean_name(name: str, rule: NameRule) -> str:
    """The name as the other side wants it; never empty, never a path."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2]).strip()
    plain = "".join(char for char in plain if char.isprintable()).strip(".") if plain.strip(". ") else ""
    return _CLEAN[rule](plain or "file")


def _underscore(name: str) -> str:
    """Spaces become `_`, other signs go, dots and dashes of the stem become `_`, one extension is kept."""
    stem, ending = _split(name)
    stem = re.sub(r"[.\-\s]", "_", stem)
    stem = re.sub(r"[^A-Za-z0-9_]", "", stem) or "file"
    return f"{stem}.{ending}" if ending else stem


def _last_dot(name: str) -> str:
    stem, ending = _split(name)
    stem = stem.replace(".", "").strip() or "file"
    return f"{stem}.{ending}" if ending else stem


def _split(name: str) -> tuple[str, str]:
    """Stem and extension; an extension is letters and digits after the last dot, also where a space stands before it."""
    stem, dot, ending = name.rpartition(".")
    ending = re.sub(r"[^A-Za-z0-9]", "", ending)
    return (stem.rstrip(), ending) if dot and stem.strip(". ") and ending else (name, "")


_CLEAN: Mapping[NameRule, Callable[[str], str]] = {
    NameRule.AS_IT_IS: lambda name: name,
    NameRule.UNDERSCORE: _underscore,
    NameRule.LAST_DOT: _last_dot,
}


def _ending(name: str) -> str:
    return _split(name)[1].lower()


def _check_name(name: str, cleaned: str, ending: str, spec: FileSpec) -> None:
    if len(cleaned) > spec.name_length:
        raise Refused(
            f"The name of the file has {len(cleaned)} characters; the other side takes {spec.name_length}.",
            "Give it a shorter name and hand it in again.",
            fault="file_name_too_long",
        )
    if spec.types and not ending:
        raise Refused(
            f"The file `{name}` has no extension, so nobody can tell what it is.",
            f"Name it like name.{spec.types[0]} and hand it in again.",
            fault="file_extension_missing",
        )
    if spec.types and ending not in spec.types:
        raise Refused(
            f"The file `{name}` is of a type the other side does not take.",
            f"It takes {', '.join(spec.types)}. Convert it and hand it in again.",
            fault="file_type_not_taken",
        )


def _check_size(name: str, size: int, ending: str, spec: FileSpec) -> None:
    if size < spec.least:
        raise Refused(
            f"The file `{name}` is empty." if size == 0 else f"The file `{name}` has only {size:,} bytes.",
            "Ask for it anew, and hand it in again.",
            fault="file_empty",
        )
    most = spec.most_by_type.get(ending, spec.most)
    if most is not None and size > most:
        raise Refused(
            f"The file `{name}` has {_megabytes(size)}; the other side takes at most {_megabytes(most)}.",
            "Make it smaller or split it, and hand it in again.",
            fault="file_too_large",
        )


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:,.1f} MB" if size >= 1024**2 else f"{size / 1024:,.1f} KB"


# --- content --------------------------------------------------------------------------------------------------


def _check_content(name: str, path: Path, ending: str, spec: FileSpec) -> None:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if ending == "pdf":
        _check_pdf(name, path, head, spec)
    elif ending in ("heic", "heif"):
        if not (head[4:8] == b"ftyp" and head[8:12] in _HEIF):
            raise _not_what_it_says(name, ending)
    elif ending in _LOOKED_AT:
        _check_signature(name, head, ending)
    elif ending == "txt" and spec.ascii_text:
        _check_ascii(name, path)


def _check_signature(name: str, head: bytes, ending: str) -> None:
    import puremagic  # reads its tables when it is imported

    wanted = _IMAGES.get(ending, (ending,))
    try:
        found = {match.extension.lstrip(".").lower() for match in puremagic.magic_string(head)}
    except (puremagic.PureError, ValueError):
        found = set()
    if not found.intersection(wanted):
        raise _not_what_it_says(name, ending)


def _check_pdf(name: str, path: Path, head: bytes, spec: FileSpec) -> None:
    if b"%PDF-" not in head[:1024]:
        raise _not_what_it_says(name, "pdf")
    import pikepdf  # a library of its own size: only for a PDF

    try:
        with pikepdf.open(path, access_mode=pikepdf.AccessMode.stream, attempt_recovery=True) as pdf:
            encrypted, pages = pdf.is_encrypted, len(pdf.pages)
    except pikepdf.PasswordError:
        encrypted, pages = True, 1
    except Exception as error:  # qpdf raises many kinds for what is no PDF
        raise Refused(
            f"The file `{name}` is a PDF that can't be read ({type(error).__name__}).",
            "Open it to see whether it is whole; ask for it anew, and hand it in again.",
            fault="file_broken",
        ) from error
    if encrypted and not spec.encrypted:
        raise Refused(
            f"The file `{name}` is an encrypted PDF; the other side can't open it.",
            "Ask for it without a password and without restrictions, and hand it in again.",
            fault="file_encrypted",
        )
    if not pages:
        raise Refused(f"The file `{name}` is a PDF without a page.", "Ask for it anew.", fault="file_broken")


def _check_ascii(name: str, path: Path) -> None:
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            if not chunk.isascii():
                raise Refused(
                    f"The text file `{name}` holds characters beyond plain ASCII; the other side refuses them.",
                    "Save it as plain ASCII, or make it a PDF, and hand it in again.",
                    fault="file_not_ascii",
                )


def _not_what_it_says(name: str, ending: str) -> Refused:
    return Refused(
        f"The file `{name}` is called {ending} and is something else.",
        "Give it its right extension, or convert it, and hand it in again.",
        fault="file_not_what_it_says",
    )
