"""Contracts: what of a call breaks them, in words that hold nothing of the call; and what is wrong with a contract itself."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.connectors.contract import FILE, Contract, FindingKind, Operation, faults, load_contract
from counterfoil.model.errors import InvalidFilesError

REPORTS = r"""
openapi: 3.0.1
info: {title: deputy reports, version: "1"}
servers:
  - url: https://{stage}.example.org/v2
    variables: {stage: {default: dev}}
paths:
  /healthcheck:
    get:
      responses: {"200": {description: ok}}
  /clients/{caseref}/reports:
    parameters:
      - name: caseref
        in: path
        required: true
        schema: {type: string, pattern: "^([0-9]{7}T|[0-9]{8})$"}
    post:
      operationId: sendReport
      requestBody:
        required: true
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Report"}
      responses:
        "201":
          description: stored
          content:
            application/json:
              schema: {$ref: "#/components/schemas/Stored"}
        4XX: {$ref: "#/components/responses/Problem"}
  /clients/{caseref}/reports/{id}/supportingdocuments:
    parameters:
      - {name: caseref, in: path, required: true, schema: {type: string}}
      - {name: id, in: path, required: true, schema: {type: string, format: uuid}}
    post:
      responses: {"201": {description: stored}}
  /clients/latest/reports:
    get:
      operationId: latest
      parameters:
        - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100, exclusiveMaximum: true}}
        - {name: open, in: query, schema: {type: boolean}}
        - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}, maxItems: 3}}
        - {name: kind, in: query, schema: {type: array, items: {enum: [PF, HW]}}}
        - {name: X-Trace, in: header, required: true, schema: {type: string, minLength: 3}}
        - {name: filter, in: query, content: {application/json: {schema: {type: object, required: [a]}}}}
      responses: {default: {description: any}}
components:
  responses:
    Problem:
      description: refused
      content:
        application/json:
          schema:
            type: object
            required: [errors]
            properties:
              errors: {oneOf: [{type: array}, {$ref: "#/components/schemas/Error"}]}
  schemas:
    Error: {type: object, required: [code], properties: {code: {type: string}, title: {type: string, nullable: true}}}
    Stored:
      type: object
      required: [data]
      properties:
        data:
          type: object
          required: [id, secret]
          properties:
            id: {type: string, format: uuid}
            secret: {type: string, writeOnly: true}
            parent: {nullable: true, allOf: [{$ref: "#/components/schemas/Error"}]}
    Report:
      type: object
      required: [report]
      properties:
        report:
          type: object
          required: [data]
          properties:
            data:
              type: object
              required: [type, attributes, file, id]
              additionalProperties: false
              properties:
                id: {type: string, readOnly: true}
                type: {type: string, pattern: "^reports$"}
                attributes:
                  type: object
                  required: [submission_id, year, type]
                  properties:
                    submission_id: {type: integer, nullable: true}
                    year: {type: integer, minimum: 2015, maximum: 2150}
                    type: {type: string, enum: [PF, HW, NDR, COMBINED]}
                    share: {type: number, minimum: 0, exclusiveMinimum: true}
                    date: {type: string, format: date}
                    court_order_uids: {type: array, items: {type: string, pattern: "^[0-9]{8}$"}, maxItems: 2}
                file:
                  type: object
                  required: [name, mimetype]
                  properties:
                    name: {type: string, pattern: '.*\S[.].*\S'}
                    mimetype: {type: string, maxLength: 40}
                    source: {type: string}
"""

UPLOADS = """
openapi: 3.1.0
info: {title: uploads, version: "1"}
servers: [{url: /services/documents/v1}]
paths:
  /documents:
    post:
      operationId: upload
      requestBody:
        required: true
        content:
          multipart/form-data:
            schema:
              type: object
              required: [parameters, file]
              properties:
                file: {type: string, contentMediaType: application/octet-stream}
                pages: {type: integer}
                tags: {type: array, items: {type: string}}
                parameters:
                  type: object
                  required: [data]
                  properties:
                    data:
                      type: object
                      required: [systemName, docType, claimId]
                      properties:
                        docType: {type: string, pattern: "^L[0-9]{3}$"}
                        claimId: {type: integer, minimum: 1}
                        note: {type: [string, "null"], maxLength: 5}
                      oneOf:
                        - required: [fileNumber]
                        - required: [participantId]
      responses:
        "200": {description: ok, content: {application/json: {schema: {type: object, required: [data]}}}}
        default: {description: other}
  /token:
    post:
      operationId: token
      requestBody:
        content:
          application/x-www-form-urlencoded:
            schema: {type: object, required: [grant_type], properties: {grant_type: {const: client_credentials}, size: {type: integer}}}
      responses: {"200": {description: ok}}
