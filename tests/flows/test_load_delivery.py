from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil.flows.delivery import (
    BodyKeeping,
    DeliveryFlow,
    FileFrom,
    Inherits,
    NameRule,
    Part,
    PartType,
    WatchedFolder,
)
from counterfoil.flows.flow import SyncFlow
from counterfoil.flows.functions import Functions, load_functions
from counterfoil.flows.load import Project, load_flow_text, load_project
from counterfoil.model.delivery import Outcome, Resend, StepState
from counterfoil.model.errors import Fault, InvalidFilesError
from tests.flows import projects
from tests.flows.projects import write
from tests.flows.projects_delivery import DELIVERY, DELIVERY_FILE, FILES, FUNCTIONS, RELAY_FILE, changed

F = DELIVERY_FILE


def load(tmp_path: Path, files: dict[str, str]) -> Project:
    return load_project(write(tmp_path, files))


def test_a_sound_delivery_has_everything_it_says(tmp_path: Path) -> None:
    project = load(tmp_path, FILES)
    assert (project.faults, project.notes) == ((), ())
    flow = project.deliveries["papers"]
    assert (flow.title, flow.file) == ("Papers of claims", F)
    assert flow.target.rate == 2.5
    assert flow.target.reply_bytes == 1024**2
    assert flow.target.headers["X-Api-Key"] == "${API_KEY}"
    assert list(flow.kinds) == ["claim", "report", "letter"]
    claim, report, letter = flow.kinds.values()
    assert claim.create is None
    assert report.parent is not None
    assert (report.parent.kind, report.parent.inherits, report.parent.stand_in) == ("claim", Inherits.FIRST, "999")
    assert report.update is not None
    assert (report.update.method, report.update.function) == ("PUT", "report_body")
    assert report.resend(has_look_up=True) is Resend.SAFE
    assert report.file is not None
    assert (report.file.source, report.file.names, report.file.least) == (FileFrom.PAYLOAD, NameRule.UNDERSCORE, 1024)
    assert report.file.most_by_type == {"pdf": 150 * 1024**2}
    assert report.expected[0].when == {"bddQualified": True, "form.kind": "a"}
    assert letter.parent is not None
    assert letter.parent.wait == timedelta(days=7)
    assert letter.create is not None
    assert letter.create.query == {"source": "counterfoil", "page": "1"}
    assert [part.type for part in letter.create.parts] == [PartType.JSON, PartType.TEXT, PartType.FILE]
    assert letter.create.parts[2] == Part("file", PartType.FILE)
    assert letter.resend(has_look_up=True) is Resend.LOOK_UP


def test_the_rest_of_a_sound_delivery(tmp_path: Path) -> None:
    flow = load(tmp_path, FILES).deliveries["papers"]
    duplicate, temporary = flow.replies
    assert (duplicate.outcome, duplicate.receipt) == (Outcome.DUPLICATE, "errors.meta.id")
    assert temporary.statuses == (range(403, 404), range(500, 600), range(500, 504))
    assert temporary.after == timedelta(minutes=5)
    assert flow.look_up is not None
    assert flow.look_up.target is not None
    assert (flow.look_up.call.method, flow.look_up.call.path, flow.look_up.items) == ("GET", "/documents", "")
    assert flow.look_up.match == {"metadata.submission_id": "{payload.submission_id}", "type": 5}
    assert flow.poll is not None
    assert flow.poll.call.body == {"data": {"requestIds": "{receipts}"}}
    assert flow.poll.values == {"SUCCESS": StepState.DONE, "FAILED": StepState.FAILED, "IN_PROGRESS": StepState.RUNNING}
    assert flow.poll.none_found == (404,)
    assert flow.poll.recheck is not None
    assert flow.retry.item_first_delay == timedelta(minutes=1)
    assert flow.retry.tries == 4
    assert flow.requeue[0].name == "overnight"
    assert flow.requeue[0].faults == ("http_5*", "unreachable")
    assert (flow.evidence.bodies, flow.evidence.most) == (BodyKeeping.ALWAYS, 4096)
    assert flow.intake is not None
    assert flow.intake.table is not None
    assert (flow.intake.table.table, flow.intake.table.kind) == ("dd.document", "{kind}")
    assert flow.intake.table.where == {"status": "QUEUED", "archived": False}
    assert flow.on_failure.due == timedelta(hours=4)


LOOK_UP = DELIVERY[DELIVERY.index("look_up:") : DELIVERY.index("poll:")]


def test_ten_faults_in_one_file_are_ten_messages(tmp_path: Path) -> None:
    text = DELIVERY
    for old, new in [
        ("rate: 2.5", "rate: -1"),
        ("{payload.caseref}/reports", "{payload.caseref/reports"),
        ('"{payload.submission_id}"\n', "{payload.submission_id}\n"),
        ("\n    parent: report\n", "\n    parent: reprt\n"),
        ("{is: temporary", "{is: temporarily"),
        ("absent: [404]", "absent: [4]"),
        ("FAILED: failed, ", ""),
        ('"http_5*"', '"http 5"'),
        ("taken: {status", "taken: {sta-tus"),
        ("function: report_body", "function: report_bodi"),
    ]:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    faults = load(tmp_path, {**FILES, F: text}).faults
    assert len(faults) == 10, "\n".join(map(str, faults))
    assert len({fault.line for fault in faults}) == 10


