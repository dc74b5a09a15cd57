"""The project's functions.py: mappers and judges by name. Loaded from its path, under a name of its own, with sys.path as it was.

The file is the project's own code and runs with our rights, as a flow file's author expects; nothing here calls what it defines.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from counterfoil.model.errors import Fault, NotFoundError

FILE = "functions.py"


@dataclass(frozen=True, slots=True)
class Functions:
    """The public callables that functions.py defines itself, by name."""

    by_name: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(sorted(self.by_name))

    def get(self, name: str) -> Callable[..., Any]:
        """Raises NotFoundError with the names there are."""
        if name not in self.by_name:
            raise NotFoundError(
                f"No function `{name}` in {FILE}.", f"Known: {', '.join(f'`{n}`' for n in self.known) or 'none'}."
            )
        return self.by_name[name]


def load_functions(folder: Path) -> tuple[Functions, tuple[Fault, ...]]:
    """The functions of a project folder; no file is no functions. A file that does not import is one fault, at its line."""
    path = folder / FILE
    if not path.is_file():
        return Functions(), ()
    try:
        module = _imported(path)
    except (Exception, SystemExit) as error:
        return Functions(), (_import_fault(path, error),)
    return Functions(MappingProxyType(_public(module))), ()


def _imported(path: Path) -> ModuleType:
    name = f"counterfoil_project_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # a path that ends in .py always has one
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _public(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    }


def _import_fault(path: Path, error: BaseException) -> Fault:
    if isinstance(error, SyntaxError):
        return Fault(
            FILE, error.lineno or 1, f"Not valid Python: {error.msg}.", "Correct the line; nothing of the file is used."
        )
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    problem = f"The file does not import: {type(error).__name__}: {error}."
    return Fault(
        FILE, (lines[-1] if lines else 1) or 1, problem, "Correct the line; until then none of its functions is known."
    )
