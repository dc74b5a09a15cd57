from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterfoil.flows.flow import CatchUp, PagingStyle
from counterfoil.flows.load import load_flow_text, load_project
from counterfoil.model.errors import InvalidFilesError
from tests.flows.projects import FILES, FLOW, FLOW_FILE, FUNCTIONS, MAPPING, MAPPING_FILE, changed, write

WATERMARK = "  watermark: {granularity: time, overlap: 5m, lookback: all, timezone: UTC}\n"
F, M, P = FLOW_FILE, MAPPING_FILE, "functions.py"


def test_a_sound_project_has_its_flow_and_no_faults(tmp_path: Path) -> None:
    project = load_project(write(tmp_path))
    assert project.faults == ()
    assert project.notes == ()
    flow = project.flows["customers"]
    assert flow.file == F
    assert flow.schedule is not None
    assert flow.schedule.catch_up is CatchUp.SKIP
    assert flow.source.list.paging.style is PagingStyle.PAGE
    assert flow.source.watermark is not None
    assert flow.source.watermark.lookback is None
    assert flow.retry.first_delay == timedelta(milliseconds=250)
    assert flow.source.limits.page_bytes == 64 * 1024**2
    assert flow.destination.qualified == "public.customers"
    assert flow.destination.created_column == "created_at"
    assert [spec.column for spec in flow.mapping.fields] == ["customer_id", "customer_name", "email", "score"]
    assert flow.decision == "score_band"
    assert project.functions.known == ("score_band", "shorten")


