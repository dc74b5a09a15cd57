"""What a person may do to runs of a sync: stop the open one, and go on with one that was left. Starting stands in `app.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from counterfoil.flows.flow import SyncFlow
from counterfoil.ledger import runs
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import NotFoundError
from counterfoil.model.run import RunState

COUNT_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Cancelled:
    """`untold`: records that are loaded, and whose source is told (write-back) by the next run of the flow, not by this one."""

    run_id: int
    was: RunState
    untold: int


async def open_one(ledger: Ledger, flow: str) -> Mapping[str, Any]:
    """The open run of a flow. Raises NotFoundError."""
    async with ledger.session() as session:
        row = await runs.get_open(session, flow)
    if row is None:
        raise _none_open(flow)
    return row


async def cancel(ledger: Ledger, flow: str, *, actor: str, reason: str) -> Cancelled:
    """Stop the open run of a flow. What it has loaded stays; the watermark stays. Raises NotFoundError where none is open."""
    async with ledger.transaction() as connection:
        row = await runs.get_open(connection, flow)
        if row is None or not await runs.cancel(connection, row["id"], f"{reason} (cancelled by {actor})"):
            raise _none_open(flow)
        untold = await runs.open_write_backs(connection, row["id"], after="", limit=COUNT_LIMIT)
    return Cancelled(row["id"], RunState(row["state"]), len(untold))


def unheeded(flow: SyncFlow, since: datetime | None, until: datetime | None, step: timedelta | None) -> list[str]:
    """What of a given window the source is never asked for, each a sentence: reading too much loses nothing, but takes long."""
    asked = repr((flow.source.list.query, flow.source.list.payload))
    given = {"since": since, "until": until or step}
    missing = [name for name, value in given.items() if value is not None and f"{{{name}}}" not in asked]
    if not missing:
        return []
    names = " and ".join(f"{{{name}}}" for name in missing)
    each = "each window reads" if step else "the run reads"
    return [
        f"The list call of {flow.name} does not ask by {names}: {each} more than its window. What is unchanged is not written."
    ]


def _none_open(flow: str) -> NotFoundError:
    return NotFoundError(f"No run of {flow} is open.", f"`counterfoil sync list {flow}` shows how the last ones ended.")


def is_left(row: Mapping[str, Any]) -> bool:
    """True for an open run that nobody works on: queued, or its process is gone. It is resumed, never started again."""
    return row["state"] == RunState.QUEUED or (row["state"] == RunState.RUNNING and not row["worker_alive"])


async def one(ledger: Ledger, reference: str) -> Mapping[str, Any]:
    """The run with this number, or the newest of the flow with this name. Raises NotFoundError."""
    async with ledger.session() as session:
        if reference.isdecimal() and len(reference) < 19:
            row = await runs.get(session, int(reference))
        else:
            newest = await runs.list_(session, reference, limit=1)
            row = await runs.get(session, newest[0]["id"]) if newest else None
    if row is None:
        raise NotFoundError(f"There is no run of `{reference}`.", "`counterfoil sync list` shows the runs there are.")
    return row
