"""`migrate | simulate | completion`."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Annotated, Literal

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, DryRunFlag, go, project
from counterfoil.cli.output import emit, say, show
from counterfoil.ledger.migrate import Migration
from counterfoil.model.errors import NotFoundError
from counterfoil.settings import load_settings


def migrate(
    *,
    phase: Annotated[
        Literal["pre", "post"] | None,
        Parameter(help="pre: before the release runs; post: after the old one is gone. Without it: both."),
    ] = None,
    dry_run: DryRunFlag = False,
    common: Common = COMMON,
) -> int:
    """Bring the database to this release, then register the flows of the project. Safe to repeat, and to run twice at once."""

    async def work() -> int:
        done = await _migrate(common, phase, dry_run)
        changes = [] if dry_run or phase == "pre" else await _register(common)
        names = [f"{one.number:04d} {one.phase} {one.name}" for one in done]
        if common.json:
            emit("migrate", dry_run=dry_run, migrations=names, changes=changes)
            return 0
        for line in [*names, *changes]:
            show(line)
        verb = "would be applied" if dry_run else "applied"
        say(f"{len(done)} migration{'s' * (len(done) != 1)} {verb}." if done else "The schema is that of this release.")
        return 0

    return go(work())


async def _migrate(common: Common, phase: str | None, dry_run: bool) -> tuple[Migration, ...]:
    from counterfoil.ledger import migrate as ledger
    from counterfoil.ledger.pool import connect
    from counterfoil.operations.database import server_of

    folder = common.folder
    async with server_of(folder, load_settings(folder, os.environ)) as (_, owner_dsn, notes):
        for note in notes:
            say(note)
        connection = await connect(owner_dsn)
        try:
            return await (ledger.pending if dry_run else ledger.migrate)(connection, phase)
        finally:
            await connection.close()


async def _register(common: Common) -> list[str]:
    """The flows of the folder, if its files are without fault; what that changed."""
    async with project(common, need_flows=False) as app:
        if app.project.faults:
            say("The flows were not registered: their files have faults. `counterfoil check` shows them.")
            return []
        return [f"{plan.flow}: {change}" for plan in await app.apply() for change in plan.changes]


SIMULATORS = {
    "occ-lambda": ("occ_lambda", "AWS Lambda's Invoke API with a loan system behind it"),
    "lighthouse-documents": (
        "lighthouse_documents",
        "a service that takes documents of claims and confirms them later",
    ),
    "object-store": ("object_store", "an S3-compatible object store"),
    "customer-api": ("customer_api", "a REST service with customers"),
    "deputy-gateway": (
        "deputy_gateway",
        "a gateway that takes documents, with its function and a case system behind it",
    ),
    "case-system": ("case_system", "that case system alone"),
}


def simulate(
    *arguments: Annotated[str, Parameter(allow_leading_hyphen=True, help="NAME, then its own options.")],
) -> int:
    """Play the other side, with faults by name and rate: `counterfoil simulate customer-api --port 8080 --fault error503=0.05`."""
    name, rest = (arguments[0].replace("_", "-") if arguments else "--help"), list(arguments[1:])
    if name in ("--help", "-h"):
        show("Usage: counterfoil simulate NAME [OPTIONS]   (NAME --help shows its options)\n")
        width = max(map(len, SIMULATORS)) + 2
        for known, (_, about) in SIMULATORS.items():
            show(f"  {known.ljust(width)}{about}")
        return 0
    if name not in SIMULATORS:
        raise NotFoundError(f"There is no simulator `{name}`.", f"Known: {', '.join(SIMULATORS)}.")
    try:
        return int(import_module(f"counterfoil.simulators.{SIMULATORS[name][0]}").main(rest) or 0)
    except SystemExit as left:  # its own parser has said what is wrong
        return int(left.code or 0)


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell.")], /) -> int:
    """Print the completion script of a shell: `eval "$(counterfoil completion bash)"`."""
    from counterfoil.cli.main import build

    print(build().generate_completion(prog_name="counterfoil", shell=shell))
    return 0