# file, what stands there, what stands there instead, the line at fault (by a text on it), problem, remedy
PLANTED = [
    (F, "source:\n", "sorce:\n", "sorce:", "Unknown field `sorce` in flow", "Did you mean `source`? Known: "),
    (F, "source:\n", "sorce:\n", "flow: customers", "`source` is missing in flow", "Add `source:`"),
    (F, "    items: data", "    itms: data", "itms", "Unknown field `itms` in list", "Did you mean `items`?"),
    (F, "kind: sync\n", "", "flow: customers", "`kind` is missing in flow", "Add `kind:`, sync, delivery or relay."),
    (F, "kind: sync", "kind: delivry", "delivry", "`kind` in flow is `delivry`", "Did you mean `delivery`? Known: `sync`, `delivery`, `relay`"),
    (F, "kind: sync", "kind: [sync]", "[sync]", "`kind` in flow is a list", "Known: `sync`, `delivery`, `relay`"),
    (F, "kind: sync", "kind: relay", "source:", "Unknown field `source` in flow", "Known: `flow`, `kind`"),
    (F, "flow: customers", "flow: Customer Records", "flow:", "`flow` in flow is `Customer Records`", "Small letters"),
    (F, "*/5 * * * *", "*/5 * * *", "cron", "`cron` in schedule is `*/5 * * *`", "five fields"),
    (F, "*/5 * * * *", "0 25 * * *", "cron", "cannot be read", "five fields"),
    (F, "*/5 * * * *", "0 0 31 2 *", "cron", "cannot be read: bad day-of-month", "five fields"),
    (F, "*/5 * * * *", "0 * * * * *", "cron", "`cron` in schedule is `0 * * * * *`", "five fields"),
    (F, "Pacific/Auckland", "Pacific/Aukland", "Aukland", "no time zone", "Did you mean `Pacific/Auckland`?"),
    (F, "catch_up: skip", "catch_up: twice", "catch_up", "is `twice`", "Known: `once`, `skip`"),
    (F, "connector: http", "connector: htp", "htp", "`connector` in source is `htp`", "Did you mean `http`? Known: `http`, `aws_lambda`"),
    (F, "  url: ${API_BASE_URL}\n", "", "source:", "`url` is missing", "API_BASE_URL"),
    (F, "url: ${API_BASE_URL}", "url: example.org", "url:", "no web address", "https://"),
    (F, "url: ${API_BASE_URL}", "url: ${API BASE}", "url:", "not well formed", '"${NAME}"'),
    (F, "url: ${API_BASE_URL}", "url: https://me:pw@example.org", "url:", "A password stands in clear", "auth"),
    (F, '"${API_TOKEN}"', "s3cr3t", "auth", "A secret stands in clear", "environment variable"),
    (F, "type: bearer", "type: bearr", "auth", "`type` in auth is `bearr`", "Did you mean `bearer`?"),
    (F, "type: bearer", "type: basic", "auth", "`username` is missing in auth of type basic", "Add `username:"),
    (F, "type: bearer", "type: basic", "auth", "Unknown field `token` in auth of type basic", "Known: `type`, `username`, `password`"),
    (F, "key: external_id", "key: a..b", "key: a..b", "no path to a value", "dots"),
    (F, '"{since}"', "{since}", "updated_since", "a brace without quotes", "quotes"),
    (F, '"{since}"', '"{sinse}"', "updated_since", "Unknown placeholder `{sinse}` in list", "Did you mean `since`?"),
    (F, '"{since}"', '"2026-01-01"', "watermark", "asks for no time", '"{since}"'),
    (F, WATERMARK, "", "list:", "no watermark to take it from", "Add `watermark:"),
    (F, "style: page", "style: pages", "style", "is `pages`", "Did you mean `page`? Known: `none`, `page`"),
    (F, "style: page, param: page", "style: page", "paging", "Paging by page needs `param`", "Add `param: page`"),
    (F, "style: page", "style: cursor", "paging", "needs `next_at`", "meta.next"),
    (F, "size: 100}", "size: 0}", "size: 0", "`size` in paging is `0`", "at least 1"),
    (F, 'detail: {path: "/api/v1/data/{key}"', "detail: {path: /api/v1/data/1", "detail", "does not say which record", "/data/{key}"),
    (F, "customer: customerId", "customer: custmerId", "write_back", "names the field `custmerId`", "Did you mean `customerId`?"),
    (F, "overlap: 5m", "overlap: 5 minutes", "overlap", "is `5 minutes`", "250ms, 5s, 3m, 2h or 7d"),
    (F, "overlap: 5m", "overlap: 5", "overlap", "is `5`", "250ms, 5s, 3m, 2h or 7d"),
    (F, "total: 60s", "total: 20s", "total", "`total` in timeouts is less than `first_byte`", "Raise"),
    (F, "page_bytes: 64MB", "page_bytes: big", "page_bytes", "`page_bytes` in limits is `big`", "64MB"),
    (F, "concurrency: 15", "concurrency: 0", "concurrency", "`concurrency` in pull is `0`", "at least 1"),
    (F, "concurrency: 15", "concurrency: many", "concurrency", "is `many`", "whole number"),
    (F, "concurrency: 15", "concurrency: true", "concurrency", "is `true`", "whole number"),
    (F, "adaptive_max: 60", "adaptive_max: 10", "adaptive_max", "`adaptive_max` in pull is less than `concurrency`", "Raise `adaptive_max`"),
    (F, "max_delay: 20s", "max_delay: 100ms", "max_delay", "less than `first_delay`", "lower `first_delay`"),
    (F, "mapping: customers", "mapping: custmers", "mapping:", "no mapping `custmers`", "Did you mean `customers`?"),
    (F, "mapping: customers", "mapping: ../../etc/passwd", "mapping:", "is `../../etc/passwd`", "mappings/"),
    (F, "function: score_band", "function: score_bands", "decision", "No function `score_bands`", "Did you mean `score_band`? Known:"),
    (F, "decision: {function: score_band}", "decision: score_band", "decision", "not a section", "{function: score_band}"),
    (F, "table: public.customers", "table: a.b.c", "table", "`table` in destination is `a.b.c`", "public.customers"),
    (F, "table: public.customers", "table: counterfoil.item", "table", "not for your tables", "public.customers"),
    (F, "table: public.customers", f"table: {'t' * 64}", "table", "`table` in destination is", "at most 63"),
    (F, "key: [customer_id]", "key: [customerid]", "key: [", "`customerid` is not made by the mapping", "Did you mean `customer_id`?"),
    (F, "key: [customer_id]", "key: [email]", "key: [", "may be empty", "required: true"),
    (F, "key: [customer_id]", "key: []", "key: [", "an empty list", "[customer_id]"),
    (F, "key: [customer_id]", "key: customer_id", "key: customer_id", "`key` in destination is `customer_id`", "[customer_id]"),
    (F, "created: created_at", "created: email", "created: email", "also made by the mapping", "Rename"),
    (F, "updated: updated_at", "updated: created_at", "updated: created_at", "is created and updated", "of its own"),
    (F, "[[email], ", "[[emial], ", "indexes", "names the column `emial`", "Did you mean `email`?"),
    (F, "[[email], ", "[[email; drop table x], ", "indexes", "email; drop table x", "created_at desc"),
    (F, "  updated: updated_at\n", "  deletes: {soft: gone_at}\n", "deletes", "complete list", "Remove `watermark`"),
    (F, "rejected_ratio: 0.2", "rejected_ratio: 20", "rejected_ratio", "is `20`", "up to 1"),
    (F, "title: Customer records", "title: ${TITLE}", "title", "only read in `source`", "value itself"),
    (F, "title: Customer records", "title: a\ntitle: b", "title: b", "`title` stands here twice (first on line 3)", "Keep one"),
    (F, "  key: external_id", "\tkey: external_id", "\tkey", "A tab", "two spaces"),
    (F, "title: Customer records", "title: Customer: records", "title", "Not valid YAML", "quotes"),
    (F, "[customer_id]", "[customer_id", "created: created_at", "Not valid YAML", "bracket"),
    (F, "title: Customer records", "title: &a Customer\nschedule: *a", "schedule: *a", "An alias", "Write it out"),
    (M, "type: integer", "type: int", "score", "`type` in field is `int`", "Known: `string`, `integer`"),
    (M, "internal: score, ", "", "external: score", "`internal` is missing in field", "Add `internal:`"),
    (M, "external: score, ", "", "internal: score", "`external` is missing in field `score`", "source's record"),
    (M, "internal: email", "internal: customerId", "contact_email", "Two fields have the internal `customerId` (the first on line 3)", "Rename"),
    (M, "internal: email", "internal: e-mail", "e-mail", "`internal` in field is `e-mail`", "Letters, digits"),
    (M, "minimum: 0", "minimum: 200", "minimum", "`minimum` is above `maximum`", "Exchange"),
    (M, "max_length: 255", "minimum: 1", "full_name", "`minimum` says nothing about a string", "integer and decimal"),
    (M, "type: integer, minimum: 0", "type: date, format: dd/mm", "format", "is `dd/mm`", "%B %d %Y"),
    (M, "minimum: 0", "default: high", "default", "`default` of field `score`", "a integer"),
    (M, "minimum: 0", "default: 101", "default", "more than the maximum 100", "integer"),
    (M, "mapping: customers", "mapping: customer", "mapping:", "The mapping is called `customer`", "Write `mapping: customers`"),
    (M, "internal: email", f"internal: {'aB' * 30}", "contact_email", "characters", "`column:`"),
    (P, 'return "VALID"', "return (", "return (", "Not valid Python", "Correct the line"),
    (P, "_hidden = print", "import no_such_module_here", "import no_such", "does not import: ModuleNotFoundError", "Correct the line"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "at", "problem", "remedy"), PLANTED, ids=[f"{r[0]}-{r[4]}"[:70] for r in PLANTED]
)
def test_a_planted_fault_is_named_with_its_line_and_remedy(
    tmp_path: Path, file: str, old: str, new: str, at: str, problem: str, remedy: str
) -> None:
    files = changed(file, old, new)
    lines = [number for number, line in enumerate(files[file].splitlines(), 1) if at in line]
    project = load_project(write(tmp_path, files))
    found = [fault for fault in project.faults if problem in fault.problem and fault.file == file]
    assert found, f"no such fault among: {[str(fault) for fault in project.faults]}"
    assert found[0].line == lines[0], str(found[0])
    assert remedy in found[0].remedy, str(found[0])
    assert project.flows == {}
    for fault in project.faults:
        assert fault.problem.endswith((".", '."')), fault
        assert fault.remedy.endswith((".", '."')), fault
        assert "s3cr3t" not in str(fault), "a secret must not be repeated"


