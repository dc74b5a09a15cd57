"""Project folders for tests: a sound one, and the same with one thing changed."""

from __future__ import annotations

from pathlib import Path

FLOW_FILE = "flows/customers.yaml"
MAPPING_FILE = "mappings/customers.yaml"

FLOW = """\
flow: customers
kind: sync
title: Customer records
schedule: {cron: "*/5 * * * *", timezone: Pacific/Auckland, catch_up: skip}
source:
  connector: http
  url: ${API_BASE_URL}
  auth: {type: bearer, token: "${API_TOKEN}"}
  key: external_id
  changed: updated_at
  list:
    path: /api/v1/data
    query: {updated_since: "{since}"}
    items: data
    paging: {style: page, param: page, size_param: per_page, size: 100}
  detail: {path: "/api/v1/data/{key}", record: data}
  write_back: {path: "/api/v1/data/{key}", body: {status: "=synced", customer: customerId}}
  watermark: {granularity: time, overlap: 5m, lookback: all, timezone: UTC}
  timeouts: {connect: 5s, first_byte: 30s, total: 60s}
  limits: {page_bytes: 64MB, record_bytes: 10MB, pages: 100000}
pull: {concurrency: 15, adaptive_max: 60, rate: 100, chunk_rows: 5000, chunk_seconds: 1}
retry: {tries: 4, first_delay: 250ms, max_delay: 20s, budget: 24h}
mapping: customers
decision: {function: score_band}
destination:
  table: public.customers
  key: [customer_id]
  created: created_at
  updated: updated_at
  indexes: [[email], [created_at desc]]
on_failure: {owner: operators, due: 4h, rejected_ratio: 0.2}
"""

MAPPING = """\
mapping: customers
fields:
  - {external: external_id, internal: customerId, type: string, required: true}
  - {external: full_name, internal: customerName, type: string, max_length: 255}
  - {external: contact_email, internal: email, type: string}
  - {external: score, internal: score, type: integer, minimum: 0, maximum: 100}
"""

FUNCTIONS = """\
from datetime import date


def score_band(record):
    return "VALID"


def shorten(record):
    return record


_hidden = print
"""

FILES = {FLOW_FILE: FLOW, MAPPING_FILE: MAPPING, "functions.py": FUNCTIONS}


def write(folder: Path, files: dict[str, str] | None = None) -> Path:
    for name, text in (FILES if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def changed(file: str, old: str, new: str) -> dict[str, str]:
    """The sound project with one text replaced; the text must be there exactly once."""
    assert FILES[file].count(old) == 1, f"{old!r} stands {FILES[file].count(old)} times in {file}"
    return {**FILES, file: FILES[file].replace(old, new)}
