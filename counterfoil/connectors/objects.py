"""The object store: a folder of the project, or a bucket of S3, over obstore. Files go through in pieces; none is held whole.

What is under a key is whole: size and hash are known before an object comes to be. In a bucket, a process killed while it writes
leaves pieces that only a lifecycle rule for unfinished uploads removes; in a folder, `sweep` does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store

from counterfoil.connectors.object_errors import changed, exists, knows_no_condition, translated
from counterfoil.connectors.object_keys import STAGING, check_key, safe_key
from counterfoil.connectors.object_streams import CHUNK, PART, Data, Found, Meter, Reading, file_pieces
from counterfoil.model.errors import ConnectorError, Misconfigured, Refused, Transient

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

__all__ = ["CHUNK", "Data", "Found", "Objects", "Reading", "StoredObject", "check_key", "open_store", "safe_key"]

_PARTS_AT_ONCE = 2
_LONGEST_LINK = timedelta(days=7)  # what SigV4 allows
_BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9])(?:/([^?#]*))?")
_LIMITS: ClientConfig = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h"}
_RETRIES: RetryConfig = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What was written. `sha256` in lower-case hex; `etag` as the store gives it, which is no hash to rely on."""

    key: str
    size: int
    sha256: str
    etag: str | None = None


def open_store(
    url: str,
    *,
    folder: Path,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> Objects:
    """The store at `url`: `file:` and a path seen from `folder` (made where it is missing), or `s3://bucket/prefix`.

    Without keys the role of the host is used. Opens no connection. Raises Misconfigured.
    """
    if url.startswith("file:"):
        return _folder(url.removeprefix("file:"), folder)
    if not (match := _BUCKET.fullmatch(url)):
        raise Misconfigured(
            "`url` in [objects] is no object store.", "Write file:.counterfoil/objects or s3://bucket/prefix."
        )
    if (access_key is None) != (secret_key is None):
        raise Misconfigured("Only one of `access_key` and `secret_key` stands in [objects].", "Set both, or none.")
    more: dict[str, Any] = {}
    if access_key is not None:
        # Not as options: a session token that the host's environment has beside them belongs to other keys.
        keys = {"access_key_id": access_key, "secret_access_key": secret_key, "token": None, "expires_at": None}
        more["credential_provider"] = lambda: keys
    if endpoint is not None:
        more["endpoint"] = endpoint.rstrip("/")
    limits: ClientConfig = {**_LIMITS, "allow_http": bool(endpoint and endpoint.startswith("http://"))}
    try:
        store = S3Store(
            match[1],
            prefix=(match[2] or "").strip("/") or None,
            region=region or "us-east-1",
            copy_if_not_exists="multipart",
            client_options=limits,
            retry_config=_RETRIES,
            **more,
        )
    except (BaseError, ValueError) as error:
        raise Misconfigured("The bucket in [objects] cannot be used.", "Look at `url` and `endpoint`.") from error
    return Objects(store, url, None)


def _folder(path: str, project: Path) -> Objects:
    root = (project / path).resolve()
    if not path.strip() or ".." in Path(path).parts:
        raise Misconfigured(
            "`url` in [objects] leaves its folder with `..`, or names none.", "Write file:FOLDER; it may be absolute."
        )
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Objects(LocalStore(root), f"file:{path}", root)
    except (BaseError, OSError) as error:
        raise Misconfigured(
            f"The folder {path} of the object store cannot be made or opened.", "Look at its rights."
        ) from error


class Objects:
    """One store. All methods may raise Transient, Misconfigured, and Refused with `bad_object_key`."""

    def __init__(self, store: S3Store | LocalStore, place: str, root: Path | None) -> None:
        self._store, self.place, self._root = store, place, root

    async def put(
        self, key: str, data: Data, *, size: int | None = None, sha256: str | None = None, most: int | None = None
    ) -> StoredObject:
        """Write, over what is there. Nothing is written where `data` is not of the given `size` and `sha256`, or is over `most`.

        Raises Transient (`truncated`), Refused (`object_changed`) and TooLarge for these; whatever `data` raises goes through.
        """
        self._check(key)
        meter = Meter(data, size=size, sha256=sha256, most=most, key=key)
        with self._seam(key, meter):
            await self._write(key, *await meter.opening())
        return await self._stored(key, meter)

    async def put_new(
        self, key: str, data: Data, *, size: int | None = None, sha256: str | None = None, most: int | None = None
    ) -> StoredObject:
        """As `put`, and never over another object: Refused (`object_exists`). The same content again is no error.

        A server that knows no conditional writes is only asked before, so two writers at the same moment may both succeed there;
        `probe` says whether it does.
        """
        self._check(key)
        meter = Meter(data, size=size, sha256=sha256, most=most, key=key)
        with self._seam(key, meter):
            if await self._is_there(key):
                await meter.drain()
                return await self._same(key, meter)
            try:
                await self._create(key, *await meter.opening())
            except AlreadyExistsError:
                return await self._same(key, meter)
        return await self._stored(key, meter)

    async def get(self, key: str, *, size: int | None = None, sha256: str | None = None) -> Reading:
        """The object, to be read once. Raises Gone (`object_missing`), Refused (`object_changed`) where its size is another."""
        self._check(key)
        with self._seam(key):
            found, pieces = await self._open(key)
        if size is not None and found.size != size:
            raise changed(key)
        return Reading(found, pieces, sha256, self.place)

    async def head(self, key: str) -> Found:
        """Raises Gone (`object_missing`)."""
        self._check(key)
        with self._seam(key):
            return _found(await obstore.head_async(self._store, key), key)

    async def delete(self, key: str) -> None:
        """Remove; one that is not there is no error."""
        self._check(key)
        with self._seam(key):
            await self._remove(key)

    async def list(self, prefix: str = "") -> AsyncIterator[Found]:
        """All objects below `prefix`, which ends at a `/`: `a` has `a/b`, not `ab`. In no order."""
        start = check_key(prefix.rstrip("/")) if prefix else None
        with self._seam(prefix):
            async for batch in obstore.list(self._store, start, chunk_size=1000):
                for meta in batch:
                    if not meta["path"].startswith(f"{STAGING}/"):
                        yield _found(meta, meta["path"])

    async def link(self, key: str, *, valid: timedelta) -> str:
        """An address that gives the object to whoever has it, for `valid` (at most 7 days). Raises Misconfigured for a folder."""
        self._check(key)
        if not isinstance(self._store, S3Store):
            raise Misconfigured(
                "A folder gives no links to its files.", "Set `url` in [objects] to s3://bucket, or download them here."
            )
        if not timedelta(seconds=1) <= valid <= _LONGEST_LINK:
            raise Misconfigured("A link is valid between 1s and 7d.", "Ask for a time between them.")
        with self._seam(key):
            return await obstore.sign_async(self._store, "GET", key, valid)

    async def probe(self) -> str:
        """Write, read and delete one object; a sentence on what the store can do."""
        key = safe_key("counterfoil-probe", secrets.token_hex(8))
        try:
            await self.put(key, b"1")
            await (await self.get(key)).all(most=1)
            with self._seam(key):
                careful = await self._refuses_twice(key)
        finally:
            await self.delete(key)
        how = "never overwrites where it must not" if careful else "cannot write only where nothing is yet"
        return f"Object store {self.place}: written, read and deleted; it {how}."

    async def sweep(self, before: datetime) -> int:
        """Remove what killed processes left half-written before that time; how many there were."""
        old: list[str] = []
        with self._seam(""):
            async for batch in obstore.list(self._store, STAGING):
                old += [meta["path"] for meta in batch if meta["last_modified"] < before]
            for key in old:
                await self._remove(key)
        return len(old) + (await asyncio.to_thread(_sweep, self._root, before) if self._root else 0)

    # --- one step each; obstore's own errors ------------------------------------------------------------------

    async def _open(self, key: str) -> tuple[Found, AsyncIterable[bytes]]:
        if self._root is not None:
            return _found(await obstore.head_async(self._store, key), key), file_pieces(self._root / key)
        result = await obstore.get_async(self._store, key)
        return _found(result.meta, key), result.stream(min_chunk_size=CHUNK)

    async def _write(self, key: str, first: bytes, rest: AsyncIterator[bytes] | None) -> None:
        if rest is None:
            await obstore.put_async(self._store, key, first, use_multipart=False)
        else:
            await obstore.put_async(
                self._store, key, rest, use_multipart=True, chunk_size=PART, max_concurrency=_PARTS_AT_ONCE
            )

    async def _create(self, key: str, first: bytes, rest: AsyncIterator[bytes] | None) -> None:
        """Raises AlreadyExistsError. What comes in parts is written beside, since only what is whole can be written on a condition."""
        if rest is None:
            try:
                await obstore.put_async(self._store, key, first, mode="create")
            except Exception as error:
                if not knows_no_condition(error):
                    raise
                await self._write(key, first, None)
            return
        beside = f"{STAGING}/{secrets.token_hex(16)}"
        try:
            await self._write(beside, first, rest)
            await self._copy_new(beside, key)
        finally:
            await self._remove(beside)

    async def _copy_new(self, source: str, key: str) -> None:
        try:
            await obstore.copy_async(self._store, source, key, overwrite=False)
        except Exception as error:
            if not knows_no_condition(error):
                raise
            if await self._is_there(key):
                raise AlreadyExistsError(key) from None
            await obstore.copy_async(self._store, source, key)

    async def _is_there(self, key: str) -> bool:
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True

    async def _remove(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise

    async def _refuses_twice(self, key: str) -> bool:
        try:
            await obstore.put_async(self._store, key, b"2", mode="create")
        except AlreadyExistsError:
            return True
        except Exception as error:
            if not knows_no_condition(error):
                raise
        return False

    async def _stored(self, key: str, meter: Meter) -> StoredObject:
        if self._root is not None:
            with self._seam(key):
                await asyncio.to_thread(_to_disk, self._root, key)
        found = await self.head(key)
        if found.size != meter.size:
            raise Transient(
                f"Of `{key}` {meter.size} bytes were written, and the object store has {found.size}.",
                "It is tried again.",
                fault="truncated",
            )
        return StoredObject(key, meter.size, meter.sha256, found.etag)

    async def _same(self, key: str, meter: Meter) -> StoredObject:
        """The object that is there, where it is the same as what was to be written."""
        there = await self.get(key)
        if there.size == meter.size:
            seen = hashlib.sha256()
            async for chunk in there:
                seen.update(chunk)
            if seen.hexdigest() == meter.sha256:
                return StoredObject(key, meter.size, meter.sha256, there.found.etag)
        raise exists(key, self.place)

    def _check(self, key: str) -> None:
        """A key, and in a folder one whose folders are no links to elsewhere."""
        check_key(key)
        if self._root is not None and not (self._root / key).resolve().is_relative_to(self._root):
            raise Refused(
                "The key of an object goes through a link out of the folder of the object store.",
                "Remove the link, or copy there what it leads to.",
                fault="bad_object_key",
            )

    @contextmanager
    def _seam(self, key: str, meter: Meter | None = None) -> Iterator[None]:
        """Foreign errors become ours here; those of the data itself go through as they are."""
        try:
            yield
        except ConnectorError:
            raise
        except (BaseError, OSError, ValueError, NotImplementedError) as error:
            if meter is not None and meter.failure is not None:
                raise meter.failure from None
            raise translated(error, key, self.place) from error


def _found(meta: Any, key: str) -> Found:
    return Found(key, meta["size"], meta["last_modified"], meta["e_tag"])


def _to_disk(root: Path, key: str) -> None:
    """Make sure that the file and its name outlast a power cut: what is accepted is kept."""
    path = root / key
    places = [path, *path.parents[: len(path.relative_to(root).parts)]]
    for place in places:
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(root: Path, before: datetime) -> int:
    count = 0
    for path in root.rglob("*#*"):
        if re.search(r"#\d+\Z", path.name) and path.is_file() and path.stat().st_mtime < before.timestamp():
            path.unlink(missing_ok=True)
            count += 1
    return count
