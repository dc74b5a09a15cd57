"""The object store as it misbehaves, with obstore as its client: what trying again makes good, what it does not, and the store's own record."""

import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

from tests.simulators.s3 import BUCKET, MB, content, files, keys, lines, ours, read, until

DENIED = (PermissionDeniedError, UnauthenticatedError)


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Where the store keeps its objects."""
    return {} if request.param == "memory" else {"folder": str(tmp_path / "store")}


@pytest.mark.parametrize("fault", ["slow_down", "error500", "error503", "disconnect"])
async def test_a_client_that_tries_again_wins(place: dict[str, str], fault: str) -> None:
    async with ours(**place, faults=(f"{fault}=1",)) as s3:
        store, data = s3.store(), content(6 * MB)
        await obstore.put_async(store, "a", b"content")
        await obstore.put_async(store, "b", data, use_multipart=True)
        assert await read(store, "b") == data
        await obstore.delete_async(store, "a")
        assert (await s3.control("/record"))["faults"][fault] >= 10
        assert files(place) in (["b"], ["large.pdf"])


async def test_a_lost_reply_of_a_write_is_made_good_by_another(place: dict[str, str]) -> None:
    async with ours(**place, faults=("lost_reply=1",)) as s3:
        await obstore.put_async(s3.store(), "a", b"content")
        assert [(line["put"], line["lost"]) for line in await lines(s3)] == [(3, 2)]
        with pytest.raises(AlreadyExistsError):
            await obstore.put_async(s3.store(), "b", b"content", mode="create")
        assert await read(s3.store(), "b") == b"content"


async def test_a_lost_reply_at_the_end_of_an_upload_leaves_the_object_and_an_error(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        await s3.control("/faults", lost_reply="1@multipart")
        with pytest.raises(FileNotFoundError, match="NoSuchUpload"):
            await obstore.put_async(s3.store(), "b", content(6 * MB), use_multipart=True)
        assert await read(s3.store(), "b") == content(6 * MB)
        assert [(line["key"], line["lost"]) for line in await lines(s3)] == [("b", 1)]


async def test_a_server_that_never_gets_well() -> None:
    async with ours(faults=("slow_down=1",), max_in_a_row=0) as s3:
        with pytest.raises(BaseError, match="SlowDown"):
            await obstore.put_async(s3.store(), "a", b"x")


async def test_an_object_that_is_there_can_be_missing() -> None:
    async with ours() as s3:
        await obstore.put_async(s3.store(), "a", b"x")
        await s3.control("/faults", missing=1)
        with pytest.raises(FileNotFoundError):
            await obstore.get_async(s3.store(), "a")
        with pytest.raises(FileNotFoundError):
            await obstore.head_async(s3.store(), "a")
        assert await keys(s3.store()) == ["a"]
        await s3.control("/faults", missing=0)
        assert await read(s3.store(), "a") == b"x"


async def test_an_object_can_come_with_other_bytes() -> None:
    async with ours(faults=("corrupt=1@get",), max_in_a_row=1) as s3:
        await obstore.put_async(s3.store(), "a", b"content")
        assert await read(s3.store(), "a") == b"bontent"
        assert await read(s3.store(), "a") == b"content"


async def test_a_body_can_end_too_early() -> None:
    async with ours(faults=("truncated=1@get",)) as s3:
        await obstore.put_async(s3.store(), "a", content(MB))
        with pytest.raises(aiohttp.ClientPayloadError):
            await s3.call("GET", f"/{BUCKET}/a")


async def test_access_can_be_denied() -> None:
    async with ours(faults=("access_denied=1@put",)) as s3:
        with pytest.raises(DENIED):
            await obstore.put_async(s3.store(), "a", b"x")


async def test_an_answer_can_take_long() -> None:
    async with ours(faults=("latency=1@get",), slow=(0.05, 0.05)) as s3:
        await obstore.put_async(s3.store(), "a", b"x")
        assert await read(s3.store(), "a") == b"x"
        assert (await s3.control("/record"))["faults"] == {"latency": 1}


async def test_the_record_of_an_object(place: dict[str, str]) -> None:
    async with ours(**place, faults=("lost_reply=1@put",), max_in_a_row=1) as s3:
        await obstore.put_async(s3.store(), "a", b"content")
        await read(s3.store(), "a")
        await obstore.get_range_async(s3.store(), "a", start=0, end=1)
        expected = {
            "bucket": BUCKET,
            "key": "a",
            "size": 7,
            "etag": hashlib.md5(b"content").hexdigest(),
            "sha256": hashlib.sha256(b"content").hexdigest(),
            "put": 2,
            "got": 1,
            "deleted": 0,
            "lost": 1,
        }
        (line,) = await lines(s3)
        assert {name: line[name] for name in expected} == expected
        await obstore.delete_async(s3.store(), "a")
        (line,) = await lines(s3)
        assert (line["size"], line["deleted"]) == (None, 1)
        record = await s3.control("/record")
        assert [record[name] for name in ("objects", "bytes", "put", "got", "lost")] == [0, 0, 2, 1, 1]


async def test_a_caller_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    async with ours(folder=str(tmp_path)) as s3:
        incoming = tmp_path / ".incoming"

        async def half() -> Any:
            yield content(2 * MB)
            await until(lambda: list(incoming.iterdir()))
            raise RuntimeError("gone")

        with pytest.raises((RuntimeError, aiohttp.ClientError)):
            await s3.call("PUT", f"/{BUCKET}/a", b"", unsigned=True, sent=half())
        await until(lambda: not list(incoming.iterdir()))
        assert await keys(s3.store()) == []
