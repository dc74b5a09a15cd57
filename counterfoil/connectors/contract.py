"""Contracts: an OpenAPI document (3.0, 3.1) compiled once, and what of a request or a reply does not keep it.

Nothing outside the document is read: no network, no other file. A finding names places and rules, never values: they may be personal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema_rs
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from counterfoil.model.errors import Misconfigured

MOST_BYTES = 2_000_000
DEEPEST = 60
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
SHOWN = 5  # findings in a sentence
_HERE = "urn:counterfoil:contract"
_JSON = re.compile(r"application/(?:[\w.+-]*\+)?json|\*/\*")
_HIDDEN = "the value"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that does not keep the contract. `kind`: parameter, body or reply."""

    kind: str
    where: str  # "report.data.file.name"; "" the whole
    problem: str

    def __str__(self) -> str:
        return f"{self.kind} {self.where}: {self.problem}" if self.where else f"{self.kind}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    place: str  # path, query, header
    required: bool
    validator: Any


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the contract. `bodies` and `replies` are compiled: content type (of a request), status (of a reply) to validator."""

    id: str
    method: str  # upper case
    path: str  # as declared, without the server's own part
    pattern: re.Pattern[str]
    parameters: tuple[Parameter, ...]
    body_required: bool
    bodies: Mapping[str, Any]  # None: any content
    replies: Mapping[str, Any]
    parts: Mapping[str, Any] = field(default_factory=dict)  # of a multipart body: name to validator of its JSON

    def values(self, path: str) -> dict[str, str]:
        """The values of the path's parameters, decoded."""
        found = self.pattern.fullmatch(path)
        return {} if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


@dataclass(frozen=True, slots=True)
class Contract:
    """`base`: the path of its first server, in front of every path."""

    name: str
    base: str
    operations: tuple[Operation, ...]

    def operation(self, method: str, path: str) -> Operation | None:
        """The operation of a request; `path` still encoded, with or without the base. What has fewer parameters comes first."""
        for candidate in (path.removeprefix(self.base), path) if self.base else (path,):
            for one in self.operations:
                if one.method == method.upper() and one.pattern.fullmatch(candidate):
                    return one
        return None

    def by_id(self, operation_id: str) -> Operation | None:
        return next((one for one in self.operations if one.id == operation_id), None)

    def knows(self, path: str) -> bool:
        """Whether any method is declared for this path."""
        short = path.removeprefix(self.base)
        return any(one.pattern.fullmatch(short) or one.pattern.fullmatch(path) for one in self.operations)


def check_request(
    operation: Operation,
    path: str,
    *,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    content_type: str,
    body: Any = None,
    has_body: bool = False,
) -> tuple[Finding, ...]:
    """`path` without the contract's base. `body`: the decoded JSON, or of a multipart request its JSON parts by name."""
    given = {"path": operation.values(path), "query": query, "header": {n.lower(): v for n, v in headers.items()}}
    found = [*_parameters(operation, given)]
    if not has_body:
        return (*found, Finding("body", "", "it is missing")) if operation.body_required else tuple(found)
    if not operation.bodies:
        return tuple(found)
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in operation.bodies:
        known = (
            next((name for name in operation.bodies if _JSON.fullmatch(name)), None) if _JSON.fullmatch(kind) else None
        )
        if known is None:
            return (*found, Finding("body", "", f"its type is none of {', '.join(operation.bodies)}"))
        kind = known
    if kind == "multipart/form-data":
        parts = body if isinstance(body, Mapping) else {}
        for name, validator in operation.parts.items():
            if name in parts:
                found += _check(validator, parts[name], "body", name)
        return tuple(found)
    return (*found, *_check(operation.bodies[kind], body, "body"))


def check_reply(operation: Operation, status: int, body: Any) -> tuple[Finding, ...]:
    """`body`: the decoded JSON, None where there is none."""
    for name in (str(status), f"{status // 100}XX", "default"):
        if name in operation.replies:
            validator = operation.replies[name]
            return () if validator is None else tuple(_check(validator, body, "reply"))
    return (Finding("reply", "", f"the status {status} is not declared"),)


def told(findings: Sequence[Finding]) -> str:
    """Findings as a sentence."""
    more = f"; and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
    return "; ".join(str(one) for one in findings[:SHOWN]) + more + "."


