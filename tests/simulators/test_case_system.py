"""The case system over real sockets: filing, replacing, finding, who may call, what it refuses, slow and late stores, faults."""

import asyncio
import base64
import time
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators import case_system

OTHER = "00000000-0000-4000-8000-000000000000"


async def test_a_document_is_filed_and_shown(case: Any) -> None:
    async with case() as system:
        answer = await system.file(metadata={"submission_id": 7, "report_id": "r"}, parentUuid=OTHER)
        assert answer.status == 201
        shown = answer.json
        assert shown["filename"][32:] == "_a.pdf"
        assert {**shown, "filename": "", "uuid": ""} == {
            "type": "Report - General",
            "filename": "",
            "mimeType": "application/pdf",
            "metadata": {"submission_id": 7, "report_id": "r"},
            "uuid": "",
            "parentUuid": OTHER,
        }
        assert await system.find() == [shown]
        (line,) = await system.listing()
        assert (line["uuid"], line["filename"], line["file"]) == (shown["uuid"], shown["filename"], "a.pdf")
        assert (line["sha256"], line["size"]) == (sha256(b"content").hexdigest(), 7)
        assert (line["case"], line["parentUuid"], line["stored"], line["versions"]) == ("12345678", OTHER, 1, 1)


async def test_a_document_is_replaced_and_keeps_uuid_and_parent(case: Any) -> None:
    async with case() as system:
        first = (await system.file(parentUuid=OTHER)).json
        body = {
            "type": "Report - General",
            "caseRecNumber": "12345678",
            "metadata": {"submission_id": 8},
            "file": {"name": "b.pdf", "source": base64.b64encode(b"other").decode(), "type": "application/pdf"},
        }
        answer = await system.ask("PUT", f"/{first['uuid']}", body)
        assert answer.status == 200
        assert (answer.json["uuid"], answer.json["parentUuid"]) == (first["uuid"], OTHER)
        assert answer.json["filename"][32:] == "_b.pdf"
        (line,) = await system.listing()
        assert (line["versions"], line["sha256"]) == (2, sha256(b"other").hexdigest())
        assert await system.find(submission_id="7") == []
        assert await system.find(submission_id="8") == [answer.json]
        assert (await system.file()).status == 201  # what the first one was: that content is there once
        assert [line["stored"] for line in await system.listing()] == [1, 1]
        assert (await system.ask("PUT", f"/{OTHER}", body)).status == 404
        assert (await system.ask("PUT", "/nonsense", body)).status == 404


async def test_a_search_filters_by_case_and_metadata_in_the_order_of_filing(case: Any) -> None:
    async with case() as system:
        places = [("1", {"submission_id": 7, "report_id": "r"}), ("1", {"submission_id": 7}), ("1", {"submission_id": 70}),
                  ("2", {"submission_id": 7}), ("1", {"submission_id": None, "x": "7"})]  # fmt: skip
        uuids = [
            (await system.file(caseRecNumber=number, metadata=metadata)).json["uuid"] for number, metadata in places
        ]
        wanted: list[tuple[str, dict[str, str], list[int]]] = [
            ("1", {}, [0, 1, 2, 4]), ("1", {"submission_id": "7"}, [0, 1]), ("1", {"submission_id": "7", "report_id": "r"}, [0]),
            ("1", {"report_id": "r"}, [0]), ("1", {"x": "7"}, [4]), ("2", {}, [3]), ("3", {}, []), ("1", {"submission_id": "null"}, []),
        ]  # fmt: skip
        for number, metadata, expected in wanted:
            found = await system.find(number, **metadata)
            assert [uuids.index(one["uuid"]) for one in found] == expected, (number, metadata)
        assert (await system.ask("GET")).status == 400  # no case number


async def test_the_same_content_is_counted(case: Any) -> None:
    async with case() as system:
        for changes in (
            {},
            {},
            {"metadata": {"submission_id": 8}},
            {"file": {"name": "b.pdf"}},
            {"caseRecNumber": "2"},
            {},
        ):
            assert (await system.file(**changes)).status == 201
        lines = await system.listing()
        assert [line["stored"] for line in lines] == [3, 3, 1, 1, 1, 3]
        assert {line["first"] for line in lines if line["stored"] == 3} == {lines[0]["uuid"]}
        record = (await system.control("/record")).json
        assert (record["documents"], record["contents"], record["duplicates"]) == (6, 4, 2)


