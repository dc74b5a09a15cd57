"""Contracts: operations by path, what is wrong with path, query, body and reply, in words without values; files that are none."""

from pathlib import Path
from typing import Any

import pytest

from counterfoil.simulators import case_system, contract, deputy_gateway
from counterfoil.simulators.contract import Contract, Operation

UUID = "5f0e1c2d-0000-4000-8000-00000000abcd"
GATEWAY_CODES = {
    "INVALIDREQUEST", "FORBIDDEN", "UNAUTHORISED", "NOTFOUND", "FILESIZELIMIT", "MEDIA", "SERVERERROR", "THROTTLED", "QUOTA_EXCEEDED",
    "EXPIRED_TOKEN", "INVALID_SIGNATURE", "MISSING_AUTHENTICATION_TOKEN", "INTEGRATION_FAILURE", "INTEGRATION_TIMEOUT",
    "BAD_REQUEST_PARAMETERS", "WAF_FILTERED", "AUTHORIZER_FAILURE", "AUTHORIZER_CONFIGURATION_ERROR", "API_CONFIGURATION_ERROR",
    "INVALID_API_KEY",
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Contract:
    return contract.load("", deputy_gateway.CONTRACT)


@pytest.fixture(scope="module")
def case() -> Contract:
    return contract.load("", case_system.CONTRACT)


def operation(held: Contract, name: str) -> Operation:
    return held.operations()[name]


def report(**attributes: Any) -> dict[str, Any]:
    right = {
        "submission_id": 7, "reporting_period_from": "2025-04-01", "reporting_period_to": "2026-03-31", "year": 2025,
        "date_submitted": "2026-04-02T09:30:00+01:00", "type": "PF",
    }  # fmt: skip
    file = {"name": "r.pdf", "mimetype": "application/pdf", "s3_reference": "k"}
    kept = {name: value for name, value in {**right, **attributes}.items() if value is not None}
    return {"report": {"data": {"type": "reports", "attributes": kept, "file": file}}}


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [("GET", "/healthcheck", "healthcheck"), ("POST", "/clients/12345678/reports", "createReport"),
     ("POST", f"/clients/1234567T/reports/{UUID}/supportingdocuments", "createSupportingDocument"),
     ("POST", f"/clients/12345678/reports/{UUID}/checklists", "createChecklist"),
     ("PUT", f"/clients/12345678/reports/{UUID}/checklists/{UUID}", "updateChecklist")],
)  # fmt: skip
def test_operations_by_method_and_path(gateway: Contract, method: str, path: str, name: str) -> None:
    found = gateway.find(method, "/v2" + path)
    assert found is not None
    assert found[0] is not None
    assert found[0].name == name
    assert found[0].wrong_path(found[1]) == []
    assert gateway.find("DELETE", "/v2" + path) == (None, found[1])
    assert gateway.find(method, path) is None


@pytest.mark.parametrize(
    "case_number", ["1234567t", "1234567", "123456789", "12345678%0a", "1234567%54%20", "T1234567"]
)
def test_case_numbers_that_are_none(gateway: Contract, case_number: str) -> None:
    found = gateway.find("POST", f"/v2/clients/{case_number}/reports")
    assert found is not None
    assert found[0] is not None
    assert [wrong.place for wrong in found[0].wrong_path(found[1])] == [("caseref",)]


def test_a_parameter_is_decoded_before_it_is_judged(gateway: Contract) -> None:
    found = gateway.find("POST", "/v2/clients/1234567%54/reports")
    assert found is not None
    assert found[1] == {"caseref": "1234567T"}


@pytest.mark.parametrize(
    ("body", "place", "keyword"),
    [({}, "report", "required"), ([], "", "type"), (None, "", "type"), (report(year=2014), "report.data.attributes.year", "minimum"),
     (report(year=2151), "report.data.attributes.year", "maximum"), (report(type="HWX"), "report.data.attributes.type", "enum"),
     (report(submission_id="7"), "report.data.attributes.submission_id", "type"),
     (report(date_submitted=None), "report.data.attributes.date_submitted", "required"),
     (report(reporting_period_to="2026-3-31"), "report.data.attributes.reporting_period_to", "pattern"),
     (report(digideps_report_type="105"), "report.data.attributes.digideps_report_type", "pattern"),
     (report(court_order_uids=[7]), "report.data.attributes.court_order_uids.0", "type")],
)  # fmt: skip
def test_bodies_that_break_it(gateway: Contract, body: object, place: str, keyword: str) -> None:
    wrong = operation(gateway, "createReport").wrong_body(body)
    assert [(".".join(one.place), one.keyword) for one in wrong] == [(place, keyword)]


