"""Schemas of a contract: OpenAPI's own dialect made into JSON Schema, compiled, and what does not fit said in words.

A finding holds words of the contract only (its names, patterns, limits), never a value of the document: those are personal data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import ValidationError, Validator

MOST_FINDINGS = 20
_BASE = "urn:contract"
_NAME = re.compile(
    r"(?!.*\d{4})[A-Za-z_$@][A-Za-z0-9_-]{0,59}"
)  # else it may be a number or an address that stands as a name
_REGEX = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000, size_limit=10_000_000, dfa_size_limit=10_000_000)
_ONE = frozenset(
    {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "contentSchema",
     "unevaluatedItems", "unevaluatedProperties", "additionalItems"}
)  # fmt: skip
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NOT_SCHEMAS = frozenset({"example", "examples", "default", "enum", "const"})


class FindingKind(StrEnum):
    PARAMETER = "parameter"
    BODY = "body"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a request or a reply breaks the contract. `str()` is a sentence: `body: report.data.file.name is missing.`"""

    where: str
    problem: str
    kind: FindingKind

    def __str__(self) -> str:
        return f"{self.where} {self.problem}."


@dataclass(frozen=True, slots=True)
class Checked:
    """A compiled schema, and how findings call the document it is held against (`body`, `query: limit`)."""

    validator: Validator
    where: str
    kind: FindingKind

    def __call__(self, value: Any) -> tuple[Finding, ...]:
        """What does not fit; () in most cases, and quickly. Whatever cannot be JSON is a finding, too."""
        try:
            if self.validator.is_valid(value):
                return ()
            errors = list(_first(self.validator.iter_errors(value)))
        except (ValueError, UnicodeEncodeError, RecursionError):
            return (Finding(self.where, "holds something that JSON cannot", self.kind),)
        return tuple(dict.fromkeys(found for error in errors for found in self._findings(error)))[:MOST_FINDINGS]

    def _findings(self, error: ValidationError) -> Iterable[Finding]:
        name = error.kind.name
        if name in ("anyOf", "oneOf") and (form := _nearest(error)):
            for inner in form:
                yield from self._findings(inner)
            return
        added, problem = _PROBLEMS.get(name, _other)(error.kind)
        for more in added or ((),):
            yield Finding(_place(self.where, (*error.instance_path, *more)), problem, self.kind)


