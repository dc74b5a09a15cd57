"""The calls of the object store, one function each: what is asked of what is kept, and S3's answer to it.

A call is given its request in plain values, already proven and read; it raises Denied. Faults and sockets are not here.
"""

import base64
import binascii
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from counterfoil.simulators.object_store_errors import element, xml
from counterfoil.simulators.object_store_kept import Denied, Kept, Sink, Stored, check_key, pieces
from counterfoil.simulators.store import MICRO, iso_utc
from counterfoil.simulators.wire import Reply

MOST_KEYS = 1000
MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_ABOUT = "x-amz-meta-"


@dataclass(frozen=True)
class Asked:
    """A request in plain values. Header names are small; `sink` holds what came with it, `body` the same where it is short."""

    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    now: float
    sink: Sink | None = None
    body: bytes = field(default=b"", repr=False)


def _time(seconds: float) -> str:
    return iso_utc(round(seconds) * MICRO)[:19] + ".000Z"


def _headers(stored: Stored) -> dict[str, str]:
    about = {_ABOUT + name: value for name, value in stored.about.items()}
    when = formatdate(stored.modified, usegmt=True)
    return {"ETag": f'"{stored.etag}"', "Last-Modified": when, "Accept-Ranges": "bytes", **about}


def _about(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(_ABOUT): value for name, value in headers.items() if name.startswith(_ABOUT)}


def _same(header: str, stored: Stored) -> bool:
    named = {part.strip().removeprefix("W/").strip('"') for part in header.split(",")}
    return "*" in named or stored.etag in named


# --- objects ------------------------------------------------------------------------------------------------------


def get_object(kept: Kept, asked: Asked) -> Reply:
    """GET: all of it, or the range that was asked for."""
    stored = kept.get(asked.bucket, asked.key)
    if unchanged := _conditions(stored, asked.headers):
        return unchanged
    span = _span(asked.headers.get("range", ""), stored.size)
    headers = {**_headers(stored), "Content-Type": asked.query.get("response-content-type") or stored.content_type}
    if "response-content-disposition" in asked.query:
        headers["Content-Disposition"] = asked.query["response-content-disposition"]
    if span is None:
        return Reply(200, b"".join(pieces(stored.blob)), headers)
    headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{stored.size}"
    return Reply(206, b"".join(pieces(stored.blob, *span)), headers)


def head_object(kept: Kept, asked: Asked) -> Reply:
    """HEAD: as GET, without the body."""
    stored = kept.get(asked.bucket, asked.key)
    if unchanged := _conditions(stored, asked.headers):
        return unchanged
    return Reply(
        200, b"", {**_headers(stored), "Content-Type": stored.content_type, "Content-Length": str(stored.size)}
    )


