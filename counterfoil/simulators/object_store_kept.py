"""What the object store keeps: buckets of objects, in memory or as files of a folder, and multipart uploads that are under way.

In a folder an object is one file, named by its key as a URL would have it, beside a small file that tells its type and ETag; so whoever puts a
file into a bucket's folder has put an object. No HTTP and no XML here; a refusal is a Denied with S3's own code.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

PIECE = 1_048_576
LONGEST_KEY = 1024
LONGEST_NAME = 200
SMALLEST_PART = 5 * 1024 * 1024
MOST_PARTS = 10_000
ABOUT, INCOMING = ".about", ".incoming"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

Blob = bytes | Path


class Denied(Exception):
    """A refusal: one of S3's error codes, and its words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Stored:
    """One object. `modified` is epoch seconds, `etag` without quotes, `about` its user metadata by small name."""

    key: str
    size: int
    etag: str
    sha256: str
    modified: float
    content_type: str
    about: Mapping[str, str]
    blob: Blob = field(repr=False)


class Sink:
    """Bytes on their way in: counted and hashed, in memory or in a file of `folder` that does not count yet."""

    def __init__(self, folder: Path | None) -> None:
        self.size, self.md5, self.sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self._path = None if folder is None else folder / uuid.uuid4().hex
        self._file = None if self._path is None else self._path.open("wb")
        self._memory = bytearray()

    def take(self, piece: bytes) -> None:
        """One more piece."""
        self.size += len(piece)
        self.md5.update(piece)
        self.sha256.update(piece)
        if self._file:
            self._file.write(piece)
        else:
            self._memory += piece

    def done(self) -> Blob:
        """All of it is there; where it is."""
        if self._file is None or self._path is None:
            return bytes(self._memory)
        self._file.close()
        self._file = None
        return self._path

    def drop(self) -> None:
        """What was not done is not wanted after all; what was, stays."""
        if self._file is not None and self._path is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)

    def __del__(self) -> None:
        """As `drop`: a request that was refused, or that nobody answered, leaves no file behind."""
        self.drop()


