"""Where a value stands in a record: `a.b` is `b` inside `a`. Only dots split; `["a.b"]` is one name that holds a dot.

Spaces, dashes and anything else belong to the name: `License Number` is one name. Lists are not walked; a named function can.
"""

from __future__ import annotations

import json

PATH_REMEDY = 'Write names with dots between them, such as `owner.email`; a name that holds a dot: ["a.b", "c"].'


def parse_path(text: str) -> tuple[str, ...]:
    """The names on the way to a value, outermost first. Raises ValueError with a sentence for a path that is none."""
    names = _listed(text) if text.startswith("[") else text.split(".")
    if not names or any(not isinstance(name, str) or not name for name in names):
        raise ValueError(f"`{text}` is no path to a value.")
    return tuple(names)


def join_path(names: tuple[str, ...] | list[str]) -> str:
    """The way to write `names` so that `parse_path` gives them back."""
    plain = not any("." in name or not name for name in names) and not names[0].startswith("[")
    return ".".join(names) if plain else json.dumps(list(names), ensure_ascii=False)


def _listed(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError:
        raise ValueError(f"`{text}` is no path to a value.") from None
    return names if isinstance(names, list) else []
