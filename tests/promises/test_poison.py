"""Promise 5: a record that kills its worker ends in a case after k crashes; it never stops the others."""

from __future__ import annotations

import pytest

from tests.promises.support import FLOW, accounts_hold, eventually

# The project's own code, on its worst day: it ends the process when it sees one record.
KILLER = """
import os

def judge(record):
    if record["id"] == os.environ.get("POISON", "P00013"):
        os._exit(66)
    return "VALID"

def mapper(record):
    if record["id"] == "P00013":
        os._exit(66)
    return {name: record.get(name) for name in ("id", "name", "email", "score")}
"""
DEATH = 66


@pytest.mark.parametrize("detail", [True, False], ids=["detail", "pages"])
@pytest.mark.parametrize("by", [{"decision": "judge"}, {"mapper": "mapper"}], ids=["judge", "mapper"])
async def test_a_poisoned_record_of_a_run_ends_in_a_case(project, detail: bool, by: dict[str, str]):
    made, _ = project(count=50, page=20, chunk=20, detail=detail, functions=KILLER, retry="crashes: 3", **by)
    deaths = 0
    while (code := await made.finish("run", FLOW)) == DEATH:
        deaths += 1
        assert deaths <= 8, "the run dies for ever"
    assert code == 0
    run, items = await made.run(), await made.items()
    assert (run["state"], run["found"], run["inserted"], run["failed"]) == ("partial", 50, 49, 1)
    assert items.keys() == {"P00013"}
    assert (items["P00013"]["state"], items["P00013"]["fault"]) == ("PERMANENT_ERROR", "crashed")
    assert items["P00013"]["case_id"] is not None
    if detail:  # details come in any order: where other records were settled between two deaths, those did not count
        assert 3 <= deaths <= 6
    else:
        assert deaths == 3, "so many workers died of it as were declared"
    assert "P00013" not in await made.table()
    await accounts_hold(made)


async def test_two_poisoned_records_in_one_chunk(project):
    functions = KILLER.replace('os.environ.get("POISON", "P00013")', '"P00013"').replace(
        '== "P00013"', 'in ("P00013", "P00031")'
    )
    made, _ = project(
        count=50, page=50, chunk=50, detail=False, functions=functions, decision="judge", retry="crashes: 3"
    )
    codes = []
    while not codes or codes[-1] == DEATH:
        codes.append(await made.finish("run", FLOW))
        assert len(codes) < 16, "the run dies for ever"
    assert codes[-1] == 0
    items = await made.items()
    assert {key: item["fault"] for key, item in items.items()} == {"P00013": "crashed", "P00031": "crashed"}
    assert len(await made.table()) == 48
    await accounts_hold(made)


async def test_a_poisoned_item_ends_in_a_case_and_takes_nobody_with_it(project):
    """Retries: claimed with ninety-nine others the first time, alone after that."""
    made, other = project("--fault", "error503=1@detail", "--max-in-a-row", "0", count=30, functions=KILLER, decision="judge",
                          retry="tries: 1, crashes: 3", pull="breaker_failures: 1000")  # fmt: skip
    assert await made.finish("run", FLOW) == 0
    assert (await made.run())["failed"] == 30
    other.faults(error503=0)
    deaths = 0

    async def all_told() -> bool:
        nonlocal deaths
        deaths += await made.finish("items", FLOW) == DEATH
        return all(item["next_action_at"] is None for item in (await made.items()).values())

    await eventually(all_told, "every item is settled or in a case", 60)
    items = await made.items()
    assert (items["P00013"]["state"], items["P00013"]["fault"]) == ("PERMANENT_ERROR", "crashed")
    assert {item["state"] for key, item in items.items() if key != "P00013"} == {"SUCCESS"}
    assert deaths == 3
    await accounts_hold(made)
