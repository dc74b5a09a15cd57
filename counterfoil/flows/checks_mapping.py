"""What a mapping says, beyond its shape: fields that fit together, limits that fit their type, functions that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC

from counterfoil.flows.flow import FieldSpec, FieldType, RecordMapping
from counterfoil.flows.functions import Functions
from counterfoil.flows.kinds import MAX_NAME
from counterfoil.flows.values import BadValueError, default_of
from counterfoil.flows.yamlfile import Node, Report, did_you_mean

T = FieldType
# What only some types can have.
_FITS: dict[str, tuple[FieldType, ...]] = {
    "format": (T.DATE, T.DATETIME),
    "max_length": (T.STRING,),
    "minimum": (T.INTEGER, T.DECIMAL),
    "maximum": (T.INTEGER, T.DECIMAL),
}


def check_mapping(mapping: RecordMapping, node: Node, functions: Functions | None, report: Report) -> None:
    """`node` is the section that holds `fields` (or the list itself). `functions` is None where functions.py does not import."""
    rows = node.value if isinstance(node.value, list) else node.at("fields").value
    nodes: list[Node] = rows if isinstance(rows, list) else []
    pairs = list(zip(mapping.fields, nodes, strict=False))
    for spec, row in pairs:
        for check in _FIELD_CHECKS if spec.type else ():  # a type that is none has its fault already
            check(spec, row, report)
        if not spec.external and not mapping.function:
            report.fault(
                row.place, f"`external` is missing in field `{spec.internal}`.", "Add the name in the source's record."
            )
    _twice(pairs, "internal", lambda spec: spec.internal, report)
    _twice(pairs, "column", lambda spec: spec.column, report)
    if mapping.function:
        check_function(mapping.function, node.at("function").place, functions, report)


def check_function(name: str, line: int, functions: Functions | None, report: Report) -> None:
    if functions is not None and name not in functions.by_name:
        known = functions.known
        remedy = did_you_mean(name, known) if known else "Define it in functions.py, in the project's folder."
        report.fault(line, f"No function `{name}` in functions.py.", remedy)


def _limits_fit(spec: FieldSpec, row: Node, report: Report) -> None:
    for limit, types in _FITS.items():
        if getattr(spec, limit) is not None and spec.type not in types:
            fitting = " and ".join(types)
            report.fault(
                row.at(limit).place,
                f"`{limit}` says nothing about a {spec.type} (field `{spec.internal}`).",
                f"It is for {fitting}; remove it, or change the type.",
            )


def _sound(spec: FieldSpec) -> bool:
    """No limit of another type; that is a fault of its own, and would trip the limits here."""
    return all(getattr(spec, limit) is None or spec.type in types for limit, types in _FITS.items())


def _limits_in_order(spec: FieldSpec, row: Node, report: Report) -> None:
    if spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        report.fault(
            row.at("minimum").place, f"`minimum` is above `maximum` in field `{spec.internal}`.", "Exchange them."
        )


def _default_fits(spec: FieldSpec, row: Node, report: Report) -> None:
    try:
        default_of(
            spec if _sound(spec) else replace(spec, format=None, max_length=None, minimum=None, maximum=None), UTC
        )
    except BadValueError as bad:
        remedy = f"Write a default that is a {spec.type}, as a record would hold it."
        report.fault(row.at("default").place, f"`default` of field `{spec.internal}` {bad.problem}", remedy)


def _column_fits(spec: FieldSpec, row: Node, report: Report) -> None:
    if len(spec.column.encode()) > MAX_NAME:
        report.fault(
            row.place,
            f"The column of field `{spec.internal}` would have a name of {len(spec.column)} characters.",
            f"PostgreSQL cuts names after {MAX_NAME}; add `column:` with a shorter one.",
        )


_FIELD_CHECKS: tuple[Callable[[FieldSpec, Node, Report], None], ...] = (
    _limits_fit,
    _limits_in_order,
    _default_fits,
    _column_fits,
)


def _twice(pairs: list[tuple[FieldSpec, Node]], what: str, name_of: Callable[[FieldSpec], str], report: Report) -> None:
    for name, row, first in _repeats([(name_of(spec), row) for spec, row in pairs]):
        report.fault(
            row.at(what).place, f"Two fields have the {what} `{name}` (the first on line {first.line}).", "Rename one."
        )


def _repeats(named: list[tuple[str, Node]]) -> Iterator[tuple[str, Node, Node]]:
    seen: dict[str, Node] = {}
    for name, row in named:
        if name in seen:
            yield name, row, seen[name]
        elif name:
            seen[name] = row
