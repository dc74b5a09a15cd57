"""Acts by hand on items: who is meant, what becomes of each, and what is left alone, on a real ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from counterfoil.ledger import items as ledger_items
from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import NotFoundError, UsageError
from counterfoil.model.item import ItemEvent, ItemState
from counterfoil.operations import items
from counterfoil.operations.items import ACTS, CHUNK, Doing, Filter, Select, Touched
from tests.support import act, register, row_of, start_worker


@pytest.fixture
async def pets(app: Any) -> Any:
    """Three items that a person owns, one that is done, one in another flow with the same key."""
    await register(app, "pets", "dogs")
    await act(app, "pets", ItemEvent.FAIL, "a", "b", fault="http_400", problem="No.")
    await act(app, "pets", ItemEvent.REVIEW, "c", fault="score", problem="Hm.")
    await act(app, "pets", ItemEvent.FAIL_TEMPORARILY, "d", fault="http_503", problem="Later.")
    await act(app, "pets", ItemEvent.LOAD, "d")
    await act(app, "dogs", ItemEvent.FAIL, "a", fault="http_400", problem="No.")
    return app


async def _done(ledger: Ledger, name: str, select: Select) -> list[Touched]:
    chunks = items.act(ledger, name, select, Doing("ana@desk", "mended", reference="R-1"))
    return [touched async for chunk in chunks for touched in chunk]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("retry", "QUEUED"),
        ("release", "QUEUED"),
        ("cancel", "CANCELLED"),
        ("archive", "ARCHIVED"),
        ("transfer", "TRANSFERRED"),
    ],
)
async def test_each_act_moves_and_is_recorded(ledger: Ledger, pets: Any, name: str, state: str) -> None:
    (touched,) = await _done(ledger, name, Select(("c",), Filter(flow="pets")))
    assert (touched.changed, touched.to) == (True, ItemState(state))
    row = await row_of(pets, "c")
    assert row["state"] == state
    event = await pets.fetchrow("select event, actor, reason from counterfoil.item_event order by id desc limit 1")
    assert tuple(event) == (ACTS[name].value, "ana@desk", "mended")


async def test_a_filter_means_only_what_is_unfinished(ledger: Ledger, pets: Any) -> None:
    touched = await _done(ledger, "retry", Select(filter=Filter(flow="pets")))
    assert sorted(t.target.key for t in touched) == ["a", "b", "c"]
    assert all(t.changed for t in touched)
    assert (await row_of(pets, "a", "dogs"))["state"] == "PERMANENT_ERROR"


async def test_a_filter_by_state_and_fault(ledger: Ledger, pets: Any) -> None:
    chosen = items.parse_where("flow=pets state=permanent_error fault=http_400")
    assert chosen == Filter("pets", ItemState.PERMANENT_ERROR, "http_400")
    assert sorted(t.target.key for t in await _done(ledger, "archive", Select(filter=chosen))) == ["a", "b"]


async def test_what_is_settled_is_left_alone_and_told(ledger: Ledger, pets: Any) -> None:
    (touched,) = await _done(ledger, "cancel", Select(("d",)))
    assert not touched.changed
    assert "`cancel` changes nothing there" in touched.why
    assert (await row_of(pets, "d"))["state"] == "SUCCESS"


async def test_the_same_act_again_changes_nothing(ledger: Ledger, pets: Any) -> None:
    first = await _done(ledger, "retry", Select(("b",)))
    again = await _done(ledger, "retry", Select(("b",)))
    assert [first[0].changed, again[0].changed] == [True, False]


async def test_a_held_item_waits_for_its_attempt(ledger: Ledger, pets: Any) -> None:
    await _done(ledger, "retry", Select(("b",)))
    await ledger_items.claim(pets, "pets", limit=10, lease=timedelta(hours=1), worker=await start_worker(pets))
    (touched,) = await _done(ledger, "cancel", Select(("b",)))
    assert not touched.changed
    assert "An attempt has it" in touched.why


async def test_a_preview_changes_nothing_and_says_the_same(ledger: Ledger, pets: Any) -> None:
    select = Select(filter=Filter(flow="pets"))
    before = await pets.fetchval("select count(*) from counterfoil.item_event")
    seen = [t async for chunk in items.preview(ledger, "release", select) for t in chunk]
    assert await pets.fetchval("select count(*) from counterfoil.item_event") == before
    assert [(t.target, t.changed, t.to) for t in seen] == [
        (t.target, t.changed, t.to) for t in await _done(ledger, "release", select)
    ]


async def test_more_than_a_chunk(ledger: Ledger, app: Any) -> None:
    await register(app, "pets")
    number = CHUNK * 2 + 7
    await act(app, "pets", ItemEvent.FAIL, *[f"k{n:05}" for n in range(number)], fault="x", problem="No.")
    select = Select(filter=Filter(flow="pets", state=ItemState.PERMANENT_ERROR))
    assert await items.count(ledger, select) == number
    touched = await _done(ledger, "retry", select)
    assert len({t.target.id for t in touched}) == len(touched) == number
    assert await app.fetchval("select count(*) from counterfoil.item where state = 'QUEUED'") == number


async def test_a_key_of_two_flows_is_not_guessed(ledger: Ledger, pets: Any) -> None:
    with pytest.raises(UsageError, match="may mean id:"):
        await items.count(ledger, Select(("a",)))
    assert await items.count(ledger, Select(("a",), Filter(flow="dogs"))) == 1


async def test_a_number_that_is_a_key_and_another_id_is_not_guessed(ledger: Ledger, pets: Any) -> None:
    other = (await row_of(pets, "a"))["id"]
    await act(pets, "pets", ItemEvent.FAIL, str(other), fault="x", problem="No.")
    async with ledger.session() as session:
        with pytest.raises(UsageError, match="may mean id:"):
            await items.one(session, str(other))
        assert (await items.one(session, f"id:{other}"))["key"] == "a"
        assert (await items.one(session, f"key:{other}"))["key"] == str(other)


async def test_an_unknown_name_stops_before_anything(ledger: Ledger, pets: Any) -> None:
    with pytest.raises(NotFoundError, match="There is no item `zzz`"):
        await items.count(ledger, Select(("b", "zzz")))


def test_nothing_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="which items are meant"):
        Select()


@pytest.mark.parametrize(
    "text", ["state", "state=", "colour=red", "state=NEW", "state=A state=B", "case=x", "state=QUEUED or"]
)
def test_where_is_read_strictly(text: str) -> None:
    with pytest.raises(UsageError):
        items.parse_where(text)