"""

GOOD: dict[str, Any] = {
    "report": {
        "data": {
            "type": "reports",
            "attributes": {"submission_id": 7, "year": 2024, "type": "PF", "date": "2024-03-01"},
            "file": {"name": "report.pdf", "mimetype": "application/pdf"},
        }
    }
}
CASE = {"caseref": "12345678"}


def written(folder: Path, text: str, name: str = "contract.yaml") -> Path:
    (folder / "contracts").mkdir(exist_ok=True)
    path = folder / "contracts" / name
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return load_contract(written(tmp_path_factory.mktemp("a"), REPORTS))


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return load_contract(written(tmp_path_factory.mktemp("b"), UPLOADS))


def operation(contract: Contract, name: str) -> Operation:
    found = contract.by_id(name)
    assert found is not None
    return found


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with another value at a dotted path; `...` removes it."""
    made = copy.deepcopy(GOOD)
    *above, last = path.split(".")
    inner = made
    for name in above:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return made


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/clients/12345678/reports", "sendReport"),
        ("post", "/v2/clients/12345678/reports", "sendReport"),
        ("GET", "/clients/latest/reports", "latest"),
        ("GET", "/healthcheck", "GET /healthcheck"),
        ("POST", "/clients/1/reports/2/supportingdocuments", "POST /clients/{caseref}/reports/{id}/supportingdocuments"),
        ("POST", "/clients/latest/reports", "sendReport"),
        ("GET", "/clients/12345678/reports", None),
        ("POST", "/clients/a/b/reports", None),
        ("POST", "/clients//reports", None),
        ("POST", "/v1/clients/1/reports", None),
        ("POST", "/clients/1/reports/", None),
    ],
)  # fmt: skip
def test_the_operation_of_a_path(reports: Contract, method: str, path: str, found: str | None) -> None:
    operation = reports.operation(method, path)
    assert (operation.id if operation else None) == found


def test_the_values_of_a_path(reports: Contract) -> None:
    found = operation(reports, "sendReport")
    assert found.path_values("/v2/clients/a%2Fb%20c/reports") == {"caseref": "a/b c"}
    assert found.path_values("/elsewhere") == {}


def test_the_most_specific_path_wins(tmp_path: Path) -> None:
    paths = ["/{a}/{b}", "/x/{b}", "/x/y", "/{a}/y", "/x/{b}.json"]
    declared = {
        path: {
            "parameters": [
                {"name": n, "in": "path", "required": True, "schema": {}} for n in re.findall(r"{(\w)}", path)
            ],
            "get": {"responses": {"200": {"description": ""}}},
        }
        for path in paths
    }
    contract = load_contract(written(tmp_path, json.dumps({"openapi": "3.1.0", "paths": declared}), "c.json"))
    asked = {"/x/y": "/x/y", "/x/z": "/x/{b}", "/x/z.json": "/x/{b}.json", "/q/y": "/{a}/y", "/q/z": "/{a}/{b}"}
    for path, wanted in asked.items():
        operation = contract.operation("GET", path)
        assert operation is not None and operation.path == wanted


# --- requests -----------------------------------------------------------------------------------------------------


def test_a_request_that_keeps_the_contract(reports: Contract) -> None:
    for body in (GOOD, json.dumps(GOOD).encode()):
        assert reports.check_request(operation(reports, "sendReport"), CASE, {}, {}, body) == ()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("report.data.file.name", ..., "body: report.data.file.name is missing."),
        ("report.data.file.name", "noext", r"body: report.data.file.name does not match .*\S[.].*\S."),
        ("report.data.file.mimetype", "application/pdf" * 9, "body: report.data.file.mimetype is longer than 40 characters."),
        ("report.data.attributes.year", 2014, "body: report.data.attributes.year is less than 2015."),
        ("report.data.attributes.year", 2151, "body: report.data.attributes.year is more than 2150."),
        ("report.data.attributes.year", "2024", "body: report.data.attributes.year is not of type integer."),
        ("report.data.attributes.type", "XX", "body: report.data.attributes.type is none of PF, HW, NDR, COMBINED."),
        ("report.data.attributes.share", 0, "body: report.data.attributes.share is not more than 0."),
        ("report.data.attributes.date", "1.2.2024", "body: report.data.attributes.date is not of the form date."),
        ("report.data.attributes.court_order_uids", ["1"], "body: report.data.attributes.court_order_uids[0] does not match ^[0-9]{8}$."),
        ("report.data.attributes.court_order_uids", ["00000000"] * 3, "body: report.data.attributes.court_order_uids has more than 2 entries."),
        ("report.data.type", "reportsX", "body: report.data.type does not match ^reports$."),
        ("report.data.fille", {}, "body: report.data.fille is not in the contract."),
        ("report.data.12 ana@example", 1, "body: report.data.(odd name) is not in the contract."),
        ("report", [], "body: report is not of type object."),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_said_with_its_place(reports: Contract, path: str, value: Any, says: str) -> None:
    findings = reports.check_request(operation(reports, "sendReport"), CASE, {}, {}, changed(path, value))
    assert [str(finding) for finding in findings] == [says]
    assert findings[0].kind is FindingKind.BODY


