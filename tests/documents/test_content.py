"""What a file is by its first bytes: each kind under its own ending, under every other, and what cannot be told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.documents.content import HEAD, KINDS, OCTETS, content_type, contradiction
from tests.documents.samples import SIGNATURES

ALL = {**SIGNATURES, "pdf": b"%PDF-1.7\n"}


@pytest.mark.parametrize("ending", ALL)
def test_each_kind_fits_its_own_ending(ending: str) -> None:
    assert contradiction(ending, ALL[ending] + bytes(100)) is None


@pytest.mark.parametrize("ending", ALL)
@pytest.mark.parametrize("other", ALL)
def test_no_kind_fits_the_ending_of_another(ending: str, other: str) -> None:
    family = KINDS[ending].family
    if KINDS[other].family == family:
        return
    said = contradiction(other, ALL[ending])
    assert said == ("something else" if ending == "bmp" else family)  # two letters are no proof of a bitmap


@pytest.mark.parametrize("ending", ["txt", "csv", "json"])
@pytest.mark.parametrize("other", [name for name in ALL if name != "bmp"])
def test_a_text_is_none_of_the_others(ending: str, other: str) -> None:
    assert contradiction(ending, ALL[other]) == KINDS[other].family


@pytest.mark.parametrize(
    "text", [b"BMW is a car", b"MZ", b"hello", "Grüße".encode(), b"<html>", b'{"a": 1}', b"II", "é".encode("utf-16")]
)
def test_a_text_may_begin_with_anything_a_text_does(text: bytes) -> None:
    assert contradiction("txt", text) is None


def test_an_ending_that_is_not_known_claims_nothing() -> None:
    assert contradiction("step", ALL["png"]) is None
    assert contradiction("", b"") is None


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=600))
def test_any_bytes_get_an_answer(ending: str, content: bytes) -> None:
    assert contradiction(ending, content) in {None, "something else", *(kind.family for kind in KINDS.values())}


def test_a_program_is_no_document() -> None:
    assert contradiction("pdf", b"MZ\x90\0\x03") == contradiction("txt", b"MZ\x90\0\x03") == "a program"


def test_content_types() -> None:
    assert (content_type("pdf"), content_type("jpeg"), content_type("step")) == (
        "application/pdf",
        "image/jpeg",
        OCTETS,
    )
    assert HEAD < 65536
