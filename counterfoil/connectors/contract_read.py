"""The file of a contract, read and judged: an OpenAPI 3.0 or 3.1 document in YAML or JSON, complete in itself.

Every fault of the file is found here, each with its line where the file is YAML. References to other files or addresses are refused:
a contract must not change behind its reader's back, and nothing here uses the network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs

from counterfoil.connectors.contract_schema import Schemas, pointed
from counterfoil.flows.shape import plain
from counterfoil.flows.yamlfile import Node, Report, did_you_mean, read_yaml

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MOST_BYTES = 4_000_000  # of JSON; of YAML, which is read a hundred times as slowly, what `read_yaml` takes
DEEPEST = 100
MOST_REFERENCES = 20  # from one to the next
_VERSION = re.compile(r"3\.([01])(\.\d+)?")
_TEMPLATE = re.compile(r"\{([^{}/]*)\}")
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The plain values of the file; `old`: OpenAPI 3.0. `node` knows the lines; None: JSON, where all faults stand on line 1."""

    value: Mapping[str, Any]
    old: bool
    node: Node | None

    def line(self, place: Place) -> int:
        """The line of the entry at `place`, or of the nearest one above it."""
        node = self.node
        for part in place:
            inner = _entry(node, part)
            if inner is None:
                break
            node = inner
        return node.place if node else 1

    def follow(self, value: Any) -> Any:
        """What a `$ref` leads to, and the value itself where it is none."""
        for _ in range(MOST_REFERENCES):
            if not isinstance(value, Mapping) or not isinstance(target := value.get("$ref"), str):
                return value
            value = pointed(self.value, target)
        return None


def _entry(node: Node | None, part: str | int) -> Node | None:
    inner = node.value if node else None
    if isinstance(inner, dict):
        return inner.get(part)
    return inner[part] if isinstance(inner, list) and isinstance(part, int) and part < len(inner) else None


def read_document(path: Path, report: Report) -> Document | None:
    """The document, or None with its faults in `report`. A document that is given has no fault."""
    node = None
    if path.suffix.lower() == ".json":
        value = _read_json(path, report)
    else:
        node = read_yaml(path, report)
        value = plain(node) if node is not None and not report.faults else None
    if report.faults:
        return None
    document = _versioned(value, node, report)
    if document is not None:
        _judge(document, report)
    return None if report.faults else document


