"""`init`: a new project folder that runs at once, with a flow whose comments say what else may be written.

Nothing that exists is overwritten. The files' texts stand in `counterfoil/cli/starter/`, as they will be read.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, DryRunFlag
from counterfoil.cli.output import emit, say, show
from counterfoil.model.errors import ConflictError

# Where each text of starter/ goes. A name that packaging or version control would treat as its own carries `.yaml` there.
STARTER = {
    "counterfoil.toml": "counterfoil.toml.yaml",
    "flows/example.yaml": "flow.yaml",
    "mappings/example.yaml": "mapping.yaml",
    "functions.py": "functions.py.yaml",
    "data/example.csv": "example.csv",
    ".gitignore": "gitignore.yaml",
    "README.md": "README.md.yaml",
}


def init(
    folder: Annotated[Path, Parameter(help="The folder to make, or an empty one.")],
    /,
    *,
    dry_run: DryRunFlag = False,
    common: Common = COMMON,
) -> int:
    """Make a project folder that runs at once: settings, a flow that reads a CSV file, its mapping, a function."""
    taken = [name for name in STARTER if (folder / name).exists()]
    if taken:
        raise ConflictError(f"{folder} has {', '.join(taken)} already.", "Nothing was written; give another folder.")
    for name, source in () if dry_run else STARTER.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files("counterfoil.cli.starter").joinpath(source).read_text("utf-8"), "utf-8")
    if common.json:
        emit("init", folder=str(folder), files=list(STARTER), dry_run=dry_run)
        return 0
    for name in STARTER:
        show(str(folder / name))
    if not dry_run:
        say(f"\nNow: cd {folder} && counterfoil check && counterfoil sync run example")
    return 0
