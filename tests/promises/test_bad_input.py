"""Bad input, one test each: the fault is named, the rest of the run goes on, and the sum holds."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from counterfoil.engine import presence, sync
from counterfoil.ledger import items
from counterfoil.ledger.items import Move
from counterfoil.model.item import ItemEvent
from tests.promises.support import FLOW, Project, accounts_hold, eventually, flow_text, proven, side

FOR_EVER = ("--max-in-a-row", "0")
ONE_TRY = {"retry": "tries: 1", "pull": "breaker_failures: 1000"}


async def _retried(made: Project) -> dict[str, Any]:
    """The items when nothing is due any more."""

    async def settled() -> bool:
        await made.finish("items", FLOW)
        return not await made.value("select count(*) from counterfoil.item where next_action_at is not null")

    await eventually(settled, "nothing is due any more")
    return await made.items()


@pytest.mark.parametrize(
    ("fault", "named"),
    [("html", "html"), ("error_body", "unexpected_body"), ("truncated", ""), ("invalid_json", ""), ("empty", "")],
)
async def test_a_reply_that_is_no_record(project, fault: str, named: str):
    """For some records, for ever: each is its own item, the others are loaded, and it mends by itself when the source does."""
    made, other = project(*FOR_EVER, "--fault", f"{fault}=0.1@detail", count=80, **ONE_TRY)
    run = await made.sync()
    assert run["state"] == "partial"
    assert 0 < run["failed"] < 40
    assert run["inserted"] == 80 - run["failed"]
    faults = {item["fault"] for item in (await made.items()).values()}
    assert len(faults) == 1
    assert named in faults.pop()
    other.faults(**{fault: 0})
    assert {item["state"] for item in (await _retried(made)).values()} == {"SUCCESS"}
    await proven(made, other)


@pytest.mark.parametrize("fault", ["html", "error_body", "error503", "expired_token", "invalid_json"])
async def test_a_list_that_cannot_be_read(project, fault: str):
    """The run fails with its reason and opens a case; nothing stays running; a good run closes the case."""
    made, other = project(*FOR_EVER, "--fault", f"{fault}=1@list", count=20, detail=False, retry="tries: 2")
    run = await made.sync()
    assert (run["state"], run["found"]) == ("failed", 0)
    assert run["fault"]
    assert run["problem"]
    case = (await made.rows('select * from counterfoil."case"'))[0]
    assert case["fault"] == f"run:{run['fault']}"
    assert (case["owner"], case["closed_at"]) == ("testers", None)
    other.faults(**{fault: 0})
    assert (await made.sync())["state"] == "completed"
    assert (await made.rows('select * from counterfoil."case"'))[0]["closed_at"] is not None
    await proven(made, other)


async def test_a_record_of_fifty_megabytes(project):
    """Refused at the limit, not read to its end; the others are loaded."""
    made, _other = project("--fault", "huge_record=0.05", count=60)
    run = await made.sync()
    assert run["state"] == "partial"
    assert 0 < run["failed"] < 20
    assert {item["fault"] for item in (await made.items()).values()} == {"too_large"}
    assert {item["state"] for item in (await made.items()).values()} == {"PERMANENT_ERROR"}
    assert run["inserted"] == 60 - run["failed"]
    await accounts_hold(made)


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_a_list_that_never_ends(project, detail: bool):
    made, _ = project("--fault", "endless_list", count=60, page=20, detail=detail, source="limits: {pages: 30}")
    run = await made.sync()
    assert (run["state"], run["fault"]) == ("failed", "endless_list")
    assert run["pages"] <= 30
    assert run["watermark_after"] is None
    if not detail:
        assert len(await made.table()) == 60, "what it listed before is loaded all the same"


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_duplicates_in_the_list(project, detail: bool):
    """Over pages and inside them: each is loaded and fetched once."""
    made, other = project("--fault", "duplicates=0.3", count=150, page=20, chunk=30, detail=detail)
    run = await made.sync()
    assert (run["state"], run["found"], run["inserted"]) == ("completed", 150, 150)
    assert run["duplicates"] > 20
    assert run["listed"] == 150 + run["duplicates"]
    if detail:
        assert all(line["served"] == 1 for line in other.served().values())
    await proven(made, other)


async def test_ids_that_vanish(project):
    """Listed, and unknown when asked for: an item; asked a second time, the source says the same: rejected, nothing is left to load."""
    made, _other = project("--fault", "vanish=0.1", count=80)
    run = await made.sync()
    assert run["state"] == "partial"
    gone = await made.items()
    assert 0 < len(gone) == run["failed"]
    assert {(item["state"], item["fault"]) for item in gone.values()} == {("TEMPORARY_ERROR", "vanished")}
    after = await _retried(made)
    assert {item["state"] for item in after.values()} == {"REJECTED"}
    assert all("asked twice" in item["problem"] for item in after.values())
    await accounts_hold(made)


async def test_a_csv_with_broken_lines(tmp_path: Path, database: str):
    """A file of the project: a line with a column too many, one without a key twice, a date that is none, a score that is no number."""
    made = Project.make(tmp_path / "project", database, "", _CSV_FLOW)
    (made.folder / "pets.csv").write_text(
        "id,name,born,score\n"
        "1,Rex,2020-01-31,10\n"
        "2,Tom,2020-02-31,20\n"  # a date that is none
        "3,Max,2020-03-01,x\n"
        "4,Kim,2020-03-02,40,extra\n"
        ",Nameless,2020-03-03,50\n"
        ",Nameless,2020-03-03,50\n"  # the same once more
        "7,Ada,2020-03-04,70\n"
        '8,"Eve,2020-03-05,80\n'  # a quote that is never closed
    )
    run = await made.sync("pets")
    assert run["state"] in ("completed", "partial")
    assert run["inserted"] == 2
    assert run["listed"] == run["found"] + run["duplicates"]
    assert run["duplicates"] == 1
    assert {row["id"] for row in await made.rows("select id from public.pets")} == {"1", "7"}
    faults = await made.rows("select fault, problem, records from counterfoil.run_fault")
    assert sum(fault["records"] for fault in faults) == run["found"] - 2
    assert any("born" in fault["problem"] for fault in faults)
    assert not any("2020-02-31" in fault["problem"] for fault in faults), "a fault never quotes the record"
    await accounts_hold(made, "pets")


_CSV_FLOW = """
flow: pets
kind: sync
source: {connector: file, url: pets.csv, key: id}
mapping:
  fields:
    - {external: id, internal: id, type: string, required: true}
    - {external: name, internal: name, type: string}
    - {external: born, internal: born, type: date}
    - {external: score, internal: score, type: integer}
