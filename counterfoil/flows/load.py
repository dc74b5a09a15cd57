"""A project folder to flows, or to every fault of every file at once. Reads flows/*.yaml, mappings/*.yaml and functions.py; nothing else.

Never raises for what stands in a file. A flow with a fault of its own, or of its mapping's file, is left out of `Project.flows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from counterfoil.flows import checks_delivery, checks_relay
from counterfoil.flows.checks import CHECKS, Draft, Known, draft_of
from counterfoil.flows.checks_delivery import DeliveryDraft
from counterfoil.flows.checks_mapping import check_mapping
from counterfoil.flows.delivery import DeliveryFlow, RelayFlow
from counterfoil.flows.flow import RecordMapping, SyncFlow
from counterfoil.flows.functions import Functions, load_functions
from counterfoil.flows.shape import Shape, said
from counterfoil.flows.shapes import FLOW, MAPPING_FILE
from counterfoil.flows.shapes_flow import DELIVERY, RELAY
from counterfoil.flows.yamlfile import Node, Report, did_you_mean, parse_yaml, read_yaml
from counterfoil.model.errors import Fault, InvalidFilesError


@dataclass(frozen=True, slots=True)
class Project:
    """What a folder declares. `faults` stand in the order of files and lines; `notes` are things that work, though perhaps not as meant.

    `flows` are the syncs. A name is unique over all kinds.
    """

    flows: Mapping[str, SyncFlow] = field(default_factory=lambda: MappingProxyType({}))
    deliveries: Mapping[str, DeliveryFlow] = field(default_factory=lambda: MappingProxyType({}))
    relays: Mapping[str, RelayFlow] = field(default_factory=lambda: MappingProxyType({}))
    functions: Functions = Functions()
    faults: tuple[Fault, ...] = ()
    notes: tuple[Fault, ...] = ()


@dataclass(slots=True)
class _File:
    """A flow file as far as it was read."""

    report: Report
    draft: Draft | DeliveryDraft | None = None


ContractCheck = Callable[[Path], Sequence[tuple[str, str]]]
AnyFlow = SyncFlow | DeliveryFlow | RelayFlow


def load_project(folder: Path, *, check_contract: ContractCheck | None = None) -> Project:
    """Everything the folder declares, with all faults. `check_contract` looks into a contract's file."""
    functions, function_faults = load_functions(folder)
    usable = None if function_faults else functions
    mappings, reports = _load_mappings(folder, usable)
    known = Known(mappings, usable, folder, check_contract)
    files = [_load_flow(path, folder, known) for path in _yaml_files(folder, "flows")]
    _across(files)
    reports += [file.report for file in files] + list(_misnamed(folder))
    faults = [*function_faults, *(fault for report in reports for fault in report.faults)]
    flows = [flow for file in files if (flow := _flow_of(file, known)) is not None]
    return Project(
        MappingProxyType({flow.name: flow for flow in flows if isinstance(flow, SyncFlow)}),
        MappingProxyType({flow.name: flow for flow in flows if isinstance(flow, DeliveryFlow)}),
        MappingProxyType({flow.name: flow for flow in flows if isinstance(flow, RelayFlow)}),
        functions,
        tuple(sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line))),
        tuple(note for report in reports for note in report.notes),
    )


def load_flow_text(text: str, name: str = "flow.yaml", functions: Functions | None = None) -> SyncFlow:
    """One sync from its text, with its mapping inline; for tests and documentation. Raises InvalidFilesError with every fault."""
    flow = load_any_text(text, name, functions)
    if not isinstance(flow, SyncFlow):
        raise TypeError("this flow is no sync")
    return flow


def load_any_text(
    text: str, name: str = "flow.yaml", functions: Functions | None = None, folder: Path | None = None
) -> AnyFlow:
    """One flow of any kind from its text. Raises InvalidFilesError with every fault."""
    report = Report(name)
    root = parse_yaml(text, report)
    known = Known({}, functions or Functions(), folder)
    flow = _flow_of(_File(report, None if root is None else _draft(root, known, report)), known)
    if flow is None:
        raise InvalidFilesError(tuple(report.faults))
    return flow


# --- files --------------------------------------------------------------------------------------------------------


def _yaml_files(folder: Path, sub: str) -> list[Path]:
    return sorted(path for path in (folder / sub).glob("*.yaml") if not path.name.startswith("."))


def _misnamed(folder: Path) -> Iterator[Report]:
    for path in sorted(path for sub in ("flows", "mappings") for path in (folder / sub).glob("*.yml")):
        report = Report(path.relative_to(folder).as_posix())
        report.fault(1, "The file ends in .yml and is not read.", f"Rename it to {path.stem}.yaml.")
        yield report


