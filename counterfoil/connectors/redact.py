"""What is kept of the bodies, headers and error texts of others: without secrets and personal data, and never more than is needed.

Redaction happens when evidence is written, so that nothing has to be hidden when it is read. What cannot be read is kept as its size
only. Nothing here raises: evidence must not stop a delivery.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from counterfoil.connectors.multipart import Part, parts_of
from counterfoil.flows.delivery import Evidence
from counterfoil.flows.paths import PATH_REMEDY, parse_path
from counterfoil.model.errors import Misconfigured

__all__ = ["Redactor", "file_note", "headers", "redactor", "sentence"]

LONGEST_SENTENCE = 300
_LOOKED_AT = 5000  # characters of an error text
_LONGEST_NAME = 200
_DEEPEST = 50
_BEYOND = (
    500  # characters that are looked at beyond what is kept, so that no half of an address or token is left at the cut
)
_FILE_LENGTH = 200  # characters from which a text of base64 is a file
_GONE = "…"

# Parts of a name, in small letters without signs, whose value is never kept; and whole names.
_SENSITIVE = re.compile(
    r"password|passwd|passphrase|secret|token|authorization|assertion|cookie|apikey|accesskey|privatekey|credential|signature"
    r"|sessionid|sessiondata|jwt|ssn|socialsecurity|nationalinsurance|filenumber|participantid|icn|edipi|birth|email|phone|iban"
    r"|accountnumber|cardnumber"
)
_SENSITIVE_WHOLE = frozenset({"auth", "pwd", "pin", "otp", "dob", "nino", "cvv", "mail", "sig"})
_SIGNS = re.compile(r"[^a-z0-9]")

_JSON = re.compile(r"(application|text)/([a-z0-9.+-]+\+)?json")
_TEXT = re.compile(r"text/.*|application/([a-z0-9.-]+\+)?(xml|problem)|application/xhtml\+xml|")
_DATA_URL = re.compile(r"data:[a-z0-9.+/;=-]{0,100}base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")

_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.+/=~-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{5,}(\.[\w-]*){0,4}")
_EMAIL = re.compile(r"[^\s@<>\"'`(),;:=\[\]{}]{1,64}@[^\s@<>\"'`(),;:=\[\]{}]{1,255}")
_IN_QUERY = re.compile(r"([?&;][^=&;\s\"'<>]{1,60}=)([^&;\s\"'<>]+)")
_SAID = re.compile(r"([A-Za-z][\w.-]{1,60})[\\\"']{0,8}\s{0,3}[=:]\s{0,3}[\\\"'\[{]{0,8}")
_WORD = re.compile(r"[^\s\\\"'<>&,;]+")
_TAGGED = re.compile(r"(<(?:[\w.-]{1,40}:)?([\w.-]{1,60})[^<>]{0,500}>)([^<>]+)(?=<)")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_TAGS = re.compile(r"<(script|style)\b.*?(</\1>|\Z)|<[^<>]*>", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(
    r"\"[^\"]*(\"|\Z)|“[^”]*(”|\Z)|«[^»]*(»|\Z)|`[^`]*(`|\Z)|(?<!\w)'[^']*'(?!\w)|(?<!\w)‘[^’]*’(?!\w)"
)
_DIGITS = re.compile(r"\d(?:[-/. ]?\d){4,}")
_OPAQUE = re.compile(r"[A-Za-z0-9+/=_-]{40,}")
_PACKED = re.compile(rf"[A-Za-z0-9+/=_-]{{{_FILE_LENGTH},}}")

_HEADERS = re.compile(
    r"accept|allow|content-(type|length|encoding|language)|date|etag|expires|last-modified|retry-after|server|traceparent|via"
    r"|x-amzn?-(requestid|request-id|errortype|trace-id|id-2)|(x-)?(request|correlation)-id|(x-)?ratelimit(-[a-z]+){0,3}"
)

Trie = dict[str, Any]
_END = ""  # in a trie: a declared path ends here


def redactor(evidence: Evidence) -> Redactor:
    """What makes a body fit to be kept. Raises Misconfigured for a path in `evidence.redact` that is none."""
    return Redactor(evidence)


class Redactor:
    """Called with a body and its Content-Type; gives the text to keep, of at most `most` characters and a note of what was cut."""

    def __init__(self, evidence: Evidence) -> None:
        self._most = evidence.most
        self._paths = _trie(evidence.redact)

    def __call__(self, body: bytes, content_type: str = "") -> str:
        try:
            return self._redacted(body, content_type)
        except Exception:  # evidence must not stop a delivery, whatever hostile bytes do to a parser
            return _size_only(len(body), content_type)

    def value(self, value: Any) -> str:
        """The same for a body that is a JSON value still, such as the parts of a form by their names."""
        try:
            return self._shown(value)
        except Exception:
            return "[a body that cannot be shown]"

    def _redacted(self, body: bytes, content_type: str) -> str:
        if not body:
            return ""
        kind = content_type.partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            return self._shown(_form((part.name, _part(part)) for part in parts_of(body, content_type)), len(body))
        if kind == "application/x-www-form-urlencoded":
            return self._shown(_form(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)), len(body))
        if _JSON.fullmatch(kind) or body.lstrip()[:1] in (b"{", b"["):
            return self._shown(json.loads(body.decode("utf-8-sig")), len(body))
        if _TEXT.fullmatch(kind):
            words = body.decode(_charset(content_type), "replace")
            limit = self._most + _BEYOND
            return self._kept(_plain(words[:limit]), len(words) if len(words) > limit else None)
        return _size_only(len(body), content_type)

    def _shown(self, value: Any, size: int | None = None) -> str:
        walk = _Walk(self._most)
        text = json.dumps(walk(value, (self._paths,)), ensure_ascii=False)
        return self._kept(text, size if walk.left < 0 else None)

    def _kept(self, text: str, whole: int | None = None) -> str:
        """Within the limit, and in characters that a database takes. `whole`: how many there were before `text` was cut."""
        sound = _CONTROL.sub("", text)
        if whole is None and len(sound) <= self._most:
            return sound
        kept = sound[: self._most]
        return f"{kept}{_GONE} [cut: {len(kept):,} of {whole or len(sound):,} characters are kept]"


class _Walk:
    """One document, value by value: no more of them than could be kept, so that a huge one costs no time."""

    def __init__(self, most: int) -> None:
        self._limit = most + _BEYOND
        self.left = self._limit

    def __call__(self, value: Any, active: tuple[Trie, ...], depth: int = 0) -> Any:
        """`active`: what is still to come of the declared paths, from here."""
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            return _GONE
        if isinstance(value, str):
            return self._string(value, active, depth)
        if isinstance(value, Mapping):
            return {_name(name): self._entry(name, inner, active, depth) for name, inner in self._some(value.items())}
        if isinstance(value, list | tuple):
            within = tuple(inner for trie in active for name, inner in trie.items() if name == "*" or name.isdecimal())
            if any(_END in trie for trie in within):
                return [_redacted(inner) for inner in self._some(value)]
            return [self(inner, (*active, *within), depth + 1) for inner in self._some(value)]
        if isinstance(value, bytes | bytearray | memoryview):
            return file_note(None, len(value), hashlib.sha256(value).hexdigest())
        return value if value is None or isinstance(value, bool | int | float) else f"[{type(value).__name__}]"

    def _some(self, values: Iterable[Any]) -> Iterable[Any]:
        return islice(values, max(1, self.left + 1))

    def _entry(self, name: Any, value: Any, active: tuple[Trie, ...], depth: int) -> Any:
        key = str(name).lower()
        within = tuple(trie[step] for trie in active for step in {key, "*"} if step and step in trie)
        if _is_sensitive(key) or any(_END in trie for trie in within):
            return _redacted(value)
        return self(value, within, depth + 1)

    def _string(self, text: str, active: tuple[Trie, ...], depth: int) -> str:
        """A file, a document inside a text, or words."""
        if len(text) > _FILE_LENGTH and (note := _file_in(text)):
            return note
        if text.lstrip()[:1] in ("{", "[", '"'):
            with suppress(ValueError, RecursionError):
                return json.dumps(self(json.loads(text), active, depth + 1), ensure_ascii=False)
        words = _masked(text[: self._limit])
        return words if len(text) <= self._limit else f"{words.rstrip(_GONE)}{_GONE}"


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """The headers that may be kept: those of a list, with nothing in them that looks like a secret."""
    return {
        name: " ".join(_CONTROL.sub("", _masked(value[:_LONGEST_NAME])).split())
        for name, value in given.items()
        if _HEADERS.fullmatch(name.lower())
    }


def sentence(text: str) -> str:
    """Another system's error text, fit to be kept on an item: quoted values, addresses and numbers masked, one line, not long."""
    words = _TAGS.sub(" ", _CONTROL.sub(" ", text[:_LOOKED_AT]))
    for pattern in (_BEARER, _JWT):
        words = pattern.sub(_GONE, words)
    words = _QUOTED.sub(_unquoted, words)
    for pattern in (_EMAIL, _OPAQUE, _DIGITS):
        words = pattern.sub(_GONE, words)
    line = " ".join(words.split())
    return line if len(line) <= LONGEST_SENTENCE else f"{line[: LONGEST_SENTENCE - 1].rstrip()}{_GONE}"


