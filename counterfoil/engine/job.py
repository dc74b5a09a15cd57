"""A declared flow made runnable: what `app.py` puts together and the engine's loops take. Values and ports only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from counterfoil.engine.caller import Caller
from counterfoil.engine.lanes import Lanes
from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.flows.flow import SyncFlow
from counterfoil.flows.mapping import Mapper
from counterfoil.ledger.pool import Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.ports import Destination, FileDesk, Source, Target


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


@dataclass(frozen=True, slots=True)
class DeliveryJob:
    """A delivery flow at work. `slice`: items claimed at one time."""

    flow: DeliveryFlow
    target: Target
    files: FileDesk
    lanes: Lanes
    ledger: Ledger
    clock: Clock
    worker: int  # id in the ledger; its presence lock is held by this process
    lease: float = 30.0  # seconds
    slice: int = 200
