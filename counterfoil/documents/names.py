"""Names of files as the other side takes them. Text only: nothing is opened here.

Whatever a name was, what comes out has no folder, no control character, and is never empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from counterfoil.flows.delivery import NameRule

EMPTY = "file"  # what a file is called whose name held nothing that can be kept
# Controls, line separators, marks that turn the direction of text (`fdp.exe` reads `exe.pdf`), half characters.
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SPACES = re.compile(r"\s")
_STEM_MARKS = re.compile(r"[.-]")
_DROPPED = re.compile(r"[^A-Za-z0-9_]")


def clean_name(name: str, rule: NameRule) -> str:
    """The name under `rule`, without the folders before it. Cleaning what was cleaned changes nothing."""
    base = re.split(r"[/\\]", name)[-1]
    shown = _NOT_SHOWN.sub("", base).strip()
    return _RULES[rule](shown if shown.replace(".", "").strip() else EMPTY)


def extension(name: str) -> str:
    """What stands after the last dot, in small letters; "" where there is none."""
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if dot and stem else ""


def _underscore(name: str) -> str:
    """Spaces to `_`, dots and dashes of the stem too, all other signs dropped, one extension kept."""
    stem, ending = _split(name)
    plain = _DROPPED.sub("", _STEM_MARKS.sub("_", _SPACES.sub("_", stem)))
    return _joined(plain, _DROPPED.sub("", _SPACES.sub("", ending)))


def _last_dot(name: str) -> str:
    """All dots but the last one removed."""
    stem, ending = _split(name)
    return _joined(stem.replace(".", ""), ending)


def _split(name: str) -> tuple[str, str]:
    """Stem and extension. Dots at the end of a name are none of an extension."""
    stem, dot, ending = name.rstrip(". ").rpartition(".")
    return (stem, ending.strip()) if dot else (ending, "")


def _joined(stem: str, ending: str) -> str:
    stem = stem if stem.strip() else EMPTY
    return (f"{stem}.{ending}" if ending else stem).strip()


_RULES: Mapping[NameRule, Callable[[str], str]] = {
    NameRule.AS_IT_IS: lambda name: name,
    NameRule.UNDERSCORE: _underscore,
    NameRule.LAST_DOT: _last_dot,
}
