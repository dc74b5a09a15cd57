"""Bytes on their way into the object store and out of it: counted and hashed as they go by, never held whole."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from obstore.exceptions import BaseError

from counterfoil.connectors.object_errors import changed, too_large, translated
from counterfoil.model.errors import Transient

CHUNK = 256 * 1024  # bytes of one piece that is read
PART = 8 * 1024 * 1024  # up to here one PUT; beyond, parts of this size, two under way at a time

Data = bytes | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says of an object that is there."""

    key: str
    size: int
    changed_at: datetime
    etag: str | None = None


class Reading:
    """An object on its way: iterate once over chunks of at most CHUNK bytes. What was promised of it is verified at the end.

    Raises Transient where it ends too early, Refused (`object_changed`) where its hash is another.
    """

    def __init__(self, found: Found, pieces: AsyncIterable[bytes], sha256: str | None, place: str) -> None:
        self.found, self.size = found, found.size
        self._pieces, self._sha256, self._place = pieces, sha256, place

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen, hashed = 0, hashlib.sha256()
        try:
            async for piece in self._pieces:
                for start in range(0, len(piece), CHUNK):
                    chunk = bytes(memoryview(piece)[start : start + CHUNK])
                    seen += len(chunk)
                    if self._sha256 is not None:
                        hashed.update(chunk)
                    yield chunk
        except (BaseError, OSError) as error:
            raise translated(error, self.found.key, self._place) from error
        if seen != self.size:
            raise Transient(
                f"Of `{self.found.key}` {seen} of {self.size} bytes came.", "It is tried again.", fault="truncated"
            )
        if self._sha256 is not None and hashed.hexdigest() != self._sha256:
            raise changed(self.found.key)

    async def all(self, *, most: int) -> bytes:
        """The whole of it. Raises TooLarge for more than `most` bytes."""
        if self.size > most:
            raise too_large(self.found.key, most)
        return b"".join([chunk async for chunk in self])


async def file_pieces(path: Path) -> AsyncIterator[bytes]:
    """A file in chunks. obstore's own reading of a folder never ends for a file that was cut short under it."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, CHUNK):
            yield piece


class Meter:
    """Data on its way in: its size and hash, and the promises about them, which are held before its end is passed on."""

    def __init__(self, data: Data, *, size: int | None, sha256: str | None, most: int | None, key: str) -> None:
        self._source = _pieces(data) if isinstance(data, bytes | bytearray | memoryview) else data
        self._size, self._sha256, self._most, self._key = size, sha256, most, key
        self._hash = hashlib.sha256()
        self.size = 0
        self.failure: Exception | None = None  # of the data, not of the store

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def opening(self) -> tuple[bytes, AsyncIterator[bytes] | None]:
        """All of it and None, or, for what is over one part, its beginning and an iterator over the whole."""
        first, stream = bytearray(), self._metered()
        async for piece in stream:
            first += piece
            if len(first) > PART:
                return b"", _again(bytes(first), stream)
        return bytes(first), None

    async def drain(self) -> None:
        async for _ in self._metered():
            pass

    async def _metered(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._source:
                self.size += len(piece)
                if self._most is not None and self.size > self._most:
                    raise too_large(self._key, self._most)
                self._hash.update(piece)
                yield piece
            self._verify()
        except Exception as error:
            self.failure = error
            raise

    def _verify(self) -> None:
        if self._size is not None and self.size != self._size:
            raise Transient(
                f"Of the file for `{self._key}` {self.size} of {self._size} bytes came.",
                "Hand it in again.",
                fault="truncated",
            )
        if self._sha256 is not None and self.sha256 != self._sha256:
            raise changed(self._key)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PART):
        yield bytes(data[start : start + PART])


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
