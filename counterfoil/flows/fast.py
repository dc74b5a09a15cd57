"""The fast way of mapping: a typed msgspec decoder and one generated function per mapping.

The generated source is made of positions and fixed text only; nothing a flow file says becomes code. Each step raises on any
doubt, and `mapping.py` then takes the careful way: so a rule left out here must make a record slow, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw

from counterfoil.flows.flow import FieldSpec, FieldType, RecordMapping
from counterfoil.flows.paths import parse_path
from counterfoil.flows.rows import MAX_KEY, Row
from counterfoil.flows.values import (
    BOOLEANS,
    DECIMAL_DIGITS,
    INT64,
    default_of,
    json_text,
    moment_maker,
    text_of,
    type_converter,
    whole_of,
)

Path = tuple[str, ...]
_TEXT: Any = (
    str | int | None
)  # what a text, a whole number, a date or a key may be written as; all four may share one path
_AS: dict[FieldType, Any] = {
    FieldType.STRING: _TEXT,
    FieldType.INTEGER: _TEXT,
    FieldType.DATE: _TEXT,
    FieldType.DATETIME: _TEXT,
    FieldType.BOOLEAN: bool | int | str | None,
    FieldType.DECIMAL: Decimal | None,
    FieldType.JSON: Raw | None,
}


class DoubtError(ValueError):
    """Take the careful way."""


@dataclass(slots=True)
class _Node:
    """A place in the record: an object with children, or a value with its types."""

    variable: str
    types: list[Any] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def clear(self) -> bool:
        """One way to decode it: not object and value at once, not two types that decode differently."""
        alike = len({str(kind) for kind in self.types}) <= 1
        return alike and not (self.types and self.children) and all(c.clear for c in self.children.values())


def compile_fast(
    mapping: RecordMapping, key: Path, changed: Path | None, changed_format: str | None, zone: tzinfo
) -> Callable[[bytes], Row] | None:
    """A function from the bytes of a record to its row that raises on any doubt, or None where no typed decoder fits the paths."""
    root = _Node("top")
    count = iter(range(1_000_000))
    key_at = _place(root, key, _TEXT, count)
    changed_at = _place(root, changed, _TEXT, count) if changed else None
    fields = [(spec, _place(root, parse_path(spec.external), _AS[spec.type], count)) for spec in mapping.fields]
    if not root.clear:
        return None
    names: dict[str, Any] = dict(_NAMES, moment=moment_maker(changed_format, zone))
    names["decode"] = msgspec.json.Decoder(_struct(root, names)).decode
    lines = ["if b'\\\\u0000' in raw or b'\\0' in raw: raise Doubt", "top = decode(raw)", *_opening(root)]
    lines += [f"key = {key_at}", *_KEY, f"changed = {changed_at}"]
    lines += _CHANGED if changed_at else []
    for at, (spec, place) in enumerate(fields):
        same = place == changed_at and spec.type is FieldType.DATETIME and spec.format == changed_format
        place = "changed" if same else place  # read once
        lines += _field_lines(f"v{at}", place, spec, mapping.empty_is_null, names, zone)
    lines.append(f"return Row(key, changed, ({''.join(f'v{at}, ' for at in range(len(fields)))}))")
    return _function(lines, names)


def _function(lines: list[str], names: dict[str, Any]) -> Callable[[bytes], Row]:
    source = "def fast(raw):\n" + "".join(f"    {line}\n" for line in lines)
    exec(compile(source, "<mapping>", "exec"), names)
    made: Callable[[bytes], Row] = names["fast"]
    return made


def _place(root: _Node, path: Path, as_type: Any, count: Iterator[int]) -> str:
    node = root
    for name in path:
        node = node.children.setdefault(name, _Node(f"n{next(count)}"))
    node.types.append(as_type)
    return node.variable


def _struct(node: _Node, names: dict[str, Any]) -> type[msgspec.Struct]:
    """The struct of an object; everything in it may be missing. Leaves behind its empty one, for where the object is null."""
    members = [
        (child.variable, (_struct(child, names) | None) if child.children else child.types[0], None)
        for child in node.children.values()
    ]
    renamed = {child.variable: name for name, child in node.children.items()}
    made = msgspec.defstruct(f"Record_{node.variable}", members, rename=renamed, gc=False)
    names[f"empty_{node.variable}"] = made()
    return made


def _opening(node: _Node) -> Iterator[str]:
    for child in node.children.values():
        yield f"{child.variable} = {node.variable}.{child.variable}"
        if child.children:
            yield f"if {child.variable} is None: {child.variable} = empty_{child.variable}"
            yield from _opening(child)


# --- the steps of one field ---------------------------------------------------------------------------------------

_NAMES: dict[str, Any] = {
    "Row": Row,
    "Doubt": DoubtError,
    "text_of": text_of,
    "whole_of": whole_of,
    "json_text": json_text,
    "booleans": {**BOOLEANS, "": None},
    "huge": Decimal(f"1E{DECIMAL_DIGITS}"),
}
_KEY = ["if key.__class__ is int: key = text_of(key)", f"if not key or len(key) > {MAX_KEY}: raise Doubt"]
_CHANGED = ["if changed is not None: changed = moment(changed) if changed != '' else None"]
_BY_TYPE: dict[FieldType, tuple[str, ...]] = {  # {v}: the variable of the field
    FieldType.STRING: ("if {v}.__class__ is int: {v} = text_of({v})",),
    FieldType.INTEGER: (
        "if {v}.__class__ is str: {v} = whole_of({v}) if {v} else None",
        f"if {{v}} is not None and not {-INT64} <= {{v}} < {INT64}: raise Doubt",
    ),
    FieldType.BOOLEAN: ("if {v} is not True and {v} is not False and {v} is not None: {v} = booleans[{v}]",),
    FieldType.DECIMAL: ("if {v} is not None and not -huge < {v} < huge: raise Doubt",),
    FieldType.DATE: ("if {v} is not None: {v} = convert_{v}({v}) if {v} != '' else None",),
    FieldType.DATETIME: ("if {v} is not None: {v} = convert_{v}({v}) if {v} != '' else None",),
    FieldType.JSON: ("if {v} is not None: {v} = json_text(bytes({v}))",),
}


def _field_lines(
    variable: str, place: str, spec: FieldSpec, empty_is_null: bool, names: dict[str, Any], zone: tzinfo
) -> Iterator[str]:
    """The statements that leave the value of the field in `variable`."""
    if spec.type in (FieldType.DATE, FieldType.DATETIME):
        names[f"convert_{variable}"] = type_converter(spec, zone)
    yield f"{variable} = {place}"
    for line in () if place == "changed" else _BY_TYPE[spec.type]:
        yield line.format(v=variable)
    if spec.type is FieldType.STRING and empty_is_null:
        yield f"if not {variable}: {variable} = None"
    default = default_of(spec, zone)
    if default is not None:
        names[f"default_{variable}"] = default
        yield f"if {variable} is None: {variable} = default_{variable}"
    if spec.required:
        yield f"if {variable} is None or {variable} == '': raise Doubt"
    yield from _limits(variable, spec, names)


def _limits(variable: str, spec: FieldSpec, names: dict[str, Any]) -> Iterator[str]:
    checks = {"max_length": f"len({variable}) > {{}}", "minimum": f"{variable} < {{}}", "maximum": f"{variable} > {{}}"}
    for limit, check in checks.items():
        value = getattr(spec, limit)
        if value is not None:
            names[f"{limit}_{variable}"] = value
            yield f"if {variable} is not None and {check.format(f'{limit}_{variable}')}: raise Doubt"
