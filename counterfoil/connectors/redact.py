"""What of a body and of an error may be kept: everything else is replaced before it is written, its size and kind told in its place.

Never raises. What can't be read is kept as its size alone. Hashes of the real bodies stand in the proof beside it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from counterfoil.flows.delivery import Evidence

Redactor = Callable[[bytes, str], str]

# Names whose values are never kept, whatever the flow declares: secrets, and what names a person.
PRIVATE = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|assertion|authori[sz]ation|cookie|credential|signature|private|api[_-]?key|ssn|social|"
    r"file_?number|participant_?id|birth|dob|e?_?mail|phone|mobile|address|street|iban|card|account_?number|"
    r"(first|last|full|given|family|sur|maiden|middle)_?name)",
    re.IGNORECASE,
)
KEPT_HEADERS = frozenset(
    {"content-type", "content-length", "date", "retry-after", "x-request-id", "x-correlation-id", "x-amzn-requestid", "x-amzn-trace-id",
     "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "idempotency-key", "location"}
)  # fmt: skip
LONG_BASE64 = 200  # characters: a shorter one may be an id
MOST_SENTENCE = 300
DEEPEST = 40
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_MASKS = (
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "…@…"),
    (re.compile(r"(?<![\w'])(['\"`])(?:(?!\1).){1,200}\1(?!\w)"), r"\1…\1"),
    (re.compile(r"\d{5,}"), "…"),
)


def redactor(evidence: Evidence) -> Redactor:
    """A function of (body, content type) that gives what may be kept of it."""
    paths = tuple(tuple(path.split(".")) for path in evidence.redact)

    def redact(body: bytes, content_type: str) -> str:
        try:
            return _cut(_redact(body, content_type.lower(), paths), evidence.most)
        except Exception:  # whatever it is, it is not worth a delivery, and what can't be read can't be kept
            return f"[{len(body):,} bytes that can't be read]"

    return redact


def _redact(body: bytes, content_type: str, paths: Sequence[tuple[str, ...]]) -> str:
    if not body:
        return ""
    if "json" in content_type or body.lstrip()[:1] in (b"{", b"["):
        try:
            return msgspec.json.encode(_clean(msgspec.json.decode(body), paths, 0)).decode()
        except (msgspec.DecodeError, RecursionError):
            return f"[{len(body):,} bytes that are no JSON]"
    if "form-urlencoded" in content_type:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        return "&".join(f"{name}={_hidden(value) if _private(name, paths) else value}" for name, value in pairs)
    if content_type.startswith("text/"):
        return sentence(body.decode("utf-8", "replace"), most=2000)
    return f"[{len(body):,} bytes of {content_type.partition(';')[0] or 'no declared type'}]"


def _clean(value: Any, paths: Sequence[tuple[str, ...]], depth: int) -> Any:
    """`paths`: those that may still apply from here on."""
    if depth > DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {name: _entry(name, part, paths, depth) for name, part in value.items()}
    if isinstance(value, list):
        inner = [path[1:] for path in paths if path[0] == "*"] + list(paths)
        return [_hidden(part) if () in inner else _clean(part, inner, depth + 1) for part in value]
    if isinstance(value, str) and len(value) > LONG_BASE64 and _BASE64.fullmatch(value):
        return _file(value)
    return value


def _entry(name: str, part: Any, paths: Sequence[tuple[str, ...]], depth: int) -> Any:
    inner = [path[1:] for path in paths if path and path[0] in (name, "*")]
    if () in inner or (PRIVATE.search(name) and not isinstance(part, dict | list)):
        return _hidden(part)
    if isinstance(part, dict | list) and PRIVATE.search(name):
        return _all_hidden(part, depth)
    return _clean(part, [path for path in inner if path], depth + 1)


def _all_hidden(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return "[nested too deeply]"
    if isinstance(value, dict):
        return {name: _all_hidden(part, depth + 1) for name, part in value.items()}
    return [_all_hidden(part, depth + 1) for part in value] if isinstance(value, list) else _hidden(value)


def _private(name: str, paths: Sequence[tuple[str, ...]]) -> bool:
    return PRIVATE.search(name) is not None or (name,) in paths


def _hidden(value: Any) -> str:
    if isinstance(value, str):
        return f"[redacted, {len(value):,} characters]"
    return (
        f"[redacted, {'an object' if isinstance(value, dict) else 'a list' if isinstance(value, list) else 'a value'}]"
    )


def _file(text: str) -> str:
    """The content of a file, inline: its size and hash stand for it."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"[redacted, {len(text):,} characters]"
    return f"[file of {len(raw):,} bytes, sha256 {hashlib.sha256(raw).hexdigest()}]"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… [{len(text) - most:,} characters more]"


def sentence(text: str, *, most: int = MOST_SENTENCE) -> str:
    """Another system's words, fit to stand on an item: what is quoted, numbered or an address is masked."""
    clean = " ".join(_CONTROL.sub(" ", text[: most * 4]).split())
    for pattern, mask in _MASKS:
        clean = pattern.sub(mask, clean)
    return _cut(clean, most)


def headers_kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Only headers that are known to say nothing private."""
    return {name: value[:200] for name, value in headers.items() if name.lower() in KEPT_HEADERS}
