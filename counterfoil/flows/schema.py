"""The JSON Schemas that editors complete flow files and mappings from, made of the tables the loader reads by.

`python -m counterfoil.flows.schema` writes them beside this file; a test holds them equal to the tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterfoil.flows.shapes import FLOW, MAPPING_FILE

DRAFT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent


def schemas() -> Mapping[str, dict[str, Any]]:
    """File name to schema."""
    return {
        "flow.schema.json": {"$schema": DRAFT, "title": "Counterfoil flow", **FLOW.schema},
        "mapping.schema.json": {"$schema": DRAFT, "title": "Counterfoil mapping", **MAPPING_FILE.schema},
    }


def main() -> None:
    for name, schema in schemas().items():
        (FOLDER / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
