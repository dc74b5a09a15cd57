from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.flows.paths import join_path, parse_path


def test_only_dots_split() -> None:
    assert parse_path("a.b") == ("a", "b")
    assert parse_path("License Number") == ("License Number",)
    assert parse_path('["a.b", "c"]') == ("a.b", "c")


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "[]", "[1]", "[", '["a", ""]', '{"a": 1}.'])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        parse_path(text)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_a_path_is_written_so_that_it_is_read_back(names: list[str]) -> None:
    assert parse_path(join_path(names)) == tuple(names)
