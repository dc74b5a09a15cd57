"""What all workers and hosts must respect about one source: a gate that is closed for a while, a circuit, a bucket of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterfoil.ledger.pool import Connection
from counterfoil.ledger.queries import load

SQL = load("gates")


async def wait(connection: Connection, name: str) -> tuple[float, str]:
    """Seconds until the gate opens (0: it is open), and why it is closed."""
    row = await connection.fetchrow(SQL["read_gate"], name)
    return (row["wait"] or 0.0, row["reason"] or "") if row else (0.0, "")


async def close(connection: Connection, name: str, seconds: float, reason: str) -> None:
    await connection.execute(SQL["close_gate"], name, seconds, reason)


async def note_failures(connection: Connection, name: str, failures: int, *, limit: int, seconds: float) -> float:
    """Count failures in a row over all hosts; returns the seconds the circuit is open now."""
    return float(await connection.fetchval(SQL["note_failures"], name, failures, limit, seconds) or 0.0)


async def note_success(connection: Connection, name: str) -> None:
    await connection.execute(SQL["note_success"], name)


async def take(connection: Connection, name: str, tokens: float, rate: float) -> float:
    """Take tokens from the bucket of all hosts; returns the seconds to wait before using them."""
    return float(await connection.fetchval(SQL["take_tokens"], name, tokens, rate))


async def list_(connection: Connection) -> Sequence[Mapping[str, Any]]:
    return await connection.fetch(SQL["list_gates"])
