"""The command line: the table of commands, and what every error becomes. Imports nothing heavy; a command's module is loaded when it runs.

Exit codes: 0 ok, 1 failed, 2 usage or invalid files, 3 not found, 4 not allowed, 5 partly failed, 6 conflict, 7 unhealthy,
8 timed out, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from counterfoil import __version__

if TYPE_CHECKING:
    from cyclopts import App

INTERRUPTED = 130
ABOUT = "Moves records and documents between systems and keeps a counterfoil for every one."


class Command(NamedTuple):
    path: str  # as typed
    where: str  # module:function
    help: str


COMMANDS: tuple[Command, ...] = (
    Command("demo", "counterfoil.cli.demo:demo", "See it work: both examples with faults, on an embedded database."),
    Command("init", "counterfoil.cli.init:init", "Make a project folder that runs at once."),
    Command("check", "counterfoil.cli.flows:check", "Say every fault of the project's files, with line and remedy."),
    Command("plan", "counterfoil.cli.flows:plan", "Show what the declared flows would change."),
    Command("up", "counterfoil.cli.flows:up", "Work, and fire the schedules, until stopped."),
    Command("serve", "counterfoil.cli.flows:serve", "Serve the relays of the project, until stopped."),
    Command("worker", "counterfoil.cli.flows:worker", "Work without firing schedules, on one more host."),
    Command("sync run", "counterfoil.cli.syncs:run", "Run a sync here and now, or go on with one that was left."),
    Command("sync list", "counterfoil.cli.syncs:list_", "List runs, newest first."),
    Command("sync show", "counterfoil.cli.syncs:show_", "Show one run with its sum and its faults."),
    Command("sync cancel", "counterfoil.cli.syncs:cancel", "Stop the open run of a flow."),
    Command("delivery run", "counterfoil.cli.deliveries:run", "Send what is due of a delivery flow, here and now."),
    Command("delivery show", "counterfoil.cli.deliveries:show_", "How a delivery flow stands."),
    Command("relay calls", "counterfoil.cli.deliveries:calls", "List the calls that came to relays, newest first."),
    Command("items accept", "counterfoil.cli.deliveries:accept", "Hand items in: one, or a file of them."),
    Command(
        "items list", "counterfoil.cli.items:list_", "List items, newest first; without a filter those unfinished."
    ),
    Command("items show", "counterfoil.cli.items:show_", "Show one item with its events and attempts."),
    Command("items explain", "counterfoil.cli.items:explain", "Tell an item's story in plain sentences."),
    Command("items retry", "counterfoil.cli.acts:retry", "Have items tried again now, as they are."),
    Command("items regenerate", "counterfoil.cli.acts:regenerate", "Have the files of items made anew, and sent."),
    Command(
        "items release",
        "counterfoil.cli.acts:release",
        "Let items go on in spite of their verdict, or before their time.",
    ),
    Command(
        "items transfer", "counterfoil.cli.acts:transfer", "Note that items were handed over by hand, with a reference."
    ),
    Command("items cancel", "counterfoil.cli.acts:cancel", "Give items up before they are done."),
    Command("items archive", "counterfoil.cli.acts:archive", "Close items; they are never tried again."),
    Command("case list", "counterfoil.cli.cases:list_", "List open cases, the ones due first on top."),
    Command("case show", "counterfoil.cli.cases:show_", "Show one case with its items."),
    Command("status", "counterfoil.cli.health:status", "How each flow stands, and what needs a person."),
    Command("audit", "counterfoil.cli.health:audit", "Prove the sum for every flow; exit 7 where it does not hold."),
    Command("doctor", "counterfoil.cli.health:doctor", "Look for faults and say how to mend each."),
    Command("migrate", "counterfoil.cli.admin:migrate", "Bring the database to this release."),
    Command("simulate", "counterfoil.cli.admin:simulate", "Play the other side, with faults by name and rate."),
    Command("completion", "counterfoil.cli.admin:completion", "Print the completion script of a shell."),
)
GROUPS = {
    "sync": "Runs of syncs: run, list, show, cancel.",
    "items": "What is delivered, and records that deviated: accept, list, show, explain, and acts by hand.",
    "delivery": "Delivery flows: run, show.",
    "relay": "Relays: calls.",
    "case": "Open problems with an owner and a due time: list, show.",
}
_RAW = {"simulate"}  # its arguments belong to the simulator, --help among them


def build() -> App:
    """The application, with nothing loaded but its table."""
    from cyclopts import App

    def new(name: str, about: str) -> App:
        return App(name=name, help=about, version_flags=[], help_formatter="plain" if _plain() else "default")

    app = new("counterfoil", ABOUT)
    groups = {name: new(name, about) for name, about in GROUPS.items()}
    for command in COMMANDS:
        group, _, name = command.path.rpartition(" ")
        raw: dict[str, list[str]] = {"help_flags": []} if command.path in _RAW else {}
        (groups[group] if group else app).command(command.where, name=name, help=command.help, version_flags=[], **raw)
    for group_app in groups.values():
        app.command(group_app)
    return app


def _plain() -> bool:
    environment = os.environ
    return not sys.stdout.isatty() or "NO_COLOR" in environment or environment.get("TERM") == "dumb"


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Do one command line; returns its exit code. Never raises, except with --debug."""
    given = _leading_last(list(arguments))
    if given[:1] in (["--version"], ["-V"]):
        print(f"counterfoil {__version__}")
        return 0
    debug = os.environ.get("COUNTERFOIL_DEBUG") == "1" or ("--debug" in given and given[:1] != ["simulate"])
    try:
        code = build()(given, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        print("Interrupted. Nothing is lost: the same command goes on where this one stopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        from counterfoil.cli.errors import told

        return told(error, as_json="--json" in given, arguments=given)


_LEADING = {"--project": 1, "--json": 0, "--debug": 0}


def _leading_last(arguments: list[str]) -> list[str]:
    """Global options before the command are the same as after it: `counterfoil --json status`."""
    moved: list[str] = []
    while arguments and arguments[0].partition("=")[0] in _LEADING:
        words = 1 + (_LEADING[arguments[0].partition("=")[0]] if "=" not in arguments[0] else 0)
        moved, arguments = moved + arguments[:words], arguments[words:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at] + moved + arguments[at:] if arguments[:1] != ["simulate"] else arguments
