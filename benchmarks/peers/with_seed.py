"""The design of seed 003 written down plainly: batches of fifteen with a pause of 100 ms between, upserts of one hundred rows.

Its batch processor waits for the slowest call of each batch; its bulk upsert is one statement over a JSON array, one after the
other. `python with_seed.py changed|pages BASE_URL`, DATABASE_URL set.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import asyncpg

BATCH, PAUSE, CHUNK = 15, 0.1, 100
COLUMNS = [
    "id",
    "full_name",
    "email",
    "phone",
    "street",
    "city",
    "postcode",
    "score",
    "balance",
    "active",
    "created_at",
    "updated_at",
]
LOG = """create table if not exists sync_log (id bigint generated always as identity primary key, status text,
  started_at timestamptz default now(), completed_at timestamptz, found int, upserted int, fetch_failures int)"""
UPSERT = f"""insert into records ({", ".join(COLUMNS)})
  select {", ".join(COLUMNS)} from json_populate_recordset(null::records, $1)
  on conflict (id) do update set {", ".join(f"{name} = excluded.{name}" for name in COLUMNS[1:])}"""


async def process_batch(items: list, call: Callable[[object], Awaitable[object]]) -> tuple[list, list]:
    """Promise.allSettled over batches of fifteen, with the delay between batches."""
    done, failed = [], []
    for start in range(0, len(items), BATCH):
        results = await asyncio.gather(*map(call, items[start : start + BATCH]), return_exceptions=True)
        for result in results:
            (failed if isinstance(result, Exception) else done).append(result)
        if start + BATCH < len(items):
            await asyncio.sleep(PAUSE)
    return done, failed


async def fetch(session: aiohttp.ClientSession, url: str) -> dict:
    async with session.get(url) as response:
        response.raise_for_status()
        return json.loads(await response.read())


async def changed(session: aiohttp.ClientSession, base: str) -> tuple[list, list]:
    entries = (await fetch(session, f"{base}/changed"))["data"]

    async def detail(entry: dict) -> dict:
        return (await fetch(session, f"{base}/records/{entry['id']}"))["data"]

    return await process_batch(entries, detail)


async def pages(session: aiohttp.ClientSession, base: str) -> tuple[list, list]:
    """The seed has no full listing; the plain way is page after page."""
    records, page = [], 1
    while page:
        body = await fetch(session, f"{base}/page?page={page}&per_page=1000")
        records += body["data"]
        page = body["next_page"]
    return records, []


async def main(kind: str, base: str) -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(LOG)
    log = await connection.fetchval("insert into sync_log (status) values ('in_progress') returning id")
    async with aiohttp.ClientSession() as session:
        records, failed = await (changed if kind == "changed" else pages)(session, base)
    for start in range(0, len(records), CHUNK):
        await connection.execute(UPSERT, json.dumps(records[start : start + CHUNK]))
    await connection.execute(
        "update sync_log set status = 'completed', completed_at = now(), found = $2, upserted = $3, fetch_failures = $4 "
        "where id = $1",
        log,
        len(records) + len(failed),
        len(records),
        len(failed),
    )
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
