"""What the documentation must cover, read from the code itself: fault words, log events, dependencies. No test stands here.

The code is parsed, not run: a word counts where it is written as a literal in one of the places that may give a fault.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "counterfoil"
FAULT_FLOORS = ("model", "connectors", "documents", "flows", "engine", "ledger")

# Which argument of a call is the fault word.
FAULT_ARGUMENT = {
    "BadValueError": 0,
    "JudgeFault": 0,
    "_BadValue": 1,
    "Ending": 1,
    "RowFault": 2,
    "Deviation": 2,
    "RefusedRow": 1,
    "open_for_flow": 2,
}
LOG_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_SQL_FAULT = re.compile(r"then '([a-z_]+)' end,\s*\n\s*case when .*then format")


def modules(*floors: str) -> Iterator[tuple[Path, ast.Module]]:
    for floor in floors or ("",):
        for path in sorted((PACKAGE / floor).rglob("*.py")):
            if "simulators" not in path.parts:
                yield path, ast.parse(path.read_text("utf-8"))


def _word(node: ast.expr | None) -> str | None:
    """A literal, or an f-string with its variable part as `*`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return None


def _faults_in(tree: ast.Module) -> Iterator[str | None]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = FAULT_ARGUMENT.get(name)
            if at is not None and len(node.args) > at:
                yield _word(node.args[at])
            yield from (_word(given.value) for given in node.keywords if given.arg == "fault")
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.Assign) and any(getattr(t, "id", "") == "fault" for t in part.targets):
                    yield _word(part.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            yield from _by_sqlstate(node.value)


def _by_sqlstate(given: ast.Dict) -> Iterator[str | None]:
    """The words of a table `SQLSTATE: (word, sentence)`."""
    for key, value in zip(given.keys, given.values, strict=True):
        if _SQLSTATE.fullmatch(_word(key) or "") and isinstance(value, ast.Tuple):
            yield _word(value.elts[0])


def fault_words() -> set[str]:
    """Every fault word the code can give. `http_*` stands for a family."""
    words = {word for _, tree in modules(*FAULT_FLOORS) for word in _faults_in(tree) if word}
    for path in sorted((PACKAGE / "ledger" / "migrations").glob("*.sql")):
        words |= set(_SQL_FAULT.findall(path.read_text("utf-8")))
    return words - {"*", "*:*", "run:*"}


def log_events() -> set[str]:
    """Every event name given to structlog."""
    found = set()
    for _, tree in modules():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in LOG_LEVELS and getattr(node.func.value, "id", "") == "log" and node.args:
                found.add(_word(node.args[0]) or "?")
    return found


def dependencies() -> set[str]:
    """Names of the direct dependencies of pyproject.toml, extras too, in small letters."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return {re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0].lower() for line in lines}


def first_cells(page: Path, *, heading: str = "") -> list[str]:
    """The names in backquotes that open the rows of a page's tables, in order; only under `heading` where one is given."""
    text = page.read_text("utf-8")
    if heading:
        text = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [name for row in re.findall(r"^\| (`[^|]+`) \|", text, re.M) for name in re.findall(r"`([^`]+)`", row)]
