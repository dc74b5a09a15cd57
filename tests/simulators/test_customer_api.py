"""The customer API over real sockets: who may call, what it lists, what it keeps of it, and each of its faults."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators import customer_api, samples

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()


async def walk(api: Any, paging: str, **query: Any) -> list[dict[str, Any]]:
    """Every item of the list, page after page, as a caller of that paging style reads them."""
    rows: list[dict[str, Any]] = []
    size = {"per_page": 7} if paging in ("page", "link", "next_url") else {"limit": 7}
    answer = await api.get(**size, **query)
    for number in range(2, 100):
        found = answer.json
        rows += found["data"]
        if paging == "page":
            more = {"page": number} if number <= found["meta"]["total_pages"] else None
        elif paging == "offset":
            more = {"offset": len(rows)} if len(rows) < found["meta"]["total"] else None
        elif paging == "cursor":
            more = {"cursor": found["meta"]["next_cursor"]} if found["meta"]["next_cursor"] else None
        else:
            url = found.get("next") if paging == "next_url" else _next_link(answer.headers["Link"])
            if not url:
                return rows
            answer = await api.call("GET", url.removeprefix(api.sim.url))
            continue
        if more is None:
            return rows
        answer = await api.get(**size, **more, **query)
    raise AssertionError("the list never ended")


def _next_link(header: str) -> str | None:
    found = [part for part in header.split(", ") if 'rel="next"' in part]
    return found[0].partition(">")[0].lstrip("<") if found else None


@pytest.mark.parametrize("paging", ["page", "offset", "cursor", "link", "next_url"])
async def test_each_paging_walks_all_records_once(rest: Any, paging: str) -> None:
    async with rest(paging=paging) as api:
        rows = await walk(api, paging)
        assert [row["external_id"] for row in rows] == [row["external_id"] for row in samples.customers()]
        assert api.sim.record.summary()["served_times"] == 120
        assert set(api.sim.record.served.times) == {1}


@pytest.mark.parametrize("paging", ["page", "offset", "cursor", "link", "next_url"])
async def test_each_paging_keeps_the_filter(rest: Any, paging: str) -> None:
    async with rest(paging=paging, now=NOW) as api:
        rows = await walk(api, paging, updated_since="2026-11-18")
        wanted = {key for key, row in api.sim.truth().items() if row["updated_at"] >= "2026-11-18"}
        assert {row["external_id"] for row in rows} == wanted
        assert 20 < len(wanted) < 100


@pytest.mark.parametrize(
    ("auth", "headers"),
    [("bearer", {"Authorization": "Bearer s3"}), ("api_key", {"X-API-Key": "s3"}),
     ("basic", {"Authorization": "Basic " + base64.b64encode(b"sync:s3").decode()}), ("none", {})],
)  # fmt: skip
async def test_who_may_call(rest: Any, auth: str, headers: dict[str, str]) -> None:
    async with rest(auth=auth, token="s3") as api:
        assert (await api.call("GET", headers=headers)).status == 200
        refused = await api.call("GET", headers={"Authorization": "Bearer other", "X-API-Key": "other"})
        assert refused.status == (200 if auth == "none" else 401)


async def test_the_token_may_come_from_the_environment(rest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "from-the-environment")
    async with rest() as api:
        assert (await api.get()).status == 401
        assert (await api.call("GET", headers={"Authorization": "Bearer from-the-environment"})).status == 200


async def test_ids_then_details(rest: Any) -> None:
    async with rest(page_size=200) as api:
        ids = (await api.get(fields="id")).json["data"]
        assert set(ids[0]) == {"id", "external_id", "updated_at"}
        one = (await api.get(f"/{ids[0]['id']}")).json["data"]
        assert one == api.sim.truth()[ids[0]["id"]]
        assert (await api.get("/nobody")).status == 404
        summary = api.sim.record.summary()
        assert (summary["listed_times"], summary["served_times"]) == (120, 1)


@pytest.mark.parametrize("query", [{"updated_since": "32 Smarch"}, {"page": "0"}, {"page": "x"}, {"per_page": "0"}])
async def test_a_wrong_query_is_refused(rest: Any, query: dict[str, str]) -> None:
    async with rest() as api:
        assert (await api.get(**query)).status == 400


async def test_a_foreign_cursor_is_refused(rest: Any) -> None:
    async with rest(paging="cursor") as api:
        assert [(await api.get(cursor=cursor)).status for cursor in ("xyz", "ÿ", "YWZ0ZXI6eA")] == [400, 400, 400]


async def test_windows_of_time_part_the_list(rest: Any) -> None:
    async with rest(page_size=200, now=NOW) as api:
        early = (await api.get(updated_until="2026-11-18T00:00:00Z")).json["data"]
        late = (await api.get(updated_since="2026-11-18T00:00:00Z")).json["data"]
        assert len(early) + len(late) == 120


async def test_csv_rows_are_served_as_they_stand_duplicates_too(rest: Any, tmp_path: Path) -> None:
    data = tmp_path / "pets.csv"
    data.write_text('No,Name,Date\n1/2,"Wall-E, the dog",November 16 2018\n7,,\n7,Zoë,x\n', encoding="utf-8")
    async with rest(data=str(data), key="No") as api:
        rows = (await api.get()).json["data"]
        bare = [{name: value for name, value in row.items() if name != "updated_at"} for row in rows]
        assert bare == [
            {"No": "1/2", "Name": "Wall-E, the dog", "Date": "November 16 2018"},
            {"No": "7", "Name": "", "Date": ""},
            {"No": "7", "Name": "Zoë", "Date": "x"},
        ]
        assert (await api.get("/1%2F2")).json["data"]["Name"] == "Wall-E, the dog"
        assert (await api.get("/7")).json["data"]["Name"] == "Zoë"
        lines = (await api.control("/record/served")).body.splitlines()
        assert {line["key"]: line["served"] for line in map(json.loads, lines)} == {"1/2": 2, "7": 3}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("a.jsonl", '{"id":1}\n{"id":', "a.jsonl:2"), ("a.jsonl", "[1]", "a.jsonl:1"), ("a.csv", "x\n1\n", "--key")],
)
async def test_data_that_cannot_be_served_is_refused_in_words(
    rest: Any, tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        async with rest(data=str(tmp_path / name), key="id"):
            pass


async def test_the_record_agrees_with_what_was_fetched(rest: Any) -> None:
    async with rest(page_size=50) as api:
        body = (await api.get(page=2)).body
        first = json.loads(body)["data"][0]
        again = (await api.get(f"/{first['external_id']}")).body
        content = again[len(b'{"data":') : -1]
        changed = api.sim.change(120)
        assert len(changed) == 120
        lines = {line["key"]: line for line in map(json.loads, (await api.control("/record/served")).body.splitlines())}
        assert len(lines) == 50
        mine = lines[first["external_id"]]
        assert mine == {"key": first["external_id"], "listed": 0, "served": 2, "version": 1,
                        "sha256": hashlib.sha256(content).hexdigest()}  # fmt: skip


async def test_changed_records_arrive_through_the_filter_with_another_content(rest: Any) -> None:
    async with rest(page_size=1000, now=NOW) as api:
        before = api.sim.truth()
        told = await api.control("/change", count=5, at="2026-11-20T13:00:00Z")
        rows = (await api.get(updated_since="2026-11-20T12:30:00Z")).json["data"]
        assert sorted(row["external_id"] for row in rows) == sorted(told.json["changed"])
        for row in rows:
            assert row["updated_at"] == "2026-11-20T13:00:00.000000Z"
            assert row["full_name"] == f"{before[row['external_id']]['full_name'] or ''} (change 2)"


async def test_deleted_records_are_gone_from_list_and_detail(rest: Any) -> None:
    async with rest(page_size=1000) as api:
        gone = (await api.control("/delete", count=7)).json["deleted"]
        assert len(gone) == 7
        assert len((await api.get()).json["data"]) == 113
        assert (await api.get(f"/{gone[0]}")).status == 404


async def test_write_backs_are_kept_and_may_be_repeated(rest: Any) -> None:
    async with rest() as api:
        for value in ({"a": 1}, {"a": 1}, {"a": 2}):
            assert (await api.put("/C-00001", value)).json["data"]["a"] == value["a"]
        assert (await api.put("/nobody", {})).status == 404
        assert (await api.call("PUT", "/api/v1/data/C-00001", data=b"{")).status == 400
        assert (await api.put("/C-00001", [1])).status == 422
        line = json.loads((await api.control("/record/written")).body)
        assert line == {"key": "C-00001", "times": 3, "contents": 2, "value": {"a": 2}}


async def test_the_rate_limit_says_how_much_is_left(rest: Any) -> None:
    async with rest(limit=(3, 60.0)) as api:
        answers = [await api.get("/C-00001") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert [answers[n].headers["RateLimit-Remaining"] for n in range(4)] == ["2", "1", "0", "0"]
        assert 50 <= int(answers[3].headers["Retry-After"]) <= 60


async def test_it_counts_how_many_calls_it_saw_at_once(rest: Any) -> None:
    async with rest(latency=(0.05, 0.05)) as api:
        await asyncio.gather(*(api.get(f"/C-{number:05d}") for number in range(1, 16)))
        summary = (await api.control("/record")).json
        assert summary["max_in_flight"] == {"all": 15, "detail": 15}
        assert summary["requests"] == {"detail": 15}
        assert summary["keys"] == 120


# Faults that pass: each strikes a detail twice, then lets it through, so that a retry wins.

PASSING = {
    "throttle": (429, "rate_limited"),
    "error500": (500, "internal"),
    "error503": (503, None),
    "expired_token": (401, "token_expired"),
    "error_body": (200, "internal"),
}


@pytest.mark.parametrize("name", PASSING)
async def test_refusals(rest: Any, name: str) -> None:
    status, code = PASSING[name]
    async with rest(faults=(name,), burst_length=1) as api:
        answers = [await api.get("/C-00001") for _ in range(3)]
        assert [answer.status for answer in answers] == [status, status, 200]
        if code:
            assert answers[0].json["error"]["code"] == code
        assert "data" in answers[2].json
        assert api.sim.record.faults == {name: 2}
        assert api.sim.record.summary()["served_times"] == 1


async def test_a_throttle_says_when_to_come_back_in_seconds_and_as_a_date(rest: Any) -> None:
    async with rest(faults=("throttle",), max_in_a_row=0, retry_after=3, retry_after_form="both") as api:
        waits = [(await api.get("/C-00001")).headers["Retry-After"] for _ in range(2)]
        assert "3" in waits
        other = next(wait for wait in waits if wait != "3")
        assert 1 <= (parsedate_to_datetime(other) - datetime.now(UTC)).total_seconds() <= 5


async def test_a_burst_hits_many_keys_in_a_row(rest: Any) -> None:
    async with rest(faults=("burst",), burst_length=8) as api:
        api.sim.faults.set({"burst": 1})
        statuses = [(await api.get(f"/C-{number:05d}")).status for number in range(1, 9)]
        assert statuses == [503, 500] * 4


@pytest.mark.parametrize(("name", "hits"), [("truncated", 2), ("disconnect", 4)])
async def test_a_broken_connection(rest: Any, name: str, hits: int) -> None:
    async with rest(faults=(name,), max_in_a_row=hits) as api:
        for _ in range(2):  # aiohttp's client itself tries a GET once more after a disconnect: hence four hits
            with pytest.raises(aiohttp.ClientError):
                await api.get("/C-00001")
        assert (await api.get("/C-00001")).status == 200
        assert api.sim.record.summary()["served_times"] == 1


async def test_a_lost_answer_to_a_write_was_still_a_write(rest: Any) -> None:
    async with rest(faults=("truncated=1@write",), max_in_a_row=1) as api:
        with pytest.raises(aiohttp.ClientError):
            await api.put("/C-00001", {"a": 1})
        assert (await api.put("/C-00001", {"a": 1})).status == 200
        assert api.sim.record.summary()["written_times"] == 2


async def test_a_time_out_keeps_the_caller_waiting_and_lets_go_at_the_end(rest: Any) -> None:
    async with rest(faults=("timeout",)) as api:
        with pytest.raises(TimeoutError):
            await api.call("GET", timeout=aiohttp.ClientTimeout(total=0.1))
        assert api.sim.record.summary()["served_times"] == 0


async def test_a_slow_body_drips(rest: Any) -> None:
    async with rest(faults=("slow_body",), drip=10.0) as api:
        with pytest.raises(TimeoutError):
            await api.call("GET", timeout=aiohttp.ClientTimeout(total=0.2))
    async with rest(faults=("slow_body",), drip=0.02) as api:
        assert len((await api.get()).json["data"]) == 100


async def test_latency_takes_its_time(rest: Any) -> None:
    async with rest(faults=("latency",), slow=(30.0, 30.0), max_in_a_row=1) as api:
        with pytest.raises(TimeoutError):
            await api.call("GET", timeout=aiohttp.ClientTimeout(total=0.1))
        assert (await api.get()).status == 200


async def test_html_invalid_json_and_empty_are_all_200(rest: Any) -> None:
    async with rest(max_in_a_row=0) as api:
        api.sim.faults.set({"html": 1})
        page = await api.get()
        assert (page.status, page.headers["Content-Type"]) == (200, "text/html")
        assert page.body.startswith(b"<!DOCTYPE html>")
        api.sim.faults.set({"html": 0, "invalid_json": 1})
        with pytest.raises(ValueError):
            _ = (await api.get()).json
        api.sim.faults.set({"invalid_json": 0, "empty": 1})
        assert ((await api.get()).status, (await api.get()).body) == (200, b"")
        assert api.sim.record.summary()["served_times"] == 0


# Faults that stay with a record or a list.


async def test_duplicates_stand_twice_in_the_list(rest: Any) -> None:
    async with rest(faults=("duplicates=0.1",), page_size=1000) as api:
        keys = [row["id"] for row in (await api.get(fields="id")).json["data"]]
        assert len(set(keys)) == 120
        assert 122 < len(keys) < 145


async def test_vanished_records_are_listed_and_not_found(rest: Any) -> None:
    async with rest(faults=("vanish=0.1",), page_size=1000) as api:
        keys = [row["id"] for row in (await api.get(fields="id")).json["data"]]
        statuses = {key: (await api.get(f"/{key}")).status for key in keys}
        gone = [key for key, status in statuses.items() if status == 404]
        assert len(keys) == 120
        assert 2 < len(gone) < 25
        assert set(api.sim.truth()) == set(keys) - set(gone)


async def test_records_change_between_list_and_detail_each_once(rest: Any) -> None:
    async with rest(faults=("change_during_run=0.2",), page_size=1000) as api:
        listed = {row["id"]: row["updated_at"] for row in (await api.get(fields="id")).json["data"]}
        changed = [key for key, row in api.sim.truth().items() if row["updated_at"] != listed[key]]
        assert 10 < len(changed) < 40
        now = api.sim.truth()
        await api.get(fields="id")
        assert api.sim.truth() == now


@pytest.mark.parametrize("paging", ["page", "offset", "cursor", "link", "next_url"])
async def test_records_change_while_the_list_is_paged_and_none_is_missed(rest: Any, paging: str) -> None:
    async with rest(faults=("change_during_run=0.5",), paging=paging) as api:
        rows = await walk(api, paging, updated_since="2000-01-01")
        assert {row["external_id"] for row in rows} == set(api.sim.truth())


@pytest.mark.parametrize(
    ("name", "bad"),
    [("missing_required", lambda row: "full_name" not in row),
     ("wrong_type", lambda row: row["created_date"] == {"wrong": "type"}),
     ("score_out_of_range", lambda row: row["quality_score"] == 150)],
)  # fmt: skip
async def test_bad_rows_stay_bad_also_when_changed_and_mend_when_told(rest: Any, name: str, bad: Any) -> None:
    async with rest(faults=(f"{name}=0.1",), page_size=1000) as api:
        first = [row["external_id"] for row in (await api.get()).json["data"] if bad(row)]
        api.sim.change(120)
        second = [row["external_id"] for row in (await api.get()).json["data"] if bad(row)]
        assert 4 < len(first) < 25
        assert first == second
        since = max(row["updated_at"] for row in api.sim.truth().values())
        await api.control("/faults", **{name: 0})
        mended = [row["external_id"] for row in (await api.get(updated_since=since)).json["data"]]
        assert set(first) <= set(mended)
        assert {row["served"] for row in map(json.loads, (await api.control("/record/served")).body.splitlines())} == {
            2,
            3,
        }
        assert [row for row in (await api.get()).json["data"] if bad(row)] == []


async def test_a_huge_record_is_huge_in_list_and_detail(rest: Any) -> None:
    async with rest(faults=("huge_record=0.01",), huge_bytes=3_000_000, page_size=1000) as api:
        rows = (await api.get()).json["data"]
        huge = [row["external_id"] for row in rows if len(row.get("padding", "")) == 3_000_000]
        assert 1 <= len(huge) <= 4
        assert len((await api.get(f"/{huge[0]}")).body) > 3_000_000


@pytest.mark.parametrize("paging", ["page", "offset", "cursor", "link", "next_url"])
async def test_an_endless_list_never_ends(rest: Any, paging: str) -> None:
    async with rest(faults=("endless_list",), paging=paging) as api:
        with pytest.raises(AssertionError, match="never ended"):
            await walk(api, paging)


async def test_faults_change_while_it_runs_and_wrong_ones_are_refused(rest: Any) -> None:
    async with rest() as api:
        assert (await api.control("/faults", error500=1)).json == {"faults": {"error500": 1.0}}
        assert (await api.get()).status == 500
        refused = await api.control("/faults", function_error=1)
        assert refused.status == 400
        assert "Known: expired_token" in refused.json["error"]
        assert (await api.control("/nonsense")).status == 404
        assert (await api.control("/change", count="x")).status == 400


async def test_wrong_settings_are_refused() -> None:
    for wrong in ({"paging": "x"}, {"auth": "x"}, {"faults": ("x",)}):
        with pytest.raises(ValueError, match="Known"):
            async with customer_api.serve(customer_api.Options(**wrong)):
                pass


async def test_its_own_customers_are_the_same_each_time_and_some_are_bad() -> None:
    rows = list(samples.customers())
    assert rows == list(samples.customers())
    scores = [row["quality_score"] for row in rows if isinstance(row["quality_score"], int)]
    bands = [
        sum(score >= 80 for score in scores),
        sum(50 <= score < 80 for score in scores),
        sum(score < 50 for score in scores),
    ]
    assert min(bands) > 20
    assert all(rows[number - 1].items() >= bad.items() for number, bad in samples.BAD_CUSTOMERS.items())


async def test_the_clock_can_be_moved(rest: Any) -> None:
    async with rest(limit=(1, 3600.0)) as api:
        assert [(await api.get()).status for _ in range(2)] == [200, 429]
        before = api.sim.clock()
        told = await api.control("/clock", forward=3600)
        assert 3600 <= told.json["now"] - before < 3700
        assert (await api.get()).status == 200
