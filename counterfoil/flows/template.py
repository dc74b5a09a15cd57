"""Templates of requests, replies and keys: JSON values whose texts hold `{placeholders}`, compiled once and filled for each item. Pure.

A text that is one placeholder gives the value with its own type; inside a longer text it is written as text. `{x?}` may be absent: as a
whole entry it is left out; `{x?null}` is null then. `{{` and `}}` are braces, `${NAME}` is left for the environment. No expressions: a
function of the project says what a path can't.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NoReturn
from urllib.parse import quote

import msgspec

from counterfoil.flows.kinds import REFERENCE
from counterfoil.model.errors import Refused

_PATH = r"[A-Za-z_]\w*(?:\.[^\s.{}\[\]?](?:[^.{}\[\]?]*[^\s.{}\[\]?])?)*"
_TOKEN = re.compile(rf"\{{\{{|\}}\}}|{REFERENCE.pattern}|\{{({_PATH})(\?|\?null)?\}}|[{{}}]")
_LEFT_OUT: Final = object()  # what an absent optional gives
_AS_IT_STANDS = "/%:@!$&'()*+,;=~?"  # in the declared text of a path
_SHOWN = 60

Scope = Mapping[str, Any]
Filler = Callable[[Scope], Any]


class MissingValueError(Refused):
    """An item lacks what its request is made of. `path` says what."""

    fault = "missing_value"

    def __init__(self, path: str, what: str = "missing") -> None:
        super().__init__(
            f"`{path}` is {what}.", "Hand the item in anew with it; or write {" + path + "?} where it may be absent."
        )
        self.path = path


class TemplateError(ValueError):
    """The template itself is wrong; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Template:
    """`fill(scope)` raises MissingValueError, and Refused for a value that can't stand where it should. `names`: all paths it reads;
    `required`: those that must be there."""

    fill: Filler
    names: frozenset[str]
    required: frozenset[str]


def compile_template(value: Any) -> Template:
    """A template of nested values. An absent optional that is the whole of it gives None. Raises TemplateError."""
    compiler = _Compiler()
    filler, optional = compiler.value(value)

    def fill(scope: Scope) -> Any:
        made = filler(scope)
        return None if made is _LEFT_OUT else made

    return compiler.template(fill if optional else filler)


def compile_path(text: str) -> Template:
    """A template of a URL's path or query: every value percent-encoded fully, so that it neither climbs nor adds a parameter.

    Filling raises MissingValueError where a value that must be there is empty, and Refused where a whole segment would be dots:
    encoded or not, the other side may take them for the way up. Raises TemplateError.
    """
    compiler = _Compiler()
    parts = [
        quote(part, safe=_AS_IT_STANDS) if isinstance(part, str) else _encoded(part) for part in compiler.parts(text)
    ]

    def fill(scope: Scope) -> str:
        made = "".join([part if isinstance(part, str) else part(scope) for part in parts])
        if "%2E" in made or "/." in made:
            _stay(made)
        return made

    return compiler.template(fill)


# --- values -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reference:
    """A placeholder: where its value stands in the scope."""

    path: str
    optional: bool
    null: bool = False

    @property
    def left_out(self) -> bool:
        """Whether an entry of it may be left out."""
        return self.optional and not self.null

    @property
    def value(self) -> Filler:
        """A function of the scope; the usual depths are written out, since this runs for every value of every item."""
        return _BY_DEPTH.get(self.path.count("."), _deep)(self)

    @property
    def text(self) -> Callable[[Scope], str]:
        value, path = self.value, self.path

        def text(scope: Scope) -> str:
            found = value(scope)
            return found if type(found) is str else _written(path, found)

        return text

    def absent(self) -> Any:
        if self.optional:
            return None if self.null else _LEFT_OUT
        raise MissingValueError(self.path)


def _flat(reference: _Reference) -> Filler:
    name = reference.path

    def value(scope: Scope) -> Any:
        found = scope.get(name)
        return reference.absent() if found is None else found

    return value


def _inner(reference: _Reference) -> Filler:
    outer, _, name = reference.path.partition(".")

    def value(scope: Scope) -> Any:
        section = scope.get(outer)
        found = section.get(name) if isinstance(section, dict) else _entry(section, name)
        return reference.absent() if found is None else found

    return value


def _deep(reference: _Reference) -> Filler:
    first, *names = reference.path.split(".")

    def value(scope: Scope) -> Any:
        found = scope.get(first)
        for name in names:
            found = found.get(name) if isinstance(found, dict) else _entry(found, name)
        return reference.absent() if found is None else found

    return value


