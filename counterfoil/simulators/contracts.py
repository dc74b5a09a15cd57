"""Requests held to an OpenAPI file, as a gateway does: which operation, and what of its body and path is wrong. Shares no code with clients."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
from ruamel.yaml import YAML

EXAMPLES = Path(__file__).parents[2] / "examples"
_URI = "urn:simulator:contract"


@dataclass(frozen=True)
class Operation:
    """One operation: where its path fits, its path parameters' schemas, its body's."""

    id: str
    method: str
    pattern: re.Pattern[str]
    parameters: Mapping[str, Any]
    body: Any


class Contract:
    """ValueError where there is no such file."""

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise ValueError(f"There is no contract {path}. Name one with --contract PATH.")
        self.document = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
        self.base = str(self.document["servers"][0]["url"]).rstrip("/")
        self._registry = jsonschema_rs.Registry([(_URI, self.document)], draft=jsonschema_rs.Draft202012)
        self.operations = [
            self._operation(path, method, item)
            for path, item in self.document["paths"].items()
            for method in item
            if method in ("get", "post", "put", "delete")
        ]

    def _operation(self, path: str, method: str, item: Mapping[str, Any]) -> Operation:
        spec = item[method]
        given = [self._at(one) for one in [*item.get("parameters", []), *spec.get("parameters", [])]]
        content = spec.get("requestBody", {}).get("content", {}).get("application/json", {})
        return Operation(
            spec["operationId"],
            method.upper(),
            re.compile(self.base + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)),
            {one["name"]: self._validator(one["schema"]) for one in given if one["in"] == "path"},
            self._validator(content["schema"]) if content else None,
        )

    def _at(self, spec: Mapping[str, Any]) -> Any:
        found: Any = spec
        if "$ref" in spec:
            found = self.document
            for name in spec["$ref"].removeprefix("#/").split("/"):
                found = found[name]
        return found

    def _validator(self, schema: Mapping[str, Any]) -> Any:
        named = {"$ref": f"{_URI}{schema['$ref']}"} if "$ref" in schema else dict(schema)
        return jsonschema_rs.Draft202012Validator(named, registry=self._registry)

    def operation(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        for one in self.operations:
            found = one.pattern.fullmatch(path)
            if found and one.method == method:
                return one, found.groupdict()
        return None

    def knows(self, path: str) -> bool:
        return any(one.pattern.fullmatch(path) for one in self.operations)


def bad_parameters(operation: Operation, values: Mapping[str, str]) -> list[str]:
    return [name for name, validator in operation.parameters.items() if not validator.is_valid(values[name])]


def bad_body(operation: Operation, body: Any) -> list[str]:
    """What is wrong with a body, each with its place."""
    if operation.body is None or operation.body.is_valid(body):
        return []
    return [
        f"[{'/'.join(map(str, error.instance_path))}] {error.message}"[:300]
        for error in operation.body.iter_errors(body)
    ]
