"""One exchange: its bounds in time and size, the connections it keeps, and where it refuses to go."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from yarl import URL

from counterfoil.connectors.wire import Ask, Wire
from counterfoil.flows.flow import Timeouts
from counterfoil.model.errors import ConnectorError, Refused, TooLarge, Transient, Unknown
from counterfoil.testing.other_side import Answer, Asked, OtherSide

QUICK = Timeouts(
    connect=timedelta(milliseconds=200), first_byte=timedelta(milliseconds=100), total=timedelta(seconds=1)
)


@asynccontextmanager
async def opened(
    answer: Callable[[Asked], Answer] | Answer, timeouts: Timeouts = Timeouts()
) -> AsyncIterator[tuple[OtherSide, Wire]]:
    async with OtherSide(answer if callable(answer) else lambda asked: answer) as side:
        wire = Wire(URL(side.url), headers={"Authorization": "s3cret"}, timeouts=timeouts, concurrency=4)
        try:
            yield side, wire
        finally:
            await wire.close()


def ask(side: OtherSide, method: str = "GET", limit: int = 100_000, cut: bool = False) -> Ask:
    return Ask(method, URL(f"{side.url}/x"), f"{method} x", limit, "record_bytes", cut=cut)


async def failing(wire: Wire, what: Ask) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await wire.call(what)
    assert "s3cret" not in str(caught.value)
    return caught.value


PIECE = b"10000\r\n" + b"x" * 65536 + b"\r\n"
HUGE = [
    Answer(b"x" * 50_000_000),
    Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", drip=PIECE),
    Answer(raw=b"HTTP/1.1 200 OK\r\n\r\n", drip=PIECE),
]


@pytest.mark.parametrize("answer", HUGE)
async def test_reading_stops_at_the_limit_and_the_connection_is_closed(answer: Answer) -> None:
    async with opened(answer) as (side, wire):
        error = await failing(wire, ask(side))
        assert isinstance(error, TooLarge)
        assert "limits.record_bytes" in error.remedy
        assert await side.all_closed()


@pytest.mark.parametrize("answer", HUGE)
async def test_a_look_at_the_start_ends_at_the_limit_without_an_error(answer: Answer) -> None:
    async with opened(answer) as (side, wire):
        reply = await wire.call(ask(side, limit=70_000, cut=True))
        assert (len(reply.body), reply.whole) == (70_000, False)
        assert await side.all_closed()


async def test_a_small_reply_that_unpacks_to_a_huge_one_is_refused_in_flat_memory() -> None:
    bomb = gzip.compress(b"[" + b" " * 200_000_000)
    assert len(bomb) < 1_000_000
    async with opened(Answer(bomb, headers={"Content-Encoding": "gzip"})) as (side, wire):
        tracemalloc.start()
        try:
            assert isinstance(await failing(wire, ask(side)), TooLarge)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000  # bytes at the peak, of 200 MB
        finally:
            tracemalloc.stop()


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    async with opened(Answer(b"x" * 1000)) as (side, wire):
        assert len((await wire.call(ask(side, limit=1000))).body) == 1000
        assert isinstance(await failing(wire, ask(side, limit=999)), TooLarge)


async def test_connections_are_kept_also_after_refusals() -> None:
    answers = iter([Answer(b"x" * 60_000, status=500), Answer(status=404), Answer(b"{}"), Answer(b"{}")])
    async with opened(lambda asked: next(answers)) as (side, wire):
        statuses = [(await wire.call(ask(side))).status for _ in range(4)]
        assert statuses == [500, 404, 200, 200]
        assert side.connections == 1


async def test_a_connection_that_died_between_two_calls_is_replaced() -> None:
    answers = iter([Answer(raw=Answer(b"{}").bytes()), Answer(b"{}")])  # `raw`: closed behind it
    async with opened(lambda asked: next(answers)) as (side, wire):
        assert (await wire.call(ask(side))).status == 200
        await side.all_closed()
        assert (await wire.call(ask(side))).status == 200


async def test_cookies_are_not_kept() -> None:
    async with opened(Answer(headers={"Set-Cookie": "a=b"})) as (side, wire):
        await wire.call(ask(side))
        await wire.call(ask(side))
        assert "cookie" not in side.asked[1].headers


async def test_a_redirect_within_the_origin_is_followed_with_credentials() -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(status=307, headers={"Location": "/v2?x=1"}) if asked.path == "/x" else Answer(b"here")

    async with opened(answer) as (side, wire):
        reply = await wire.call(ask(side))
        assert (reply.body, reply.url.path_qs) == (b"here", "/v2?x=1")
        assert side.asked[1].headers["authorization"] == "s3cret"


async def test_a_redirect_to_another_origin_gets_nothing() -> None:
    async with OtherSide(lambda asked: Answer()) as elsewhere:
        async with opened(Answer(status=302, headers={"Location": f"{elsewhere.url}/x"})) as (side, wire):
            assert (await failing(wire, ask(side))).fault == "redirected"
            assert not elsewhere.asked


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_only_a_get_is_redirected(method: str) -> None:
    async with opened(Answer(status=307, headers={"Location": "/y"})) as (side, wire):
        assert isinstance(await failing(wire, ask(side, method)), Refused)
        assert len(side.asked) == 1


@pytest.mark.parametrize(("method", "kind"), [("GET", Transient), ("PUT", Transient), ("POST", Unknown)])
@pytest.mark.parametrize("answer", [Answer(raw=b""), Answer(raw=b"", hang=True), Answer(raw=b"HTTP/1.1 2")])
async def test_a_lost_answer_is_unknown_where_a_repeat_is_not_safe(
    method: str, kind: type[ConnectorError], answer: Answer
) -> None:
    async with opened(answer, QUICK) as (side, wire):
        assert type(await failing(wire, ask(side, method))) is kind


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_port_where_nobody_listens_is_unreachable(method: str) -> None:
    async with opened(Answer()) as (side, wire):
        what = ask(side, method)
        await side.__aexit__(None, None, None)
        error = await failing(wire, what)
        assert (type(error), error.fault) == (Transient, "unreachable")


async def test_no_tls_handshake_within_the_connect_timeout_is_unreachable() -> None:
    async with OtherSide(lambda asked: Answer()) as side:
        wire = Wire(URL(side.url).with_scheme("https"), headers={}, timeouts=QUICK, concurrency=1)
        what = Ask("GET", URL(side.url).with_scheme("https"), "GET x", 10, "record_bytes")
        assert (await failing(wire, what)).fault == "unreachable"
        await wire.close()


async def test_what_leaves_a_wire_of_deliveries_is_sent_once_whatever_the_method() -> None:
    """A PUT on a connection that the other side has just closed is not sent again behind our back, and nobody knows what became of it."""
    asked: list[str] = []

    def answer(one: Asked) -> Answer:
        asked.append(one.method)
        return Answer(raw=b"") if len(asked) > 1 else Answer(b"{}")

    async with OtherSide(answer) as side:
        wire = Wire(URL(side.url), headers={}, timeouts=Timeouts(), concurrency=1, resends=False)
        ask = Ask("PUT", URL(side.url) / "a", "PUT a", 100, "x", b"{}", single=True)
        assert (await wire.call(ask)).status == 200
        with pytest.raises(Unknown):
            await wire.call(ask)
        await wire.close()
    assert asked == ["PUT", "PUT"]


async def test_a_refused_connection_has_surely_not_left() -> None:
    wire = Wire(URL("http://127.0.0.1:9"), headers={}, timeouts=Timeouts(), concurrency=1, resends=False)
    with pytest.raises(Transient) as caught:
        await wire.call(Ask("POST", URL("http://127.0.0.1:9/a"), "POST a", 100, "x", b"{}", single=True))
    assert caught.value.fault == "unreachable"
    await wire.close()


async def test_a_streamed_body_arrives_whole_with_its_length() -> None:
    came: list[Asked] = []

    def answer(one: Asked) -> Answer:
        came.append(one)
        return Answer(b"{}")

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    async with OtherSide(answer) as side:
        wire = Wire(URL(side.url), headers={}, timeouts=Timeouts(), concurrency=1)
        ask = Ask("POST", URL(side.url), "POST", 100, "x", stream=stream, length=10_000, content_type="text/plain")
        await wire.call(ask)
        await wire.close()
    assert len(came[0].body) == 10_000
    assert came[0].headers["content-length"] == "10000"
    assert came[0].headers["content-type"] == "text/plain"