def _load_mappings(folder: Path, functions: Functions | None) -> tuple[dict[str, RecordMapping | None], list[Report]]:
    """Mappings by the name of their file; None for a file with faults."""
    made: dict[str, RecordMapping | None] = {}
    reports = []
    for path in _yaml_files(folder, "mappings"):
        report = Report(path.relative_to(folder).as_posix())
        root = read_yaml(path, report)
        values = None if root is None else MAPPING_FILE.values(root, report)
        mapping = MAPPING_FILE.build(**values) if values is not None else None
        if root is not None and mapping is not None:
            check_mapping(mapping, root, functions, report)
            _named_as_file(mapping.name, path, root, report)
        made[path.stem] = None if report.faults else mapping
        reports.append(report)
    return made, reports


def _named_as_file(name: str, path: Path, root: Node, report: Report) -> None:
    if name and name != path.stem:
        problem = f"The mapping is called `{name}`, its file {path.name}."
        report.fault(
            root.at("mapping").place, problem, f"Write `mapping: {path.stem}`, or rename the file to {name}.yaml."
        )


def _load_flow(path: Path, folder: Path, known: Known) -> _File:
    report = Report(path.relative_to(folder).as_posix())
    root = read_yaml(path, report)
    return _File(report, None if root is None else _draft(root, known, report))


def _draft(root: Node, known: Known, report: Report) -> Draft | DeliveryDraft | None:
    shape = _shape_of(root, report)
    values = None if shape is None else shape.values(root, report)
    if shape is None or values is None:
        return None
    if shape is not FLOW:
        draft = DeliveryDraft(values, root)
        checks = checks_delivery.CHECKS if shape is DELIVERY else checks_relay.CHECKS
        for one in checks:
            one(draft, known, report)
        return draft
    sync = draft_of(values, root, known)
    if isinstance(root.at("source").value, dict):
        for check in CHECKS:
            check(sync, known, report)
    return sync


_SHAPES: Mapping[str, Shape] = {"sync": FLOW, "delivery": DELIVERY, "relay": RELAY}


def _shape_of(root: Node, report: Report) -> Shape | None:
    """By the file's `kind`; a file that is no section at all is told by the sync's shape."""
    given = root.value.get("kind") if isinstance(root.value, dict) else None
    if given is None:
        return FLOW
    if given.value not in _SHAPES or not isinstance(given.value, str):
        report.fault(
            given.place, f"`kind` in flow is {said(given.value)}.", did_you_mean(str(given.value), list(_SHAPES))
        )
        return None
    return _SHAPES[given.value]


# --- over all files -----------------------------------------------------------------------------------------------


def _across(files: list[_File]) -> None:
    """Names and tables that two flows share."""
    names: dict[str, str] = {}
    tables: dict[str, tuple[tuple[str, ...], str]] = {}
    for file in files:
        if file.draft is None:
            continue
        draft, report = file.draft, file.report
        name = draft.values.get("name")
        if name and name in names:
            report.fault(
                draft.line("flow"),
                f"Another flow is called `{name}` (in {names[name]}).",
                "Give one of them another name.",
            )
        names.setdefault(name or "", report.file)
        if isinstance(draft, DeliveryDraft):
            continue
        to = draft.destination
        made = {spec.column for spec in draft.mapping.fields} if draft.mapping else set()
        if to is None or not to.table or not to.key or not made.issuperset(to.key):
            continue  # its key has a fault of its own
        key, first = tables.setdefault(to.qualified, (tuple(sorted(to.key)), report.file))
        if key != tuple(sorted(to.key)):
            problem = (
                f"{first} loads {to.qualified} too, with the key {', '.join(key)}: the same row would have two keys."
            )
            report.fault(draft.line("destination", "key"), problem, "Use the same key in both, or another table.")


def _flow_of(file: _File, known: Known) -> AnyFlow | None:
    """The flow of a file without faults, whose mapping and functions have none in their own files."""
    draft = file.draft
    if draft is None or file.report.faults:
        return None
    return _delivery_of(draft, file, known) if isinstance(draft, DeliveryDraft) else _sync_of(draft, file, known)


def _sync_of(draft: Draft, file: _File, known: Known) -> SyncFlow | None:
    if draft.mapping is None:
        return None
    if known.functions is None and (draft.values.get("decision") or draft.mapping.function):
        return None
    values: dict[str, Any] = {name: value for name, value in draft.values.items() if name != "kind"}
    mapping = draft.mapping if draft.mapping.name else replace(draft.mapping, name=values["name"])
    values.setdefault("title", values["name"])
    return SyncFlow(**{**values, "mapping": mapping, "file": file.report.file})


def _delivery_of(draft: DeliveryDraft, file: _File, known: Known) -> DeliveryFlow | RelayFlow | None:
    values = {name: value for name, value in draft.values.items() if name != "kind"}
    values.setdefault("title", values["name"])
    if draft.values["kind"] == "relay":
        operations = {one.name: one for one in values["operations"]}
        return RelayFlow(**{**values, "operations": MappingProxyType(operations), "file": file.report.file})
    return DeliveryFlow(**{**values, "kinds": MappingProxyType(draft.kinds), "file": file.report.file})
