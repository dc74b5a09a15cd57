"""Requests as they are built: a declared call and a parcel become method, address, headers and body. Pure but for the streaming of files.

A body is a row of segments, bytes and files. So a file's content, plain in a multipart body or base64 inside JSON, is never held: it is
streamed when it is sent, and the same bytes come out at every try.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import msgspec
from yarl import URL

from counterfoil.connectors import auth
from counterfoil.connectors.contract import FILE
from counterfoil.connectors.objects import Objects
from counterfoil.connectors.redact import file_note
from counterfoil.connectors.templates import with_query
from counterfoil.flows.delivery import Call, Part, PartType
from counterfoil.flows.functions import Functions
from counterfoil.flows.template import Template, compile_path, compile_template
from counterfoil.model.delivery import Parcel, StoredFile
from counterfoil.model.errors import CounterfoilError, Refused

JSON = "application/json"
_INLINE = f"@file-{uuid4().hex}@"  # stands where a file's base64 will be, while a body is encoded
_WRITTEN = b'"{file.base64}"'  # how a function of the project says so
_INLINE_SHOWN = "[the file, base64]"
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class FileSegment:
    """The content of a file in the object store, as it is or as base64."""

    file: StoredFile
    base64: bool = False

    @property
    def length(self) -> int:
        size = self.file.size or 0
        return 4 * ((size + 2) // 3) if self.base64 else size

    async def chunks(self, objects: Objects) -> AsyncIterator[bytes]:
        assert self.file.object is not None
        content = await objects.get(self.file.object, size=self.file.size, sha256=self.file.sha256)
        if not self.base64:
            async for chunk in content:
                yield chunk
            return
        rest = b""
        async for chunk in content:
            data = rest + chunk
            whole = len(data) - len(data) % 3
            rest = data[whole:]
            if whole:
                yield base64.b64encode(data[:whole])
        if rest:
            yield base64.b64encode(rest)


Segment = bytes | FileSegment


@dataclass(frozen=True, slots=True)
class Built:
    """`address` is shown and kept: no credentials, no query. `document`: the JSON, or a multipart body's JSON parts, for the contract.
    `shown`: what of the body may be looked at, before redaction."""

    method: str
    url: URL
    address: str
    headers: Mapping[str, str]
    body: bytes | None  # None: `segments` are streamed
    content_type: str
    document: Any = None
    shown: bytes = b""
    segments: tuple[Segment, ...] = ()
    length: int = field(init=False)

    def __post_init__(self) -> None:
        parts = self.segments if self.body is None else (self.body,)
        size = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        object.__setattr__(self, "length", size)

    def with_header(self, name: str, value: str) -> Built:
        return replace(self, headers={**self.headers, name: value})

    def stream(
        self, objects: Objects, seen: Callable[[bytes], None] = lambda chunk: None
    ) -> Callable[[], AsyncIterator[bytes]]:
        """A function that gives the body anew each time; `seen` is told every chunk that leaves."""

        async def chunks() -> AsyncIterator[bytes]:
            for segment in self.segments:
                if isinstance(segment, bytes):
                    seen(segment)
                    yield segment
                    continue
                async for chunk in segment.chunks(objects):
                    seen(chunk)
                    yield chunk

        return chunks

    async def sha256(self, objects: Objects) -> str | None:
        """Of the body, in lower-case hex; reads the files. None where there is no body."""
        if self.body is not None:
            return hashlib.sha256(self.body).hexdigest() if self.body else None
        digest = hashlib.sha256()
        async for chunk in self.stream(objects)():
            digest.update(chunk)
        return digest.hexdigest()


class CallBuilder:
    """Compiles declared calls to one base address."""

    def __init__(self, base: URL, environment: Mapping[str, str], functions: Functions) -> None:
        self._base, self._environment, self._functions = base, environment, functions

    def call(self, spec: Call | None) -> CompiledCall:
        assert spec is not None
        resolved = replace(
            spec,
            path=auth.resolve(spec.path, self._environment),
            query=auth.resolve_all(spec.query, self._environment),
            headers=auth.resolve_all(spec.headers, self._environment),
        )
        function = self._functions.get(spec.function) if spec.function is not None else None
        return CompiledCall(resolved, self._base, function)


class CompiledCall:
    """One declared call, ready to be filled."""

    def __init__(self, spec: Call, base: URL, function: Callable[..., Any] | None) -> None:
        self.spec, self._base, self._function = spec, base, function
        self._path = compile_path(spec.path)
        self._query = [(name, compile_template(value)) for name, value in spec.query.items()]
        self._headers = [(name, compile_template(value)) for name, value in spec.headers.items()]
        self._body = compile_template(spec.body) if spec.body is not None else None
        self._parts = [(part, compile_template(part.content)) for part in spec.parts]

    def build(self, parcel: Parcel) -> Built:
        """Raises Refused for what the parcel lacks."""
        return self.fill(scope_of(parcel), parcel)

    def fill(self, scope: Mapping[str, Any], given: Any = None) -> Built:
        """`given` goes to the function, where one makes the body."""
        url = _joined_url(self._base, self._path.fill(scope))
        url = with_query(url, dict(_filled(self._query, scope)))
        headers = {name: _header(text) for name, text in _filled(self._headers, scope)}
        made = self._made(scope, given)
        address = str(url.with_query(None))
        return Built(
            self.spec.method,
            url,
            address,
            headers,
            made.body,
            made.content_type,
            made.document,
            made.shown,
            made.segments,
        )

    def _made(self, scope: Mapping[str, Any], given: Any) -> _Body:
        if self._parts:
            return _multipart(self._parts, scope)
        if self._function is not None:
            return _json(_answer_of(self._function, self.spec.function or "", given), scope.get("file"))
        if self._body is not None:
            return _json(self._body.fill(scope), scope.get("file"))
        return _Body(b"", JSON)


def _joined_url(base: URL, path: str) -> URL:
    """The path stays as it is encoded: read anew, `%2E%2E` would be `..` again, and climb."""
    return URL(f"{str(base).rstrip('/')}/{path.lstrip('/')}", encoded=True) if path else base


@dataclass(frozen=True, slots=True)
class _Body:
    body: bytes | None
    content_type: str
    document: Any = None
    shown: bytes = b""
    segments: tuple[Segment, ...] = ()


def _json(document: Any, file: Any) -> _Body:
    encoded = _encode(document)
    if file is None:
        return _Body(encoded, JSON, document, encoded)
    encoded = encoded.replace(_WRITTEN, f'"{_INLINE}"'.encode())
    before, mark, after = encoded.partition(_INLINE.encode())
    if not mark:
        return _Body(encoded, JSON, document, encoded)
    segments = (before, FileSegment(file["stored"], base64=True), after)
    return _Body(None, JSON, document, encoded.replace(_INLINE.encode(), _INLINE_SHOWN.encode()), segments)


def _multipart(parts: Sequence[tuple[Part, Template]], scope: Mapping[str, Any]) -> _Body:
    """RFC 7578. The boundary hangs on the content's own name, so that every try sends the same bytes."""
    boundary = "counterfoil-" + hashlib.sha256(str(scope.get("idempotency_key", "")).encode()).hexdigest()[:32]
    segments: list[Segment] = []
    document: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for part, template in parts:
        name = f'Content-Disposition: form-data; name="{_quoted(part.name)}"'
        if part.type is PartType.FILE:
            file: StoredFile = scope["file"]["stored"]
            called = str(template.fill(scope)) if part.content is not None else file.name
            head = f'--{boundary}\r\n{name}; filename="{_quoted(called)}"\r\nContent-Type: {file.type}\r\n\r\n'
            segments += [head.encode(), FileSegment(file), b"\r\n"]
            document[part.name] = FILE
            shown[part.name] = file_note(None, file.size or 0, file.sha256 or "unknown")
            continue
        value = template.fill(scope)
        content, kind = (
            (_encode(value), JSON) if part.type is PartType.JSON else (str(value).encode(), "text/plain; charset=utf-8")
        )
        document[part.name] = shown[part.name] = value
        filename = f'; filename="{_quoted(part.name)}.json"' if part.type is PartType.JSON else ""
        segments.append(
            f"--{boundary}\r\n{name}{filename}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"
        )
    segments.append(f"--{boundary}--\r\n".encode())
    kind = f"multipart/form-data; boundary={boundary}"
    if all(isinstance(segment, bytes) for segment in segments):
        return _Body(b"".join(part for part in segments if isinstance(part, bytes)), kind, document, _encode(shown))
    return _Body(None, kind, document, _encode(shown), _joined(segments))


