"""How a declared file is read: a shape is a table of entries, each with a kind that turns a node into a value or a fault.

One walk gives the values and every fault with its line; the same tables give the JSON Schema (`schema.py`) and are held against the
reference in the docs. A wrong value never stops the walk: the entry keeps its default, and the file is refused at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from counterfoil.flows.yamlfile import Node, Report, did_you_mean

BAD: Final = object()  # what a kind returns after it has reported a fault
Reader = Callable[[Node, Report, str], Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """`read(node, report, label)` gives the value or BAD; `schema` is the same rule for an editor."""

    read: Reader
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a section. `attribute`: of the dataclass, where it differs. `blank` stands in for a required value that is wrong."""

    name: str
    kind: Kind
    help: str
    attribute: str = ""
    required: bool = False
    blank: Any = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """A section: its entries, and what to build from them."""

    what: str  # "flow", "source": as faults call it
    entries: tuple[Entry, ...]
    build: Callable[..., Any]
    example: str = ""
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(entry.name for entry in self.entries))

    def values(self, node: Node, report: Report) -> dict[str, Any] | None:
        """The given values by attribute; None where `node` is no section at all."""
        if not isinstance(node.value, dict):
            example = f", such as {self.example}" if self.example else f" with: {', '.join(self.names)}"
            report.fault(
                node.place, f"`{self.what}` is {said(node.value)}, not a section.", f"Write names and values{example}."
            )
            return None
        for name, part in node.value.items():
            if name not in self.names:
                remedy = did_you_mean(name, self.names)
                report.fault(part.place, f"Unknown field `{name}` in {self.what}.", remedy)
        return {
            entry.attribute or entry.name: value
            for entry in self.entries
            if (value := self._one(entry, node, report)) is not BAD
        }

    def _one(self, entry: Entry, node: Node, report: Report) -> Any:
        part = node.value.get(entry.name)
        if part is None:
            if entry.required:
                report.fault(
                    node.place, f"`{entry.name}` is missing in {self.what}.", f"Add `{entry.name}:`, {entry.help}"
                )
            return entry.blank if entry.required else BAD
        value = entry.kind.read(part, report, f"`{entry.name}` in {self.what}")
        return entry.blank if value is BAD and entry.required else value

    def read(self, node: Node, report: Report, label: str = "") -> Any:
        """The built value, or BAD."""
        values = self.values(node, report)
        return BAD if values is None else self.build(**values)

    @property
    def kind(self) -> Kind:
        return Kind(self.read, self.schema)

    @property
    def schema(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {e.name: {**e.kind.schema, "description": e.help} for e in self.entries},
        }
        required = [e.name for e in self.entries if e.required]
        return {**made, "required": required} if required else made


