from __future__ import annotations

from typing import Any

import pytest

from counterfoil.flows.delivery import Expected
from counterfoil.flows.expect import expected_keys, value_at

PAYLOAD: dict[str, Any] = {
    "bdd": True,
    "form": {"kind": "a", "score": 0},
    "attachments": [{"id": 1}, {"id": "x"}, {"id": 1}, {}, None, {"id": None}],
    "none": None,
}
SCOPE = {"key": "c-1", "group": "g", "payload": PAYLOAD}


@pytest.mark.parametrize(
    ("rule", "keys"),
    [
        ({"key": "{key}/form"}, ["c-1/form"]),
        ({"key": "{group}/{payload.form.kind}"}, ["g/a"]),
        ({"key": "{key}/{each.id}", "for_each": "attachments"}, ["c-1/1", "c-1/x"]),
        ({"key": "{key}/{each.id}", "for_each": "form"}, []),
        ({"key": "{key}/{each.id}", "for_each": "nothing"}, []),
        ({"key": "{payload.nothing}"}, []),
        ({"key": "{key}", "when": {"bdd": True}}, ["c-1"]),
        ({"key": "{key}", "when": {"bdd": False}}, []),
        ({"key": "{key}", "when": {"bdd": True, "form.kind": "b"}}, []),
        ({"key": "{key}", "when": {"bdd": True, "form.kind": "a"}}, ["c-1"]),
        ({"key": "{key}", "when": {"none": None}}, ["c-1"]),
        ({"key": "{key}", "when": {"nothing": None}}, []),
        ({"key": "{key}", "when": {"bdd": 1}}, []),
        ({"key": "{key}", "when": {"form.score": False}}, []),
        ({"key": "{key}", "when": {"form.score": 0}}, ["c-1"]),
    ],
)
def test_the_keys_a_rule_asks_for(rule: dict[str, Any], keys: list[str]) -> None:
    assert expected_keys(Expected("claim", **rule), SCOPE) == keys


@pytest.mark.parametrize(
    ("path", "value"), [("form.kind", "a"), ("form", PAYLOAD["form"]), ("form.kind.x", None), ("x", None)]
)
def test_the_value_at_a_path(path: str, value: Any) -> None:
    assert value_at(PAYLOAD, path) == value
