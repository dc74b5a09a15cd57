"""The shape of the destination: what the catalog says, what the flow wants, and the statements between the two.

Reads the catalog and writes SQL text; runs no statement that changes anything. All text from a flow file enters SQL through
`quoted` and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from counterfoil.connectors.table_check import Limit
from counterfoil.flows.flow import Deletes, Destination, FieldSpec, FieldType
from counterfoil.model.errors import Misconfigured

APP_ROLE = "counterfoil_app"

NEW_TYPE: dict[FieldType, str] = {
    FieldType.STRING: "text",
    FieldType.INTEGER: "bigint",
    FieldType.DECIMAL: "numeric",
    FieldType.BOOLEAN: "boolean",
    FieldType.DATE: "date",
    FieldType.DATETIME: "timestamptz",
    FieldType.JSON: "jsonb",
}
# Types of an existing column that hold the field without loss (or that refuse the single value that doesn't fit).
FAMILY: dict[FieldType, tuple[str, ...]] = {
    FieldType.STRING: ("text", "varchar", "bpchar", "citext", "uuid"),
    FieldType.INTEGER: ("int8", "int4", "int2", "numeric"),
    FieldType.DECIMAL: ("numeric", "float8", "float4"),
    FieldType.BOOLEAN: ("bool",),
    FieldType.DATE: ("date",),
    FieldType.DATETIME: ("timestamptz", "timestamp"),
    FieldType.JSON: ("jsonb", "json"),
}


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What must be run, what that changes in plain sentences, and what must be refused before the first record."""

    statements: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: str  # the type below any domain, PostgreSQL's short name: int4
    type: str  # the same as SQL: numeric(10,2)
    typmod: int
    not_null: bool
    has_default: bool
    generated: bool  # generated always as (...), or identity always
    plain_equality: bool  # False: a collation or a type under which different texts are equal

    @property
    def limit(self) -> Limit:
        bare = self.typmod - 4
        length = bare if self.kind in ("varchar", "bpchar") and self.typmod >= 4 else None
        exact = self.kind == "numeric" and self.typmod >= 4
        precision = ((bare >> 16) & 0xFFFF, ((bare & 0x7FF) ^ 1024) - 1024) if exact else None
        return Limit(self.name, self.kind, not self.not_null, length, precision)


@dataclass(frozen=True, slots=True)
class Index:
    unique: bool  # and complete, immediate, valid: fit for ON CONFLICT
    columns: tuple[tuple[str, bool], ...]  # (name, descending)


@dataclass(frozen=True, slots=True)
class Shape:
    """One table as the catalog has it."""

    oid: int
    relkind: str
    ours: bool  # we may alter it
    row_security: bool
    columns: dict[str, Column] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    app_may: bool = True  # the app role may select, insert and update
    app_policy: bool = False
    deferred: tuple[str, ...] = ()  # constraints checked at commit unless told otherwise; quoted and qualified
    self_reference: bool = False

    def limit(self, column: str, *, key: bool) -> Limit:
        """What a mapped column can hold. A key must have a value whatever the column says: NULL matches no row, ever."""
        limit = self.columns[column].limit
        return replace(limit, nullable=False) if key else limit


_TABLE = """
select c.oid::bigint as oid, c.relkind::text as relkind, pg_has_role(c.relowner, 'usage') as ours, c.relrowsecurity as row_security,
       case when r.oid is null then true
            else has_table_privilege(r.oid, c.oid, 'select') and has_table_privilege(r.oid, c.oid, 'insert')
             and has_table_privilege(r.oid, c.oid, 'update') and has_schema_privilege(r.oid, n.oid, 'usage') end as app_may,
       exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'counterfoil_app') as app_policy,
       exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and k.confrelid = c.oid) as self_reference,
       array(select format('%I.%I', kn.nspname, k.conname) from pg_constraint k join pg_namespace kn on kn.oid = k.connamespace
             where k.conrelid = c.oid and k.condeferred order by 1) as deferred
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_roles r on r.rolname = $3
where n.nspname = $1 and c.relname = $2
"""

_COLUMNS = """
with recursive below as (
  select a.attnum, a.atttypid as type, a.atttypmod as typmod, false as not_null
  from pg_attribute a where a.attrelid = $1::bigint::oid and a.attnum > 0 and not a.attisdropped
  union all
  select b.attnum, t.typbasetype, t.typtypmod, t.typnotnull from below b join pg_type t on t.oid = b.type where t.typtype = 'd'
)
select a.attname as name, t.typname as kind, format_type(b.type, b.typmod) as type, b.typmod,
       a.attnotnull or exists (select from below o where o.attnum = a.attnum and o.not_null) as not_null,
       a.atthasdef or a.attidentity <> '' as has_default, a.attgenerated <> '' or a.attidentity = 'a' as generated,
       t.typname <> 'citext' and coalesce(l.collisdeterministic, true) as plain_equality
from pg_attribute a
join below b on b.attnum = a.attnum
join pg_type t on t.oid = b.type and t.typtype <> 'd'
left join pg_collation l on l.oid = a.attcollation
where a.attrelid = $1::bigint::oid
order by a.attnum
"""

