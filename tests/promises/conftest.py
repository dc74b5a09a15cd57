"""`project(...)`: a project folder on a database of its own, with a simulator beside it. All processes end with the test.

`shared(...)` is the same for all cases of one module that ask for the same thing: each leaves it whole.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.promises.support import Project, Side, flow_text, people, side
from tests.support import Databases

Opener = Callable[..., tuple[Project, Side]]


def _open(
    stack: ExitStack,
    folder: Path,
    dsn: str,
    arguments: tuple[str, ...],
    *,
    count: int = 300,
    functions: str = "",
    lease: str = "5s",
    **flow: Any,
) -> tuple[Project, Side]:
    data = people(folder / "people.csv", count)
    other = stack.enter_context(side("--data", data, "--key", "id", *arguments))
    made = Project.make(folder / "project", dsn, other.url, flow_text(**flow), functions=functions, lease=lease)
    stack.callback(made.stop)
    return made, other


@contextmanager
def _beside() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A loop in a thread of its own, for what is made while a test's loop runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def project(tmp_path: Path, database: str) -> Iterator[Opener]:
    """`project("--fault", "html=0.1", count=500, detail=False)` gives (project, other side)."""
    with ExitStack() as stack:
        yield lambda *arguments, **given: _open(stack, tmp_path, database, arguments, **given)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server_dsn: str, template: str) -> Iterator[Opener]:
    """As `project`, made once for each set of arguments."""
    made: dict[str, tuple[Project, Side]] = {}
    with _beside() as wait_for, ExitStack() as stack:
        databases = wait_for(Databases.open(server_dsn))
        stack.callback(lambda: wait_for(databases.close()))

        def opened(*arguments: str, **given: Any) -> tuple[Project, Side]:
            name = repr((arguments, sorted(given.items())))
            if name not in made:
                dsn = databases.dsn(wait_for(databases.create(template)))
                made[name] = _open(stack, tmp_path_factory.mktemp("shared"), dsn, arguments, **given)
            return made[name]

        yield opened
