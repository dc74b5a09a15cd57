"""What a reply means: the rules of a flow file by status and body, then the defaults, a table. And the error in a reply, in all its shapes.

Pure and never raising: whatever the other side sends, it means something, at worst `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from counterfoil.flows.delivery import ReplyRule
from counterfoil.flows.paths import parse_path
from counterfoil.model.delivery import Outcome

MOST_READ = 256 * 1024  # bytes of a body that are looked at for an error
MOST_SAID = 2000
_TITLE = re.compile(rb"<title[^>]*>(.{0,300}?)</title>", re.IGNORECASE | re.DOTALL)
_ODD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class SaidError:
    """The error in a body. `shape`: errors | error | problem | message | status_error | html | text | empty | json | unreadable."""

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
    4: (Outcome.REFUSED, None),
    5: (Outcome.UNKNOWN, None),
}


def classifier(rules: Sequence[ReplyRule], *, receipt: str | None) -> Classifier:
    """A function of (status, content type, body). `receipt`: where it stands in the body of a success; None: it needs none."""
    compiled = [(rule, _fits(rule)) for rule in rules]
    success_at = parse_path(receipt) if receipt is not None else None

    def judge(status: int, content_type: str, body: bytes) -> Judged:
        document = _decoded(body)
        if not compiled and 200 <= status < 300:
            return _success(document, content_type, body, success_at)
        error = error_of(content_type, body, document) if status >= 300 or compiled else SaidError("json")
        for rule, fits in compiled:
            if fits(status, error, document, body):
                return _by_rule(rule, status, error, document, success_at)
        if 200 <= status < 300:
            return _success(document, content_type, body, success_at)
        return _by_default(status, error)

    return judge


def _success(document: Any, content_type: str, body: bytes, at: tuple[str, ...] | None) -> Judged:
    """A 2xx is done where it holds the receipt it should; else nobody knows what it means."""
    if at is None:
        return Judged(Outcome.DONE)
    found = _text_at(document, at)
    if found is not None:
        return Judged(Outcome.DONE, receipt=found)
    html = _is_html(content_type, body)
    fault = "html" if html else "no_receipt"
    return Judged(
        Outcome.UNKNOWN, fault=fault, said="The reply holds no receipt" + (": it is HTML" if html else "") + "."
    )


def _by_rule(rule: ReplyRule, status: int, error: SaidError, document: Any, at: tuple[str, ...] | None) -> Judged:
    receipt = None
    if rule.outcome in (Outcome.DONE, Outcome.DUPLICATE):
        path = parse_path(rule.receipt) if rule.receipt is not None else at
        receipt = _text_at(document, path) if path is not None else None
        if rule.outcome is Outcome.DONE and at is not None and receipt is None:
            return Judged(Outcome.UNKNOWN, fault="no_receipt", said="The reply holds no receipt.")
    return Judged(rule.outcome, receipt, rule.fault or _fault(status, error), error.code, error.text, rule.after)


def _by_default(status: int, error: SaidError) -> Judged:
    if status < 400:
        return Judged(Outcome.REFUSED, fault="redirected", said="It answered with a redirect, which is not followed.")
    outcome, word = _DEFAULTS.get(status) or _BY_HUNDRED.get(status // 100, (Outcome.UNKNOWN, None))
    fault = _fault(status, error) if word is None or error.code is not None else word
    return Judged(outcome, fault=fault, code=error.code, said=error.text)


def _fault(status: int, error: SaidError) -> str:
    """The stable word: the other side's code, else the status."""
    word = _ODD.sub("_", (error.code or "").lower()).strip("_")
    return word[:60] or f"http_{status}"


# --- rules ----------------------------------------------------------------------------------------------------

Fits = Callable[[int, SaidError, Any, bytes], bool]


def _fits(rule: ReplyRule) -> Fits:
    paths = [(parse_path(path), value) for path, value in rule.body.items()]
    says = rule.says.lower() if rule.says is not None else None
    code = rule.code.lower() if rule.code is not None else None

    def fits(status: int, error: SaidError, document: Any, body: bytes) -> bool:
        if rule.statuses and not any(status in some for some in rule.statuses):
            return False
        if code is not None and not _matches(code, (error.code or "").lower()):
            return False
        if says is not None and says not in body[:MOST_READ].decode("utf-8", "replace").lower():
            return False
        return all(_equal(at(document, path), value) for path, value in paths)

    return fits


def _matches(pattern: str, word: str) -> bool:
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern


def _equal(found: Any, wanted: Any) -> bool:
    return found is wanted if isinstance(wanted, bool) or wanted is None else found == wanted


# --- errors in bodies -----------------------------------------------------------------------------------------


def error_of(content_type: str, body: bytes, document: Any = None) -> SaidError:
    """The error in a body, whatever its shape."""
    if not body.strip():
        return SaidError("empty")
    if _is_html(content_type, body):
        title = _TITLE.search(body[:MOST_READ])
        return SaidError("html", text=_short(title[1].decode("utf-8", "replace")) if title else None)
    document = _decoded(body) if document is None else document
    if document is None:
        return SaidError("text", text=_short(body[:MOST_SAID].decode("utf-8", "replace")))
    if not isinstance(document, dict):
        return SaidError("json")
    return next(_shapes(document), SaidError("json"))


def _shapes(document: Mapping[str, Any]) -> Iterator[SaidError]:
    """The first shape that fits, the most telling first."""
    many = document.get("errors")
    first = many[0] if isinstance(many, list) and many else many
    if isinstance(first, dict):
        yield SaidError("errors", _code(first), _told(first))
    one = document.get("error")
    if isinstance(one, dict):
        yield SaidError("error", _code(one), _told(one))
    if isinstance(one, str):
        described = document.get("error_description")
        yield SaidError(
            "status_error", None if " " in one else one, _short(described if isinstance(described, str) else one)
        )
    if "title" in document or "detail" in document:
        yield SaidError("problem", None, _told(document))
    if isinstance(document.get("message"), str):
        yield SaidError("message", None, _short(document["message"]))


def _code(error: Mapping[str, Any]) -> str | None:
    code = error.get("code")
    return code if isinstance(code, str) and code else None


def _told(error: Mapping[str, Any]) -> str | None:
    """What it says, the most exact first."""
    for name in ("detail", "message", "title"):
        value = error.get(name)
        if isinstance(value, str) and value.strip():
            return _short(value)
        if isinstance(value, dict | list) and value:
            return _short(msgspec.json.encode(value).decode())
    return None


def _short(text: str) -> str | None:
    return " ".join(text.split())[:MOST_SAID] or None


def _is_html(content_type: str, body: bytes) -> bool:
    return "html" in content_type.lower() or body.lstrip()[:1] == b"<"


def _decoded(body: bytes) -> Any:
    """The JSON in a body, or None."""
    try:
        return msgspec.json.decode(body) if body else None
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def at(document: Any, path: Sequence[str]) -> Any:
    """The value at a path; a list on the way is entered by its first entry, or by a number as the name."""
    found = document
    for name in path:
        if isinstance(found, list) and found:
            found = found[int(name)] if name.isdecimal() and int(name) < len(found) else found[0]
            if name.isdecimal():
                continue
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _text_at(document: Any, path: Sequence[str]) -> str | None:
    """A receipt: a text, or a number as its text."""
    found = at(document, path)
    if isinstance(found, str):
        return found or None
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else None
