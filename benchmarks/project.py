"""The project folder a user of ours would have for the three works: settings, flows, mapping."""

from __future__ import annotations

from pathlib import Path

SETTINGS = """[project]
name = "bench"

[database]
dsn = "${DATABASE_URL}"
"""
MAPPING = """mapping: records
fields:
  - {external: id,         internal: id,        type: string, required: true}
  - {external: full_name,  internal: full_name, type: string, required: true}
  - {external: email,      internal: email,     type: string}
  - {external: phone,      internal: phone,     type: string}
  - {external: street,     internal: street,    type: string}
  - {external: city,       internal: city,      type: string}
  - {external: postcode,   internal: postcode,  type: string}
  - {external: score,      internal: score,     type: integer}
  - {external: balance,    internal: balance,   type: decimal}
  - {external: active,     internal: active,    type: boolean}
  - {external: created_at, internal: created_at, type: datetime}
  - {external: updated_at, internal: updated_at, type: datetime}
"""
DETAIL = """  watermark: {{lookback: all}}
  list: {{path: /changed, query: {{since: "{{since}}"}}, items: data}}
  detail: {{path: "/records/{{key}}", record: data}}
pull: {{concurrency: 15{adaptive}}}"""
PAGES = """  list:
    path: /page
    items: data
    paging: {style: page, param: page, size_param: per_page, size: 1000}"""
FLOW = """flow: {name}
kind: sync
source:
  connector: http
  url: ${{API_BASE_URL}}
  key: id
  changed: updated_at
{source}
mapping: records
destination: {{table: public.records, key: [id]}}
"""
SOURCES = {
    "details": DETAIL.format(adaptive=""),
    "details-adaptive": DETAIL.format(adaptive=", adaptive_max: 60"),
    "pages": PAGES,
}


def write(folder: Path) -> None:
    """Write the project into an empty folder."""
    (folder / "flows").mkdir(parents=True)
    (folder / "mappings").mkdir()
    (folder / "counterfoil.toml").write_text(SETTINGS)
    (folder / "mappings/records.yaml").write_text(MAPPING)
    for name, source in SOURCES.items():
        (folder / f"flows/{name}.yaml").write_text(FLOW.format(name=name, source=source))
