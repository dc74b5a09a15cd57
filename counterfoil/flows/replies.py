"""What a reply means: the rules of a flow file by status and body, then the defaults, a table. And the error in a reply, in all its shapes.

Pure and never raising: whatever the other side sends, it means something, at worst `unknown`. What it says is passed on as it is, only
shortened; it is redacted where it is kept.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import msgspec

from counterfoil.flows.delivery import ReplyRule
from counterfoil.flows.paths import parse_path
from counterfoil.model.delivery import Outcome

MOST_PARSED = 16 * 1024 * 1024  # bytes of a body that are read as JSON
MOST_READ = 256 * 1024  # bytes of a body that are searched as text
MOST_HEAD = 16 * 1024  # bytes of HTML in which its title is looked for
MOST_SAID = 2000
MOST_WORD = 100  # characters of an error code
MOST_RECEIPT = 512
_UNREAD: Final = object()  # what is no JSON
_TITLE = re.compile(rb"<title(?:\s[^>]{0,300})?>([^<]{0,300})", re.IGNORECASE)
_ODD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class SaidError:
    """The error in a body. `shape`: errors | error | problem | message | status_error | json | html | text | unreadable | empty."""

    shape: str
    code: str | None = None
    text: str | None = None  # as the other side said it: not yet fit to be kept


@dataclass(frozen=True, slots=True)
class Judged:
    """What a reply means. `said` is the other side's own text, to be redacted before it is kept."""

    outcome: Outcome
    receipt: str | None = None
    fault: str | None = None
    code: str | None = None
    said: str | None = None
    after: timedelta | None = None


Classifier = Callable[[int, str, bytes], Judged]

# Statuses without a rule: outcome and, where the status says more than itself, the fault.
_DEFAULTS: Mapping[int, tuple[Outcome, str | None]] = {
    401: (Outcome.TEMPORARY, "unauthorised"),
    403: (Outcome.REFUSED, "forbidden"),
    408: (Outcome.TEMPORARY, None),
    425: (Outcome.TEMPORARY, None),
    429: (Outcome.THROTTLED, "throttled"),
    500: (Outcome.TEMPORARY, None),
    503: (Outcome.TEMPORARY, None),
}
# The rest by hundreds: 502, 504 and their like may have been passed on and done.
_BY_HUNDRED: Mapping[int, tuple[Outcome, str | None]] = {
    1: (Outcome.REFUSED, "redirected"),
    3: (Outcome.REFUSED, "redirected"),
    4: (Outcome.REFUSED, None),
    5: (Outcome.UNKNOWN, None),
}
_WHATEVER_THE_CODE = frozenset({"unauthorised", "redirected"})
_NO_RECEIPT: Mapping[str, str] = {
    "html": "The reply is HTML: a proxy or a login page answered.",
    "not_json": "The reply is no JSON.",
    "no_receipt": "The reply holds no receipt.",
}


@dataclass(frozen=True)
class _Reply:
    """What of a reply is looked at; read when it is first asked for."""

    status: int
    content_type: str
    body: bytes

    @property
    def success(self) -> bool:
        return 200 <= self.status < 300

    @cached_property
    def document(self) -> Any:
        return _decoded(self.body)

    @cached_property
    def error(self) -> SaidError:
        return _error(self.content_type, self.body, self.document)

    @cached_property
    def text(self) -> str:
        return self.body[:MOST_READ].decode("utf-8", "replace").lower()

    @property
    def unread(self) -> str | None:
        """Why it can't be read: html, not_json; None where it can, or where there is nothing to read."""
        if _is_html(self.content_type, self.body):
            return "html"
        return "not_json" if self.document is _UNREAD and self.body.strip() else None


def classifier(rules: Sequence[ReplyRule], *, receipt: str | None, expects_json: bool = True) -> Classifier:
    """A function of (status, content type, body). `receipt`: where it stands in the body of a success; None: a success needs none.

    `expects_json`: a success that is neither empty nor JSON comes from somebody else, and so is unknown.
    """
    compiled = [(rule, _fits(rule)) for rule in rules]
    path = parse_path(receipt) if receipt is not None else None

    def judge(status: int, content_type: str, body: bytes) -> Judged:
        reply = _Reply(status, content_type, body)
        for rule, fits in compiled:
            if fits(reply):
                return _by_rule(rule, reply, path)
        return _success(reply, path, expects_json) if reply.success else _by_default(reply)

    return judge


