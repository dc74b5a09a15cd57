"""The destination: a table of the ledger's own database, loaded in chunks inside the engine's transaction.

binary COPY → session temp table → one statement that writes only what is new or differs. A chunk that PostgreSQL refuses for its
data is cut into blocks and then rows, so that the good rows are loaded and each bad one is named. Nothing here commits.
The shape of the table is `table_plan`'s, what a column can hold is `table_check`'s, the SQL is `table_sql`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from counterfoil.connectors.table_check import Limit, RefusedRow, Row, prepare
from counterfoil.connectors.table_plan import Shape, TablePlan, make_plan, read_shape, table_name
from counterfoil.connectors.table_sql import LoadSql, load_sql
from counterfoil.flows.flow import Deletes, Destination, FieldSpec
from counterfoil.model.errors import Misconfigured, UsageError

__all__ = ["Loaded", "RefusedRow", "Table", "TablePlan"]

# Rows of a refused chunk that are tried together; a refused block is cut in four, down to single rows. Measured: one bad row in
# 5,000 costs 1.4 of a clean chunk, 250 bad ones 8 (single rows straight from blocks of 64: 16).
BLOCK = 256
# SQLSTATEs that are a row's own fault: data, integrity, check option, what a user's trigger raised, a key twice in one chunk.
_REFUSED_CLASSES = ("22", "23", "44")
_REFUSED_STATES = ("P0001", "21000")

_WORDS: dict[str, tuple[str, str]] = {
    "22001": ("too_long", "A text is longer than its column."),
    "22003": ("out_of_range", "A number is outside what its column holds."),
    "22007": ("wrong_type", "A date or time is none."),
    "22008": ("out_of_range", "A date or time is outside what its column holds."),
    "22021": ("invalid_text", "A text holds a character that the database can't store."),
    "22P02": ("wrong_type", "A value doesn't fit the type of its column."),
    "22P05": ("invalid_text", "A text holds a character that the database can't store."),
    "23502": ("missing_value", "A column that must have a value has none."),
    "23503": ("foreign_key", "Another table doesn't know the record this one refers to."),
    "23505": ("not_unique", "Another record has the same value in columns that must be unique."),
    "23514": ("check", "A check of the table refuses the record."),
    "23P01": ("exclusion", "An exclusion constraint of the table refuses the record."),
    "44000": ("check", "The check option of a view refuses the record."),
    "P0001": ("trigger", "A trigger of the table refuses the record."),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The fate of each row given: `inserted + updated + unchanged + len(refused)` is their number."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: tuple[RefusedRow, ...] = ()
    changed_indexes: tuple[int, ...] = ()  # rows inserted or updated, ascending; only when asked for


@dataclass(slots=True)
class _Tally:
    """What is known so far of one chunk. Rows are known by `n`, their place in the staging table."""

    inserted: int = 0
    updated: int = 0
    changed: list[int] | None = None
    refused: dict[int, tuple[str, str | None, str | None]] | None = None  # n → sqlstate, constraint, column


class Table:
    """One destination. Holds no connection; what it remembers of the catalog is read again after any error."""

    def __init__(self, destination: Destination, fields: Sequence[FieldSpec]) -> None:
        self.destination = destination
        self.fields = tuple(fields)
        self._known: tuple[Shape, LoadSql] | None = None

    async def plan(self, connection: Any) -> TablePlan:
        """What must change before the first record, and what must be refused. Changes nothing."""
        return await make_plan(connection, self.destination, self.fields)

    async def apply(self, connection: Any, plan: TablePlan) -> None:
        """Run the plan's statements, all or none. Each is safe to repeat. Raises Misconfigured where the plan has faults."""
        if plan.faults:
            raise Misconfigured(" ".join(plan.faults), "Run `counterfoil plan` after the correction.")
        self._known = None
        async with connection.transaction():
            # Two hosts starting at once: `if not exists` alone doesn't keep two `create table` apart.
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))", table_name(self.destination)
            )
            for statement in plan.statements:
                await connection.execute(statement)

    async def precheck(self, connection: Any, rows: Sequence[Row]) -> list[RefusedRow]:
        """The rows that are known to be refused without asking PostgreSQL (types, lengths, ranges, empty values)."""
        shape, _ = await self._shape(connection)
        return list(prepare(self._limits(shape), rows).refused)

    async def load(self, connection: Any, rows: Sequence[Row], *, now: datetime, want_changed: bool = False) -> Loaded:
        """Insert what is new, update what differs, leave the rest alone; refuse what the table can't hold.

        `rows` have one value per field, in their order: str, int, Decimal, bool, date, datetime; for json anything that JSON
        can say, or `msgspec.Raw`. Of rows with one key the last counts, the others are `unchanged`. Needs an open
        transaction, which stays usable. Raises asyncpg's own errors for everything that is not a row's fault.
        """
        if not connection.is_in_transaction():
            raise UsageError(
                "Table.load was called outside a transaction.", "Begin one: rows and accounts commit together."
            )
        if not rows:
            return Loaded()
        try:
            return await self._load(connection, rows, now, want_changed)
        except Exception:
            self._known = None  # perhaps somebody altered the table: look again the next time
            raise

    async def _load(self, connection: Any, rows: Sequence[Row], now: datetime, want_changed: bool) -> Loaded:
        shape, sql = await self._shape(connection)
        prepared = prepare(self._limits(shape), rows)
        order = self._order(prepared.rows, {row.index for row in prepared.refused})
        tally = _Tally(changed=[] if want_changed else None, refused={})
        if order:
            await connection.execute(sql.begin)
            await _stage(connection, sql, [(n, *prepared.rows[index]) for n, index in enumerate(order)], tally)
            await _write(connection, sql, shape, now, len(order), tally)
        return _sum(len(rows), order, prepared.refused, tally)

    async def soft_delete(self, connection: Any, run_id: int, *, now: datetime) -> int:
        """Mark the rows whose key is not among the keys of a complete listing; returns how many.

        An empty listing marks nothing. Raises Misconfigured when no key of the listing is in the table although both have
        some: then the key column doesn't hold the source's key, and everything would go.
        """
        if self.destination.deletes is not Deletes.SOFT:
            raise UsageError(
                f"{self.destination.qualified} has no soft deletes.", "Declare `deletes: {soft: deleted_at}`."
            )
        _, sql = await self._shape(connection)
        found = await (await connection.prepare(sql.overlap)).fetchrow(run_id)
        if not found["listed"] or not found["held"]:
            return 0
        if not found["common"]:
            raise Misconfigured(
                f"No key of the complete listing stands in {self.destination.qualified}; nothing was marked as deleted.",
                f"Map the source's key, as it is, to column `{self.destination.key[0]}`.",
            )
        return int(await (await connection.prepare(sql.soft_delete)).fetchval(run_id, now))

    async def _shape(self, connection: Any) -> tuple[Shape, LoadSql]:
        if self._known is None:
            shape = await read_shape(connection, self.destination)
            missing = [spec.column for spec in self.fields if shape is None or spec.column not in shape.columns]
            if shape is None or missing:
                what = f"no column `{missing[0]}`" if shape else "not there"
                raise Misconfigured(
                    f"{self.destination.qualified} is {what}."
                    if not shape
                    else f"{self.destination.qualified} has {what}.",
                    "Run `counterfoil plan`.",
                )
            self._known = shape, load_sql(self.destination, self.fields, shape)
        return self._known

    def _limits(self, shape: Shape) -> list[Limit]:
        return [shape.limit(spec.column, key=spec.column in self.destination.key) for spec in self.fields]

    def _order(self, rows: Sequence[Row], refused: set[int]) -> list[int]:
        """Indexes of the rows to write, by key: two loads of the same keys lock them in the same order. Last of a key wins."""
        places = [[spec.column for spec in self.fields].index(column) for column in self.destination.key]
        if len(places) == 1:
            place = places[0]
            last = {row[place]: index for index, row in enumerate(rows) if index not in refused}
        else:
            last = {tuple(row[place] for place in places): i for i, row in enumerate(rows) if i not in refused}
        return [last[key] for key in sorted(last)]