async def test_duplicates_may_be_refused_or_marked(case: Any) -> None:
    async with case(duplicates="refuse") as system:
        first = (await system.file()).json["uuid"]
        again = await system.file()
        assert (again.status, again.json["uuid"]) == (400, first)
        assert (await system.file(metadata={"submission_id": 8})).status == 201
    async with case(duplicates="flag") as system:
        first = (await system.file()).json
        again = await system.file()
        assert (again.status, again.json) == (201, {**first, "duplicate": True})
        assert (await system.control("/record")).json["documents"] == 1


@pytest.mark.parametrize(
    ("changes", "errors"),
    [({"file": {"source": None}}, {"file -> source": {"isEmpty": "Value is required and can't be empty"}}),
     ({"file": {"source": ""}}, {"file -> source": {"isEmpty": "Value is required and can't be empty"}}),
     ({"file": {"source": "?"}}, {"file -> source": {"notBase64": "Value is no base64"}}),
     ({"file": {"source": "YQ"}}, {"file -> source": {"notBase64": "Value is no base64"}}),
     ({"file": {"source": "é"}}, {"file -> source": {"notBase64": "Value is no base64"}}),
     ({"caseRecNumber": ""}, {"caseRecNumber": {"isEmpty": "Value is required and can't be empty"}}),
     ({"metadata": []}, {"metadata": {"isEmpty": "Value is required and can't be empty"}})],
)  # fmt: skip
async def test_a_payload_at_fault_is_refused_field_by_field(case: Any, changes: dict[str, Any], errors: Any) -> None:
    async with case() as system:
        answer = await system.file(**changes, held=False)
        assert answer.status == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (answer.json["detail"], answer.json["validation_errors"]) == ("Payload failed validation", errors)
        assert await system.listing() == []


async def test_other_payloads_that_are_none(case: Any) -> None:
    async with case() as system:
        for body in ({}, [], "text", {"type": "Letter"}):
            assert (await system.ask("POST", "", body, held=False)).status == 400
        for raw in (b"{", b"[" * 100_000, b'{"a":NaN}', b"\xff", b""):
            answer = await system.ask("POST", "", held=False, data=raw)
            assert answer.status == 415  # no content type
        assert (await system.ask("GET", "/nowhere/else", held=False)).status == 404
        assert (await system.ask("GET", f"/{OTHER}", held=False)).status == 405


async def test_bodies_that_are_no_json(case: Any) -> None:
    async with case() as system:
        token = case_system.tokens.sign("a@b", case_system.SECRET, time.time())
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        for raw in (b"{", b"[" * 100_000, b'{"a":NaN}', b"\xff", b"", b'"\\ud800"'):
            answer = await system.call("POST", "/api/public/v1/documents", data=raw, headers=headers)
            assert (answer.status, answer.json["detail"]) == (400, "The body is no JSON.")


async def test_a_case_that_is_not_there(case: Any) -> None:
    async with case(cases="12345678,1234567T") as system:
        assert (await system.file(caseRecNumber="1234567T")).status == 201
        answer = await system.file(caseRecNumber="87654321")
        assert answer.status == 400
        assert answer.json["detail"] == 'Client referenced by court reference "87654321" was not found'
        assert answer.json["validation_errors"] == {}


async def test_a_share_of_the_cases_is_not_there_always_the_same(case: Any) -> None:
    async with case(faults=("unknown_case=0.3",)) as system:
        numbers = [f"{number:08d}" for number in range(60)]
        first = [(await system.file(caseRecNumber=number)).status for number in numbers]
        assert 6 <= first.count(400) <= 30
        assert [(await system.file(caseRecNumber=number)).status for number in numbers] == first


@pytest.mark.parametrize(
    ("token", "claims", "said"),
    [("x", {}, "signature"), ("", {"exp": 1}, "expired"), ("", {"session-data": "nobody"}, "session-data"), ("", {"exp": None}, "exp")],
)  # fmt: skip
async def test_who_may_not_call(case: Any, token: str, claims: dict[str, object], said: str) -> None:
    async with case() as system:
        more = {"token": token} if token else {"claims": claims}
        answer = await system.ask("GET", params={"caserecnumber": "1"}, **more)
        assert answer.status == 401
        assert said in answer.json["detail"]
        bare = await system.call("GET", "/api/public/v1/documents", headers={"Authorization": "Basic eDp5"})
        assert (bare.status, bare.json["detail"]) == (401, "A bearer token is required.")