def file_note(name: str | None, size: int, sha256: str) -> str:
    """What stands for a file."""
    called = f" {_CONTROL.sub('', _masked(name[:_LONGEST_NAME]))}" if name else ""
    return f"[file{called}, {size:,} bytes, sha256 {sha256}]"


# --- parts of it --------------------------------------------------------------------------------------------------


def _trie(paths: Iterable[str]) -> Trie:
    root: Trie = {}
    for path in paths:
        try:
            names = parse_path(path)
        except ValueError as error:
            raise Misconfigured(f"`evidence.redact`: {error}", PATH_REMEDY) from None
        inner = root
        for name in names:
            inner = inner.setdefault(name.lower(), {})
        inner[_END] = True
    return root


def _is_sensitive(key: str) -> bool:
    plain = _SIGNS.sub("", key)
    return plain in _SENSITIVE_WHOLE or _SENSITIVE.search(plain) is not None


def _redacted(value: Any) -> Any:
    """That there was something, and how much; nothing stays nothing."""
    if value is None:
        return None
    length = len(value) if isinstance(value, str) else len(json.dumps(value, ensure_ascii=False, default=str))
    return f"[redacted, {length} character{'s' * (length != 1)}]"


def _name(name: Any) -> str:
    return _masked(str(name)[:_LONGEST_NAME])


