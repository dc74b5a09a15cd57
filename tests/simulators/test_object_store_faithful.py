"""That the object store is faithful: the same calls, by obstore and by signed requests, against it and against another S3 server.

What both answer is compared as a whole. The other server is rclone's. Where it differs from AWS the comparison is less strict: a part of an
object comes with 200 in place of 206, nameless or late callers get 400 in place of 403, and a body is not held to its declared hash.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import BaseError

from tests.simulators.s3 import BUCKET, MB, Caller, content, ours, read, theirs

Script = Callable[[Caller], Awaitable[list[Any]]]


async def _objects(s3: Caller) -> list[Any]:
    store, told = s3.store(), []
    for key in ("claims/7/statement.pdf", "claims/7/a b+c&d.txt", "Zoë.pdf", "empty"):
        body = b"" if key == "empty" else key.encode()
        told.append((await obstore.put_async(store, key, body))["e_tag"])
        head = await obstore.head_async(store, key)
        told += [head["path"], head["size"], head["e_tag"], await read(store, key)]
    await obstore.put_async(store, "empty", b"no more")
    told.append(await read(store, "empty"))
    return told


async def _ranges(s3: Caller) -> list[Any]:
    data, told = content(1000), []
    await obstore.put_async(s3.store(), "data", data)
    for header in ("bytes=0-0", "bytes=5-49", "bytes=990-", "bytes=-10", "bytes=0-5000", "bytes=1000-"):
        answer = await s3.call("GET", f"/{BUCKET}/data", headers={"Range": header})
        given = answer.status in (200, 206)
        told.append((header, answer.headers["Content-Range"], answer.body) if given else (answer.status, answer.code))
    return told


async def _lists(s3: Caller) -> list[Any]:
    store = s3.store()
    for key in ("a", "b/1", "b/2", "b/c/3", "d e", "Z", "ü"):
        await obstore.put_async(store, key, b"x")
    told: list[Any] = []
    for prefix in (None, "b", "b/c", "nothing"):
        told.append(sorted([meta["path"] async for batch in obstore.list(store, prefix) for meta in batch]))
        found = await obstore.list_with_delimiter_async(store, prefix)
        told.append((sorted(found["common_prefixes"]), sorted(meta["path"] for meta in found["objects"])))
    return told


async def _multipart(s3: Caller) -> list[Any]:
    store, data = s3.store(), content(11 * MB + 5)
    put = await obstore.put_async(store, "large", data, use_multipart=True, chunk_size=5 * MB, max_concurrency=2)
    answer = await s3.call("GET", f"/{BUCKET}/large", headers={"Range": f"bytes={10 * MB}-{10 * MB + 9}"})
    return [
        str(put["e_tag"]).rpartition("-")[2],
        await read(store, "large") == data,
        answer.status in (200, 206),
        answer.body,
    ]


async def _gone(s3: Caller) -> list[Any]:
    store = s3.store()
    await obstore.put_async(store, "a", b"x")
    await obstore.delete_async(store, "a")
    told: list[Any] = [await _name(obstore.get_async(store, "a")), await _name(obstore.head_async(store, "a"))]
    answer = await s3.call("GET", f"/{BUCKET}/a")
    told += [answer.status, answer.code, (await s3.call("HEAD", f"/{BUCKET}/a")).status]
    answer = await s3.call("GET", "/no-such-bucket/a")
    told += [answer.status, answer.code]
    return [*told, (await s3.call("DELETE", f"/{BUCKET}/a")).status]


async def _name(act: Any) -> str:
    try:
        await act
    except (BaseError, OSError) as error:
        return type(error).__name__
    return "done"


async def _copies(s3: Caller) -> list[Any]:
    store = s3.store()
    await obstore.put_async(store, "from here", b"content")
    await obstore.copy_async(store, "from here", "to/there")
    return [await read(store, "to/there"), (await obstore.head_async(store, "to/there"))["e_tag"]]


async def _strangers(s3: Caller) -> list[Any]:
    """Callers with another secret, and with no signature."""
    await obstore.put_async(s3.store(), "a", b"x")
    wrong, told = s3.store(secret="other", retries=0), []
    for act in (obstore.get_async(wrong, "a"), obstore.put_async(wrong, "b", b"y"), obstore.delete_async(wrong, "a")):
        told.append(await _name(act))
    answer = await s3.call("GET", f"/{BUCKET}/a", secret="other")
    told += [answer.status, answer.code, (await s3.plain("GET", f"{s3.endpoint}/{BUCKET}/a")).status >= 400]
    return [*told, sorted([meta["path"] async for batch in obstore.list(s3.store()) for meta in batch])]


async def _addresses(s3: Caller) -> list[Any]:
    store = s3.store()
    await obstore.put_async(store, "a b.pdf", b"content")
    url = await obstore.sign_async(store, "GET", "a b.pdf", timedelta(seconds=60))
    given, other = await s3.plain("GET", url), await s3.plain("GET", url.replace("a%20b", "other"))
    now = time.time()
    made = [(await s3.plain("GET", s3.address("a b.pdf", now - age, 60))).status for age in (0, 30, 120)]
    return [given.status, given.body, other.status, other.code, made[:2], made[2] >= 400]


SCRIPTS: tuple[Script, ...] = (_objects, _ranges, _lists, _multipart, _gone, _copies, _strangers, _addresses)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.strip("_"))
@pytest.mark.parametrize("kept", ["memory", "folder"])
async def test_both_servers_answer_alike(script: Script, kept: str, tmp_path: Path) -> None:
    folder = {} if kept == "memory" else {"folder": str(tmp_path / "ours")}
    opened: tuple[AbstractAsyncContextManager[Caller], ...] = (ours(**folder), theirs(tmp_path / "theirs"))
    told = []
    for one in opened:
        async with one as s3:
            told.append(await script(s3))
    assert told[0] == told[1]
    assert told[0]