def _parameters(operation: Operation, given: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    for one in operation.parameters:
        name = one.name.lower() if one.place == "header" else one.name
        value = given.get(one.place, {}).get(name)
        if value is None:
            if one.required:
                yield Finding("parameter", one.name, "it is missing")
        elif one.validator is not None and not any(one.validator.is_valid(form) for form in _forms(value)):
            problem = next((_sentence(error) for error in one.validator.iter_errors(value)), "it is not acceptable")
            yield Finding("parameter", one.name, problem)


def _forms(text: str) -> Iterator[Any]:
    """A parameter is text on the wire; a schema may mean a number or a truth."""
    yield text
    if re.fullmatch(r"-?\d{1,18}", text):
        yield int(text)
    if text in ("true", "false"):
        yield text == "true"


def _check(validator: Any, body: Any, kind: str, under: str = "") -> list[Finding]:
    if validator is None or validator.is_valid(body):
        return []
    found: dict[Finding, None] = {}
    for error in validator.iter_errors(body):
        where = ".".join([*([under] if under else []), *map(str, error.instance_path)])
        found[Finding(kind, where, _sentence(error))] = None
    return list(found)


def _sentence(error: Any) -> str:
    text = str(error.message)
    return text if len(text) < 200 else text[:200] + "…"


# --- loading --------------------------------------------------------------------------------------------------


def load_contract(path: Path) -> Contract:
    """The contract in a file. Raises Misconfigured with everything that is wrong with it."""
    document = read_document(path)
    faults = [problem for _, problem in faults_of(document)]
    if faults:
        raise Misconfigured(f"The contract {path.name} can't be used: {' '.join(faults[:SHOWN])}", "Mend the file.")
    return compile_contract(document, path.name)


def read_document(path: Path) -> dict[str, Any]:
    """The YAML or JSON of a contract. Raises Misconfigured for what is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"The contract {path.name} can't be read: {error.strerror}.", "Check `contract`."
        ) from error
    if len(raw) > MOST_BYTES:
        raise Misconfigured(f"The contract {path.name} has more than {MOST_BYTES:,} bytes.", "Split it.")
    try:
        document = YAML(typ="safe", pure=True).load(raw.decode("utf-8-sig"))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" near line {line + 1}" if line is not None else ""
        raise Misconfigured(f"The contract {path.name} is not valid YAML{where}.", "Correct it there.") from error
    if not isinstance(document, dict) or _depth(document) > DEEPEST:
        raise Misconfigured(f"The contract {path.name} is no OpenAPI document.", "It begins with `openapi: 3.1.0`.")
    return document


def faults_in(path: Path) -> list[tuple[str, str]]:
    """Everything wrong with a contract's file, each a problem and its remedy."""
    try:
        return [
            (f"contracts/{path.name}: {problem}", "Mend the contract.") for _, problem in faults_of(read_document(path))
        ]
    except Misconfigured as error:
        return [(error.problem, error.remedy)]


def _depth(value: Any, level: int = 0) -> int:
    if level > DEEPEST or not isinstance(value, dict | list):
        return level
    parts = value.values() if isinstance(value, dict) else value
    return max((_depth(part, level + 1) for part in parts), default=level)


def faults_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a contract: where, and a sentence."""
    version = str(document.get("openapi", ""))
    if not version.startswith(("3.0", "3.1")):
        yield "openapi", "`openapi` says neither 3.0 nor 3.1."
        return
    if not isinstance(document.get("paths"), dict) or not document["paths"]:
        yield "paths", "There are no `paths`."
        return
    try:
        compile_contract(document, "contract")
    except Misconfigured as error:
        yield "paths", error.problem


def compile_contract(document: Mapping[str, Any], name: str) -> Contract:
    """Raises Misconfigured, naming the operation, for a schema, reference or pattern that is wrong."""
    old = str(document["openapi"]).startswith("3.0")
    root = _modern(document) if old else document
    compiler = _Compiler(root)
    operations = [
        compiler.operation(path, method, item, item[method])
        for path, item in root["paths"].items()
        if isinstance(item, dict)
        for method in METHODS
        if isinstance(item.get(method), dict)
    ]
    operations.sort(key=lambda one: (one.path.count("{"), -len(one.path)))
    servers = root.get("servers") or [{}]
    base = urlsplit(str(servers[0].get("url", ""))).path.rstrip("/")
    return Contract(name, base, tuple(operations))


class _Compiler:
    """Validators of one document. References are looked up in it and nowhere else."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.registry = jsonschema_rs.Registry([(_HERE, dict(root))], draft=jsonschema_rs.Draft202012)

    def operation(self, path: str, method: str, item: Mapping[str, Any], spec: Mapping[str, Any]) -> Operation:
        at = f"{method.upper()} {path}"
        body = self._resolved(spec.get("requestBody") or {})
        contents = body.get("content") or {}
        multipart = contents.get("multipart/form-data", {})
        return Operation(
            id=str(spec.get("operationId", at)),
            method=method.upper(),
            path=path,
            pattern=_pattern(path),
            parameters=tuple(
                self._parameter(self._resolved(one), at)
                for one in [*item.get("parameters", []), *spec.get("parameters", [])]
            ),
            body_required=bool(body.get("required", False)),
            bodies={
                kind.lower(): None
                if kind.lower() == "multipart/form-data"
                else self._validator(content.get("schema"), at)
                for kind, content in contents.items()
            },
            replies={str(status): self._reply(one, at) for status, one in (spec.get("responses") or {}).items()},
            parts=self._parts(multipart, at),
        )

    def _parameter(self, spec: Mapping[str, Any], at: str) -> Parameter:
        schema = spec.get("schema")
        return Parameter(
            str(spec.get("name", "")),
            str(spec.get("in", "")),
            bool(spec.get("required", False)),
            self._validator(schema, at) if schema else None,
        )

    def _reply(self, spec: Mapping[str, Any], at: str) -> Any:
        contents = self._resolved(spec).get("content") or {}
        json = next((content for kind, content in contents.items() if _JSON.fullmatch(kind.lower())), None)
        return None if json is None else self._validator(json.get("schema"), at)

    def _parts(self, content: Mapping[str, Any], at: str) -> dict[str, Any]:
        schema = self._resolved(content.get("schema") or {})
        parts = {name: self._resolved(part) for name, part in (schema.get("properties") or {}).items()}
        return {name: self._validator(part, at) for name, part in parts.items() if part.get("format") != "binary"}

    def _resolved(self, spec: Mapping[str, Any], times: int = 20) -> Mapping[str, Any]:
        while "$ref" in spec and times:
            found: Any = self.root
            for name in str(spec["$ref"]).removeprefix("#/").split("/"):
                found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
            if not isinstance(found, dict) or not str(spec["$ref"]).startswith("#/"):
                raise Misconfigured(f"The reference {spec['$ref']} leads nowhere in this document.", "Mend it.")
            spec, times = found, times - 1
        return spec

    def _validator(self, schema: Any, at: str) -> Any:
        if schema is None or schema == {}:
            return None
        try:
            return jsonschema_rs.Draft202012Validator(
                _absolute(schema), registry=self.registry, mask=_HIDDEN, offline=True, validate_formats=True
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise Misconfigured(
                f"{at}: a schema can't be used ({str(error).splitlines()[0][:200]}).", "Mend it."
            ) from error


def _absolute(value: Any) -> Any:
    """References of a schema taken out of its document still lead into it."""
    if isinstance(value, dict):
        return {
            name: f"{_HERE}{part}"
            if name == "$ref" and isinstance(part, str) and part.startswith("#")
            else _absolute(part)
            for name, part in value.items()
        }
    return [_absolute(part) for part in value] if isinstance(value, list) else value


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{([^}]+)\}", path)
    made = "".join(
        re.escape(part) if at % 2 == 0 else f"(?P<{re.sub(r'[^A-Za-z0-9_]', '_', part)}>[^/]+)"
        for at, part in enumerate(parts)
    )
    try:
        return re.compile(made)
    except re.error as error:
        raise Misconfigured(f"The path {path} names a parameter twice, or by no name.", "Mend it.") from error


def _modern(value: Any) -> Any:
    """OpenAPI 3.0 as 3.1 says it: what may be null, and bounds that are excluded."""
    if isinstance(value, list):
        return [_modern(part) for part in value]
    if not isinstance(value, dict):
        return value
    made = {name: _modern(part) for name, part in value.items()}
    if made.pop("nullable", False) is True:
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list):
            made["enum"] = [*made["enum"], None]
    for bound, excluded in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(excluded), bool) and made.pop(excluded) and bound in made:
            made[excluded] = made.pop(bound)
    return made
