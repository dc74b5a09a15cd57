from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from counterfoil.flows.delivery import ErrorShape, FileFrom, RelayFlow
from counterfoil.flows.flow import AuthType
from counterfoil.flows.load import load_flow_text, load_project
from tests.flows.projects import write
from tests.flows.projects_delivery import FILES, RELAY, RELAY_FILE, changed

F = RELAY_FILE


def test_a_sound_relay_has_everything_it_says(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, FILES))
    assert (project.faults, project.notes) == ((), ())
    flow = project.relays["hop"]
    assert (flow.title, flow.file, flow.endpoint.path, flow.endpoint.contract) == ("The middle hop", F, "/v2", "gateway.yaml")  # fmt: skip
    assert (flow.endpoint.auth.type, flow.target.auth.type) == (AuthType.SIGV4, AuthType.JWT)
    assert (flow.endpoint.errors, flow.endpoint.body_bytes) == (ErrorShape.PROBLEM, 10 * 1024**2)
    assert flow.endpoint.deadline == timedelta(seconds=27)
    report, supporting = flow.operations.values()
    assert report.file is not None
    assert (report.file.source, report.file.required, report.find, report.reply) == (FileFrom.OBJECT, False, None, None)
    assert report.reply_status == 200
    assert supporting.find is not None
    assert (supporting.find.alone, supporting.find.function) == ("{path.caseref}/{path.id}", "first_of")
    assert supporting.find.same == "same_document"
    assert supporting.find.call.query["metadata[report_id]"] == "{path.id}"
    assert supporting.call.body == {"parentUuid": "{found?}"}
    assert supporting.reply_status == 201
    assert supporting.reply["data"]["id"] == "{answer.uuid}"
    assert (len(flow.replies), flow.on_failure.due) == (1, timedelta(hours=1))


AUTH = '  auth: {type: sigv4, access_key: "${CALLER_KEY}", secret_key: "${CALLER_SECRET}", region: eu-west-1}\n'
OBJECT = '{from: object, value: "{body.file.s3_reference?}", required: false}'
FIND = "      function: first_of\n      same: same_document\n"
SUPPORTING = RELAY[RELAY.index("  createSupporting:") : RELAY.index("replies:")]
REPORT = RELAY[RELAY.index("  createReport:") : RELAY.index("  createSupporting:")]