_INDEXES = """
select i.indisunique and i.indimmediate as unique,
       array_agg(a.attname order by k.place) as names, array_agg(i.indoption[k.place - 1] & 1 = 1 order by k.place) as descending
from pg_index i
cross join lateral unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as k (attnum, place)
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = $1::bigint::oid and i.indisvalid and i.indpred is null and i.indexprs is null
group by i.indexrelid, i.indisunique, i.indimmediate
"""

_SEQUENCES = """
select format('%I.%I', n.nspname, s.relname) as name
from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S' join pg_namespace n on n.oid = s.relnamespace
join pg_roles r on r.rolname = $2
where d.refobjid = $1::bigint::oid and d.deptype = 'a' and not has_sequence_privilege(r.oid, s.oid, 'usage')
order by 1
"""


def quoted(name: str) -> str:
    """An SQL identifier, exactly as written. Raises Misconfigured for a name PostgreSQL can't hold whole."""
    if not _is_name(name):
        raise Misconfigured(f"`{name[:80]}` is no name for a table or column.", "Use 1 to 63 bytes.")
    return '"' + name.replace('"', '""') + '"'


def _is_name(name: str) -> bool:
    return bool(name) and "\x00" not in name and len(name.encode()) <= 63


def listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def table_name(destination: Destination) -> str:
    return f"{quoted(destination.schema)}.{quoted(destination.table)}"


async def read_shape(conn: Any, destination: Destination) -> Shape | None:
    """The table as it is, or None where there is none."""
    found = await conn.fetchrow(_TABLE, destination.schema, destination.table, APP_ROLE)
    if found is None:
        return None
    columns = [Column(**row) for row in await conn.fetch(_COLUMNS, found["oid"])]
    indexes = [
        Index(row["unique"], tuple(zip(row["names"], row["descending"], strict=True)))
        for row in await conn.fetch(_INDEXES, found["oid"])
    ]
    rest = {**found, "deferred": tuple(found["deferred"])}
    return Shape(columns={column.name: column for column in columns}, indexes=tuple(indexes), **rest)


@dataclass(frozen=True, slots=True)
class Change:
    sentence: str
    statements: tuple[str, ...]


async def make_plan(conn: Any, destination: Destination, fields: Sequence[FieldSpec]) -> TablePlan:
    """Compare the flow with the catalog. Changes nothing; may scan the table once, to look for duplicates of a new key."""
    faults = list(_declared_faults(destination, fields))
    if faults:
        return TablePlan(faults=tuple(faults))
    shape = await read_shape(conn, destination)
    if shape is None:
        if not await conn.fetchval("select exists (select from pg_namespace where nspname = $1)", destination.schema):
            return TablePlan(faults=(_no_schema(destination),))
        changes = [_new_table(destination, fields)]
    else:
        faults += _shape_faults(destination, fields, shape)
        changes = [] if faults else list(_table_changes(destination, fields, shape))
        if changes and _key_index(destination, shape) is None and not faults:
            faults += await _duplicate_faults(conn, destination, shape)
    changes += _index_changes(destination, shape)
    changes += await _access_changes(conn, destination, shape)
    return _settle(destination, shape, changes, faults)


def _settle(destination: Destination, shape: Shape | None, changes: list[Change], faults: list[str]) -> TablePlan:
    if faults:
        return TablePlan(faults=tuple(faults))
    if changes and not destination.create:
        return TablePlan(faults=tuple(_by_hand(change, "set `create: true`") for change in changes))
    if changes and shape is not None and not shape.ours:
        return TablePlan(
            faults=tuple(_by_hand(change, f"make us an owner of {destination.qualified}") for change in changes)
        )
    statements = tuple(statement for change in changes for statement in change.statements)
    return TablePlan(statements, tuple(change.sentence for change in changes))


def _by_hand(change: Change, other_way: str) -> str:
    return f"Missing: {change.sentence}. Run `{'; '.join(change.statements)}`, or {other_way}."


def _no_schema(destination: Destination) -> str:
    return f"There is no schema `{destination.schema}`. Run `create schema {quoted(destination.schema)}`, or name another one."


# --- faults of the declaration itself ---------------------------------------------------------------------------


def _own_columns(destination: Destination) -> dict[str, str]:
    """The columns we fill ourselves, by the setting that names them."""
    named = {
        "created": destination.created_column,
        "updated": destination.updated_column,
        "deletes.soft": destination.deleted_column if destination.deletes is Deletes.SOFT else None,
    }
    return {setting: column for setting, column in named.items() if column is not None}


