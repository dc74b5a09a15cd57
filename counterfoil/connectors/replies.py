"""Bodies and statuses of replies, made into entries, records or one of the connector errors. Shared by HTTP and Lambda.

Bytes in, bytes out: a list is cut into its entries without decoding each. Messages name places and keys, never values.
The fast path assumes that everything is right; only when it is not, `_lenient` and `unreadable` look for what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from counterfoil.flows.paths import parse_path
from counterfoil.model.errors import ConnectorError, Gone, Misconfigured, Refused, Throttled, TooLarge, Transient
from counterfoil.model.ports import BrokenEntry

LONGEST_WAIT = 3600.0  # seconds; a Retry-After beyond it is a mistake or a holiday: ask again
KEPT_OF_BROKEN = 4096  # bytes kept of an entry that is no record
_NAME = re.compile(r"[\w .$:@-]{1,40}")
_PASSING = frozenset({408, 425})  # 4xx that say "not now"
_MAKER = msgspec.json.Encoder(decimal_format="number")
_UNREAD = (msgspec.DecodeError, RecursionError)


# --- statuses -------------------------------------------------------------------------------------------------


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds to wait from a `Retry-After` header (seconds or an HTTP date), within 0 and LONGEST_WAIT; None: it says nothing."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_until(text, now)
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def status_error(status: int, place: str, *, wait: float | None, gone: bool, login: str) -> ConnectorError:
    """The error for a status that is no success. `gone`: a 404 means an unknown key. `login`: where the credentials stand."""
    if status == 401:
        return Transient(
            f"{place} answered 401, unauthorised.", f"Look at {login}: expired or wrong.", fault="unauthorised"
        )
    if status == 403:
        return Refused(f"{place} answered 403, forbidden.", f"Look at what {login} may do there.", fault="forbidden")
    if gone and status in (404, 410):
        return Gone(f"{place} answered {status}: the source does not know this key.")
    if status == 429 or (status == 503 and wait is not None):
        return Throttled(f"{place} answered {status}: it asks for less.", retry_after=wait)
    if 400 <= status < 500 and status not in _PASSING:
        return Refused(f"{place} answered {status}.", "Look at the call in the flow file.", fault=f"http_{status}")
    return Transient(f"{place} answered {status}.", fault=f"http_{status}")


def _seconds_until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return math.nan
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()


# --- bodies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """One decoded page. `count` is what the source served, broken entries too; `follow` is the value at `next_at`."""

    entries: list[bytes]
    broken: list[BrokenEntry]
    follow: Any = None

    @property
    def count(self) -> int:
        return len(self.entries) + len(self.broken)

    def digest(self) -> str:
        """The same for two pages with the same entries; "" for an empty page."""
        if not self.count:
            return ""
        seen = hashlib.blake2b(b"".join(self.entries), digest_size=12)
        seen.update(b"".join(broken.raw for broken in self.broken))
        return seen.hexdigest()


class ListReader:
    """Cuts the body of a list into entries: `items` says where the list stands, `next_at` where the next cursor or URL does."""

    def __init__(self, items: str, next_at: str | None, record_bytes: int) -> None:
        self.path = _path("list.items", items)
        self._items = _picker(self.path, list[msgspec.Raw])
        self._next_path = _path("list.paging.next_at", next_at or "")
        self._next = _picker(self._next_path, Any, optional=True) if next_at else None
        self._record_bytes = record_bytes

    def read(self, body: bytes, place: str, page: int, content_type: str = "") -> Listed:
        """Raises Transient (`empty`, `html`, `not_json`, `truncated`, `unexpected_body`) for a body that holds no such list."""
        try:
            entries = [bytes(raw) for raw in self._items(body)]
            follow = self._next(body) if self._next else None
        except _UNREAD as error:
            return self._read_slowly(body, place, page, content_type, error)
        if body.isascii() and all(map(self._sound, entries)):
            return Listed(entries, [], follow)
        return self._sort(entries, page, follow)

    def _sound(self, entry: bytes) -> bool:
        return entry[0] == 123 and len(entry) <= self._record_bytes  # 123: {

    def _sort(self, entries: Iterable[bytes | ValueError], page: int, follow: Any) -> Listed:
        sound, broken = [], []
        for number, entry in enumerate(entries, 1):
            problem = str(entry) if isinstance(entry, ValueError) else entry_problem(entry, self._record_bytes)
            if problem:
                raw = b"" if isinstance(entry, ValueError) else entry[:KEPT_OF_BROKEN]
                broken.append(BrokenEntry(f"page {page}, entry {number}", problem, raw))
            elif isinstance(entry, bytes):
                sound.append(entry)
        return Listed(sound, broken, follow)

    def _read_slowly(self, body: bytes, place: str, page: int, content_type: str, error: Exception) -> Listed:
        """One entry that no parser should accept (NaN, half a surrogate) must not take the whole page with it."""
        document = _lenient(body, place, content_type, error)
        found = _walk(document, self.path, place)
        if not isinstance(found, list):
            raise _unexpected(place, f"{_named(self.path)} is {_kind(found)}, not a list", document)
        follow = _walk(document, self._next_path, place, missing_is_none=True) if self._next else None
        return self._sort(map(_again, found), page, follow)


class RecordReader:
    """Takes one record out of the body of a detail call: `record` says where it stands, `key` where the record's key does.

    A record without its key is an error report that looks like success: passed on, it would be rejected instead of asked for again.
    """

    def __init__(self, record: str, key: str) -> None:
        self.path = _path("detail.record", record)
        self._key_path = _path("source.key", key)
        self._record = _picker(self.path, msgspec.Raw)
        self._key = _picker(self._key_path, Any, optional=True)

    def read(self, body: bytes, place: str, content_type: str = "") -> bytes:
        """Raises Transient as `ListReader.read` does."""
        try:
            raw = bytes(self._record(body))
        except _UNREAD as error:
            document = _lenient(body, place, content_type, error)
            _walk(document, self.path, place)
            raise _not_json(place, error) from error
        if raw[0] != 123:
            raise _unexpected(place, f"{_named(self.path)} is no object", msgspec.json.decode(body))
        if not raw.isascii() and not _is_utf8(raw):
            raise Transient(f"{place} answered with text that is not UTF-8.", fault="not_utf8")
        if not self._has_key(raw):
            raise _unexpected(place, f"the record has no {_named(self._key_path)}", msgspec.json.decode(raw))
        return raw

    def _has_key(self, raw: bytes) -> bool:
        try:
            return self._key(raw) is not None
        except msgspec.ValidationError:  # something else than an object on the way to it
            return False


def entry_problem(entry: bytes, record_bytes: int) -> str:
    """Why `entry`, a well-formed JSON value, is no record; "" when it is one."""
    if len(entry) > record_bytes:
        return f"The entry has {len(entry)} bytes, more than the limit of {record_bytes} (`limits.record_bytes`)."
    if not entry.startswith(b"{"):
        return "The entry is no JSON object."
    return "" if entry.isascii() or _is_utf8(entry) else "The entry is not UTF-8."


def too_large(place: str, limit: int, setting: str) -> TooLarge:
    return TooLarge(
        f"{place} answered with more than {limit} bytes; reading stopped there.",
        f"Raise `limits.{setting}` if that is expected.",
    )


def looks_html(body: bytes, content_type: str) -> bool:
    return "html" in content_type.lower() or body.lstrip()[:1] == b"<"


def _lenient(body: bytes, place: str, content_type: str, error: Exception) -> Any:
    """The body read by a parser that accepts more; raises what is wrong with it when that one refuses too."""
    if not body.strip():
        raise Transient(f"{place} answered with an empty body.", fault="empty") from error
    if looks_html(body, content_type):
        raise Transient(
            f"{place}: the reply is HTML, not JSON: a proxy or login page answered.",
            "Look at the address and the credentials.",
            fault="html",
        ) from error
    try:
        return json.loads(body.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_Constant)
    except (ValueError, RecursionError):
        raise _not_json(place, _syntax_error(body) or error) from error


def _syntax_error(body: bytes) -> Exception | None:
    """What is wrong with the JSON itself: `error` may only say that its first value is of another type than declared."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except _UNREAD as error:
        return error
    return None