def test_nullable_and_read_only_mean_what_openapi_says(reports: Contract) -> None:
    send = operation(reports, "sendReport")
    assert reports.check_request(send, CASE, {}, {}, changed("report.data.attributes.submission_id", None)) == ()
    assert reports.check_request(send, CASE, {}, {}, changed("report.data.attributes.year", None)) != ()
    # `id` is required and read-only: not of what is sent; `secret` is required and write-only: not of what is received.
    stored = {"data": {"id": "4d0bb0ba-4b1a-4b2c-9a30-5f5b8b8e5d11", "parent": None}}
    assert reports.check_reply(send, 201, stored) == ()
    assert {str(f) for f in reports.check_reply(send, 201, {"data": {"parent": {}}})} == {
        "reply: data.parent.code is missing.",
        "reply: data.id is missing.",
    }


@given(st.from_regex(r"[a-z@]{0,5}[0-9]{5,9}[a-zX@.]{0,5}", fullmatch=True))
def test_no_value_of_the_document_is_in_a_finding(secret: str) -> None:
    send = operation(_CONTRACT, "sendReport")
    body = {
        "report": {
            "data": {
                "type": secret,
                secret: secret,
                "attributes": {"submission_id": secret, "year": [secret], "type": secret, "share": secret, "date": secret,
                               "court_order_uids": [secret, secret, secret]},
                "file": {"name": secret, "mimetype": secret * 9},
            }
        }
    }  # fmt: skip
    said = " ".join(map(str, _CONTRACT.check_request(send, {"caseref": secret}, {}, {}, body)))
    assert said.count(" is ") > 4
    assert secret not in said


def _contract() -> Contract:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return load_contract(written(Path(folder), REPORTS))


_CONTRACT = _contract()


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("application/json", None, "body is missing."),
        ("application/json", b"", "body is missing."),
        ("application/json", b'{"report": ', "body cannot be read as application/json."),
        ("application/json", b'{"report": "\xff"}', "body cannot be read as application/json."),
        ("application/json", b'{"report":' * 100_000, "body cannot be read as application/json."),
        ("text/plain", b"x", "body is text/plain; the contract has application/json."),
        ("<script>", b"x", "body is another type; the contract has application/json."),
        ("application/json", {"report": object()}, "body holds something that JSON cannot."),
        ("application/json", {"report": "\ud800"}, "body holds something that JSON cannot."),
    ],
)
def test_bodies_that_are_none(reports: Contract, content_type: str, body: Any, says: str) -> None:
    findings = reports.check_request(operation(reports, "sendReport"), CASE, {}, {"Content-Type": content_type}, body)
    assert [str(finding) for finding in findings] == [says]


def test_a_charset_does_not_make_another_type(reports: Contract) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert reports.check_request(operation(reports, "sendReport"), CASE, {}, headers, json.dumps(GOOD).encode()) == ()


