"""The Lambda connector against the Invoke API as AWS documents it, over a real socket; signatures are computed again and compared."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from counterfoil.connectors.aws_lambda import LambdaSource
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
)
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import ConnectorError, Gone, Misconfigured, Refused, Throttled, TooLarge, Transient
from counterfoil.model.ports import Source
from counterfoil.model.run import Window
from counterfoil.testing.other_side import Answer, Asked, OtherSide
from counterfoil.testing.source_suite import SourceSuite, SourceWorld

ARN = "arn:aws:lambda:ap-southeast-2:123456789012:function:occ-test"
KEYS = [f"A{number}" for number in range(6)]
ENVIRONMENT = {
    "AWS_KEY": "AKIDEXAMPLE",
    "AWS_SECRET": "s3cret/with+signs",
    "AWS_TOKEN": "t0ken",
    "ARN": ARN,
    "ID": "77",
}
AUTH = Auth(
    AuthType.SIGV4,
    {
        "access_key": "${AWS_KEY}",
        "secret_key": "${AWS_SECRET}",
        "session_token": "${AWS_TOKEN}",
        "region": "ap-southeast-2",
    },
)
SPEC = SourceSpec(
    "aws_lambda",
    auth=AUTH,
    list=ListCall(
        function="${ARN}",
        payload={
            "functionName": "list",
            "changedDatSince": "{since}",
            "nested": [{"changed_date_since": "{since}", "until": "{until}", "page": 1, "none": None}],
            "clientId": "${ID}",
            "after": "{cursor}",
        },
    ),
    detail=DetailCall(function="${ARN}", payload={"applicationExternalNumber": "{key}"}),
    watermark=Watermark(Granularity.DATE),
    timeouts=Timeouts(first_byte=timedelta(milliseconds=500), total=timedelta(seconds=1)),
)


def source_of(url: str, spec: SourceSpec = SPEC) -> LambdaSource:
    return LambdaSource(
        replace(spec, url=url), environment=ENVIRONMENT, folder=Path(), concurrency=2, clock=SystemClock()
    )


@asynccontextmanager
async def opened(
    answer: Callable[[Asked], Answer] | Answer, spec: SourceSpec = SPEC
) -> AsyncIterator[tuple[OtherSide, LambdaSource]]:
    async with OtherSide(answer if callable(answer) else lambda asked: answer) as side:
        source = source_of(side.url, spec)
        try:
            yield side, source
        finally:
            await source.close()


def payload(value: Any, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), headers={name.replace("_", "-"): text for name, text in headers.items()})


def answered(body: Any, status: int | str = 200) -> Answer:
    return payload({"statusCode": status, "body": json.dumps(body)})


def broke(kind: str, error: str, message: str = "s3cret") -> Answer:
    return payload({"errorType": error, "errorMessage": message}, X_Amz_Function_Error=kind)


def service(status: int, kind: str) -> Answer:
    return Answer(b'{"message": "s3cret"}', status=status, headers={"x-amzn-ErrorType": kind})


async def failing(call: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await call
    assert "s3cret" not in str(caught.value)
    assert "123456789012" not in str(caught.value)
    return caught.value


FAILURES: dict[str, tuple[Answer, type[ConnectorError], str]] = {
    "nothing": (Answer(b""), Transient, "empty"),
    "null": (payload(None), Transient, "empty"),
    "empty body": (payload({"statusCode": 200, "body": ""}), Transient, "empty"),
    "null body": (payload({"statusCode": 200, "body": None}), Transient, "empty"),
    "no body": (payload({"statusCode": 200}), Transient, "empty"),
    "html body": (payload({"statusCode": 200, "body": "<html>"}), Transient, "html"),
    "cut body": (payload({"statusCode": 200, "body": '[{"a": 1'}), Transient, "truncated"),
    "not json": (Answer(b"hello"), Transient, "not_json"),
    "cut payload": (Answer(b'{"statusCode": 200, "bo'), Transient, "truncated"),
    "inner 500": (answered({"error": "s3cret"}, 500), Transient, "http_500"),
    "inner 500 as text": (answered({}, "500"), Transient, "http_500"),
    "error body": (answered({"error": {"code": "s3cret"}}), Transient, "unexpected_body"),
    "inner 400": (answered({}, 400), Refused, "http_400"),
    "inner 401": (answered({}, 401), Transient, "unauthorised"),
    "inner 429": (answered({}, 429), Throttled, "throttled"),
    "timed out": (
        broke("Unhandled", "", "2026-01-01 x Task timed out after 3.00 seconds"),
        Transient,
        "function_timeout",
    ),
    "sandbox": (broke("Unhandled", "Sandbox.Timedout", "x"), Transient, "function_timeout"),
    "exit": (broke("Unhandled", "Runtime.ExitError"), Transient, "function_error"),
    "unhandled": (broke("Unhandled", "KeyError"), Transient, "function_error"),
    "handled": (broke("Handled", "NotAllowed"), Refused, "function_error"),
    "odd error": (Answer(b"s3cret", headers={"X-Amz-Function-Error": "Unhandled"}), Transient, "function_error"),
    "throttled": (service(429, "TooManyRequestsException"), Throttled, "throttled"),
    "no function": (service(404, "ResourceNotFoundException:http://x"), Misconfigured, "misconfigured"),
    "signature": (service(403, "InvalidSignatureException"), Misconfigured, "misconfigured"),
    "client": (service(403, "UnrecognizedClientException"), Misconfigured, "misconfigured"),
    "expired": (service(403, "ExpiredTokenException"), Transient, "unauthorised"),
    "denied": (service(403, "AccessDeniedException"), Refused, "forbidden"),
    "updating": (service(409, "ResourceConflictException"), Transient, "http_409"),
    "service": (service(500, "ServiceException"), Transient, "http_500"),
    "gone": (Answer(raw=b""), Transient, "disconnected"),
    "hang": (Answer(raw=b"", hang=True), Transient, "timeout"),
}


@dataclass
class World:
    side: OtherSide
    failing: str = ""
    keys: list[str] = field(default_factory=lambda: list(KEYS))
    unknown_key: str = "A99"
    hangs: bool = True
    failures: dict[str, tuple[type[ConnectorError], str]] = field(
        default_factory=lambda: {name: (kind, fault) for name, (_, kind, fault) in FAILURES.items()}
    )

    def source(self) -> Source:
        paging = Paging(PagingStyle.CURSOR, next_at="next")
        return source_of(self.side.url, replace(SPEC, list=replace(SPEC.list, items="items", paging=paging)))

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
        if asked.headers.get("x-amz-invocation-type") == "DryRun":
            return Answer(status=204)
        wanted = json.loads(asked.body)
        if "applicationExternalNumber" in wanted:
            key = wanted["applicationExternalNumber"]
            return answered({"id": key}) if key in KEYS else answered({"error": "unknown"}, 404)
        start = int(wanted.get("after", "0"))
        more = start + 2 < len(KEYS)
        shown = [{"id": key} for key in KEYS[start : start + 2]]
        return answered({"items": shown, "next": start + 2 if more else None})


class TestLambda(SourceSuite):
    def world(self) -> AbstractAsyncContextManager[SourceWorld]:
        return self._world()

    @asynccontextmanager
    async def _world(self) -> AsyncIterator[SourceWorld]:
        async with OtherSide(lambda asked: world.answer(asked)) as side:
            world = World(side)
            yield world


async def test_the_call_is_an_invocation_signed_for_lambda() -> None:
    async with opened(answered([])) as (side, source):
        await source.page(Window(since=datetime(2026, 1, 2, tzinfo=UTC)), None)
        asked = side.asked[0]
        assert asked.method == "POST"
        assert asked.target == f"/2015-03-31/functions/{ARN.replace(':', '%3A')}/invocations"
        signed = asked.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        again = AWSRequest(
            "POST",
            f"{side.url}{asked.target}",
            data=asked.body,
            headers={name: asked.headers[name] for name in signed if name != "host"},
        )
        again.context["timestamp"] = asked.headers["x-amz-date"]
        checker = SigV4Auth(Credentials(ENVIRONMENT["AWS_KEY"], ENVIRONMENT["AWS_SECRET"]), "lambda", "ap-southeast-2")
        signature = checker.signature(checker.string_to_sign(again, checker.canonical_request(again)), again)
        assert asked.headers["authorization"].endswith(f"Signature={signature}")
        assert asked.headers["x-amz-security-token"] == "t0ken"


async def test_placeholders_are_filled_wherever_they_stand_and_left_out_without_a_value() -> None:
    async with opened(answered([])) as (side, source):
        await source.page(Window(since=datetime(2026, 1, 2, 5, tzinfo=UTC)), None)
        assert json.loads(side.asked[0].body) == {
            "functionName": "list",
            "changedDatSince": "2026-01-02",
            "nested": [{"changed_date_since": "2026-01-02", "page": 1, "none": None}],
            "clientId": "77",
        }


@pytest.mark.parametrize(
    "answer",
    [
        payload({"statusCode": 200, "body": '[{"id": "\\u00e9"}]'}),
        payload({"statusCode": "200", "body": [{"id": "é"}]}),
        payload([{"id": "é"}]),
    ],
)
async def test_a_body_may_be_text_or_json_or_the_payload_itself(answer: Answer) -> None:
    async with opened(answer) as (_, source):
        page = await source.page(Window(), None)
        assert [json.loads(entry) for entry in page.entries] == [{"id": "é"}]
        assert page.cursor is None


async def test_an_answer_without_status_is_the_record() -> None:
    async with opened(payload({"id": "1"})) as (_, source):
        assert json.loads(await source.record("1")) == {"id": "1"}


async def test_an_answered_404_is_gone_for_a_record_and_refused_for_a_list() -> None:
    async with opened(answered({}, 404)) as (_, source):
        assert isinstance(await failing(source.record("1")), Gone)
        assert (await failing(source.page(Window(), None))).fault == "http_404"


async def test_an_answered_retry_after_is_kept() -> None:
    async with opened(payload({"statusCode": 429, "headers": {"Retry-After": 9}})) as (_, source):
        error = await failing(source.record("1"))
        assert isinstance(error, Throttled)
        assert error.retry_after == 9


async def test_a_throttled_service_says_for_how_long() -> None:
    async with opened(Answer(status=429, headers={"Retry-After": "2"})) as (_, source):
        error = await failing(source.record("1"))
        assert isinstance(error, Throttled)
        assert error.retry_after == 2


@pytest.mark.parametrize(
    ("kind", "variable"), [("InvalidSignatureException", "AWS_SECRET"), ("UnrecognizedClientException", "AWS_KEY")]
)
async def test_wrong_keys_name_the_variable_to_look_at(kind: str, variable: str) -> None:
    async with opened(service(403, kind)) as (_, source):
        assert variable in (await failing(source.record("1"))).remedy


async def test_the_error_type_of_the_function_is_named_only_when_it_is_a_name() -> None:
    async with opened(broke("Unhandled", "OracleError")) as (_, source):
        assert "OracleError" in str(await failing(source.record("1")))
    async with opened(broke("Unhandled", "s3cret is 5")) as (_, source):
        assert "no error type given" in str(await failing(source.record("1")))


async def test_a_record_over_the_limit_is_refused() -> None:
    async with opened(answered({"x": "x" * 5000}), replace(SPEC, limits=Limits(record_bytes=1000))) as (_, source):
        assert isinstance(await failing(source.record("1")), TooLarge)


async def test_a_probe_runs_nothing() -> None:
    async with opened(Answer(status=204)) as (side, source):
        assert "occ-test" in await source.probe()
        assert side.asked[0].headers["x-amz-invocation-type"] == "DryRun"
    async with opened(service(403, "AccessDeniedException")) as (_, source):
        assert (await failing(source.probe())).fault == "forbidden"


async def test_there_is_no_write_back() -> None:
    async with opened(answered([])) as (_, source):
        assert isinstance(await failing(source.write_back("1", {})), Misconfigured)


@pytest.mark.parametrize(
    "change",
    [
        {"auth": Auth()},
        {"auth": Auth(AuthType.SIGV4, {"access_key": "x"})},
        {"list": ListCall()},
        {"list": ListCall(function="f", paging=Paging(PagingStyle.PAGE, param="p"))},
        {"url": "nowhere"},
    ],
)
def test_a_wrong_flow_is_refused_before_the_first_call(change: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as caught:
        LambdaSource(
            replace(SPEC, **change), environment=ENVIRONMENT, folder=Path(), concurrency=1, clock=SystemClock()
        )
    assert caught.value.remedy
