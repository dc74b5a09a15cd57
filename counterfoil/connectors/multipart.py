"""A multipart body cut into its parts, all of it in memory. Hostile bytes in; ValueError for what is no multipart body.

Only what is received, or kept as evidence, is read here: what is sent is built by the sender.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message

MOST_PARTS = 200
MOST_HEADERS = 16 * 1024  # bytes of one part's
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,80}):[ \t]*([^\r\n]*)")


@dataclass(frozen=True, slots=True)
class Part:
    """`name` and `file_name` as the sender wrote them; `content_type` without its parameters, in small letters."""

    name: str
    file_name: str | None
    content_type: str
    content: bytes


def boundary_of(content_type: str) -> bytes | None:
    """The boundary in a Content-Type; None: it is no multipart, or names none."""
    kind, value = _parameters(content_type, "boundary")
    return value.encode("latin-1", "replace") if kind.startswith("multipart/") and value and len(value) <= 70 else None


def parts_of(body: bytes, content_type: str) -> list[Part]:
    """The parts in their order. Raises ValueError with a sentence that holds nothing of the body."""
    boundary = boundary_of(content_type)
    if boundary is None:
        raise ValueError("The Content-Type names no boundary.")
    mark = b"\r\n--" + boundary
    whole = b"\r\n" + body
    parts: list[Part] = []
    start = whole.find(mark)
    while start >= 0:
        start += len(mark)
        if whole[start : start + 2] == b"--":
            return parts
        if len(parts) == MOST_PARTS:
            raise ValueError(f"The body has more than {MOST_PARTS} parts.")
        end = whole.find(mark, start)
        if end < 0:
            break
        parts.append(_part(whole[start:end]))
        start = end
    raise ValueError("The body has no end, or no parts.")


def _part(raw: bytes) -> Part:
    """One part: the rest of its boundary's line, headers, an empty line, its content."""
    _, found, rest = raw.partition(b"\r\n")
    if not found:
        raise ValueError("A part has no headers.")
    if rest.startswith(b"\r\n"):
        head, content = b"", rest[2:]
    else:
        head, found, content = rest.partition(b"\r\n\r\n")
        if not found or len(head) > MOST_HEADERS:
            raise ValueError("The headers of a part have no end.")
    headers = {name.lower(): value for name, value in _HEADER.findall(head)}
    disposition = headers.get(b"content-disposition", b"").decode("utf-8", "replace")
    _, name = _parameters(disposition, "name")
    _, file_name = _parameters(disposition, "filename")
    kind, _ = _parameters(headers.get(b"content-type", b"text/plain").decode("latin-1"), "")
    return Part(name or "", file_name, kind, content)


def _parameters(header: str, wanted: str) -> tuple[str, str | None]:
    """The word before the parameters, in small letters, and the one that is wanted."""
    message = Message()
    message["Content-Type"] = header.replace("\r", "").replace("\n", "")
    value = message.get_param(wanted) if wanted else None
    if isinstance(value, tuple):  # RFC 2231: charset, language, text
        value = value[2]
    return header.partition(";")[0].strip().lower(), value
