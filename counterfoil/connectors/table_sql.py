"""The statements of a load, made once for a destination and the shape its table has.

Templates and the names that fill them. Names of columns enter through `quoted`, values only as parameters. In the staging table
the columns are c0, c1 ... in the order of the mapping, and n is the row's place in the chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from counterfoil.connectors.table_plan import Column, Shape, listed, quoted, table_name
from counterfoil.flows.flow import Deletes, Destination, FieldSpec


@dataclass(frozen=True, slots=True)
class LoadSql:
    """`write*`: ($1 now, also where no column takes it; $2 first n, $3 last n) → inserted, updated, changed int[], missed int[]."""

    stage: str  # bare name, in pg_temp
    stage_columns: tuple[str, ...]
    begin: str
    write: str
    write_changed: str
    still_different: str  # ($1 n int[]) → n
    salvage_begin: str
    salvage: str  # ($1 now, $2 lows, $3 highs, $4 block sizes) → a row for each block: `write`'s, or state, constraint, column
    salvage_end: str
    overlap: str  # ($1 run) → listed, held, common
    soft_delete: str  # ($1 run, $2 now) → rows marked


# The staging table has the destination's own types, so that a value is rounded and padded before it is compared. Domains are
# left out: their checks belong to the write, where a refused row is found in the server.
_BEGIN = """
create temp table if not exists {stage_bare} on commit delete rows as
  select 0 as n, {typed} from {table} d with no data;
delete from {stage};
{immediate}
"""

_WRITE = """
with changed as (
  select s.*, {absent} as absent from {stage} s left join {table} d on {same_key}
  where s.n between $2 and $3 and $1::timestamptz is not null and ({absent} or {differs})
), written as (
  insert into {table} as d ({columns}) select {values} from changed order by n
  on conflict ({key}) {action}
  returning {key_out}, {is_new} as is_new
)
select (select count(*) from {new_rows}) as inserted,
       (select count(*) from {old_rows}) as updated,
       {changed} as changed,
       case when (select count(*) from written) < (select count(*) from changed)
            then array(select c.n from changed c where not exists (select from written w where {written_key})) end as missed
"""

_CHANGED = "array(select c.n from changed c where exists (select from written w where {written_key}))"
_UPDATE = "do update set {settings} where {differs_excluded}"

_STILL_DIFFERENT = """
select s.n from {stage} s left join {table} d on {same_key} where s.n = any($1::int[]) and ({absent} or {differs})
"""

# Two functions of the session: one range, and the loop that tries blocks and cuts what is refused, down to single rows.
# An error that is not the data's goes through as it is.
_SALVAGE_BEGIN = """
create index if not exists {stage_index} on {stage} (n);
analyze {stage};
create or replace function pg_temp.{range_name}(timestamptz, int, int,
  out o_inserted bigint, out o_updated bigint, out o_changed int[], out o_missed int[])
language plpgsql as {tag}
#variable_conflict use_column
begin
  {write} into o_inserted, o_updated, o_changed, o_missed;
end {tag};
create or replace function pg_temp.{salvage_name}(p_now timestamptz, p_low int, p_high int, p_block int)
returns table (low int, inserted bigint, updated bigint, changed int[], missed int[], state text, "constraint" text, "column" text)
language plpgsql as {tag}
#variable_conflict use_variable
declare
  high int;
begin
  for start in p_low .. p_high by p_block loop
    low := start;
    high := least(start + p_block - 1, p_high);
    state := null;
    begin
      select w.* into inserted, updated, changed, missed from pg_temp.{range_name}(p_now, low, high) w;
      return next;
    exception when others then
      get stacked diagnostics state = returned_sqlstate, "constraint" = constraint_name, "column" = column_name;
      if left(state, 2) not in ('22', '23', '44') and state not in ('P0001', '21000') then
        raise;
      elsif low < high then
        return query select * from pg_temp.{salvage_name}(p_now, low, high, greatest(1, p_block / 4));
      else
        return next;
      end if;
    end;
  end loop;
end {tag};
"""

_SALVAGE = """
select w.* from unnest($2::int[], $3::int[], $4::int[]) with ordinality as r (low, high, block, place)
cross join lateral pg_temp.{salvage_name}($1::timestamptz, r.low, r.high, r.block) w order by r.place, w.low
"""

_SALVAGE_END = "drop index pg_temp.{stage_index}"

_OVERLAP = """
select exists (select from counterfoil.run_key where run_id = $1) as listed,
       exists (select from {table} d where d.{deleted} is null) as held,
       exists (select from counterfoil.run_key k join {table} d on d.{key}::text = k.key where k.run_id = $1) as common
"""

# Locked in the order in which a load writes, so that the two can't block each other in a circle.
_SOFT_DELETE = """
with gone as (
  select d.{key} as key from {table} d
  where d.{deleted} is null
    and not exists (select from counterfoil.run_key k where k.run_id = $1 and k.key = d.{key}::text)
  order by d.{key}{bytewise} for update
), marked as (
  update {table} d set {marks} from gone where d.{key} = gone.key and d.{deleted} is null returning 1
)
select count(*) from marked
"""


def _exact(column: Column, side: str) -> str:
    """The column as it is compared. json has no equality; citext and some collations call different texts equal."""
    if column.kind == "json":
        return f"{side}::jsonb"
    return side if column.plain_equality else f'{side}::text collate "C"'


def _differs(left: Sequence[str], right: Sequence[str], columns: Sequence[Column]) -> list[str]:
    return [
        f"{_exact(column, one)} is distinct from {_exact(column, other)}"
        for one, other, column in zip(left, right, columns, strict=True)
    ]


def _moment(shape: Shape, name: str, parameter: str) -> str:
    """The time of the load for one of our own columns; without a zone it is meant as UTC, whatever the session's zone."""
    column = shape.columns.get(name)
    bare = column is not None and column.kind == "timestamp"
    return f"({parameter}::timestamptz at time zone 'UTC')" if bare else f"{parameter}::timestamptz"