destination: {table: public.pets, key: [id]}
on_failure: {rejected_ratio: 1}
"""


async def test_entries_without_a_key_twice_in_a_list_of_ids(tmp_path: Path, database: str):
    """The sum holds all the same: one is rejected, its twin is a duplicate."""
    data = tmp_path / "p.csv"
    data.write_text("id,ref,name,email,score\n1,A,Ann,a@x,1\n2,,Bob,b@x,2\n3,,Bob,b@x,2\n4,D,Dan,d@x,4\n")
    with side("--data", str(data), "--key", "id", "--now", "2026-01-01T00:00:00Z", "--changed-over", "0s") as other:
        text = (
            flow_text(detail=False)
            .replace("key: id\n  changed", "key: ref\n  changed")
            .replace("external: id,", "external: ref,")
        )
        made = Project.make(tmp_path / "project", database, other.url, text)
        run = await made.sync()
    assert (run["state"], run["found"], run["inserted"], run["rejected"]) == ("completed", 4, 2, 2)
    await accounts_hold(made)


# --- pressure -----------------------------------------------------------------------------------------------------


async def test_a_source_that_is_down_opens_the_circuit_and_is_waited_for(project):
    """No busy loop: few calls reach it while the circuit is open; the run waits with a due time, and goes on when it is back."""
    made, other = project(
        *FOR_EVER, count=200, page=200, retry="tries: 4", pull="breaker_failures: 10, breaker_open: 40s"
    )
    other.faults(error503="1@detail")
    async with made.app() as app:
        run_id = await app.start_run(FLOW, actor="test")
        row = await app.work(run_id, wait=False)
    assert (row["state"], row["ended_at"]) == ("queued", None)
    assert row["next_action_at"] > datetime.now(UTC) + timedelta(seconds=20)
    assert row["problem"]
    assert other.record()["requests"]["detail"] < 60
    await made.value("update counterfoil.gate set closed_until = now()")
    await made.value("update counterfoil.run set next_action_at = now()")
    other.faults(error503=0)
    assert await made.finish("run", FLOW) == 0
    run = await made.run()
    assert run["found"] == 200
    assert run["crashes"] == 0, "waiting is no crash"
    await _retried(made)
    await proven(made, other)


async def test_a_throttled_source_gates_every_worker(project):
    """429 with Retry-After: the gate stands in the ledger, and a second process does not call before it opens."""
    made, other = project(*FOR_EVER, "--retry-after", "3600s", count=30, detail=False)
    other.faults(throttle=1)
    async with made.app() as app:
        row = await app.work(await app.start_run(FLOW, actor="test"), wait=False)
    assert row["state"] == "queued"
    assert row["next_action_at"] > datetime.now(UTC) + timedelta(minutes=50)
    asked = other.record()["requests"]
    other.faults(throttle=0)
    await made.value("update counterfoil.run set next_action_at = now()")
    async with made.app() as app:
        row = await app.work(row["id"], wait=False)
    assert row["state"] == "queued"
    assert other.record()["requests"] == asked, "it was called through a closed gate"
    await made.value("update counterfoil.gate set closed_until = now()")
    await made.value("update counterfoil.run set next_action_at = now()")
    assert await made.finish("run", FLOW) == 0
    await proven(made, other)


async def test_a_short_throttle_is_waited_for(project):
    made, other = project(
        "--fault", "throttle=0.1", "--retry-after", "0s", "--fault", "burst=0.02", "--burst-length", "3", count=60
    )
    run = await made.sync()
    await _retried(made)
    assert run["found"] == 60
    await proven(made, other)


# --- what a person decided, what a run finds --------------------------------------------------------------------

BANDS = """
def band(record):
    if record["score"] is None or record["score"] < 10:
        return ("INVALID", "The score is below 10.")
    if record["score"] < 20:
        return ("WARNING", "The score is below 20.")
    return "VALID"
