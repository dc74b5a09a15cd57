"""What all commands share: the global options, the project folder, one loop to run in, where the log goes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, validators

from counterfoil.cli.output import say
from counterfoil.settings import Settings, find_project, load_settings

if TYPE_CHECKING:
    from counterfoil.app import App
    from counterfoil.operations.database import Database


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Common:
    """Options of every command."""

    project: Annotated[
        Path | None, Parameter(help="Project folder. Without it: this folder, or the nearest above it that is one.")
    ] = None
    json: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="One JSON document on stdout instead of words and tables."),
    ] = False
    debug: Annotated[
        bool, Parameter(negative="", show_default=False, help="Show the trace of an error, and a log of what is done.")
    ] = False

    @property
    def folder(self) -> Path:
        """The project folder. Raises NotFoundError."""
        return find_project(self.project or Path.cwd()) if self.project is None else _given(self.project)

    def settings(self) -> Settings:
        return load_settings(self.folder, os.environ)


COMMON = Common()  # the default in every signature

Reason = Annotated[str | None, Parameter(help="Why; it stands in the record for ever.")]
Limit = Annotated[int, Parameter(help="How many at most.", validator=validators.Number(gte=1, lte=100_000))]
DryRunFlag = Annotated[
    bool, Parameter(negative="", show_default=False, help="Show what would be done, and do nothing.")
]


def _given(folder: Path) -> Path:
    """A folder that was named is not searched for above itself."""
    from counterfoil.model.errors import NotFoundError
    from counterfoil.settings import FILE

    if not (folder / FILE).is_file():
        raise NotFoundError(f"There is no {FILE} in {folder}.", f"`counterfoil init {folder}` makes a project there.")
    return folder.resolve()


def go(work: Coroutine[Any, Any, int], *, fast: bool = False) -> int:
    """Run a command's work to its end. SIGTERM is as Ctrl-C: what is held is given back, then we leave.

    `fast`: on uvloop where it is installed; only worth its import where much is fetched.
    """

    async def guarded() -> int:
        task = asyncio.current_task()
        assert task is not None
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        with asyncio.Runner(loop_factory=_fast_loop() if fast else None) as runner:
            return runner.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _fast_loop() -> Any:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy: the standard loop does the same, slower
        return None
    return uvloop.new_event_loop


def log_to_stderr(*, level: str, debug: bool) -> None:
    """The engine's log: words for whoever watches, never among the data."""
    from counterfoil.engine.log import to_stderr

    to_stderr(level=level, debug=debug)


@asynccontextmanager
async def database(common: Common) -> AsyncIterator[Database]:
    """The database alone: for commands that need no flow and no connector."""
    from counterfoil.operations.database import open_database

    folder = common.folder
    async with open_database(folder, load_settings(folder, os.environ)) as opened:
        for note in opened.notes if common.debug else ():
            say(note)
        yield opened


@asynccontextmanager
async def project(common: Common, *, need_flows: bool = True, log: str = "warning") -> AsyncIterator[App]:
    """The whole project: flows, connectors, engine. Loads much; only for commands that work."""
    log_to_stderr(level=log, debug=common.debug)
    from counterfoil.app import open_app

    async with open_app(common.folder, need_flows=need_flows) as app:
        for note in app.notes:
            say(note)
        yield app
