"""Faults of the deputy gateway: what is refused before anything is done, what is done and never told, and a record that adds up."""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators import deputy_gateway, faults
from counterfoil.simulators.gateway_function import SUPPORTING_DOCUMENT, Asked

REFUSING = {
    "throttle": (429, "errors", "THROTTLED"),
    "quota": (429, "errors", "QUOTA_EXCEEDED"),
    "forbidden": (403, "errors", "FORBIDDEN"),
    "expired_token": (403, "errors", "EXPIRED_TOKEN"),
    "error500": (500, "error", "SERVERERROR"),
    "error503": (503, "error", "UNAVAILABLE"),
}
CUT = ("lost_reply", "truncated", "timeout")
SPOILT = {"invalid_json": 201, "empty": 201, "html": 200, "error_body": 200}
ELSEWHERE = ("burst", "error500_html", "disconnect", "timeout_504", "timeout_504_unstored", "slow_body", "latency")


def test_every_fault_has_its_test_here() -> None:
    assert {*REFUSING, *CUT, *SPOILT, *ELSEWHERE} == set(deputy_gateway.KNOWN)
    assert set(faults.GATEWAY_PASSING) <= set(deputy_gateway.KNOWN)


@pytest.mark.parametrize("name", REFUSING)
async def test_refusals_come_before_anything_is_done(deputy: Any, name: str) -> None:
    status, shape, code = REFUSING[name]
    async with deputy(faults=(name,), burst_length=1) as gateway:
        answers = [await gateway.report() for _ in range(3)]
        assert [answer.status for answer in answers] == [status, status, 201]
        assert answers[0].json[shape]["code"] == f"OPGDATA-API-{code}"
        assert (await gateway.one())["stored"] == 1
        record = (await gateway.control("/record")).json
        assert record["faults"] == {name: 2}
        assert record["outcomes"] == {f"{name}:{status}": 2, "none:201": 1}


async def test_a_crashed_function_is_a_page(deputy: Any) -> None:
    async with deputy(faults=("error500_html",), max_in_a_row=1) as gateway:
        answer = await gateway.report()
        assert (answer.status, answer.headers["Content-Type"]) == (500, "text/html")
        assert b"<h1>Internal Server Error</h1>" in answer.body
        assert await gateway.listing() == []


async def test_a_burst_hits_many_documents_in_a_row(deputy: Any) -> None:
    async with deputy(faults=("burst",), burst_length=6) as gateway:
        assert [(await gateway.report(submission=number)).status for number in range(6)] == [503, 500] * 3


@pytest.mark.parametrize("name", CUT)
async def test_an_answer_that_never_comes_although_it_was_filed(deputy: Any, name: str) -> None:
    async with deputy(faults=(name,), max_in_a_row=1, hang=0.02) as gateway:
        with pytest.raises(aiohttp.ClientError):
            await gateway.report()
        line = await gateway.one()
        assert (line["stored"], line["answered"], line["lost"]) == (1, 0, 1)
        assert (await gateway.report()).status == 201
        line = await gateway.one()
        assert (line["stored"], line["answered"], line["lost"]) == (2, 1, 1)
        assert (await gateway.control("/case/record")).json["duplicates"] == 1


@pytest.mark.parametrize("name", SPOILT)
async def test_an_answer_that_is_none_although_it_was_filed(deputy: Any, name: str) -> None:
    async with deputy(faults=(name,), max_in_a_row=1) as gateway:
        answer = await gateway.report(held=False)
        assert answer.status == SPOILT[name]
        line = await gateway.one()
        assert (line["stored"], line["lost"]) == (1, 1)
        assert line["uuid"].encode() not in answer.body or name == "invalid_json"


async def test_a_lost_answer_to_a_replacement_is_counted_too(deputy: Any) -> None:
    async with deputy() as gateway:
        uuid = (await gateway.checklist()).json["data"]["id"]
        await gateway.control("/faults", truncated="1@checklist")
        with pytest.raises(aiohttp.ClientError):
            await gateway.checklist(uuid)
        line = await gateway.one()
        assert (line["stored"], line["updated"], line["answered"], line["lost"]) == (1, 1, 1, 1)


