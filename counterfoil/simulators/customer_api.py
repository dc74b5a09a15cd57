"""The REST API of seed 004: customers (or any CSV or JSONL) listed, read one by one and written back, with faults.

GET /api/v1/data, GET and PUT /api/v1/data/{id}; bearer token, API key or basic; five ways of paging; a filter on updated_at.
Start it with `python -m counterfoil.simulators.customer_api`. Imports nothing of counterfoil but its fellow simulators.
"""

import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from counterfoil.simulators import faults, options, samples
from counterfoil.simulators.paging import MAX_SIZE, STYLES, Listing
from counterfoil.simulators.rate import Window
from counterfoil.simulators.record import Positions
from counterfoil.simulators.side import Side
from counterfoil.simulators.store import MICRO, Shape, encode, iso_utc, read_rows
from counterfoil.simulators.wire import Call, Refusals, Reply, listening, retry_after, run, spoil_body

PATH = "/api/v1/data"
KNOWN = (*faults.PASSING, *faults.MARKS, *faults.PAGING)
TOKEN = "simulator-token"


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the customer API. The token falls back to the environment's API_TOKEN, then to `simulator-token`."""

    auth: str = options.option("bearer", "bearer, api_key (header X-API-Key), basic (user `sync`) or none")
    token: str = options.option("", "the token, key or password; else API_TOKEN, else simulator-token")
    paging: str = options.option("page", f"how the list is paged: {', '.join(STYLES)}")
    page_size: int = options.option(100, f"records on a page when the caller does not say (at most {MAX_SIZE})", int)
    limit: tuple[int, float] | None = options.option(None, "calls allowed, for example 60/min", options.limit)


@dataclass
class Api:
    """One running customer API: the side, its settings, the header it wants and its rate window."""

    side: Side
    options: Options
    wanted: tuple[str, str]
    window: Window | None

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """What a request asks for; a Reply at once when it may not or cannot."""
        name, value = self.wanted
        if name and request.headers.get(name) != value:
            return _error(401, "unauthorized", "The token is missing or wrong.")
        over = self._over_limit()
        if over:
            return over
        path = request.rel_url.raw_path
        if path.rstrip("/") == PATH and request.method == "GET":
            query = request.rel_url.query
            place = query.get("page") or query.get("offset") or query.get("cursor") or ""
            return Call("list", place, partial(_list, self, query))
        if path.startswith(PATH + "/") and request.method in METHODS:
            key = unquote(path[len(PATH) + 1 :])
            endpoint, answer = METHODS[request.method]
            return Call(endpoint, key, partial(answer, self, key, await request.read()))
        return _error(405 if path.startswith(PATH) else 404, "not_found", f"No {request.method} {path} here.")

    def _over_limit(self) -> Reply | None:
        now = self.side.clock()
        if self.window is None or self.window.take(now):
            return None
        self.side.record.faults["limit"] += 1
        wait = {"Retry-After": f"{self.window.ends - now:.0f}"}
        return _error(429, "rate_limited", "Too many calls.", {**wait, **self.limits()})

    def limits(self) -> dict[str, str]:
        """The RateLimit headers of every answer; none without a limit."""
        return self.window.headers(self.side.clock()) if self.window else {}


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, encode({"error": {"code": code, "message": message}}), dict(headers or {}))


async def _list(api: Api, query: Mapping[str, str], fault: str | None) -> Reply:
    side = api.side
    since, until = query.get("updated_since"), query.get("updated_until")
    try:
        found = side.with_duplicates(side.store.between(_micros(since), _micros(until)))
        listing = Listing(found, side.url + PATH, api.options.page_size, side.faults.on("endless_list"))
        page = STYLES[api.options.paging](query, listing)
    except ValueError as error:
        return _error(400, "bad_request", str(error))
    ids = query.get("fields") == "id"
    items = _ids(side, page.positions) if ids else side.join(page.positions)
    rest = encode({"meta": page.meta, **page.beside})
    reply = Reply(200, b'{"data":[' + items + b"]," + rest[1:], {**page.headers, **api.limits()})
    reply.sent = partial(_listed, side, page.positions, ids)
    return spoil_body(reply, fault)


