"""A virtual environment for each peer, made when first wanted, from a hash-locked list; never ours.

They stand in .venv-peers/ of the checkout, named after the list's hash: a changed list makes a new one. No address of a registry
is written here; pip takes the one it is configured with.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parent / ".venv-peers"
VERSION_OF = "import sys, importlib.metadata as m; print(*(f'{n}={m.version(n)}' for n in sys.argv[1:]))"


class NotInstalled(Exception):
    """A peer that cannot be had here; the text says why."""


def ensure(name: str) -> Path:
    """The bin folder of the environment of requirements-NAME.txt; makes it if it is missing. Raises NotInstalled."""
    wanted = HERE / f"requirements-{name}.txt"
    folder = FOLDER / f"{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:8]}"
    if not (folder / "ready").exists():
        print(f"Installing {name} into {folder.relative_to(HERE.parent)} …", file=sys.stderr)
        _run(name, [sys.executable, "-m", "venv", "--clear", str(folder)])
        _run(name, [str(folder / "bin/pip"), "install", "--quiet", "--require-hashes", "-r", str(wanted)])
        (folder / "ready").touch()
    return folder / "bin"


def versions(bin_folder: Path, packages: list[str]) -> Mapping[str, str]:
    command = [str(bin_folder / "python"), "-c", VERSION_OF, *packages]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(pair.split("=", 1) for pair in printed)


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotInstalled(f"{name} could not be installed: {lines[-1][:200]}")