def _declared_faults(destination: Destination, fields: Sequence[FieldSpec]) -> Iterator[str]:
    mapped, own = [spec.column for spec in fields], _own_columns(destination)
    for name in (destination.schema, destination.table, *mapped, *own.values()):
        if not _is_name(name):
            yield f"`{name[:80]}` is no name for a schema, table or column. Use 1 to 63 bytes."
    for column, times in Counter(mapped).items():
        if times > 1:
            yield f"{times} fields of the mapping go into column `{column}`. Give each its own column."
    for setting, column in own.items():
        if column in mapped or list(own.values()).count(column) > 1:
            yield f"Column `{column}` is named as `{setting}` and is filled by something else too. Name another column for one of them."
    for column in destination.key:
        if column not in mapped:
            yield f"Key column `{column}` is no column of the mapping. Map a field to it, or choose another key."
    if not destination.key:
        yield f"{destination.qualified} has no key. Name the column or columns that tell one record from another."
    by_column = {spec.column: spec for spec in fields}
    for column in destination.key:
        if column in by_column and by_column[column].type in (FieldType.JSON, FieldType.BOOLEAN):
            yield f"Key column `{column}` is {by_column[column].type.value}. A key must be text, a number, a date or a time."
    for column in (_bare(entry)[0] for index in destination.indexes for entry in index):
        if column not in mapped and column not in own.values():
            yield f"An index names column `{column}`, which the flow does not fill. Correct the name."
    yield from _soft_delete_faults(destination, by_column)


def _soft_delete_faults(destination: Destination, by_column: dict[str, FieldSpec]) -> Iterator[str]:
    if destination.deletes is not Deletes.SOFT:
        return
    types = [by_column[column].type for column in destination.key if column in by_column]
    if len(destination.key) != 1 or any(kind not in (FieldType.STRING, FieldType.INTEGER) for kind in types):
        yield "Soft deletes need a key of one column, text or integer, that holds the source's key. Set `deletes: ignore`, or change the key."
    if destination.deleted_column is None:
        yield "Soft deletes need a column for the time. Write `deletes: {soft: deleted_at}`."


def _bare(entry: str) -> tuple[str, bool]:
    """`created_at desc` → (created_at, True)."""
    name, _, direction = entry.strip().rpartition(" ")
    if name and direction.lower() in ("asc", "desc"):
        return name.strip(), direction.lower() == "desc"
    return entry.strip(), False


# --- a table that is there --------------------------------------------------------------------------------------


def _shape_faults(destination: Destination, fields: Sequence[FieldSpec], shape: Shape) -> Iterator[str]:
    where = destination.qualified
    if shape.relkind not in ("r", "p"):
        yield f"{where} is no table (a view or a foreign table?). Name a table."
        return
    for spec in fields:
        column = shape.columns.get(spec.column)
        if column is not None:
            yield from _column_faults(
                where, spec, column, soft_key=destination.deletes is Deletes.SOFT and spec.column in destination.key
            )
    for setting, name in _own_columns(destination).items():
        column = shape.columns.get(name)
        if column is not None and (column.kind not in FAMILY[FieldType.DATETIME] or column.generated):
            yield f"{where}.{name} is {column.type}, and `{setting}` needs a plain timestamptz. Alter it, or name another column."
    filled = {spec.column for spec in fields} | set(_own_columns(destination).values())
    for column in shape.columns.values():
        if column.not_null and not column.has_default and not column.generated and column.name not in filled:
            yield f"{where}.{column.name} must have a value and nothing fills it. Map a field to it, or give it a default."


def _column_faults(where: str, spec: FieldSpec, column: Column, *, soft_key: bool) -> Iterator[str]:
    if column.generated:
        yield f"{where}.{column.name} is generated by PostgreSQL. Take it out of the mapping, or map `{spec.internal}` to another column."
    elif column.kind not in FAMILY[spec.type]:
        yield (
            f"{where}.{column.name} is {column.type}, and field `{spec.internal}` is {spec.type.value} ({NEW_TYPE[spec.type]}). "
            "Change the type in the mapping, alter the column, or map the field to another column."
        )
    elif soft_key and column.kind not in ("text", "varchar", "int8", "int4", "int2"):
        yield f"{where}.{column.name} is {column.type}; soft deletes compare the key as text. Make it text or bigint, or set `deletes: ignore`."


def _key_index(destination: Destination, shape: Shape) -> Index | None:
    wanted = set(destination.key)
    return next((i for i in shape.indexes if i.unique and {name for name, _ in i.columns} == wanted), None)