def operations(document: Document) -> Iterator[tuple[Place, str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Place, method, path, path item and operation of each, references followed."""
    for path, given in mapping(document.value.get("paths")).items():
        if path.startswith("x-"):
            continue
        item = mapping(document.follow(given))
        for method in METHODS:
            if method in item:
                yield ("paths", path, method), method.upper(), path, item, mapping(item[method])


def parameters(
    document: Document, item: Mapping[str, Any], operation: Mapping[str, Any]
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Of an operation and its path, by where they stand and their name; the operation's own win."""
    given = [*listing(item.get("parameters")), *listing(operation.get("parameters"))]
    read = (mapping(document.follow(one)) for one in given)
    return {(str(one.get("in")), str(one.get("name"))): one for one in read if one}


def names_in(path: str) -> list[str]:
    """The `{names}` of a path."""
    return _TEMPLATE.findall(path)


# --- the file -----------------------------------------------------------------------------------------------------


def _read_json(path: Path, report: Report) -> Any:
    try:
        raw = path.read_bytes()
    except OSError as error:
        report.fault(1, f"The file cannot be read: {error.strerror}.", "Check that it exists and that you may read it.")
        return None
    if len(raw) > MOST_BYTES:
        report.fault(
            1,
            f"The file has {len(raw):,} bytes.",
            f"A contract has at most {MOST_BYTES:,}; leave out what is not used.",
        )
        return None
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        report.fault(error.lineno, f"Not valid JSON: {error.msg}.", "Check quotes, commas and brackets here.")
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, _TwiceError) else "The file is nested too deeply, or is not UTF-8."
        report.fault(1, problem, "Mend it in the file.")
    return None


class _TwiceError(ValueError):
    """A name stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(name for name in made if sum(name == given for given, _ in pairs) > 1)
        raise _TwiceError(f"`{twice[:60]}` stands twice in one object.")
    return made


def _versioned(value: Any, node: Node | None, report: Report) -> Document | None:
    version = value.get("openapi") if isinstance(value, Mapping) else None
    match = _VERSION.fullmatch(str(version))
    if match:
        return Document(value, match[1] == "0", node)
    if isinstance(value, Mapping) and "swagger" in value:
        problem = "The contract is Swagger 2.0."
    else:
        problem = "The file is no OpenAPI 3.0 or 3.1 document."
    report.fault(
        1, problem, "Write `openapi: 3.0.3` or `openapi: 3.1.0` at its top, and the rest as that version has it."
    )
    return None


# --- faults -------------------------------------------------------------------------------------------------------


def _judge(document: Document, report: Report) -> None:
    """Each step only where the one before found nothing: what follows would be its echo."""
    for step in (_depth, _references, _paths, _schemas):
        step(document, report)
        if report.faults:
            return


def _depth(document: Document, report: Report) -> None:
    level: list[Any] = [document.value]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inner(value)]
    if level:
        report.fault(1, f"The contract is nested deeper than {DEEPEST} levels.", "Name its parts under `components`.")


def _inner(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []


def _references(document: Document, report: Report) -> None:
    known = [
        f"#/components/{kind}/{name}"
        for kind, named in mapping(document.value.get("components")).items()
        for name in mapping(named)
    ]
    for place, target in _found_references(document.value, ()):
        line = document.line((*place, "$ref"))
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            report.fault(
                line,
                "A `$ref` leads out of this file.",
                "Copy what it means into `components` here: `#/components/schemas/Name`.",
            )
        elif pointed(document.value, target) is None:
            near = (
                did_you_mean(target, known) if len(known) < 20 else did_you_mean(target, known).partition(" Known:")[0]
            )
            report.fault(line, f"The `$ref` {target[:100]} leads nowhere.", near)
        elif document.follow({"$ref": target}) is None:
            report.fault(line, f"The `$ref` {target[:100]} leads back to itself.", "Write out what is meant.")


def _found_references(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """References; not those in examples, nor a property that is called `$ref`."""
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _found_references(inner, (*place, number))
    elif isinstance(value, Mapping):
        named = bool(place) and place[-1] in _SCHEMA_MAPS
        if "$ref" in value and not named:
            yield place, value["$ref"]
        for name, inner in value.items():
            if named or name not in ("example", "examples", "default", "enum", "const"):
                yield from _found_references(inner, (*place, name))


def _paths(document: Document, report: Report) -> None:
    paths = document.value.get("paths")
    if not isinstance(paths, Mapping) or not paths:
        report.fault(document.line(("paths",)), "The contract has no paths.", "Write at least one under `paths`.")
        return
    shapes: dict[str, str] = {}
    for path in (path for path in paths if not path.startswith("x-")):
        line = document.line(("paths", path))
        if not path.startswith("/"):
            report.fault(line, f"The path `{path[:100]}` does not begin with `/`.", f"Write `/{path[:100]}`.")
        shape = _TEMPLATE.sub("{}", path)
        if shape in shapes:
            report.fault(line, f"The path `{path[:100]}` is the same as `{shapes[shape][:100]}`.", "Keep one of them.")
        shapes[shape] = path
    _operations(document, report)


def _operations(document: Document, report: Report) -> None:
    seen: dict[str, str] = {}
    for place, method, path, item, operation in operations(document):
        line = document.line(place)
        if (name := operation.get("operationId")) is not None:
            here = f"{method} {path}"
            if str(name) in seen:
                report.fault(line, f"The operationId `{name}` stands at {seen[str(name)]}, too.", "Give each its own.")
            seen[str(name)] = here
        _parts(document, report, line, f"{method} {path}", item, operation)
        declared = {name for where, name in parameters(document, item, operation) if where == "path"}
        for missing in [name for name in names_in(path) if name not in declared]:
            report.fault(
                line,
                f"{method} {path} has `{{{missing}}}` in its path and no parameter of that name.",
                f"Add to its `parameters`: name: {missing}, in: path, required: true, and a schema.",
            )


def _parts(
    document: Document, report: Report, line: int, what: str, item: Mapping[str, Any], operation: Mapping[str, Any]
) -> None:
    """Parameters, body and replies of one operation have the parts that they need."""
    responses = mapping(operation.get("responses"))
    if not responses:
        report.fault(line, f"{what} has no `responses`.", "Write at least one, such as '200'.")
    if odd := [status for status, given in responses.items() if not isinstance(document.follow(given), Mapping)]:
        report.fault(line, f"The response {odd[0][:20]} of {what} is empty.", "Give it at least a `description`.")
    given = document.follow(operation.get("requestBody", {"content": {"": None}}))
    if not mapping(mapping(given).get("content")):
        report.fault(line, f"The `requestBody` of {what} has no `content`.", "Write the content type and its schema.")
    for one in [*listing(item.get("parameters")), *listing(operation.get("parameters"))]:
        read = mapping(document.follow(one))
        if not isinstance(read.get("name"), str) or read.get("in") not in ("path", "query", "header", "cookie"):
            report.fault(
                line,
                f"A parameter of {what} lacks its `name` or `in`.",
                "Write both; `in` is path, query, header or cookie.",
            )


def _schemas(document: Document, report: Report) -> None:
    compiler = Schemas(document.value, old=document.old, hidden="readOnly")
    for place, schema in _found_schemas(document.value, ()):
        try:
            translated = compiler.translated(schema)
            jsonschema_rs.meta.validate({**translated} if isinstance(translated, Mapping) else translated)
        except jsonschema_rs.ValidationError as error:
            at: Place = (*place, *error.instance_path)
            report.fault(document.line(at), *_words(error, at))
            continue
        for at, pattern in _patterns(schema, place):
            if not _is_regex(pattern):
                report.fault(
                    document.line(at), f"The pattern `{pattern[:80]}` cannot be read.", "Write a regular expression."
                )


def _found_schemas(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """The outermost schemas: of components, parameters, headers and bodies."""
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _found_schemas(inner, (*place, number))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "schema":
                yield (*place, name), inner
            elif name == "schemas" and place == ("components",):
                yield from (((*place, name, one), schema) for one, schema in mapping(inner).items())
            elif name not in ("example", "examples", "default"):
                yield from _found_schemas(inner, (*place, name))


def _patterns(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _patterns(inner, (*place, number))
    elif isinstance(value, Mapping):
        named = place[-1] in _SCHEMA_MAPS
        for name, inner in value.items():
            if name == "pattern" and isinstance(inner, str) and not named:
                yield (*place, name), inner
            elif named or name not in ("example", "examples", "default", "enum", "const"):
                yield from _patterns(inner, (*place, name))


def _is_regex(pattern: str) -> bool:
    try:
        jsonschema_rs.validator_for({"pattern": pattern})
    except ValueError:
        return False
    return True


def _words(error: jsonschema_rs.ValidationError, at: Place) -> tuple[str, str]:
    keyword = next((part for part in reversed(at) if isinstance(part, str)), "schema")
    where = "/".join(str(part) for part in at)
    if keyword == "pattern":
        return f"The pattern at {where} cannot be read.", "Write a regular expression."
    return f"The schema is wrong at {where}.", f"Look at `{keyword}`: its value is not one that it takes."


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listing(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