# --- notes --------------------------------------------------------------------------------------------------------


def test_a_kind_whose_lost_replies_only_people_can_decide_is_a_note(tmp_path: Path) -> None:
    project = load(tmp_path, changed(F, LOOK_UP, ""))
    assert project.faults == ()
    told = [(note.problem, note.remedy) for note in project.notes]
    assert len(told) == 1, "the report has an idempotency header, the claim is never sent"
    assert told[0][0] == "Where a reply to `letter` is lost, only a person can tell whether it arrived."
    assert "look_up" in told[0][1]
    assert "papers" in project.deliveries


@pytest.mark.parametrize("more", ["method: PUT", "method: DELETE"])
def test_a_call_that_only_replaces_may_be_sent_again(tmp_path: Path, more: str) -> None:
    files = changed(F, LOOK_UP, "")
    files[F] = files[F].replace("method: POST\n      path: /letters", f"{more}\n      path: /letters")
    assert [note.problem for note in load(tmp_path, files).notes] == []


def test_a_share_of_less_than_one_call_is_a_note(tmp_path: Path) -> None:
    project = load(tmp_path, changed(F, "bulk_share: 0.25", "bulk_share: 0.05"))
    assert project.faults == ()
    assert ["share of bulk work" in note.problem for note in project.notes] == [True]


# --- what is taken ------------------------------------------------------------------------------------------------


def minimal(more: str = "", kind: str = "") -> str:
    return (
        f"flow: a\nkind: delivery\ndestination: {{url: https://h}}\nkinds:\n  one: {{create: {{method: PUT, path: /x}}{kind}}}\n"
        + more
    )


def test_the_least_that_a_delivery_says() -> None:
    flow = load_flow_text(minimal())
    assert isinstance(flow, DeliveryFlow)
    assert flow.title == "a"
    assert flow.kinds["one"].receipt is None
    assert (flow.replies, flow.look_up, flow.poll, flow.requeue, flow.intake) == ((), None, None, (), None)
    assert flow.retry.budget == timedelta(hours=24)


@pytest.mark.parametrize(
    "more",
    [
        "replies: []\n",
        "replies: [{is: temporary, status: 403}]\n",
        "replies: [{is: done, body: {error: null}}]\n",
        "look_up: {method: GET, path: '', function: f}\n",
        'look_up: {method: GET, path: /x, query: {k: "{parent.receipt?}"}, match: {id: "{key}"}}\n',
        "evidence: {bodies: never}\n",
        "intake: {folder: {folder: inbox, kind: one, pattern: '*.pdf', taken: done, settled_for: 1m}}\n",
        "requeue: {night: {schedule: {cron: '0 8 * * *', timezone: Europe/London}, faults: ['111', timeout]}}\n",
    ],
)
def test_other_ways_to_write_it(more: str) -> None:
    functions = Functions({"f": print})
    assert isinstance(load_flow_text(minimal(more), functions=functions), DeliveryFlow)


def test_a_watched_folder() -> None:
    flow = load_flow_text(minimal("intake: {folder: {folder: inbox, kind: one}}\n"))
    assert isinstance(flow, DeliveryFlow)
    assert flow.intake is not None
    assert flow.intake.folder == WatchedFolder("inbox", "one")
    assert flow.intake.schedule is None


def test_a_watched_folder_behind_a_link_is_outside(tmp_path: Path) -> None:
    (tmp_path / "inbox").symlink_to("/tmp")
    files = {"flows/a.yaml": minimal("intake: {folder: {folder: inbox, kind: one}}\n")}
    assert ["outside" in fault.problem for fault in load(tmp_path, files).faults] == [True]


def test_a_static_file_behind_a_link_is_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside.pdf"
    outside.write_text("x")
    folder = tmp_path / "project"
    (folder / "files").mkdir(parents=True)
    (folder / "files/a.pdf").symlink_to(outside)
    text = minimal(kind=", file: {from: static, value: files/a.pdf}")
    assert ["outside" in fault.problem for fault in load(folder, {"flows/a.yaml": text}).faults] == [True]


def test_a_null_in_a_body_is_no_placeholder() -> None:
    flow = load_flow_text(minimal().replace("path: /x", "path: /x, body: {a: {b: null}, c: [{d: ''}], e: null}"))
    assert isinstance(flow, DeliveryFlow)
    assert flow.kinds["one"].create is not None
    assert flow.kinds["one"].create.body == {"a": {"b": None}, "c": [{"d": ""}], "e": None}


