from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from counterfoil.flows import flow as values
from counterfoil.flows.load import load_flow_text
from counterfoil.flows.schema import FOLDER, schemas
from counterfoil.flows.shapes import FLOW, MAPPING_FILE
from counterfoil.flows.yamlfile import Report, parse_yaml
from tests.flows.projects import FLOW as FLOW_TEXT
from tests.flows.projects import MAPPING

ROOT = Path(__file__).parents[2]


def published(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return schema


@pytest.mark.parametrize("name", list(schemas()))
def test_what_is_published_is_what_the_loader_takes(name: str) -> None:
    assert published(name) == schemas()[name], "run: python -m counterfoil.flows.schema"
    Draft202012Validator.check_schema(published(name))


def test_the_schema_takes_a_sound_flow_and_refuses_a_misspelt_one() -> None:
    yaml = YAML(typ="safe")
    flow, mapping = (
        Draft202012Validator(published("flow.schema.json")),
        Draft202012Validator(published("mapping.schema.json")),
    )
    assert list(flow.iter_errors(yaml.load(FLOW_TEXT))) == []
    assert list(mapping.iter_errors(yaml.load(MAPPING))) == []
    assert list(flow.iter_errors(yaml.load(FLOW_TEXT.replace("source:", "sorce:"))))
    assert list(flow.iter_errors(yaml.load(FLOW_TEXT.replace("overlap: 5m", "overlap: 5 minutes"))))


def test_every_value_of_a_flow_can_be_declared() -> None:
    """A value added to a dataclass without an entry in the tables could never be set."""
    internal = {
        "schema",
        "table",
        "deleted_column",
        "created_column",
        "updated_column",
        "file",
        "name",
        "type",
        "values",
    }
    declared = {name for schema in (FLOW.schema, MAPPING_FILE.schema) for name in _names(schema)}
    for kind in (
        values.SyncFlow,
        values.SourceSpec,
        values.Paging,
        values.PullSettings,
        values.Destination,
        values.FieldSpec,
    ):
        missing = {field.name for field in fields(kind)} - declared - internal
        assert not missing, f"{kind.__name__}: {missing}"


def test_every_name_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/flow-files.md").read_text()
    for schema in (FLOW.schema, MAPPING_FILE.schema):
        missing = {name for name in _names(schema) if f"`{name}`" not in text}
        assert not missing


def test_the_flow_of_the_reference_loads() -> None:
    text = (ROOT / "docs/reference/flow-files.md").read_text()
    found = re.findall(r"```yaml (flow|mapping)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in found] == ["flow", "mapping"]
    assert load_flow_text(found[0][1]).name == "customer-records"
    report = Report("mapping")
    node = parse_yaml(found[1][1], report)
    assert node is not None
    assert MAPPING_FILE.read(node, report).name == "customers"
    assert report.faults == []


def _names(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for part in schema for name in _names(part)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {}))
    return own.union(
        *(_names(part) for part in schema.values()), *(_names(p) for p in schema.get("properties", {}).values())
    )
