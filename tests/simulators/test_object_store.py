"""The object store, with obstore as its client: objects, lists, multipart uploads, conditions, presigned addresses, folders."""

import hashlib
import json
import signal
import subprocess
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pytest
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from counterfoil.simulators import faults, object_store, options
from counterfoil.simulators.object_store_errors import STATUS
from counterfoil.simulators.object_store_kept import file_name
from tests.simulators.s3 import BUCKET, MB, Ours, content, files, keys, lines, ours, read

REFERENCE = Path(__file__).parents[2] / "docs/reference/simulator-object-store.md"
DENIED = (PermissionDeniedError, UnauthenticatedError)


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Where the store keeps its objects."""
    return {} if request.param == "memory" else {"folder": str(tmp_path / "store")}


async def test_an_object_is_written_read_and_removed(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        store = s3.store()
        put = await obstore.put_async(store, "claims/7/a b+c.pdf", b"content")
        assert put["e_tag"] == f'"{hashlib.md5(b"content").hexdigest()}"'
        assert await read(store, "claims/7/a b+c.pdf") == b"content"
        head = await obstore.head_async(store, "claims/7/a b+c.pdf")
        assert (head["size"], head["e_tag"]) == (7, put["e_tag"])
        await obstore.put_async(store, "claims/7/a b+c.pdf", b"other")
        assert await read(store, "claims/7/a b+c.pdf") == b"other"
        await obstore.delete_async(store, "claims/7/a b+c.pdf")
        with pytest.raises(FileNotFoundError):
            await obstore.head_async(store, "claims/7/a b+c.pdf")
        await obstore.delete_async(store, "claims/7/a b+c.pdf")


@pytest.mark.parametrize(
    "key", ["a", "Zoë/ключ.pdf", "a.b/..c", ".hidden", "~tilde", "x" * 1000, "100%/a&b<c>.txt", "a/b//c"]
)
async def test_keys_of_all_kinds(place: dict[str, str], key: str) -> None:
    """Through signed requests, as obstore keeps some of them to itself."""
    async with ours(**place) as s3:
        path = f"/{BUCKET}/{quote(key, safe='/~')}"
        assert (await s3.call("PUT", path, key.encode())).status == 200
        assert (await s3.call("GET", path)).body == key.encode()
        listed = await s3.call("GET", f"/{BUCKET}?list-type=2&encoding-type=url")
        assert listed.text("KeyCount") == "1"
        assert [line["key"] for line in await lines(s3)] == [key]


async def test_keys_beside_and_below_each_other(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        store = s3.store()
        for key in ("a", "a/b", "a/b/c"):
            await obstore.put_async(store, key, key.encode())
        assert [await read(store, key) for key in ("a", "a/b", "a/b/c")] == [b"a", b"a/b", b"a/b/c"]


async def test_ranges(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        store, data = s3.store(), content(10_000)
        await obstore.put_async(store, "data", data)
        assert bytes(await obstore.get_range_async(store, "data", start=10, end=20)) == data[10:20]
        parts = await obstore.get_ranges_async(store, "data", starts=[0, 9_990], ends=[1, 10_000])
        assert [bytes(part) for part in parts] == [data[:1], data[9_990:]]
        for header, told in (("bytes=9990-", data[9_990:]), ("bytes=-10", data[-10:]), ("bytes=0-99999", data)):
            answer = await s3.call("GET", f"/{BUCKET}/data", headers={"Range": header})
            assert (answer.status, answer.body) == (206, told)
        answer = await s3.call("GET", f"/{BUCKET}/data", headers={"Range": "bytes=3-5"})
        assert answer.headers["Content-Range"] == "bytes 3-5/10000"
        answer = await s3.call("GET", f"/{BUCKET}/data", headers={"Range": "bytes=10000-"})
        assert (answer.status, answer.code) == (416, "InvalidRange")
        for header in ("bytes=5-3", "lines=1-2", "bytes=-"):
            assert (await s3.call("GET", f"/{BUCKET}/data", headers={"Range": header})).status == 200


async def test_type_and_metadata_come_back(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        attributes = {"Content-Type": "text/plain; charset=utf-8", "claim": "7"}
        await obstore.put_async(s3.store(), "note", b"x", attributes=attributes)  # type: ignore[arg-type]
        told = (await obstore.get_async(s3.store(), "note")).attributes
        assert (told["Content-Type"], told["claim"]) == ("text/plain; charset=utf-8", "7")  # type: ignore[index]


async def test_it_writes_only_where_nothing_is(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        store = s3.store()
        put = await obstore.put_async(store, "once", b"1", mode="create")
        with pytest.raises(AlreadyExistsError):
            await obstore.put_async(store, "once", b"2", mode="create")
        assert await read(store, "once") == b"1"
        await obstore.put_async(store, "once", b"3", mode={"e_tag": put["e_tag"]})
        with pytest.raises(PreconditionError):
            await obstore.put_async(store, "once", b"4", mode={"e_tag": put["e_tag"]})
        assert await read(store, "once") == b"3"
        assert (await s3.call("PUT", f"/{BUCKET}/once", b"", headers={"If-None-Match": '"x"'})).code == "NotImplemented"


async def test_it_reads_only_what_fits(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        etag = (await obstore.put_async(s3.store(), "a", b"1"))["e_tag"]
        for header, value, status in (("If-Match", etag, 200), ("If-Match", '"x"', 412), ("If-None-Match", etag, 304)):
            assert (await s3.call("GET", f"/{BUCKET}/a", headers={header: value})).status == status
            assert (await s3.call("HEAD", f"/{BUCKET}/a", headers={header: value})).status == status


async def test_a_list_in_pages(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        names = sorted((f"claims/{number % 7}/{number:04d}" for number in range(1500)), key=str.encode)
        for name in names[:1]:
            await obstore.put_async(s3.store(), name, b"")
        for name in names[1:]:
            await s3.control("/put", bucket=BUCKET, key=name, content="x")
        assert await keys(s3.store()) == names
        assert await keys(s3.store(), "claims/3") == [name for name in names if name.startswith("claims/3/")]
        assert await keys(s3.store(), "nothing") == []
        within = await obstore.list_with_delimiter_async(s3.store(), "claims")
        assert (list(within["common_prefixes"]), list(within["objects"])) == ([f"claims/{n}" for n in range(7)], [])
        first = await s3.call("GET", f"/{BUCKET}?list-type=2&max-keys=2&start-after=claims%2F1%2F0001")
        assert first.texts("Key") == ["claims/1/0008", "claims/1/0015"]


async def test_common_prefixes_go_over_pages() -> None:
    async with ours() as s3:
        for key in ("a", "b/1", "b/2", "b/3", "c/1", "d"):
            await s3.control("/put", bucket=BUCKET, key=key, content="")
        seen, token = [], ""
        for _ in range(10):
            answer = await s3.call("GET", f"/{BUCKET}?{token}delimiter=%2F&list-type=2&max-keys=1")
            seen += [text for text in answer.texts("Key") + answer.texts("Prefix") if text]
            if not answer.text("NextContinuationToken"):
                break
            token = f"continuation-token={answer.text('NextContinuationToken').replace('=', '%3D')}&"
        assert seen == ["a", "b/", "c/", "d"]


@pytest.mark.parametrize(
    ("query", "code"),
    [("list-type=1", "NotImplemented"), ("", "NotImplemented"), ("list-type=2&max-keys=x", "InvalidArgument"),
     ("continuation-token=%3F&list-type=2", "InvalidArgument"), ("acl=", "NotImplemented"), ("uploads=", "NotImplemented")],
)  # fmt: skip
async def test_a_list_that_is_not_known(query: str, code: str) -> None:
    async with ours() as s3:
        assert (await s3.call("GET", f"/{BUCKET}?{query}")).code == code


async def test_a_multipart_upload_by_obstore(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        store, data = s3.store(), content(11 * MB + 17)
        put = await obstore.put_async(
            store, "large.pdf", data, use_multipart=True, chunk_size=5 * MB, max_concurrency=2
        )
        digests = [hashlib.md5(data[start : start + 5 * MB]).digest() for start in range(0, len(data), 5 * MB)]
        assert put["e_tag"] == f'"{hashlib.md5(b"".join(digests)).hexdigest()}-3"'
        assert await read(store, "large.pdf") == data
        (line,) = await lines(s3)
        assert (line["size"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert (await s3.control("/record"))["uploads"] == 0
        assert files(place) == ["large.pdf"]


async def _begin(s3: Ours, key: str = "large") -> str:
    return (await s3.call("POST", f"/{BUCKET}/{key}?uploads")).text("UploadId")


async def _part(s3: Ours, upload: str, number: int, body: bytes) -> str:
    answer = await s3.call("PUT", f"/{BUCKET}/large?partNumber={number}&uploadId={upload}", body)
    assert answer.status == 200
    return str(answer.headers["ETag"])


def _named(*parts: tuple[object, str]) -> bytes:
    told = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    return f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{told}</CompleteMultipartUpload>'.encode()


async def test_parts_may_come_again_and_in_any_order(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        upload = await _begin(s3)
        second = await _part(s3, upload, 2, b"end")
        await _part(s3, upload, 1, content(5 * MB, 3))
        first = await _part(s3, upload, 1, content(5 * MB))
        answer = await s3.call("POST", f"/{BUCKET}/large?uploadId={upload}", _named((1, first), (2, second)))
        assert answer.text("ETag").endswith('-2"')
        assert await read(s3.store(), "large") == content(5 * MB) + b"end"


async def test_parts_that_do_not_make_an_object(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        upload = await _begin(s3)
        etags = [await _part(s3, upload, number, b"small") for number in (1, 2)]
        for body, code in (
            (_named((1, etags[0]), (2, etags[1])), "EntityTooSmall"),
            (_named((2, etags[1]), (1, etags[0])), "InvalidPartOrder"),
            (_named((1, etags[0]), (1, etags[0])), "InvalidPartOrder"),
            (_named((1, '"0"')), "InvalidPart"),
            (_named((3, etags[0])), "InvalidPart"),
            (_named(("x", etags[0])), "MalformedXML"),
            (b"<", "MalformedXML"),
            (_named(), "InvalidPartOrder"),
        ):
            assert (await s3.call("POST", f"/{BUCKET}/large?uploadId={upload}", body)).code == code
        for number in (0, 10_001, "x"):
            answer = await s3.call("PUT", f"/{BUCKET}/large?partNumber={number}&uploadId={upload}", b"x")
            assert answer.code == "InvalidArgument"
        assert (await s3.call("POST", f"/{BUCKET}/large?uploadId={upload}", _named((2, etags[1])))).status == 200


async def test_an_upload_that_is_given_up(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        upload = await _begin(s3)
        await _part(s3, upload, 1, b"x")
        assert (await s3.call("DELETE", f"/{BUCKET}/large?uploadId={upload}")).status == 204
        for method, path in (("DELETE", f"uploadId={upload}"), ("PUT", f"partNumber=1&uploadId={upload}")):
            assert (await s3.call(method, f"/{BUCKET}/large?{path}", b"")).code == "NoSuchUpload"
        assert await keys(s3.store()) == []
        assert files(place) == ([] if place else ["large.pdf"])


async def test_an_upload_belongs_to_its_key() -> None:
    async with ours() as s3:
        upload = await _begin(s3)
        assert (await s3.call("PUT", f"/{BUCKET}/other?partNumber=1&uploadId={upload}", b"x")).code == "NoSuchUpload"
        assert (await s3.call("PUT", f"/{BUCKET}/large?uploadId={upload}", b"x")).code == "InvalidArgument"


async def test_copies_as_the_product_makes_them(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        plain, careful = s3.store(), s3.store(copy_if_not_exists="multipart")
        await obstore.put_async(plain, "a b", content(6 * MB), attributes={"Content-Type": "text/plain"})
        await obstore.copy_async(plain, "a b", "copied")
        assert await read(plain, "copied") == content(6 * MB)
        assert (await obstore.get_async(plain, "copied")).attributes["Content-Type"] == "text/plain"  # type: ignore[index]
        await obstore.copy_async(careful, "a b", "new", overwrite=False)
        assert await read(plain, "new") == content(6 * MB)
        with pytest.raises(AlreadyExistsError):
            await obstore.copy_async(careful, "copied", "new", overwrite=False)
        with pytest.raises(FileNotFoundError):
            await obstore.copy_async(plain, "nothing", "x")


async def test_many_are_removed_at_once(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        for name in "abc":
            await obstore.put_async(s3.store(), name, b"x")
        body = (
            b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object><Object><Key>z</Key></Object></Delete>"
        )
        assert (await s3.call("POST", f"/{BUCKET}?delete", body)).texts("Key") == ["a", "b", "z"]
        assert await keys(s3.store()) == ["c"]
        assert (await s3.call("POST", f"/{BUCKET}?delete", b"<Delete/>")).code == "MalformedXML"
        await obstore.delete_async(s3.store(), ["c"])
        assert await keys(s3.store()) == []


async def test_buckets(place: dict[str, str]) -> None:
    async with ours(**place, bucket=("documents", "more")) as s3:
        assert (await s3.call("GET", "/")).texts("Name") == ["documents", "more"]
        assert [(await s3.call("HEAD", path)).status for path in ("/more", "/none")] == [200, 404]
        assert (await s3.call("PUT", "/another")).status == 200
        assert (await s3.call("PUT", "/another")).code == "BucketAlreadyOwnedByYou"
        assert (await s3.call("PUT", "/Not_A_Bucket")).code == "InvalidBucketName"
        await obstore.put_async(s3.store(bucket="another"), "a", b"x")
        assert (await s3.call("DELETE", "/another")).code == "BucketNotEmpty"
        await obstore.delete_async(s3.store(bucket="another"), "a")
        assert (await s3.call("DELETE", "/another")).status == 204
        assert (await s3.call("GET", "/another/a")).code == "NoSuchBucket"
        assert (await s3.call("PUT", "/another/a", b"x")).code == "NoSuchBucket"
        assert (await s3.call("POST", "/")).code == "MethodNotAllowed"


async def test_a_wrong_secret_and_none() -> None:
    async with ours() as s3:
        await obstore.put_async(s3.store(), "a", b"x")
        wrong = s3.store(secret="other", retries=0)
        for act in (
            obstore.get_async(wrong, "a"),
            obstore.put_async(wrong, "a", b"y"),
            obstore.delete_async(wrong, "a"),
        ):
            with pytest.raises(DENIED, match="SignatureDoesNotMatch"):
                await act
        with pytest.raises(BaseError, match="SignatureDoesNotMatch"):
            await keys(wrong)
        with pytest.raises(BaseError, match="SignatureDoesNotMatch"):
            await obstore.put_async(wrong, "b", content(6 * MB), use_multipart=True)
        answer = await s3.plain("GET", f"{s3.endpoint}/{BUCKET}/a")
        assert (answer.status, answer.code) == (403, "AccessDenied")
        assert await read(s3.store(), "a") == b"x"
        assert (await s3.control("/record"))["objects"] == 1


async def test_a_body_that_is_not_the_one_that_was_signed(place: dict[str, str]) -> None:
    async with ours(**place) as s3:
        answer = await s3.call("PUT", f"/{BUCKET}/a", b"right", sent=b"wrong")
        assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
        answer = await s3.call("PUT", f"/{BUCKET}/a", b"x", headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
        assert answer.code == "BadDigest"
        assert (await s3.call("PUT", f"/{BUCKET}/a", b"right", unsigned=True, sent=b"other")).status == 200
        await obstore.put_async(s3.store(unsigned_payload=True), "b", b"x")
        assert await keys(s3.store()) == ["a", "b"]
        assert files(place) == (["a", "b"] if place else ["large.pdf"])


async def test_a_body_above_the_limit(place: dict[str, str]) -> None:
    async with ours(**place, size_limit=1000) as s3:
        assert (await s3.call("PUT", f"/{BUCKET}/a", b"x" * 1000)).status == 200
        assert (await s3.call("PUT", f"/{BUCKET}/a", b"x" * 1001)).code == "EntityTooLarge"
        assert (await s3.call("POST", f"/{BUCKET}?delete", b" " * 3_000_000)).code == "EntityTooLarge"


async def test_a_presigned_address_gives_the_object_until_it_ends() -> None:
    async with ours() as s3:
        await obstore.put_async(s3.store(), "a b.pdf", b"content", attributes={"Content-Type": "application/pdf"})
        url = await obstore.sign_async(s3.store(), "GET", "a b.pdf", timedelta(seconds=60))
        answer = await s3.plain("GET", url)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"content", "application/pdf")
        assert (await s3.plain("GET", url.replace("a%20b", "other"))).code == "SignatureDoesNotMatch"
        assert (await s3.plain("DELETE", url)).code == "SignatureDoesNotMatch"
        await s3.control("/clock", forward=61)
        assert (await s3.plain("GET", url)).code == "AccessDenied"
        assert await read(s3.store(), "a b.pdf") == b"content"


async def test_an_address_to_write_to() -> None:
    async with ours() as s3:
        url = await obstore.sign_async(s3.store(), "PUT", "given", timedelta(seconds=60))
        assert (await s3.plain("PUT", url, data=b"from a browser")).status == 200
        assert await read(s3.store(), "given") == b"from a browser"


async def test_a_folder_keeps_what_it_was_given(tmp_path: Path) -> None:
    async with ours(folder=str(tmp_path)) as s3:
        await obstore.put_async(
            s3.store(), "x/y.pdf", b"1", attributes={"Content-Type": "application/pdf", "who": "me"}
        )
        large = await obstore.put_async(s3.store(), "l" * 300, content(6 * MB), use_multipart=True)
    (tmp_path / BUCKET / "by%20hand%2Fnote.txt").write_bytes(b"by hand")
    async with ours(folder=str(tmp_path)) as s3:
        assert await keys(s3.store()) == ["by hand/note.txt", "l" * 300, "x/y.pdf"]
        told = (await obstore.get_async(s3.store(), "x/y.pdf")).attributes
        assert (told["Content-Type"], told["who"]) == ("application/pdf", "me")  # type: ignore[index]
        assert (await obstore.head_async(s3.store(), "l" * 300))["e_tag"] == large["e_tag"]
        assert await read(s3.store(), "by hand/note.txt") == b"by hand"


async def test_a_file_that_changed_in_the_folder_is_another_object(tmp_path: Path) -> None:
    async with ours(folder=str(tmp_path)) as s3:
        await obstore.put_async(s3.store(), "a", b"1")
    (tmp_path / BUCKET / "a").write_bytes(b"2")
    async with ours(folder=str(tmp_path)) as s3:
        assert (await obstore.head_async(s3.store(), "a"))["e_tag"] == f'"{hashlib.md5(b"2").hexdigest()}"'


def test_names_offiles() -> None:
    assert file_name("claims/7/a b.pdf") == "claims%2F7%2Fa%20b.pdf"
    assert [file_name(key) for key in (".", "..", ".about")] == ["%2E", "%2E.", "%2Eabout"]
    long = [file_name("x" * 1000), file_name("x" * 999 + "y")]
    assert len(set(long)) == 2
    assert max(map(len, long)) < 200


@pytest.mark.parametrize(
    "given", [{"bucket": ("Not_A_Bucket",)}, {"faults": ("html",)}, {"faults": ("missing=1@nowhere",)}]
)
async def test_it_says_why_it_cannot_start(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Not_A_Bucket|Known: "):
        async with object_store.serve(object_store.Options(**given)):
            pass


def test_as_a_process(tmp_path: Path) -> None:
    told = ["--folder", str(tmp_path), "--bucket", "claims", "--bucket", "letters", "--fault", "slow_down=0.1"]
    command = [sys.executable, "-m", "counterfoil.simulators.object_store", *told]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
            assert (tmp_path / "claims").is_dir() and (tmp_path / "letters").is_dir()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_every_setting_fault_and_code_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    own = {field.name for field in options.flagged(object_store.Options)} - {
        field.name for field in fields(options.Common)
    }
    assert sorted(name for name in map(options.flag_name, own) if f"`{name}`" not in text) == []
    assert sorted(name for name in (*object_store.PASSING, *object_store.LASTING) if f"`{name}`" not in text) == []
    assert set(object_store.SHARED) <= set(faults.PASSING)
    assert sorted(code for code in STATUS if f"`{code}`" not in text) == []
