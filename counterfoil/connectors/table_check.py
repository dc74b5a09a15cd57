"""What a column of the destination can hold, told before PostgreSQL is asked: limits from the catalog, checked column by column.

Whole columns are looked at with the interpreter's own loops; only a column that has something odd is walked value by value.
No SQL and no connection here. `prepare` also turns values into what the wire wants (JSON as text, times in the column's own kind).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import msgspec

from counterfoil.model import ports

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RefusedRow(ports.RefusedRow):
    """A row that the table can't hold. `problem` names column or constraint and never a value; `fault` is a short stable word."""

    sqlstate: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one column can hold. `kind` is PostgreSQL's name of the type below any domain: text, int4, numeric ..."""

    column: str
    kind: str
    nullable: bool = True
    length: int | None = None  # varchar(n), char(n): characters
    precision: tuple[int, int] | None = None  # numeric(p, s)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Rows as the wire wants them, and what was refused. `rows` keeps every place: a refused row's values mean nothing."""

    rows: Sequence[Row]
    refused: tuple[RefusedRow, ...]


class _BadValue(Exception):
    def __init__(self, sqlstate: str, fault: str, problem: str) -> None:
        super().__init__(problem)
        self.sqlstate, self.fault, self.problem = sqlstate, fault, problem


_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "varchar": (str,),
    "bpchar": (str,),
    "citext": (str,),
    "uuid": (str, UUID),
    "int2": (int,),
    "int4": (int,),
    "int8": (int,),
    "numeric": (Decimal, int, float),
    "float4": (Decimal, int, float),
    "float8": (Decimal, int, float),
    "bool": (bool,),
    "date": (date,),
    "timestamptz": (datetime,),
    "timestamp": (datetime,),
}
_INTEGERS = {"int2": 1 << 15, "int4": 1 << 31, "int8": 1 << 63}
_FLOATS = {"float4": Decimal("3.4028234e38"), "float8": Decimal("1.797693134862315e308")}
_NUMERIC_END = Decimal("1e131072")  # PostgreSQL holds 131,072 digits before the point
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_JSON = msgspec.json.Encoder(decimal_format="number")


def _text(limit: Limit, value: str) -> str:
    if "\x00" in value or not _encodable(value):
        raise _BadValue(
            "22021", "invalid_text", f"Column `{limit.column}`: the text holds a character PostgreSQL can't store."
        )
    # PostgreSQL itself cuts blanks beyond the length without a word.
    if limit.length is not None and len(value.rstrip(" ")) > limit.length:
        raise _BadValue("22001", "too_long", f"Column `{limit.column}` holds no more than {limit.length} characters.")
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(limit: Limit, value: int) -> int:
    bound = _INTEGERS[limit.kind]
    if not -bound <= value < bound:
        raise _out_of_range(limit)
    return value


def _out_of_range(limit: Limit) -> _BadValue:
    return _BadValue("22003", "out_of_range", f"Column `{limit.column}`: the number is outside what the column holds.")


def _numeric_bound(precision: tuple[int, int] | None) -> Decimal:
    if precision is None:
        return _NUMERIC_END
    digits, scale = precision
    # The first number that rounds up to one digit too many.
    return Decimal(10) ** (digits - scale) - Decimal(5).scaleb(-scale - 1)


def _numeric(limit: Limit, value: Decimal | float) -> Decimal:
    number = value if isinstance(value, Decimal) else Decimal(repr(value))
    if not number.is_nan() and abs(number) >= _numeric_bound(limit.precision):
        raise _out_of_range(limit)
    return number


def _float(limit: Limit, value: Decimal | float) -> float:
    finite = Decimal(value).is_finite()
    # What is too large for the column would silently become infinity, or break the encoder.
    if finite and abs(Decimal(value)) > _FLOATS[limit.kind]:
        raise _out_of_range(limit)
    return float(value)


def _uuid(limit: Limit, value: str | UUID) -> UUID:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except ValueError:
        raise _BadValue("22P02", "wrong_type", f"Column `{limit.column}`: the text is no UUID.") from None


