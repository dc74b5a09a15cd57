"""A declared flow made runnable: what `app.py` puts together and the engine's loops take. Values and ports only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from counterfoil.engine.caller import Caller
from counterfoil.flows.flow import SyncFlow
from counterfoil.flows.mapping import Mapper
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.ports import Destination, Source


@dataclass(frozen=True, slots=True)
class SyncJob:
    flow: SyncFlow
    source: Source
    mapper: Mapper
    decide: Callable[..., Any] | None
    table: Destination
    caller: Caller
    ledger: Ledger
    clock: Clock
    worker: int  # id in the ledger; its presence lock is held by this process
    lease: float = 30.0  # seconds
