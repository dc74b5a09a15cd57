"""One value of a record into one value of a column: the rules of each field type, and the sentence where a value breaks them.

Input is a JSON scalar as Python has it; a number that is not whole comes as `Number`, its text as written, so that nothing passes
through a float. A sentence names types and limits, never the value: values may be personal data, and sentences are logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from counterfoil.flows.flow import FieldSpec, FieldType

INT64 = 2**63
DECIMAL_DIGITS = 131_072  # PostgreSQL's numeric, before the point
Converter = Callable[[Any], Any]  # raises ValueError subclasses only


class BadValueError(ValueError):
    """`fault` is the stable word, `problem` goes on after "`path` ", `where` is set where it is not the field's own path."""

    def __init__(self, fault: str, problem: str, where: str = "") -> None:
        super().__init__(fault, problem)
        self.fault = fault
        self.problem = problem
        self.where = where


class Number(str):
    """The text of a JSON number that is not whole, as written."""

    __slots__ = ()


# --- what a raw JSON value is -----------------------------------------------------------------------------------

_KINDS = {
    ord('"'): "a text",
    ord("{"): "an object",
    ord("["): "a list",
    ord("n"): "null",
    ord("t"): "true",
    ord("f"): "false",
}
_KIND_OF: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    Number: "a number",
    float: "a number",
}


def kind(raw: bytes) -> str:
    """What stands in `raw`, in a reader's words."""
    return _KINDS.get(raw.lstrip()[:1][0] if raw.strip() else 0, "a number")


def scalar(raw: bytes) -> Any:
    """The scalar in `raw`; None for null. Raises BadValueError for an object or a list."""
    what = kind(raw)
    if what in ("an object", "a list"):
        raise BadValueError("wrong_type", f"is {what} where a single value is needed.")
    if what != "a number":
        return _decoded(raw)
    text = bytes(raw).strip().decode("ascii")
    if text.lstrip("-").isdigit() and len(text) <= 4000:
        return int(text)
    return Number(text)


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadValueError("not_json", "holds a broken character.") from None


def _wrong(value: object, needed: str) -> BadValueError:
    return BadValueError("wrong_type", f"is {_KIND_OF.get(type(value), 'something else')} where {needed} is needed.")


# --- one function per type; each takes a scalar that is not null --------------------------------------------------


def text_of(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _wrong(value, "a text")
    return str(value)


_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,4000}\s*")


def whole_of(value: Any) -> int:
    """12, "12", 12.0 and "12.0" are twelve; 12.5 is refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if type(value) is str and _WHOLE.fullmatch(value):
        return int(value)
    number = decimal_of(value, "a whole number")
    if number.adjusted() > 40:
        raise BadValueError("out_of_range", "is larger than a whole number may be (64 bit).")
    if number != number.to_integral_value():
        raise BadValueError("wrong_type", "has a fraction where a whole number is needed.")
    return int(number)


def decimal_of(value: Any, needed: str = "a number") -> Decimal:
    """Exact, from the text. NaN and Infinity are refused."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise _wrong(value, needed)
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise BadValueError("wrong_type", f"is a text that is not {needed}.") from None
    if not number.is_finite():
        raise BadValueError("wrong_type", f"is NaN or Infinity where {needed} is needed.")
    if number.adjusted() >= DECIMAL_DIGITS:
        raise BadValueError("out_of_range", "has more digits than PostgreSQL can store.")
    return number


_TRUE = ("true", "t", "yes", "y", "1", "on")
_FALSE = ("false", "f", "no", "n", "0", "off")
BOOLEANS: dict[Any, bool] = {
    **{form(word): True for word in _TRUE for form in (str, str.upper, str.capitalize)},
    **{form(word): False for word in _FALSE for form in (str, str.upper, str.capitalize)},
    1: True,
    0: False,
}


def boolean_of(value: Any) -> bool:
    if isinstance(value, Number):
        value = float(value) if value in ("1.0", "0.0") else value
    found = BOOLEANS.get(value)
    if found is None:
        raise BadValueError("wrong_type", "is not one of true, false, yes, no, Y, N, 1, 0.")
    return found


def date_maker(pattern: str | None) -> Callable[[Any], date]:
    """Dates as ISO 8601 or by a strptime pattern. A time of day is dropped: the date counts as it is written."""
    read = _reader(pattern, "a date")

    def date_of(value: Any) -> date:
        if type(value) is not str:
            raise _wrong(value, "a date")
        return read(value).date()

    return date_of


def moment_maker(pattern: str | None, zone: tzinfo) -> Callable[[Any], datetime]:
    """Moments in UTC. One that names no zone is in `zone`, the source's."""
    read = _reader(pattern, "a date and time")

    def moment_of(value: Any) -> datetime:
        if type(value) is not str:
            raise _wrong(value, "a date and time")
        moment = read(value)
        if moment.tzinfo is UTC:
            return moment
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        try:
            return moment.astimezone(UTC)
        except OverflowError:
            raise BadValueError("out_of_range", "is outside the years 1 to 9999.") from None

    return moment_of