def _not_json(place: str, error: Exception) -> Transient:
    if "truncated" in str(error):
        return Transient(f"{place}: the reply ends in the middle of its JSON.", fault="truncated")
    return Transient(f"{place}: the reply is not JSON ({error}).", fault="not_json")


def _unexpected(place: str, problem: str, document: Any) -> Transient:
    found = f"its keys are {_keys(document)}" if isinstance(document, dict) else f"it is {_kind(document)}"
    return Transient(
        f"{place}: in the reply {problem}; {found}.",
        "The source reports an error in a reply that looks like success, or the flow file names the wrong place.",
        fault="unexpected_body",
    )


def _keys(document: Mapping[str, Any]) -> str:
    names = [name if _NAME.fullmatch(name) else "(odd name)" for name in list(document)[:10]]
    return ", ".join(f"`{name}`" for name in names) + (", ..." if len(document) > 10 else "") if names else "none"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _named(path: tuple[str, ...]) -> str:
    return f"`{'.'.join(path)}`" if path else "the body"


def _walk(document: Any, path: tuple[str, ...], place: str, *, missing_is_none: bool = False) -> Any:
    value = document
    for name in path:
        if not isinstance(value, dict) or name not in value:
            if missing_is_none:
                return None
            raise _unexpected(place, f"there is no {_named(path)}", document)
        value = value[name]
    return value


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class _Constant:
    """NaN or Infinity: read, so that the rest of the page is; never written again."""

    def __init__(self, name: str) -> None:
        self.name = name


def _again(value: Any) -> bytes | ValueError:
    try:
        return _MAKER.encode(value)
    except (TypeError, UnicodeEncodeError, RecursionError):
        return ValueError("The entry holds NaN, Infinity or half a Unicode character, which JSON does not allow.")


def _path(setting: str, text: str) -> tuple[str, ...]:
    try:
        return parse_path(text) if text else ()
    except ValueError as error:
        raise Misconfigured(str(error), f"Look at `{setting}`.") from None


def _picker(path: tuple[str, ...], leaf: Any, *, optional: bool = False) -> Callable[[bytes], Any]:
    """A function that takes the value at `path` out of a body and skips everything else undecoded."""
    kind, default = leaf, ((None,) if optional else ())
    for name in reversed(path):
        inner = (kind | None) if optional and kind is not Any else kind
        kind = msgspec.defstruct("Level", [("inner", inner, *default)], rename={"inner": name}, gc=False)
    decode = msgspec.json.Decoder(kind).decode

    def pick(body: bytes) -> Any:
        value = decode(body)
        for _ in path:
            if value is None:
                return None
            value = value.inner
        return value

    return pick
