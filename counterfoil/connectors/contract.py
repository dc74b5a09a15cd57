"""A contract: what the other side (or the callers of ours) agreed to, compiled once from its OpenAPI document and held against each call.

Requests and replies come as they go over the wire, or as values; nothing is changed in them. Reading the file is `contract_read.py`,
schemas and their words are `contract_schema.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from jsonschema_rs import ValidationError

from counterfoil.connectors import contract_read as reading
from counterfoil.connectors.contract_read import Document, listing, mapping, read_document
from counterfoil.connectors.contract_schema import Checked, Finding, FindingKind, Schemas
from counterfoil.connectors.multipart import Part, parts_of
from counterfoil.flows.yamlfile import Report
from counterfoil.model.errors import Fault, InvalidFilesError

__all__ = ["FILE", "Contract", "Finding", "FindingKind", "Operation", "faults", "load_contract", "told"]

FILE: Final = object()  # stands for a file in the parts of a multipart body that is still to be sent

_JSON = re.compile(r"application/([a-z0-9.+-]+\+)?json")
_WHOLE = re.compile(r"-?[0-9]{1,40}")
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_NOT_PARAMETERS = frozenset({"accept", "content-type", "authorization"})  # as OpenAPI says
_FORM = "application/x-www-form-urlencoded"
_SHOWN = 5  # findings in one sentence

_ANY: frozenset[str] = frozenset()

Given = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`read` makes the value its schema is about from the text of the request."""

    place: str  # path, query or header
    name: str  # of a header in small letters
    where: str
    required: bool
    read: Callable[[Given], Any]
    check: Checked | None


@dataclass(frozen=True, slots=True)
class Content:
    """The schema of one content type; of a form also the types of its fields, whose values come as text."""

    check: Checked
    fields: Mapping[str, frozenset[str]]


Media = Mapping[str, Content | None]  # by content type; None: any content


@dataclass(frozen=True, slots=True)
class Body:
    required: bool
    media: Media


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation. `id`: its operationId, or method and path where it has none; `path` as in the contract."""

    id: str
    method: str
    path: str
    patterns: tuple[re.Pattern[str], ...] = field(repr=False)
    parameters: tuple[Parameter, ...] = field(repr=False)
    body: Body | None = field(repr=False)
    replies: Mapping[str, Media] = field(repr=False)

    def path_values(self, path: str) -> dict[str, str]:
        """The values of a request's path (as sent, still percent-encoded) by the names in the contract."""
        match = next((found for pattern in self.patterns if (found := pattern.fullmatch(path))), None)
        return dict(zip(reading.names_in(self.path), map(unquote, match.groups()), strict=True)) if match else {}


class Contract:
    """All operations of one document."""

    def __init__(self, title: str, operations: Sequence[Operation]) -> None:
        self.title = title
        self.operations = tuple(sorted(operations, key=_openness))
        self._by_id = {operation.id: operation for operation in operations}

    def operation(self, method: str, path: str) -> Operation | None:
        """Whose path fits, the most specific first. With or without the path of the contract's servers before it."""
        wanted = method.upper()
        for operation in self.operations:
            if operation.method == wanted and any(pattern.fullmatch(path) for pattern in operation.patterns):
                return operation
        return None

    def by_id(self, operation_id: str) -> Operation | None:
        return self._by_id.get(operation_id)

    def knows(self, path: str) -> bool:
        """Whether any method is declared for this path."""
        return any(pattern.fullmatch(path) for operation in self.operations for pattern in operation.patterns)

    def check_request(
        self,
        operation: Operation,
        path_values: Mapping[str, str],
        query: Mapping[str, Given],
        headers: Mapping[str, str],
        body: Any = None,
    ) -> tuple[Finding, ...]:
        """What of a request breaks the contract; () where nothing does.

        `body`: bytes as sent, read by the Content-Type in `headers` (JSON where there is none); or a JSON value; or, of a multipart
        body, part names to values with FILE for a file. None: no body.
        """
        small = {name.lower(): value for name, value in headers.items()} if headers else {}
        given: Mapping[str, Mapping[str, Given]] = {"path": path_values, "query": query, "header": small}
        found = [finding for one in operation.parameters for finding in _check_parameter(one, given)]
        return (*found, *_check_body(operation, small.get("content-type", "application/json"), body))

    def check_reply(
        self, operation: Operation, status: int, body: Any = None, content_type: str = ""
    ) -> tuple[Finding, ...]:
        """What of a reply breaks the contract. `body`: bytes as received, or a JSON value."""
        media = next(
            (
                operation.replies[key]
                for key in (str(status), f"{status // 100}XX", "default")
                if key in operation.replies
            ),
            None,
        )
        if media is None:
            declared = ", ".join(operation.replies)
            return (Finding("reply", f"has status {status}; the contract has {declared}", FindingKind.REPLY),)
        if not media:
            return ()
        kind = _essence(content_type) or next((name for name in media if _JSON.fullmatch(name)), next(iter(media)))
        return _check_content(media, kind, content_type or kind, body, "reply", FindingKind.REPLY)