async def test_a_lost_answer_to_a_refusal_loses_no_document(deputy: Any) -> None:
    async with deputy(faults=("lost_reply",), cases="1") as gateway:
        with pytest.raises(aiohttp.ClientError):
            await gateway.report()
        assert await gateway.listing() == []


async def test_a_connection_cut_before_anything_is_done(deputy: Any) -> None:
    async with deputy(faults=("disconnect",)) as gateway:
        with pytest.raises(aiohttp.ClientError):
            await gateway.report()
        assert await gateway.listing() == []


@pytest.mark.parametrize(("name", "stored"), [("timeout_504", 1), ("timeout_504_unstored", 0)])
async def test_a_gateway_that_gives_up(deputy: Any, name: str, stored: int) -> None:
    async with deputy(faults=(name,), gateway_timeout=0.02, max_in_a_row=1) as gateway:
        answer = await gateway.report()
        assert (answer.status, answer.json["errors"]["code"]) == (504, "OPGDATA-API-INTEGRATION_TIMEOUT")
        assert [(line["stored"], line["lost"]) for line in await gateway.listing()] == [(1, 1)] * stored


async def test_a_body_that_drips_is_an_answer_in_the_end(deputy: Any) -> None:
    async with deputy(faults=("slow_body",), drip=0.02) as gateway:
        assert (await gateway.report()).status == 201
        assert (await gateway.one())["answered"] == 1


async def test_latency_takes_its_time_before_anything_is_done(deputy: Any) -> None:
    async with deputy(faults=("latency",), slow=(30.0, 30.0)) as gateway:
        with pytest.raises(TimeoutError):
            await gateway.report(wait=0.1)
        assert await gateway.listing() == []


# Slow behind the gateway: the function goes on, whoever has left.


async def waited(gateway: Any, waiting: int = 1) -> None:
    """Until so many stores of the case system inside wait."""
    async with asyncio.timeout(10):
        while (await gateway.control("/case/record")).json["waiting"] < waiting:
            pass


async def released(gateway: Any, waiting: int = 1) -> None:
    """Let the stores of the case system inside go on, once so many wait."""
    await waited(gateway, waiting)
    assert (await gateway.call("POST", "/_sim/case/release")).json == {"released": waiting}


@pytest.mark.parametrize(("fault", "found"), [("slow_store", 1), ("late_store", 0)])
async def test_a_look_up_after_a_gateway_that_gave_up(deputy: Any, fault: str, found: int) -> None:
    """A slow store is found at once; a late one is not, though it will be there."""
    async with deputy(case_faults=(fault,), gateway_timeout=0.02) as gateway:
        assert (await gateway.report()).status == 504
        assert len(await gateway.find()) == found
        assert (await gateway.control("/record")).json["running"] == 1
        await released(gateway)
        assert len(await gateway.find()) == 1
        line = await gateway.one()
        assert (line["stored"], line["answered"], line["lost"]) == (1, 0, 1)
        assert (await gateway.control("/record")).json["running"] == 0


async def test_two_supporting_documents_at_once_both_have_no_parent(deputy: Any) -> None:
    """Both look, and find nothing, before either is filed."""
    async with deputy(case_faults=("late_store",)) as gateway:
        both = asyncio.gather(gateway.supporting("a.pdf"), gateway.supporting("b.pdf"))
        await released(gateway, waiting=2)
        assert [answer.json["data"]["attributes"]["parent_id"] for answer in await both] == [None, None]
        assert (await gateway.supporting("c.pdf")).json["data"]["attributes"]["parent_id"] is not None


