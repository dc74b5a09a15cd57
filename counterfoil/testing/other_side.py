"""A small HTTP server for tests of connectors: it answers what a function says, also what no honest server would.

Over a real socket. It counts what it was asked and which connections are open, and it can hang, drip or cut a reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    target: str  # path and query, as sent
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def raw_path(self) -> str:
        return urlsplit(self.target).path

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Answer:
    """`raw` replaces status, headers and body, and the connection is closed behind it. `hang`: then nothing more, until closed."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hang: bool = False
    drip: bytes = b""  # after `raw`: this again and again, until the other side leaves

    def bytes(self) -> bytes:
        headers = {"Content-Type": "application/json", **self.headers}
        if not (self.status == 204 or "Transfer-Encoding" in headers):
            headers.setdefault("Content-Length", str(len(self.body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Any\r\n{lines}\r\n".encode("latin-1") + self.body


class OtherSide:
    """`async with OtherSide(answer) as side:` then `side.url`."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0  # ever opened
        self.open: set[asyncio.Task[None]] = set()
        self.was_asked = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> OtherSide:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self.open:
            task.cancel()
        await asyncio.gather(*self.open, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def all_closed(self, seconds: float = 2) -> bool:
        """True as soon as no connection is open; False after `seconds`."""
        if self.open:
            await asyncio.wait(set(self.open), timeout=seconds)
        return not self.open

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        task.add_done_callback(self.open.discard)
        self.connections += 1
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                self.was_asked.set()
                if not await self._reply(self.answer(asked), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _reply(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True: the connection stays for the next request."""
        writer.write(answer.bytes() if answer.raw is None else answer.raw)
        await writer.drain()
        while answer.drip and not reader.at_eof():
            writer.write(answer.drip)
            await writer.drain()
            await asyncio.sleep(0.01)
        if answer.hang:
            await reader.read()  # until the other side leaves
        return answer.raw is None


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)
