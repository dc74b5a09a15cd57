"""Where a list goes on and where it ends, without a server; then each style against the simulated customer API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from counterfoil.connectors.paging import Place, next_place
from counterfoil.connectors.registry import build_source
from counterfoil.flows.flow import Auth, AuthType, ListCall, Paging, PagingStyle, SourceSpec
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import Refused
from counterfoil.model.run import Window
from counterfoil.simulators import customer_api
from counterfoil.testing.source_suite import pages_of

PAGE = Paging(PagingStyle.PAGE, param="page", size=10, first=0)
OFFSET = Paging(PagingStyle.OFFSET, param="offset", size=10)
CURSOR = Paging(PagingStyle.CURSOR, param="cursor", next_at="next")


def walk(paging: Paging, served: Callable[[int], tuple[int, object]], most: int = 500) -> list[Place]:
    """The places asked for. `served` gives count and next value for the nth page, from 0."""
    place: Place | None = Place()
    places: list[Place] = []
    while place is not None:
        count, follow = served(len(places))
        places.append(place)
        place = next_place(
            paging, place, count=count, digest=f"page {len(places)}", follow=follow, pages=most, where="here"
        )
    return places


@pytest.mark.parametrize(
    ("counts", "asked"),
    [
        ([0], 1),
        ([10, 10, 0], 3),
        ([10, 10, 4], 3),
        ([3, 0], 2),  # short at once: the source may cap the size, so one more is asked for
        ([3, 3, 3, 1], 4),
        ([3, 3, 0], 3),
    ],
)
def test_where_a_counted_list_ends(counts: list[int], asked: int) -> None:
    pages = walk(PAGE, lambda nth: (counts[nth], None))
    assert [place.at for place in pages] == [None, *range(1, asked)]
    offsets = walk(OFFSET, lambda nth: (counts[nth], None))
    assert [place.at for place in offsets] == [None, *(sum(counts[:nth]) for nth in range(1, asked))]


@pytest.mark.parametrize("end", [None, "", False])
def test_where_a_followed_list_ends(end: object) -> None:
    assert len(walk(CURSOR, lambda nth: (0 if nth == 1 else 5, f"c{nth}" if nth < 3 else end))) == 4


@pytest.mark.parametrize("lead", [0, 1, 5, 30])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 40])
def test_cursors_that_go_round_are_found_out_soon(lead: int, length: int) -> None:
    asked = []

    def served(nth: int) -> tuple[int, object]:
        asked.append(nth)
        return 5, nth if nth < lead else lead + (nth - lead) % length

    with pytest.raises(Refused) as caught:
        walk(CURSOR, served)
    assert caught.value.fault == "endless_list"
    assert len(asked) <= 3 * (lead + length) + 4


def test_a_long_list_of_different_cursors_is_no_circle() -> None:
    assert len(walk(CURSOR, lambda nth: (5, f"c{nth}" if nth < 400 else None))) == 401


def test_more_pages_than_declared() -> None:
    with pytest.raises(Refused, match="more than 5 pages"):
        walk(PAGE, lambda nth: (10, None), most=5)


@pytest.mark.parametrize("follow", [{}, ["x"], True])
def test_a_next_value_that_is_none(follow: object) -> None:
    with pytest.raises(Refused, match="next_at"):
        walk(CURSOR, lambda nth: (5, follow))


STYLES = {
    "page": Paging(PagingStyle.PAGE, param="page", size_param="per_page", size=7),
    "offset": Paging(PagingStyle.OFFSET, param="offset", size_param="limit", size=7),
    "cursor": Paging(PagingStyle.CURSOR, param="cursor", size_param="limit", size=7, next_at="meta.next_cursor"),
    "link": Paging(PagingStyle.LINK, size_param="per_page", size=7),
    "next_url": Paging(PagingStyle.NEXT_URL, size_param="per_page", size=7, next_at="next"),
}


@pytest.mark.parametrize("style", STYLES)
async def test_each_style_reads_the_simulated_list_whole(style: str) -> None:
    async with customer_api.serve(customer_api.Options(paging=style, token="t")) as side:
        spec = SourceSpec(
            "http",
            url=side.url,
            auth=Auth(AuthType.BEARER, {"token": "t"}),
            list=ListCall("/api/v1/data", items="data", paging=STYLES[style]),
        )
        source = build_source(spec, environment={}, folder=Path(), concurrency=1, clock=SystemClock())
        pages = await pages_of(source, Window())
        await source.close()
        keys = [json.loads(entry)["external_id"] for page in pages for entry in page.entries]
        assert sorted(keys) == sorted(side.store.keys)
