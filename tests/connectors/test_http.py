"""The HTTP connector against servers that are right, wrong, slow and malicious, over real sockets."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterfoil.connectors.http import HttpSource, next_link
from counterfoil.flows.flow import (
    Auth,
    AuthType,
    DetailCall,
    Granularity,
    Limits,
    ListCall,
    Paging,
    PagingStyle,
    SourceSpec,
    Timeouts,
    Watermark,
    WriteBack,
)
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import (
    ConnectorError,
    Gone,
    Misconfigured,
    Refused,
    Throttled,
    Transient,
    Unknown,
)
from counterfoil.model.ports import Source
from counterfoil.model.run import Window
from counterfoil.testing.other_side import Answer, Asked, OtherSide
from counterfoil.testing.source_suite import SourceSuite, SourceWorld, pages_of

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
EVERYTHING = Window()
KEYS = [f"C-{number}" for number in range(7)] + ["a/b c?d=é", ".."]
BEARER = Auth(AuthType.BEARER, {"token": "${API_TOKEN}"})
QUICK = Timeouts(
    connect=timedelta(seconds=2), first_byte=timedelta(milliseconds=400), total=timedelta(milliseconds=800)
)
SPEC = SourceSpec(
    "http",
    url="${API}",
    auth=BEARER,
    list=ListCall(path="/data", query={"updated_since": "{since}", "until": "{until}"}, items="data"),
    detail=DetailCall("/data/{key}", record="data"),
    write_back=WriteBack("/data/{key}"),
)


class FixedClock(SystemClock):
    def now(self) -> datetime:
        return NOW


def source_of(side: OtherSide, spec: SourceSpec = SPEC, **environment: str) -> HttpSource:
    return HttpSource(
        spec,
        environment={"API": side.url, "API_TOKEN": "s3cret", **environment},
        folder=Path(),
        concurrency=4,
        clock=FixedClock(),
    )


@asynccontextmanager
async def opened(
    answer: Callable[[Asked], Answer] | Answer, spec: SourceSpec = SPEC
) -> AsyncIterator[tuple[OtherSide, HttpSource]]:
    async with OtherSide(answer if callable(answer) else lambda asked: answer) as side:
        source = source_of(side, spec)
        try:
            yield side, source
        finally:
            await source.close()


def as_json(value: Any, **more: Any) -> Answer:
    return Answer(json.dumps(value).encode(), **more)


def entries(*keys: str) -> list[dict[str, str]]:
    return [{"id": key, "name": f"Name of {key}"} for key in keys]


def paged(paging: Paging) -> SourceSpec:
    return replace(SPEC, list=replace(SPEC.list, paging=paging))


async def failing(call: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await call
    assert "s3cret" not in str(caught.value)
    return caught.value


# --- the suite, once per style of paging --------------------------------------------------------------------------

FAILURES: dict[str, tuple[Answer, type[ConnectorError], str]] = {
    "empty": (Answer(b""), Transient, "empty"),
    "blank": (Answer(b"  \n"), Transient, "empty"),
    "html": (Answer(b"<!doctype html><p>Log in</p>", headers={"Content-Type": "text/html"}), Transient, "html"),
    "html called json": (Answer(b"\n<html>x</html>"), Transient, "html"),
    "not json": (Answer(b"{'data': 1}"), Transient, "not_json"),
    "cut json": (Answer(b'{"data": [{"id": "C-1"}'), Transient, "truncated"),
    "error body": (as_json({"error": "s3cret", "code": 5}), Transient, "unexpected_body"),
    "null": (as_json({"data": None}), Transient, "unexpected_body"),
    "wrong shape": (as_json({"data": 5}), Transient, "unexpected_body"),
    "text": (as_json("nope"), Transient, "unexpected_body"),
    "401": (Answer(b"s3cret", status=401), Transient, "unauthorised"),
    "403": (Answer(b"no", status=403), Refused, "forbidden"),
    "408": (Answer(b"", status=408), Transient, "http_408"),
    "418": (Answer(b"", status=418), Refused, "http_418"),
    "429": (Answer(b"", status=429), Throttled, "throttled"),
    "500": (Answer(b"s3cret" * 100_000, status=500), Transient, "http_500"),
    "503": (Answer(b"", status=503), Transient, "http_503"),
    "cut": (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"), Transient, "truncated"),
    "cut chunks": (Answer(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), Transient, "truncated"),
    "gone": (Answer(raw=b""), Transient, "disconnected"),
    "no http": (Answer(raw=b"SSH-2.0-x\r\n\r\n"), Transient, "bad_http"),
    "gzip that is none": (Answer(b"{}", headers={"Content-Encoding": "gzip"}), Transient, "truncated"),
    "redirect": (Answer(status=302, headers={"Location": "https://login.example/"}), Refused, "redirected"),
    "redirect round": (Answer(status=302, headers={"Location": "/data"}), Refused, "redirected"),
    "redirect nowhere": (Answer(status=302), Refused, "redirected"),
    "hang": (Answer(raw=b"", hang=True), Transient, "timeout"),
    "hang in the body": (
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", hang=True),
        Transient,
        "timeout",
    ),
    "drip": (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", drip=b" "), Transient, "timeout"),
}


@dataclass
class World:
    side: OtherSide
    spec: SourceSpec
    failing: str = ""
    keys: list[str] = field(default_factory=lambda: list(KEYS))
    unknown_key: str = "C-99"
    hangs: bool = True
    failures: dict[str, tuple[type[ConnectorError], str]] = field(
        default_factory=lambda: {
            name: (kind, fault) for name, (_, kind, fault) in FAILURES.items() if fault != "timeout"
        }
    )

    def source(self) -> Source:
        return source_of(self.side, self.spec)

    def key_of(self, entry: bytes) -> str:
        return str(json.loads(entry)["id"])

    def fail(self, name: str) -> None:
        self.failing = name
        self.side.was_asked.clear()

    async def asked(self) -> None:
        await self.side.was_asked.wait()

    async def all_closed(self) -> bool:
        return await self.side.all_closed()

    def answer(self, asked: Asked) -> Answer:
        if self.failing:
            return FAILURES[self.failing][0]
        assert asked.headers["authorization"] == "Bearer s3cret"
        if asked.raw_path == "/data":
            return self.listing(asked)
        key = asked.path.removeprefix("/data/")
        assert "/" not in asked.raw_path.removeprefix("/data/")
        return as_json({"data": {"id": key}}) if key in KEYS else Answer(status=404)

    def listing(self, asked: Asked) -> Answer:
        """Every style at once: the source reads only what it was told to."""
        query = asked.query
        start = int(query.get("offset", query.get("cursor", (int(query.get("page", "1")) - 1) * 2)))
        shown = entries(*KEYS[start : start + 2])
        more = start + 2 < len(KEYS)
        body = {"data": shown, "meta": {"next": str(start + 2) if more else None}, "links": {}}
        if more:
            body["links"] = {"next": f"/data?cursor={start + 2}"}
        link = f'</data?cursor=0>; rel="first", <{self.side.url}/data?cursor={start + 2}>; title="a, b"; rel="x next"'
        return as_json(body, headers={"Link": link} if more else {})


class Paged(SourceSuite):
    paging = Paging()

    def world(self) -> AbstractAsyncContextManager[SourceWorld]:
        return self._world()

    @asynccontextmanager
    async def _world(self) -> AsyncIterator[SourceWorld]:
        async with OtherSide(lambda asked: world.answer(asked)) as side:
            world = World(side, paged(self.paging))
            yield world


class TestByPage(Paged):
    paging = Paging(PagingStyle.PAGE, size=2, size_param="per_page", param="page")


class TestByOffset(Paged):
    paging = Paging(PagingStyle.OFFSET, size=50, size_param="limit", param="offset")  # the server caps the size at 2


class TestByCursor(Paged):
    paging = Paging(PagingStyle.CURSOR, param="cursor", next_at="meta.next")


class TestByLink(Paged):
    paging = Paging(PagingStyle.LINK)


class TestByNextUrl(Paged):
    paging = Paging(PagingStyle.NEXT_URL, next_at="links.next")


@pytest.mark.parametrize("name", [name for name, (_, _, fault) in FAILURES.items() if fault == "timeout"])
async def test_silence_and_dripping_end_with_a_timeout(name: str) -> None:
    async with opened(FAILURES[name][0], replace(SPEC, timeouts=QUICK)) as (side, source):
        assert (await failing(source.page(EVERYTHING, None))).fault == "timeout"
        assert (await failing(source.record("1"))).fault == "timeout"
        assert await side.all_closed()


# --- the list -----------------------------------------------------------------------------------------------------


async def test_the_window_is_sent_in_utc_and_a_parameter_without_value_is_left_out() -> None:
    async with opened(as_json({"data": []})) as (side, source):
        since = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
        assert (await source.page(Window(since=since), None)).cursor is None
        assert side.asked[0].query == {"updated_since": "2026-01-02T03:04:05.000600Z"}


@pytest.mark.parametrize(
    ("until", "day"),
    [(datetime(2026, 1, 2, 11, tzinfo=UTC), "2026-01-03"), (datetime(2026, 1, 2, 11, 1, tzinfo=UTC), "2026-01-04")],
)
async def test_dates_are_those_of_the_source_and_until_never_cuts_off(until: datetime, day: str) -> None:
    spec = replace(SPEC, watermark=Watermark(Granularity.DATE, timezone="Pacific/Auckland"))  # UTC+13 in January
    async with opened(as_json({"data": []}), spec) as (side, source):
        await source.page(Window(datetime(2026, 1, 1, 11, tzinfo=UTC), until), None)
        assert side.asked[0].query == {"updated_since": "2026-01-02", "until": day}


async def test_entries_that_are_no_records_are_broken_and_the_rest_goes_on() -> None:
    body = (
        b'{"data": [{"id": "1", "price": 1.10}, 5, {"id": "\xff"}, {"id": "'
        + b"x" * 200
        + b'"}, null, {"id": "\xc3\xa9"}]}'
    )
    spec = replace(SPEC, limits=Limits(record_bytes=100))
    async with opened(Answer(body), spec) as (_, source):
        page = await source.page(EVERYTHING, None)
        assert page.entries == [b'{"id": "1", "price": 1.10}', '{"id": "é"}'.encode()]
        assert [broken.where for broken in page.broken] == [f"page 1, entry {number}" for number in (2, 3, 4, 5)]


async def test_one_nan_or_half_surrogate_does_not_take_the_page_with_it() -> None:
    body = (
        b'\xef\xbb\xbf{"data": [{"id": "1", "price": 1.10}, {"id": NaN}, {"id": "\\ud800"}, {"id": "4"}], "next": "c"}'
    )
    async with opened(Answer(body), paged(Paging(PagingStyle.CURSOR, param="c", next_at="next"))) as (_, source):
        page = await source.page(EVERYTHING, None)
        assert [json.loads(entry)["id"] for entry in page.entries] == ["1", "4"]
        assert b"1.10" in page.entries[0]
        assert [broken.where for broken in page.broken] == ["page 1, entry 2", "page 1, entry 3"]
        assert page.cursor is not None


async def test_a_body_that_is_the_list_itself() -> None:
    async with opened(as_json(entries("1")), replace(SPEC, list=ListCall(path="/data"))) as (_, source):
        assert len((await source.page(EVERYTHING, None)).entries) == 1


async def test_no_content_is_an_empty_page() -> None:
    async with opened(Answer(status=204)) as (_, source):
        assert (await source.page(EVERYTHING, None)).entries == ()


async def test_a_reply_with_an_error_in_it_names_its_keys_and_not_its_values() -> None:
    async with opened(as_json({"error": "s3cret", "x\n": 1})) as (_, source):
        problem = str(await failing(source.page(EVERYTHING, None)))
        assert "`error`" in problem
        assert "there is no `data`" in problem


@pytest.mark.parametrize("status", [400, 404])
async def test_a_refusal_behind_a_short_page_is_the_end(status: int) -> None:
    def answer(asked: Asked) -> Answer:
        return as_json({"data": entries("1")}) if asked.query["page"] == "1" else Answer(status=status)

    short = Paging(PagingStyle.PAGE, size=2, param="page")
    async with opened(answer, paged(short)) as (_, source):
        assert len(await pages_of(source, EVERYTHING)) == 2
    async with opened(answer, paged(replace(short, size=1))) as (_, source):
        assert (await failing(pages_of(source, EVERYTHING))).fault == f"http_{status}"


# --- a list that never ends ---------------------------------------------------------------------------------------


async def test_a_server_that_ignores_its_page_parameter_is_found_out() -> None:
    async with opened(as_json({"data": entries("1", "2")}), paged(Paging(PagingStyle.PAGE, 2, param="p"))) as (
        side,
        source,
    ):
        error = await failing(pages_of(source, EVERYTHING))
        assert isinstance(error, Refused)
        assert error.fault == "endless_list"
        assert len(side.asked) == 2


@pytest.mark.parametrize("style", [PagingStyle.NEXT_URL, PagingStyle.LINK])
@pytest.mark.parametrize("target", ["https://evil.example/data", "//evil.example/x", "ftp://x/", "http://[bad"])
async def test_credentials_never_follow_a_page_to_another_origin(style: PagingStyle, target: str) -> None:
    answer = as_json({"data": entries("1"), "next": target}, headers={"Link": f"<{target}>; rel=next"})
    async with opened(answer, paged(Paging(style, next_at="next"))) as (_, source):
        assert (await failing(source.page(EVERYTHING, None))).fault == "next_elsewhere"


async def test_a_cursor_from_elsewhere_is_refused() -> None:
    async with opened(as_json({"data": []}), paged(Paging(PagingStyle.PAGE, param="p"))) as (_, source):
        for cursor in ({"offset": {}, "number": "x"}, {"at": "text"}):
            assert (await failing(source.page(EVERYTHING, cursor))).fault == "unknown_cursor"


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ("</2>; rel=next", "/2"),
        ('</1>; rel="prev", </3> ; rel="NEXT"', "/3"),
        ('</a,b;c>; title="x; rel=next"; rel="last"', None),
        ("no link at all", None),
        ('</x>; rel="nextish"', None),
    ],
)
def test_next_link(header: str, target: str | None) -> None:
    assert next_link(header) == target


# --- one record ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a/b", "..", ".", "a?b#c", "100%", "ä ö", "+", "{key}", "0counterfoil0key0"])
async def test_any_key_reaches_the_source_as_it_is(key: str) -> None:
    async with opened(as_json({"data": {"id": 1}})) as (side, source):
        assert await source.record(key) == b'{"id": 1}'
        assert side.asked[0].path == f"/data/{key}"
        assert side.asked[0].raw_path.count("/") == 2


async def test_a_key_in_the_query() -> None:
    async with opened(as_json({"id": 1}), replace(SPEC, detail=DetailCall("/one?a=b", {"k": "{key}"}))) as (
        side,
        source,
    ):
        await source.record("x&y=z")
        assert side.asked[0].query == {"a": "b", "k": "x&y=z"}


async def test_an_empty_key_is_refused_before_it_becomes_the_list() -> None:
    async with opened(as_json({"data": {"id": 1}})) as (side, source):
        assert (await failing(source.record(""))).fault == "empty_key"
        assert not side.asked


@pytest.mark.parametrize("status", [404, 410])
async def test_an_unknown_key_is_gone_but_an_unknown_list_is_not(status: int) -> None:
    async with opened(Answer(status=status)) as (_, source):
        assert isinstance(await failing(source.record("x")), Gone)
        assert not isinstance(await failing(source.page(EVERYTHING, None)), Gone)


async def test_a_compressed_reply_is_read() -> None:
    packed = gzip.compress(b'{"data": {"id": "1"}}')
    async with opened(Answer(packed, headers={"Content-Encoding": "gzip"})) as (_, source):
        assert await source.record("1") == b'{"id": "1"}'


@pytest.mark.parametrize(
    ("record", "faulty"),
    [
        ({"error": {"code": 5}}, True),
        ({"who": None}, True),
        ({"who": "C-1"}, True),
        ({"who": {"id": None}}, True),
        ({"who": {"id": 0}}, False),
    ],
)
async def test_a_record_without_its_key_is_an_error_report(record: dict[str, Any], faulty: bool) -> None:
    async with opened(as_json(record), replace(SPEC, key="who.id", detail=DetailCall("/{key}"))) as (_, source):
        if faulty:
            assert (await failing(source.record("1"))).fault == "unexpected_body"
        else:
            assert json.loads(await source.record("1")) == record


async def test_a_record_that_is_not_utf8_is_not_passed_on() -> None:
    async with opened(Answer(b'{"data": {"id": "\xff"}}')) as (_, source):
        assert (await failing(source.record("1"))).fault == "not_utf8"


# --- waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("999999", 3600.0),
        ("Sun, 01 Mar 2026 12:30:20 GMT", 20.0),
        ("Sun, 01 Mar 2026 12:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        (None, None),
    ],
)
async def test_retry_after_is_read_in_both_forms_and_bounded(header: str | None, seconds: float | None) -> None:
    async with opened(Answer(status=429, headers={"Retry-After": header} if header else {})) as (_, source):
        error = await failing(source.record("1"))
        assert isinstance(error, Throttled)
        assert error.retry_after == seconds


async def test_unavailable_with_a_time_is_throttled() -> None:
    async with opened(Answer(status=503, headers={"Retry-After": "3"})) as (_, source):
        error = await failing(source.page(EVERYTHING, None))
        assert isinstance(error, Throttled)
        assert error.retry_after == 3


# --- word back ----------------------------------------------------------------------------------------------------


async def test_write_back_sends_json() -> None:
    async with opened(Answer(status=204)) as (side, source):
        await source.write_back("a/b", {"status": "synced"})
        asked = side.asked[0]
        assert (asked.method, asked.raw_path, asked.body) == ("PUT", "/data/a%2Fb", b'{"status":"synced"}')
        assert asked.headers["content-type"] == "application/json"


async def test_a_lost_answer_is_unknown_for_a_post_and_transient_for_a_put() -> None:
    posting = replace(SPEC, write_back=WriteBack("/data/{key}", method="POST"))
    async with opened(Answer(raw=b""), posting) as (_, source):
        assert isinstance(await failing(source.write_back("1", {})), Unknown)
    async with opened(Answer(raw=b"")) as (_, source):
        assert isinstance(await failing(source.write_back("1", {})), Transient)


async def test_a_redirected_write_back_is_not_followed() -> None:
    async with opened(Answer(status=307, headers={"Location": "/data/2"})) as (side, source):
        assert (await failing(source.write_back("1", {}))).fault == "redirected"
        assert len(side.asked) == 1


async def test_write_back_to_a_key_that_vanished_is_gone() -> None:
    async with opened(Answer(status=404)) as (_, source):
        assert isinstance(await failing(source.write_back("1", {})), Gone)


# --- a probe, and what is refused at once ---------------------------------------------------------------------------


async def test_a_probe_reads_only_the_start_of_a_long_list() -> None:
    async with opened(as_json({"data": entries(*map(str, range(50_000)))})) as (side, source):
        assert (await source.probe()).endswith("answered 200.")
        assert side.asked[0].query == {"updated_since": "2026-03-01T12:30:00Z"}


async def test_a_probe_of_a_login_page_fails() -> None:
    async with opened(Answer(b"<html>" + b" " * 100_000, headers={"Content-Type": "text/html"})) as (_, source):
        assert (await failing(source.probe())).fault == "html"


@pytest.mark.parametrize(
    "change",
    [
        {"url": "api.example"},
        {"url": "ftp://api.example"},
        {"url": "https://user:pass@api.example"},
        {"url": "${NOT_SET}"},
        {"auth": Auth(AuthType.BEARER)},
        {"detail": DetailCall("/data/one")},
        {"list": ListCall(items="a..b")},
        {"list": ListCall(paging=Paging(PagingStyle.PAGE))},
        {"list": ListCall(paging=Paging(PagingStyle.CURSOR, param="c", next_at="next"))},
    ],
)
def test_a_wrong_flow_is_refused_before_the_first_call(change: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as caught:
        HttpSource(
            replace(SPEC, **change),
            environment={"API": "http://x", "API_TOKEN": "x"},
            folder=Path(),
            concurrency=1,
            clock=FixedClock(),
        )
    assert caught.value.remedy


async def test_calls_that_were_not_declared_say_what_to_declare() -> None:
    async with opened(as_json({}), replace(SPEC, detail=None, write_back=None)) as (_, source):
        assert not source.has_detail
        assert isinstance(await failing(source.record("1")), Misconfigured)
        assert isinstance(await failing(source.write_back("1", {})), Misconfigured)