def _micros(text: str | None) -> int | None:
    return round(options.instant(text) * MICRO) if text else None


def _ids(side: Side, positions: Positions) -> bytes:
    name, store = side.store.shape.key_field, side.store
    return b",".join(encode({"id": store.keys[p], name: store.keys[p]})[:-1] + store.stamps[p] for p in positions)


def _listed(side: Side, positions: Positions, ids: bool) -> None:
    tally = side.record.listed if ids else side.record.served
    tally.mark(positions, side.store.versions)
    side.change_some(positions)


async def _detail(api: Api, key: str, body: bytes, fault: str | None) -> Reply:
    side = api.side
    position = side.find(key)
    if position is None:
        return _error(404, "not_found", f"No record {key!r}.", api.limits())
    reply = Reply(200, b'{"data":' + side.padded(position) + b"}", api.limits())
    reply.sent = partial(side.record.served.mark, [position], side.store.versions)
    return spoil_body(reply, fault)


async def _write(api: Api, key: str, body: bytes, fault: str | None) -> Reply:
    if api.side.store.find(key) is None:
        return _error(404, "not_found", f"No record {key!r}.", api.limits())
    try:
        value = json.loads(body)
    except ValueError as error:
        return _error(400, "bad_request", f"The body is no JSON: {error}.", api.limits())
    if not isinstance(value, dict):
        return _error(422, "invalid", "The body must be a JSON object.", api.limits())
    api.side.record.write(key, body, value)
    return spoil_body(Reply(200, encode({"data": {"id": key, **value}}), api.limits()), fault)


METHODS: dict[str, tuple[str, Callable[..., Any]]] = {"GET": ("detail", _detail), "PUT": ("write", _write)}

REFUSALS: Refusals = {
    "throttle": lambda side: _error(429, "rate_limited", "Too many calls.", {"Retry-After": retry_after(side)}),
    "error500": lambda side: _error(500, "internal", "Something went wrong."),
    "error503": lambda side: Reply(503, b"Service Unavailable", content_type="text/plain"),
    "expired_token": lambda side: _error(401, "token_expired", "The token has expired."),
}


def _wanted(given: Options) -> tuple[str, str]:
    token = given.token or os.environ.get("API_TOKEN") or TOKEN
    basic = base64.b64encode(f"sync:{token}".encode()).decode()
    ways = {
        "bearer": ("Authorization", f"Bearer {token}"),
        "api_key": ("X-API-Key", token),
        "basic": ("Authorization", f"Basic {basic}"),
        "none": ("", ""),
    }
    if given.auth not in ways:
        raise ValueError(f"--auth {given.auth!r} is not known. Known: {', '.join(ways)}.")
    return ways[given.auth]


def _shape(given: Options) -> Shape:
    own = not given.data
    return Shape(
        key_field=given.key or ("external_id" if own else "id"),
        stamp_field="updated_at",
        stamp=iso_utc,
        change_field=given.change_field or ("full_name" if own else ""),
        required_field=given.required_field or ("full_name" if own else ""),
        typed_field=given.typed_field or ("created_date" if own else ""),
        score_field=given.score_field,
    )


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Side]:
    """Serve until the block ends; yields the side with .url, .record, .faults, .change(n), .delete(n), .truth()."""
    given = given or Options()
    if given.paging not in STYLES:
        raise ValueError(f"--paging {given.paging!r} is not known. Known: {', '.join(STYLES)}.")
    rows = read_rows(given.data) if given.data else samples.customers(given.records or 120)
    api = Api(Side.of(given, rows, _shape(given), KNOWN), given, _wanted(given), Window.of(given.limit))
    async with listening(api.side, api.classify, REFUSALS) as side:
        yield side


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "The customer API of a REST service, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