def test_ten_faults_in_one_folder_are_ten_messages(tmp_path: Path) -> None:
    flow = FLOW
    for old, new in [
        ("*/5 * * * *", "every five minutes"),
        ("    items: data", "    item: data"),
        ("overlap: 5m", "overlap: five"),
        ("concurrency: 15", "concurrency: 0"),
        ('"${API_TOKEN}"', "abc"),
        ("function: score_band", "function: scoreband"),
        ("key: [customer_id]", "key: [customerid]"),
        ("[[email], ", "[[mail], "),
    ]:
        assert flow.count(old) == 1
        flow = flow.replace(old, new)
    second = FLOW.replace("flow: customers", "flow: second").replace("style: page,", "style: paged,")
    files = {
        F: flow,
        "flows/second.yaml": second,
        "mappings/other.yaml": MAPPING.replace("mapping: customers", "mapping: other").replace(
            "type: integer", "type: numeric"
        ),
        M: MAPPING,
        P: FUNCTIONS,
    }
    faults = load_project(write(tmp_path, files)).faults
    assert len(faults) == 10, "\n".join(map(str, faults))
    assert len({(fault.file, fault.line) for fault in faults}) == 10
    assert all(fault.remedy and fault.problem for fault in faults)
    assert [fault.file for fault in faults] == [F] * 8 + ["flows/second.yaml", "mappings/other.yaml"]