def _reader(pattern: str | None, needed: str) -> Callable[[str], datetime]:
    def read_iso(text: str) -> datetime:
        try:
            return datetime.fromisoformat(text.strip())
        except ValueError:
            raise _bad_date(
                text, f"is not {needed} of the form 2026-01-31{'T09:30:00Z' * ('time' in needed)}."
            ) from None

    def read_pattern(text: str) -> datetime:
        try:
            return _parsed(text.strip(), pattern or "")
        except ValueError:
            raise _bad_date(text, f"is not {needed} of the form `{pattern}`.") from None

    return read_pattern if pattern else read_iso


@lru_cache(maxsize=20_000)
def _parsed(text: str, pattern: str) -> datetime:
    """Dates repeat, and strptime takes 5 microseconds."""
    return datetime.strptime(text, pattern)


_FAR_YEAR = re.compile(r"\s*(?:[+-]\d{4,}|\d{5,}|0000)-\d\d-\d\d")


def _bad_date(text: str, problem: str) -> BadValueError:
    if _FAR_YEAR.match(text):
        return BadValueError("out_of_range", "is a date outside the years 1 to 9999.")
    return BadValueError("bad_date", problem)


def json_text(raw: bytes) -> str | None:
    """JSON as text for a jsonb column; null is NULL. Raises BadValueError where PostgreSQL would refuse it."""
    try:
        msgspec.json.decode(raw)
        text = bytes(raw).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadValueError(
            "not_json", "is JSON that PostgreSQL cannot store (a broken character or number)."
        ) from None
    if "\\u0000" in text and _has_nul(msgspec.json.decode(raw)):
        raise BadValueError("nul_character", "holds a NUL character, which PostgreSQL cannot store.")
    return None if text.strip() == "null" else text


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_nul(part) for part in value)


# --- a field: null, empty, default and limits around its type -----------------------------------------------------


def type_converter(spec: FieldSpec, zone: tzinfo) -> Converter:
    """The function from a scalar that is not null to the value of `spec`'s type (json has none)."""
    makers: dict[FieldType, Callable[[], Converter]] = {
        FieldType.STRING: lambda: text_of,
        FieldType.INTEGER: lambda: whole_of,
        FieldType.DECIMAL: lambda: decimal_of,
        FieldType.BOOLEAN: lambda: boolean_of,
        FieldType.DATE: lambda: date_maker(spec.format),
        FieldType.DATETIME: lambda: moment_maker(spec.format, zone),
    }
    return makers[spec.type]()


def default_of(spec: FieldSpec, zone: tzinfo) -> Any:
    """The default as a value of the column, or None. Raises BadValueError for one that is not of the type."""
    if spec.default is None:
        return None
    encoded = msgspec.json.encode(spec.default)
    if spec.type is FieldType.JSON:
        return json_text(encoded)
    value = scalar(encoded)
    return check_limits(spec, type_converter(spec, zone)(value))


def field_converter(spec: FieldSpec, zone: tzinfo, empty_is_null: bool) -> Callable[[Raw | None], Any]:
    """The careful way for one field: from the raw JSON (None: not there) to the value. Raises BadValueError."""
    convert = None if spec.type is FieldType.JSON else type_converter(spec, zone)
    default = default_of(spec, zone)

    def value_of(raw: Raw | None) -> Any:
        value: Any = None
        if raw is not None:
            value = json_text(bytes(raw)) if convert is None else scalar(bytes(raw))
        if convert is not None and value is not None:
            blank = value == "" and (empty_is_null or spec.type is not FieldType.STRING)
            value = None if blank else convert(value)
        if value is None:
            value = default
        if spec.required and (value is None or value == ""):
            raise missing(raw)
        return check_limits(spec, value)

    return value_of


def missing(raw: Raw | None) -> BadValueError:
    state = "is missing" if raw is None else "is null" if kind(bytes(raw)) == "null" else "is empty"
    return BadValueError("missing", f"{state}, and it is required.")


def check_limits(spec: FieldSpec, value: Any) -> Any:
    """`value` itself, or BadValueError where it is over a limit of the field or of PostgreSQL."""
    if value is None:
        return None
    if spec.type is FieldType.STRING and "\0" in value:
        raise BadValueError("nul_character", "holds a NUL character, which PostgreSQL cannot store.")
    if spec.max_length is not None and len(value) > spec.max_length:
        raise BadValueError("too_long", f"has {len(value)} characters, more than the {spec.max_length} allowed.")
    if spec.type is FieldType.INTEGER and not -INT64 <= value < INT64:
        raise BadValueError("out_of_range", "is larger than a whole number may be (64 bit).")
    if spec.minimum is not None and value < spec.minimum:
        raise BadValueError("out_of_range", f"is less than the minimum {spec.minimum:g}.")
    if spec.maximum is not None and value > spec.maximum:
        raise BadValueError("out_of_range", f"is more than the maximum {spec.maximum:g}.")
    return value