def _json(limit: Limit, value: Any) -> str:
    try:
        text = _JSON.encode(value).decode()
    except (TypeError, ValueError, OverflowError):
        raise _BadValue("22P02", "wrong_type", f"Column `{limit.column}`: the value is no JSON.") from None
    if "\\u0000" in text and _NUL_IN_JSON.search(text):
        raise _BadValue(
            "22P05", "invalid_text", f"Column `{limit.column}`: the JSON holds a character PostgreSQL can't store."
        )
    return text


def _with_zone(limit: Limit, value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:  # the first or last day of the calendar, and another zone
        raise _BadValue(
            "22008", "out_of_range", f"Column `{limit.column}`: the time is outside what the column holds."
        ) from None


def _without_zone(limit: Limit, value: datetime) -> datetime:
    return _with_zone(limit, value).replace(tzinfo=None)


def _same(limit: Limit, value: Any) -> Any:
    return value


_ONE: dict[str, Callable[[Limit, Any], Any]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), _text),
    **dict.fromkeys(_INTEGERS, _integer),
    **dict.fromkeys(_FLOATS, _float),
    "numeric": _numeric,
    "uuid": _uuid,
    "json": _json,
    "jsonb": _json,
    "timestamptz": _with_zone,
    "timestamp": _without_zone,
}


def _clean_text(limit: Limit, values: Sequence[Any]) -> bool:
    joined = "".join(values)
    if "\x00" in joined or not (joined.isascii() or _encodable(joined)):
        return False
    return limit.length is None or max(map(len, values)) <= limit.length


def _clean_integers(limit: Limit, values: Sequence[Any]) -> bool:
    bound = _INTEGERS[limit.kind]
    return bool(-bound <= min(values) and max(values) < bound)


def _clean_decimals(limit: Limit, values: Sequence[Any]) -> bool:
    if set(map(type, values)) != {Decimal}:
        return False
    try:
        return bool(max(map(abs, values)) < _numeric_bound(limit.precision))
    except InvalidOperation:  # not a number, which has no place in an order
        return False


# True: every value may go as it is. Kinds that need converting aren't here.
_CLEAN: dict[str, Callable[[Limit, Sequence[Any]], bool]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), _clean_text),
    **dict.fromkeys(_INTEGERS, _clean_integers),
    "numeric": _clean_decimals,
    "timestamptz": lambda _, values: all(value.tzinfo and 1 < value.year < 9999 for value in values),
    **dict.fromkeys(("bool", "date"), lambda _, __: True),
}


def _is_clean(limit: Limit, values: Sequence[Any]) -> bool:
    """Nothing to refuse and nothing to convert in the whole column."""
    clean, kinds = _CLEAN.get(limit.kind), set(map(type, values))
    if clean is None or not (limit.nullable or type(None) not in kinds):
        return False
    if not kinds - {type(None)} <= set(_TYPES[limit.kind]):
        return False
    present = [value for value in values if value is not None] if type(None) in kinds else values
    return not present or clean(limit, present)


def _one(limit: Limit, value: Any) -> Any:
    if value is None:
        if limit.nullable:
            return None
        raise _BadValue("23502", "missing_value", f"Column `{limit.column}` must have a value.")
    types = _TYPES.get(limit.kind)
    odd = types is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types))
    if odd or (limit.kind == "date" and isinstance(value, datetime)):
        raise _BadValue("42804", "wrong_type", f"Column `{limit.column}` ({limit.kind}) can't hold this kind of value.")
    return _ONE.get(limit.kind, _same)(limit, value)


def _walk(limit: Limit, values: Sequence[Any], refused: dict[int, RefusedRow]) -> Iterator[Any]:
    for index, value in enumerate(values):
        try:
            yield _one(limit, value)
        except _BadValue as bad:
            refused.setdefault(index, RefusedRow(index, bad.fault, bad.problem, bad.sqlstate))
            yield None


def prepare(limits: Sequence[Limit], rows: Sequence[Row]) -> Prepared:
    """Rows as the wire wants them; each row that can't be held is refused once, for its first bad column."""
    refused: dict[int, RefusedRow] = {}
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    converted = False
    for place, (limit, values) in enumerate(zip(limits, columns, strict=True) if rows else ()):
        if not _is_clean(limit, values):
            columns[place] = list(_walk(limit, values, refused))
            converted = True
    ready = list(zip(*columns, strict=True)) if converted else rows
    return Prepared(ready, tuple(refused[index] for index in sorted(refused)))
