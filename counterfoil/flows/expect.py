"""Which keys must exist beside an item, by a declared rule and what the item says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterfoil.flows.delivery import Expected
from counterfoil.flows.paths import parse_path
from counterfoil.flows.template import MissingValueError, compile_template

_ABSENT = object()


def expected_keys(rule: Expected, scope: Mapping[str, Any]) -> list[str]:
    """The keys a rule asks for, each once; none where its `when` does not hold. `scope`: key, group and payload of the item.

    An entry of the list that lacks what its key is made of is left out: it names nothing that could be missing.
    """
    payload = scope["payload"]
    if any(_at(payload, path) != value for path, value in rule.when.items()):
        return []
    if rule.for_each is None:
        return _keys(rule, [scope])
    entries = _at(payload, rule.for_each)
    return _keys(rule, [{**scope, "each": each} for each in entries] if isinstance(entries, list) else [])


def _keys(rule: Expected, scopes: list[Mapping[str, Any]]) -> list[str]:
    template = compile_template(rule.key)
    keys: dict[str, None] = {}
    for scope in scopes:
        try:
            keys[str(template.fill(scope))] = None
        except MissingValueError:
            continue
    return list(keys)


def value_at(value: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    found = _at(value, path)
    return None if found is _ABSENT else found


def _at(value: Any, path: str) -> Any:
    for name in parse_path(path):
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value
