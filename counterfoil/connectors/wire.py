"""One HTTP exchange on a shared session: time-outs and size bounds on everything, foreign errors translated. One try per call.

Credentials go to the declared origin only. Nothing here knows what a list or a record is; `replies.py` does.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from counterfoil.connectors.authorise import Authoriser
from counterfoil.connectors.replies import too_large
from counterfoil.flows.flow import Timeouts
from counterfoil.model.errors import ConnectorError, Misconfigured, Refused, Transient, Unknown

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
REFUSAL_BYTES = 64 * 1024  # what is read of a reply that is no success; enough for its reason, and keeps the connection
SAFE_TWICE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
IDLE = 4.0  # seconds a connection waits for its next request: shorter than servers wait, so that none is used which they just closed


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL  # after redirects
    whole: bool = True  # False: the body went on, and reading was stopped on purpose
    sent: Mapping[str, str] | None = None  # the headers of the request

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `place` names it in messages: method, host and path as declared, no query and no key."""

    method: str
    url: URL
    place: str
    limit: int  # bytes of body, after decompression
    setting: str  # the limit's name in the flow file
    body: bytes | None = None
    repeatable: bool = False  # a POST that only reads
    cut: bool = False  # at the limit: stop reading and answer, instead of raising
    single: bool = False  # a delivery: once it may have left, only a reply says what became of it, whatever the method
    content_type: str = "application/json"
    stream: Callable[[], AsyncIterator[bytes]] | None = None  # instead of `body`
    length: int = 0  # bytes of the stream
    sha256: str | None = None  # of the stream, where it is known


class Wire:
    """The connections to one origin, opened at the first call."""

    def __init__(
        self,
        origin: URL,
        *,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        concurrency: int,
        authoriser: Authoriser | None = None,
        tls: ssl.SSLContext | None = None,
        resends: bool = True,
    ) -> None:
        """`resends`: a GET or PUT on a connection that turns out to be dead goes once more by itself; never so for deliveries."""
        self._origin = origin.origin()
        self._headers = dict(headers)
        self._timeouts = timeouts
        self._concurrency = concurrency
        self._authoriser = authoriser
        self._tls, self._resends = tls, resends
        self._session: aiohttp.ClientSession | None = None

    async def call(self, ask: Ask, headers: Mapping[str, str] | None = None) -> Reply:
        """Status, headers and body, whatever the status; `headers` come on top. Follows redirects of a GET within the origin, but none of
        a single request.

        Raises Transient (`unreachable`, `timeout`, `disconnected`, `truncated`, `bad_http`), TooLarge, Refused (`redirected`),
        Misconfigured for TLS, and Unknown instead of Transient where a request that may not be repeated was sent.
        """
        reply = await self._exchange(ask, ask.url, headers)
        for _ in range(MOST_REDIRECTS):
            if reply.status not in REDIRECTS or ask.single:
                return reply
            reply = await self._exchange(ask, self._redirected(ask, reply), headers)
        raise Refused(f"{ask.place} redirects without end.", "Declare the final address in `url`.", fault="redirected")

    def same_origin(self, url: URL) -> bool:
        return url.scheme in ("http", "https") and url.origin() == self._origin

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _exchange(self, ask: Ask, url: URL, more: Mapping[str, str] | None) -> Reply:
        headers = self._headers
        if ask.body is not None or ask.stream is not None:
            headers = {**headers, "Content-Type": ask.content_type, **(more or {})}
        elif more:
            headers = {**headers, **more}
        if ask.stream is not None:
            headers = {**headers, "Content-Length": str(ask.length)}
        if self._authoriser is not None:
            headers = await self._authoriser.headers(ask.method, str(url), headers, ask.body or b"", sha256=ask.sha256)
        session = self._session or self._open()
        data = ask.body if ask.stream is None else ask.stream()
        try:
            async with session.request(ask.method, url, headers=headers, data=data, allow_redirects=False) as response:
                body, whole = await _read(response, ask)
                return Reply(response.status, response.headers, body, url, whole, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error, ask, self._timeouts) from error

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency, ttl_dns_cache=60, keepalive_timeout=IDLE, ssl=self._tls or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._timeouts.total.total_seconds(),
                sock_connect=self._timeouts.connect.total_seconds(),
                sock_read=self._timeouts.first_byte.total_seconds(),
            ),
        )
        self._session._retry_connection = self._resends
        return self._session

    def _redirected(self, ask: Ask, reply: Reply) -> URL:
        location = reply.headers.get("Location", "")
        try:
            target = reply.url.join(URL(location))
            inside = bool(location) and self.same_origin(target)
        except ValueError:
            inside = False
        if not inside or ask.method != "GET":
            raise Refused(
                f"{ask.place} answered {reply.status}, a redirect{'' if inside else ' to another origin'}, which is not followed.",
                "A login page does that; if the source has moved, declare its new address in `url`.",
                fault="redirected",
            )
        return target


