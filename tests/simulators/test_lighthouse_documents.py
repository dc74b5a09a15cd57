"""Lighthouse Benefits Documents over real sockets: statuses, what is not found, the limit, faults, and the acts of a test."""

import json
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators import lighthouse_documents as lighthouse
from counterfoil.simulators import options
from counterfoil.simulators.lighthouse_errors import REFUSALS
from counterfoil.simulators.lighthouse_workflow import FATES, FIRST
from tests.simulators.lighthouse import CONTRACT, DOCUMENT, opened

BULK = ("/uploads/status", "post")
SLOW: dict[str, Any] = {"step": (10.0, 10.0)}
REFERENCE = Path(__file__).parents[2] / "docs/reference/simulator-lighthouse-documents.md"


async def test_a_document_from_upload_to_success() -> None:
    async with opened(**SLOW) as caller:
        request_id = await caller.stored()
        seen = []
        for seconds in (0, 12, 10):
            await caller.forward(seconds)
            told = await caller.status(request_id)
            seen.append((told["status"], [step["status"] for step in told["steps"]]))
            assert (await caller.bulk(request_id)).data["statuses"] == [told]
        assert seen == [
            ("IN_PROGRESS", ["IN_PROGRESS", "NOT_STARTED"]),
            ("IN_PROGRESS", ["SUCCESS", "IN_PROGRESS"]),
            ("SUCCESS", ["SUCCESS", "SUCCESS"]),
        ]


async def test_times_are_the_simulators_own() -> None:
    async with opened(now=1_800_000_000.0, assertion_clock="real", **SLOW) as caller:
        await caller.forward(30)
        request_id = await caller.stored()
        await caller.forward(30)
        time = (await caller.status(request_id))["time"]
        assert 0 <= time["startTime"] - 1_800_000_030_000 < 20_000
        assert time["endTime"] - time["startTime"] == 20_000


async def test_ids_may_be_text_or_numbers_and_come_once() -> None:
    async with opened() as caller:
        first, second = await caller.stored(), await caller.stored(claimId=2)
        answer = await caller.bulk(str(second), first, str(first), second)
        assert [told["requestId"] for told in answer.data["statuses"]] == [second, first]
        assert answer.data["requestIdsNotFound"] == []