def _success(reply: _Reply, path: Sequence[str] | None, expects_json: bool) -> Judged:
    """A 2xx is done where it holds the receipt it should; else nobody knows what it means."""
    if path is not None:
        found = _receipt_at(reply.document, path)
        return _without_receipt(reply.unread) if found is None else Judged(Outcome.DONE, found)
    unread = reply.unread if expects_json else None
    return Judged(Outcome.DONE) if unread is None else _without_receipt(unread)


def _without_receipt(why: str | None) -> Judged:
    fault = why or "no_receipt"
    return Judged(Outcome.UNKNOWN, fault=fault, said=_NO_RECEIPT[fault])


def _by_rule(rule: ReplyRule, reply: _Reply, path: Sequence[str] | None) -> Judged:
    if rule.outcome not in (Outcome.DONE, Outcome.DUPLICATE):
        fault = rule.fault or _fault(reply.status, reply.error)
        return Judged(rule.outcome, None, fault, reply.error.code, reply.error.text, rule.after)
    path = parse_path(rule.receipt) if rule.receipt is not None else path
    receipt = _receipt_at(reply.document, path) if path is not None else None
    if rule.outcome is Outcome.DONE and path is not None and receipt is None:
        return _without_receipt(reply.unread)
    return Judged(rule.outcome, receipt, rule.fault, reply.error.code, reply.error.text)