# what stands there, what stands there instead, the line at fault (by a text on it), problem, remedy
PLANTED = [
    # endpoint
    (AUTH, "", "endpoint:", "`auth` is missing in endpoint", "an endpoint for everybody is refused"),
    (AUTH, "  auth: {type: none}\n", "  auth:", "Callers can't be verified by auth of type none", "sigv4, jwt or bearer"),
    (AUTH, '  auth: {type: api_key, key: "${K}"}\n', "  auth:", "can't be verified by auth of type api_key", "sigv4"),
    (AUTH, "  auth: {type: bearer, token: s3cr3t}\n", "  auth:", "A secret stands in clear", "environment variable"),
    ("  path: /v2\n", "  path: v2\n", "path: v2", "`path` in endpoint is `v2`", "such as /v2"),
    ("  path: /v2\n", "", "endpoint:", "`path` is missing in endpoint", "/v2"),
    ("contract: gateway.yaml", "contract: gatewy.yaml", "gatewy", "There is no contract `gatewy.yaml`", "Did you mean `gateway.yaml`?"),
    ("  contract: gateway.yaml\n", "", "endpoint:", "`contract` is missing in endpoint", "Add `contract:`"),
    ("errors: problem", "errors: problems", "errors", "`errors` in endpoint is `problems`", "Did you mean `problem`?"),
    ("body_limit: 10MB", "body_limit: 10", "body_limit", "`body_limit` in endpoint is `10`", "64MB"),
    ("deadline: 27s", "deadline: 27", "deadline", "`deadline` in endpoint is `27`", "250ms"),
    # destination
    ("url: ${CASES_URL}", "url: cases", "url: cases", "`url` is no web address", "https://"),
    ('secret: "${JWT_SECRET}"', "secret: s3cr3t", "HS256", "A secret stands in clear", "environment variable"),
    # operations
    ("  createReport:\n", "  create Report:\n", "create Report", "A name in `operations` in flow is `create Report`", "operationId"),
    (REPORT + SUPPORTING, "  {}\n", "operations:", "`operations` in flow is a section, not a section with names", "operationIds"),
    ("    call: {method: POST, path: /documents, body: {parentUuid: \"{found?}\"}}\n", "",
     "createSupporting", "`call` is missing in operation", "Add `call:`"),
    ("{path.caseref}\"\n        metadata", "{path}x\"\n        metadata", "caseRecNumber", "`{path}` is no single value", "Write it alone"),
    ("by: \"{caller}\"", "by: \"{calle}\"", "by:", "Unknown placeholder `{calle}`", "Did you mean `caller`?"),
    ("by: \"{caller}\"", "by: \"{payload.x}\"", "by:", "Unknown placeholder `{payload.x}`", "Known: `path`, `query`, `body`"),
    ("by: \"{caller}\"", "by: \"{found}\"", "by:", "`{found}` is used, but there is no `find` with a `function`", "Add it"),
    ("by: \"{caller}\"", "by: \"{answer.id}\"", "by:", "`{answer.id}` is used, but only `reply` has it", "reply"),
    ("by: \"{caller}\"", "by: {caller}", "by:", "has a brace without quotes", '"{caller}"'),
    ("by: \"{caller}\"", "by: \"${CALLER}\"", "by:", "only read in `destination` and `endpoint`, not in `operations`", "value itself"),
    (f"    file: {OBJECT}\n", "", "file: {source", "`{file.base64}` is used, but there is no `file` here", "Add"),
    (OBJECT, "{from: item}", "file: {from: item}", "A relay can't take a file from item", "from: object"),
    (OBJECT, "{from: object}", "file: {from: object}", "A file from object needs `value`", "storage_key"),
    (OBJECT, '{from: object, value: "{key}"}', 'value: "{key}"', "Unknown placeholder `{key}`", "Known: `path`"),
    # find
    ("function: first_of", "function: first", "function: first", "No function `first` in functions.py", "Did you mean `first_of`?"),
    ("same: same_document", "same: sam_document", "same:", "No function `sam_document` in functions.py", "Did you mean `same_document`?"),
    (FIND, "", "find:", "`find` asks and does nothing with the answer", "Add `function`"),
    ("      function: first_of\n", "", "call: {method: POST, path: /documents, body: {parentUuid", "`{found}` is used", "Add it"),
    ('      alone: "{path.caseref}/{path.id}"\n', "", "find:", "`alone` is missing in find", "one call at a time"),
    ("{path.caseref}/{path.id}", "{pth.caseref}/{path.id}", "alone:", "Unknown placeholder `{pth.caseref}`", "Known: `path`"),
    ("{path.caseref}/{path.id}", "{found}", "alone:", "`{found}` is used", "Add it"),
    ("      method: GET\n", "      method: PUT\n", "method: PUT", "`method` in find is `PUT`", "Known: `GET`, `POST`"),
    ("      path: /documents\n      query", "      path: documents\n      query", "path: documents", "does not begin with /", "placeholders"),
    ("all: \"{query.all?}\"", "token: s3cr3t", "token", "A secret stands in clear in `token`", "Use `auth`"),
    # reply and the rest
    ("status: 201", "status: 404", "reply:", "`status` in reply is `404`", "at least 200"),
    ("id: \"{answer.uuid}\"", "id: \"{answr.uuid}\"", "reply:", "Unknown placeholder `{answr.uuid}`", "Known: `path`"),
    ("id: \"{answer.uuid}\"", "id: \"{file.name}\"", "reply:", "`{file.name}` is used, but there is no `file` here", "Add"),
    ("{is: temporary, status: 503}", "{is: temporary}", "is: temporary", "The rule fits every reply", "add `status`"),
    ("bodies: never", "bodies: never, most: 5MB", "evidence", "more than 1MB", "1MB or less"),
    ("title: The middle hop", "title: The middle hop\nkinds: {}", "kinds:", "Unknown field `kinds` in flow", "Known: `flow`"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "problem", "remedy"), PLANTED, ids=[row[3][:70] for row in PLANTED])
def test_a_planted_fault_is_named_with_its_line_and_remedy(
    tmp_path: Path, old: str, new: str, at: str, problem: str, remedy: str
) -> None:
    files = changed(F, old, new)
    project = load_project(write(tmp_path, files))
    assert "hop" not in project.relays
    found = [fault for fault in project.faults if problem in fault.problem and fault.file == F]
    assert found, f"no such fault among: {[str(fault) for fault in project.faults]}"
    assert found[0].line == files[F].count("\n", 0, files[F].index(at)) + 1, str(found[0])
    assert remedy in found[0].remedy, str(found[0])
    for fault in project.faults:
        assert fault.problem.endswith((".", '."')), fault
        assert fault.remedy.endswith((".", '."', "}`.")), fault
        assert "s3cr3t" not in str(fault), "a secret must not be repeated"
    assert "papers" in project.deliveries, "a good flow beside a bad one is still there"


@pytest.mark.parametrize(("deadline", "notes"), [("28s", 0), ("29s", 1), ("2m", 1)])
def test_a_deadline_longer_than_a_gateway_waits_is_a_note(tmp_path: Path, deadline: str, notes: int) -> None:
    project = load_project(write(tmp_path, changed(F, "deadline: 27s", f"deadline: {deadline}")))
    assert project.faults == ()
    assert [(note.line, "gateway waits" in note.problem) for note in project.notes] == [(10, True)] * notes
    assert "hop" in project.relays


@pytest.mark.parametrize("auth", ['{type: bearer, token: "${T}"}', '{type: jwt, algorithm: HS256, secret: "${S}"}'])
def test_callers_that_can_be_verified(auth: str) -> None:
    text = f"flow: a\nkind: relay\nendpoint: {{path: /, auth: {auth}, contract: c.yaml}}\ndestination: {{url: https://h}}\n"
    flow = load_flow_text(f"{text}operations: {{op: {{call: {{method: GET, path: /x}}}}}}\n")
    assert isinstance(flow, RelayFlow)
    assert flow.endpoint.deadline == timedelta(seconds=27)
    assert flow.operations["op"].find is None
