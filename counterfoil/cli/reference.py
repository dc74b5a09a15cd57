"""The reference page of the commands, made from the commands themselves. `python -m counterfoil.cli.reference` prints it; a test compares."""

from __future__ import annotations

from typing import Any

from counterfoil.cli.common import Common
from counterfoil.cli.main import COMMANDS, Command, build

HEAD = """# Commands

Made from the commands themselves: `python -m counterfoil.cli.reference > docs/reference/commands.md`.

Data is on stdout, words are on stderr. `--json` prints one document with a `schema_version`; an error is then one object on stderr:
`{"error": {"code", "message", "hint"}}`. Colour and moving bars appear on a terminal only, and never with `NO_COLOR`, `TERM=dumb` or `CI` set.
Nothing ever asks a question: what would have to be asked is an option, and the error names it.

How it ended is told by the [exit code](exit-codes.md); settings stand in [counterfoil.toml](settings.md).

Options of every command:

| option | what it is for |
|---|---|
"""
_COMMON = {f"--{name}" for name in Common.__dataclass_fields__}


def reference() -> str:
    """The whole page."""
    app = build()
    rows = {command: _rows(_resolved(app, command)) for command in COMMANDS if command.path != "simulate"}
    check = next(command for command in rows if command.path == "check")
    common = "".join(line for name, line in rows[check] if name in _COMMON)
    parts = [_section(c, [line for name, line in rows.get(c, []) if name not in _COMMON]) for c in COMMANDS]
    return f"{HEAD}{common}\n{chr(10).join(parts)}".rstrip() + "\n"


def _resolved(app: Any, command: Command) -> Any:
    for name in command.path.split():
        app = app[name]
    return app


def _rows(app: Any) -> list[tuple[str, str]]:
    """First name and table row of each argument."""
    found = []
    for argument in app.assemble_argument_collection():
        if not argument.show:
            continue
        names = [name for name in argument.names if name.startswith("-")] or [argument.names[0].upper()]
        names = names if len(argument.names) == 1 or names[0].startswith("-") else names[:1]
        found.append((names[0], f"| {', '.join(f'`{name}`' for name in names)} | {argument.parameter.help or ''} |\n"))
    return found


def _section(command: Command, rows: list[str]) -> str:
    table = "\n| argument | what it is for |\n|---|---|\n" + "".join(rows) if rows else ""
    return f"## counterfoil {command.path}\n\n{command.help}\n{table}"


if __name__ == "__main__":
    print(reference(), end="")