async def test_some_unknown_ids_are_named_and_only_unknown_ones_are_a_404() -> None:
    async with opened() as caller:
        request_id = await caller.stored()
        answer = await caller.bulk(request_id, "99", 98)
        assert answer.status == 200
        assert answer.data["requestIdsNotFound"] == [99, 98]
        unknown = await caller.bulk("99", 98)
        assert unknown.status == 404
        assert unknown.details == ["Upload Request Async Status Not Found"]
        assert (await caller.call("GET", "/uploads/99/status")).status == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"data":null}', b'{"data":{}}', b'{"data":{"requestIds":[]}}', b'{"data":{"requestIds":"1"}}',
     b'{"data":{"requestIds":[1,null]}}', b'{"data":{"requestIds":["x"]}}', b'{"data":{"requestIds":[1.5]}}',
     b'{"data":{"requestIds":[true]}}', b'{"data":{"requestIds":[[]]}}', b"[" * 100_000],
)  # fmt: skip
async def test_a_question_that_cannot_be_answered(body: bytes) -> None:
    async with opened() as caller:
        answer = await caller.call("POST", "/uploads/status", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400
        assert answer.details


async def test_an_id_in_the_path_that_is_none() -> None:
    async with opened() as caller:
        assert (await caller.call("GET", "/uploads/x/status")).status == 400


async def test_more_ids_than_the_limit() -> None:
    async with opened(ids_limit=3) as caller:
        first = (await caller.control("/preload", count=4)).json["first"]
        assert (await caller.bulk(*range(first, first + 3))).status == 200
        assert (await caller.bulk(*range(first, first + 4))).status == 400
    assert lighthouse.Options().ids_limit == 1000


async def test_the_internal_step_is_shown_when_asked() -> None:
    async with opened() as caller:
        request_id = await caller.stored()
        for query, count in (
            ("", 2),
            ("?includeInternalOnlyStepStatuses=true", 3),
            ("?includeInternalOnlyStepStatuses=false", 2),
        ):
            assert len((await caller.status(request_id, query))["steps"]) == count
            assert len((await caller.bulk(request_id, query=query)).data["statuses"][0]["steps"]) == count


async def test_every_phase_keeps_the_contract() -> None:
    async with opened(**SLOW, revoke_after=(100.0, 100.0)) as caller:
        ids = [await caller.stored(claimId=number) for number in range(1, len(FATES) + 2)]
        for request_id, fate in zip(ids, FATES, strict=False):
            assert (await caller.control("/fate", requestId=request_id, fate=fate)).json["fate"] == fate
        for seconds in (0, 12, 10, 90, 30, 200):
            await caller.forward(seconds)
            for query in ("", "?includeInternalOnlyStepStatuses=true"):
                assert (await caller.bulk(*ids, query=query)).status == 200
        told = [(await caller.status(one))["status"] for one in ids]
        failed, going = "FAILED", "IN_PROGRESS"
        assert told == [
            failed,
            failed,
            going,
            going,
            "SUCCESS",
            failed,
            "SUCCESS",
            "COMPLETED_WITH_WARNINGS",
            "SUCCESS",
        ]
        assert (await caller.control("/statuses")).json == {
            "FAILED": 3,
            "IN_PROGRESS": 2,
            "SUCCESS": 3,
            "COMPLETED_WITH_WARNINGS": 1,
        }


@pytest.mark.parametrize("fate", FATES)
async def test_a_fate_is_a_fault_with_a_rate(fate: str) -> None:
    async with opened(faults=(f"{fate}=1",)) as caller:
        await caller.stored()
        assert caller.sim.uploads.workflow.fates[0] == FATES.index(fate) + 1


async def test_validate_a_claimant() -> None:
    async with opened() as caller:
        asked = {"data": {"docType": "L023", "participantId": "796130115", "claimId": "600"}}
        assert CONTRACT.request(("/documents/validate/claimant", "post"), asked) == []
        answer = await caller.call("POST", "/documents/validate/claimant", json=asked)
        assert answer.data["valid"] is True
        assert await caller.stored(validationToken=answer.data["success"]["validationToken"])
        await caller.control("/faults", unknown_claimant=1)
        refused = await caller.call("POST", "/documents/validate/claimant", json=asked)
        assert (refused.status, refused.data["valid"]) == (200, False)
        asked["data"]["fileNumber"] = "1"
        assert (await caller.call("POST", "/documents/validate/claimant", json=asked)).status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/documents"), ("POST", "/uploads/1/status"), ("GET", "/"), ("DELETE", "/uploads/status")],
)
async def test_what_is_not_there(method: str, path: str) -> None:
    async with opened() as caller:
        answer = await caller.send(
            method, lighthouse.PREFIX + path, headers={"Authorization": f"Bearer {caller.token}"}
        )
        assert (answer.status, set(answer.json)) == (404, {"message"})
        assert (await caller.send("GET", lighthouse.TOKEN_PATH)).status == 404


async def test_the_limit_of_calls() -> None:
    async with opened(limit=(3, 60.0), now=1_800_000_000.0) as caller:
        answers = [await caller.bulk(1) for _ in range(5)]
        assert [answer.status for answer in answers] == [404, 404, 404, 429, 429]
        names = ("RateLimit-Limit", "RateLimit-Remaining", "X-RateLimit-Limit-Minute", "X-RateLimit-Remaining-Minute")
        assert [answers[1].headers[name] for name in names] == ["3", "1", "3", "1"]
        assert 55 <= int(answers[1].headers["RateLimit-Reset"]) <= 60
        assert answers[3].json == {"message": "API rate limit exceeded"}
        assert 55 <= int(answers[3].headers["Retry-After"]) <= 60
        await caller.forward(60)
        assert (await caller.upload()).status == 200


async def test_a_refused_token_counts_against_the_limit_too() -> None:
    async with opened(login=False, limit=(1, 60.0)) as caller:
        assert [(await caller.bulk(1)).status for _ in range(2)] == [401, 429]


async def test_tokens_have_a_limit_of_their_own() -> None:
    async with opened(login=False, token_limit=(2, 60.0)) as caller:
        answers = [await caller.ask_token() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[0].headers["RateLimit-Remaining"] == "1"
        assert answers[2].json == {"message": "API rate limit exceeded"}


async def test_without_a_limit_no_headers_speak_of_one() -> None:
    async with opened() as caller:
        assert "RateLimit-Limit" not in (await caller.bulk(1)).headers


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ("error500", 500, {"errors"}),
        ("error500_verify", 500, {"status", "error"}),
        ("error502", 502, {"errors"}),
        ("error503", 503, {"message"}),
        ("error504_unstored", 504, {"message"}),
        ("error504", 504, {"message"}),
        ("throttle", 429, {"message"}),
        ("expired_token", 401, {"errors"}),
    ],
)
@pytest.mark.parametrize("endpoint", ["upload", "status"])
async def test_a_fault_in_its_shape(endpoint: str, fault: str, status: int, body: set[str]) -> None:
    async with opened(burst_length=1) as caller:
        request_id = await caller.stored(claimId=1)
        await caller.control("/faults", **{fault: f"1@{endpoint}"})
        answer = await (caller.upload() if endpoint == "upload" else caller.bulk(request_id))
        assert (answer.status, set(answer.json)) == (status, body)
        other = await (caller.bulk(request_id) if endpoint == "upload" else caller.upload())
        assert other.status == 200


