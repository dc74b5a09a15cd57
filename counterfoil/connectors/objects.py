"""The object store: a folder of the project by default, S3 and its like otherwise; streaming both ways, sizes and hashes taken on the way.

Keys are ours (`safe_key`) or were handed in (`checked_key`), and never climb. Foreign errors become the connector errors of `model.errors`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import LocalStore, S3Store

from counterfoil.model.errors import ConnectorError, Gone, Misconfigured, Refused, Transient

CHUNK = 1024 * 1024  # bytes
MOST_KEY = 900  # bytes; S3 takes 1,024, file systems 255 for each part
MOST_PART = 120
_ODD = re.compile(r"[^A-Za-z0-9._=+@-]+")
_MISSING = re.compile(r"nosuchbucket", re.IGNORECASE)
_LOGIN = re.compile(
    r"signaturedoesnotmatch|invalidaccesskeyid|accessdenied|forbidden|unauthorized|permission|status 403|status 401|expiredtoken",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was written. `sha256` in lower-case hex."""

    key: str
    size: int
    sha256: str


class Objects:
    """One store. Every method raises Gone, Transient, Misconfigured or Refused, as told."""

    def __init__(self, store: Any, name: str) -> None:
        self._store, self.name = store, name

    async def put(self, key: str, content: bytes | AsyncIterator[bytes], *, size: int | None = None) -> Stored:
        """Write an object, whole or not at all. Refused (`object_size`) where a stream is not of the `size` that was told."""
        checked_key(key)
        if isinstance(content, bytes):
            with self._translated(key):
                await obstore.put_async(self._store, key, content)
            return Stored(key, len(content), hashlib.sha256(content).hexdigest())
        tally = _Tally(content)
        with self._translated(key):
            await obstore.put_async(self._store, key, tally.chunks(), chunk_size=8 * CHUNK, max_concurrency=2)
        if size is not None and tally.size != size:
            await self.delete(key)
            raise Refused(
                f"{tally.size:,} bytes came, {size:,} were told.", "Hand the file in again.", fault="object_size"
            )
        return Stored(key, tally.size, tally.digest.hexdigest())

    async def size(self, key: str) -> int:
        """Bytes of an object. Gone where there is none."""
        checked_key(key)
        with self._translated(key):
            return int((await obstore.head_async(self._store, key))["size"])

    async def stream(self, key: str, *, sha256: str | None = None, size: int | None = None) -> AsyncIterator[bytes]:
        """The content in chunks. At its end: Transient where it was cut short, Refused (`object_changed`) where its hash is another."""
        checked_key(key)
        digest, seen = hashlib.sha256(), 0
        with self._translated(key):
            found = await obstore.get_async(self._store, key)
            expected = int(found.meta["size"]) if size is None else size
            async for chunk in found.stream(min_chunk_size=CHUNK):
                data = bytes(chunk)
                digest.update(data)
                seen += len(data)
                yield data
        if seen != expected and (size is None or int(found.meta["size"]) == size):
            raise Transient(f"The object store sent {seen:,} of {expected:,} bytes.", fault="object_truncated")
        if seen != expected or (sha256 is not None and digest.hexdigest() != sha256):
            raise Refused(
                "The file in the object store is not the one that was handed in.",
                "Find out who has written it; hand the item in anew.",
                fault="object_changed",
            )

    async def read(self, key: str, *, most: int) -> bytes:
        """A small object whole. Refused (`object_size`) where it has more than `most` bytes."""
        if (size := await self.size(key)) > most:
            raise Refused(
                f"The file has {size:,} bytes, more than {most:,}.", "Hand in a smaller one.", fault="object_size"
            )
        return b"".join([chunk async for chunk in self.stream(key)])

    async def to_file(self, key: str, path: Path, *, sha256: str | None = None) -> int:
        """Copy an object to a file; its size. Memory stays flat."""
        size = 0
        with path.open("wb") as file:
            async for chunk in self.stream(key, sha256=sha256):
                await asyncio.to_thread(file.write, chunk)
                size += len(chunk)
        return size

    async def delete(self, key: str) -> None:
        """No object is no fault."""
        checked_key(key)
        try:
            with self._translated(key):
                await obstore.delete_async(self._store, key)
        except Gone:
            return

    async def list_(self, prefix: str = "") -> AsyncIterator[tuple[str, int]]:
        """Keys under a prefix, with their sizes."""
        with self._translated(prefix):
            async for page in obstore.list(self._store, prefix or None):
                for entry in page:
                    yield str(entry["path"]), int(entry["size"])

    async def link(self, key: str, expires: timedelta) -> str:
        """A signed address to fetch an object from. Misconfigured for a store that has none (a folder)."""
        checked_key(key)
        if isinstance(self._store, LocalStore):
            raise Misconfigured("A folder gives no signed links.", "Use an object store such as S3.")
        with self._translated(key):
            return str(await obstore.sign_async(self._store, "GET", key, expires))

    async def probe(self) -> str:
        """Reach the store with our credentials; a plain sentence."""
        with self._translated(""):
            async for _ in obstore.list(self._store, "counterfoil-probe/"):
                break
        return f"The object store {self.name} answers."

    @contextmanager
    def _translated(self, key: str) -> Any:
        try:
            yield
        except FileNotFoundError as error:
            if _MISSING.search(str(error)):
                raise _misconfigured(self.name, "there is no such bucket or folder") from error
            raise Gone(f"The object store {self.name} has no object `{key}`.", fault="object_missing") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise _misconfigured(self.name, "the credentials are refused") from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise _translated(self.name, error) from error


