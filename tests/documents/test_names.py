"""Names of files: what each rule makes of them, and what none of them lets through."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.documents.names import EMPTY, clean_name, extension
from counterfoil.flows.delivery import NameRule

RULES = st.sampled_from(list(NameRule))
NAMES = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="ab. -_/\\é\t\n\u202e\u00a0", max_size=20),
    st.sampled_from(["", ".", "..", "...", " . ", ".pdf", "a.", "a .pdf", "../../etc/passwd", "C:\\x\\a.pdf", "a/", "\ud800.pdf"]),
)  # fmt: skip
WORD = st.from_regex(r"[A-Za-z0-9]{1,8}", fullmatch=True)


@given(NAMES, RULES)
def test_cleaning_twice_changes_nothing(name: str, rule: NameRule) -> None:
    once = clean_name(name, rule)
    assert clean_name(once, rule) == once


@given(NAMES, RULES)
def test_a_name_is_never_empty_and_never_leaves_its_folder(name: str, rule: NameRule) -> None:
    made = clean_name(name, rule)
    assert made.strip(". ")
    assert not re.search(r"[/\\\x00-\x1f\x7f\u2028\u2029\u202a-\u202e]", made)
    assert made == made.strip()


@given(NAMES, st.sampled_from([NameRule.UNDERSCORE, NameRule.LAST_DOT]))
def test_at_most_one_dot_is_left(name: str, rule: NameRule) -> None:
    assert clean_name(name, rule).count(".") <= 1


@given(NAMES)
def test_underscore_leaves_plain_letters_only(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", clean_name(name, NameRule.UNDERSCORE))


@given(st.text(alphabet="ab. -é\u00a0", min_size=0, max_size=20), WORD, RULES)
def test_the_extension_is_kept(stem: str, ending: str, rule: NameRule) -> None:
    made = clean_name(f"x{stem}.{ending}", rule)
    assert made.endswith(f".{ending}")
    assert extension(made) == ending.lower()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("Bank statement.pdf", "Bank_statement.pdf"),
        ("2026-01-31 v1.2 final.PDF", "2026_01_31_v1_2_final.PDF"),
        ("Größe (1) & Co.pdf", "Gre_1__Co.pdf"),
        ("scan .pdf", "scan_.pdf"),
        ("a.tar.gz", "a_tar.gz"),
        ("文書.pdf", "file.pdf"),
        ("-.jpeg", "_.jpeg"),
        (".pdf", "file.pdf"),
        ("no extension", "no_extension"),
        ("C:\\Users\\ana\\scan.pdf", "scan.pdf"),
        ("scan.pdf.", "scan.pdf"),
    ],
)
def test_underscore(name: str, made: str) -> None:
    assert clean_name(name, NameRule.UNDERSCORE) == made


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("my.scan.v2.pdf", "myscanv2.pdf"),
        ("Dr. Müller (1).tiff", "Dr Müller (1).tiff"),
        ("..pdf", "file.pdf"),
        ("plain.pdf", "plain.pdf"),
        ("none", "none"),
    ],
)
def test_last_dot(name: str, made: str) -> None:
    assert clean_name(name, NameRule.LAST_DOT) == made


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("Dr. Müller (1).v2.pdf", "Dr. Müller (1).v2.pdf"),
        ("/tmp/x/../scan.pdf", "scan.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("a\r\nContent-Type: x.pdf", "aContent-Type: x.pdf"),
        ("..", EMPTY),
        ("folder/", EMPTY),
        ("日本.pdf", "日本.pdf"),
    ],
)
def test_as_it_is(name: str, made: str) -> None:
    assert clean_name(name, NameRule.AS_IT_IS) == made


@pytest.mark.parametrize(
    ("name", "ending"), [("a.PDF", "pdf"), ("a.b.Tif", "tif"), ("a", ""), (".pdf", ""), ("a.", ""), ("", "")]
)
def test_extension(name: str, ending: str) -> None:
    assert extension(name) == ending
