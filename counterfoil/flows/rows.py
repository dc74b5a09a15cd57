"""What mapping gives for a record: a row, or the fault that stops it. Structs of msgspec, as they are made a hundred thousand a second."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

MAX_KEY = 512  # characters; the ledger indexes keys


class Row(msgspec.Struct, frozen=True, gc=False):
    """`values` stand in the order of `Mapper.columns`. json values are their JSON text; moments are in UTC."""

    key: str
    changed_at: datetime | None
    values: tuple[Any, ...]


class RowFault(msgspec.Struct, frozen=True, gc=False):
    """`where` is the path in the record ("" for all of it); `fault` a stable word; `problem` a sentence without the value."""

    key: str | None
    where: str
    fault: str
    problem: str