def said(value: Any) -> str:
    """A value in a sentence."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown[:60]}{'…' * (len(shown) > 60)}`"


# --- kinds every file uses ----------------------------------------------------------------------------------------


def scalar_kind(check: Callable[[Any], Any], needed: str, schema: Mapping[str, Any], *, secret: bool = False) -> Kind:
    """`check(value)` gives the value or raises ValueError, whose text (if any) is the problem. `needed` is the remedy."""

    def read(node: Node, report: Report, label: str) -> Any:
        if unquoted(node, report, label):
            return BAD
        try:
            if isinstance(node.value, dict | list) or node.value is None:
                raise ValueError
            return check(node.value)
        except ValueError as error:
            shown = "not acceptable" if secret else said(node.value)
            report.fault(node.place, str(error) or f"{label} is {shown}.", needed)
            return BAD

    return Kind(read, schema)


def unquoted(node: Node, report: Report, label: str) -> bool:
    """`{since}` without quotes is a section to YAML: say so, since nothing in the file looks wrong."""
    names = list(node.value) if isinstance(node.value, dict) else []
    if len(names) != 1 or not node.value[names[0]].bare:
        return False
    remedy = f'Put quotes around it: "{{{names[0]}}}".'
    report.fault(node.place, f"{label} has a brace without quotes.", remedy)
    return True


def single() -> Kind:
    """A text, a number, true, false or null, as it is written."""

    def read(node: Node, report: Report, label: str) -> Any:
        if unquoted(node, report, label):
            return BAD
        if isinstance(node.value, dict | list):
            remedy = "Write a text, a number, true, false or null."
            report.fault(node.place, f"{label} is {said(node.value)}.", remedy)
            return BAD
        return node.value

    return Kind(read, {"type": ["string", "number", "boolean", "null"]})


def _only(kind: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError
        return value

    return check


def text(needed: str = "Write a text.", *, empty: bool = False) -> Kind:
    def check(value: Any) -> str:
        if not isinstance(value, str) or (not value.strip() and not empty):
            raise ValueError
        return value

    return scalar_kind(check, needed, {"type": "string"})


def flag() -> Kind:
    return scalar_kind(_only(bool), "Write true or false.", {"type": "boolean"})


def whole(least: int = 0, most: int = 2**31 - 1) -> Kind:
    def check(value: Any) -> int:
        number: int = _only(int)(value)
        if not least <= number <= most:
            raise ValueError
        return number

    needed = f"Write a whole number of at least {least}."
    return scalar_kind(check, needed, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float | None = None, most: float | None = None, *, above: float | None = None) -> Kind:
    def check(value: Any) -> float:
        given = float(_only((int, float))(value))
        low = (least is not None and given < least) or (above is not None and given <= above)
        if low or given != given or (most is not None and given > most):
            raise ValueError
        return given

    bounds = [f"of at least {least:g}" if least is not None else "", f"above {above:g}" if above is not None else ""]
    bounds.append(f"up to {most:g}" if most is not None else "")
    limits = {"minimum": least, "maximum": most, "exclusiveMinimum": above}
    needed = " ".join(["Write a number", *filter(None, bounds)]) + "."
    return scalar_kind(check, needed, {"type": "number", **{k: v for k, v in limits.items() if v is not None}})


def choice(values: type[StrEnum] | Sequence[str]) -> Kind:
    known = [str(value) for value in values]

    def read(node: Node, report: Report, label: str) -> Any:
        if node.value in known and isinstance(node.value, str):
            return values(node.value) if isinstance(values, type) else node.value
        report.fault(node.place, f"{label} is {said(node.value)}.", did_you_mean(str(node.value), known))
        return BAD

    return Kind(read, {"enum": known})


def listed(kind: Kind, needed: str, *, least: int = 1) -> Kind:
    def read(node: Node, report: Report, label: str) -> Any:
        if not isinstance(node.value, list) or len(node.value) < least:
            report.fault(node.place, f"{label} is {said(node.value) if node.value != [] else 'an empty list'}.", needed)
            return BAD
        values = [kind.read(part, report, f"An entry of {label}") for part in node.value]
        return BAD if any(value is BAD for value in values) else tuple(values)

    return Kind(read, {"type": "array", "items": kind.schema, "minItems": least})


def table(kind: Kind, needed: str, *, names: Kind | None = None) -> Kind:
    """Free names to values of one kind; `names`: what they may be."""

    def read(node: Node, report: Report, label: str) -> Any:
        if not isinstance(node.value, dict):
            report.fault(node.place, f"{label} is {said(node.value)}.", needed)
            return BAD
        good = [names is None or good_name(names, name, part, report, label) for name, part in node.value.items()]
        values = {name: kind.read(part, report, f"`{name}` in {label}") for name, part in node.value.items()}
        return BAD if not all(good) or any(value is BAD for value in values.values()) else values

    return Kind(read, {"type": "object", "additionalProperties": kind.schema})


def good_name(names: Kind, name: str, part: Node, report: Report, label: str) -> bool:
    """Whether a free name is one of `names`; with its fault where it is none."""
    return names.read(Node(name, part.place), report, f"A name in {label}") is not BAD


def plain(node: Node) -> Any:
    """The node as plain values."""
    if isinstance(node.value, dict):
        return {name: plain(part) for name, part in node.value.items()}
    return [plain(part) for part in node.value] if isinstance(node.value, list) else node.value


def anything() -> Kind:
    return Kind(lambda node, report, label: plain(node), {})


def either(pick: Callable[[Node], Kind], *kinds: Kind) -> Kind:
    """One of several ways to write it; `pick` chooses by the node."""
    return Kind(lambda node, report, label: pick(node).read(node, report, label), {"anyOf": [k.schema for k in kinds]})
