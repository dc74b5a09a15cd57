"""`check | plan | up | worker | serve`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, go, project
from counterfoil.cli.output import emit, paint, say, show
from counterfoil.model.errors import Fault, InvalidFilesError, UsageError

if TYPE_CHECKING:
    from counterfoil.app import App
    from counterfoil.settings import Settings

NO_FLOW = "No flow is declared: each is a file flows/NAME.yaml in the project folder."


def check(*, common: Common = COMMON) -> int:
    """Say every fault of the project's files, with line and remedy. Opens no database and calls nobody; exit 2 where there are faults."""
    from counterfoil.app_deliveries import (
        load_checked,
    )  # YAML and contracts: not for commands that read the ledger alone

    folder = common.folder
    found = load_checked(folder)
    faults = (*_settings_faults(common), *found.faults)
    if common.json:
        emit("check", faults=faults, notes=found.notes, flows=list(found.names))
    else:
        for fault in faults:
            show(_line(fault, "red"))
        for note in found.notes:
            show(_line(note, "yellow"))
        count = len(found.names)
        well = f"{count} flow{'s' * (count != 1)}: {', '.join(found.names) or 'none'}."
        say(f"{len(faults)} fault{'s' * (len(faults) != 1)}." if faults else f"No faults. {well}")
        if not count and not faults:
            say(NO_FLOW)
    return 2 if faults else 0


def _settings_faults(common: Common) -> tuple[Fault, ...]:
    try:
        common.settings()
    except InvalidFilesError as error:
        return error.faults
    return ()


def _line(fault: Fault, colour: str) -> str:
    return f"{paint(f'{fault.file}:{fault.line}:', colour)} {fault.problem} {fault.remedy}".rstrip()


def plan(*, common: Common = COMMON) -> int:
    """Show what the declared flows would change: new flows, tables, columns, schedules. Changes nothing; exit 2 where a table does not match."""

    async def work() -> int:
        async with project(common) as app:
            plans = await app.plan()
        if common.json:
            emit("plan", flows=plans)
        if not plans:
            say(NO_FLOW)
        for one in () if common.json else plans:
            show(f"{one.flow}: {'nothing to change' if not one.changes and not one.faults else ''}".rstrip())
            for change in one.changes:
                show(f"  {paint('+', 'green')} {change}")
            for fault in one.faults:
                show(f"  {paint('!', 'red')} {fault}")
        return 2 if any(one.faults for one in plans) else 0

    return go(work())


def up(*, common: Common = COMMON) -> int:
    """Work, and fire the schedules, until Ctrl-C. What is under way is then given back, and goes on at the next start."""
    return _work(common, schedules=True)


def worker(*, common: Common = COMMON) -> int:
    """Work without firing schedules, on one more host, until Ctrl-C."""
    return _work(common, schedules=False)


def _work(common: Common, *, schedules: bool) -> int:
    async def work() -> int:
        stop = asyncio.Event()
        _stop_on_signals(stop)
        async with project(common, log="info") as app:
            names = ", ".join(app.project.names) or "no flow yet"
            say(f"Working on {names}. Ctrl-C stops in order. Another terminal: `counterfoil status`.")
            async with AsyncExitStack() as stack:
                if schedules and app.project.relays:
                    say(f"Relays listen on {await stack.enter_async_context(_relays(app, common.settings()))}.")
                await app.run_worker(schedules=schedules, stop=stop)
        say("Stopped in order.")
        return 0

    return go(work(), fast=True)


def serve(
    *,
    host: Annotated[str | None, Parameter(help="Address to listen on; without it that of [serve].")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; without it that of [serve].")] = None,
    common: Common = COMMON,
) -> int:
    """Serve the relays of the project, until Ctrl-C. Calls under way get their answer before it ends."""

    async def work() -> int:
        stop = asyncio.Event()
        _stop_on_signals(stop)
        async with project(common, log="info") as app:
            if not app.project.relays:
                raise UsageError("This project declares no relay.", "A relay is a flow of the kind `relay`.")
            await app.register_deliveries()
            given = common.settings()
            settings = replace(
                given, serve_host=host or given.serve_host, serve_port=given.serve_port if port is None else port
            )
            async with _relays(app, settings) as url:
                say(f"Relays listen on {url}. Ctrl-C stops in order.")
                await stop.wait()
        say("Stopped in order.")
        return 0

    return go(work(), fast=True)


@asynccontextmanager
async def _relays(app: App, settings: Settings) -> AsyncIterator[str]:
    from counterfoil.web.relays import serving  # a server: only where relays are served

    async with app.deliveries.relays(app.dsn) as jobs, serving(jobs, settings.serve_host, settings.serve_port) as url:
        yield url


def _stop_on_signals(stop: asyncio.Event) -> None:
    """The first signal stops in order; a second one ends the process, which is safe as well."""

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        say("Stopping: giving back what is under way …")
        stop.set()

    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked, number)