def _file_in(text: str) -> str | None:
    """The note for a text that is a file in base64; None: it is none."""
    start = found.end() if (found := _DATA_URL.match(text)) else 0
    packed = text[start:].replace("\r", "").replace("\n", "")
    if not _BASE64.fullmatch(packed):
        return None
    try:
        padded = packed.rstrip("=") + "=" * (-len(packed.rstrip("=")) % 4)
        content = base64.b64decode(padded, altchars=b"-_" if "-" in packed or "_" in packed else None)
    except binascii.Error:
        return f"[{len(packed):,} characters of no known form]"
    return file_note(None, len(content), hashlib.sha256(content).hexdigest())


def _form(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        made[name] = (
            [*made[name], value] if isinstance(made.get(name), list) else [made[name], value] if name in made else value
        )
    return made


def _part(part: Part) -> Any:
    """A part of JSON as its value, also where it is called a file; a file as its note."""
    if _JSON.fullmatch(part.content_type):
        try:
            return json.loads(part.content)
        except (ValueError, RecursionError):
            pass
    elif part.file_name is None and _TEXT.fullmatch(part.content_type):
        return part.content.decode("utf-8", "replace")
    return file_note(part.file_name, len(part.content), hashlib.sha256(part.content).hexdigest())


def _plain(text: str) -> str:
    """Words of no known form: what stands behind a sensitive name is masked too, and numbers."""
    tagged = _TAGGED.sub(lambda m: f"{m[1]}{_GONE}" if _is_sensitive(m[2].lower()) else m[0], text)
    return _DIGITS.sub(_GONE, _masked(tagged))


def _unsaid(text: str) -> str:
    """Without the word behind `name=` or `name:` where the name is a sensitive one."""
    kept, end = [], 0
    for match in _SAID.finditer(text):
        word = _WORD.match(text, match.end()) if _is_sensitive(match[1].lower()) and match.start() >= end else None
        if word:
            kept += [text[end : match.end()], _GONE]
            end = word.end()
    return "".join([*kept, text[end:]])


def _masked(text: str) -> str:
    """Without addresses, tokens, signed links, and the words behind sensitive names, wherever they stand."""
    without = _IN_QUERY.sub(lambda m: f"{m[1]}{_GONE}" if _is_sensitive(m[1][1:-1].lower()) else m[0], text)
    for pattern in (_BEARER, _JWT, _EMAIL, _PACKED):
        without = pattern.sub(_GONE, without)
    return _unsaid(without)


def _unquoted(match: re.Match[str]) -> str:
    said = match[0]
    closed = len(said) > 1 and said[-1] in "\"”»`'’"
    return f"{said[0]}{_GONE}{said[-1] if closed else ''}"


def _charset(content_type: str) -> str:
    found = re.search(r"charset=\"?([\w.-]{1,40})", content_type, re.IGNORECASE)
    try:
        return codecs.lookup(found[1]).name if found else "utf-8"
    except LookupError:
        return "utf-8"


def _size_only(size: int, content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    shown = f" of {kind}" if re.fullmatch(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}", kind) else ""
    return f"[{size:,} bytes{shown}, not kept]"
