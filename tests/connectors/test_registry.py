"""Which connector a flow gets, and what happens with foreign ones and with two of one name."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from counterfoil.connectors import registry
from counterfoil.connectors.aws_lambda import LambdaSource
from counterfoil.connectors.files import FileSource
from counterfoil.connectors.http import HttpSource
from counterfoil.flows.flow import Auth, AuthType, ListCall, SourceSpec
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import Misconfigured

SIGV4 = Auth(AuthType.SIGV4, {"access_key": "a", "secret_key": "b", "region": "c"})


def build(spec: SourceSpec) -> Any:
    return registry.build_source(spec, environment={}, folder=Path(), concurrency=3, clock=SystemClock())


def foreign(*names: str) -> Any:
    points = [EntryPoint(name, f"{__name__}:made_elsewhere", registry.GROUP) for name in names]
    return lambda group: points if group == registry.GROUP else []


def made_elsewhere(spec: SourceSpec, **more: Any) -> tuple[SourceSpec, dict[str, Any]]:
    return spec, more


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (SourceSpec("http", url="https://api.example"), HttpSource),
        (SourceSpec("aws_lambda", auth=SIGV4, list=ListCall(function="f")), LambdaSource),
        (SourceSpec("file", url="x.csv"), FileSource),
    ],
)
def test_our_connectors(spec: SourceSpec, kind: type) -> None:
    assert isinstance(build(spec), kind)


def test_an_unknown_connector_names_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match="`aws_lambda`, `file`, `http`"):
        build(SourceSpec("soap"))


def test_a_foreign_connector_gets_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", foreign("soap"))
    spec, more = build(SourceSpec("soap"))
    assert spec.connector == "soap"
    assert sorted(more) == ["clock", "concurrency", "environment", "folder"]


@pytest.mark.parametrize("names", [("http",), ("soap", "soap")])
def test_a_name_taken_twice_fails_at_start(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    monkeypatch.setattr(registry, "entry_points", foreign(*names))
    with pytest.raises(Misconfigured, match=names[0]):
        build(SourceSpec("file", url="x.csv"))


def test_the_registry_alone_loads_no_network_library() -> None:
    code = (
        "import sys, counterfoil.connectors.registry; print(sorted({'aiohttp', 'botocore', 'yarl'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
