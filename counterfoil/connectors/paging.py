"""How a list goes on: the place in a list as a small value, and the step from one page to the next. Pure; no requests here.

Where a page or offset list ends: at an empty page, or at a page shorter than the first one. A first page shorter than the size
asked for is not the end: many servers cap the size below what is asked, so the next page is asked for too.
A list that never ends is found by: the same page twice, the same cursor or URL again (Brent's cycle search: one mark is kept,
however long the list), or more than `limits.pages` pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from counterfoil.flows.flow import Paging, PagingStyle
from counterfoil.model.errors import Misconfigured, Refused
from counterfoil.model.ports import Cursor

AFTER_THE_END = frozenset({400, 404, 416, 422})  # what some servers answer for the page after a short last one
FOLLOWED = frozenset({PagingStyle.CURSOR, PagingStyle.LINK, PagingStyle.NEXT_URL})


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """The next page to ask for. Becomes the JSON cursor and is enough to go on in another process."""

    number: int = 1  # of the page, counted by us
    at: str | int | None = None  # page number, offset, cursor or URL; None: the first page
    first: int = 0  # entries on the first page
    before: int = 0  # entries on the page before
    digest: str = ""  # of the page before
    mark: str | int | None = None  # an earlier `at`, kept while the number of pages doubles


def load_place(paging: Paging, cursor: Cursor | None) -> Place:
    """Raises Refused (`unknown_cursor`) for a cursor made by another connector or another style of paging."""
    try:
        place = msgspec.convert(cursor or {}, Place)
    except msgspec.ValidationError:
        place = None
    numbered = paging.style in (PagingStyle.PAGE, PagingStyle.OFFSET)
    if place is None or (numbered and isinstance(place.at, str)):
        raise Refused("The stored place in the list cannot be read.", "Start a new run.", fault="unknown_cursor")
    return place


def save_place(place: Place | None) -> Cursor | None:
    return None if place is None else msgspec.to_builtins(place)


def paging_query(paging: Paging, place: Place) -> dict[str, str]:
    """The parameters for the page at `place`."""
    query = {paging.size_param: str(paging.size)} if paging.size_param else {}
    if paging.param and paging.style is PagingStyle.PAGE:
        query[paging.param] = str(paging.first if place.at is None else place.at)
    elif paging.param and paging.style is PagingStyle.OFFSET:
        query[paging.param] = str(place.at or 0)
    elif paging.param and paging.style is PagingStyle.CURSOR and place.at is not None:
        query[paging.param] = str(place.at)
    return query


def ended_by_refusal(paging: Paging, place: Place, status: int) -> bool:
    """True: the page before was short, and the source answers the page after it with "there is none"."""
    numbered = paging.style in (PagingStyle.PAGE, PagingStyle.OFFSET)
    return numbered and status in AFTER_THE_END and place.number > 1 and place.before < paging.size


def next_place(
    paging: Paging, place: Place, *, count: int, digest: str, follow: Any, pages: int, where: str
) -> Place | None:
    """The place after a page of `count` entries; None: the list has ended. Raises Refused (`endless_list`)."""
    at = _NEXT[paging.style](paging, place, count, follow)
    if at is None:
        return None
    if place.number >= pages:
        raise _endless(f"{where}: the list has more than {pages} pages.", "Raise `limits.pages` if that is expected.")
    if digest and digest == place.digest:
        raise _endless(
            f"{where}: page {place.number} has the same entries as the page before it.",
            "The source seems not to honour its paging parameter; look at `list.paging`.",
        )
    if paging.style in FOLLOWED and at in (place.at, place.mark):
        raise _endless(
            f"{where}: after page {place.number} the source leads back to an earlier page.", "Tell its owner."
        )
    mark = at if place.number & (place.number - 1) == 0 else place.mark
    return Place(place.number + 1, at, place.first or count, count, digest, mark)


def check_paging(paging: Paging, items: str) -> None:
    """Raises Misconfigured for a style that lacks what it needs."""
    wanted: Mapping[PagingStyle, tuple[str, ...]] = {
        PagingStyle.PAGE: ("param",),
        PagingStyle.OFFSET: ("param",),
        PagingStyle.CURSOR: ("next_at",),
        PagingStyle.NEXT_URL: ("next_at",),
    }
    for name in wanted.get(paging.style, ()):
        if not getattr(paging, name):
            raise Misconfigured(f"`list.paging` of style {paging.style} has no `{name}`.", f"Add `{name}`.")
    if paging.next_at and not items:
        raise Misconfigured(
            "`list.paging.next_at` is set, but `list.items` says that the whole body is the list.",
            "Say in `list.items` where the list stands.",
        )


def _by_count(paging: Paging, place: Place, count: int) -> bool:
    return count == 0 or (place.number > 1 and count < place.first)


def _next_page(paging: Paging, place: Place, count: int, follow: Any) -> int | None:
    here = paging.first if place.at is None else int(place.at)
    return None if _by_count(paging, place, count) else here + 1


def _next_offset(paging: Paging, place: Place, count: int, follow: Any) -> int | None:
    return None if _by_count(paging, place, count) else int(place.at or 0) + count


def _next_given(paging: Paging, place: Place, count: int, follow: Any) -> str | int | None:
    if follow is None or follow is False or follow == "":
        return None
    if isinstance(follow, bool | dict | list):
        raise Refused(
            "The value at `list.paging.next_at` is no text and no number.", "Look at that path.", fault="bad_next"
        )
    return follow if isinstance(follow, str | int) else str(follow)


_NEXT: Mapping[PagingStyle, Callable[[Paging, Place, int, Any], str | int | None]] = {
    PagingStyle.NONE: lambda paging, place, count, follow: None,
    PagingStyle.PAGE: _next_page,
    PagingStyle.OFFSET: _next_offset,
    PagingStyle.CURSOR: _next_given,
    PagingStyle.LINK: _next_given,
    PagingStyle.NEXT_URL: _next_given,
}


def _endless(problem: str, remedy: str) -> Refused:
    return Refused(problem, remedy, fault="endless_list")
