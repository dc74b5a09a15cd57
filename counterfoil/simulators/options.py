"""What every simulator can be told: one frozen record of settings, and the command line made from it.

Each setting carries its own help text and parser, so the command line and the reference page cannot drift from the code.
A simulator adds settings by subclassing `Common`; it never reads a flag by itself. No socket and no state lives here.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

O = TypeVar("O", bound="Common")  # noqa: E741

RECORDS = frozenset(
    (
        "data",
        "key",
        "records",
        "changed_over",
        "change_field",
        "required_field",
        "typed_field",
        "score_field",
        "huge_bytes",
    )
)
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def option(default: Any, text: str, parse: Callable[[str], Any] = str, many: bool = False) -> Any:
    """A setting with its help text; `parse` reads it from the command line, `many` lets the flag be repeated."""
    return field(default=default, metadata={"help": text, "parse": parse, "many": many})


def duration(text: str) -> float:
    """Seconds of "150ms", "2s", "5min", "1h" or "5d"; a bare number is seconds. ValueError when it is none of them."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s|min|m|h|d)?\s*", text)
    if not found:
        raise ValueError(f"{text!r} is no duration. Write for example 150ms, 2s, 1h or 5d.")
    return float(found[1]) * _UNITS[found[2] or "s"]


def span(text: str) -> tuple[float, float]:
    """Two durations in seconds: "50-150ms" gives (0.05, 0.15), "2s" gives (2, 2). The unit of the end rules both."""
    low, dash, high = text.partition("-")
    if not dash:
        return duration(low), duration(low)
    unit = re.sub(r"[0-9.\s]", "", high)
    return duration(low if re.search(r"[a-z]", low) else low + unit), duration(high)


def instant(text: str) -> float:
    """Epoch seconds of an ISO date or time; without an offset it is UTC. ValueError when it is none."""
    moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def limit(text: str) -> tuple[int, float]:
    """Calls and seconds of "60/min", "10/s" or "100/15s"."""
    calls, slash, per = text.partition("/")
    if not slash or not calls.strip().isdigit():
        raise ValueError(f"{text!r} is no limit. Write for example 60/min or 10/s.")
    return int(calls), duration(per if per.strip()[:1].isdigit() else "1" + per)


@dataclass(frozen=True, kw_only=True)
class Common:
    """Settings that every simulator has; `without` are those that mean nothing to one. Durations are seconds."""

    without: ClassVar[frozenset[str]] = frozenset()

    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(0, "port to listen on; 0 takes a free one", int)
    data: str = option("", "CSV or JSONL file to serve; without it the simulator's own small data")
    key: str = option("", "column of the data that names a record")
    records: int = option(0, "how many records of its own data; 0 for the small set the tests know", int)
    seed: int = option(0, "seed of every draw; the same seed and the same requests give the same faults", int)
    faults: tuple[str, ...] = option((), "NAME, NAME=RATE or NAME=RATE@ENDPOINT; may be repeated", str, True)
    max_in_a_row: int = option(2, "most passing faults on one key in a row; 0 for no limit", int)
    burst_length: int = option(10, "requests hit by one burst, and by one spell of expired_token", int)
    latency: tuple[float, float] = option((0.0, 0.0), "every answer takes this long, for example 50-150ms", span)
    slow: tuple[float, float] = option((1.0, 2.0), "how long the fault `latency` takes", span)
    hang: float = option(120.0, "how long the fault `timeout` keeps a caller waiting", duration)
    drip: float = option(5.0, "how long the fault `slow_body` takes to send a body", duration)
    retry_after: float = option(1.0, "seconds that a 429 asks the caller to wait", duration)
    retry_after_form: str = option("seconds", "how Retry-After is written: seconds, date or both (by turns)")
    now: float | None = option(None, "the time it shall be at start; without it the real clock", instant)
    changed_over: float = option(5 * 86400.0, "the records' changed-at lies spread over this long before now", duration)
    change_field: str = option("", "field that a change touches; without it the first that looks like a name")
    required_field: str = option("", "field that `missing_required` takes away; without it the first beside the key")
    typed_field: str = option("", "field that `wrong_type` spoils; without it the last one")
    score_field: str = option("quality_score", "field that `score_out_of_range` spoils, where a record has it")
    huge_bytes: int = option(50_000_000, "size of a `huge_record`", int)
    with_parent: bool = option(False, "end when the parent process ends", bool)


def from_arguments(kind: type[O], arguments: Sequence[str] | None, about: str) -> O:
    """Settings from a command line. Exits with 2 and a sentence on a flag that cannot be read, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="counterfoil simulate NAME", usage="%(prog)s [OPTIONS]", description=about, allow_abbrev=False
    )
    for setting in flagged(kind):
        _add_flag(parser, setting.name, setting.default, setting.metadata)
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(parser.parse_args(arguments)).items()
        if value is not None
    }
    return kind(**given)


def flagged(kind: type[Common]) -> Iterator[Field[Any]]:
    """The settings of a simulator that have a flag."""
    return (setting for setting in fields(kind) if setting.name not in kind.without)


def _add_flag(parser: argparse.ArgumentParser, name: str, default: Any, about: Any) -> None:
    flag = flag_name(name)
    if default is False:
        parser.add_argument(flag, dest=name, action="store_true", help=about["help"])
    elif about["many"]:
        parser.add_argument(flag, dest=name, action="append", help=about["help"])
    else:
        parser.add_argument(flag, dest=name, type=about["parse"], help=about["help"] + _told(default))


def _told(default: Any) -> str:
    """Only where it says something the help text does not."""
    return f" (default: {default})" if isinstance(default, str | int | float) and default not in ("", 0) else ""


def flag_name(name: str) -> str:
    """The flag of a setting: `max_in_a_row` is --max-in-a-row; `faults` is --fault and `case_faults` --case-fault, once for each."""
    return "--" + (name[:-1] if name.endswith("faults") else name).replace("_", "-")
