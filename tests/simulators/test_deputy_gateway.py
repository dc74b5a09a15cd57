"""The deputy gateway over real sockets: three kinds of document, who may call, what it refuses before and behind, its own record."""

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from counterfoil.simulators import deputy_gateway

REPORT_UUID = "5f0e1c2d-0000-4000-8000-00000000abcd"
STAND_IN = "99999999-9999-9999-9999-999999999999"
CREATED = {"reports": "report", "supportingdocuments": "supporting", "checklists": "checklist"}


def code(answer: Any) -> str:
    """The code of an error of either shape, in the singular shape with `error:` before it, as a list with `list:`."""
    body = answer.json
    if "error" in body:
        assert body["statusCode"] == answer.status
        return "error:" + body["error"]["code"].removeprefix("OPGDATA-API-")
    many = isinstance(body["errors"], list)
    entry = body["errors"][0] if many else body["errors"]
    return ("list:" if many else "") + entry["code"].removeprefix("OPGDATA-API-")


# What is filed.


async def test_a_report_is_filed(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.report(submission=7)
        assert answer.status == 201
        data = answer.json["data"]
        assert (data["type"], data["attributes"]) == ("reports", {"submission_id": 7, "parent_id": None})
        (filed,) = await gateway.listing("/case/documents")
        assert (filed["uuid"], filed["type"], filed["case"], filed["file"]) == (
            data["id"],
            "Report",
            "12345678",
            "report.pdf",
        )
        assert filed["metadata"]["submission_id"] == 7
        assert "report_id" not in filed["metadata"]
        content = sha256(b"%PDF-1.4\n% dd_doc_7\n%%EOF\n").hexdigest()
        assert filed["sha256"] == content
        assert await gateway.one() == {
            "case": "12345678",
            "kind": "report",
            "submission_id": 7,
            "report_id": None,
            "file": "report.pdf",
            "uuid": data["id"],
            "parentUuid": None,
            "stored": 1,
            "updated": 0,
            "answered": 1,
            "lost": 0,
            "sha256": content,
            "uuids": [data["id"]],
        }


async def test_the_first_supporting_document_of_a_submission_is_the_parent_of_its_others(deputy: Any) -> None:
    async with deputy() as gateway:
        report = (await gateway.report()).json["data"]["id"]
        answers = [await gateway.supporting(name, report=report) for name in ("a.pdf", "b.pdf", "c.pdf")]
        other = await gateway.supporting("d.pdf", submission=8, report=report)
        first = answers[0].json["data"]["id"]
        parents = [answer.json["data"]["attributes"]["parent_id"] for answer in (*answers, other)]
        assert parents == [None, first, first, None]
        filed = {line["file"]: line for line in await gateway.listing("/case/documents")}
        assert {line["metadata"].get("report_id") for line in filed.values() if line["type"] != "Report"} == {report}
        assert filed["c.pdf"]["parentUuid"] == first
        assert {line["file"]: line["parentUuid"] for line in await gateway.listing()}["b.pdf"] == first


async def test_a_checklist_of_the_submission_is_no_parent_and_has_none(deputy: Any) -> None:
    async with deputy() as gateway:
        for name in ("a.pdf", "b.pdf"):
            assert (await gateway.checklist()).json["data"]["attributes"]["parent_id"] is None
            assert (await gateway.supporting(name)).status == 201
        first, second = [line for line in await gateway.listing() if line["kind"] == "supporting"]
        assert (first["parentUuid"], second["parentUuid"]) == (None, first["uuid"])


async def test_a_document_that_has_a_parent_itself_is_none(deputy: Any) -> None:
    async with deputy() as gateway:
        metadata = {"submission_id": 7, "report_id": REPORT_UUID}
        assert (await gateway.file(metadata=metadata, parentUuid=STAND_IN)).status == 201
        assert (await gateway.supporting()).json["data"]["attributes"]["parent_id"] is None


async def test_a_look_up_that_fails_means_no_parent(deputy: Any) -> None:
    async with deputy() as gateway:
        await gateway.supporting("a.pdf")
        await gateway.control("/case/faults", error503="1@find")
        assert (await gateway.supporting("b.pdf")).json["data"]["attributes"]["parent_id"] is None


async def test_a_checklist_goes_inline_and_is_replaced_under_its_uuid(deputy: Any) -> None:
    async with deputy() as gateway:
        first = await gateway.checklist(content=b"one")
        again = await gateway.checklist(first.json["data"]["id"], content=b"two")
        assert (first.status, again.status) == (201, 200)
        assert again.json["data"] == {
            "type": "checklists",
            "id": first.json["data"]["id"],
            "attributes": {"submission_id": 7, "parent_id": None},
        }
        line = await gateway.one()
        assert (line["stored"], line["updated"], line["answered"], line["lost"]) == (1, 1, 2, 0)
        assert line["sha256"] == sha256(b"two").hexdigest()


async def test_a_checklist_without_a_submission_hangs_on_the_stand_in(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.checklist(submission=None, report=STAND_IN)
        assert answer.json["data"]["attributes"]["submission_id"] is None
        line = await gateway.one()
        assert (line["submission_id"], line["report_id"]) == (None, STAND_IN)


# What the function behind refuses, in the singular shape.


async def test_a_checklist_to_replace_that_is_not_there(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.checklist(REPORT_UUID)
        assert (answer.status, code(answer)) == (400, "error:INVALIDREQUEST")
        assert answer.json["error"]["detail"] == "Could not verify URL params in Sirius"


async def test_a_case_that_is_not_there(deputy: Any) -> None:
    async with deputy(cases="12345678") as gateway:
        answer = await gateway.report(case="1234567T")
        assert (answer.status, code(answer)) == (400, "error:INVALIDREQUEST")
        words = 'Validation failed in Sirius - Client referenced by court reference "1234567T" was not found'
        assert answer.json["error"]["detail"] == words
        assert (await gateway.report()).status == 201


async def test_a_share_of_the_cases_is_not_there(deputy: Any) -> None:
    async with deputy(case_faults=("unknown_case",)) as gateway:
        assert (await gateway.report()).status == 400


EMPTY = (
    "Validation failed in Sirius - Payload failed validation - "
    "{'file -> source': {'isEmpty': \"Value is required and can't be empty\"}}"
)


@pytest.mark.parametrize("file", [{}, {"source": ""}, {"s3_reference": "nothing/here"}, {"s3_reference": "../outside.pdf"},
                                  {"s3_reference": ""}, {"s3_reference": "x" * 5000}])  # fmt: skip
async def test_a_file_that_cannot_be_had_is_sent_as_null(deputy: Any, tmp_path: Path, file: dict[str, str]) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "outside.pdf").write_bytes(b"secret")
    async with deputy(file_store=str(tmp_path / "files")) as gateway:
        attributes = {"submission_id": 7}
        data = {
            "type": "supportingdocuments",
            "attributes": attributes,
            "file": {"name": "a.pdf", "mimetype": "a/b", **file},
        }
        path = f"/clients/12345678/reports/{REPORT_UUID}/supportingdocuments"
        answer = await gateway.send("createSupportingDocument", path, {"supporting_document": {"data": data}})
        assert (answer.status, answer.json["error"]["detail"]) == (400, EMPTY)
        assert await gateway.listing() == []


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_a_file_is_read_from_the_store(deputy: Any, tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "report.pdf").write_bytes(b"%PDF the true one")
    async with deputy(file_store=form.format(tmp_path)) as gateway:
        assert (await gateway.report(file={"s3_reference": "in/report.pdf"})).status == 201
        assert (await gateway.one())["sha256"] == sha256(b"%PDF the true one").hexdigest()


async def test_a_source_that_is_no_base64(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.report(file={"source": "?"})
        assert (answer.status, code(answer)) == (400, "error:INVALIDREQUEST")


@pytest.mark.parametrize("fault", ["error500", "error503", "expired_token", "throttle"])
async def test_a_case_system_that_fails(deputy: Any, fault: str) -> None:
    async with deputy(case_faults=(f"{fault}=1@store",)) as gateway:
        answer = await gateway.report()
        assert (answer.status, code(answer)) == (500, "error:SERVERERROR")
        assert answer.json["error"]["detail"] == "Unable to send document to Sirius"


@pytest.mark.parametrize(("fault", "stored"), [("disconnect", 0), ("lost_reply", 1), ("truncated", 1), ("invalid_json", 1), ("empty", 1),
                                               ("html", 1), ("error_body", 1)])  # fmt: skip
async def test_an_answer_of_the_case_system_that_cannot_be_read_crashes_the_function(
    deputy: Any, fault: str, stored: int
) -> None:
    """It is filed, and nobody in between knows; the record does."""
    async with deputy(case_faults=(f"{fault}=1@store",)) as gateway:
        answer = await gateway.report()
        assert (answer.status, answer.headers["Content-Type"]) == (500, "text/html")
        assert b"Internal Server Error" in answer.body
        lines = await gateway.listing()
        assert [(line["stored"], line["lost"]) for line in lines] == [(1, 1)] * stored


# What the gateway refuses, in the plural shape.


@pytest.mark.parametrize(
    ("signing", "expected"),
    [({"access": "OTHER"}, "FORBIDDEN"), ({"secret": "other"}, "INVALID_SIGNATURE"), ({"service": "lambda"}, "INVALID_SIGNATURE"),
     ({"region": "us-east-1"}, "INVALID_SIGNATURE"), ({"sent": b'{"report":{}}'}, "INVALID_SIGNATURE")],
)  # fmt: skip
async def test_a_wrong_signature(deputy: Any, signing: dict[str, Any], expected: str) -> None:
    async with deputy() as gateway:
        answer = await gateway.report(**signing)
        assert (answer.status, code(answer)) == (403, expected)
        assert answer.json["errors"]["meta"]["x-ray"].startswith("Root=1-")


async def test_no_signature(deputy: Any) -> None:
    async with deputy() as gateway:
        for path in ("/v2/clients/12345678/reports", "/v2/nowhere", "/"):
            answer = await gateway.call("POST", path, json={}, headers={})
            assert (answer.status, code(answer)) == (403, "MISSING_AUTHENTICATION_TOKEN")
        answer = await gateway.call("POST", "/v2/nowhere", json={}, headers={"Authorization": "Bearer x"})
        assert (answer.status, code(answer)) == (403, "INVALID_SIGNATURE")


@pytest.mark.parametrize(
    "path",
    ["/clients/1234567t/reports", "/clients/1/reports", "/clients/12345678/reports/x/checklists",
     f"/clients/12345678/reports/{REPORT_UUID}0/checklists"],
)  # fmt: skip
async def test_a_path_that_breaks_the_contract(deputy: Any, path: str) -> None:
    async with deputy() as gateway:
        answer = await gateway.send("createReport", path, {})
        assert (answer.status, code(answer)) == (400, "BAD_REQUEST_PARAMETERS")


@pytest.mark.parametrize(
    "body", [{}, [], None, {"report": {}}, {"supporting_document": {}}, {"report": {"data": {"type": "x"}}}]
)
async def test_a_body_that_breaks_the_contract_is_told_in_a_list(deputy: Any, body: object) -> None:
    async with deputy() as gateway:
        answer = await gateway.send("createReport", "/clients/12345678/reports", body)
        assert (answer.status, code(answer)) == (400, "list:INVALIDREQUEST")


async def test_each_fault_of_a_body_is_an_entry_and_holds_no_value(deputy: Any) -> None:
    async with deputy() as gateway:
        data = {"type": "secret", "attributes": {}, "file": {"name": "secret", "mimetype": "a/b"}}
        body = {"report": {"data": data}}
        answer = await gateway.send("createReport", "/clients/12345678/reports", body)
        assert len(answer.json["errors"]) == 8
        assert b"report.data.file.name" in answer.body
        assert b"secret" not in answer.body


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"report":NaN}', b'"\\ud800"'])
async def test_a_body_that_is_no_json(deputy: Any, raw: bytes) -> None:
    async with deputy() as gateway:
        answer = await gateway.send("createReport", "/clients/12345678/reports", None, raw=raw)
        assert (answer.status, code(answer)) == (400, "list:INVALIDREQUEST")


@pytest.mark.parametrize("kind", ["text/plain", "application/vnd.opg-data.v1+json", "multipart/form-data"])
async def test_a_wrong_media_type(deputy: Any, kind: str) -> None:
    async with deputy() as gateway:
        answer = await gateway.report(headers={"Content-Type": kind})
        assert (answer.status, code(answer)) == (415, "MEDIA")
        assert (await gateway.report(headers={"Content-Type": "application/json; charset=utf-8"})).status == 201


async def test_what_is_not_there(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.send("createReport", "/clients/12345678/reports/", {})
        assert (answer.status, code(answer)) == (404, "NOTFOUND")
        answer = await gateway.send("createReport", "/clients/12345678/reports", {}, method="PUT")
        assert (answer.status, code(answer)) == (405, "error:NOT-ALLOWED")


async def test_a_body_over_the_limit(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.report(raw=b" " * (deputy_gateway.BODY_LIMIT + 1))
        assert (answer.status, code(answer)) == (413, "FILESIZELIMIT")
        answer = await gateway.report(raw=b" " * deputy_gateway.BODY_LIMIT)
        assert (answer.status, code(answer)) == (400, "list:INVALIDREQUEST")
    async with deputy(body_limit=100) as gateway:

        async def chunks() -> Any:
            for _ in range(2):
                yield b" " * 60

        answer = await gateway.call("POST", "/v2/clients/12345678/reports", data=chunks(), headers={})
        assert (answer.status, code(answer)) == (413, "FILESIZELIMIT")


async def test_health_needs_no_signature(deputy: Any) -> None:
    async with deputy() as gateway:
        answer = await gateway.call("GET", "/v2/healthcheck", headers={})
        assert (answer.status, answer.json) == (200, {"status": "OK"})


# The case system: inside, or somewhere else.


async def test_the_case_system_inside_has_its_own_door(deputy: Any) -> None:
    async with deputy() as gateway:
        report = (await gateway.report()).json["data"]["id"]
        supporting = (await gateway.supporting(report=report)).json["data"]["id"]
        assert [one["uuid"] for one in await gateway.find(submission_id="7")] == [report, supporting]
        assert [one["uuid"] for one in await gateway.find(report_id=report)] == [supporting]
        bare = await gateway.call("GET", "/api/public/v1/documents", headers={})
        assert (bare.status, bare.json["title"]) == (401, "Unauthorized")
        record = (await gateway.control("/case/record")).json
        assert record["requests"] == {"store": 2, "find": 3}


async def test_a_case_system_somewhere_else(deputy: Any, case: Any) -> None:
    async with case(cases="12345678") as system, deputy(case_system=system.sim.url) as gateway:
        report = (await gateway.report()).json["data"]["id"]
        first = (await gateway.supporting("a.pdf", report=report)).json["data"]["id"]
        second = (await gateway.supporting("b.pdf", report=report)).json["data"]
        assert second["attributes"]["parent_id"] == first
        checklist = (await gateway.checklist()).json["data"]["id"]
        assert (await gateway.checklist(checklist)).status == 200
        assert (await gateway.checklist(REPORT_UUID)).status == 400
        assert (await gateway.report(case="87654321")).json["error"]["detail"].endswith("was not found")
        assert [one["uuid"] for one in await system.find()] == [report, first, second["id"], checklist]
        lines = {line["file"]: line for line in await gateway.listing()}
        assert (lines["b.pdf"]["parentUuid"], lines["b.pdf"]["stored"], lines["b.pdf"]["answered"]) == (first, 1, 1)
        assert (lines["checklist.pdf"]["stored"], lines["checklist.pdf"]["updated"]) == (1, 1)
        assert {line["sha256"] for line in lines.values()} == {line["sha256"] for line in await system.listing()}
        assert (await gateway.control("/case/record")).status == 404


async def test_a_case_system_that_takes_another_secret_or_is_not_there(deputy: Any, case: Any) -> None:
    async with case(jwt_secret="another-secret-of-more-than-32-bytes") as system:
        async with deputy(case_system=system.sim.url) as gateway:
            assert code(await gateway.report()) == "error:SERVERERROR"
        url = system.sim.url
    async with deputy(case_system=url) as gateway:
        answer = await gateway.report()
        assert (answer.status, answer.headers["Content-Type"]) == (500, "text/html")


# The same document again: the real one takes it, for there is no key to know it by.


async def test_what_is_sent_twice_is_there_twice(deputy: Any) -> None:
    async with deputy() as gateway:
        uuids = [(await gateway.report()).json["data"]["id"] for _ in range(2)]
        line = await gateway.one()
        assert (line["uuids"], line["stored"], line["lost"]) == (uuids, 2, 0)
        record = (await gateway.control("/record")).json
        assert (record["documents"], record["stored"], record["duplicates"]) == (1, 2, 1)


async def test_duplicates_may_be_refused(deputy: Any) -> None:
    async with deputy(duplicates="refuse") as gateway:
        first = (await gateway.report()).json["data"]["id"]
        again = await gateway.report()
        assert (again.status, code(again), again.json["error"]["uuid"]) == (400, "error:DUPLICATE", first)
        assert (await gateway.one())["stored"] == 1


async def test_duplicates_may_be_marked(deputy: Any) -> None:
    async with deputy(duplicates="flag") as gateway:
        first = (await gateway.report()).json["data"]["id"]
        again = await gateway.report()
        assert (again.status, again.json["data"]["id"]) == (201, first)
        assert again.json["data"]["attributes"]["duplicate"] is True
        line = await gateway.one()
        assert (line["stored"], line["answered"], line["lost"]) == (1, 1, 0)


# Settings.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"case_system": "http://127.0.0.1:1", "cases": "1", "case_faults": ("late_store",)}, "--cases, --case-fault cannot go"),
     ({"file_store": "/nowhere/at/all"}, "There is no folder"), ({"file_store": "gopher://x"}, "--file-store"),
     ({"duplicates": "x"}, "Known: accept"), ({"faults": ("vanish",)}, "Known: "), ({"case_faults": ("quota",)}, "Known: "),
     ({"contract": "/nowhere.yaml"}, "--contract"), ({"case_contract": "/nowhere.yaml"}, "no contract")],
)  # fmt: skip
async def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        async with deputy_gateway.serve(deputy_gateway.Options(**wrong)):
            pass


async def test_the_clock_of_both_can_be_moved(deputy: Any) -> None:
    async with deputy(visible_after=60.0) as gateway:
        await gateway.report()
        assert await gateway.find() == []
        await gateway.control("/clock", forward=61)
        assert len(await gateway.find()) == 1
        now = (await gateway.control("/clock", forward=3600)).json["now"]
        assert now == pytest.approx(time.time() + 3661, abs=60)
        assert (await gateway.report()).status == 201  # signatures are made with the real clock, and held to it
        assert (await gateway.ask("GET", params={"caserecnumber": "1"})).status == 401
