from __future__ import annotations

import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.flows.template import MissingValueError, TemplateError, compile_path, compile_template
from counterfoil.model.errors import Refused

SCOPE: dict[str, Any] = {
    "key": "k-1",
    "group": None,
    "attempt": 2,
    "payload": {
        "id": 7,
        "share": 0.5,
        "good": True,
        "bad": False,
        "none": None,
        "empty": "",
        "zero": 0,
        "list": [1, {"a": 2}],
        "License Number": "L 9",
        "name": 'a "quoted" ünd\n{braced}',
        "amount": Decimal("10.50"),
        "deep": {"er": {"still": "down"}},
    },
    "parent": MappingProxyType({"receipt": "r-1"}),
}


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("{payload.id}", 7),
        ("{payload.share}", 0.5),
        ("{payload.good}", True),
        ("{payload.bad}", False),
        ("{payload.zero}", 0),
        ("{payload.empty}", ""),
        ("{payload.list}", [1, {"a": 2}]),
        ("{payload.deep}", {"er": {"still": "down"}}),
        ("{payload.deep.er.still}", "down"),
        ("{payload.License Number}", "L 9"),
        ("{parent.receipt}", "r-1"),
        ("{payload.amount}", Decimal("10.50")),
        ("{key}", "k-1"),
        ("{payload.id?}", 7),
        ("no {payload.id}: {payload.share}, {payload.good}/{payload.bad}", "no 7: 0.5, true/false"),
        ("{payload.amount} pounds", "10.50 pounds"),
        ("{payload.name}!", 'a "quoted" ünd\n{braced}!'),
        ("[{payload.none?}{payload.nothing?}{group?}]", "[]"),
        ("{{payload.id}} and {{{payload.id}}}", "{payload.id} and {7}"),
        ("${NAME} {key}", "${NAME} k-1"),
        ("", ""),
        (12, 12),
        (None, None),
        (True, True),
        ({"a": "{payload.id}", "b": [1, "{key}", None]}, {"a": 7, "b": [1, "k-1", None]}),
        ({"a": "{payload.none?}", "b": "{nothing.at.all?}", "c": "{key}"}, {"c": "k-1"}),
        ({"a": ["{payload.none?}", "x"], "b": {"c": "{group?}"}}, {"a": ["x"], "b": {}}),
        ({"a": "-{payload.none?}-"}, {"a": "--"}),
        (
            {"a": "{payload.none?null}", "b": ["{nothing.at.all?null}"], "c": "-{payload.none?null}-"},
            {"a": None, "b": [None], "c": "--"},
        ),
        ("{payload.none?}", None),
        (("{key}", 1), ["k-1", 1]),
    ],
)
def test_what_is_made(template: Any, made: Any) -> None:
    filled = compile_template(template).fill(SCOPE)
    assert filled == made
    assert type(filled) is type(made)


@pytest.mark.parametrize(
    "path", ["payload.nothing", "payload.none", "group", "nothing", "key.inner", "payload.list.0", "payload.id.x.y"]
)
def test_a_required_value_that_is_missing_or_null_is_told_by_its_path(path: str) -> None:
    for template in ("{" + path + "}", "in a text: {" + path + "}", {"a": [{"b": "{" + path + "}"}]}):
        with pytest.raises(MissingValueError) as caught:
            compile_template(template).fill(SCOPE)
        assert caught.value.path == path
        assert caught.value.fault == "missing_value"
        assert str(caught.value).startswith(f"`{path}` is missing. ")
        assert "{" + path + "?}" in caught.value.remedy


@pytest.mark.parametrize("value", [[1], {"a": 1}, (), float("nan"), float("inf")])
def test_what_is_no_single_value_stands_in_no_text(value: Any) -> None:
    scope = {"payload": {"x": value}}
    assert compile_template("{payload.x}").fill(scope) is value
    with pytest.raises(Refused, match=r"`payload\.x` is no ") as caught:
        compile_template("x: {payload.x}").fill(scope)
    assert caught.value.fault == "bad_payload"


@pytest.mark.parametrize(
    "template",
    [
        "{", "}", "a { b", "{}", "{ key }", "{key", "key}", "{payload.}", "{.payload}", "{payload..id}", "{payload.list[0]}",
        "{payload.id ?}", "{1st}", "{payload. id}", '{["a.b"]}', "{a{key}}",
    ],
)  # fmt: skip
def test_a_brace_that_is_no_placeholder_is_refused_when_it_is_compiled(template: str) -> None:
    for value in (template, {"a": [template]}):
        with pytest.raises(TemplateError, match="belongs to no placeholder"):
            compile_template(value)
    with pytest.raises(TemplateError):
        compile_path(template)


