"""The other side of every contestant: an HTTP server that costs next to nothing. Everything it says is encoded before it listens.

`python -m benchmarks.server --a 1000 --b 20000 --c 200000` prints its port. Each work has its own base address:

    /a  /b          GET …/changed?since=   ids and when they changed      GET …/records/ID   one record (A: 50 to 150 ms)
    /c/half  /c/full   GET …/page?page=1&per_page=1000   whole records; `half` has the first half, as it was before
    GET /stats      our own CPU seconds; per base: calls, sum of the latencies asked for, most calls at a time. GET /reset: zero again
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import parse_qsl

from benchmarks import data

PAGE = 1000


@dataclass(slots=True)
class Count:
    """What was asked of one base since the last reset. `latency` in seconds, as planned, not as it came out."""

    calls: int = 0
    latency: float = 0.0
    now: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    latency: float = 0.0


def reply(value: object, status: str = "200 OK", latency: float = 0.0) -> Reply:
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return Reply(head.encode() + body, latency)


NOT_FOUND = reply({"error": "not found"}, "404 Not Found")


def details(base: str, count: int, slow: bool) -> dict[str, Reply]:
    listed = [{"id": data.key(n), "updated_at": data.changed(n)} for n in data.numbers(count)]
    replies = {
        f"{base}/records/{data.key(n)}": reply({"data": data.record(n)}, latency=data.latency(n) if slow else 0.0)
        for n in data.numbers(count)
    }
    return {f"{base}/changed": reply({"data": listed}), **replies}


def pages(base: str, count: int, old: bool) -> dict[str, Reply]:
    """Page by page, and one empty page behind the last for those who look there."""
    found = {}
    last = -(-count // PAGE)
    for page in range(1, last + 2):
        first = (page - 1) * PAGE + 1
        records = [data.record(n, old=old) for n in range(first, min(first + PAGE, count + 1))]
        next_page = page + 1 if page < last else None
        found[f"{base}/page/{page}"] = reply({"data": records, "page": page, "next_page": next_page})
    return found


class Site:
    """All replies by path, and the counts by base."""

    def __init__(self, a: int, b: int, c: int) -> None:
        self.replies = {
            **details("/a", a, slow=True),
            **details("/b", b, slow=False),
            **pages("/c/half", c // 2, old=True),
            **pages("/c/full", c, old=False),
        }
        self.counts = {base: Count() for base in ("/a", "/b", "/c/half", "/c/full")}

    def find(self, target: str) -> tuple[Reply, Count | None]:
        path, _, query = target.partition("?")
        if path in ("/stats", "/reset"):
            return self._about(path), None
        if path.endswith("/page"):
            path = f"{path}/{dict(parse_qsl(query)).get('page', '1')}"
        base = path[:2] if path[:2] in self.counts else path[:7]
        return self.replies.get(path, NOT_FOUND), self.counts.get(base)

    def _about(self, path: str) -> Reply:
        if path == "/reset":
            self.counts.update({base: Count() for base in self.counts})
        counts = {base: asdict(count) for base, count in self.counts.items()}
        return reply({"cpu": time.process_time(), **counts})


class Connection(asyncio.Protocol):
    """One kept-alive connection; GET only, one request at a time as HTTP/1.1 clients do."""

    def __init__(self, site: Site, later: Callable[..., object]) -> None:
        self.site, self.later = site, later
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, received: bytes) -> None:
        self.buffer += received
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            line = self.buffer[: self.buffer.index(b"\r\n")].decode("latin-1")
            self.buffer = self.buffer[end + 4 :]
            self.answer(line.split(" ")[1])

    def answer(self, target: str) -> None:
        found, count = self.site.find(target)
        if count is None:
            self.transport.write(found.body)
            return
        count.calls += 1
        count.latency += found.latency
        count.now += 1
        count.most = max(count.most, count.now)
        if found.latency:
            self.later(found.latency, self.send, found, count)
        else:
            self.send(found, count)

    def send(self, found: Reply, count: Count) -> None:
        count.now -= 1
        if not self.transport.is_closing():
            self.transport.write(found.body)


async def serve(sizes: Mapping[str, int]) -> None:
    site = Site(**sizes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(site, loop.call_later), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started us closes our standard input; a killed benchmark leaves no server behind.
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The server of the benchmarks.")
    for name, count in (("a", 1000), ("b", 20_000), ("c", 200_000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    sizes = vars(parser.parse_args())
    try:
        import uvloop  # only a faster loop: the server does without
    except ImportError:
        asyncio.run(serve(sizes))
    else:
        uvloop.run(serve(sizes))
    os._exit(0)


if __name__ == "__main__":
    main()
