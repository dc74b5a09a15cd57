"""Templates of requests, replies and keys: JSON values whose texts hold `{placeholders}`, compiled once and filled for each item. Pure.

A text that is one placeholder gives the value with its own type; inside a longer text it is written as text. `{x?}` may be absent: as a
whole entry it is left out. `{{` and `}}` are braces. No expressions: a function of the project says what a path can't.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from counterfoil.model.errors import Refused

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][\w.\-\[\]]*)(\?)?\}|[{}]")
_LEFT_OUT: Final = object()  # what an absent optional gives

Scope = Mapping[str, Any]
Filler = Callable[[Scope], Any]


class MissingValueError(Refused):
    """An item lacks what its request is made of. `path` says what."""

    fault = "missing_value"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"`{path}` is missing.", "Hand the item in anew with it; or write {" + path + "?} where it may be absent."
        )
        self.path = path


class TemplateError(ValueError):
    """The template itself is wrong; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Template:
    """`names`: the paths it reads, without those that may be absent told apart."""

    fill: Filler
    names: frozenset[str]


def compile_template(value: Any) -> Template:
    """A template of nested values. Raises TemplateError for a brace that is none of ours."""
    names: set[str] = set()
    filler = _compile(value, names)

    def fill(scope: Scope) -> Any:
        made = filler(scope)
        return None if made is _LEFT_OUT else made

    return Template(fill, frozenset(names))


def compile_path(text: str) -> Template:
    """A template of a URL path: every value percent-encoded, so that it never climbs nor adds a parameter."""
    names: set[str] = set()
    parts = _parts(text, names)

    def fill(scope: Scope) -> str:
        return "".join(part if isinstance(part, str) else _encoded(part.text(scope)) for part in parts)

    return Template(fill, frozenset(names))


def _encoded(text: str) -> str:
    encoded = quote(text, safe="")
    return encoded if text.strip(".") else encoded.replace(".", "%2E")


# --- compiling ------------------------------------------------------------------------------------------------


def _compile(value: Any, names: set[str]) -> Filler:
    if isinstance(value, str):
        return _compile_text(value, names)
    if isinstance(value, Mapping):
        return _compile_mapping(value, names)
    if isinstance(value, list | tuple):
        return _compile_list(value, names)
    return lambda scope: value


def _compile_mapping(value: Mapping[str, Any], names: set[str]) -> Filler:
    fillers = [(name, _compile(part, names)) for name, part in value.items()]

    def fill(scope: Scope) -> dict[str, Any]:
        return {name: made for name, filler in fillers if (made := filler(scope)) is not _LEFT_OUT}

    return fill


def _compile_list(value: list[Any] | tuple[Any, ...], names: set[str]) -> Filler:
    fillers = [_compile(part, names) for part in value]

    def fill(scope: Scope) -> list[Any]:
        return [made for filler in fillers if (made := filler(scope)) is not _LEFT_OUT]

    return fill


def _compile_text(text: str, names: set[str]) -> Filler:
    parts = _parts(text, names)
    if all(isinstance(part, str) for part in parts):
        whole = "".join(part for part in parts if isinstance(part, str))
        return lambda scope: whole
    if len(parts) == 1 and isinstance(parts[0], _Reference):
        return parts[0].value
    return lambda scope: "".join(part if isinstance(part, str) else part.text(scope) for part in parts)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A placeholder: where its value stands in the scope."""

    path: str
    names: tuple[str, ...]
    optional: bool

    def value(self, scope: Scope) -> Any:
        found: Any = scope
        for name in self.names:
            found = found.get(name) if isinstance(found, dict) else None
            if found is None:
                if self.optional:
                    return _LEFT_OUT
                raise MissingValueError(self.path)
        return found

    def text(self, scope: Scope) -> str:
        found = self.value(scope)
        if found is _LEFT_OUT:
            return ""
        if isinstance(found, str):
            return found
        if isinstance(found, Mapping | list | tuple):
            raise Refused(
                f"`{self.path}` is no single value.", "Only a single value can stand in a text.", fault="bad_payload"
            )
        return msgspec.json.encode(found).decode().strip('"')


def _parts(text: str, names: set[str]) -> list[str | _Reference]:
    parts: list[str | _Reference] = []
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[0] in ("{{", "}}"):
            parts.append(found[0][0])
        elif found[1] is None:
            raise TemplateError(f"A brace in `{text[:60]}` belongs to no placeholder.")
        else:
            names.add(found[1])
            parts.append(_Reference(found[1], tuple(found[1].split(".")), found[2] is not None))
    parts.append(text[at:])
    return [part for part in parts if part != ""] or [""]
