"""`status | audit | doctor`: how things stand, the proof of the sum, and what is wrong with the house."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, database, go
from counterfoil.cli.errors import known
from counterfoil.cli.output import emit, many, paint, say, show, table, when
from counterfoil.model.errors import InvalidFilesError
from counterfoil.monitor import audit as audits
from counterfoil.monitor import doctor as doctors
from counterfoil.monitor import status as statuses
from counterfoil.monitor.doctor import Check

SHOWN = 10  # open cases


def status(
    *,
    check: Annotated[
        bool, Parameter(negative="", show_default=False, help="Exit 7 where something needs a person.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """How each flow stands, and what needs a person."""

    async def work() -> int:
        async with database(common) as opened:
            found = await statuses.status(opened.ledger)
        if common.json:
            emit("status", at=found.at, flows=[_flow(flow) for flow in found.flows], cases=found.cases, workers=found.workers,
                 attention=found.attention)  # fmt: skip
        else:
            _print_status(found)
        return 7 if check and found.attention else 0

    return go(work())


def _flow(flow: statuses.FlowStatus) -> dict[str, Any]:
    from counterfoil.cli.syncs import as_json

    run = as_json(flow.run) if flow.run is not None else None
    return {"flow": flow.flow, **dict(flow.row), **dict(flow.sums), "run": run}


def _print_status(found: statuses.Status) -> None:
    if not found.flows:
        say("The ledger knows no flow yet. `counterfoil sync run FLOW` or `counterfoil up` registers it.")
        return
    rows = []
    for flow in found.flows:
        run, sums = flow.run, flow.sums
        last = (
            (run["state"], run["ended_at"] or run["created_at"], run["found"])
            if run is not None
            else (None, None, None)
        )
        rows.append([flow.flow, *last, sums["due"], sums["owned"], flow.row["watermark"], flow.row["next_fire_at"]])
    show(table(("flow", "last run", "at", "found", "due", "owned", "watermark", "next run"), rows))
    show(f"\n{many(len(found.cases), 'open case')}, {many(len(found.workers), 'worker')} at work.")
    for case in found.cases[:SHOWN]:
        where = f"case {case['id']} of {case['flow']}, {many(case['open_items'], 'item')}"
        show(f"  {where}: {case['title']} Owner {case['owner']}, due {when(case['due_at'])}.")
    if len(found.cases) > SHOWN:
        say(f"  … and {len(found.cases) - SHOWN:,} more: `counterfoil case list`.")
    for worker in found.workers:
        show(f"  worker {worker['id']}: process {worker['pid']} on {worker['host']} since {when(worker['started_at'])}")
    show(
        paint("\nNeeds attention:", "yellow")
        if found.attention
        else "\nNothing else needs attention."
        if found.cases
        else "\nNothing needs attention."
    )
    for sentence in found.attention:
        show(f"  {sentence}")


def audit(
    flow: Annotated[str | None, Parameter(help="One flow; without it, all.")] = None, /, *, common: Common = COMMON
) -> int:
    """Prove the sum for every flow: accepted = settled + due + owned, from counters and from the rows. Exit 7 where it does not hold."""

    async def work() -> int:
        async with database(common) as opened:
            found = await audits.audit(opened.ledger, flow)
        holds = all(one.holds for one in found)
        if common.json:
            emit("audit", holds=holds, flows=[_audited(one) for one in found])
        else:
            _print_audit(found)
        return 0 if holds else 7

    return go(work())


def _audited(one: audits.FlowAudit) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__} | {"holds": one.holds}


def _print_audit(found: tuple[audits.FlowAudit, ...]) -> None:
    if not found:
        say("The ledger knows no flow yet: there is nothing to prove.")
        return
    rows = [
        [f.flow, f.accepted, f.settled, f.due, f.owned, f.oldest_due, f.oldest_owned, "holds" if f.holds else "BROKEN"]
        for f in found
    ]
    headers = ("flow", "accepted", "= settled", "+ due", "+ owned", "oldest due", "oldest owned", "sum")
    show(table(headers, rows))
    for one in found:
        for fault in one.faults:
            show(paint(f"{one.flow}: {fault}", "red"))
    if any(one.faults for one in found):
        say("The ledger contradicts itself: stop the workers, keep a copy of the database, and report it.")


def doctor(
    *,
    offline: Annotated[bool, Parameter(negative="", show_default=False, help="Don't call the sources.")] = False,
    common: Common = COMMON,
) -> int:
    """Look for faults and say how to mend each. Exit 7 where there is one."""

    async def work() -> int:
        checks = await _examine(common, offline)
        if common.json:
            emit("doctor", well=all(one.well for one in checks), checks=checks)
        else:
            _print_checks(checks)
        return 0 if all(one.well for one in checks) else 7

    return go(work())


def _print_checks(checks: list[Check]) -> None:
    for one in checks:
        mark = paint("ok  ", "green") if one.well else paint("bad ", "red")
        show(f"{mark} {one.name}: {one.said}")
        if not one.well and one.remedy:
            show(f"     {one.remedy}")
    bad = sum(not one.well for one in checks)
    say(f"{bad} of {len(checks)} checks found something to mend." if bad else "All is well.")


async def _examine(common: Common, offline: bool) -> list[Check]:
    """Each stage needs the one before; where one fails, the later ones are not made."""
    from counterfoil.flows.load import load_project
    from counterfoil.operations.database import server_of
    from counterfoil.settings import load_settings

    folder = common.folder
    checks = doctors.check_machine(folder)
    found = load_project(folder)
    try:
        settings = load_settings(folder, os.environ)
    except InvalidFilesError as error:
        return [*checks, *doctors.check_files((*error.faults, *found.faults), len(found.flows))]
    checks += doctors.check_files(found.faults, len(found.flows))
    async with AsyncExitStack() as stack:
        try:
            dsn, _, notes = await stack.enter_async_context(server_of(folder, settings))
            checks += await _examine_database(dsn)
        except Exception as error:  # whatever it is: the other checks are not lost with it
            return [*checks, doctors.failed("Database", known(error))]
        checks += [Check("Database", True, note) for note in notes]
        if {"Schema", "Files"} <= {one.name for one in checks if one.well}:
            checks += await _examine_flows(common, offline)
    return checks


async def _examine_database(dsn: str) -> list[Check]:
    from counterfoil.ledger.pool import connect

    connection = await connect(dsn)
    try:
        checks = await doctors.check_server(connection, datetime.now(UTC))
        login = await doctors.check_login(connection)
        checks += login
        if not all(one.well for one in login):
            return checks
        schema = await doctors.check_schema(connection)
        work = await doctors.check_work(connection) if all(one.well for one in schema) else []
        return [*checks, *schema, *work]
    finally:
        await connection.close()


async def _examine_flows(common: Common, offline: bool) -> list[Check]:
    from counterfoil.cli.common import project  # loads the connectors: only where they are asked

    async with project(common, log="error") as app:
        tables = doctors.check_tables({plan.flow: plan.faults for plan in await app.plan()})
        return tables if offline else [*tables, *doctors.check_sources(await app.probe())]
