"""Records to rows: the hot path of a sync. A mapping is compiled once; then each record costs one typed decode and one function call.

Two ways give the same rows. The fast one (`fast.py`) takes the records that are as declared, and gives up on any doubt; the careful
one here then finds the row all the same, or which field is wrong and why. Nothing here raises for what stands in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Raw

from counterfoil.flows.fast import compile_fast
from counterfoil.flows.flow import FieldSpec, FieldType, RecordMapping
from counterfoil.flows.paths import join_path, parse_path
from counterfoil.flows.rows import MAX_KEY, Row, RowFault
from counterfoil.flows.values import BadValueError, field_converter, kind, missing, moment_maker, scalar, text_of

_object = msgspec.json.Decoder(dict[str, Raw]).decode
_anything = msgspec.json.Decoder(dict[str, Any]).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
Lookup = Callable[[tuple[str, ...]], Raw | None]
Careful = Callable[[bytes], "Row | RowFault"]


@dataclass(frozen=True, slots=True)
class Mapper:
    """A compiled mapping. `columns` and `names` (internal) are in the order of `Row.values`."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    json_at: tuple[int, ...]  # positions of json values, which a row holds as text
    fast: Callable[[bytes], Row] | None  # raises on any doubt
    careful: Careful
    entry: Mapper | None = None

    def map_page(self, entries: Sequence[bytes]) -> list[Row | RowFault]:
        """One result per entry, in order."""
        fast, careful = self.fast, self.careful
        if fast is None:
            return [careful(raw) for raw in entries]
        out: list[Row | RowFault] = []
        for raw in entries:
            try:
                out.append(fast(raw))
            except Exception:  # whatever it is, the careful way says what
                out.append(careful(raw))
        return out

    def map_one(self, raw: bytes) -> Row | RowFault:
        """One record as one row."""
        return self.map_page((raw,))[0]

    def list_entry(self, raw: bytes) -> tuple[str, datetime | None] | RowFault:
        """Key and time of change of an entry of a list of ids."""
        found = (self.entry or self).map_one(raw)
        return found if isinstance(found, RowFault) else (found.key, found.changed_at)

    def fields(self, row: Row) -> dict[str, Any]:
        """Internal name to value, for decisions; json decoded."""
        values = dict(zip(self.names, row.values, strict=True))
        for at in self.json_at:
            if row.values[at] is not None:
                values[self.names[at]] = msgspec.json.decode(row.values[at])
        return values


def compile_mapping(
    mapping: RecordMapping,
    *,
    key_path: str,
    changed_path: str | None = None,
    timezone: str = "UTC",
    function: Callable[..., Any] | None = None,
) -> Mapper:
    """Compile once per run. `function` is the mapping's own, given where `mapping.function` is.

    Raises ValueError for paths, defaults or zones that are none; `load_project` has found those before.
    """
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    read = () if mapping.function else mapping.fields  # a function's fields stand in no record
    head = _Head(parse_path(key_path), parse_path(changed_path) if changed_path else None, zone, read)
    fields = [_Field.of(spec, zone, mapping) for spec in mapping.fields]
    fast = None if mapping.function else compile_fast(mapping, head.key, head.changed, head.format, zone)
    careful = _mapped_by(function, head, fields) if function else _careful(head, fields)
    nothing = RecordMapping(mapping.name, ())
    entry = Mapper((), (), (), compile_fast(nothing, head.key, head.changed, head.format, zone), _careful(head, []))
    specs = mapping.fields
    json_at = tuple(at for at, spec in enumerate(specs) if spec.type is FieldType.JSON)
    return Mapper(tuple(s.column for s in specs), tuple(s.internal for s in specs), json_at, fast, careful, entry)


# --- the careful way ----------------------------------------------------------------------------------------------


class _Head:
    """Key and time of change of a record."""

    def __init__(
        self, key: tuple[str, ...], changed: tuple[str, ...] | None, zone: tzinfo, fields: Sequence[FieldSpec]
    ) -> None:
        self.key, self.changed = key, changed
        dated = (FieldType.DATE, FieldType.DATETIME)
        same = (spec.format for spec in fields if spec.type in dated and parse_path(spec.external) == changed)
        self.format = next(same, None)  # the time of change is written as the mapping says
        self.moment = moment_maker(self.format, zone)

    def key_of(self, find: Lookup) -> str:
        raw = find(self.key)
        value = None if raw is None else scalar(bytes(raw))
        if value is None or value == "":
            raise BadValueError("no_key", missing(raw).problem.replace("it is required", "it is the record's key"))
        key = text_of(value)
        if "\0" in key:
            raise BadValueError("nul_character", "holds a NUL character, which PostgreSQL cannot store.")
        if len(key) > MAX_KEY:
            raise BadValueError("too_long", f"has {len(key)} characters; a key has at most {MAX_KEY}.")
        return key

    def changed_of(self, find: Lookup) -> datetime | None:
        raw = find(self.changed) if self.changed else None
        value = None if raw is None else scalar(bytes(raw))
        return None if value is None or value == "" else self.moment(value)