def test_a_body_that_the_contract_does_not_have(reports: Contract) -> None:
    latest = operation(reports, "latest")
    (finding,) = reports.check_request(latest, {}, {}, {"X-Trace": "abc"}, {"a": 1})
    assert str(finding) == "body is sent; the contract has none here."


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, None),
        ({"limit": "7", "open": "true", "ids": "1,2,3", "kind": ["PF", "HW"], "filter": '{"a": 1}'}, None),
        ({"kind": "PF", "ids": ["4"]}, None),
        ({"limit": "100"}, "query: limit is not less than 100."),
        ({"limit": "ten"}, "query: limit is not of type integer."),
        ({"limit": "9" * 5000}, "query: limit is not of type integer."),
        ({"open": "yes"}, "query: open is not of type boolean."),
        ({"ids": "1,x"}, "query: ids [1] is not of type integer."),
        ({"ids": "1,2,3,4"}, "query: ids has more than 3 entries."),
        ({"kind": ["PF", "no"]}, "query: kind [1] is none of PF, HW."),
        ({"filter": "{"}, "query: filter is no JSON."),
        ({"filter": "{}"}, "query: filter a is missing."),
    ],
)
def test_parameters_of_the_query(reports: Contract, query: dict[str, Any], says: str | None) -> None:
    findings = reports.check_request(operation(reports, "latest"), {}, query, {"x-trace": "abc"})
    assert [str(finding) for finding in findings] == ([says] if says else [])
    assert all(finding.kind is FindingKind.PARAMETER for finding in findings)


def test_parameters_of_path_and_header(reports: Contract) -> None:
    send, latest = operation(reports, "sendReport"), operation(reports, "latest")
    (finding,) = reports.check_request(send, {"caseref": "1234567t"}, {}, {}, GOOD)
    assert str(finding) == "path: caseref does not match ^([0-9]{7}T|[0-9]{8})$."
    assert [str(f) for f in reports.check_request(send, {}, {}, {}, GOOD)] == ["path: caseref is missing."]
    assert [str(f) for f in reports.check_request(latest, {}, {}, {})] == ["header: X-Trace is missing."]
    assert [str(f) for f in reports.check_request(latest, {}, {}, {"X-TRACE": "a"})] == [
        "header: X-Trace is shorter than 3 characters."
    ]


# --- forms --------------------------------------------------------------------------------------------------------

MULTIPART = {"Content-Type": "multipart/form-data; boundary=xyz"}
DATA = {"systemName": "x", "docType": "L023", "claimId": 7, "participantId": "1"}


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """`(rest of the disposition, content type, content)` each."""
    made = b"".join(
        f"--xyz\r\nContent-Disposition: form-data; {about}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"
        for about, kind, content in parts
    )
    return made + b"--xyz--\r\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (DATA, []),
        ({**DATA, "note": None}, []),
        ({**DATA, "claimId": 0}, ["body: parameters.data.claimId is less than 1."]),
        ({**DATA, "docType": "X"}, ["body: parameters.data.docType does not match ^L[0-9]{3}$."]),
        ({**DATA, "fileNumber": "2"}, ["body: parameters.data does not fit exactly one of the forms that the contract allows."]),
        ({**DATA, "note": "too long"}, ["body: parameters.data.note is longer than 5 characters."]),
    ],
)  # fmt: skip
def test_json_parts_are_held_to_their_schema(uploads: Contract, data: dict[str, Any], says: list[str]) -> None:
    raw = json.dumps({"data": data}).encode()
    upload = operation(uploads, "upload")
    as_file = form(
        ('name="parameters"; filename="p.json"', "application/json", raw),
        ('name="file"; filename="a.pdf"', "application/pdf", b"%PDF\r\n--xy"),
    )
    as_field = form(('name="parameters"', "text/plain", raw), ('name="file"; filename="a.pdf"', "application/pdf", b""))
    for body in (as_file, as_field, {"parameters": {"data": data}, "file": FILE}):
        assert [str(f) for f in uploads.check_request(upload, {}, {}, MULTIPART, body)] == says


def test_fields_of_a_form_are_read_by_their_type(uploads: Contract) -> None:
    upload = operation(uploads, "upload")
    always = [
        ("name=parameters", "application/json", json.dumps({"data": DATA}).encode()),
        ("name=file; filename=a", "image/png", b"\xff"),
    ]
    good = form(
        *always,
        ("name=pages", "text/plain", b"7"),
        ("name=tags", "text/plain", b"a"),
        ("name=tags", "text/plain", b"b"),
    )
    assert uploads.check_request(upload, {}, {}, MULTIPART, good) == ()
    bad = form(*always, ("name=pages", "text/plain", b"seven"))
    assert [str(f) for f in uploads.check_request(upload, {}, {}, MULTIPART, bad)] == [
        "body: pages is not of type integer."
    ]
    missing = form(always[1])
    assert [str(f) for f in uploads.check_request(upload, {}, {}, MULTIPART, missing)] == [
        "body: parameters is missing."
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"no form", b"--xyz\r\n", form()[:-6], b"--other--", form(("name=parameters", "application/json", b"{"))],
)
def test_what_is_no_form(uploads: Contract, body: bytes) -> None:
    (finding,) = uploads.check_request(operation(uploads, "upload"), {}, {}, MULTIPART, body)
    assert "cannot be read as multipart/form-data" in str(finding) or str(finding) == "body is missing."


