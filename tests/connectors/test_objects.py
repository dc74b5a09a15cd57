"""The object store on a real folder and a real S3 server: whole objects or none, promises held, memory flat, errors in our words."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from counterfoil.connectors import object_streams
from counterfoil.connectors.objects import Objects, open_store
from counterfoil.model.errors import ConnectorError, Gone, Misconfigured, Refused, Throttled, TooLarge, Transient
from tests.connectors.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, s3_server

LARGE = object_streams.PART * 2 + 12345
YEAR_3000 = datetime(3000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return open_store("file:objects", folder=tmp_path)
    return bucket(request.getfixturevalue("server"), prefix=tmp_path.name)


def bucket(server: S3Server, *, name: str = BUCKET, prefix: str = "", **more: Any) -> Objects:
    given = {"endpoint": server.endpoint, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": "eu-west-2"}
    return open_store(f"s3://{name}/{prefix}", folder=Path("nowhere"), **{**given, **more})


async def failing(call: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await call
    return caught.value


async def stream(size: int, piece: int = 1_000_003) -> AsyncIterator[bytes]:
    for start in range(0, size, piece):
        yield b"x" * min(piece, size - start)


async def read(store: Objects, key: str, **promised: Any) -> bytes:
    return await (await store.get(key, **promised)).all(most=10**9)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- what is put comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, object_streams.PART, object_streams.PART + 1, LARGE])
async def test_bytes_and_streams_come_back(store: Objects, size: int) -> None:
    data = b"x" * size
    for given in (data, stream(size)):
        stored = await store.put("a/b.pdf", given, size=size, sha256=digest(data))
        assert (stored.key, stored.size, stored.sha256) == ("a/b.pdf", size, digest(data))
        assert stored.etag == (await store.head("a/b.pdf")).etag
        assert await read(store, "a/b.pdf", size=size, sha256=digest(data)) == data


async def test_put_writes_over_what_is_there(store: Objects) -> None:
    await store.put("a", b"1")
    await store.put("a", b"two")
    assert await read(store, "a") == b"two"


async def test_a_reading_comes_in_small_chunks(store: Objects) -> None:
    await store.put("a", stream(LARGE))
    reading = await store.get("a")
    sizes = [len(chunk) async for chunk in reading]
    assert reading.size == sum(sizes) == LARGE
    assert max(sizes) <= object_streams.CHUNK


async def test_head_list_and_delete(store: Objects) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "ü c%20"):
        await store.put(key, key.encode())
    assert {found.key async for found in store.list()} == {"a/1", "a/b/2", "ab/3", "ü c%20"}
    assert {found.key: found.size async for found in store.list("a")} == {"a/1": 3, "a/b/2": 5}
    assert {found.key async for found in store.list("a/")} == {"a/1", "a/b/2"}
    assert (await store.head("ab/3")).changed_at.tzinfo is not None
    await store.delete("a/1")
    await store.delete("a/1")
    assert (await failing(store.head("a/1"))).fault == "object_missing"


async def test_an_object_that_is_not_there_is_gone(store: Objects) -> None:
    await store.put("there", b"1")
    for call in (store.get("a/nope"), store.head("a/nope")):
        error = await failing(call)
        assert isinstance(error, Gone)
        assert "`a/nope`" in str(error) and "hand the file in again" in str(error)


# --- promises -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, LARGE])
async def test_nothing_is_written_that_is_not_as_promised(store: Objects, size: int) -> None:
    await store.put("a", b"old")
    short = await failing(store.put("a", stream(size), size=size + 1))
    other = await failing(store.put("a", stream(size), sha256=digest(b"other")))
    large = await failing(store.put("a", stream(size), most=size - 1))
    assert (type(short), short.fault) == (Transient, "truncated")
    assert (type(other), other.fault) == (Refused, "object_changed")
    assert (type(large), large.fault) == (TooLarge, "file_too_large")
    assert await read(store, "a") == b"old"
    assert [found.key async for found in store.list()] == ["a"]


@pytest.mark.parametrize("size", [3, LARGE])
async def test_what_the_data_raises_goes_through_and_nothing_is_left(
    store: Objects, size: int, tmp_path: Path, server: S3Server
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        async for piece in stream(size):
            yield piece
        raise ConnectionResetError("the caller hung up")

    with pytest.raises(ConnectionResetError, match="hung up"):
        await store.put("a", breaking())
    assert (await failing(store.head("a"))).fault == "object_missing"
    for folder in (tmp_path, server.folder / tmp_path.name):
        assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_another_size_or_hash_than_promised_is_another_object(store: Objects) -> None:
    await store.put("a", b"abc")
    size = await failing(store.get("a", size=4))
    with pytest.raises(Refused) as hash_:
        await read(store, "a", size=3, sha256=digest(b"abd"))
    assert size.fault == hash_.value.fault == "object_changed"
    assert "`a`" in str(size)


async def test_an_object_that_ends_too_early_is_worth_another_try(tmp_path: Path) -> None:
    store = open_store("file:objects", folder=tmp_path)
    await store.put("a", stream(LARGE))
    reading = await store.get("a")
    os.truncate(tmp_path / "objects" / "a", 1000)
    error = await failing(reading.all(most=LARGE))
    assert (type(error), error.fault) == (Transient, "truncated")


async def test_a_whole_read_has_its_limit(store: Objects) -> None:
    await store.put("a", b"abc")
    assert isinstance(await failing((await store.get("a")).all(most=2)), TooLarge)


# --- put_new ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, LARGE])
async def test_put_new_never_overwrites_and_takes_the_same_again(store: Objects, size: int) -> None:
    first = await store.put_new("a/b", stream(size))
    again = await store.put_new("a/b", stream(size))
    assert (first.size, first.sha256) == (again.size, again.sha256) == (size, digest(b"x" * size))
    for other in (b"y" * size + b"y", b"y" * size if size else b"z"):
        error = await failing(store.put_new("a/b", other))
        assert (type(error), error.fault) == (Refused, "object_exists")
    assert await read(store, "a/b", sha256=first.sha256) == b"x" * size
    assert [found.key async for found in store.list()] == ["a/b"]


@pytest.mark.parametrize("size", [5, LARGE])
async def test_of_two_writers_at_once_one_wins(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes after both have looked and seen nothing: only the condition on the write itself can stop it."""
    store = open_store("file:o", folder=tmp_path)
    monkeypatch.setattr(Objects, "_is_there", _sees_nothing)
    await store.put_new("a", b"1" * size)
    assert (await failing(store.put_new("a", b"2" * size))).fault == "object_exists"
    assert (await read(store, "a"))[:1] == b"1"
    assert [path.name for path in (tmp_path / "o").rglob("*") if path.is_file()] == ["a"]