@dataclass(frozen=True, slots=True)
class _Field:
    path: tuple[str, ...]
    shown: str
    value_of: Callable[[Raw | None], Any]

    def found_by(self, find: Lookup) -> Any:
        return self.value_of(find(self.path))

    @classmethod
    def of(cls, spec: FieldSpec, zone: tzinfo, mapping: RecordMapping) -> _Field:
        convert = field_converter(spec, zone, mapping.empty_is_null)
        if mapping.function:
            return cls((spec.internal,), spec.internal, convert)
        return cls(parse_path(spec.external), spec.external, convert)


def _careful(head: _Head, fields: Sequence[_Field]) -> Careful:
    def careful(raw: bytes) -> Row | RowFault:
        top = _opened(raw)
        if isinstance(top, RowFault):
            return top
        find = _finder(top)
        return _row(head, find, fields, find)

    return careful


def _opened(raw: bytes) -> dict[str, Raw] | RowFault:
    try:
        return _object(raw)
    except _UNREADABLE:
        pass
    try:
        msgspec.json.decode(raw)
    except _UNREADABLE:
        return RowFault(None, "", "not_json", "The record is not valid JSON.")
    return RowFault(None, "", "wrong_type", f"The record is {kind(raw)} where an object is needed.")


def _finder(top: dict[str, Raw]) -> Lookup:
    opened: dict[tuple[str, ...], dict[str, Raw]] = {(): top}

    def inside(path: tuple[str, ...]) -> dict[str, Raw]:
        if path not in opened:
            raw = inside(path[:-1]).get(path[-1])
            what = "null" if raw is None else kind(bytes(raw))
            if what not in ("null", "an object"):
                raise BadValueError("wrong_type", f"is {what} where an object is needed.", join_path(path))
            opened[path] = {} if raw is None or what == "null" else _object(raw)
        return opened[path]

    return lambda path: inside(path[:-1]).get(path[-1])


def _row(head: _Head, find: Lookup, fields: Sequence[_Field], find_field: Lookup) -> Row | RowFault:
    """The row, or its first fault with the names of the others. The key is judged first, so that a fault can name its record."""
    faults: list[tuple[str, BadValueError]] = []

    def tried(shown: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except BadValueError as bad:
            faults.append((bad.where or shown, bad))
        except _UNREADABLE:
            faults.append((shown, BadValueError("not_json", "is not valid JSON.")))
        return None

    key = tried(join_path(head.key), lambda: head.key_of(find))
    changed = tried(join_path(head.changed or ("",)), lambda: head.changed_of(find))
    values = tuple(tried(f.shown, partial(f.found_by, find_field)) for f in fields)
    return _faulted(key, faults) if faults else Row(key, changed, values)


def _faulted(key: str | None, faults: list[tuple[str, BadValueError]]) -> RowFault:
    where, bad = faults[0]
    others = list(dict.fromkeys(place for place, _ in faults[1:] if place != where))
    more = f" Also wrong: {', '.join(f'`{place}`' for place in others)}." if others else ""
    return RowFault(key, where, bad.fault, f"`{where}` {bad.problem}{more}")


# --- by a named function ------------------------------------------------------------------------------------------


def _mapped_by(function: Callable[..., Any], head: _Head, fields: Sequence[_Field]) -> Careful:
    name = getattr(function, "__name__", "function")
    known = {field.shown for field in fields}

    def careful(raw: bytes) -> Row | RowFault:
        top = _opened(raw)
        if isinstance(top, RowFault):
            return top
        found = _row(head, _finder(top), (), lambda path: None)
        if isinstance(found, RowFault):
            return found
        try:
            given = function(_anything(raw))
            made = {str(at): Raw(msgspec.json.encode(value)) for at, value in given.items()}
        except Exception as error:  # its text may quote the record, so only its type is told
            return RowFault(found.key, "", "mapper_failed", f"Function `{name}` failed with {type(error).__name__}.")
        if made.keys() - known:
            extra = ", ".join(f"`{at}`" for at in sorted(made.keys() - known))
            return RowFault(
                found.key, "", "mapper_failed", f"Function `{name}` gave {extra}, not declared in the mapping."
            )
        return _row(head, _finder(top), fields, lambda path: made.get(path[0]))

    return careful
