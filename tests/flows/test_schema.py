from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from counterfoil.flows import delivery as deliveries
from counterfoil.flows import flow as values
from counterfoil.flows.checks_call import FILE, ITEM, PARENT, REQUEST
from counterfoil.flows.functions import load_functions
from counterfoil.flows.load import load_flow_text
from counterfoil.flows.schema import FOLDER, schemas
from counterfoil.flows.shapes import MAPPING_FILE
from counterfoil.flows.shapes_flow import SHAPES
from counterfoil.flows.yamlfile import Report, parse_yaml
from tests.flows.projects import FLOW as FLOW_TEXT
from tests.flows.projects import MAPPING
from tests.flows.projects_delivery import DELIVERY, RELAY

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


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (DELIVERY, "bulk_share: 0.25", "bulk_shares: 0.25"),
        (DELIVERY, "handed_in: with_receipt", "handed_in: yes"),
        (DELIVERY, 'status: [403, "5xx", "500-503"]', 'status: ["6xx"]'),
        (DELIVERY, "kind: delivery", "kind: sync"),
        (DELIVERY, "kind: delivery", "kind: relay"),
        (DELIVERY, "kind: delivery\n", ""),
        (RELAY, "deadline: 27s", "deadline: 27"),
        (RELAY, "      alone:", "      lone:"),
        (RELAY, "kind: relay", "kind: delivery"),
    ],
)
def test_the_schema_takes_each_kind_by_its_names_only(text: str, old: str, new: str) -> None:
    schema = Draft202012Validator(published("flow.schema.json"))
    yaml = YAML(typ="safe")
    assert list(schema.iter_errors(yaml.load(text))) == []
    assert text.count(old) == 1
    assert list(schema.iter_errors(yaml.load(text.replace(old, new))))


# A value added to a dataclass without an entry in the tables could never be set. Not declared by a name of its own:
INTERNAL: Mapping[type, set[str]] = {
    values.SyncFlow: {"name", "file"},
    values.Destination: {"schema", "created_column", "updated_column", "deleted_column"},
    deliveries.DeliveryFlow: {"name", "target", "file"},
    deliveries.RelayFlow: {"name", "target", "file"},
    deliveries.RelayOperation: {"name", "reply_status"},
    deliveries.Part: {"name", "type", "content"},
    deliveries.KindSpec: {"name"},
    deliveries.FileSpec: {"source"},
    deliveries.ReplyRule: {"outcome", "statuses"},
    deliveries.LookUp: {"call", "target"},
    deliveries.Poll: {"call"},
    deliveries.Find: {"call"},
    deliveries.Requeue: {"name"},
    deliveries.Endpoint: {"body_bytes"},
}
DATACLASSES = [
    *(values.SyncFlow, values.SourceSpec, values.Paging, values.PullSettings, values.Destination, values.FieldSpec),
    *(kind for kind in vars(deliveries).values() if is_dataclass(kind) and kind.__module__ == deliveries.__name__),
]


@pytest.mark.parametrize("kind", DATACLASSES, ids=lambda kind: kind.__name__)
def test_every_value_of_a_flow_can_be_declared(kind: type) -> None:
    declared = {name for schema in schemas().values() for name in _names(schema)}
    assert {field.name for field in fields(kind)} - declared == INTERNAL.get(kind, set()) - declared


PAGES = {
    "sync": ("flow-files.md",),
    "delivery": ("delivery-flows.md", "flow-files.md"),
    "relay": ("relay-flows.md", "delivery-flows.md", "flow-files.md"),
}


@pytest.mark.parametrize("kind", PAGES)
def test_every_name_is_in_the_reference(kind: str) -> None:
    text = "".join((ROOT / "docs/reference" / page).read_text() for page in PAGES[kind])
    assert {name for name in _names(SHAPES[kind].schema) if f"`{name}`" not in text} == set()


def test_every_name_of_a_mapping_is_in_the_reference() -> None:
    text = (ROOT / "docs/reference/flow-files.md").read_text()
    assert {name for name in _names(MAPPING_FILE.schema) if f"`{name}`" not in text} == set()


def test_every_placeholder_is_in_the_reference() -> None:
    delivery, relay = ((ROOT / "docs/reference" / f"{kind}-flows.md").read_text() for kind in ("delivery", "relay"))
    for text, names in (
        (delivery, (*ITEM, *PARENT, *FILE, "receipts", "each")),
        (relay, (*REQUEST, "found", "answer")),
    ):
        assert [name for name in names if f"`{{{name}}}`" not in text and f"`{{{name}.…}}`" not in text] == []


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


@pytest.mark.parametrize(
    ("page", "names"),
    [("delivery-flows.md", ["deputy-documents", "claim-uploads"]), ("relay-flows.md", ["deputy-relay"])],
)
def test_the_flows_of_the_other_pages_load_and_keep_the_schema(page: str, names: list[str], tmp_path: Path) -> None:
    text = (ROOT / "docs/reference" / page).read_text()
    (tmp_path / "functions.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    functions, faults = load_functions(tmp_path)
    assert faults == ()
    found = re.findall(r"```yaml flow\n(.*?)```", text, re.DOTALL)
    assert [load_flow_text(one, functions=functions).name for one in found] == names
    schema = Draft202012Validator(published("flow.schema.json"))
    assert [list(schema.iter_errors(YAML(typ="safe").load(one))) for one in found] == [[]] * len(names)


def _names(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for part in schema for name in _names(part)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema.get("properties", {}))
    return own.union(
        *(_names(part) for part in schema.values()), *(_names(p) for p in schema.get("properties", {}).values())
    )
