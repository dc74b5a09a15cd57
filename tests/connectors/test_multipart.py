"""Multipart bodies cut into parts: those of a real client, and hostile ones."""

from __future__ import annotations

from contextlib import suppress

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.connectors.multipart import MOST_PARTS, Part, boundary_of, parts_of

TYPE = 'multipart/form-data; boundary="a b"'


def body(*parts: bytes, boundary: bytes = b"a b") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


class _Sink:
    """Where aiohttp writes a body to."""

    def __init__(self) -> None:
        self.written = b""

    async def write(self, chunk: bytes) -> None:
        self.written += chunk


async def test_what_a_real_client_sends_is_read_back() -> None:
    form = aiohttp.FormData()
    content = bytes(range(256)) * 500 + b"\r\n--"
    form.add_field("parameters", '{"a": "ü"}', content_type="application/json", filename="p.json")
    form.add_field("file", content, content_type="application/pdf", filename='Größe "1".pdf')
    form.add_field("plain", "text")
    made, sink = form(), _Sink()
    await made.write(sink)  # type: ignore[arg-type]
    first, file, plain = parts_of(sink.written, made.headers["Content-Type"])
    assert first == Part("parameters", "p.json", "application/json", '{"a": "ü"}'.encode())
    assert (file.name, file.content_type, file.content) == ("file", "application/pdf", content)
    assert file.file_name is not None and file.file_name.endswith(".pdf")
    assert (plain.name, plain.file_name, plain.content) == ("plain", None, b"text")


def test_parts_without_headers_and_with_little() -> None:
    bare, named = parts_of(
        b"before\r\n" + body(b"\r\ncontent", b"CONTENT-DISPOSITION: form-data; name=x\r\n\r\n"), TYPE
    )
    assert bare == Part("", None, "text/plain", b"content")
    assert named == Part("x", None, "text/plain", b"")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "no end"),
        (b"text", "no end"),
        (body(b"\r\nx")[:-6], "no end"),
        (b"--a b--\r\n", None),
        (body(b"no empty line"), "have no end"),
        (b"--a bX\r\n--a b--", "no headers"),
        (body(b"Name: value\r\n"), "have no end"),
        (body(b"X: " + b"y" * 20_000 + b"\r\n\r\n"), "have no end"),
        (body(*[b"\r\n"] * (MOST_PARTS + 1)), "more than 200"),
    ],
)
def test_what_is_no_multipart_body(raw: bytes, says: str | None) -> None:
    if says is None:
        assert parts_of(raw, TYPE) == []
        return
    with pytest.raises(ValueError, match=says) as caught:
        parts_of(raw, TYPE)
    assert "value" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/x; boundary=" + "y" * 71,
    ],
)
def test_no_boundary(kind: str) -> None:
    assert boundary_of(kind) is None
    with pytest.raises(ValueError, match="boundary"):
        parts_of(b"", kind)


@given(st.lists(st.binary(max_size=50).filter(lambda content: b"--a b" not in content), max_size=5))
def test_any_content_comes_back(contents: list[bytes]) -> None:
    raw = body(*[b"Content-Disposition: form-data; name=n\r\n\r\n" + content for content in contents])
    assert [part.content for part in parts_of(raw, TYPE)] == contents


@given(st.binary(max_size=200), st.text(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes, kind: str) -> None:
    for content_type in (kind, TYPE):
        with suppress(ValueError):
            parts_of(raw.replace(b"B", b"\r\n--a b"), content_type)
