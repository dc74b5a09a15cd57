"""What a file is by its first bytes, whatever its name says. Looks at 40 KB at most; the file itself is read elsewhere.

Only the kinds in these tables are judged: for any other ending nothing is claimed. `puremagic` knows the signatures; the few that it
does not are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import puremagic
from puremagic.main import max_head

HEAD = max_head  # bytes that are looked at
OCTETS = "application/octet-stream"
_FIRM = 3  # bytes of a signature that a text does not begin with by chance
_PDF_WITHIN = 1024  # readers take a PDF with something before it


@dataclass(frozen=True, slots=True)
class Kind:
    """`family`: what a signature can tell apart. `text`: no signature of its own, but none of the others either."""

    family: str
    content_type: str
    text: bool = False


_WORD = "application/vnd.openxmlformats-officedocument"
_OPEN = "application/vnd.oasis.opendocument"
KINDS: Mapping[str, Kind] = {
    "pdf": Kind("PDF", "application/pdf"),
    "png": Kind("PNG", "image/png"),
    "gif": Kind("GIF", "image/gif"),
    "jpg": Kind("JPEG", "image/jpeg"),
    "jpeg": Kind("JPEG", "image/jpeg"),
    "jpe": Kind("JPEG", "image/jpeg"),
    "jfif": Kind("JPEG", "image/jpeg"),
    "tif": Kind("TIFF", "image/tiff"),
    "tiff": Kind("TIFF", "image/tiff"),
    "bmp": Kind("BMP", "image/bmp"),
    "webp": Kind("WebP", "image/webp"),
    "heic": Kind("HEIF", "image/heic"),
    "heif": Kind("HEIF", "image/heif"),
    "zip": Kind("ZIP", "application/zip"),
    "docx": Kind("ZIP", f"{_WORD}.wordprocessingml.document"),
    "xlsx": Kind("ZIP", f"{_WORD}.spreadsheetml.sheet"),
    "pptx": Kind("ZIP", f"{_WORD}.presentationml.presentation"),
    "odt": Kind("ZIP", f"{_OPEN}.text"),
    "ods": Kind("ZIP", f"{_OPEN}.spreadsheet"),
    "doc": Kind("old Office", "application/msword"),
    "xls": Kind("old Office", "application/vnd.ms-excel"),
    "ppt": Kind("old Office", "application/vnd.ms-powerpoint"),
    "rtf": Kind("RTF", "application/rtf"),
    "exe": Kind("a program", "application/vnd.microsoft.portable-executable"),
    "txt": Kind("text", "text/plain", text=True),
    "csv": Kind("text", "text/csv", text=True),
    "json": Kind("text", "application/json", text=True),
    "xml": Kind("text", "application/xml", text=True),
    "html": Kind("text", "text/html", text=True),
    "htm": Kind("text", "text/html", text=True),
    "md": Kind("text", "text/markdown", text=True),
}
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def content_type(extension: str) -> str:
    return KINDS[extension].content_type if extension in KINDS else OCTETS


def contradiction(extension: str, head: bytes) -> str | None:
    """What the file seems to be where that is not what its ending says ("PNG", "something else"); None: it fits, or cannot be told."""
    kind = KINDS.get(extension)
    if kind is None:
        return None
    seen = _families(head)
    if kind.text:
        return next((family for family, length in seen.items() if length >= _FIRM), None)
    if kind.family in seen:
        return None
    return next((family for family, length in seen.items() if length >= _FIRM), "something else")


def _families(head: bytes) -> dict[str, int]:
    """The families whose signature is there, with its length; the longest first."""
    found: dict[str, int] = {}
    if b"%PDF-" in head[:_PDF_WITHIN]:
        found["PDF"] = 5
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        found["HEIF"] = 8
    if head.startswith((b"PK\x05\x06", b"PK\x03\x04")):
        found["ZIP"] = 4
    for match in _matches(head):
        kind = KINDS.get(match.extension.lstrip("."))
        if kind is not None and not kind.text:
            found[kind.family] = max(found.get(kind.family, 0), len(match.byte_match))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _matches(head: bytes) -> list[puremagic.PureMagicWithConfidence]:
    """Signatures at the end are left out: anybody can append them."""
    try:
        return [match for match in puremagic.magic_string(head) if match.offset >= 0]
    except (puremagic.PureError, ValueError):
        return []