def test_names_are_not_filled_in() -> None:
    with pytest.raises(TemplateError, match="The name `{payload.id}` holds a placeholder"):
        compile_template({"data": {"{payload.id}": 1}})
    assert compile_template({"a{b": 1}).fill({}) == {"a{b": 1}


def test_the_paths_a_template_reads() -> None:
    template = compile_template({"a": "{key}-{payload.x?}", "b": ["{payload.y}", "{{no}}", "${NO}"]})
    assert template.names == {"key", "payload.x", "payload.y"}
    assert template.required == {"key", "payload.y"}
    assert compile_path("/a/{key}/{payload.x?}").names == {"key", "payload.x"}
    assert compile_template([1, None]).names == frozenset()


def test_a_filled_template_may_be_changed_without_harm() -> None:
    template = compile_template({"a": {"b": []}, "c": [{}]})
    made = template.fill({})
    made["a"]["b"].append(1)
    made["c"][0]["x"] = 1
    assert template.fill({}) == {"a": {"b": []}, "c": [{}]}


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("12345678", "12345678"),
        (42, "42"),
        (True, "true"),
        ("a/b", "a%2Fb"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("x?y=1&z#q", "x%3Fy%3D1%26z%23q"),
        ("%2e%2e", "%252e%252e"),
        ("..;", "..%3B"),
        ("...", "%2E%2E%2E"),
        ("é ü", "%C3%A9%20%C3%BC"),
        ("a\r\nHost: x", "a%0D%0AHost%3A%20x"),
        ("\\..\\", "%5C..%5C"),
    ],
)
def test_values_of_a_path_are_encoded_fully(value: Any, encoded: str) -> None:
    path = compile_path("/clients/{payload.x}/reports").fill({"payload": {"x": value}})
    assert path == f"/clients/{encoded}/reports"


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/clients/{x}/reports", {"x": ".."}),
        ("/clients/{x}", {"x": "."}),
        ("/clients/{x}{y}/reports", {"x": ".", "y": "."}),
        ("/clients/.{x}/reports", {"x": "."}),
        ("/clients/{x}./reports", {"x": "."}),
    ],
)
def test_a_segment_of_dots_is_refused_since_the_other_side_may_decode_it(path: str, scope: dict[str, str]) -> None:
    with pytest.raises(Refused, match="would climb out") as caught:
        compile_path(path).fill(scope)
    assert caught.value.fault == "bad_payload"


def test_an_empty_value_would_make_it_another_path() -> None:
    with pytest.raises(MissingValueError, match="`payload.x` is empty"):
        compile_path("/clients/{payload.x}/reports").fill({"payload": {"x": ""}})
    assert compile_path("/clients{payload.x?}").fill({"payload": {}}) == "/clients"
    with pytest.raises(MissingValueError, match="`payload.x` is missing"):
        compile_path("/clients/{payload.x}").fill({"payload": {}})


def test_half_a_character_is_refused() -> None:
    with pytest.raises(Refused, match="no text that can be sent"):
        compile_path("/a/{x}").fill({"x": "\ud800"})


def test_the_declared_text_of_a_path_stays() -> None:
    assert compile_path("/a b/é/c%2Fd;v=1/{{x}}").fill({}) == "/a%20b/%C3%A9/c%2Fd;v=1/%7Bx%7D"


# --- any template, any scope --------------------------------------------------------------------------------------

_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
)


def _escaped(value: Any) -> Any:
    """The template that says exactly this value."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, dict):
        return {name: _escaped(part) for name, part in value.items()}
    return [_escaped(part) for part in value] if isinstance(value, list) else value


@given(_VALUES)
def test_a_value_with_doubled_braces_is_made_as_it_is(value: Any) -> None:
    assert compile_template(_escaped(value)).fill({}) == value


@given(_LEAVES.filter(lambda value: value is not None))
def test_a_single_value_in_a_text_is_what_json_writes(value: Any) -> None:
    made = compile_template("<{payload.x}>").fill({"payload": {"x": value}})[1:-1]
    assert made == value if isinstance(value, str) else json.loads(made) == value


@given(st.text(), st.text())
def test_a_value_never_leaves_its_segment(first: str, second: str) -> None:
    try:
        path = compile_path("/a/{x}/b/{y}").fill({"x": first, "y": second})
    except Refused:
        assert {first, second} & {"", ".", ".."} or not (first + second).isprintable()
        return
    assert [unquote(part) for part in path.split("/")] == ["", "a", first, "b", second]