class Schemas:
    """The compiled schemas of one document and one direction (`hidden`: what is not sent in it: readOnly or writeOnly)."""

    def __init__(self, document: Mapping[str, Any], *, old: bool, hidden: str) -> None:
        self._document, self._old, self._hidden = document, old, hidden
        whole = self._walk(document)
        self._registry = jsonschema_rs.Registry([(_BASE, whole)], draft=jsonschema_rs.Draft202012)

    def compile(self, schema: Any, where: str, kind: FindingKind, *, formats: bool) -> Checked:
        """Raises ValidationError for a schema that is none; its references must be there."""
        validator = jsonschema_rs.validator_for(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "allOf": [self.translated(schema)]},
            registry=self._registry,
            offline=True,
            validate_formats=formats,
            pattern_options=_REGEX,
        )
        return Checked(validator, where, kind)

    def translated(self, schema: Any) -> Any:
        """A schema of OpenAPI as JSON Schema 2020-12."""
        if not isinstance(schema, Mapping):
            return schema
        if isinstance(target := schema.get("$ref"), str):
            absolute = {"$ref": f"{_BASE}{target}"}
            return absolute if self._old else {**self._inner(schema), **absolute}
        return self._inner(schema)

    def types(self, schema: Any) -> frozenset[str]:
        """The types a schema names, through its references."""
        found = self._resolved(schema).get("type", ())
        return frozenset([found] if isinstance(found, str) else found)

    def items(self, schema: Any) -> Any:
        return self._resolved(schema).get("items", {})

    def properties(self, schema: Any) -> Mapping[str, Any]:
        return self._resolved(schema).get("properties", {})

    def _inner(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        made = {name: self._keyword(name, value) for name, value in schema.items()}
        properties = schema.get("properties")
        if isinstance(properties, Mapping) and isinstance(made.get("required"), list):
            made["required"] = [name for name in made["required"] if not self._is_hidden(properties, name)]
        return _modern(made) if self._old else made

    def _is_hidden(self, properties: Mapping[str, Any], name: Any) -> bool:
        return isinstance(name, str) and bool(self._resolved(properties.get(name)).get(self._hidden))

    def _keyword(self, name: str, value: Any) -> Any:
        if name in _ONE:
            return self.translated(value)
        if name in _NAMED and isinstance(value, Mapping):
            return {inner: self.translated(schema) for inner, schema in value.items()}
        if name in _LISTED and isinstance(value, list):
            return [self.translated(schema) for schema in value]
        return value

    def _walk(self, value: Any, name: str = "") -> Any:
        """The whole document with its schemas translated where they stand, so that references into it lead to them."""
        if isinstance(value, list):
            return [self._walk(inner) for inner in value]
        if not isinstance(value, Mapping) or name in _NOT_SCHEMAS:
            return value
        if name == "schemas":
            return {inner: self.translated(schema) for inner, schema in value.items()}
        return {n: self.translated(inner) if n == "schema" else self._walk(inner, n) for n, inner in value.items()}

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        for _ in range(20):
            if not isinstance(schema, Mapping):
                return {}
            if not isinstance(target := schema.get("$ref"), str):
                return schema
            schema = pointed(self._document, target)
        return {}


def pointed(document: Any, target: str) -> Any:
    """What `#/a/b` leads to in the document; None: nothing, or it leads out of it."""
    if target == "#":
        return document
    if not target.startswith("#/"):
        return None
    value = document
    for part in unquote(target[2:]).split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list):
            value = value[int(name)] if name.isdecimal() and int(name) < len(value) else None
        else:
            return None
    return value


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI 3.0 says in its own way: limits that are left out by a flag, and null."""
    for limit, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(flag), bool):
            excluded = schema.pop(flag)
            if excluded and limit in schema:
                schema[flag] = schema.pop(limit)
    if schema.pop("nullable", False) is not True:
        return schema
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    # Not by the letter of OpenAPI 3.0.3, where it would mean nothing; it is what those mean who write it.
    return {"anyOf": [{"type": "null"}, schema]}


# --- words --------------------------------------------------------------------------------------------------------

_More = tuple[tuple[str | int, ...], ...]


def _first(errors: Iterable[ValidationError]) -> Iterable[ValidationError]:
    for number, error in enumerate(errors):
        if number == MOST_FINDINGS:
            return
        yield error


def _nearest(error: ValidationError) -> list[ValidationError]:
    """Of several forms that are allowed, what is wrong with the one that was meant; [] where that cannot be told."""
    forms: list[list[ValidationError]] = getattr(error.kind, "context", [])
    meant = sorted((form for form in forms if form and not _is_another_type(form, error)), key=len)
    if not meant or not all(forms):
        return []
    alone = len(meant) == 1 or len(meant[0]) < len(meant[1])
    return meant[0] if alone else []


def _is_another_type(form: list[ValidationError], error: ValidationError) -> bool:
    return any(inner.kind.name == "type" and inner.instance_path == error.instance_path for inner in form)


def _place(where: str, path: tuple[str | int, ...]) -> str:
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += f".{part}" if _NAME.fullmatch(part) else ".(odd name)"
    joined = shown.removeprefix(".")
    separator = " " if ": " in where else ": "
    return f"{where}{separator}{joined}" if joined else where


def _required(kind: Any) -> tuple[_More, str]:
    return ((kind.property,),), "is missing"


def _additional(kind: Any) -> tuple[_More, str]:
    return tuple((name,) for name in kind.unexpected[:MOST_FINDINGS]), "is not in the contract"


def _type(kind: Any) -> tuple[_More, str]:
    return (), f"is not of type {' or '.join(kind.types)}"


def _enum(kind: Any) -> tuple[_More, str]:
    options = [option[:40] if isinstance(option, str) else json.dumps(option)[:40] for option in kind.options]
    more = f" and {len(options) - 10} more" if len(options) > 10 else ""
    return (), f"is none of {', '.join(options[:10])}{more}" if len(options) != 1 else f"is not {options[0]}"


def _said(template: str) -> Callable[[Any], tuple[_More, str]]:
    def say(kind: Any) -> tuple[_More, str]:
        limit = getattr(kind, "limit", None)
        return (), template.format(limit=limit, kind=kind)

    return say


def _pattern(kind: Any) -> tuple[_More, str]:
    return (), f"does not match {kind.pattern[:80]}"


def _other(kind: Any) -> tuple[_More, str]:
    return (), f"breaks the rule `{kind.name}` of the contract"


_PROBLEMS: Mapping[str, Callable[[Any], tuple[_More, str]]] = {
    "required": _required,
    "additionalProperties": _additional,
    "unevaluatedProperties": _additional,
    "falseSchema": _said("holds more than the contract allows"),
    "type": _type,
    "enum": _enum,
    "const": _said("is not what the contract fixes it to be"),
    "pattern": _pattern,
    "format": _said("is not of the form {kind.format}"),
    "minLength": _said("is shorter than {limit} characters"),
    "maxLength": _said("is longer than {limit} characters"),
    "minimum": _said("is less than {limit}"),
    "maximum": _said("is more than {limit}"),
    "exclusiveMinimum": _said("is not more than {limit}"),
    "exclusiveMaximum": _said("is not less than {limit}"),
    "minItems": _said("has less than {limit} entries"),
    "maxItems": _said("has more than {limit} entries"),
    "minProperties": _said("has less than {limit} names"),
    "maxProperties": _said("has more than {limit} names"),
    "uniqueItems": _said("has an entry twice"),
    "anyOf": _said("fits none of the forms that the contract allows"),
    "oneOf": _said("does not fit exactly one of the forms that the contract allows"),
    "not": _said("is of a form that the contract forbids"),
}
