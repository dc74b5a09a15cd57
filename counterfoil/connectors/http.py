"""A source behind an HTTP API: a list in pages, one record by its key, and word back to it. One try per call.

Never retries, waits or opens a circuit: the engine does. Statuses and bodies are read in `replies.py`, pages in `paging.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from yarl import URL

from counterfoil.connectors import auth
from counterfoil.connectors.authorise import authoriser_of
from counterfoil.connectors.paging import (
    Place,
    check_paging,
    ended_by_refusal,
    load_place,
    next_place,
    paging_query,
    save_place,
)
from counterfoil.connectors.replies import (
    Listed,
    ListReader,
    RecordReader,
    looks_html,
    retry_after,
    status_error,
)
from counterfoil.connectors.templates import fill_query, http_url, join_url, key_url, moments, with_query
from counterfoil.connectors.wire import Ask, Reply, Wire
from counterfoil.flows.flow import AuthType, PagingStyle, SourceSpec
from counterfoil.model.clock import Clock
from counterfoil.model.errors import ConnectorError, Misconfigured, Refused
from counterfoil.model.ports import Cursor, Page
from counterfoil.model.run import Window

PEEK_BYTES = 64 * 1024  # what `probe` reads of a list
GOOD_LIST = frozenset({200, 203, 206})  # 206: some servers mark a page of a longer list so
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:"[^"]*"|[^\s";,]*))?)*)')
_PARAMETER = re.compile(r';\s*([^\s=;,]+)(?:\s*=\s*(?:"([^"]*)"|([^\s";,]*)))?')


class HttpSource:
    """Implements `model.ports.Source`. Raises Misconfigured at construction for what the flow file or environment lacks."""

    def __init__(
        self, spec: SourceSpec, *, environment: Mapping[str, str], folder: Path, concurrency: int, clock: Clock
    ) -> None:
        self._base = _base_url(auth.resolve(spec.url, environment))
        self._spec = spec
        self._clock = clock
        self._login = auth.variables(spec.auth)
        self._wire = Wire(
            self._base,
            headers=_headers(spec, environment),
            timeouts=spec.timeouts,
            concurrency=concurrency,
            authoriser=authoriser_of(spec.auth, environment, clock) if spec.auth.type is not AuthType.NONE else None,
        )
        self._prepare_list(environment)
        self._prepare_detail(environment)

    @property
    def has_detail(self) -> bool:
        return self._spec.detail is not None

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        """One page. Faults: those of `status_error`, `ListReader.read`, `Wire.call`, and `endless_list`, `next_elsewhere`."""
        place = load_place(self._paging, cursor)
        url = self._page_url(window, place)
        reply = await self._wire.call(Ask("GET", url, self._list_place, self._spec.limits.page_bytes, "page_bytes"))
        if ended_by_refusal(self._paging, place, reply.status) or reply.status == 204:
            return Page((), None)
        if reply.status not in GOOD_LIST:
            raise self._status_error(reply, self._list_place, gone=False)
        listed = self._list.read(reply.body, self._list_place, place.number, reply.content_type)
        return Page(listed.entries, save_place(self._after(place, listed, reply)), listed.broken)

    async def record(self, key: str) -> bytes:
        """One record. Gone for 404 and 410."""
        if self._key_url is None:
            raise Misconfigured("This source declares no `detail` call.", "Add `detail` to the flow's `source`.")
        ask = Ask("GET", self._key_url(key), self._detail_place, self._spec.limits.record_bytes, "record_bytes")
        reply = await self._wire.call(ask)
        if reply.status != 200:
            raise self._status_error(reply, self._detail_place, gone=True)
        return self._record.read(reply.body, self._detail_place, reply.content_type)

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None:
        """Send `body` as JSON. Unknown for a POST whose reply was lost; a PUT may simply be sent again."""
        back = self._spec.write_back
        if back is None or self._back_url is None:
            raise Misconfigured(
                "This source declares no `write_back` call.", "Add `write_back` to the flow's `source`."
            )
        place = f"{back.method.upper()} {self._base.authority}{back.path}"
        limit = self._spec.limits.record_bytes
        sent = msgspec.json.encode(body)
        reply = await self._wire.call(
            Ask(back.method.upper(), self._back_url(key), place, limit, "record_bytes", sent, cut=True)
        )
        if not 200 <= reply.status < 300:
            raise self._status_error(reply, place, gone=True)

    async def probe(self) -> str:
        """Ask for what changed since now, and read its start only."""
        url = self._page_url(Window(since=self._clock.now()), Place())
        reply = await self._wire.call(Ask("GET", url, self._list_place, PEEK_BYTES, "page_bytes", cut=True))
        if reply.status not in GOOD_LIST | {204}:
            raise self._status_error(reply, self._list_place, gone=False)
        if reply.whole and reply.status != 204:
            count = self._list.read(reply.body, self._list_place, 1, reply.content_type).count
            return f"{self._list_place} answered {reply.status} with a page of {count} entries."
        if looks_html(reply.body, reply.content_type):
            self._list.read(reply.body, self._list_place, 1, reply.content_type)
        return f"{self._list_place} answered {reply.status}."

    async def close(self) -> None:
        await self._wire.close()

    def _prepare_list(self, environment: Mapping[str, str]) -> None:
        call, limits = self._spec.list, self._spec.limits
        check_paging(call.paging, call.items)
        self._paging = call.paging
        self._list = ListReader(call.items, call.paging.next_at, limits.record_bytes)
        self._list_url = join_url(self._base, auth.resolve(call.path, environment))
        self._list_query = auth.resolve_all(call.query, environment)
        self._list_place = f"GET {self._base.authority}{call.path}"

    def _prepare_detail(self, environment: Mapping[str, str]) -> None:
        call, back = self._spec.detail, self._spec.write_back
        self._record = RecordReader(call.record if call else "", self._spec.key)
        self._key_url = self._template(call.path, call.query, environment) if call else None
        self._detail_place = f"GET {self._base.authority}{call.path}" if call else ""
        self._back_url = self._template(back.path, {}, environment) if back else None

    def _template(self, path: str, query: Mapping[str, str], environment: Mapping[str, str]) -> Any:
        return key_url(self._base, auth.resolve(path, environment), auth.resolve_all(query, environment))

    def _page_url(self, window: Window, place: Place) -> URL:
        if place.at is not None and self._paging.style in (PagingStyle.LINK, PagingStyle.NEXT_URL):
            return self._next_url(str(place.at), self._base)
        values = moments(window, self._spec.watermark)
        query = fill_query(self._list_query, {**values, "cursor": None if place.at is None else str(place.at)})
        return with_query(self._list_url, {**query, **paging_query(self._paging, place)})

    def _after(self, place: Place, listed: Listed, reply: Reply) -> Place | None:
        follow = listed.follow
        if self._paging.style is PagingStyle.NONE:
            return None
        if self._paging.style is PagingStyle.LINK:
            follow = next_link(", ".join(reply.headers.getall("Link", [])))
        if follow and self._paging.style in (PagingStyle.LINK, PagingStyle.NEXT_URL):
            follow = self._next_url(str(follow), reply.url).raw_path_qs
        return next_place(
            self._paging,
            place,
            count=listed.count,
            digest=listed.digest(),
            follow=follow,
            pages=self._spec.limits.pages,
            where=self._list_place,
        )

    def _next_url(self, text: str, here: URL) -> URL:
        try:
            url = here.join(URL(text))
            inside = self._wire.same_origin(url)
        except ValueError:
            inside = False
        if not inside:
            raise Refused(
                f"{self._list_place}: the next page is at another origin; the credentials are not sent there.",
                "If the source has moved, declare its new address in `url`.",
                fault="next_elsewhere",
            )
        return url

    def _status_error(self, reply: Reply, place: str, *, gone: bool) -> ConnectorError:
        wait = retry_after(reply.headers.get("Retry-After"), self._clock.now())
        return status_error(reply.status, place, wait=wait, gone=gone, login=self._login)


def next_link(header: str) -> str | None:
    """The target of `rel=next` in a Link header (RFC 8288), or None."""
    for target, parameters in _LINK.findall(header):
        for name, quoted, plain in _PARAMETER.findall(parameters):
            if name.lower() == "rel" and "next" in (quoted or plain).lower().split():
                return str(target)
    return None


def _base_url(text: str) -> URL:
    url = http_url(text, "Write it like https://api.example.com/v1.")
    if url.user is not None or url.password is not None or url.query_string or url.fragment:
        raise Misconfigured(
            "`source.url` holds credentials, a query or a fragment.", "Move them to `source.auth` and `list.query`."
        )
    return url


def _headers(spec: SourceSpec, environment: Mapping[str, str]) -> dict[str, str]:
    own = {"Accept": "application/json", "User-Agent": "counterfoil"}
    declared: dict[str, str] = auth.resolve_all(spec.headers, environment)
    return {**own, **declared}