async def _duplicate_faults(conn: Any, destination: Destination, shape: Shape) -> list[str]:
    if not set(destination.key) <= shape.columns.keys():
        return []  # a new column is empty everywhere, and empty is not equal to empty
    key = listed(destination.key)
    doubles = await conn.fetchval(
        _DUPLICATES.format(table=table_name(destination), key=key, given=_all_given(destination.key))
    )
    if not doubles:
        return []
    return [
        f"{destination.qualified} has no unique index on ({', '.join(destination.key)}), and {doubles} "
        f"key{'s stand' if doubles > 1 else ' stands'} in it more than once. Remove the duplicates, or choose another key."
    ]


_DUPLICATES = "select count(*) from (select from {table} where {given} group by {key} having count(*) > 1) as twice"


def _all_given(names: Iterable[str]) -> str:
    return " and ".join(f"{quoted(name)} is not null" for name in names)


# --- changes ----------------------------------------------------------------------------------------------------


def _new_table(destination: Destination, fields: Sequence[FieldSpec]) -> Change:
    columns = [f"{quoted(spec.column)} {NEW_TYPE[spec.type]}" for spec in fields]
    for setting, name in _own_columns(destination).items():
        columns.append(f"{quoted(name)} timestamptz{'' if setting == 'deletes.soft' else ' not null default now()'}")
    columns.append(f"primary key ({listed(destination.key)})")
    statement = f"create table if not exists {table_name(destination)} ({', '.join(columns)})"
    return Change(f"new table {destination.qualified} with {len(columns) - 1} columns", (statement,))


def _table_changes(destination: Destination, fields: Sequence[FieldSpec], shape: Shape) -> Iterator[Change]:
    wanted = {spec.column: NEW_TYPE[spec.type] for spec in fields}
    wanted |= dict.fromkeys(_own_columns(destination).values(), "timestamptz")
    table = table_name(destination)
    for name, kind in wanted.items():
        if name not in shape.columns:
            statement = f"alter table {table} add column if not exists {quoted(name)} {kind}"
            yield Change(f"new column {destination.qualified}.{name} ({kind})", (statement,))
    if _key_index(destination, shape) is None:
        name = _index_name(destination.table, destination.key, "key")
        statement = f"create unique index if not exists {quoted(name)} on {table} ({listed(destination.key)})"
        yield Change(f"new unique index on {destination.qualified} ({', '.join(destination.key)})", (statement,))


def _index_name(table: str, columns: Iterable[str], ending: str) -> str:
    whole = "_".join([table, *columns, ending])
    if len(whole.encode()) <= 63:
        return whole
    return whole.encode()[:50].decode(errors="ignore") + "_" + hashlib.sha256(whole.encode()).hexdigest()[:8]


def _index_changes(destination: Destination, shape: Shape | None) -> Iterator[Change]:
    present = (
        {index.columns for index in shape.indexes} if shape else {tuple((name, False) for name in destination.key)}
    )
    for declared in destination.indexes:
        columns = tuple(_bare(entry) for entry in declared)
        if columns not in present:
            parts = ", ".join(quoted(name) + " desc" * down for name, down in columns)
            name = _index_name(destination.table, [c + "_desc" * down for c, down in columns], "idx")
            statement = f"create index if not exists {quoted(name)} on {table_name(destination)} ({parts})"
            yield Change(f"new index on {destination.qualified} ({', '.join(declared)})", (statement,))


async def _access_changes(conn: Any, destination: Destination, shape: Shape | None) -> list[Change]:
    """Row level security and the rights of the app role: what loading needs and nothing more."""
    table, app = table_name(destination), quoted(APP_ROLE)
    changes: list[Change] = []
    has_app = await conn.fetchval("select exists (select from pg_roles where rolname = $1)", APP_ROLE)
    if destination.row_security and not (shape and shape.row_security):
        changes.append(
            Change(
                f"row level security on {destination.qualified}", (f"alter table {table} enable row level security",)
            )
        )
    if destination.row_security and has_app and not (shape and shape.app_policy):
        drop = f"drop policy if exists {app} on {table}"
        create = f"create policy {app} on {table} for all to {app} using (true) with check (true)"
        changes.append(
            Change(f"policy on {destination.qualified}: only {APP_ROLE} sees and writes its rows", (drop, create))
        )
    if has_app and not (shape and shape.app_may):
        usage = f"grant usage on schema {quoted(destination.schema)} to {app}"
        grant = f"grant select, insert, update on table {table} to {app}"
        changes.append(Change(f"{APP_ROLE} may select, insert and update {destination.qualified}", (usage, grant)))
    for row in await conn.fetch(_SEQUENCES, shape.oid, APP_ROLE) if shape else []:
        grant = f"grant usage on sequence {row['name']} to {app}"
        changes.append(Change(f"{APP_ROLE} may use sequence {row['name']}", (grant,)))
    return changes
