"""A contract (OpenAPI 3.1) as a simulator holds its callers to it, and as a test holds the simulator to it.

Read and compiled once; a check is then a few microseconds. What is wrong is told by place, keyword and a message without the
value. It shares no code with what Counterfoil uses for the same purpose. No socket and no answer is made here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import jsonschema_rs
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = ("get", "put", "post", "delete", "patch")
_DEEP = re.compile(r"(\w+)\[([^\]]+)\]")


class Validator(Protocol):
    """A compiled schema."""

    def is_valid(self, instance: Any) -> bool:
        """Whether it fits."""

    def iter_errors(self, instance: Any) -> Iterator[Any]:
        """What does not."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that breaks the contract: where it stands, the keyword it breaks, and a sentence without its value."""

    place: tuple[str, ...]
    keyword: str
    message: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of path or query."""

    name: str
    required: bool
    schema: Validator


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, its schemas compiled. `replies` has a validator for each status and media type."""

    name: str
    path: Mapping[str, Parameter]
    query: tuple[Parameter, ...]
    media: tuple[str, ...]
    body: Validator | None
    replies: Mapping[tuple[str, str], Validator]

    def wrong_path(self, values: Mapping[str, str]) -> list[Wrong]:
        """What is wrong with the parameters of the path."""
        return [wrong for name, value in values.items() for wrong in _wrong(self.path[name].schema, value, (name,))]

    def wrong_query(self, pairs: Iterable[tuple[str, str]]) -> list[Wrong]:
        """What is wrong with the query. Parameters that are not declared are let through."""
        given = deep_objects(pairs)
        found = []
        for one in self.query:
            if one.name in given:
                found += _wrong(one.schema, given[one.name], (one.name,))
            elif one.required:
                found.append(Wrong((one.name,), "required", f'"{one.name}" is a required parameter'))
        return found

    def wrong_body(self, body: Any) -> list[Wrong]:
        """What is wrong with a decoded body."""
        return _wrong(self.body, body, ()) if self.body else []

    def wrong_reply(self, status: int, media: str, body: Any) -> list[Wrong]:
        """What is wrong with a reply: a status or media type that is not declared, or its decoded body."""
        declared = str(status) if any(code == str(status) for code, _ in self.replies) else "default"
        schema = self.replies.get((declared, media))
        if schema is None:
            known = ", ".join(sorted(f"{code} {kind}" for code, kind in self.replies))
            return [Wrong((), "responses", f"{self.name} may not answer {status} {media}. Declared: {known}")]
        return _wrong(schema, body, ())


@dataclass(frozen=True, slots=True)
class Contract:
    """The operations of one file, by path and method."""

    base: str
    paths: tuple[tuple[re.Pattern[str], Mapping[str, Operation]], ...]

    def find(self, method: str, path: str) -> tuple[Operation | None, dict[str, str]] | None:
        """The operation and the decoded parameters of a path as on the wire. No operation: the path is known, the method is not."""
        for pattern, operations in self.paths:
            found = pattern.fullmatch(path)
            if found:
                values = {name: unquote(value) for name, value in found.groupdict().items()}
                return operations.get(method.lower()), values
        return None

    def operations(self) -> dict[str, Operation]:
        """All operations by their name."""
        return {one.name: one for _, operations in self.paths for one in operations.values()}


def load(path: str, default: str) -> Contract:
    """The contract of a file, or (path "") of the examples folder. ValueError says what is wrong with it."""
    file = Path(path) if path else EXAMPLES / default
    if not file.is_file():
        raise ValueError(f"There is no contract {file}. Name one with --contract.")
    try:
        document = YAML(typ="safe").load(file.read_text("utf-8"))
        return _contract(document)
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{file} is no OpenAPI contract that can be used: {type(error).__name__}: {error}") from error


def deep_objects(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Query pairs with `name[key]=value` gathered into name -> {key: value}; the last of two equal names counts."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        deep = _DEEP.fullmatch(name)
        if deep:
            inner = made.setdefault(deep[1], {})
            if isinstance(inner, dict):
                inner[deep[2]] = value
        else:
            made[name] = value
    return made


def _contract(document: Mapping[str, Any]) -> Contract:
    base = str(document["servers"][0]["url"]).rstrip("/")
    made = []
    for template, item in document["paths"].items():
        operations = {
            method: _operation(document, item.get("parameters", []), item[method])
            for method in METHODS
            if method in item
        }
        made.append((_pattern(base + template), operations))
    return Contract(base, tuple(made))


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if n % 2 else re.escape(part) for n, part in enumerate(parts)))


def _operation(document: Mapping[str, Any], shared: list[Any], declared: Mapping[str, Any]) -> Operation:
    told = [_followed(document, one) for one in (*shared, *declared.get("parameters", []))]
    body = _followed(document, declared.get("requestBody", {})).get("content", {})
    schemas = [content["schema"] for content in body.values()]
    return Operation(
        name=declared["operationId"],
        path={one["name"]: _parameter(document, one) for one in told if one["in"] == "path"},
        query=tuple(_parameter(document, one) for one in told if one["in"] == "query"),
        media=tuple(body),
        body=_compiled(document, schemas[0]) if schemas else None,
        replies=dict(_replies(document, declared["responses"])),
    )


def _replies(document: Mapping[str, Any], responses: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Validator]]:
    for status, response in responses.items():
        for media, content in _followed(document, response).get("content", {}).items():
            yield (str(status), media), _compiled(document, content["schema"])


def _parameter(document: Mapping[str, Any], one: Mapping[str, Any]) -> Parameter:
    return Parameter(one["name"], bool(one.get("required")), _compiled(document, one["schema"]))


def _followed(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node, or what its $ref into this file points to."""
    if "$ref" not in node:
        return node
    found: Any = document
    for part in str(node["$ref"]).removeprefix("#/").split("/"):
        found = found[part]
    return _followed(document, found)


def _compiled(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Validator:
    """The schema with the file's components beside it, so that references into them hold."""
    whole = {"allOf": [schema], "components": document.get("components", {})}
    return jsonschema_rs.Draft202012Validator(whole, mask="The value")


def _wrong(schema: Validator, value: Any, place: tuple[str, ...]) -> list[Wrong]:
    if schema.is_valid(value):
        return []
    return [_told(error, place) for error in schema.iter_errors(value)]


def _told(error: Any, place: tuple[str, ...]) -> Wrong:
    told = error.kind.as_dict()
    missing = (str(told["property"]),) if error.kind.name == "required" else ()
    return Wrong((*place, *map(str, error.instance_path), *missing), error.kind.name, error.message)