class _Tally:
    """Counts and hashes what runs through."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content, self.size, self.digest = content, 0, hashlib.sha256()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._content:
            self.size += len(chunk)
            self.digest.update(chunk)
            yield chunk


def _translated(name: str, error: Exception) -> ConnectorError:
    text = str(error)
    if _MISSING.search(text):
        return _misconfigured(name, "there is no such bucket or folder")
    if _LOGIN.search(text):
        return _misconfigured(name, "the credentials are refused")
    return Transient(
        f"The object store {name} can't be used now ({type(error).__name__}).", fault="objects_unavailable"
    )


def _misconfigured(name: str, why: str) -> Misconfigured:
    return Misconfigured(
        f"The object store {name}: {why}.", "Look at [objects] in counterfoil.toml; `counterfoil doctor` looks closer."
    )


# --- keys -----------------------------------------------------------------------------------------------------


def safe_key(*parts: str) -> str:
    """A key from texts that may hold anything. Where something had to be changed, a hash keeps keys apart that would be the same."""
    return "/".join(_safe_part(part) for part in parts)


def _safe_part(part: str) -> str:
    clean = _ODD.sub("_", part).strip(".") or "_"
    if clean == part and len(clean) <= MOST_PART:
        return clean
    stem, dot, ending = clean.rpartition(".")
    kept = f".{ending}" if dot and 0 < len(ending) <= 8 else ""
    stem = (stem if kept else clean)[: MOST_PART - 20]
    return f"{stem}-{hashlib.sha256(part.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}{kept}"


def checked_key(key: str) -> str:
    """A key that was handed in. Refused (`bad_object_key`) where it climbs, or holds what no key may."""
    parts = key.split("/")
    bad = (
        not key
        or len(key.encode("utf-8", "surrogatepass")) > MOST_KEY
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in key
        or any(not char.isprintable() for char in key)
    )
    if bad:
        raise Refused(
            "The key of the object is none that may be used.",
            "A key is names with / between, without `.`, `..` and control characters.",
            fault="bad_object_key",
        )
    return key


# --- opening --------------------------------------------------------------------------------------------------


def open_objects(url: str, *, folder: Path, options: Mapping[str, str] | None = None) -> Objects:
    """`file:PATH` (in the project folder) or `s3://bucket/prefix`. `options`: endpoint, region, access_key, secret_key.

    Opens no connection. Raises Misconfigured for an address that is none.
    """
    options = {name: value for name, value in (options or {}).items() if value}
    kind, _, rest = url.partition(":")
    if kind == "file" and rest:
        place = (folder / rest).resolve()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Objects(LocalStore(place, automatic_cleanup=False), f"in the folder {place.name}")
    if kind == "s3" and rest.startswith("//") and rest[2:]:
        return _s3(rest[2:], options)
    raise Misconfigured(
        f"`{url[:60]}` is no object store.", 'Write "file:.counterfoil/objects" or "s3://bucket/prefix".'
    )


def _s3(place: str, options: Mapping[str, str]) -> Objects:
    bucket, _, prefix = place.partition("/")
    endpoint = options.get("endpoint", "")
    given: dict[str, Any] = {
        "region": options.get("region", "us-east-1"),
        "virtual_hosted_style_request": not endpoint,
        "client_options": {"allow_http": endpoint.startswith("http://"), "timeout": "60s", "connect_timeout": "5s"},
        "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
    }
    if endpoint:
        given["endpoint"] = endpoint
    if "access_key" in options:
        given |= {"access_key_id": options["access_key"], "secret_access_key": options.get("secret_key", "")}
    return Objects(S3Store(bucket, prefix=prefix or None, **given), f"s3://{bucket}")