_BY_DEPTH: Mapping[int, Callable[[_Reference], Filler]] = {0: _flat, 1: _inner}


def _entry(section: Any, name: str) -> Any:
    return section.get(name) if isinstance(section, Mapping) else None


def _written(path: str, found: Any) -> str:
    """A value inside a text, as JSON writes it. Raises Refused for what is no single value."""
    if found is _LEFT_OUT or found is None:
        return ""
    if isinstance(found, str):
        return str(found)
    if isinstance(found, Mapping | list | tuple):
        _refuse(path, "is no single value")
    if isinstance(found, float) and not isfinite(found):
        _refuse(path, "is no number that JSON can hold")
    return msgspec.json.encode(found).decode().strip('"')


def _refuse(path: str, what: str) -> NoReturn:
    remedy = "Only a text, a number, true or false can stand in a text; hand the item in anew."
    raise Refused(f"`{path}` {what}.", remedy, fault="bad_payload")


def _encoded(reference: _Reference) -> Callable[[Scope], str]:
    text, path = reference.text, reference.path

    def encoded(scope: Scope) -> str:
        plain = text(scope)
        if not plain and not reference.optional:
            raise MissingValueError(path, "empty")
        try:
            made = quote(plain, safe="")
        except UnicodeEncodeError:
            _refuse(path, "is no text that can be sent")
        return made if plain.strip(".") else made.replace(".", "%2E")

    return encoded


def _stay(made: str) -> None:
    if any(segment.replace("%2E", ".") in (".", "..") for segment in made.split("/")):
        remedy = "Correct the payload and hand the item in anew."
        raise Refused("A value of one or two dots would climb out of the path.", remedy, fault="bad_payload")


# --- compiling ----------------------------------------------------------------------------------------------------


class _Compiler:
    """Values to fillers, each with whether it may be left out; the paths they read are gathered on the way."""

    def __init__(self) -> None:
        self.references: list[_Reference] = []

    def template(self, fill: Filler) -> Template:
        return Template(
            fill,
            frozenset(one.path for one in self.references),
            frozenset(one.path for one in self.references if not one.optional),
        )

    def value(self, value: Any) -> tuple[Filler, bool]:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return self.mapping(value), False
        if isinstance(value, list | tuple):
            return self.sequence(value), False
        return (lambda scope: value), False

    def mapping(self, value: Mapping[str, Any]) -> Filler:
        for name in value:
            if any(token[1] for token in _TOKEN.finditer(name)):
                raise TemplateError(f"The name `{name[:_SHOWN]}` holds a placeholder; only values are filled in.")
        fillers = [(name, *self.value(part)) for name, part in value.items()]
        entries = [(name, filler) for name, filler, _ in fillers]
        if not any(optional for *_, optional in fillers):
            return lambda scope: {name: filler(scope) for name, filler in entries}
        return lambda scope: {name: made for name, filler in entries if (made := filler(scope)) is not _LEFT_OUT}

    def sequence(self, value: list[Any] | tuple[Any, ...]) -> Filler:
        fillers = [self.value(part)[0] for part in value]
        return lambda scope: [made for filler in fillers if (made := filler(scope)) is not _LEFT_OUT]

    def text(self, text: str) -> tuple[Filler, bool]:
        parts = self.parts(text)
        if len(parts) == 1 and isinstance(parts[0], _Reference):
            return parts[0].value, parts[0].left_out
        if all(isinstance(part, str) for part in parts):
            whole = "".join(part for part in parts if isinstance(part, str))
            return (lambda scope: whole), False
        pieces = [part if isinstance(part, str) else part.text for part in parts]
        return (lambda scope: "".join([one if isinstance(one, str) else one(scope) for one in pieces])), False

    def parts(self, text: str) -> list[str | _Reference]:
        """The text cut at its placeholders; doubled braces are single ones already."""
        parts: list[str | _Reference] = []
        at = 0
        for token in _TOKEN.finditer(text):
            parts.append(text[at : token.start()])
            parts.append(self._part(token, text))
            at = token.end()
        parts.append(text[at:])
        return [part for part in parts if part != ""]

    def _part(self, token: re.Match[str], text: str) -> str | _Reference:
        if token[1]:
            self.references.append(_Reference(token[1], token[2] is not None, token[2] == "?null"))
            return self.references[-1]
        if len(token[0]) == 1:
            raise TemplateError(f"A brace in `{text[:_SHOWN]}{'…' * (len(text) > _SHOWN)}` belongs to no placeholder.")
        return token[0] if token[0].startswith("$") else token[0][0]
