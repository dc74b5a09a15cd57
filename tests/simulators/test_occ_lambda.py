"""The Lambda simulator over real sockets: AWS's API and errors, the loan system's two calls, and each fault."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators import occ_lambda, samples

ATTRIBUTES = {
    "applicationInternalNumber", "applicationName", "clientApplication", "loadedByClientNumber", "owner", "applicationTitle",
    "tradingBranch", "salesChannel", "subPrime", "comparisonRatesSupplied", "paymentMethod", "type", "appStatusDesc",
    "appStatusCode", "currentTaskWith", "lastSavedDateTime",
}  # fmt: skip


async def test_the_list_and_each_detail_have_the_types_of_the_seed(occ: Any) -> None:
    async with occ() as side:
        answer = await side.listed()
        assert answer.json["statusCode"] == 200
        assert isinstance(answer.json["body"], str)
        assert len(answer.inner) == 60
        first = answer.inner[0]
        assert set(first) == {"type", "id", "attributes", "links"}
        assert set(first["attributes"]) == {"lastSavedDateTime"}
        one = (await side.medium(first["id"])).inner
        assert (one["type"], one["id"]) == ("applications", first["id"])
        assert set(one["attributes"]) == ATTRIBUTES
        assert set(one["relationships"]) == {"originator", "associatedClients"}
        assert one["attributes"]["lastSavedDateTime"] == first["attributes"]["lastSavedDateTime"]
        assert answer.headers["X-Amz-Executed-Version"] == "$LATEST"


@pytest.mark.parametrize(
    ("event", "ok"),
    [({"changedDatSince": "2000-01-01", "clientId": "1"}, True), ({"changed_date_since": "2000-01-01", "client_id": "1"}, True),
     ({"changedDateSince": "2000-01-01", "clientId": "1"}, False), ({"changedDatSince": "2000-01-01"}, False),
     ({"changedDatSince": "01/02/2026", "clientId": "1"}, False)],
)  # fmt: skip
async def test_both_spellings_of_the_list(occ: Any, event: dict[str, str], ok: bool) -> None:
    async with occ() as side:
        answer = await side.invoke({"functionName": "applications-by-date", **event})
        assert answer.status == 200
        assert answer.json["statusCode"] == (200 if ok else 400)
        if ok:
            assert side.sim.record.notes == {next(iter(event)): 1}


@pytest.mark.parametrize(
    "event",
    [{"applicationExternalNumber": "G3100007", "clientId": "1"},
     {"application_external_number": "G3100007", "staff_client_number": "1"},
     {"application_external_number": "G3100007", "client_id": "1"}],
)  # fmt: skip
async def test_the_spellings_of_the_detail(occ: Any, event: dict[str, str]) -> None:
    async with occ() as side:
        assert (await side.invoke({"functionName": "application-medium", **event})).inner["id"] == "G3100007"


async def test_what_the_function_does_not_know(occ: Any) -> None:
    async with occ() as side:
        assert (await side.medium("nobody")).json["statusCode"] == 404
        assert (await side.invoke({"functionName": "application-medium"})).json["statusCode"] == 400
        for event in ({"functionName": "other"}, {}, [1], "text"):
            assert (await side.invoke(event)).json["statusCode"] == 400
        assert (await side.invoke({}, body=b"")).json["statusCode"] == 400


async def test_a_date_means_midnight_in_the_sources_zone(occ: Any) -> None:
    now = datetime(2026, 11, 20, 10, 30, tzinfo=UTC).timestamp()  # 23:30 on the 20th in Auckland
    async with occ(now=now, changed_over=60.0) as side:
        assert len((await side.listed("2026-11-20")).inner) == 60
        assert (await side.listed("2026-11-21")).inner == []
        side.sim.change(3, at=now + 3600)
        changed = (await side.listed("2026-11-21")).inner
        assert [row["attributes"]["lastSavedDateTime"] for row in changed] == ["2026-11-21T00:30:00.000+13:00"] * 3
        assert len((await side.listed("2026-11-20")).inner) == 60


async def test_rows_of_a_file_keep_their_fields_and_gain_the_seeds(occ: Any, tmp_path: Path) -> None:
    row = {
        "id": 7,
        "emp_title": " clerk ",
        "loan_purpose": "car",
        "loan_amount": 5000,
        "loan_status": "Current",
        "rate": None,
    }
    (tmp_path / "loans.jsonl").write_text(json.dumps(row) + "\n")
    async with occ(data=str(tmp_path / "loans.jsonl")) as side:
        found = (await side.medium("7")).inner["attributes"]
        assert found.items() >= row.items()
        assert set(found) == ATTRIBUTES | set(row)
        assert (found["applicationName"], found["applicationTitle"], found["appStatusDesc"]) == (
            "Clerk",
            "car 5000",
            "Current",
        )


# The Invoke API.


@pytest.mark.parametrize("name", ["occ-applications", "occ-applications:live", "123456789012:function:occ-applications",
                                  "arn%3Aaws%3Alambda%3Aap-southeast-2%3A123456789012%3Afunction%3Aocc-applications"])  # fmt: skip
async def test_the_function_by_name_and_by_arn(occ: Any, name: str) -> None:
    async with occ() as side:
        assert (await side.invoke({}, name)).status == 200


@pytest.mark.parametrize(
    ("signing", "kind"),
    [({"secret": "other"}, "InvalidSignatureException"), ({"access": "OTHER"}, "UnrecognizedClientException"),
     ({"region": "us-east-1"}, "InvalidSignatureException"), ({"sent": b'{"a":1}'}, "InvalidSignatureException")],
)  # fmt: skip
async def test_a_wrong_signature_is_403_in_the_shape_of_aws(occ: Any, signing: dict[str, Any], kind: str) -> None:
    async with occ() as side:
        answer = await side.invoke({}, **signing)
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (403, kind)
        assert answer.json["message"]


async def test_no_signature_no_function_no_json_too_large(occ: Any) -> None:
    async with occ() as side:
        path = "/2015-03-31/functions/occ-applications/invocations"
        assert (await side.call("POST", path, headers={})).headers[
            "x-amzn-ErrorType"
        ] == "MissingAuthenticationTokenException"
        assert (await side.call("GET", path)).status == 404
        unknown = await side.invoke({}, "nothing")
        assert (unknown.status, unknown.headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
        assert unknown.json["Message"].endswith(":function:nothing")
        broken = await side.invoke({}, body=b"{")
        assert (broken.status, broken.headers["x-amzn-ErrorType"]) == (400, "InvalidRequestContentException")
        large = await side.invoke({}, body=b'"' + b"x" * 6_291_456 + b'"')
        assert (large.status, large.headers["x-amzn-ErrorType"]) == (413, "RequestTooLargeException")


@pytest.mark.parametrize(("kind", "status"), [("Event", 202), ("DryRun", 204), ("Other", 400)])
async def test_other_invocation_types(occ: Any, kind: str, status: int) -> None:
    async with occ() as side:
        assert (await side.invoke({}, headers={"X-Amz-Invocation-Type": kind})).status == status


async def test_an_answer_over_the_limit_is_a_function_error(occ: Any) -> None:
    async with occ(payload_limit=2000) as side:
        answer = await side.listed()
        assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
        assert answer.json["errorType"] == "Function.ResponseSizeTooLarge"


async def test_reserved_concurrency_throttles_what_is_above_it(occ: Any) -> None:
    async with occ(concurrency=3, latency=(0.1, 0.1)) as side:
        answers = await asyncio.gather(*(side.medium("G3100007") for _ in range(8)))
        assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 5
        assert side.sim.record.max_in_flight["all"] == 3


# Faults.


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [("throttle", 429, "TooManyRequestsException"), ("error500", 500, "ServiceException"),
     ("error503", 503, "ServiceUnavailableException"), ("expired_token", 403, "ExpiredTokenException"),
     ("burst", 503, "ServiceUnavailableException")],
)  # fmt: skip
async def test_faults_of_the_service(occ: Any, name: str, status: int, kind: str) -> None:
    async with occ(faults=(name,), burst_length=1) as side:
        answers = [await side.medium("G3100007") for _ in range(3)]
        assert [answer.status for answer in answers] == [status, status, 200]
        assert answers[0].headers["x-amzn-ErrorType"] == kind
        assert answers[0].json["message"]
        assert ("Retry-After" in answers[0].headers) == (name == "throttle")


@pytest.mark.parametrize(("name", "kind"), [("function_error", "CoreError"), ("task_timeout", "Sandbox.Timedout")])
@pytest.mark.parametrize("header", ["Unhandled", "Handled"])
async def test_function_errors_are_200_with_a_header(occ: Any, name: str, kind: str, header: str) -> None:
    async with occ(faults=(name,), function_error=header) as side:
        answer = await side.medium("G3100007")
        assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, header)
        assert answer.json["errorType"] == kind
        assert answer.json["errorMessage"]
        assert side.sim.record.summary()["served_times"] == 0


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("error_body", 200, '{"error":'), ("status500", 500, '{"message":'), ("html", 200, "<!DOCTYPE html>"),
     ("empty_body", 200, ""), ("invalid_json", 200, '{"type":"app')],
)  # fmt: skip
async def test_faults_inside_the_payload(occ: Any, name: str, status: int, body: str) -> None:
    async with occ(faults=(name,)) as side:
        answer = await side.medium("G3100007")
        assert answer.json["statusCode"] == status
        assert answer.json["body"][: len(body)] == body
        assert bool(answer.json["body"]) == bool(body)
        if name == "invalid_json":
            with pytest.raises(ValueError):
                _ = answer.inner
        assert side.sim.record.summary()["served_times"] == 0


async def test_an_empty_payload_and_a_cut_one(occ: Any) -> None:
    async with occ(faults=("empty",)) as side:
        assert (await side.medium("G3100007")).body == b""
        side.sim.set_faults({"empty": 0, "truncated": 1})
        with pytest.raises(aiohttp.ClientPayloadError):
            await side.listed()
        side.sim.set_faults({"truncated": 0, "timeout": 1})
        with pytest.raises(TimeoutError):
            await side.listed()


async def test_lasting_faults_of_the_list_and_the_detail(occ: Any) -> None:
    async with occ(faults=("duplicates=0.2", "vanish=0.2", "change_during_run=0.2")) as side:
        listed = [row["id"] for row in (await side.listed()).inner]
        assert len(listed) > len(set(listed)) == 60
        codes = {key: (await side.medium(key)).json["statusCode"] for key in listed}
        assert set(codes.values()) == {200, 404}
        assert {key for key, code in codes.items() if code == 200} == set(side.sim.truth())
        assert 4 < sum(version == 2 for version in side.sim.store.versions) < 25


@pytest.mark.parametrize(
    ("name", "bad"),
    [("missing_required", lambda row: "applicationName" not in row),
     ("wrong_type", lambda row: row["applicationTitle"] == {"wrong": "type"}),
     ("huge_record", lambda row: len(row.get("padding", "")) == 1000)],
)  # fmt: skip
async def test_bad_rows(occ: Any, name: str, bad: Any) -> None:
    async with occ(faults=(f"{name}=0.2",), huge_bytes=1000) as side:
        keys = [row["id"] for row in (await side.listed()).inner]
        found = [key for key in keys if bad((await side.medium(key)).inner["attributes"])]
        assert 4 < len(found) < 25


async def test_a_score_out_of_range_where_rows_have_one(occ: Any, tmp_path: Path) -> None:
    (tmp_path / "loans.jsonl").write_text('{"id":1,"rate":5}\n')
    async with occ(data=str(tmp_path / "loans.jsonl"), score_field="rate", faults=("score_out_of_range",)) as side:
        assert (await side.medium("1")).inner["attributes"]["rate"] == 150


async def test_the_record_agrees_with_what_was_fetched(occ: Any) -> None:
    async with occ() as side:
        keys = [row["id"] for row in (await side.listed()).inner]
        for key in [*keys[:20], *keys[:5]]:
            await side.medium(key)
        lines = {
            line["key"]: line for line in map(json.loads, (await side.control("/record/served")).body.splitlines())
        }
        assert {key: line["listed"] for key, line in lines.items()} == dict.fromkeys(keys, 1)
        assert [lines[key]["served"] for key in keys] == [2] * 5 + [1] * 15 + [0] * 40
        assert lines[keys[0]]["version"] == 1
        assert lines[keys[59]]["sha256"] is None
        truth = {
            line["key"]: line["content"] for line in map(json.loads, (await side.control("/records")).body.splitlines())
        }
        assert (await side.medium(keys[0])).inner["attributes"] == truth[keys[0]]


async def test_its_own_applications_are_the_same_each_time() -> None:
    assert list(samples.loan_applications()) == list(samples.loan_applications())


async def test_wrong_settings_are_refused() -> None:
    for wrong in ({"function_error": "x"}, {"runtime": "x"}, {"faults": ("endless_list",)}):
        with pytest.raises(ValueError, match="Known"):
            async with occ_lambda.serve(occ_lambda.Options(**wrong)):
                pass
