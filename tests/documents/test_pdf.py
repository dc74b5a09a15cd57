"""Opening PDFs in another process: what a good, a locked, a damaged and a hostile one come to, and what happens to that process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterfoil.documents import pdf
from counterfoil.documents.pdf import Look
from counterfoil.model.errors import Transient
from tests.documents import samples


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    pdf.close()
    yield
    pdf.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a b\udcff.pdf"


def seen(place: Path, content: bytes, **more: float) -> Look:
    place.write_bytes(content)
    return pdf.look(place, **more)


GOOD = samples.pdf(pages=3)


@pytest.mark.parametrize(
    ("content", "look"),
    [
        (GOOD, Look(pages=3)),
        (b"\n\nprinted by\n" + GOOD, Look(pages=3)),
        (GOOD.replace(b"startxref\n", b"startxref\n9"), Look(pages=3)),  # a wrong table, as many programs write it
        (GOOD + bytes(1000), Look(pages=3)),
        (samples.pdf(user="secret"), Look(encrypted=True)),
        (samples.pdf(user=""), Look(encrypted=True, pages=1)),
        (
            samples.written(b"<</Type/Catalog>>", trailer=b"/Encrypt<</Filter/Adobe.PubSec/V 2>>/ID[<00><00>]"),
            Look(encrypted=True),
        ),
        (
            samples.written(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"),
            Look(broken="unreadable"),
        ),
        (GOOD[: len(GOOD) // 2], Look(broken="cut")),
        (b"%PDF-1.7\nnothing\n%%EOF", Look(broken="unreadable")),
        (samples.written(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R]>>"), Look(broken="unreadable")),
        (samples.written(b"[" * 100_000), Look(broken="unreadable")),
        (samples.bomb(200), Look(broken="unreadable")),
    ],
)
def test_what_is_seen(place: Path, content: bytes, look: Look) -> None:
    assert seen(place, content) == look


def test_a_file_that_unfolds_is_stopped_at_the_limit_of_memory(place: Path) -> None:
    assert seen(place, samples.many_pages(300_000)) == Look(broken="memory")
    (kept,) = pdf._idle
    assert peak_of(kept._process.pid) <= 1100


def test_a_bomb_is_not_unpacked(place: Path) -> None:
    seen(place, samples.bomb(600))
    (kept,) = pdf._idle
    assert peak_of(kept._process.pid) < 300


def peak_of(pid: int) -> int:
    """MB of memory the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_a_file_that_takes_long_ends_its_process_only_and_the_next_file_is_read(place: Path) -> None:
    assert seen(place, samples.slow(60), cpu=0) == Look(broken="time")
    assert pdf._idle == []
    assert seen(place, GOOD) == Look(pages=3)


def test_processes_are_kept_for_the_next_file(place: Path) -> None:
    seen(place, GOOD)
    (first,) = pdf._idle
    seen(place, b"%PDF-1.7 broken %%EOF")
    assert pdf._idle == [first]


def test_a_process_ends_after_many_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_FILES_EACH", 2)
    seen(place, GOOD)
    (first,) = pdf._idle
    seen(place, GOOD)
    assert pdf._idle == []
    assert first._process.poll() is not None


def test_a_process_that_somebody_ended_says_nothing_about_the_file(place: Path) -> None:
    seen(place, GOOD)
    (kept,) = pdf._idle
    os.kill(kept._process.pid, signal.SIGKILL)
    kept._process.wait()
    with pytest.raises(Transient) as caught:
        pdf.look(place)
    assert caught.value.fault == "file_unchecked"
    assert pdf.look(place) == Look(pages=3)


def test_no_time_at_all_says_nothing_about_the_file(place: Path) -> None:
    with pytest.raises(Transient) as caught:
        seen(place, samples.slow(20), wall=0)
    assert caught.value.fault == "file_unchecked"
    assert pdf._idle == []


def test_a_program_that_cannot_start_says_nothing_about_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/nowhere/python", "/bin/true"):
        monkeypatch.setattr("sys.executable", program)
        with pytest.raises(Transient) as caught:
            seen(place, GOOD)
        assert caught.value.fault == "file_unchecked"


def test_the_process_has_nothing_of_our_environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@db/x")
    seen(place, GOOD)
    (kept,) = pdf._idle
    assert b"secret" not in Path(f"/proc/{kept._process.pid}/environ").read_bytes()
