"""YAML to plain nodes that know their line. Everything wrong with a file as YAML becomes a Fault here; meaning is read in `shape.py`.

Refused on purpose: anchors and aliases (a small file must not unfold into a large one), tags, several documents, files over 1 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from counterfoil.model.errors import Fault

MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """`value`: a scalar, a dict of name to Node, or a list of Node. `line` counts from 1; `key_line` is where its name stands.

    `bare`: in braces, a name and nothing else, as in `{since}`: a placeholder without its quotes.
    """

    value: Any
    line: int
    key_line: int = 0
    bare: bool = False

    def at(self, *names: str) -> Node:
        """The node at `names`, or as near to it as the file goes: for its line."""
        node = self
        for name in names:
            if not isinstance(node.value, dict) or name not in node.value:
                return node
            node = node.value[name]
        return node

    @property
    def place(self) -> int:
        """The line to show for this entry."""
        return self.key_line or self.line


@dataclass(slots=True)
class Report:
    """The faults of one file, and the notes: things that work, though perhaps not as meant."""

    file: str
    faults: list[Fault] = field(default_factory=list)
    notes: list[Fault] = field(default_factory=list)

    def fault(self, line: int, problem: str, remedy: str) -> None:
        self.faults.append(Fault(self.file, line, problem, remedy))

    def note(self, line: int, problem: str, remedy: str) -> None:
        self.notes.append(Fault(self.file, line, problem, remedy))


def did_you_mean(name: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """ "Did you mean `a`? Known: `a`, `b`." """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    meant = f"Did you mean `{near[0]}`? " if near else ""
    return f"{meant}Known: {', '.join(f'`{n}`' for n in names) or 'none'}."


def read_yaml(path: Path, report: Report) -> Node | None:
    """The document in `path`, or None with the reason in `report`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        report.fault(1, f"The file cannot be read: {error.strerror}.", "Check that it exists and that you may read it.")
        return None
    if len(raw) > MAX_BYTES:
        report.fault(
            1, f"The file has {len(raw):,} bytes.", f"A file of a project has at most {MAX_BYTES:,} bytes; split it."
        )
        return None
    try:
        return parse_yaml(raw.decode("utf-8-sig"), report)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        report.fault(line, "The file is not UTF-8 text.", "Save it in your editor with the encoding UTF-8.")
        return None


def parse_yaml(text: str, report: Report) -> Node | None:
    """The document in `text`, or None with the reason in `report`."""
    try:
        root = _compose(text)
    except MarkedYAMLError as error:
        unclosed = "quoted scalar" in str(
            error.context
        )  # then the end of the file says nothing, the opening quote does
        mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
        line = min(mark.line + 1, text.count("\n") + 1) if mark else 1
        report.fault(line, *_syntax(error, text, line))
        return None
    except (YAMLError, ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        what = "is nested too deeply" if deep else "holds a character that YAML does not allow"
        report.fault(_odd_line(text), f"The file {what}.", "Write it with a few levels of plain text.")
        return None
    if root is None:
        report.fault(1, "The file is empty.", "Write a flow or a mapping, or delete the file.")
        return None
    return _Builder(report).build(root)


def _compose(text: str) -> Any:
    return YAML(typ="safe", pure=True).compose(text)


def _odd_line(text: str) -> int:
    odd = next((at for at, char in enumerate(text) if char < " " and char not in "\t\n\r"), 0)
    return text.count("\n", 0, odd) + 1


def _syntax(error: MarkedYAMLError, text: str, line: int) -> tuple[str, str]:
    """Problem and remedy of a syntax error, in words for people who do not know YAML."""
    problem = str(error.problem or error.context or "cannot be understood").strip()
    shown = text.splitlines()[line - 1] if line <= len(text.splitlines()) else ""
    if "\t" in shown[: len(shown) - len(shown.lstrip())] or "'\\t'" in problem:
        return "A tab stands where YAML needs spaces.", "Indent with two spaces; YAML allows no tabs."
    known: dict[str, str] = {
        "mapping values are not allowed": "Put text that holds `: ` in quotes, and check the indentation of this line.",
        "expected a single document": "Keep one document in a file: remove the second `---`.",
        "could not find expected ':'": "Write `name: value` with a colon and a space, and check this line and the one above.",
        "while scanning a quoted scalar": "Close the quote that was opened.",
        "undefined alias": "Write the value out; anchors (&) and aliases (*) are not used here.",
        "expected <block end>": "Check the indentation of this line: entries of one list or section start in the same column.",
        "expected ',' or": "Close the bracket, put a comma between entries, and quotes around `${NAME}` and `{since}`.",
    }
    whole = f"{error.context or ''} {problem}"
    remedy = next(
        (words for part, words in known.items() if part in whole), "Check quotes, brackets and indentation here."
    )
    return f"Not valid YAML: {problem}.", remedy


class _Builder:
    """ruamel's nodes into ours, with faults for what we do not take."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.seen: set[int] = set()

    def build(self, node: Any, key_line: int = 0) -> Node:
        line = node.start_mark.line + 1
        if id(node) in self.seen:
            self.report.fault(
                key_line or line, "An alias (`*name`) repeats another part of the file.", "Write it out here."
            )
            return Node(None, line, key_line)
        self.seen.add(id(node))
        if isinstance(node, MappingNode):
            return Node(self._mapping(node), line, key_line)
        if isinstance(node, SequenceNode):
            return Node([self.build(part) for part in node.value], line, key_line)
        return Node(self._scalar(node, line), line, key_line)

    def _mapping(self, node: MappingNode) -> dict[str, Node]:
        made: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                self.report.fault(
                    line, "A name in the file is a list or a section.", "Write a plain word before the colon."
                )
            elif key.value in made:
                first = made[key.value].key_line
                self.report.fault(
                    line, f"`{key.value}` stands here twice (first on line {first}).", "Keep one of them."
                )
            elif key.value == "<<":
                self.report.fault(line, "`<<` merges another part of the file.", "Write its entries out here.")
            else:
                built = self.build(value, line)
                bare = bool(node.flow_style) and built.value is None and value.value == ""
                made[key.value] = replace(built, bare=bare)
        return made

    def _scalar(self, node: ScalarNode, line: int) -> Any:
        tag = str(node.tag).rpartition(":")[2]
        try:
            return _SCALARS.get(tag, str)(node.value)
        except ValueError:
            self.report.fault(line, f"`{node.value[:40]}` is no {tag}.", "Put it in quotes if it is a text.")
            return None


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text.replace("_", ""), 0) if text.lstrip("+-")[:2].lower() in ("0x", "0o") else int(text),
    "float": lambda text: float(text.replace("_", "")),
}
