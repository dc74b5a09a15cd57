"""Keys of the object store: made from hostile text, and refused where they climb."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.connectors.object_keys import LONGEST_KEY, check_key, safe_key
from counterfoil.model.errors import Refused

HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=300), st.sampled_from(["..", ".", "", "/", "\\", "a/../b", "a#1", "x.", ".new", "~", "a~b"])
    ),
    min_size=1,
    max_size=12,
)


@given(HOSTILE)
def test_whatever_comes_the_key_is_one(parts: list[str]) -> None:
    key = safe_key(*parts)
    assert check_key(key) == key
    assert key.isascii() and len(key) <= LONGEST_KEY and "//" not in key and "\\" not in key


@given(HOSTILE, HOSTILE)
def test_two_lists_of_parts_never_share_a_key(one: list[str], other: list[str]) -> None:
    assert (safe_key(*one) == safe_key(*other)) == (one == other)


@given(HOSTILE)
def test_what_is_a_key_already_stays_one(parts: list[str]) -> None:
    """A key that was made may be cut into its parts again, and a changed part is never taken for an unchanged one."""
    again = safe_key(*safe_key(*parts).split("/"))
    assert check_key(again)
    if "~" not in safe_key(*parts):
        assert again == safe_key(*parts)


def test_plain_parts_stay_as_they_are() -> None:
    assert safe_key("permits", "P-1", "scan_2.final.pdf") == "permits/P-1/scan_2.final.pdf"


def test_what_had_to_be_changed_can_still_be_read() -> None:
    key = safe_key("permits", "Größe/../2026 final.PDF")
    assert key.startswith("permits/Gr_e_.._2026_final~") and key.endswith(".PDF")


@pytest.mark.parametrize("parts", [["a/b"], ["a", "b/c"], [".hidden"], ["a."], ["nul\0"], ["A" * 300], [""]])
def test_a_part_is_always_one_segment(parts: list[str]) -> None:
    assert len(safe_key(*parts).split("/")) == len(parts)
    assert "~" in safe_key(*parts)


def test_a_key_needs_a_part() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        safe_key()


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../b", "a/..", ".", "a//b", "a/", "a\\b", "a\nb", "a\x00", "a\x85b", "\ud800", "a#1", "a#12/b",
     ".new/x", ".new", "a/" + "x" * 256, "é" * 513],
)  # fmt: skip
def test_a_key_that_climbs_or_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(Refused) as caught:
        check_key(key)
    assert caught.value.fault == "bad_object_key"
    assert len(key) < 5 or key not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["dd_doc_98765_01234567890123", "a/b c ü.pdf", "...", "a..b", ".hidden", "a#b", "%2e%2e/x", "x.new"]
)
def test_keys_that_others_made_are_taken(key: str) -> None:
    assert check_key(key) == key
