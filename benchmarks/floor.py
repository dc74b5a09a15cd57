"""The least the work can take: read the bytes, parse them, COPY the rows into an empty table, one after the other, each timed.

`python -m benchmarks.floor pages|changed BASE_URL COUNT` prints a line of JSON, seconds each; the database comes as DATABASE_URL.
Bare sockets, fifteen connections for details and one for pages, no retry, no check, no index: nobody should work like this.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

import asyncpg
import msgspec

from benchmarks import data
from benchmarks.server import PAGE

CONNECTIONS = 15


class Record(msgspec.Struct):
    id: str
    full_name: str
    email: str
    phone: str
    street: str
    city: str
    postcode: str
    score: int
    balance: float
    active: bool
    created_at: datetime
    updated_at: datetime


class Page(msgspec.Struct):
    data: list[Record]


class Detail(msgspec.Struct):
    data: Record


async def read(host: str, port: int, paths: Sequence[str]) -> list[bytes]:
    """The bodies of all paths, over one kept-alive connection."""
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    bodies = []
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        bodies.append(await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2])))
    writer.close()
    return bodies


async def read_all(kind: str, base: str, count: int) -> list[bytes]:
    at = urlsplit(base)
    host, port = at.hostname or "127.0.0.1", at.port or 80
    if kind == "pages":
        return await read(host, port, [f"{at.path}/page?page={page}" for page in range(1, -(-count // PAGE) + 1)])
    paths = [f"{at.path}/records/{data.key(n)}" for n in data.numbers(count)]
    shares = await asyncio.gather(*(read(host, port, paths[lane::CONNECTIONS]) for lane in range(CONNECTIONS)))
    return [body for share in shares for body in share]


def parse(kind: str, bodies: Sequence[bytes]) -> list[Record]:
    if kind == "pages":
        decoder = msgspec.json.Decoder(Page)
        return [record for body in bodies for record in decoder.decode(body).data]
    detail = msgspec.json.Decoder(Detail)
    return [detail.decode(body).data for body in bodies]


async def measure(kind: str, base: str, count: int) -> dict[str, float]:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        columns = ", ".join(f"{name} {kind_}" for name, kind_ in data.COLUMNS.items())
        await connection.execute(f"create table floor_records ({columns})")
        marks = [time.perf_counter()]
        bodies = await read_all(kind, base, count)
        marks.append(time.perf_counter())
        records = parse(kind, bodies)
        marks.append(time.perf_counter())
        await connection.copy_records_to_table(
            "floor_records", records=map(msgspec.structs.astuple, records), columns=list(data.COLUMNS)
        )
        marks.append(time.perf_counter())
    finally:
        await connection.close()
    return dict(zip(("read", "parse", "copy"), (b - a for a, b in itertools.pairwise(marks)), strict=True))


def main() -> None:
    kind, base, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(asyncio.run(measure(kind, base, count))))


if __name__ == "__main__":
    main()
