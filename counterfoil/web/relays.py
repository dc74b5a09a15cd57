"""Serving relays over HTTP: a request becomes a call of `engine.relay`, and its reply an answer. Knows no flow and keeps nothing.

A body is read up to the relay's limit and no further. The server stops in order: no new calls, the ones under way get their answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from counterfoil.engine import relay
from counterfoil.engine.log import get_logger
from counterfoil.engine.relay import RelayJob
from counterfoil.model.relay import Incoming, Reply

log = get_logger(__name__)

HEALTH = "/healthcheck"
LONGEST_STOP = 30.0  # seconds that calls under way are waited for


@asynccontextmanager
async def serving(jobs: Mapping[str, RelayJob], host: str, port: int) -> AsyncIterator[str]:
    """Serve relays by the path they listen to, until the block ends; gives the address."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        for base, job in jobs.items():
            if path == f"{base}{HEALTH}" and request.method == "GET":
                return web.json_response({"status": "OK"})
            if path.startswith(f"{base}/"):
                return _answer(await _relayed(job, request, path))
        return web.json_response({"errors": {"title": "Not found", "detail": "Nothing is served here."}}, status=404)

    server = web.Server(handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=LONGEST_STOP)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=512).start()
        address = runner.addresses[0]
        url = f"http://{address[0]}:{address[1]}"
        log.info("relay.serving", url=url, relays=len(jobs))
        yield url
    finally:
        await runner.cleanup()


async def _relayed(job: RelayJob, request: web.BaseRequest, path: str) -> Reply:
    body = await _body(request, job.door.limit)
    if body is None:
        return job.door.refuse(413, "too_large", f"The body has more than {job.door.limit:,} bytes.")
    headers = {name.lower(): value for name, value in request.headers.items()}
    return await relay.handle(job, Incoming(request.method, path, request.rel_url.raw_query_string, headers, body))


async def _body(request: web.BaseRequest, limit: int) -> bytes | None:
    """The body, or None where it is larger than the limit: no byte beyond it is kept."""
    if (request.content_length or 0) > limit:
        return None
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _answer(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type)
