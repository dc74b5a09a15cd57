"""Loads the ledger's SQL from its .sql files: a `-- name: verb_noun` line, a line that describes, the statement. No SQL is built here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
FILES = ("items", "deliveries", "polls", "runs", "cases", "flows", "gates", "workers", "health")


@cache
def load(name: str) -> Mapping[str, str]:
    """The named queries of `NAME.sql`. Parameters are $1, $2 …, told in each query's describing line."""
    parts = _NAME.split(files("counterfoil.ledger").joinpath(f"{name}.sql").read_text("utf-8"))
    found = dict(zip(parts[1::2], (text.strip().rstrip(";") for text in parts[2::2]), strict=True))
    if len(found) * 2 != len(parts) - 1:
        raise ValueError(f"{name}.sql names a query twice")
    return MappingProxyType(found)