def pieces(blob: Blob, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes from `start` up to `end`."""
    if isinstance(blob, bytes):
        yield blob[start:end]
        return
    left = (blob.stat().st_size if end is None else end) - start
    with blob.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart upload."""

    size: int
    md5: bytes
    blob: Blob = field(repr=False)

    @property
    def etag(self) -> str:
        """Without quotes."""
        return self.md5.hex()


@dataclass(slots=True)
class Multipart:
    """A multipart upload under way."""

    bucket: str
    key: str
    content_type: str
    about: Mapping[str, str]
    parts: dict[int, Part] = field(default_factory=dict)


class Bucket:
    """Objects by key, and their keys in S3's order (that of their bytes)."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self._sorted: list[str] | None = None

    def put(self, stored: Stored) -> None:
        """Keep an object, over what is there."""
        if stored.key not in self.objects:
            self._sorted = None
        self.objects[stored.key] = stored

    def drop(self, key: str) -> Stored | None:
        """Forget an object; None when there is none."""
        self._sorted = None if key in self.objects else self._sorted
        return self.objects.pop(key, None)

    def keys(self) -> list[str]:
        """All keys in order."""
        if self._sorted is None:
            self._sorted = sorted(self.objects, key=lambda key: key.encode("utf-8", "surrogateescape"))
        return self._sorted


class Kept:
    """All buckets. With a folder every sub-folder is one, and what is in it at the start is there.

    `dropped` counts how often an object was removed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, Multipart] = {}
        self.dropped: Counter[tuple[str, str]] = Counter()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / INCOMING, ignore_errors=True)
            (folder / INCOMING).mkdir()
            for found in sorted(folder.iterdir()):
                if found.is_dir() and _BUCKET.fullmatch(found.name):
                    self._load(found)

    def sink(self) -> Sink:
        """For bytes on their way in."""
        return Sink(None if self.folder is None else self.folder / INCOMING)

    def bucket(self, name: str) -> Bucket:
        """Raises Denied (`NoSuchBucket`)."""
        if name not in self.buckets:
            raise Denied("NoSuchBucket", "The specified bucket does not exist")
        return self.buckets[name]

    def make_bucket(self, name: str) -> None:
        """Raises Denied when it is there, or its name cannot be."""
        if not _BUCKET.fullmatch(name):
            raise Denied("InvalidBucketName", "The specified bucket is not valid.")
        if name in self.buckets:
            raise Denied("BucketAlreadyOwnedByYou", "The bucket is there, and it is yours.")
        self.buckets[name] = Bucket()
        if self.folder is not None:
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / ABOUT / name).mkdir(parents=True, exist_ok=True)

    def drop_bucket(self, name: str) -> None:
        """Raises Denied when it is not empty."""
        if self.bucket(name).objects:
            raise Denied("BucketNotEmpty", "The bucket you tried to delete is not empty")
        del self.buckets[name]
        if self.folder is not None:
            shutil.rmtree(self.folder / name)
            shutil.rmtree(self.folder / ABOUT / name)

    def get(self, bucket: str, key: str) -> Stored:
        """Raises Denied (`NoSuchKey`, `NoSuchBucket`)."""
        found = self.bucket(bucket).objects.get(key)
        if found is None:
            raise Denied("NoSuchKey", "The specified key does not exist.")
        return found

    def put(self, bucket: str, key: str, sink: Sink, now: float, **more: Any) -> Stored:
        """Keep what came in as an object; `content_type`, `about` and, of several parts, `etag` may be given."""
        there = self.bucket(bucket)
        stored = Stored(
            key,
            sink.size,
            more.get("etag") or sink.md5.hexdigest(),
            sink.sha256.hexdigest(),
            now,
            more.get("content_type") or "binary/octet-stream",
            more.get("about") or {},
            self._settle(bucket, key, sink.done()),
        )
        self._tell(bucket, stored)
        there.put(stored)
        return stored

    def drop(self, bucket: str, key: str) -> bool:
        """Remove an object; whether there was one."""
        stored = self.bucket(bucket).drop(key)
        self.dropped[bucket, key] += stored is not None
        if stored is not None and isinstance(stored.blob, Path) and self.folder is not None:
            stored.blob.unlink(missing_ok=True)
            self._about(bucket, key).unlink(missing_ok=True)
        return stored is not None

    # --- multipart uploads ------------------------------------------------------------------------------------

    def begin(self, bucket: str, key: str, content_type: str, about: Mapping[str, str]) -> str:
        """Begin a multipart upload; its id."""
        self.bucket(bucket)
        upload_id = uuid.uuid4().hex
        self.uploads[upload_id] = Multipart(bucket, key, content_type, about)
        return upload_id

    def upload(self, upload_id: str, bucket: str, key: str) -> Multipart:
        """Raises Denied (`NoSuchUpload`)."""
        found = self.uploads.get(upload_id)
        if found is None or (found.bucket, found.key) != (bucket, key):
            raise Denied("NoSuchUpload", "The specified multipart upload does not exist.")
        return found

    def put_part(self, upload: Multipart, number: int, sink: Sink) -> Part:
        """Keep a part, over one with the same number."""
        if not 1 <= number <= MOST_PARTS:
            raise Denied("InvalidArgument", f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive")
        if number in upload.parts:
            _remove(upload.parts[number].blob)
        upload.parts[number] = Part(sink.size, sink.md5.digest(), sink.done())
        return upload.parts[number]

    def complete(self, upload_id: str, named: list[tuple[int, str]], now: float) -> Stored:
        """Make an object of the parts named by number and ETag. Raises Denied where they are not those that came."""
        upload = self.uploads[upload_id]
        parts = _chosen(upload, named)
        sink = self.sink()
        for part in parts:
            for piece in pieces(part.blob):
                sink.take(piece)
        digest = hashlib.md5(b"".join(part.md5 for part in parts), usedforsecurity=False).hexdigest()
        more = {"etag": f"{digest}-{len(parts)}", "content_type": upload.content_type, "about": upload.about}
        stored = self.put(upload.bucket, upload.key, sink, now, **more)
        self.abort(upload_id)
        return stored

    def abort(self, upload_id: str) -> None:
        """Forget a multipart upload and its parts."""
        for part in self.uploads.pop(upload_id).parts.values():
            _remove(part.blob)

    # --- files ------------------------------------------------------------------------------------------------

    def _settle(self, bucket: str, key: str, blob: Blob) -> Blob:
        if self.folder is None or isinstance(blob, bytes):
            return blob
        return blob.replace(self.folder / bucket / file_name(key))

    def _about(self, bucket: str, key: str) -> Path:
        assert self.folder is not None
        return self.folder / ABOUT / bucket / f"{file_name(key)}.json"

    def _tell(self, bucket: str, stored: Stored) -> None:
        if self.folder is not None:
            told = {name: value for name, value in asdict(stored).items() if name != "blob"}
            self._about(bucket, stored.key).write_text(json.dumps(told))

    def _load(self, folder: Path) -> None:
        self.make_bucket(folder.name)
        for path in sorted(folder.iterdir()):
            if path.is_file():
                self.buckets[folder.name].put(self._read(folder.name, path))

    def _read(self, bucket: str, path: Path) -> Stored:
        """What a file is: as it was told when it was put, or else by its name and content."""
        sink = Sink(None)
        for piece in pieces(path):
            sink.md5.update(piece)
            sink.sha256.update(piece)
        size, sha256 = path.stat().st_size, sink.sha256.hexdigest()
        assert self.folder is not None
        about = self.folder / ABOUT / bucket / f"{path.name}.json"
        told = json.loads(about.read_text()) if about.exists() else {}
        if (told.get("size"), told.get("sha256")) == (size, sha256):
            return Stored(**told, blob=path)
        modified = path.stat().st_mtime
        return Stored(unquote(path.name), size, sink.md5.hexdigest(), sha256, modified, "binary/octet-stream", {}, path)


def _chosen(upload: Multipart, named: list[tuple[int, str]]) -> list[Part]:
    numbers = [number for number, _ in named]
    if not numbers or numbers != sorted(set(numbers)):
        raise Denied("InvalidPartOrder", "The list of parts was not in ascending order.")
    if any(number not in upload.parts or upload.parts[number].etag != etag for number, etag in named):
        raise Denied(
            "InvalidPart", "One or more of the specified parts could not be found, or its entity tag is another."
        )
    parts = [upload.parts[number] for number in numbers]
    if any(part.size < SMALLEST_PART for part in parts[:-1]):
        raise Denied("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed object size.")
    return parts


def _remove(blob: Blob) -> None:
    if isinstance(blob, Path):
        blob.unlink(missing_ok=True)


def file_name(key: str) -> str:
    """The name of an object's file: the key as a URL would have it; the end of a long one is its hash."""
    name = quote(key, safe="", errors="surrogateescape")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > LONGEST_NAME:
        name = f"{name[:150]}~{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:40]}"
    return name


def check_key(key: str) -> str:
    """The key, if it can be one. Raises Denied."""
    if not key or len(key.encode("utf-8", "surrogateescape")) > LONGEST_KEY:
        raise Denied("KeyTooLongError", "Your key is too long")
    return key