def test_every_refusal_is_tested_above_or_here() -> None:
    assert set(REFUSALS) == {
        "throttle",
        "error500",
        "error500_verify",
        "error502",
        "error503",
        "error504_unstored",
        "html500",
    }
    assert set(REFUSALS) <= set(lighthouse.KNOWN)


async def test_the_payload_that_could_not_be_verified() -> None:
    async with opened(faults=("error500_verify=1@upload",), max_in_a_row=1) as caller:
        assert (await caller.upload()).json == {"status": 500, "error": "Failed to verify payload."}
        assert (await caller.upload()).status == 200


async def test_a_page_instead_of_an_error() -> None:
    async with opened(faults=("html500=1@status",)) as caller:
        headers = {"Authorization": f"Bearer {caller.token}"}
        answer = await caller.send("GET", lighthouse.PREFIX + "/uploads/1/status", headers=headers)
        assert (answer.status, answer.headers["Content-Type"][:9]) == (500, "text/html")


@pytest.mark.parametrize("fault", ["disconnect", "truncated", "timeout", "lost_reply"])
async def test_a_connection_can_end(fault: str) -> None:
    async with opened(hang=0.05) as caller:
        request_id = await caller.stored()
        await caller.control("/faults", **{fault: "1@status"})
        with pytest.raises(aiohttp.ClientError):
            await caller.bulk(request_id)


@pytest.mark.parametrize("fault", ["error500", "error504_unstored", "invalid_json", "throttle", "html500"])
async def test_faults_of_the_token_endpoint(fault: str) -> None:
    async with opened(login=False, faults=(f"{fault}=1@token",), max_in_a_row=1) as caller:
        struck = await caller.ask_token()
        if fault == "invalid_json":
            with pytest.raises(json.JSONDecodeError):
                assert struck.json
        else:
            assert struck.status >= 400
        assert (await caller.ask_token()).status == 200


async def test_a_spell_of_expired_tokens_leaves_the_token_endpoint_alone() -> None:
    async with opened(burst_length=3, max_in_a_row=0) as caller:
        request_id = await caller.stored()
        await caller.control("/faults", expired_token="1@status")
        assert (await caller.bulk(request_id)).status == 401
        await caller.login()


async def test_an_answer_with_a_step_or_a_status_that_nobody_knows() -> None:
    async with opened(max_in_a_row=1) as caller:
        request_id = await caller.stored()
        await caller.control("/faults", unknown_step="1@status")
        steps = (await caller.status(request_id))["steps"]
        assert [step["name"] for step in steps] == [
            "CLAIMS_EVIDENCE",
            "DOCUMENT_CONVERSION",
            "BENEFITS_GATEWAY_SERVICE",
        ]
        assert len((await caller.status(request_id))["steps"]) == 2
        await caller.control("/faults", unknown_step=0, unknown_status="1@status")
        assert (await caller.bulk(request_id)).data["statuses"][0]["status"] == "ON_HOLD"
        assert (await caller.bulk(request_id)).data["statuses"][0]["status"] == "IN_PROGRESS"


async def test_an_answer_without_the_ids_that_were_not_found() -> None:
    async with opened(max_in_a_row=1) as caller:
        request_id = await caller.stored()
        await caller.control("/faults", omit_not_found="1@status")
        assert set((await caller.bulk(request_id, 99)).data) == {"statuses"}
        assert (await caller.bulk(request_id, 99)).data["requestIdsNotFound"] == [99]


async def test_an_id_that_is_there_can_be_missed_once() -> None:
    async with opened() as caller:
        first, second = await caller.stored(), await caller.stored(claimId=2)
        await caller.control("/faults", not_found_once=1)
        assert (await caller.bulk(first)).status == 404
        answer = await caller.bulk(first, second)
        assert answer.data["requestIdsNotFound"] == [second]
        assert [told["requestId"] for told in answer.data["statuses"]] == [first]
        assert (await caller.bulk(first, second)).data["requestIdsNotFound"] == []
        third = await caller.stored(claimId=3)
        assert [(await caller.call("GET", f"/uploads/{third}/status")).status for _ in range(2)] == [404, 200]