async def _sees_nothing(self: Objects, key: str) -> bool:
    return False


async def test_the_probe_says_whether_conditions_are_known(tmp_path: Path, server: S3Server) -> None:
    folder = await open_store("file:objects", folder=tmp_path).probe()
    assert folder == "Object store file:objects: written, read and deleted; it never overwrites where it must not."
    assert "cannot write only where nothing is yet" in await bucket(server).probe()
    assert [found async for found in bucket(server).list("counterfoil-probe")] == []


# --- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["../outside", "/etc/hostname", "a/../../b", "a\\b", "a\nb", ".new/x"])
async def test_no_method_takes_a_key_that_climbs(store: Objects, key: str) -> None:
    calls = [store.put(key, b"1"), store.put_new(key, b"1"), store.get(key), store.head(key), store.delete(key)]
    for call in [*calls, store.link(key, valid=timedelta(hours=1))]:
        assert (await failing(call)).fault == "bad_object_key"


async def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    store = open_store("file:objects", folder=tmp_path)
    (tmp_path / "objects" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "objects" / "file").symlink_to(tmp_path / "secret" / "file")
    for call in (store.get("link/file"), store.get("file"), store.put("link/new", b"1"), store.delete("link/file")):
        assert (await failing(call)).fault == "bad_object_key"
    assert sorted(path.name for path in (tmp_path / "secret").iterdir()) == ["file"]


