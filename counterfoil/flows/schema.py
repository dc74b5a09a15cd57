"""The JSON Schemas that editors complete flow files and mappings from, made of the tables the loader reads by.

`python -m counterfoil.flows.schema` writes them beside this file; a test holds them equal to the tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterfoil.flows.shape import Shape
from counterfoil.flows.shapes import HEAD, MAPPING_FILE
from counterfoil.flows.shapes_flow import SHAPES

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent


def schemas() -> Mapping[str, dict[str, Any]]:
    """File name to schema."""
    return {
        "flow.schema.json": {"$schema": DRAFT, "title": "Counterfoil flow", **_flow()},
        "mapping.schema.json": {"$schema": DRAFT, "title": "Counterfoil mapping", **MAPPING_FILE.schema},
    }


def _flow() -> dict[str, Any]:
    """What every flow has, and by its `kind` everything else: so an editor offers what fits, and nothing before the kind is known."""
    head = {entry.name: {**entry.kind.schema, "description": entry.help} for entry in HEAD}
    required = [entry.name for entry in HEAD if entry.required]
    return {
        "type": "object",
        "required": required,
        "properties": head,
        "allOf": [_if(kind, SHAPES[kind]) for kind in SHAPES],
    }


def _if(kind: str, shape: Shape) -> dict[str, Any]:
    return {"if": {"required": ["kind"], "properties": {"kind": {"const": kind}}}, "then": shape.schema}


def main() -> None:
    for name, schema in schemas().items():
        (FOLDER / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