def test_a_dollar_in_a_text_is_no_reference_when_its_brace_is_doubled() -> None:
    flow = load_flow_text(minimal().replace("path: /x", 'path: /x, body: {a: "costs ${{5}}"}'))
    assert isinstance(flow, DeliveryFlow)


# --- other parts of the project -----------------------------------------------------------------------------------


def test_faults_of_a_contract_stand_at_the_line_that_names_it(tmp_path: Path) -> None:
    def check(path: Path) -> Sequence[tuple[str, str]]:
        assert path.is_file()
        return [(f"contracts/{path.name}: no paths.", "Mend the contract.")]

    project = load_project(write(tmp_path, FILES), check_contract=check)
    told = [(fault.file, fault.line, fault.problem) for fault in project.faults]
    assert told == [(RELAY_FILE, 7, "contracts/gateway.yaml: no paths."), (F, 9, "contracts/gateway.yaml: no paths.")]
    assert (dict(project.deliveries), dict(project.relays)) == ({}, {})


def test_without_contracts_the_remedy_is_to_write_one(tmp_path: Path) -> None:
    files = {name: text for name, text in FILES.items() if not name.startswith("contracts/")}
    assert {fault.remedy for fault in load(tmp_path, files).faults} == {"Write contracts/gateway.yaml."}


def test_a_flow_that_names_a_function_waits_for_functions_that_import(tmp_path: Path) -> None:
    files = {**FILES, "functions.py": FUNCTIONS + "import no_such_module_here\n", "flows/plain.yaml": minimal()}
    project = load(tmp_path, files)
    assert [fault.file for fault in project.faults] == ["functions.py"]
    assert (list(project.deliveries), list(project.relays)) == (["a"], [])


@pytest.mark.parametrize(
    "kind", [", file: {from: render, value: f}", ", update: {method: PUT, path: /x, function: f}, receipt: id"]
)
def test_every_place_that_names_a_function_counts(tmp_path: Path, kind: str) -> None:
    files = {"functions.py": "import no_such_module_here\n", "flows/a.yaml": minimal(kind=kind)}
    assert dict(load(tmp_path, files).deliveries) == {}


def test_names_are_unique_over_all_kinds(tmp_path: Path) -> None:
    files = {**FILES, **projects.FILES, "functions.py": FUNCTIONS + projects.FUNCTIONS}
    files[RELAY_FILE] = files[RELAY_FILE].replace("flow: hop", "flow: customers")
    files["flows/second.yaml"] = minimal().replace("flow: a", "flow: customers")
    project = load(tmp_path, files)
    assert [(fault.file, fault.line) for fault in project.faults] == [(RELAY_FILE, 1), ("flows/second.yaml", 1)]
    assert all("Another flow is called `customers`" in fault.problem for fault in project.faults)
    assert project.names == ("customers", "papers")


def test_three_kinds_in_one_folder(tmp_path: Path) -> None:
    project = load(tmp_path, {**FILES, **projects.FILES, "functions.py": FUNCTIONS + projects.FUNCTIONS})
    assert project.faults == ()
    assert project.names == ("customers", "hop", "papers")
    assert (list(project.flows), list(project.deliveries), list(project.relays)) == (["customers"], ["papers"], ["hop"])


def test_any_kind_loads_from_its_text(tmp_path: Path) -> None:
    functions, _ = load_functions(write(tmp_path, FILES))
    assert isinstance(load_flow_text(DELIVERY, functions=functions, folder=tmp_path), DeliveryFlow)
    assert isinstance(load_flow_text(DELIVERY, functions=functions), DeliveryFlow)
    sync = projects.FLOW.replace(
        "mapping: customers", "mapping:\n  - {external: a, internal: customerId, type: string, required: true}"
    )
    sync = sync.replace("decision: {function: score_band}\n", "").replace("[email], ", "")
    assert isinstance(load_flow_text(sync), SyncFlow)
    with pytest.raises(InvalidFilesError) as caught:
        load_flow_text(DELIVERY.replace("rate: 2.5", "rate: fast"), "x.yaml", functions)
    needed = "Write a number of at least 0.001 up to 100000."
    assert caught.value.faults == (Fault("x.yaml", 13, "`rate` in destination is `fast`.", needed),)


_WORDS = st.sampled_from(
    [word for word in DELIVERY.replace("{", " { ").replace(":", ": ").split() if word]
    + ["null", "[]", "{}", "1e999", "-", "&a", "*a", "!x", "{key}", '"{key}"', "{a: {b}}", "${X}"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, len(DELIVERY.splitlines()) - 1), st.integers(0, 3), st.lists(_WORDS, max_size=4), st.text(max_size=5)
)
def test_loading_never_raises(at: int, drop: int, words: list[str], odd: str) -> None:
    lines = DELIVERY.splitlines()
    lines[at : at + drop] = [
        lines[at].partition(":")[0] + ": " + " ".join(words) + odd.encode("utf-8", "replace").decode()
    ]
    with suppress(InvalidFilesError):
        load_flow_text("\n".join(lines))
