"""`check | plan | up | worker`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from counterfoil.cli.common import COMMON, Common, go, project
from counterfoil.cli.output import emit, paint, say, show
from counterfoil.model.errors import Fault, InvalidFilesError

NO_FLOW = "No flow is declared: each is a file flows/NAME.yaml in the project folder."


def check(*, common: Common = COMMON) -> int:
    """Say every fault of the project's files, with line and remedy. Opens no database and calls nobody; exit 2 where there are faults."""
    from counterfoil.flows.load import load_project  # YAML: not for commands that read the ledger alone

    folder = common.folder
    found = load_project(folder)
    faults = (*_settings_faults(common), *found.faults)
    if common.json:
        emit("check", faults=faults, notes=found.notes, flows=sorted(found.flows))
    else:
        for fault in faults:
            show(_line(fault, "red"))
        for note in found.notes:
            show(_line(note, "yellow"))
        count = len(found.flows)
        well = f"{count} flow{'s' * (count != 1)}: {', '.join(sorted(found.flows)) or 'none'}."
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
            names = ", ".join(sorted(app.project.flows)) or "no flow yet"
            say(f"Working on {names}. Ctrl-C stops in order. Another terminal: `counterfoil status`.")
            await app.run_worker(schedules=schedules, stop=stop)
        say("Stopped in order.")
        return 0

    return go(work(), fast=True)


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
