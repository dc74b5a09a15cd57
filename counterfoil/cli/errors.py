"""What an error says at the terminal: the problem, then the remedy, on stderr; with --json one object of a stable form."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from counterfoil.cli.output import SCHEMA_VERSION, encode, say
from counterfoil.model.errors import CounterfoilError, Fault, InvalidFilesError


def told(error: Exception, *, as_json: bool, arguments: Sequence[str]) -> int:
    """Say it; returns the exit code."""
    found = known(error, arguments)
    faults = found.faults if isinstance(found, InvalidFilesError) else ()
    if as_json:
        print(encode({"schema_version": SCHEMA_VERSION, "error": _object(found, faults)}), file=sys.stderr)
    else:
        for fault in faults:
            say(str(fault))
        say(f"Error: {found.problem}")
        if found.remedy:
            say(found.remedy)
    return found.exit_code


def _object(error: CounterfoilError, faults: Sequence[Fault]) -> dict[str, Any]:
    made: dict[str, Any] = {"code": error.code, "message": error.problem, "hint": error.remedy}
    return made | ({"faults": list(faults)} if faults else {})


def known(error: Exception, arguments: Sequence[str] = ()) -> CounterfoilError:
    """What an error of any kind means to whoever reads it."""
    if isinstance(error, CounterfoilError):
        return error
    return _usage(error, arguments) or _file(error) or _database(error) or _ours(error)


def _usage(error: Exception, arguments: Sequence[str]) -> CounterfoilError | None:
    from cyclopts import CycloptsError

    from counterfoil.model.errors import UsageError

    if not isinstance(error, CycloptsError):
        return None
    words: list[str] = []
    for word in arguments:
        if word.startswith("-") or len(words) == 2:
            break
        words.append(word)
    said = " ".join(str(error).split())
    return UsageError(
        said, f"`{' '.join(['counterfoil', *words[: _depth(words)], '--help'])}` shows what may be written."
    )


def _depth(words: Sequence[str]) -> int:
    """How many of these words are the name of a command."""
    from counterfoil.cli.main import COMMANDS

    paths = {command.path for command in COMMANDS} | {command.path.split()[0] for command in COMMANDS}
    return next((n for n in range(len(words), 0, -1) if " ".join(words[:n]) in paths), 0)


def _file(error: Exception) -> CounterfoilError | None:
    """A file or folder of the operating system; lost connections have no name."""
    if not isinstance(error, OSError) or error.filename is None:
        return None
    from counterfoil.model.errors import NotAllowedError

    kind = NotAllowedError if isinstance(error, PermissionError) else CounterfoilError
    return kind(
        f"{error.filename}: {error.strerror}.", "Check the name, the rights of this user, and the room on the disk."
    )


def _database(error: Exception) -> CounterfoilError | None:
    from counterfoil.ledger.pool import is_passing
    from counterfoil.model.errors import ConflictError, NotAllowedError, UnhealthyError, UsageError

    state = getattr(error, "sqlstate", None)
    said = (str(error) or type(error).__name__).splitlines()[0]
    if state == "42501":
        return NotAllowedError(
            f"PostgreSQL does not allow it: {said}.", "`counterfoil doctor` looks at roles and grants."
        )
    if state is not None and state.startswith("22"):
        return UsageError(
            f"The database can't take such a value: {said}.", "Check the numbers and keys that were given."
        )
    if state in ("42P01", "42883", "3F000"):
        return ConflictError(f"The database is not what this release expects: {said}.", "Run `counterfoil migrate`.")
    if state is not None and state.startswith("CF"):
        return ConflictError(f"The ledger refuses it: {said}.", str(getattr(error, "hint", "") or ""))
    if is_passing(error):
        return UnhealthyError(f"The database was lost: {said}.", "Try again; `counterfoil doctor` looks closer.")
    return None


def _ours(error: Exception) -> CounterfoilError:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return CounterfoilError(
        f"Something failed that should not: {said}",
        "The same command with --debug shows where; please report that.",
    )