def load_sql(destination: Destination, fields: Sequence[FieldSpec], shape: Shape) -> LoadSql:
    """All statements for loading `fields`, in their order, into a table of this shape."""
    parts = _parts(destination, fields, shape)
    write = _WRITE.format(**parts, changed="null::int[]")
    write_changed = _WRITE.format(**parts, changed=_CHANGED.format(**parts))
    columns = ("n", *(f"c{place}" for place in range(len(fields))))
    return LoadSql(
        stage=parts["stage_bare"],
        stage_columns=columns,
        begin=_BEGIN.format(**parts),
        write=write,
        write_changed=write_changed,
        still_different=_STILL_DIFFERENT.format(**parts),
        salvage_begin=_SALVAGE_BEGIN.format(**parts, write=write_changed),
        salvage=_SALVAGE.format(**parts),
        salvage_end=_SALVAGE_END.format(**parts),
        **_soft_sql(destination, shape, parts["table"]),
    )


def _parts(destination: Destination, fields: Sequence[FieldSpec], shape: Shape) -> dict[str, str]:
    names = [spec.column for spec in fields]
    columns = [shape.columns[name] for name in names]
    table = table_name(destination)
    typed = ", ".join(f"d.{quoted(c.name)}::{c.type} as c{place}" for place, c in enumerate(columns))
    # The same types under the same name: a table altered meanwhile gets a staging table of its own.
    shape_id = hashlib.sha256(f"{shape.oid} {typed}".encode()).hexdigest()[:16]
    stage = f"counterfoil_load_{shape_id}"
    keys = [(quoted(name), f"c{names.index(name)}") for name in destination.key]
    rest = [(place, c) for place, c in enumerate(columns) if c.name not in destination.key]
    compared, staged = [f"d.{quoted(c.name)}" for _, c in rest], [f"s.c{place}" for place, _ in rest]
    excluded = [f"excluded.{quoted(c.name)}" for _, c in rest]
    others = [c for _, c in rest]
    deleted = destination.deleted_column if destination.deletes is Deletes.SOFT else None
    revive = [f"d.{quoted(deleted)} is not null"] if deleted else []
    differs_excluded = " or ".join(_differs(compared, excluded, others) + revive) or "false"
    settings = [f"{quoted(c.name)} = excluded.{quoted(c.name)}" for c in others]
    times = [name for name in (destination.created_column, destination.updated_column) if name]
    if destination.updated_column:
        settings.append(f"{quoted(destination.updated_column)} = {_moment(shape, destination.updated_column, '$1')}")
    if deleted:
        settings.append(f"{quoted(deleted)} = null")
    action = (
        _UPDATE.format(settings=", ".join(settings), differs_excluded=differs_excluded)
        if others or deleted
        else "do nothing"
    )
    deferred = ", ".join(shape.deferred)
    written_key = " and ".join(f"w.{place} = c.{place}" for _, place in keys)
    # A row just inserted has no xmax. Rows of a partitioned table don't tell theirs; there the join before the write decides,
    # which can call a row new that another writer inserted in the same instant.
    tells = shape.relkind == "r"
    joined = f"written w join changed c on {written_key} where"
    return {
        "table": table,
        "stage_bare": stage,
        "stage": f"pg_temp.{stage}",
        "stage_index": f"{stage}_n",
        "range_name": f"{stage}_range",
        "salvage_name": f"{stage}_salvage",
        "tag": f"$counterfoil_{shape_id}$",
        "typed": typed,
        # What is checked only at commit would fail the whole chunk there, when no row can be named any more.
        "immediate": f"set constraints {deferred} immediate;" if deferred else "",
        "same_key": " and ".join(f"d.{name} = s.{place}" for name, place in keys),
        "absent": f"d.{keys[0][0]} is null",
        "differs": " or ".join(_differs(compared, staged, others) + revive) or "false",
        "columns": listed([*names, *times]),
        "values": ", ".join(
            [f"c{place}" for place in range(len(names))] + [_moment(shape, name, "$1") for name in times]
        ),
        "key": listed(destination.key),
        "key_out": ", ".join(f"d.{name} as {place}" for name, place in keys),
        "written_key": written_key,
        "is_new": "d.xmax = 0" if tells else "null::boolean",
        "new_rows": "written where is_new" if tells else f"{joined} c.absent",
        "old_rows": "written where not is_new" if tells else f"{joined} not c.absent",
        "action": action,
    }


def _soft_sql(destination: Destination, shape: Shape, table: str) -> dict[str, str]:
    if destination.deletes is not Deletes.SOFT or destination.deleted_column is None:
        return {"overlap": "", "soft_delete": ""}
    key, deleted = quoted(destination.key[0]), quoted(destination.deleted_column)
    marked = [name for name in (destination.deleted_column, destination.updated_column) if name]
    marks = ", ".join(f"{quoted(name)} = {_moment(shape, name, '$2')}" for name in marked)
    text = shape.columns[destination.key[0]].kind in ("text", "varchar")
    parts = {"table": table, "key": key, "deleted": deleted, "marks": marks, "bytewise": ' collate "C"' if text else ""}
    return {"overlap": _OVERLAP.format(**parts), "soft_delete": _SOFT_DELETE.format(**parts)}