def test_an_encoded_form(uploads: Contract) -> None:
    token, headers = operation(uploads, "token"), {"Content-Type": "application/x-www-form-urlencoded"}
    assert uploads.check_request(token, {}, {}, headers, b"grant_type=client_credentials&size=3") == ()
    findings = uploads.check_request(token, {}, {}, headers, b"grant_type=password&size=x")
    assert {str(f) for f in findings} == {
        "body: grant_type is not what the contract fixes it to be.",
        "body: size is not of type integer.",
    }


# --- replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "content_type", "says"),
    [
        (201, b'{"data": {"id": "no uuid"}}', "application/json", []),
        (201, b'{"data": 3}', "", ["reply: data is not of type object."]),
        (201, b"<html>", "text/html", ["reply is text/html; the contract has application/json."]),
        (201, b"", "", ["reply cannot be read as application/json."]),
        (400, {"errors": []}, "", []),
        (404, {"errors": {"code": "X"}}, "", []),
        (404, {"errors": {}}, "", ["reply: errors.code is missing."]),
        (404, {"errors": "no"}, "", ["reply: errors does not fit exactly one of the forms that the contract allows."]),
        (500, b"", "", ["reply has status 500; the contract has 201, 4XX."]),
    ],
)
def test_replies(reports: Contract, status: int, body: Any, content_type: str, says: list[str]) -> None:
    findings = reports.check_reply(operation(reports, "sendReport"), status, body, content_type)
    assert [str(finding) for finding in findings] == says
    assert all(finding.kind is FindingKind.REPLY for finding in findings)


def test_a_reply_without_a_declared_body_may_be_anything(reports: Contract, uploads: Contract) -> None:
    assert reports.check_reply(operation(reports, "latest"), 418, b"\xff", "image/png") == ()
    assert uploads.check_reply(operation(uploads, "upload"), 500, b"<html>", "text/html") == ()


# --- the file itself ----------------------------------------------------------------------------------------------

START = "openapi: 3.0.3\ninfo: {title: x, version: '1'}\npaths:\n  /a:\n    get:\n"
END = "      responses: {'200': {description: ok}}\n"