def test_names_are_unique_over_files_and_a_table_has_one_key(tmp_path: Path) -> None:
    other = FLOW.replace("key: [customer_id]", "key: [customer_id, score]")
    mapping = MAPPING.replace("type: integer,", "type: integer, required: true,")
    project = load_project(write(tmp_path, {**FILES, M: mapping, "flows/other.yaml": other}))
    assert [(fault.file, fault.line) for fault in project.faults] == [("flows/other.yaml", 1), ("flows/other.yaml", 27)]
    assert "Another flow is called `customers` (in flows/customers.yaml)." in project.faults[0].problem
    assert "the same row would have two keys" in project.faults[1].problem
    assert list(project.flows) == ["customers"]


def test_a_fault_of_a_mapping_is_told_once_and_keeps_its_flows_out(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, changed(M, "type: integer", "type: int")))
    assert [(fault.file, fault.line) for fault in project.faults] == [(M, 6)]
    assert project.flows == {}


def test_a_good_flow_beside_a_bad_one_still_loads(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, {**FILES, "flows/bad.yaml": "flow: [\n"}))
    assert list(project.flows) == ["customers"]
    assert [fault.file for fault in project.faults] == ["flows/bad.yaml"]


def test_files_that_are_no_text_too_large_or_misnamed(tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "flows/late.yml": FLOW, "flows/empty.yaml": "# nothing\n", "flows/list.yaml": "- a\n"})
    (tmp_path / "flows/latin.yaml").write_bytes(b"flow: x\ntitle: caf\xe9\n")
    (tmp_path / "flows/large.yaml").write_bytes(b"# " + b"x" * 1_000_001)
    (tmp_path / "flows/zero.yaml").write_bytes(b"flow: x\ntitle: \x00\n")
    (tmp_path / "flows/deep.yaml").write_text("[" * 1000)
    (tmp_path / "flows/folder.yaml").mkdir()
    told = {fault.file.removeprefix("flows/"): (fault.line, fault.problem) for fault in load_project(tmp_path).faults}
    assert told == {
        "late.yml": (1, "The file ends in .yml and is not read."),
        "empty.yaml": (1, "The file is empty."),
        "list.yaml": (1, "`flow` is a list, not a section."),
        "latin.yaml": (2, "The file is not UTF-8 text."),
        "large.yaml": (1, "The file has 1,000,003 bytes."),
        "zero.yaml": (2, "The file holds a character that YAML does not allow."),
        "deep.yaml": (1, "The file is nested too deeply."),
        "folder.yaml": (1, "The file cannot be read: Is a directory."),
    }