async def test_uploads_that_nobody_sent() -> None:
    async with opened() as caller:
        own = await caller.stored()
        assert (await caller.control("/preload", count=5000)).json == {"first": own + 1, "count": 5000}
        answer = await caller.bulk(*range(own, own + 1000))
        assert [told["requestId"] for told in answer.data["statuses"]] == list(range(own, own + 1000))
        assert await caller.stored(claimId=2) == own + 5001
        record = (await caller.control("/record")).json
        assert (record["uploads"]["stored"], record["uploads"]["preloaded"], record["notes"]["statuses"]) == (
            2,
            5000,
            1000,
        )
        assert len(await caller.lines()) == 2
        for count in (0, -1, 10**9):
            assert (await caller.control("/preload", count=count)).status == 400


async def test_a_thousand_statuses_are_right_and_not_only_quick() -> None:
    """Each against the plain way of working it out, at a moment when they are in all phases."""
    async with opened(step=(1.0, 10.0), faults=("fail_evidence=0.1", "revoke=0.2", "strange_step=0.1")) as caller:
        first = (await caller.control("/preload", count=1000)).json["first"]
        await caller.forward(8)
        before = int(caller.sim.side.clock() * 1000)
        told = (await caller.bulk(*range(first, first + 1000))).data["statuses"]
        after = int(caller.sim.side.clock() * 1000)
        flow = caller.sim.uploads.workflow
        for one in told:
            assert one["status"] in (flow.status(one["requestId"], before), flow.status(one["requestId"], after))
        assert {one["status"] for one in told} == {"IN_PROGRESS", "SUCCESS", "FAILED"}


async def test_the_acts_of_a_test_are_known_and_wrong_ones_are_told() -> None:
    async with opened() as caller:
        assert "Known: GET /_sim/record" in (await caller.control("/nonsense")).json["error"]
        assert "No upload 5" in (await caller.control("/fate", requestId=5, fate="")).json["error"]
        assert "is not known here" in (await caller.control("/faults", vanish=1)).json["error"]
        before = caller.sim.side.clock()
        assert 3600 <= (await caller.control("/clock", forward=3600)).json["now"] - before < 3700


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"duplicates": "drop"}, "Known: accept, refuse, flag"),
        ({"assertion_clock": "sundial"}, "Known: real, simulated"),
        ({"step": (3.0, 2.0)}, "--step"),
        ({"public_key": __file__}, "no public key"),
    ],
)
async def test_it_says_why_it_cannot_start(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        async with lighthouse.serve(lighthouse.Options(**given)):
            pass


def test_as_a_process_with_a_key_and_a_fault(tmp_path: Path) -> None:
    key = tmp_path / "client.pem"
    told = ["--private-key-out", str(key), "--step", "1s-10s", "--fault", "fail_gateway=0.02", "--limit", "60/min"]
    command = [sys.executable, "-m", "counterfoil.simulators.lighthouse_documents", *told]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
            assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_the_contract_names_the_calls() -> None:
    named = {path: [call["operationId"] for call in calls.values()] for path, calls in DOCUMENT["paths"].items()}
    assert named == {
        "/documents": ["uploadDocument"],
        "/documents/validate/claimant": ["validateClaimant"],
        "/uploads/status": ["bulkStatus"],
        "/uploads/{requestId}/status": ["status"],
    }
    assert DOCUMENT["servers"] == [{"url": lighthouse.PREFIX}]


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"requestIds": ["12"]}, True),
        ({"requestIds": [12]}, True),
        ({"requestIds": [None]}, False),
        ({"requestIds": []}, False),
    ],
)
def test_the_contract_of_a_question(value: object, fits: bool) -> None:
    assert (CONTRACT.request(BULK, {"data": value}) == []) is fits


def test_the_contract_refuses_seconds_for_milliseconds() -> None:
    status = {"requestId": 1, "time": {"startTime": 1_800_000_000}, "status": "SUCCESS", "steps": []}
    assert CONTRACT.wrong(status, "components", "schemas", "Status") != []
    status["time"] = {"startTime": 1_800_000_000_000, "endTime": None}
    assert CONTRACT.wrong(status, "components", "schemas", "Status") == []


def test_every_setting_and_fault_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    own = {field.name for field in options.flagged(lighthouse.Options)} - {
        field.name for field in fields(options.Common)
    }
    assert sorted(name for name in map(options.flag_name, own) if f"`{name}`" not in text) == []
    assert sorted(name for name in (*lighthouse.PASSING, *lighthouse.LASTING) if f"`{name}`" not in text) == []
    assert FIRST == 41_000_001