def with_schema(schema: str) -> str:
    return f"{START}{END}components:\n  schemas:\n    A:\n{schema}"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("a: [", 1, "Not valid YAML"),
        ("a: 1\na: 2\n", 2, "twice"),
        ("swagger: '2.0'\n", 1, "Swagger 2.0"),
        ("openapi: 4.0.0\n", 1, "no OpenAPI 3.0 or 3.1"),
        ("- a\n", 1, "no OpenAPI 3.0 or 3.1"),
        ("openapi: 3.1.0\ninfo: {}\n", 1, "no paths"),
        ("openapi: 3.1.0\ninfo: {}\npaths: {}\n", 3, "no paths"),
        ("openapi: 3.1.0\npaths:\n  a:\n    get:\n" + END, 3, "does not begin with `/`"),
        ("openapi: 3.1.0\npaths:\n  /{a}:\n    get:\n" + END, 4, "`{a}` in its path"),
        ("openapi: 3.1.0\npaths:\n  /{a}: {}\n  /{b}: {}\n", 4, "the same as"),
        (START + "      operationId: x\n" + END + "    put:\n      operationId: x\n" + END, 8, "operationId `x` stands at GET /a"),
        (START, 5, "no `responses`"),
        (START + "      responses: {'200': null}\n", 5, "response 200 of GET /a is empty"),
        (START + "      requestBody: {required: true}\n" + END, 5, "has no `content`"),
        (START + "      parameters: [{name: x, in: body}]\n" + END, 5, "lacks its `name` or `in`"),
        (with_schema("      $ref: '#/components/schemas/B'\n"), 10, "leads nowhere. Did you mean `#/components/schemas/A`?"),
        (with_schema("      $ref: '#/components/schemas/A'\n"), 10, "leads back to itself"),
        (with_schema("      properties:\n        x:\n          $ref: other.yaml#/B\n"), 12, "leads out of this file"),
        (with_schema("      items: {$ref: 'https://example.org/x'}\n"), 10, "leads out of this file"),
        (with_schema("      properties:\n        x:\n          type: strng\n"), 12, "schema is wrong at components/schemas/A/properties/x/type"),
        (with_schema("      properties:\n        x:\n          pattern: '('\n"), 12, "pattern"),
        (with_schema("      required: yes please\n"), 10, "`required`"),
        (with_schema("      minimum: many\n"), 10, "`minimum`"),
        ("openapi: 3.1.0\npaths: " + "{a: " * 150 + "1" + "}" * 150, 1, "nested"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_contract_is_told_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    path = written(tmp_path, text)
    found = faults(path)
    assert found and found[0].file == "contracts/contract.yaml" and found[0].remedy
    assert found[0].line == line
    assert says in f"{found[0].problem} {found[0].remedy}"
    with pytest.raises(InvalidFilesError) as caught:
        load_contract(path)
    assert caught.value.faults == found


def test_all_wrong_references_and_schemas_at_once(tmp_path: Path) -> None:
    text = with_schema("      properties:\n        x: {type: strng}\n    B: {minimum: x}\n    C: {pattern: '['}\n")
    assert [fault.line for fault in faults(written(tmp_path, text))] == [11, 12, 13]


def test_good_contracts_have_no_faults(tmp_path: Path) -> None:
    assert faults(written(tmp_path, REPORTS)) == faults(written(tmp_path, UPLOADS)) == ()


def test_names_that_look_like_references_are_names(tmp_path: Path) -> None:
    text = with_schema(
        "      properties:\n        $ref: {type: string}\n        pattern: {type: string}\n      example: {$ref: x, pattern: '('}\n"
    )
    assert faults(written(tmp_path, text)) == ()


def test_json_is_taken_too(tmp_path: Path) -> None:
    good = {"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": {"200": {"description": ""}}}}}}
    assert load_contract(written(tmp_path, json.dumps(good), "c.json")).operation("GET", "/a")
    for text, says in (
        ('{"a": 1,\n"b" 2}', ":2: Not valid JSON"),
        ('{"a": 1, "a": 2}', "`a` stands twice"),
        ("[" * 100_000, "too deeply"),
    ):
        (fault,) = faults(written(tmp_path, text, "c.json"))
        assert says in str(fault)
    assert "cannot be read" in str(faults(tmp_path / "contracts" / "none.json")[0])


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    for name in ("c.json", "c.yaml"):
        (fault,) = faults(written(tmp_path, '{"a": "' + "x" * 5_000_000 + '"}', name))
        assert "5,000,0" in str(fault)


def test_schemas_that_contain_themselves(tmp_path: Path) -> None:
    text = (
        START.replace("get", "post")
        + "      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/A'}}}}\n"
        + END
    )
    text += "components:\n  schemas:\n    A: {type: object, properties: {a: {$ref: '#/components/schemas/A'}, n: {type: integer}}}\n"
    contract = load_contract(written(tmp_path, text))
    post = contract.operation("POST", "/a")
    assert post is not None
    (finding,) = contract.check_request(post, {}, {}, {}, {"a": {"a": {"n": "x"}}})
    assert str(finding) == "body: a.a.n is not of type integer."


def test_a_pattern_cannot_be_made_to_hang(tmp_path: Path) -> None:
    text = (
        START.replace("get", "post")
        + "      requestBody: {content: {application/json: {schema: {type: string, pattern: '^(a+)+(?=b)$'}}}}\n"
        + END
    )
    contract = load_contract(written(tmp_path, text))
    post = contract.operation("POST", "/a")
    assert post is not None
    assert contract.check_request(post, {}, {}, {}, "a" * 5000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["#/components/schemas/A", "#", "(", "object", "3.1.0"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["openapi", "paths", "/a", "/{b}", "get", "post", "parameters", "name", "in", "schema", "schemas", "components", "A", "$ref",
             "type", "required", "properties", "items", "allOf", "enum", "nullable", "minimum", "exclusiveMinimum", "pattern", "responses",
             "200", "content", "application/json", "requestBody", "servers", "url", "variables", "operationId", "readOnly", "info", "title"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(JSON, JSON, st.sampled_from(["3.0.0", "3.1.0"]))
def test_whatever_the_file_holds_it_is_told_and_nothing_breaks(paths: Any, components: Any, version: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        document = {"openapi": version, "paths": {"/a": {"get": paths, "post": paths}}, "components": components}
        path = written(Path(folder), json.dumps(document), "c.json")
        if faults(path):
            return
        contract = load_contract(path)
        for operation in contract.operations:
            contract.check_request(operation, {}, {}, {}, {"A": 1})
            contract.check_reply(operation, 200, {"A": 1})
