"""A small S3: buckets of objects in memory or in a folder, each request proven by its signature (SigV4), presigned addresses too.

Path-style addresses. Its parts are the modules object_store_*.py and sigv4_s3.py. Start it with `python -m counterfoil.simulators.object_store`.
Imports nothing of ours but its fellow simulators.
"""

import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from counterfoil.simulators import object_store_calls as calls
from counterfoil.simulators import options, sigv4_s3
from counterfoil.simulators.object_store_calls import Asked
from counterfoil.simulators.object_store_errors import REFUSALS, error
from counterfoil.simulators.object_store_kept import PIECE, Denied, Kept, Sink
from counterfoil.simulators.side import Side
from counterfoil.simulators.sigv4 import Credentials, Signed
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import Call, Controls, Reply, forward, listening, run, set_faults

ENDPOINTS = ("get", "head", "put", "delete", "list", "multipart")
PASSING = ("lost_reply", "slow_down", "access_denied", "corrupt")
SHARED = ("error500", "error503", "burst", "timeout", "disconnect", "truncated", "slow_body", "latency")
LASTING = ("missing",)
KNOWN = (*SHARED, *PASSING, *LASTING)
SHORT = 2_000_000

Answer = Callable[[Kept, Asked], Reply]


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the object store."""

    without: ClassVar[frozenset[str]] = options.RECORDS | {"retry_after", "retry_after_form"}

    folder: str = options.option(
        "", "folder to keep objects in, each sub-folder a bucket; without it they are kept in memory"
    )
    bucket: tuple[str, ...] = options.option(
        ("documents",), "bucket that is there from the start; may be repeated", str, True
    )
    region: str = options.option("us-east-1", "region that signatures must be made for")
    access_key: str = options.option("AKIDSIMULATOR", "access key id that is known")
    secret_key: str = options.option("simulator-secret", "secret access key that belongs to it")
    size_limit: int = options.option(5_368_709_120, "largest body in bytes", int)


@dataclass(frozen=True, slots=True)
class Route:
    """What a call is: its endpoint for faults, what answers it, and whether something comes with it."""

    endpoint: str
    answer: Answer
    brings: str = ""


GET, HEAD = Route("get", calls.get_object), Route("head", calls.head_object)
PUT, DELETE = Route("put", calls.put_object, "object"), Route("delete", calls.delete_object)
PART = Route("multipart", calls.put_part, "object")
BEGIN, COMPLETE = Route("multipart", calls.begin_multipart), Route("multipart", calls.complete_multipart, "text")
ABORT = Route("multipart", calls.abort_multipart)
OBJECT: Mapping[tuple[str, str], Route] = {
    ("GET", ""): GET, ("HEAD", ""): HEAD, ("PUT", ""): PUT, ("DELETE", ""): DELETE, ("PUT", "uploadId"): PART,
    ("POST", "uploads"): BEGIN, ("POST", "uploadId"): COMPLETE, ("DELETE", "uploadId"): ABORT,
}  # fmt: skip
BUCKET: Mapping[tuple[str, str], Route] = {
    ("GET", ""): Route("list", calls.list_objects),
    ("HEAD", ""): Route("head", calls.head_bucket),
    ("PUT", ""): Route("put", calls.put_bucket, "text"),
    ("DELETE", ""): Route("delete", calls.delete_bucket),
    ("POST", "delete"): Route("delete", calls.delete_objects, "text"),
}
SERVICE: Mapping[tuple[str, str], Route] = {("GET", ""): Route("list", calls.list_buckets)}
ACTS = frozenset(("uploadId", "uploads", "delete"))
UNKNOWN = frozenset(
    ("acl", "tagging", "versions", "versioning", "policy", "lifecycle", "retention", "torrent", "location", "cors")
)


@dataclass
class Told:
    """How often an object was written and read whole, and how often the answer to a write was lost."""

    put: int = 0
    got: int = 0
    lost: int = 0


@dataclass
class ObjectStore:
    """One running store: the shared machinery, the keys that are known, and what is kept."""

    side: Side
    options: Options
    known: Credentials
    kept: Kept
    told: dict[tuple[str, str], Told] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.side.url

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """What a request asks for; an error of S3 at once when it may not or cannot."""
        path, _, query = request.raw_path.partition("?")
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        signed = Signed(request.method, path, query, headers, b"")
        refusal = sigv4_s3.verify(signed, self.known, time.time(), self.side.clock())
        if refusal:
            return error(refusal.kind, refusal.message, path)
        try:
            return await self._asked(request, path, query, headers)
        except Denied as denied:
            return error(denied.code, str(denied), path)

    async def _asked(self, request: web.BaseRequest, path: str, raw: str, headers: Mapping[str, str]) -> Call | Reply:
        bucket, _, key = unquote(path[1:], errors="surrogateescape").partition("/")
        query = dict(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))
        route = _route(request.method, bucket, key, query)
        sink = await self._read(request, headers, route.brings)
        body = sink.done() if sink and route.brings == "text" else b""
        assert isinstance(body, bytes)
        asked = Asked(bucket, key, query, headers, self.side.clock(), sink, body)
        place = f"{bucket}/{key}" + (
            f"#{query.get('partNumber', request.method)}" if route.endpoint == "multipart" else ""
        )
        return Call(route.endpoint, place, partial(self._answer, route, asked))

    async def _read(self, request: web.BaseRequest, headers: Mapping[str, str], brings: str) -> Sink | None:
        """What comes with a request, read to its end and held against its declared hash. Raises Denied."""
        if not brings:
            return None
        sink, most = (self.kept.sink(), self.options.size_limit) if brings == "object" else (Sink(None), SHORT)
        try:
            async for piece in request.content.iter_chunked(PIECE):
                sink.take(piece)
                if sink.size > most:
                    raise Denied("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        except BaseException:
            sink.drop()
            raise
        declared = headers.get("x-amz-content-sha256", sigv4_s3.UNSIGNED)
        if declared not in (sigv4_s3.UNSIGNED, sink.sha256.hexdigest()):
            raise Denied(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )
        return sink

    async def _answer(self, route: Route, asked: Asked, fault: str | None) -> Reply:
        place = f"/{asked.bucket}/{asked.key}"
        if fault == "disconnect":
            return Reply(500, b"")
        if fault is not None and fault in REFUSALS:
            return REFUSALS[fault](self.side)
        if route in (GET, HEAD) and self.side.faults.marks("missing", place[1:]):
            return error("NoSuchKey", "The specified key does not exist.", place)
        try:
            reply = route.answer(self.kept, asked)
        except Denied as denied:
            return error(denied.code, str(denied), place)
        self._note(route, asked, reply)
        if fault == "corrupt" and route is GET and reply.body:
            reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]
            reply.sent = None
        return reply

    def _note(self, route: Route, asked: Asked, reply: Reply) -> None:
        """What is counted of an object: a write when it is done, lost until its answer went out whole; a read when it went out whole."""
        if route not in (GET, PUT, COMPLETE):
            return
        told = self.told.setdefault((asked.bucket, asked.key), Told())
        if route is GET:
            reply.sent = partial(_more, told, "got", 1) if reply.status == 200 else None
        else:
            told.put, told.lost = told.put + 1, told.lost + 1
            reply.sent = partial(_more, told, "lost", -1)

    def lines(self) -> Iterator[bytes]:
        """JSONL of every object that is there or was written: what it is, how often it was written, read, removed, its answers lost."""
        there = {
            (name, key): found for name, bucket in self.kept.buckets.items() for key, found in bucket.objects.items()
        }
        for bucket, key in sorted({*there, *self.told}):
            stored, told = there.get((bucket, key)), self.told.get((bucket, key), Told())
            content = {name: getattr(stored, name, None) for name in ("size", "etag", "sha256", "content_type")}
            counts = {**asdict(told), "deleted": self.kept.dropped[bucket, key]}
            yield encode({"bucket": bucket, "key": key, **content, **counts}) + b"\n"

    def summary(self) -> dict[str, object]:
        """Totals: the traffic, objects and their bytes, multipart uploads under way, answers to writes that were lost."""
        objects = [found for bucket in self.kept.buckets.values() for found in bucket.objects.values()]
        counts: Counter[str] = Counter(deleted=self.kept.dropped.total())
        for told in self.told.values():
            counts.update(asdict(told))
        held = {"objects": len(objects), "bytes": sum(one.size for one in objects), "uploads": len(self.kept.uploads)}
        return {
            **self.side.record.traffic(),
            **held,
            **{name: counts[name] for name in ("put", "got", "lost", "deleted")},
        }


def _more(told: Told, name: str, by: int) -> None:
    setattr(told, name, getattr(told, name) + by)


def _route(method: str, bucket: str, key: str, query: Mapping[str, str]) -> Route:
    """Raises Denied for what S3 does not know, or this one does not."""
    if UNKNOWN & query.keys() or (method == "GET" and ACTS & query.keys()):
        raise Denied("NotImplemented", "A header or query you provided implies functionality that is not implemented")
    act = next((name for name in ACTS if name in query), "")
    table = OBJECT if key else BUCKET if bucket else SERVICE
    found = table.get((method, act))
    if found is None:
        raise Denied("MethodNotAllowed", "The specified method is not allowed against this resource.")
    if found is PART and "partNumber" not in query:
        raise Denied("InvalidArgument", "This operation needs partNumber and uploadId.")
    return found


def _controls(store: ObjectStore) -> Controls:
    def put(_: Side, body: dict[str, Any]) -> dict[str, object]:
        sink = store.kept.sink()
        sink.take(str(body["content"]).encode())
        stored = store.kept.put(str(body["bucket"]), str(body["key"]), sink, store.side.clock())
        return {"key": stored.key, "etag": stored.etag}

    return {
        ("GET", "/_sim/record"): lambda _, body: store.summary(),
        ("GET", "/_sim/objects"): lambda _, body: store.lines(),
        ("POST", "/_sim/faults"): set_faults,
        ("POST", "/_sim/clock"): forward,
        ("POST", "/_sim/put"): put,
    }


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[ObjectStore]:
    """Serve until the block ends; yields the store with .url, .side and .kept."""
    given = given or Options()
    side = Side.without_rows(given, KNOWN, ENDPOINTS, LASTING)
    kept = Kept(Path(given.folder) if given.folder else None)
    for name in given.bucket:
        if name not in kept.buckets:
            _make(kept, name)
    store = ObjectStore(side, given, Credentials(given.access_key, given.secret_key, given.region, "s3"), kept)
    async with listening(side, store.classify, {}, _controls(store)):
        yield store


def _make(kept: Kept, name: str) -> None:
    try:
        kept.make_bucket(name)
    except Denied as denied:
        raise ValueError(f"--bucket {name!r} cannot be: {denied}") from denied


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "An S3-compatible object store, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
