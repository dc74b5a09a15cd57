"""Keys of the object store: made from text that others wrote, and checked where others name one. No IO, and no store is known here.

A key is segments with `/` between them, as a path in a folder and in a bucket. What the folder could not keep apart, or would follow
out of itself, is no key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from counterfoil.model.errors import Refused

STAGING = ".new"  # the folder of what is still being written
LONGEST_KEY = 1024  # bytes: what S3 takes
LONGEST_SEGMENT = 200  # characters of a segment that is made here
_LONGEST_MADE = 900  # leaves room for the prefix of the bucket
_FILE_NAME = 255  # bytes: what file systems take
_HASH = 20  # hex digits: 80 bits

_KEPT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?<!\.)")
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}\Z")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
_STAGED = re.compile(r"#\d+\Z")  # how the folder store names a file that is being written


def safe_key(*parts: str) -> str:
    """A key with one segment for each part, whatever the parts hold: two different lists of parts never give the same key.

    A part of ASCII letters, digits, `.`, `_` and `-` stays as it is; any other is cleaned and gets a hash of what it was, before its
    ending. Raises ValueError where there is no part.
    """
    if not parts:
        raise ValueError("A key needs at least one part.")
    key = "/".join(map(_segment, parts))
    if len(key) <= _LONGEST_MADE:
        return key
    return f"{key[: _LONGEST_MADE - _HASH - 1].rstrip('/.')}~{_hash(json.dumps(parts))}"


def check_key(key: str) -> str:
    """The key, where it is one. Raises Refused (`bad_object_key`) for one that climbs, is absolute or cannot be kept everywhere."""
    for holds, problem in _FAULTS:
        if holds(key):
            remedy = "Write names with `/` between them, such as reports/2026/a.pdf."
            raise Refused(f"The key of an object {problem}.", remedy, fault="bad_object_key")
    return key


def _segment(part: str) -> str:
    if _KEPT.fullmatch(part) and len(part) <= LONGEST_SEGMENT:
        return part
    ending = match[0] if (match := _ENDING.search(part)) else ""
    stem = _OTHER.sub("_", part[: len(part) - len(ending)]).strip(".") or "_"
    room = LONGEST_SEGMENT - len(ending) - _HASH - 1
    return f"{stem[:room]}~{_hash(part)}{ending}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]


# What makes a text no key, the first that holds; never shown with the key itself, which may be a person's name.
_FAULTS: tuple[tuple[Callable[[str], Any], str], ...] = (
    (lambda key: not key, "is empty"),
    (_FORBIDDEN.search, "holds a control character or a backslash"),
    (lambda key: len(key.encode()) > LONGEST_KEY, f"is longer than {LONGEST_KEY} bytes"),
    (lambda key: key.split("/")[0] == STAGING, f"begins with `{STAGING}`, where half-written objects stand"),
    (lambda key: "" in key.split("/"), "begins or ends with `/`, or has two of them together"),
    (lambda key: not {".", ".."}.isdisjoint(key.split("/")), "climbs out of its place with `.` or `..`"),
    (
        lambda key: any(len(name.encode()) > _FILE_NAME for name in key.split("/")),
        f"has a name of more than {_FILE_NAME} bytes between two `/`",
    ),
    (lambda key: any(map(_STAGED.search, key.split("/"))), "ends as a file does that is still being written"),
)