def test_aliases_do_not_unfold(tmp_path: Path) -> None:
    """Nine levels of ten: a thousand million entries, if they were unfolded."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    faults = load_project(write(tmp_path, {F: bomb})).faults
    assert any("An alias" in fault.problem for fault in faults)
    assert len(faults) < 200


def test_a_file_source_stays_in_the_folder(tmp_path: Path) -> None:
    base = "flow: pets\nkind: sync\nsource: {connector: file, url: %s, key: License Number}\nmapping:\n"
    base += "  - {external: License Number, internal: licence, type: string, required: true}\n"
    base += "destination: {table: pets, key: [licence]}\n"
    for url, problem in {
        "data/pets.csv": "",
        "../pets.csv": "outside",
        "/etc/pets.csv": "outside",
        "data/pets.xlsx": "neither",
        "out/pets.csv": "outside",
    }.items():
        (tmp_path / "out").unlink(missing_ok=True)
        (tmp_path / "out").symlink_to("/tmp")
        project = load_project(write(tmp_path, {"flows/pets.yaml": base % url}))
        assert [problem in fault.problem for fault in project.faults] == [True] * bool(problem), url
        assert all(fault.line == 3 for fault in project.faults)
        assert bool(project.flows) is not bool(problem)


def test_what_a_connector_does_not_know_is_refused(tmp_path: Path) -> None:
    files = changed(F, "connector: http", "connector: aws_lambda")
    told = [(fault.line, fault.problem) for fault in load_project(write(tmp_path, files)).faults]
    assert (17, "`write_back` means nothing to the connector aws_lambda.") in told
    assert (12, "`path` means nothing to the connector aws_lambda.") in told
    assert (11, "`function` is missing in list.") in told


def test_secrets_in_headers_and_queries_are_refused(tmp_path: Path) -> None:
    files = changed(F, "  changed: updated_at\n", "  headers: {X-Api-Key: abc, Accept: text/json}\n")
    files[F] = files[F].replace(
        '{updated_since: "{since}"}', '{updated_since: "{since}", api_key: abc, page_token: abc}'
    )
    told = [(fault.line, fault.problem) for fault in load_project(write(tmp_path, files)).faults]
    assert (
        told == [(13, "A secret stands in clear in `api_key`."), (10, "A secret stands in clear in `X-Api-Key`.")][::-1]
    )


def test_a_watermark_without_a_time_of_change_is_a_note_not_a_fault(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, changed(F, "  changed: updated_at\n", "")))
    assert project.faults == ()
    assert "customers" in project.flows
    assert [note.line for note in project.notes] == [17]


def test_soft_deletes_of_a_full_listing_are_taken(tmp_path: Path) -> None:
    flow = FLOW.replace("  updated: updated_at\n", "  deletes: {soft: gone_at}\n").replace('"{since}"', '"1"')
    flow = flow.replace("  watermark: {granularity: time, overlap: 5m, lookback: all, timezone: UTC}\n", "")
    project = load_project(write(tmp_path, {**FILES, F: flow}))
    assert project.faults == ()
    assert project.flows["customers"].destination.deleted_column == "gone_at"


def test_a_flow_from_text() -> None:
    text = FLOW.replace(
        "mapping: customers", "mapping:\n  - {external: a, internal: customerId, type: string, required: true}"
    )
    text = text.replace("decision: {function: score_band}\n", "").replace("[email], ", "")
    flow = load_flow_text(text)
    assert flow.mapping.name == "customers"
    with pytest.raises(InvalidFilesError) as caught:
        load_flow_text(text.replace("source:", "sorce:"), "x.yaml")
    assert [fault.file for fault in caught.value.faults] == ["x.yaml"] * len(caught.value.faults)


def test_no_folder_is_an_empty_project(tmp_path: Path) -> None:
    project = load_project(tmp_path / "none")
    assert (dict(project.flows), project.faults) == ({}, ())


_WORDS = st.sampled_from(
    [w for w in FLOW.replace("{", " { ").replace(":", ": ").split() if w]
    + ["null", "[]", "{}", "1e999", "-", "&a", "*a", "!x"]
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(FLOW.splitlines()) - 1), st.integers(0, 3), st.lists(_WORDS, max_size=4), st.text(max_size=5))
def test_loading_never_raises(at: int, drop: int, words: list[str], odd: str) -> None:
    lines = FLOW.splitlines()
    lines[at : at + drop] = [
        lines[at].partition(":")[0] + ": " + " ".join(words) + odd.encode("utf-8", "replace").decode()
    ]
    with suppress(InvalidFilesError):
        load_flow_text("\n".join(lines))
