"""Gets the file of a parcel ready: from the item, the object store, the payload, a renderer or the project folder; checked, and in the store.

What comes out is the file as it is sent: its cleaned name, size and hash, and its key in the object store. It is kept with the item, so a
retry sends the same bytes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import inspect as introspection
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from counterfoil.documents.inspect import Inspected, inspect
from counterfoil.flows.delivery import DeliveryFlow, FileFrom, FileSpec
from counterfoil.flows.expect import value_at
from counterfoil.flows.template import compile_template
from counterfoil.model.delivery import Parcel, StoredFile
from counterfoil.model.errors import CounterfoilError, Gone, Refused

CHUNK = 1024 * 1024
MOST_RENDERED = 200 * 1024 * 1024


class Store(Protocol):
    """What is needed of the object store."""

    async def put(self, key: str, content: bytes | AsyncIterator[bytes], *, size: int | None = None) -> Any: ...
    async def get(self, key: str, *, sha256: str | None = None) -> AsyncIterable[bytes]: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """`key_of` makes safe keys; `functions` are the project's renderers."""

    flow: DeliveryFlow
    objects: Store
    key_of: Callable[..., str]
    functions: Mapping[str, Callable[..., Any]]
    folder: Path

    async def ready(self, parcel: Parcel, *, flow: str) -> StoredFile | None:
        """Raises Refused with what is wrong for a person, Transient where the store can't be reached, Misconfigured."""
        spec = self.flow.kinds[parcel.kind].file
        if spec is None:
            return None
        with _temporary() as path:
            found = await _SOURCES[spec.source](self, spec, parcel, path)
            if found is None:
                _refuse_absent(spec)
                return None
            checked = await asyncio.to_thread(inspect, path, found.name, spec)
            return await self._kept(parcel, found, checked, path)

    async def _kept(self, parcel: Parcel, found: _Found, checked: Inspected, path: Path) -> StoredFile:
        """What is in the store already stays where it is; everything else is put there under a key of ours."""
        digest = await asyncio.to_thread(_sha256, path)
        if found.key is not None:
            return StoredFile(checked.name, checked.content_type, checked.size, digest, found.key)
        key = self.key_of("made", self.flow.name, parcel.key, f"{digest[:16]}-{checked.name}")
        await self.objects.put(key, _chunks(path), size=checked.size)
        return StoredFile(checked.name, checked.content_type, checked.size, digest, key)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file on the desk: its name, and its key where it is in the store."""

    name: str
    key: str | None = None


async def _of_item(desk: Desk, spec: FileSpec, parcel: Parcel, path: Path) -> _Found | None:
    file = parcel.file
    if file is None or file.object is None:
        return None
    await _fetch(desk, file.object, path, file.sha256)
    return _Found(_named(spec, parcel, file.name), file.object)


async def _of_object(desk: Desk, spec: FileSpec, parcel: Parcel, path: Path) -> _Found | None:
    key = compile_template(spec.value).fill(scope_of(parcel))
    if not isinstance(key, str) or not key:
        return None
    await _fetch(desk, key, path, None)
    return _Found(_named(spec, parcel, key.rpartition("/")[2]), key)


async def _of_payload(desk: Desk, spec: FileSpec, parcel: Parcel, path: Path) -> _Found | None:
    text = value_at(parcel.payload, spec.value)
    if not isinstance(text, str) or not text:
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(
            f"The payload's `{spec.value}` is no base64.", "Hand the item in anew.", fault="file_broken"
        ) from None
    await asyncio.to_thread(path.write_bytes, content)
    return _Found(_named(spec, parcel, "file"))


async def _of_render(desk: Desk, spec: FileSpec, parcel: Parcel, path: Path) -> _Found | None:
    content, name = await _rendered(desk.functions[spec.value], spec.value, parcel)
    await asyncio.to_thread(path.write_bytes, content)
    return _Found(_named(spec, parcel, name or f"{parcel.kind}.pdf"))


async def _of_project(desk: Desk, spec: FileSpec, parcel: Parcel, path: Path) -> _Found | None:
    source = (desk.folder / spec.value).resolve()
    if not source.is_file() or not source.is_relative_to(desk.folder.resolve()):
        raise Refused(f"The file {spec.value} is not in the project folder.", "Put it there.", fault="file_missing")
    await asyncio.to_thread(lambda: path.write_bytes(source.read_bytes()))
    return _Found(_named(spec, parcel, source.name))


_SOURCES = {
    FileFrom.ITEM: _of_item,
    FileFrom.OBJECT: _of_object,
    FileFrom.PAYLOAD: _of_payload,
    FileFrom.RENDER: _of_render,
    FileFrom.STATIC: _of_project,
}


async def _fetch(desk: Desk, key: str, path: Path, sha256: str | None) -> None:
    try:
        reading = await desk.objects.get(key, sha256=sha256)
    except Gone as error:
        raise Refused(
            "The file is not in the object store any more, or never was.",
            "Put it there again under the same key and retry, or hand the item in anew.",
            fault="file_missing",
        ) from error
    with path.open("wb") as file:
        async for chunk in reading:
            await asyncio.to_thread(file.write, chunk)


async def _rendered(function: Callable[..., Any], name: str, parcel: Parcel) -> tuple[bytes, str | None]:
    """What the project's renderer makes: bytes, or bytes and a name. Its own words on failure are left out: they may quote the payload."""
    try:
        made = (
            function(parcel)
            if introspection.iscoroutinefunction(function)
            else await asyncio.to_thread(function, parcel)
        )
        made = await made if introspection.isawaitable(made) else made
    except CounterfoilError:
        raise
    except Exception as error:
        raise Refused(
            f"The renderer `{name}` raised {type(error).__name__}.",
            "Mend it or the payload, then `counterfoil items regenerate`.",
            fault="render_failed",
        ) from error
    content, called = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(content, bytes) or len(content) > MOST_RENDERED:
        raise Refused(f"The renderer `{name}` made no bytes, or too many.", "Mend it.", fault="render_failed")
    return content, called


def _named(spec: FileSpec, parcel: Parcel, name: str) -> str:
    return name if spec.name is None else str(compile_template(spec.name).fill(scope_of(parcel)))


def scope_of(parcel: Parcel) -> dict[str, Any]:
    """What the templates of a file may name."""
    parent = parcel.parent
    return {
        "key": parcel.key,
        "kind": parcel.kind,
        "group": parcel.group,
        "payload": parcel.payload,
        "parent": None if parent is None else {"receipt": parent.receipt, "key": parent.key, "payload": parent.payload},
    }


def _refuse_absent(spec: FileSpec) -> None:
    if spec.required:
        raise Refused("The item has no file.", "Hand it in anew with its file.", fault="file_missing")


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix="counterfoil-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