@pytest.mark.parametrize("kind", ["102", "103-4", "104-5", "102-6", "103-4-5", "104-4-6"])
def test_bodies_that_keep_to_it(gateway: Contract, kind: str) -> None:
    body = report(digideps_report_type=kind, court_order_uids=["12345678"])
    assert operation(gateway, "createReport").wrong_body(body) == []


@pytest.mark.parametrize(
    ("name", "ok"), [("a.pdf", True), ("a b.c.pdf", True), ("pdf", False), (".pdf", False), ("a.", False)]
)
def test_a_file_name_has_an_extension(gateway: Contract, name: str, ok: bool) -> None:
    body = report()
    body["report"]["data"]["file"]["name"] = name
    assert (operation(gateway, "createReport").wrong_body(body) == []) is ok


def test_the_loose_spots_of_the_real_one_are_closed(gateway: Contract) -> None:
    for name in ("createReport", "createSupportingDocument", "createChecklist", "updateChecklist"):
        assert operation(gateway, name).wrong_body({}) != []
    file = {"name": "a.pdf", "mimetype": "a/b"}
    body = {
        "supporting_document": {
            "data": {"type": "supportingdocumentsX", "attributes": {"submission_id": 1}, "file": file}
        }
    }
    assert [one.keyword for one in operation(gateway, "createSupportingDocument").wrong_body(body)] == ["pattern"]


def test_no_message_holds_a_value(gateway: Contract) -> None:
    wrong = operation(gateway, "createReport").wrong_body(report(type="secret", year=-77, submission_id="secret"))
    assert len(wrong) == 3
    assert "secret" not in str(wrong)
    assert "77" not in str(wrong)


@pytest.mark.parametrize("code", sorted(GATEWAY_CODES))
def test_every_code_of_the_gateway_is_declared(gateway: Contract, code: str) -> None:
    error = {"id": "1", "code": f"OPGDATA-API-{code}", "title": "t", "detail": "d", "meta": {"x-ray": "x"}}
    held = operation(gateway, "createReport")
    for body in ({"errors": error}, {"errors": [error]}):
        assert held.wrong_reply(400, "application/json", body) == []
    assert held.wrong_reply(400, "application/json", {"errors": {**error, "code": "OTHER"}}) != []


@pytest.mark.parametrize("code", ["INVALIDREQUEST", "NOTFOUND", "NOT-ALLOWED", "MEDIA", "SERVERERROR", "UNAVAILABLE"])
def test_every_code_of_the_function_is_declared(gateway: Contract, code: str) -> None:
    body = {"error": {"id": "1", "code": f"OPGDATA-API-{code}", "title": "t", "detail": "d"}}
    assert operation(gateway, "updateChecklist").wrong_reply(400, "application/json", body) == []


def test_replies_are_held_to_status_and_media_type(gateway: Contract) -> None:
    held = operation(gateway, "createReport")
    data = {"data": {"type": "reports", "id": UUID, "attributes": {"submission_id": None, "parent_id": None}}}
    assert held.wrong_reply(201, "application/json", data) == []
    assert held.wrong_reply(200, "application/json", data) != []
    assert held.wrong_reply(201, "text/html", "") != []
    assert held.wrong_reply(500, "text/html", "<h1>") == []
    assert held.wrong_reply(502, "text/html", "<h1>") == []  # declared by `default`
    assert held.wrong_reply(418, "text/plain", "") != []


def test_a_query_with_an_object_in_it(case: Contract) -> None:
    held = operation(case, "findDocuments")
    assert (
        held.wrong_query([("caserecnumber", "1"), ("metadata[submission_id]", "7"), ("metadata[report_id]", "x")]) == []
    )
    assert [one.place for one in held.wrong_query([("metadata[submission_id]", "7")])] == [("caserecnumber",)]
    assert [one.place for one in held.wrong_query([("caserecnumber", "1"), ("metadata", "7")])] == [("metadata",)]
    assert contract.deep_objects([("a", "1"), ("a[b]", "2"), ("c[d]", "3"), ("c[e]", "4")]) == {
        "a": "1",
        "c": {"d": "3", "e": "4"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "no OpenAPI contract"), ("- 1", "no OpenAPI contract"), ("servers: [{url: /}]", "no OpenAPI contract"),
     ("servers: [{url: /}]\npaths: {/a: {get: {operationId: a, responses: {'200': {$ref: '#/nowhere'}}}}}", "nowhere"),
     ("servers: [{url: /}]\npaths: {/a: {get: {operationId: a, responses: {'200': {content: {a/b: {schema: {type: 7}}}}}}}}", "type")],
)  # fmt: skip
def test_files_that_are_no_contract_are_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        contract.load(str(tmp_path / "c.yaml"), "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--contract"):
        contract.load(str(tmp_path / "none.yaml"), "")