async def test_two_functions_at_once_run_side_by_side_even_without_latency() -> None:
    async with deputy_gateway.serve() as sim:
        file = {"name": "a.pdf", "mimetype": "a/b", "s3_reference": "k"}
        asked = Asked(SUPPORTING_DOCUMENT, "12345678", "r", None, {"submission_id": 7}, file)
        await asyncio.gather(sim.function(asked), sim.function(asked))
        assert [json.loads(line)["parentUuid"] for line in sim.case.documents()] == [None, None]


async def test_a_caller_that_leaves_is_never_told(deputy: Any) -> None:
    async with deputy(case_faults=("late_store",)) as gateway:
        call = asyncio.ensure_future(gateway.report())
        await waited(gateway)
        call.cancel()
        await released(gateway)
        assert (await gateway.one())["lost"] == 1


async def test_late_stores_of_a_case_system_somewhere_else(deputy: Any, case: Any) -> None:
    async with case(faults=("late_store",)) as system:
        async with deputy(case_system=system.sim.url, gateway_timeout=0.05) as gateway:
            assert (await gateway.report()).status == 504
            assert await system.find() == []
            async with asyncio.timeout(10):
                while (await system.control("/record")).json["waiting"] < 1:
                    pass
                await system.call("POST", "/_sim/release")
                while (await gateway.control("/record")).json["running"]:
                    pass
            assert len(await system.find()) == 1
            assert (await gateway.one())["lost"] == 1


async def test_a_function_that_is_ended_is_a_failure(deputy: Any) -> None:
    async with deputy(case_faults=("late_store",), function_timeout=0.02) as gateway:
        answer = await gateway.report()
        assert (answer.status, answer.json["errors"]["code"]) == (504, "OPGDATA-API-INTEGRATION_FAILURE")
        await released(gateway)
        assert (await gateway.one())["lost"] == 1


# The record.


async def test_the_record_can_be_laid_beside_what_the_caller_knows(deputy: Any) -> None:
    """Many documents, resent until told: told = answered; filed = told + lost; the case system counts the same."""
    rates = (
        "lost_reply",
        "timeout_504",
        "timeout_504_unstored",
        "disconnect",
        "truncated",
        "empty",
        "throttle",
        "error500",
    )
    told: Counter[str] = Counter()
    async with deputy(faults=tuple(f"{name}=0.06" for name in rates), gateway_timeout=0.01, seed=4) as gateway:

        async def deliver(number: int) -> None:
            for _ in range(20):
                try:
                    answer = await gateway.report(submission=number, held=False)
                    if answer.status == 201:
                        told[answer.json["data"]["id"]] += 1
                        return
                except (aiohttp.ClientError, ValueError):
                    continue

        for start in range(0, 120, 12):
            await asyncio.gather(*(deliver(number) for number in range(start, start + 12)))
        lines = await gateway.listing()
        assert len(lines) == len(told) == 120
        assert all(line["answered"] == 1 and line["lost"] == line["stored"] - 1 for line in lines)
        assert all(line["uuids"][-1] in told for line in lines)
        record = (await gateway.control("/record")).json
        inside = (await gateway.control("/case/record")).json
        assert record["stored"] == inside["documents"] == 120 + record["lost"]
        assert record["duplicates"] == inside["duplicates"] == record["lost"] > 0
        by_fault = Counter[str]()
        for outcome, count in record["outcomes"].items():
            by_fault[outcome.partition(":")[0]] += count
        assert by_fault.pop("none") == 120
        assert dict(by_fault) == record["faults"]
        lossy = ("lost_reply", "timeout_504", "truncated", "empty")
        assert record["lost"] == sum(record["faults"].get(name, 0) for name in lossy)


async def test_the_same_seed_meets_the_same_faults(deputy: Any) -> None:
    seen = []
    for _ in range(2):
        async with deputy(faults=("throttle=0.3", "error503=0.2@report"), seed=5) as gateway:
            seen.append([(await gateway.report(submission=number)).status for number in range(20)])
    assert seen[0] == seen[1]
    assert {201, 429, 503} <= set(seen[0])