def load_contract(path: Path) -> Contract:
    """The contract in a YAML or JSON file. Raises InvalidFilesError with every fault of it."""
    report = Report(_named(path))
    contract = _load(path, report)
    if contract is None:
        raise InvalidFilesError(tuple(report.faults))
    return contract


def faults(path: Path) -> tuple[Fault, ...]:
    """What is wrong with the file itself, each with its line; () where `load_contract` takes it."""
    report = Report(_named(path))
    _load(path, report)
    return tuple(report.faults)


def told(findings: Sequence[Finding]) -> str:
    """Findings as a few sentences."""
    more = f" And {len(findings) - _SHOWN} more." if len(findings) > _SHOWN else ""
    return " ".join(str(one) for one in findings[:_SHOWN]) + more


# --- from the document --------------------------------------------------------------------------------------------


def _named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _load(path: Path, report: Report) -> Contract | None:
    document = read_document(path, report)
    if document is None:
        return None
    build = _Builder(document)
    made = []
    for place, method, name, item, operation in reading.operations(document):
        try:
            made.append(build(method, name, item, operation))
        except ValidationError:
            report.fault(
                document.line(place),
                f"{method} {name} has a schema that cannot be used.",
                "Look at what its `$ref` leads to.",
            )
    title = str(mapping(document.value.get("info")).get("title", ""))
    return None if report.faults else Contract(title, made)


class _Builder:
    """Operations from one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._sent = Schemas(document.value, old=document.old, hidden="readOnly")
        self._received = Schemas(document.value, old=document.old, hidden="writeOnly")

    def __call__(self, method: str, path: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Operation:
        given = operation.get("servers") or item.get("servers") or self._document.value.get("servers")
        prefixes = sorted({"", *map(_prefix, listing(given))}, key=len, reverse=True)
        declared = reading.parameters(self._document, item, operation)
        return Operation(
            str(operation.get("operationId") or f"{method} {path}"),
            method,
            path,
            tuple(_pattern(f"{prefix}{path}") for prefix in prefixes),
            tuple(self._parameter(*key, one) for key, one in declared.items() if _is_checked(*key)),
            self._body(operation),
            self._replies(operation),
        )

    def _parameter(self, place: str, name: str, given: Mapping[str, Any]) -> Parameter:
        required = place == "path" or bool(given.get("required"))
        content = given.get("content")
        schema = given.get("schema")
        if isinstance(content, Mapping):
            schema = next((mapping(one).get("schema") for one in content.values()), None)
        exploded = bool(given.get("explode", given.get("style", "form") == "form")) and place == "query"
        read = _decode if isinstance(content, Mapping) else self._reader(schema, exploded)
        plain = read is not None and schema is not None
        where = f"{place}: {name}"
        check = self._sent.compile(schema, where, FindingKind.PARAMETER, formats=True) if plain else None
        return Parameter(place, name.lower() if place == "header" else name, where, required, read or _text, check)

    def _reader(self, schema: Any, exploded: bool) -> Callable[[Given], Any] | None:
        """None: an object spread over the query, which is not checked."""
        types = self._sent.types(schema)
        if "object" in types:
            return None
        if "array" not in types:
            return lambda given: _scalar(given if isinstance(given, str) else given[0] if given else "", types)
        inner = self._sent.types(self._sent.items(schema))

        def read(given: Given) -> list[Any]:
            listed = [given] if isinstance(given, str) else list(given)
            split = listed if exploded or len(listed) != 1 else listed[0].split(",")
            return [_scalar(text, inner) for text in split]

        return read

    def _body(self, operation: Mapping[str, Any]) -> Body | None:
        if "requestBody" not in operation:
            return None
        given = mapping(self._document.follow(operation["requestBody"]))
        return Body(
            bool(given.get("required")), self._media(given.get("content"), self._sent, "body", FindingKind.BODY)
        )

    def _replies(self, operation: Mapping[str, Any]) -> dict[str, Media]:
        made = {}
        for status, given in operation["responses"].items():
            name = status if status == "default" else status.upper()
            content = mapping(self._document.follow(given)).get("content")
            made[name] = self._media(content, self._received, "reply", FindingKind.REPLY)
        return made

    def _media(self, content: Any, schemas: Schemas, where: str, kind: FindingKind) -> Media:
        made: dict[str, Content | None] = {}
        for name, given in mapping(content).items():
            schema = mapping(given).get("schema")
            if schema is None:
                made[_essence(name)] = None
                continue
            # Of replies the form of dates and the like is not judged: we are strict in what we send only.
            check = schemas.compile(schema, where, kind, formats=kind is FindingKind.BODY)
            fields = {field: schemas.types(inner) for field, inner in schemas.properties(schema).items()}
            made[_essence(name)] = Content(check, fields)
        return made


def _prefix(server: Any) -> str:
    """The path of a server's address, its variables at their defaults."""
    url = str(mapping(server).get("url", ""))
    for name, about in mapping(mapping(server).get("variables")).items():
        url = url.replace(f"{{{name}}}", str(mapping(about).get("default", "")))
    try:
        return urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{[^{}/]*\}", path)
    return re.compile("([^/]+)".join(map(re.escape, pieces)))