def _joined(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    joined: list[Segment] = []
    for segment in segments:
        last = joined[-1] if joined else None
        if isinstance(segment, bytes) and isinstance(last, bytes):
            joined[-1] = last + segment
        else:
            joined.append(segment)
    return tuple(joined)


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _filled(templates: Sequence[tuple[str, Template]], scope: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Query parameters or headers: what is absent is left out, since an empty one asks for something else; a list is written with commas."""
    for name, template in templates:
        value = template.fill(scope)
        if isinstance(value, list | tuple):
            yield name, ",".join(map(str, value))
        elif value is not None:
            yield name, value if isinstance(value, str) else _encode(value).decode()


def _header(text: str) -> str:
    if any(char in "\r\n\0" for char in text):
        raise Refused("A value for a header holds a line break.", "Correct the payload.", fault="bad_payload")
    return text


def _answer_of(function: Callable[..., Any], name: str, given: Any) -> Any:
    """What the project's function makes of a parcel. Its own words on failure are left out: they may quote the payload."""
    try:
        made = function(given)
    except CounterfoilError:
        raise
    except Exception as error:
        raise Refused(
            f"The function `{name}` raised {type(error).__name__}.",
            "Mend it or the payload, then retry.",
            fault="function_failed",
        ) from error
    if inspect.iscoroutine(made):
        made.close()
        raise Refused(
            f"The function `{name}` is async; it must answer at once.", "Write it with def.", fault="function_failed"
        )
    return made


def scope_of(parcel: Parcel) -> dict[str, Any]:
    """What a template may name."""
    parent, file = parcel.parent, parcel.file
    return {
        "key": parcel.key,
        "kind": parcel.kind,
        "group": parcel.group,
        "payload": parcel.payload,
        "receipt": parcel.receipt,
        "idempotency_key": parcel.idempotency_key,
        "attempt": parcel.attempt,
        "accepted_at": None if parcel.accepted_at is None else parcel.accepted_at.isoformat(),
        "parent": None if parent is None else {"receipt": parent.receipt, "key": parent.key, "payload": parent.payload},
        "file": None if file is None else file_scope(file),
    }


def file_scope(file: StoredFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "type": file.type,
        "size": file.size,
        "sha256": file.sha256,
        "object": file.object,
        "base64": _INLINE,
        "stored": file,
    }
