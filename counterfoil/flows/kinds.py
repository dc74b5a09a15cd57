"""The kinds of value that flow files and mappings share: durations, sizes, names, paths, time zones, cron, `${NAME}`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from counterfoil.flows.paths import PATH_REMEDY, join_path, parse_path
from counterfoil.flows.shape import BAD, Kind, scalar_kind
from counterfoil.flows.yamlfile import Node, Report, did_you_mean

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_SIZES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_SIZE = re.compile(r"(\d{1,9})(B|KB|MB|GB)", re.IGNORECASE)
DURATION_REMEDY = "Write a number and a unit without a space: 250ms, 5s, 3m, 2h or 7d."
MAX_NAME = 63  # bytes of a name in PostgreSQL; it cuts longer ones silently


def _duration_of(value: Any) -> timedelta:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > 3650 * 86400:
        raise ValueError
    return timedelta(seconds=seconds)


def duration(*, zero: bool = False) -> Kind:
    def check(value: Any) -> timedelta:
        given = _duration_of(value)
        if not given and not zero:
            raise ValueError
        return given

    pattern = r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)$"
    needed = DURATION_REMEDY if zero else f"{DURATION_REMEDY[:-1]}; more than nothing, at most 3650d."
    return scalar_kind(check, needed, {"type": "string", "pattern": pattern})


def duration_text() -> Kind:
    """A duration that stays text, where all values of a section are text; `duration_of` reads it."""
    kind = duration()

    def read(node: Node, report: Report, label: str) -> Any:
        return BAD if kind.read(node, report, label) is BAD else node.value

    return Kind(read, kind.schema)


def duration_of(text: str) -> timedelta:
    """A duration as written in a file. Raises ValueError."""
    return _duration_of(text)


def lookback() -> Kind:
    """A duration, or `all`, which is None."""
    return scalar_kind(
        lambda value: None if value == "all" else _duration_of(value),
        f"{DURATION_REMEDY[:-1]}; or `all` for everything there is.",
        {"type": "string"},
    )


def size() -> Kind:
    def check(value: Any) -> int:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None or not int(match[1]):
            raise ValueError
        return int(match[1]) * _SIZES[match[2].upper()]

    return scalar_kind(
        check,
        "Write a whole number and a unit without a space: 512KB, 64MB or 1GB.",
        {"type": "string", "pattern": r"^\d{1,9}([KMG]?[Bb]|[kmg][Bb])$"},
    )


def matching(pattern: str, needed: str, *, most: int = 255) -> Kind:
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value) or len(value.encode()) > most:
            raise ValueError
        return value

    return scalar_kind(check, needed, {"type": "string", "pattern": f"^{pattern}$", "maxLength": most})


def column() -> Kind:
    needed = f"A column is letters, digits and _ (not a digit first), at most {MAX_NAME} characters."
    return matching(r"[A-Za-z_][A-Za-z0-9_]*", needed, most=MAX_NAME)


def index_column() -> Kind:
    needed = "Write a column, or a column and `desc`: created_at desc."
    return matching(r"[A-Za-z_][A-Za-z0-9_]*( (asc|desc))?", needed, most=MAX_NAME + 5)


_OURS = ("counterfoil", "pg_catalog", "information_schema", "pg_toast")


def qualified_table() -> Kind:
    """`schema.table`, or `table` of public: a pair."""
    part = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

    def check(value: Any) -> tuple[str, str]:
        names = value.split(".") if isinstance(value, str) else []
        parts = ["public", *names] if len(names) == 1 else names
        if len(parts) != 2 or not all(part.fullmatch(name) and len(name) <= MAX_NAME for name in parts):
            raise ValueError
        if parts[0].lower() in _OURS or parts[0].lower().startswith("pg_"):
            raise ValueError(f"The schema `{parts[0]}` is not for your tables.")
        return parts[0], parts[1]

    needed = f"Write schema.table, such as public.customers: letters, digits and _, each at most {MAX_NAME} characters."
    return scalar_kind(
        check, needed, {"type": "string", "pattern": r"^([A-Za-z_][A-Za-z0-9_]*\.)?[A-Za-z_][A-Za-z0-9_]*$"}
    )


def zone() -> Kind:
    def read(node: Node, report: Report, label: str) -> Any:
        try:
            ZoneInfo(node.value)
        except Exception:  # zoneinfo raises half a dozen kinds for names that are none
            near = did_you_mean(str(node.value), ["UTC", *sorted(available_timezones())]).partition(" Known:")[0]
            meant = f"{near} " if near.startswith("Did you") else ""
            report.fault(
                node.place,
                f"{label} is `{str(node.value)[:60]}`, no time zone.",
                f"{meant}Write UTC or Pacific/Auckland.",
            )
            return BAD
        return node.value

    return Kind(read, {"type": "string"})


CRON_REMEDY = "Write five fields (minute, hour, day, month, weekday): `*/5 * * * *` is every five minutes."


def cron() -> Kind:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value.split()) != 5:
            raise ValueError
        try:
            next(CronSim(value, datetime(2026, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            why = str(error).lower() or "its time never comes"
            raise ValueError(f"The schedule `{value[:60]}` cannot be read: {why}.") from None
        return " ".join(value.split())

    return scalar_kind(check, CRON_REMEDY, {"type": "string"})


def record_path() -> Kind:
    """A path in a record; a list of names is one written out."""

    def read(node: Node, report: Report, label: str) -> Any:
        given = node.value
        if isinstance(given, list) and given and all(isinstance(part.value, str) and part.value for part in given):
            return join_path([part.value for part in given])
        try:
            parse_path(given if isinstance(given, str) else "")
        except ValueError:
            report.fault(node.place, f"{label} is no path to a value.", PATH_REMEDY)
            return BAD
        return given

    return Kind(read, {"type": ["string", "array"], "items": {"type": "string"}})


REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
REFERENCE_REMEDY = 'Write "${NAME}" (letters, digits and _), the name of an environment variable.'


def secret() -> Kind:
    """A `${NAME}` and nothing else. What stands there instead is never shown."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not REFERENCE.fullmatch(value):
            raise ValueError(
                "A secret stands in clear here; it would be in backups, in version control and in every copy of this file."
            )
        return value

    needed = 'Put it in an environment variable and write its name: "${API_TOKEN}". Then change the secret.'
    return scalar_kind(check, needed, {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"}, secret=True)


def strptime_format() -> Kind:
    def check(value: Any) -> str:
        if not isinstance(value, str) or "%" not in value:
            raise ValueError
        moment = datetime(2026, 11, 23, 17, 45, 59)
        if datetime.strptime(moment.strftime(value), value).date() != moment.date():
            raise ValueError(f"The format `{value[:60]}` does not hold day, month and year.")
        return value

    def careful(value: Any) -> str:
        try:
            return check(value)
        except ValueError as error:
            raise (error if str(error).startswith("The format") else ValueError()) from None

    needed = "Write how dates look: `%B %d %Y` reads November 16 2018, `%d/%m/%Y %H:%M` reads 16/11/2018 09:30."
    return scalar_kind(careful, needed, {"type": "string"})


def snake_case(name: str) -> str:
    """`customerId` is `customer_id`, `HTTPCode` is `http_code`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