def _conditions(stored: Stored, headers: Mapping[str, str]) -> Reply | None:
    """304 for what the caller has already. Raises Denied where it wanted another one."""
    if "if-match" in headers and not _same(headers["if-match"], stored):
        raise Denied("PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    if "if-none-match" in headers and _same(headers["if-none-match"], stored):
        return Reply(304, b"", _headers(stored))
    return None


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The bytes asked for, from and up to; None for all of them, as for a range that is none. Raises Denied (`InvalidRange`)."""
    found = _RANGE.fullmatch(header.strip())
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return None
    if start >= end:
        raise Denied("InvalidRange", "The requested range is not satisfiable")
    return start, end


def _may_write(kept: Kept, asked: Asked) -> None:
    """Raises Denied where the caller set a condition and it does not hold."""
    there = kept.bucket(asked.bucket).objects.get(asked.key)
    failed = Denied("PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    if "if-none-match" in asked.headers:
        if asked.headers["if-none-match"].strip() != "*":
            raise Denied("NotImplemented", "If-None-Match is known with * only.")
        if there is not None:
            raise failed
    if "if-match" in asked.headers:
        if there is None:
            raise Denied("NoSuchKey", "The specified key does not exist.")
        if not _same(asked.headers["if-match"], there):
            raise failed


def put_object(kept: Kept, asked: Asked) -> Reply:
    """PUT: what came is the object from now on; or a copy of another one."""
    check_key(asked.key)
    _may_write(kept, asked)
    if "x-amz-copy-source" in asked.headers:
        return _copy(kept, asked)
    assert asked.sink is not None
    _check_md5(asked.headers.get("content-md5", ""), asked.sink)
    kind = asked.headers.get("content-type", "")
    stored = kept.put(asked.bucket, asked.key, asked.sink, asked.now, content_type=kind, about=_about(asked.headers))
    return Reply(200, b"", {"ETag": f'"{stored.etag}"'})


def _check_md5(header: str, sink: Sink) -> None:
    if not header:
        return
    try:
        given = base64.b64decode(header, validate=True)
    except binascii.Error:
        given = b""
    if given != sink.md5.digest():
        raise Denied("BadDigest", "The Content-MD5 you specified did not match what we received.")


def _source(kept: Kept, headers: Mapping[str, str]) -> Stored:
    bucket, _, key = unquote(headers["x-amz-copy-source"]).removeprefix("/").partition("/")
    return kept.get(bucket, key)


def _copied(kept: Kept, stored: Stored, span: tuple[int, int] | None) -> Sink:
    sink = kept.sink()
    for piece in pieces(stored.blob, *(span or (0, stored.size))):
        sink.take(piece)
    return sink


def _copy(kept: Kept, asked: Asked) -> Reply:
    source = _source(kept, asked.headers)
    replaced = asked.headers.get("x-amz-metadata-directive", "COPY") == "REPLACE"
    kind = asked.headers.get("content-type", "") if replaced else source.content_type
    about = _about(asked.headers) if replaced else source.about
    sink = _copied(kept, source, None)
    stored = kept.put(asked.bucket, asked.key, sink, asked.now, content_type=kind, about=about)
    return xml(
        "CopyObjectResult", element("LastModified", _time(stored.modified)) + element("ETag", f'"{stored.etag}"')
    )


def delete_object(kept: Kept, asked: Asked) -> Reply:
    """DELETE: 204, whether there was one or not."""
    kept.drop(asked.bucket, asked.key)
    return Reply(204, b"")


def delete_objects(kept: Kept, asked: Asked) -> Reply:
    """POST ?delete: many at once."""
    root = _parsed(asked.body)
    keys = [_text(entry, "Key") for entry in _named(root, "Object")]
    if not 1 <= len(keys) <= MOST_KEYS:
        raise Denied("MalformedXML", MALFORMED)
    for key in keys:
        kept.drop(asked.bucket, key)
    quiet = any((entry.text or "") == "true" for entry in _named(root, "Quiet"))
    return xml("DeleteResult", "" if quiet else "".join(f"<Deleted>{element('Key', key)}</Deleted>" for key in keys))


# --- multipart uploads --------------------------------------------------------------------------------------------


def begin_multipart(kept: Kept, asked: Asked) -> Reply:
    """POST ?uploads."""
    check_key(asked.key)
    upload_id = kept.begin(asked.bucket, asked.key, asked.headers.get("content-type", ""), _about(asked.headers))
    told = (("Bucket", asked.bucket), ("Key", asked.key), ("UploadId", upload_id))
    return xml("InitiateMultipartUploadResult", "".join(element(name, value) for name, value in told))


def put_part(kept: Kept, asked: Asked) -> Reply:
    """PUT ?partNumber&uploadId: a part that came, or one copied from another object."""
    upload = kept.upload(asked.query["uploadId"], asked.bucket, asked.key)
    number = int(asked.query["partNumber"]) if asked.query["partNumber"].isdecimal() else 0
    if "x-amz-copy-source" in asked.headers:
        source = _source(kept, asked.headers)
        span = _span(asked.headers.get("x-amz-copy-source-range", ""), source.size)
        part = kept.put_part(upload, number, _copied(kept, source, span))
        told = element("LastModified", _time(asked.now)) + element("ETag", f'"{part.etag}"')
        return xml("CopyPartResult", told)
    assert asked.sink is not None
    _check_md5(asked.headers.get("content-md5", ""), asked.sink)
    return Reply(200, b"", {"ETag": f'"{kept.put_part(upload, number, asked.sink).etag}"'})


def complete_multipart(kept: Kept, asked: Asked) -> Reply:
    """POST ?uploadId: the parts named become the object."""
    upload_id = asked.query["uploadId"]
    kept.upload(upload_id, asked.bucket, asked.key)
    _may_write(kept, asked)
    stored = kept.complete(upload_id, [_part(entry) for entry in _named(_parsed(asked.body), "Part")], asked.now)
    told = (("Bucket", asked.bucket), ("Key", asked.key), ("ETag", f'"{stored.etag}"'))
    return xml("CompleteMultipartUploadResult", "".join(element(name, value) for name, value in told))


def _part(entry: ElementTree.Element) -> tuple[int, str]:
    number, etag = _text(entry, "PartNumber").strip(), _text(entry, "ETag").strip()
    if not number.isdecimal():
        raise Denied("MalformedXML", MALFORMED)
    return int(number), etag.strip('"')


def abort_multipart(kept: Kept, asked: Asked) -> Reply:
    """DELETE ?uploadId."""
    kept.upload(asked.query["uploadId"], asked.bucket, asked.key)
    kept.abort(asked.query["uploadId"])
    return Reply(204, b"")


def _parsed(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError):
        raise Denied("MalformedXML", MALFORMED) from None


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (entry for entry in root.iter() if entry.tag.rpartition("}")[2] == name)


def _text(entry: ElementTree.Element, name: str) -> str:
    return next((found.text or "" for found in _named(entry, name)), "")


# --- buckets ------------------------------------------------------------------------------------------------------


def list_buckets(kept: Kept, asked: Asked) -> Reply:
    """GET /."""
    made = element("CreationDate", _time(0))
    named = "".join(f"<Bucket>{element('Name', name)}{made}</Bucket>" for name in sorted(kept.buckets))
    return xml("ListAllMyBucketsResult", f"<Owner>{element('ID', 'simulator')}</Owner><Buckets>{named}</Buckets>")


def head_bucket(kept: Kept, asked: Asked) -> Reply:
    """HEAD /bucket."""
    kept.bucket(asked.bucket)
    return Reply(200, b"")


def put_bucket(kept: Kept, asked: Asked) -> Reply:
    """PUT /bucket."""
    kept.make_bucket(asked.bucket)
    return Reply(200, b"", {"Location": f"/{asked.bucket}"})


def delete_bucket(kept: Kept, asked: Asked) -> Reply:
    """DELETE /bucket, when it is empty."""
    kept.drop_bucket(asked.bucket)
    return Reply(204, b"")


def list_objects(kept: Kept, asked: Asked) -> Reply:
    """GET /bucket?list-type=2: keys in order, those below a delimiter folded into common prefixes."""
    if asked.query.get("list-type") != "2":
        raise Denied("NotImplemented", "Lists are known in their second version only: list-type=2.")
    page = _page(kept.bucket(asked.bucket).keys(), asked.query)
    coded = asked.query.get("encoding-type") == "url"
    show = (lambda text: quote(text, safe="/-_.~")) if coded else (lambda text: text)
    objects = kept.buckets[asked.bucket].objects
    told: list[tuple[str, Any]] = [
        ("Name", asked.bucket),
        ("Prefix", show(asked.query.get("prefix", ""))),
        ("MaxKeys", page.most),
        ("KeyCount", len(page.keys) + len(page.folded)),
        ("IsTruncated", "true" if page.token else "false"),
    ]
    told += [
        (name, show(asked.query[at]))
        for name, at in (("Delimiter", "delimiter"), ("StartAfter", "start-after"))
        if asked.query.get(at)
    ]
    told += [("ContinuationToken", asked.query["continuation-token"])] if asked.query.get("continuation-token") else []
    told += [("NextContinuationToken", page.token)] if page.token else []
    told += [("EncodingType", "url")] if coded else []
    inner = "".join(element(name, value) for name, value in told)
    inner += "".join(_contents(objects[key], show(key)) for key in page.keys)
    inner += "".join(f"<CommonPrefixes>{element('Prefix', show(prefix))}</CommonPrefixes>" for prefix in page.folded)
    return xml("ListBucketResult", inner)


def _contents(stored: Stored, shown: str) -> str:
    told = (
        ("Key", shown),
        ("LastModified", _time(stored.modified)),
        ("ETag", f'"{stored.etag}"'),
        ("Size", stored.size),
    )
    return f"<Contents>{''.join(element(name, value) for name, value in told)}<StorageClass>STANDARD</StorageClass></Contents>"


@dataclass
class _Page:
    most: int
    keys: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    token: str = ""


def _page(keys: list[str], query: Mapping[str, str]) -> _Page:
    most = query.get("max-keys", str(MOST_KEYS))
    if not most.isdecimal():
        raise Denied("InvalidArgument", "Provided max-keys not an integer or within integer range")
    page, prefix, delimiter = _Page(min(int(most), MOST_KEYS)), query.get("prefix", ""), query.get("delimiter", "")
    after, last = _after(query), ""
    start = bisect_left(keys, max(_bytes(prefix), _bytes(after)), key=_bytes)
    for key in keys[start:] if page.most else ():
        if not key.startswith(prefix):
            break
        folded = _folded(key, prefix, delimiter)
        if key == after or (folded and folded in (page.folded[-1:] or [_folded(after, prefix, delimiter)])):
            continue
        if len(page.keys) + len(page.folded) == page.most:
            page.token = base64.urlsafe_b64encode(_bytes(last)).decode()
            break
        (page.folded if folded else page.keys).append(folded or key)
        last = key
    return page


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _after(query: Mapping[str, str]) -> str:
    if "continuation-token" not in query:
        return query.get("start-after", "")
    try:
        return base64.b64decode(query["continuation-token"], b"-_", validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, UnicodeError):
        raise Denied("InvalidArgument", "The continuation token provided is incorrect") from None


def _folded(key: str, prefix: str, delimiter: str) -> str:
    rest = key[len(prefix) :]
    return prefix + rest[: rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else ""