def _by_default(reply: _Reply) -> Judged:
    status, error = reply.status, reply.error
    outcome, word = _DEFAULTS.get(status) or _BY_HUNDRED.get(status // 100, (Outcome.UNKNOWN, None))
    if word is None or (error.code is not None and word not in _WHATEVER_THE_CODE):
        word = _fault(status, error)
    said = "It answered with a redirect, which is not followed." if word == "redirected" else error.text
    return Judged(outcome, None, word, error.code, said)


def _fault(status: int, error: SaidError) -> str:
    """The stable word: the other side's code, else the status."""
    word = _ODD.sub("_", (error.code or "").lower())[:60].strip("_")
    return word or f"http_{status}"


# --- rules --------------------------------------------------------------------------------------------------------

Fits = Callable[[_Reply], bool]


def _fits(rule: ReplyRule) -> Fits:
    """All that is given must fit; what costs least is looked at first."""
    paths = [(parse_path(path), value) for path, value in rule.body.items()]
    says = rule.says.lower() if rule.says is not None else None
    code = rule.code.lower() if rule.code is not None else None

    def fits(reply: _Reply) -> bool:
        if rule.statuses and not any(reply.status in some for some in rule.statuses):
            return False
        if code is not None and not _matches(code, reply.error.code):
            return False
        if says is not None and says not in reply.text:
            return False
        return all(equal(at(reply.document, path), value) for path, value in paths)

    return fits


def _matches(pattern: str, code: str | None) -> bool:
    word = (code or "").lower()
    if pattern.endswith("*"):
        return code is not None and word.startswith(pattern[:-1])
    return word == pattern


def equal(found: Any, wanted: Any) -> bool:
    """As JSON has it: true is not 1."""
    return isinstance(found, bool) is isinstance(wanted, bool) and bool(found == wanted)


# --- errors in bodies ---------------------------------------------------------------------------------------------


def error_of(content_type: str, body: bytes) -> SaidError:
    """The error in a body, whatever its shape."""
    return _error(content_type, body, _decoded(body))


def _error(content_type: str, body: bytes, document: Any) -> SaidError:
    if not body.strip():
        return SaidError("empty")
    if _is_html(content_type, body):
        title = _TITLE.search(body[:MOST_HEAD])
        return SaidError("html", text=_short(html.unescape(title[1].decode("utf-8", "replace"))) if title else None)
    if document is _UNREAD:
        return _plain(body)
    return next(_shapes(document), SaidError("json")) if isinstance(document, dict) else SaidError("json")


def _plain(body: bytes) -> SaidError:
    """Text that was meant for people, or bytes that nobody can read."""
    text = body[: MOST_SAID * 2].decode("utf-8", "replace")
    readable = not any(char == "\ufffd" or (char < " " and char not in "\t\r\n") for char in text[:MOST_SAID])
    return SaidError("text", text=_short(text)) if readable else SaidError("unreadable")


def _shapes(document: Mapping[str, Any]) -> Iterator[SaidError]:
    """The first shape that fits, the most telling first."""
    many, one = document.get("errors"), document.get("error")
    if isinstance(many, dict | list) and many:
        yield _of_many(many)
    if isinstance(one, dict):
        yield SaidError("error", _code(one), _told(one))
    if isinstance(one, str):
        described = document.get("error_description")
        code = None if " " in one else _code({"code": one})
        yield SaidError("status_error", code, _short(described if isinstance(described, str) else one))
    if "title" in document or "detail" in document:
        yield SaidError("problem", _code(document), _of_problem(document))
    message = document.get("message", document.get("Message"))
    if isinstance(message, str):
        yield SaidError("message", _code(document), _short(message))


def _of_many(many: dict[str, Any] | list[Any]) -> SaidError:
    """The first of several errors counts; a section without the usual names tells all it has."""
    first = many[0] if isinstance(many, list) else many
    if isinstance(first, str):
        return SaidError("errors", text=_short(first))
    if not isinstance(first, dict):
        return SaidError("errors", text=_dumped(many))
    return SaidError("errors", _code(first), _told(first) or _dumped(first))


def _of_problem(document: Mapping[str, Any]) -> str | None:
    invalid = document.get("validation_errors")
    parts = [_told(document), _dumped(invalid) if invalid else None]
    return _short(" ".join(part for part in parts if part))


def _code(error: Mapping[str, Any]) -> str | None:
    """A number as its text; without anything that could not stand in a sentence."""
    code = error.get("code")
    if isinstance(code, bool) or not isinstance(code, str | int):
        return None
    text = "".join(char for char in str(code)[:MOST_WORD] if char.isprintable())
    return text.strip() or None


def _told(error: Mapping[str, Any]) -> str | None:
    """What it says, the most exact first."""
    for name in ("detail", "message", "title"):
        value = error.get(name)
        if isinstance(value, str) and value.strip():
            return _short(value)
        if isinstance(value, dict | list) and value:
            return _dumped(value)
    return None


def _dumped(value: Any) -> str | None:
    try:
        return _short(msgspec.json.encode(value).decode())
    except RecursionError:  # read, and too deep to be written
        return None


def _short(text: str) -> str | None:
    return " ".join(text[: MOST_SAID * 4].split())[:MOST_SAID] or None


def _is_html(content_type: str, body: bytes) -> bool:
    return "html" in content_type.lower() or body[:MOST_READ].lstrip()[:1] == b"<"


def _decoded(body: bytes) -> Any:
    """The JSON in a body, or `_UNREAD`."""
    if len(body) > MOST_PARSED:
        return _UNREAD
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, RecursionError, ValueError):
        return _UNREAD


def at(document: Any, path: Sequence[str]) -> Any:
    """The value at a path, or None; a list on the way is entered by its first entry, or by a number as the name."""
    found = document
    for name in path:
        if isinstance(found, list):
            place = int(name) if name.isdecimal() else 0
            found = found[place] if place < len(found) else None
            if name.isdecimal():
                continue
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _receipt_at(document: Any, path: Sequence[str]) -> str | None:
    """A text, or a number as its text; None for what can't be kept as a receipt."""
    found = at(document, path)
    if isinstance(found, int | float) and not isinstance(found, bool):
        found = msgspec.json.encode(found).decode()
    if not isinstance(found, str) or not found.strip() or len(found) > MOST_RECEIPT or not found.isprintable():
        return None
    return found
