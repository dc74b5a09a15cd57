"""A file against what a kind takes: every refusal with its word, its sentence and its remedy, and none with what is in the file."""

from __future__ import annotations

import io
import os
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from counterfoil.documents.inspect import Inspected, inspect
from counterfoil.flows.delivery import FileSpec, NameRule
from counterfoil.model.errors import ConnectorError, Refused, Transient
from tests.documents import samples

PDF = samples.pdf()
EVERY = FileSpec(types=("pdf", "png", "jpg", "txt", "docx"), most=15 * 1024**2, names=NameRule.UNDERSCORE)


def refusal(file: Any, name: str, spec: FileSpec = EVERY) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        inspect(file, name, spec)
    assert caught.value.remedy
    return caught.value


@pytest.fixture(params=["bytes", "path", "stream"])
def handed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], bytes | Path | BinaryIO]:
    """The same content in the ways a caller may have it."""

    def hand(content: bytes) -> bytes | Path | BinaryIO:
        if request.param == "bytes":
            return content
        (tmp_path / "spooled").write_bytes(content)
        return tmp_path / "spooled" if request.param == "path" else io.BytesIO(content)

    return hand


@pytest.mark.parametrize(
    ("content", "name", "found"),
    [
        (PDF, "Bank statement.v2.PDF", Inspected("Bank_statement_v2.PDF", "pdf", "application/pdf", len(PDF))),
        (samples.SIGNATURES["png"], "a.png", Inspected("a.png", "png", "image/png", 16)),
        (b"hello", "a.txt", Inspected("a.txt", "txt", "text/plain", 5)),
    ],
)
def test_what_is_taken(handed: Callable[[bytes], Any], content: bytes, name: str, found: Inspected) -> None:
    file = handed(content)
    assert inspect(file, name, EVERY) == found
    if isinstance(file, io.BytesIO):
        assert file.read() == content


def test_the_declared_content_type_wins() -> None:
    assert inspect(b"x", "a.txt", FileSpec(content_type="text/x")).content_type == "text/x"


def test_without_declared_types_everything_is_taken() -> None:
    assert inspect(b"x", "no-ending", FileSpec()) == Inspected("no-ending", "", "application/octet-stream", 1)


CASES = [
    (b"", "a.pdf", "file_empty", "is empty"),
    (PDF, "scan", "file_extension_missing", "no ending"),
    (PDF, ".pdf.", "file_extension_missing", "no ending"),
    (PDF, "scan.exe", "file_type_not_taken", "pdf, png, jpg, txt, docx"),
    (PDF, "scan.pdf.exe", "file_type_not_taken", "not taken"),
    (PDF, "x" * 300 + ".pdf", "file_name_too_long", "304 characters; 255"),
    (samples.SIGNATURES["png"], "scan.pdf", "file_not_what_it_says", "it is PDF; its content is PNG"),
    (PDF, "photo.jpg", "file_not_what_it_says", "it is JPEG; its content is PDF"),
    (PDF, "notes.txt", "file_not_what_it_says", "its content is PDF"),
    (b"<html>Please log in</html>", "scan.pdf", "file_not_what_it_says", "something else"),
    (samples.pdf(user="x"), "scan.pdf", "file_encrypted", "Ask for it without a password"),
    (samples.pdf(user=""), "scan.pdf", "file_encrypted", "encrypted PDF"),
    (PDF[: len(PDF) // 2], "scan.pdf", "file_broken", "a part of it is missing"),
    (b"%PDF-1.7\nbroken\n%%EOF", "scan.pdf", "file_broken", "cannot be read"),
    (samples.bomb(200), "scan.pdf", "file_broken", "cannot be read"),
    (samples.written(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"), "a.pdf", "file_broken", "no pages"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "name", "fault", "says"), CASES)
def test_every_refusal_has_its_word_and_its_sentence(content: bytes, name: str, fault: str, says: str) -> None:
    spec = EVERY if name != ".pdf." else FileSpec(types=("pdf",))
    error = refusal(content, name, spec)
    assert (type(error), error.fault) == (Refused, fault)
    assert says in str(error)
    assert "hand" in error.remedy.lower() and "log in" not in str(error)


def test_the_sentence_of_an_encrypted_file() -> None:
    assert str(refusal(samples.pdf(user="x"), "scan.pdf")) == (
        "The file `scan.pdf` is an encrypted PDF; the other side takes none. "
        "Ask for it without a password and without restrictions, then hand it in again."
    )


def test_encrypted_files_may_be_taken() -> None:
    spec = FileSpec(types=("pdf",), encrypted=True)
    for password in ("x", ""):
        assert inspect(samples.pdf(user=password), "a.pdf", spec).type == "pdf"


def test_limits_of_size(tmp_path: Path) -> None:
    spec = FileSpec(most=50 * 1024**2, most_by_type={"pdf": 150 * 1024**2}, least=10)
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 50 * 1024**2)
    assert inspect(large, "a.bin", spec).size == 50 * 1024**2
    os.truncate(large, 50 * 1024**2 + 1)
    error = refusal(large, "a.bin", spec)
    assert (error.fault, "52,428,801 bytes" in str(error), "may have 50 MB" in str(error)) == (
        "file_too_large",
        True,
        True,
    )
    os.truncate(large, 150 * 1024**2 + 1)
    assert "of type pdf may have 150 MB" in str(refusal(large, "a.pdf", spec))
    small = refusal(b"x", "a.bin", spec)
    assert (small.fault, "only 1 byte; at least 10 bytes" in str(small)) == ("file_empty", True)


def test_text_that_must_be_ascii() -> None:
    spec = FileSpec(types=("txt",), ascii_text=True)
    assert inspect(b"plain\n" * 500_000, "a.txt", spec).size == 3_000_000
    error = refusal(b"plain\n" * 300_000 + "Müller".encode(), "a.txt", spec)
    assert error.fault == "file_not_ascii"
    assert "line 300001" in str(error) and "ller" not in str(error)
    assert inspect("Müller".encode(), "a.txt", FileSpec(types=("txt",))).size == 7


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    large = tmp_path / "large.pdf"
    large.write_bytes(PDF)
    with large.open("ab") as file:
        file.truncate(200 * 1024**2)
        file.seek(0, os.SEEK_END)
        file.write(PDF[-2000:])
    tracemalloc.start()
    with large.open("rb") as stream:
        refusal(large, "a.txt")
        inspect(stream, "a.pdf", FileSpec())
    assert tracemalloc.get_traced_memory()[1] < 8 * 1024**2
    tracemalloc.stop()


def test_nothing_is_left_of_the_copy_of_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    inspect(io.BytesIO(PDF), "a.pdf", EVERY)
    refusal(io.BytesIO(samples.pdf(user="x")), "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        error = refusal(path, "a.txt")
        assert (type(error), error.fault) == (Transient, "file_unreadable")
    assert refusal(tmp_path / "none", "a.txt").fault == "file_missing"


def test_a_long_name_is_cut_in_the_sentence() -> None:
    assert len(str(refusal(PDF, "x" * 5000 + ".pdf"))) < 300