async def _read(response: aiohttp.ClientResponse, ask: Ask) -> tuple[bytes, bool]:
    """The body within the limit. A decompressed body is counted as it grows, so a small reply cannot become a huge one."""
    cut = ask.cut or response.status >= 300
    limit = min(ask.limit, REFUSAL_BYTES) if response.status >= 300 else ask.limit
    length = response.content_length
    if length is not None and length <= limit and "Content-Encoding" not in response.headers:
        return await response.read(), True
    chunks, size = [], 0
    while chunk := await response.content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            if cut:
                return b"".join(chunks)[:limit], False
            raise too_large(ask.place, limit, ask.setting)
    return b"".join(chunks), True


def _translated(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    for kind, make in _TRANSLATIONS:
        if isinstance(error, kind):
            made = make(error, ask, timeouts)
            break
    else:
        made = Transient(f"{ask.place}: the connection failed ({type(error).__name__}).", fault="disconnected")
    reached = made.fault not in ("unreachable", "misconfigured", "tls")
    repeatable = ask.repeatable or (ask.method in SAFE_TWICE and not ask.single)
    if repeatable or not reached or not isinstance(made, Transient):
        return made
    return Unknown(
        f"{made.problem} Whether the source did what was asked is unknown.",
        "Look there before it is sent again.",
        fault="unknown",
    )


def _connect_timeout(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: no connection within {_seconds(timeouts.connect)}.", fault="unreachable")


def _read_timeout(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: nothing came for {_seconds(timeouts.first_byte)}.", fault="timeout")


def _total_timeout(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: no complete reply within {_seconds(timeouts.total)}.", fault="timeout")


def _certificate(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Misconfigured(
        f"{ask.place}: the TLS certificate of the source is not valid for this machine.",
        "Look at the address, the date of the certificate and this machine's certificate authorities.",
    )


def _tls(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: no TLS connection.", "Does the source speak https there?", fault="tls")


def _unreachable(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return Transient(f"{ask.place}: cannot connect ({reason}).", fault="unreachable")


def _truncated(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: the reply ends before its end, or is encoded wrongly.", fault="truncated")


def _bad_http(error: Exception, ask: Ask, timeouts: Timeouts) -> ConnectorError:
    return Transient(f"{ask.place}: the reply is not valid HTTP.", fault="bad_http")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"


# The first kind that fits; subclasses stand before their parents.
_TRANSLATIONS: tuple[tuple[type[Exception], Callable[[Exception, Ask, Timeouts], ConnectorError]], ...] = (
    (aiohttp.ConnectionTimeoutError, _connect_timeout),
    (aiohttp.ServerTimeoutError, _read_timeout),
    (TimeoutError, _total_timeout),
    (aiohttp.ClientConnectorCertificateError, _certificate),
    (ssl.SSLCertVerificationError, _certificate),
    (aiohttp.ClientSSLError, _tls),
    (aiohttp.ClientConnectorError, _unreachable),
    (aiohttp.ClientPayloadError, _truncated),
    (aiohttp.ClientResponseError, _bad_http),
)