"""


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_a_record_released_from_review_loads_without_a_new_verdict(project, detail: bool):
    made, _other = project(count=50, detail=detail, functions=BANDS, decision="band", rejected_ratio=0.9)
    run = await made.sync()
    assert (run["state"], run["review"], run["rejected"], run["inserted"]) == ("partial", 10, 10, 30)
    await _by_hand(made, ItemEvent.RELEASE, "P00012")
    assert (await _retried(made))["P00012"]["state"] == "SUCCESS"
    assert "P00012" in await made.table()
    again = await made.sync()
    assert (again["review"], again["inserted"], again["unchanged"]) == (9, 0, 31), (
        "the same content is not asked about again"
    )
    await accounts_hold(made)


async def test_an_archived_item_is_never_moved_by_later_runs(project):
    made, _ = project(count=50, detail=False, functions=BANDS, decision="band", rejected_ratio=0.9)
    await made.sync()
    await _by_hand(made, ItemEvent.ARCHIVE, "P00012")
    events = "select count(*) from counterfoil.item_event e join counterfoil.item i on i.id = e.item_id where i.key = 'P00012'"
    before = await made.value(events)
    await made.sync()
    assert (await made.items())["P00012"]["state"] == "ARCHIVED"
    assert await made.value(events) == before
    assert "P00012" not in await made.table()
    await accounts_hold(made)


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_the_item_of_a_rejected_record_is_done_when_a_later_run_loads_it(project, detail: bool):
    made, other = project("--fault", "missing_required=0.1", "--required-field", "name", count=60, detail=detail)
    run = await made.sync()
    rejected = await made.items()
    assert 0 < len(rejected) == run["rejected"]
    assert {item["state"] for item in rejected.values()} == {"REJECTED"}
    other.faults(missing_required=0)
    assert (await made.sync())["inserted"] == len(rejected)
    assert {item["state"] for item in (await made.items()).values()} == {"SUCCESS"}
    await proven(made, other)


async def test_too_many_rejected_open_a_case_that_a_good_run_closes(project):
    made, other = project("--fault", "missing_required=0.5", "--required-field", "name", count=60, detail=False)
    assert (await made.sync())["state"] == "completed"
    case = (await made.rows('select * from counterfoil."case"'))[0]
    assert (case["fault"], case["closed_at"]) == ("run:rejected", None)
    other.faults(missing_required=0)
    await made.sync()
    assert (await made.rows('select * from counterfoil."case"'))[0]["closed_at"] is not None


async def _by_hand(made: Project, event: ItemEvent, key: str) -> None:
    async with made.app() as app, app.ledger.transaction() as connection:
        moved = await items.move(connection, FLOW, [Move(event, key=key)], actor="ada", reason="seen by hand")
        assert moved[0].moved


# --- deletes ------------------------------------------------------------------------------------------------------

SOFT = {"destination": "deletes: {soft: deleted_at}", "detail": False, "page": 20}


async def _marked(made: Project) -> set[str]:
    return {key for key, row in (await made.table()).items() if row["deleted_at"]}


async def test_deletes_by_complete_listing_only(project):
    """A list that breaks off half way marks nothing; a complete one marks what it lacks; what comes back is unmarked."""
    made, other = project(*FOR_EVER, count=60, chunk=20, **SOFT, retry="tries: 1", pull="breaker_failures: 1000")
    await made.sync()
    before = other.truth().keys()
    other.delete(20)
    gone = before - other.truth().keys()
    other.faults(endless_list=1)  # the list is read, and its end never comes
    (made.folder / "flows" / "flow0.yaml").write_text(
        flow_text(chunk=20, **SOFT, retry="tries: 1", pull="breaker_failures: 1000", source="limits: {pages: 5}")
    )
    assert (await made.sync())["state"] == "failed"
    assert await _marked(made) == set()
    other.faults(endless_list=0)
    run = await made.sync()
    assert (run["state"], run["deleted"]) == ("completed", 20)
    assert await _marked(made) == gone
    assert (await made.sync())["deleted"] == 0


async def test_an_entry_without_its_key_forbids_deletes(tmp_path: Path, database: str):
    """Nobody can tell which row it stands for."""
    made = Project.make(
        tmp_path / "project", database, "", _CSV_FLOW.replace("key: [id]}", "key: [id], deletes: {soft: gone}}")
    )
    lines = ["id,name,born,score", *(f"{n},N{n},2020-01-01,{n}" for n in range(5))]
    (made.folder / "pets.csv").write_text("\n".join(lines) + "\n")
    assert (await made.sync("pets"))["inserted"] == 5
    lines[2] = ",N1,2020-01-01,1"
    (made.folder / "pets.csv").write_text("\n".join(lines) + "\n")
    assert (await made.sync("pets"))["deleted"] == 0
    del lines[2]
    (made.folder / "pets.csv").write_text("\n".join(lines) + "\n")
    assert (await made.sync("pets"))["deleted"] == 1


async def test_a_run_whose_end_is_refused_ends_as_failed(project):
    """Deletes that a trigger of the table forbids: the run does not stay running, and it is said why."""
    made, other = project(count=30, **SOFT)
    await made.sync()
    await made.value(
        "create function no_deletes() returns trigger language plpgsql as $$ begin raise exception 'not here'; end $$"
    )
    await made.value(
        "create trigger t before update of deleted_at on public.people for each row execute function no_deletes()"
    )
    other.delete(1)
    run = await made.sync()
    assert run["state"] == "failed"
    assert "not here" in run["problem"]
    await accounts_hold(made)


# --- write-back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_a_write_back_that_fails_is_told_later(project, detail: bool):
    """By its item, on its own: with and without a detail call."""
    made, other = project(*FOR_EVER, count=40, detail=detail, write_back=True, **ONE_TRY)
    other.faults(error503="0.3@write")
    run = await made.sync()
    assert (run["state"], run["inserted"]) == ("completed", 40), (
        "all are loaded; that the source was not told is told by items"
    )
    untold = await made.items()
    assert 0 < len(untold) == 40 - run["written_back"]
    assert all(item["fault"].startswith("write_back_") for item in untold.values())
    other.faults(error503=0)
    assert {item["state"] for item in (await _retried(made)).values()} == {"SUCCESS"}
    assert other.written().keys() == other.truth().keys()
    rows = await made.table()
    assert all(
        line["value"] == {"sync_status": "synced", "name": rows[key]["name"]} for key, line in other.written().items()
    )
    await proven(made, other)


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
async def test_a_run_that_comes_before_the_retry_tells_the_source(project, detail: bool):
    """The record is unchanged in the next run; it is told all the same, for it never was."""
    retry = "tries: 1, item_first_delay: 1h, item_max_delay: 1h"
    made, other = project(
        *FOR_EVER, count=40, detail=detail, write_back=True, retry=retry, pull="breaker_failures: 1000"
    )
    other.faults(error503="0.3@write")
    assert (await made.sync())["written_back"] < 40
    other.faults(error503=0)
    await made.sync()
    assert other.written().keys() == other.truth().keys()
    assert {item["state"] for item in (await made.items()).values()} == {"SUCCESS"}


async def test_what_a_failed_run_loaded_is_told_by_the_next(project):
    """The list never ends: its records are in the table, and the source has heard of none."""
    made, other = project(
        "--fault",
        "endless_list",
        count=60,
        page=20,
        chunk=20,
        detail=False,
        write_back=True,
        source="limits: {pages: 5}",
    )
    assert (await made.sync())["state"] == "failed"
    assert len(await made.table()) == 60
    assert not other.written()
    other.faults(endless_list=0)
    run = await made.sync()
    assert (run["state"], run["unchanged"]) == ("completed", 60)
    assert other.written().keys() == other.truth().keys()


async def test_after_a_lost_lease_no_call_is_under_way(project):
    """Cancelled by a person in the middle: the attempt finds itself fenced off, and the source is left alone."""
    made, _ = project("--latency", "3-6ms", count=600, chunk=20, write_back=True)
    async with made.app() as app, presence.present(app.dsn, "test") as here:
        run_id = await app.start_run(FLOW, actor="test")
        settled = 0

        def cancel_soon(counts: Any) -> None:
            nonlocal settled
            settled += counts.accounted

        job = app.job(FLOW, here.worker)
        working = asyncio.create_task(sync.work(job, run_id, settled=cancel_soon))
        await eventually(lambda: settled >= 60, "it has begun")
        await made.value(
            "update counterfoil.run set state = 'cancelled', ended_at = now(), next_action_at = null, attempt_id = null"
        )
        assert await working is None
        assert job.caller.window.in_flight == 0
        await app.close_sources()
    assert (await made.run())["state"] == "cancelled"