# --- staging ----------------------------------------------------------------------------------------------------


def _is_refusal(error: BaseException) -> bool:
    """True where the data is at fault; False for the connection, the disk, locks, rights, a shutdown, or us."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _REFUSED_CLASSES or state in _REFUSED_STATES
    return isinstance(
        error, ValueError | OverflowError
    )  # asyncpg could not encode a value; its own DataError is a ValueError


async def _stage(conn: Any, sql: LoadSql, records: Sequence[Row], tally: _Tally) -> None:
    """COPY the records; halve what is refused until the bad ones stand alone. `prepare` finds nearly all of them before."""
    try:
        async with conn.transaction():
            await conn.copy_records_to_table(
                sql.stage, schema_name="pg_temp", columns=sql.stage_columns, records=records
            )
    except Exception as error:
        if not _is_refusal(error):
            raise
        if len(records) == 1:
            state = getattr(error, "sqlstate", None) or "22000"
            assert tally.refused is not None
            tally.refused[records[0][0]] = (state, None, None)
            return
        middle = len(records) // 2
        await _stage(conn, sql, records[:middle], tally)
        await _stage(conn, sql, records[middle:], tally)


# --- writing ----------------------------------------------------------------------------------------------------


async def _write(conn: Any, sql: LoadSql, shape: Shape, now: datetime, count: int, tally: _Tally) -> None:
    try:
        async with conn.transaction():
            # Prepared anew for each chunk: a plan kept from the first chunk was made for an empty table.
            statement = await conn.prepare(sql.write_changed if tally.changed is not None else sql.write)
            written = await statement.fetchrow(now, 0, count - 1)
    except asyncpg.PostgresError as error:
        if not _is_refusal(error):
            raise
        await _salvage(conn, sql, shape, now, count, tally)
    else:
        await _count(conn, sql, written, tally)


async def _count(conn: Any, sql: LoadSql, written: Any, tally: _Tally) -> None:
    tally.inserted += written["inserted"]
    tally.updated += written["updated"]
    if tally.changed is not None:
        tally.changed += written["changed"] or []
    if written["missed"]:
        # Differed and were not written: either another load made them equal meanwhile, or a trigger left them out.
        assert tally.refused is not None
        for row in await conn.fetch(sql.still_different, written["missed"]):
            tally.refused[row["n"]] = ("P0001", None, None)


async def _salvage(conn: Any, sql: LoadSql, shape: Shape, now: datetime, count: int, tally: _Tally) -> None:
    """Write the chunk block by block, and what is refused in smaller blocks, all in the server: one round trip for any number."""
    await conn.execute(sql.salvage_begin)
    refused = await _attempt(conn, sql, now, [(0, count - 1, BLOCK)], tally)
    # A row may refer to another row of its own chunk, which was written after it.
    while shape.self_reference and (waiting := [n for n, fault in refused.items() if fault[0] == "23503"]):
        again = await _attempt(conn, sql, now, [(n, n, 1) for n in waiting], tally)
        if len(again) == len(waiting):
            break
        refused = {n: fault for n, fault in refused.items() if n not in waiting} | again
    assert tally.refused is not None
    tally.refused |= refused
    await conn.execute(sql.salvage_end)


async def _attempt(
    conn: Any, sql: LoadSql, now: datetime, ranges: Sequence[tuple[int, int, int]], tally: _Tally
) -> dict[int, tuple[str, str | None, str | None]]:
    lows, highs, blocks = (list(part) for part in zip(*ranges, strict=True))
    refused = {}
    for row in await conn.fetch(sql.salvage, now, lows, highs, blocks):
        if row["state"] is None:
            await _count(conn, sql, row, tally)
        else:
            refused[row["low"]] = (row["state"], row["constraint"] or None, row["column"] or None)
    return refused


# --- the sum ----------------------------------------------------------------------------------------------------


def _refusal(index: int, state: str, constraint: str | None, column: str | None) -> RefusedRow:
    # PostgreSQL's own message and detail hold the values of the row; only names of the table's parts may be told.
    fault, sentence = _WORDS.get(state, ("refused", "The database refuses the record."))
    names = [f"constraint `{constraint}`"] * bool(constraint) + [f"column `{column}`"] * bool(column)
    problem = f"{sentence[:-1]} ({', '.join(names)})." if names else sentence
    return RefusedRow(index, f"{fault}:{constraint or column}" if constraint or column else fault, problem, state)


def _sum(given: int, order: list[int], prechecked: Sequence[RefusedRow], tally: _Tally) -> Loaded:
    late = [_refusal(order[n], *fault) for n, fault in (tally.refused or {}).items()]
    refused = tuple(sorted([*prechecked, *late], key=lambda row: row.index))
    unchanged = given - len(refused) - tally.inserted - tally.updated
    if unchanged < 0 or len({row.index for row in refused}) != len(refused):
        raise RuntimeError(
            f"{given} rows given, {tally.inserted} inserted, {tally.updated} updated, {len(refused)} refused: no sum."
        )
    changed = tuple(sorted(order[n] for n in tally.changed or ()))
    return Loaded(tally.inserted, tally.updated, unchanged, refused, changed)
