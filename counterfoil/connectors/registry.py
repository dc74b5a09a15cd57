"""Which connector a flow gets: ours by a table, foreign ones by the entry point group `counterfoil.connectors`.

A connector's module is imported only when a flow uses it: start-up stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from counterfoil.connectors.auth import resolve
from counterfoil.flows.flow import SourceSpec
from counterfoil.model.clock import Clock
from counterfoil.model.errors import Misconfigured
from counterfoil.model.ports import Source

__all__ = ["GROUP", "build_source", "known_connectors", "resolve"]

GROUP = "counterfoil.connectors"
_OURS: Mapping[str, str] = {
    "http": "counterfoil.connectors.http:HttpSource",
    "aws_lambda": "counterfoil.connectors.aws_lambda:LambdaSource",
    "file": "counterfoil.connectors.files:FileSource",
}


def build_source(
    spec: SourceSpec, *, environment: Mapping[str, str], folder: Path, concurrency: int, clock: Clock
) -> Source:
    """The source a flow declares, with `${NAME}` resolved from `environment`; opens no connection.

    `folder` is the project folder, `concurrency` the most calls at one time. Raises Misconfigured for an unknown connector, two of
    the same name, a missing variable or a wrong setting. A foreign connector is a callable with these same parameters.
    """
    known = known_connectors()
    if spec.connector not in known:
        names = ", ".join(f"`{name}`" for name in sorted(known))
        raise Misconfigured(f"There is no connector `{spec.connector}`.", f"Known: {names}.")
    make = known[spec.connector]()
    return make(spec, environment=environment, folder=folder, concurrency=concurrency, clock=clock)


def known_connectors() -> dict[str, Callable[[], Callable[..., Source]]]:
    """Name to loader. Raises Misconfigured when a name is taken twice, whether or not a flow uses it."""
    known: dict[str, Callable[[], Callable[..., Source]]] = {name: _loader(place) for name, place in _OURS.items()}
    for point in entry_points(group=GROUP):
        if point.name in known:
            raise Misconfigured(
                f"Two connectors are called `{point.name}`; one is {point.value}.", "Uninstall or rename one of them."
            )
        known[point.name] = point.load
    return known


def _loader(place: str) -> Callable[[], Callable[..., Source]]:
    module, _, name = place.partition(":")
    return lambda: cast(Callable[..., Source], getattr(import_module(module), name))