def _openness(operation: Operation) -> tuple[int, ...]:
    """Fixed segments sort before those with a name in them, which sort before those that are nothing else."""
    return tuple(
        0 if "{" not in part else 2 if re.fullmatch(r"\{[^{}]*\}", part) else 1 for part in operation.path.split("/")
    )


def _is_checked(place: str, name: str) -> bool:
    return place in ("path", "query") or (place == "header" and name.lower() not in _NOT_PARAMETERS)


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


# --- one call -----------------------------------------------------------------------------------------------------


def _check_parameter(parameter: Parameter, given: Mapping[str, Mapping[str, Given]]) -> tuple[Finding, ...]:
    value = given[parameter.place].get(parameter.name)
    if value is None:
        return (Finding(parameter.where, "is missing", FindingKind.PARAMETER),) if parameter.required else ()
    if parameter.check is None:
        return ()
    try:
        return parameter.check(parameter.read(value))
    except msgspec.DecodeError:
        return (Finding(parameter.where, "is no JSON", FindingKind.PARAMETER),)


def _check_body(operation: Operation, content_type: str, body: Any) -> tuple[Finding, ...]:
    expected = operation.body
    if expected is None:
        return (
            ()
            if body is None or body == b""
            else (Finding("body", "is sent; the contract has none here", FindingKind.BODY),)
        )
    if body is None or body == b"":
        return (Finding("body", "is missing", FindingKind.BODY),) if expected.required else ()
    return _check_content(expected.media, _essence(content_type), content_type, body, "body", FindingKind.BODY)


def _check_content(
    media: Media, essence: str, content_type: str, body: Any, where: str, kind: FindingKind
) -> tuple[Finding, ...]:
    key = next((name for name in (essence, f"{essence.partition('/')[0]}/*", "*/*") if name in media), None)
    if key is None:
        shown = essence if re.fullmatch(r"[a-z0-9.+/*-]{1,80}", essence) else "another type"
        return (Finding(where, f"is {shown}; the contract has {', '.join(media)}", kind),)
    content = media[key]
    if content is None:
        return ()
    try:
        value = _value(body, essence, content_type, content.fields)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return (Finding(where, f"cannot be read as {essence}", kind),)
    return () if value is FILE else content.check(value)


def _value(body: Any, essence: str, content_type: str, fields: Mapping[str, frozenset[str]]) -> Any:
    """What a schema is about: the JSON, or the fields of a form. FILE: bytes of another type, about which a schema says nothing."""
    if isinstance(body, Mapping) and essence.startswith("multipart/"):
        return {name: "" if value is FILE else value for name, value in body.items()}
    if not isinstance(body, bytes | bytearray | memoryview):
        return body
    if _JSON.fullmatch(essence):
        return msgspec.json.decode(body)
    if essence.startswith("multipart/"):
        return _form(((part.name, _part_value(part, fields)) for part in parts_of(bytes(body), content_type)), fields)
    if essence == _FORM:
        pairs = parse_qsl(bytes(body).decode(), keep_blank_values=True, max_num_fields=1000)
        return _form(((name, _scalar(text, fields.get(name, _ANY))) for name, text in pairs), fields)
    return FILE


def _form(pairs: Iterable[tuple[str, Any]], fields: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """Fields by name; one that is a list in the contract gathers all that have its name."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if "array" in fields.get(name, _ANY) and not isinstance(value, list):
            made.setdefault(name, []).append(value)
        else:
            made[name] = value
    return made


def _part_value(part: Part, fields: Mapping[str, frozenset[str]]) -> Any:
    """A JSON part is read even where it is called a file, as some receivers want it; of other files nothing is looked at."""
    types = fields.get(part.name, _ANY)
    if _JSON.fullmatch(part.content_type) or (part.file_name is None and "object" in types):
        return msgspec.json.decode(part.content)
    return "" if part.file_name is not None else _scalar(part.content.decode(), types)


def _scalar(text: str, types: frozenset[str]) -> Any:
    if "integer" in types and _WHOLE.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    return text


def _text(given: Given) -> Any:
    return given


def _decode(given: Given) -> Any:
    return msgspec.json.decode(given if isinstance(given, str) else given[0])