async def test_an_object_is_no_folder(tmp_path: Path) -> None:
    store = open_store("file:objects", folder=tmp_path)
    await store.put("a/b", b"1")
    for call in (store.put("a/b/c", b"1"), store.put("a", b"1")):
        assert (await failing(call)).fault == "bad_object_key"


# --- a crash, and what it leaves ----------------------------------------------------------------------------------

_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from counterfoil.connectors.objects import open_store

async def data():
    for number in range(40):
        yield b"x" * 1_000_000
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    await getattr(open_store("file:objects", folder=Path(sys.argv[1])), sys.argv[2])("a/big.pdf", data())

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["put", "put_new"])
async def test_a_process_killed_in_the_middle_leaves_no_object_and_is_swept_up(tmp_path: Path, how: str) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), how], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = open_store("file:objects", folder=tmp_path)
    assert (await failing(store.head("a/big.pdf"))).fault == "object_missing"
    assert [found async for found in store.list()] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()]  # the half of it
    assert await store.sweep(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert await store.sweep(YEAR_3000) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    await store.put_new("a/big.pdf", b"whole")


async def test_sweeping_leaves_objects_alone(store: Objects) -> None:
    await store.put("a", b"1")
    assert await store.sweep(YEAR_3000) == 0
    assert await read(store, "a") == b"1"


# --- memory -------------------------------------------------------------------------------------------------------

_FLAT = """
import asyncio, hashlib, json, resource, sys
from pathlib import Path
from counterfoil.connectors.objects import open_store

SIZE, PIECE = 200 * 2**20, 2**20

async def data():
    for number in range(SIZE // PIECE):
        yield bytes(PIECE)

async def main():
    url, more = sys.argv[1], json.loads(sys.argv[2])
    store = open_store(url, folder=Path(sys.argv[3]), **more)
    await (await store.get((await store.put("warm", b"1")).key)).all(most=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stored = await store.put_new("big", data(), size=SIZE)
    await store.put("big", data(), size=SIZE)
    size = 0
    async for chunk in await store.get("big", sha256=stored.sha256, size=SIZE):
        size += len(chunk)
    assert size == SIZE
    await store.delete("big")
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_large_file_goes_through_in_flat_memory(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url, more = "file:objects", "{}"
    if where == "s3":
        url = f"s3://{BUCKET}/flat"
        endpoint = request.getfixturevalue("server").endpoint
        more = f'{{"endpoint": "{endpoint}", "access_key": "{ACCESS_KEY}", "secret_key": "{SECRET_KEY}"}}'
    said = subprocess.run(
        [sys.executable, "-c", _FLAT, url, more, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert int(said.stdout) < 64  # MB above the start, for a file of 200


# --- S3: logins, links, and servers that are not well -------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"secret_key": "wrong"}, "secret key"),
        ({"access_key": "AKIDSOMEBODYELSE"}, "access key"),
        ({"name": "no-such-bucket"}, "no bucket"),
    ],
)
async def test_a_wrong_login_or_bucket_is_misconfigured(server: S3Server, more: dict[str, str], says: str) -> None:
    store = bucket(server, **more)
    listing = store.list("a")
    for call in (
        store.put("a", b"1"),
        store.put("a", stream(LARGE)),
        store.get("a"),
        store.delete("a"),
        anext(listing),
    ):
        error = await failing(call)
        assert isinstance(error, Misconfigured)
        assert says in str(error) and "[objects]" in str(error)
        assert SECRET_KEY not in str(error) and "wrong" not in str(error).replace("is wrong", "")


async def test_a_session_token_of_the_host_is_not_mixed_with_our_keys(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    store = bucket(server)
    await store.put("token", b"1")
    assert "of-other-keys" not in await store.link("token", valid=timedelta(minutes=1))


async def test_no_keys_and_no_role_is_misconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    error = await failing(open_store("s3://documents", folder=Path()).head("a"))
    assert isinstance(error, Misconfigured)
    assert "no credentials" in str(error)


async def test_a_link_gives_the_object_to_whoever_has_it(server: S3Server) -> None:
    store = bucket(server, prefix="linked")
    await store.put("a b.pdf", b"content")
    link = await store.link("a b.pdf", valid=timedelta(minutes=5))
    async with aiohttp.ClientSession() as session:
        async with session.get(URL(link, encoded=True)) as reply:
            assert (reply.status, await reply.read()) == (200, b"content")
        async with session.get(URL(link.replace("a%20b", "other"), encoded=True)) as reply:
            assert reply.status == 403
    for span in (timedelta(0), timedelta(days=8)):
        assert isinstance(await failing(store.link("a b.pdf", valid=span)), Misconfigured)


async def test_a_folder_gives_no_links(tmp_path: Path) -> None:
    error = await failing(open_store("file:o", folder=tmp_path).link("a", valid=timedelta(hours=1)))
    assert isinstance(error, Misconfigured) and "s3://" in str(error)


async def test_a_server_that_is_not_there_is_worth_another_try() -> None:
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    store = bucket(S3Server(f"http://127.0.0.1:{port}", Path()))
    for call in (store.put("a", b"1"), store.get("a"), store.head("a")):
        error = await failing(call)
        assert (type(error), error.fault) == (Transient, "objects_unreachable")


_REPLIES = [
    (503, b"<Error><Code>SlowDown</Code></Error>", Throttled, "throttled"),
    (429, b"", Throttled, "throttled"),
    (500, b"<Error><Code>InternalError</Code></Error>", Transient, "objects_failed"),
    (403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", Misconfigured, "misconfigured"),
    (400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>", Misconfigured, "misconfigured"),
    (400, b"<Error><Code>ExpiredToken</Code></Error>", Misconfigured, "misconfigured"),
    (403, b"", Misconfigured, "misconfigured"),
    (400, b"<Error><Code>KeyTooLongError</Code></Error>", Refused, "objects_refused"),
]


@pytest.mark.parametrize(("status", "body", "kind", "fault"), _REPLIES)
async def test_what_a_server_answers_is_told_in_our_words(
    status: int, body: bytes, kind: type[ConnectorError], fault: str
) -> None:
    async with answering(f"HTTP/1.1 {status} Said".encode(), body) as endpoint:
        error = await failing(bucket(S3Server(endpoint, Path())).get("a"))
    assert (type(error), error.fault) == (kind, fault)
    assert endpoint not in str(error) and "<" not in str(error)


async def test_a_reply_that_breaks_off_is_worth_another_try() -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT'
    async with answering(head, b"x" * 1000, length=2000) as endpoint:
        reading = await bucket(S3Server(endpoint, Path())).get("a", size=2000)
        error = await failing(reading.all(most=10**6))
    assert isinstance(error, Transient)


class answering:
    """A server that says the same to whoever asks, and hangs up."""

    def __init__(self, head: bytes, body: bytes, *, length: int | None = None) -> None:
        self._reply = head + f"\r\nContent-Length: {length or len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._reply)
        await writer.drain()
        writer.close()

    async def __aexit__(self, *error: Any) -> None:
        self._server.close()


# --- opening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "gs://bucket", "s3://", "s3://a b", "http://h/b", "file:", "file:../out", "file:a/../../b"]
)
def test_what_is_no_store_is_misconfigured(url: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"\[objects\]"):
        open_store(url, folder=tmp_path / "project")


def test_one_key_alone_is_misconfigured(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="Only one"):
        open_store("s3://documents", folder=tmp_path, access_key="a")


def test_a_folder_that_cannot_be_made_is_misconfigured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be made"):
        open_store("file:file/objects", folder=tmp_path)


def test_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    open_store("file:deep/objects", folder=tmp_path)
    assert os.stat(tmp_path / "deep" / "objects").st_mode & 0o077 == 0