async def test_the_secret_is_a_setting_or_of_the_environment(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASE_SYSTEM_SECRET", "another-secret-of-more-than-32-bytes")
    async with case() as system:
        assert (await system.file()).status == 401
    async with case(jwt_secret=case_system.SECRET) as system:
        assert (await system.file()).status == 201


async def test_a_tokens_life_is_measured_by_its_own_clock(case: Any) -> None:
    async with case() as system:
        assert (await system.file()).status == 201
        await system.control("/clock", forward=3600)
        assert "expired" in (await system.file()).json["detail"]


# Slow and late.


async def waited(system: Any, waiting: int) -> None:
    """Until so many stores wait."""
    async with asyncio.timeout(10):
        while (await system.control("/record")).json["waiting"] < waiting:
            pass


async def released(system: Any, waiting: int) -> None:
    """Let stores go on, once so many wait."""
    await waited(system, waiting)
    assert (await system.call("POST", "/_sim/release")).json == {"released": waiting}


async def test_a_slow_store_is_there_at_once_and_answered_later(case: Any) -> None:
    async with case(faults=("slow_store",), max_in_a_row=1) as system:
        filing = asyncio.ensure_future(system.file())
        async with asyncio.timeout(10):
            while not await system.listing():
                pass
        assert len(await system.find()) == 1
        assert not filing.done()
        await released(system, 1)
        assert (await filing).status == 201


async def test_a_late_store_is_not_found_before_its_time_and_stored_though_the_caller_has_left(case: Any) -> None:
    async with case(faults=("late_store",), max_in_a_row=1) as system:
        call = asyncio.ensure_future(system.ask("POST", "", BODY))
        await waited(system, 1)
        assert await system.find() == []
        call.cancel()
        await released(system, 1)
        assert len(await system.find()) == 1
        record = (await system.control("/record")).json
        assert (record["documents"], record["waiting"]) == (1, 0)


async def test_without_a_release_a_store_takes_its_time(case: Any) -> None:
    async with case(faults=("late_store",), store_takes=0.02, max_in_a_row=1) as system:
        assert (await system.file()).status == 201


async def test_a_search_may_lag_behind(case: Any) -> None:
    async with case(visible_after=60.0, now=1_800_000_000.0) as system:
        claims = {"iat": 1_800_000_000, "exp": 1_800_009_999}
        assert (await system.ask("POST", "", BODY, claims=claims)).status == 201
        query = {"params": {"caserecnumber": "12345678"}, "claims": claims}
        assert (await system.ask("GET", **query)).json == []
        await system.control("/clock", forward=59)
        assert (await system.ask("GET", **query)).json == []
        await system.control("/clock", forward=2)
        assert len((await system.ask("GET", **query)).json) == 1


BODY = {
    "type": "Report",
    "caseRecNumber": "12345678",
    "metadata": {"submission_id": 7},
    "file": {"name": "a.pdf", "source": base64.b64encode(b"content").decode(), "type": "application/pdf"},
}

# Faults.


@pytest.mark.parametrize(
    ("name", "status"), [("throttle", 429), ("error500", 500), ("error503", 503), ("expired_token", 401)]
)
async def test_refusals_come_before_anything_is_done(case: Any, name: str, status: int) -> None:
    async with case(faults=(name,), max_in_a_row=1, burst_length=1) as system:
        assert (await system.file()).status == status
        assert await system.listing() == []
        assert (await system.file()).status == 201
        record = (await system.control("/record")).json
        assert record["faults"] == {name: 1}
        assert record["outcomes"] == {f"{name}:{status}": 1, "none:201": 1}


@pytest.mark.parametrize(("name", "stored"), [("disconnect", 0), ("lost_reply", 1), ("truncated", 1)])
async def test_a_broken_connection_before_and_after(case: Any, name: str, stored: int) -> None:
    async with case(faults=(name,)) as system:
        with pytest.raises(aiohttp.ClientError):
            await system.file()
        assert len(await system.listing()) == stored


async def test_faults_of_one_endpoint(case: Any) -> None:
    async with case(faults=("error500=1@find",), max_in_a_row=0) as system:
        assert (await system.file()).status == 201
        assert (await system.ask("GET", params={"caserecnumber": "1"})).status == 500
        assert (await system.control("/faults", error500=0)).json == {"faults": {}}
        assert (await system.ask("GET", params={"caserecnumber": "1"})).status == 200


async def test_wrong_settings_are_refused() -> None:
    for wrong in ({"duplicates": "x"}, {"faults": ("vanish",)}, {"contract": "/nowhere.yaml"}):
        with pytest.raises(ValueError, match="Known|contract"):
            async with case_system.serve(case_system.Options(**wrong)):
                pass


async def test_controls_say_what_they_do_not_know(case: Any) -> None:
    async with case() as system:
        assert "Known: GET /_sim/record" in (await system.control("/change", count=1)).json["error"]
        assert (await system.call("POST", "/_sim/faults", data=b"[1]")).status == 400
