"""The five ways in which the customer API pages a list: page, offset, cursor, Link header, next URL in the body.

Each way is a function from the query to a Page; a table names them. Cursors stand on the last record sent, so a list that
changes while it is read loses nothing; page and offset count, as such APIs do, and can shift.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from counterfoil.simulators.record import Positions
from counterfoil.simulators.store import after

MAX_SIZE = 1000
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Listing:
    """The list to page: all positions of it, the URL it stands at, and whether it never ends."""

    positions: Positions
    url: str
    size: int
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its positions, the `meta` beside the items, members beside `meta`, and headers."""

    positions: Positions
    meta: dict[str, object]
    beside: dict[str, object] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


def whole(query: Query, name: str, default: int, least: int = 0) -> int:
    """A whole number from the query. ValueError in words for the caller when it is none or too small."""
    text = query.get(name, str(default))
    if not text.isdigit() or int(text) < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {text!r}.")
    return int(text)


def _size(query: Query, name: str, listing: Listing) -> int:
    return min(whole(query, name, listing.size, 1), MAX_SIZE)


def _numbered(query: Query, listing: Listing) -> tuple[Positions, int, int, int, bool]:
    size, number = _size(query, "per_page", listing), whole(query, "page", 1, 1)
    last = max(1, -(-len(listing.positions) // size))
    start = (min(number, last) if listing.endless else number) - 1
    return listing.positions[start * size : (start + 1) * size], number, size, last, number < last or listing.endless


def by_page(query: Query, listing: Listing) -> Page:
    """?page=1&per_page=100; meta says page, per_page, total, total_pages. A page past the end is empty."""
    found, number, size, last, _ = _numbered(query, listing)
    total = 10**9 if listing.endless else len(listing.positions)
    pages = 10**7 if listing.endless else last
    return Page(found, {"page": number, "per_page": size, "total": total, "total_pages": pages})


def by_offset(query: Query, listing: Listing) -> Page:
    """?offset=0&limit=100; meta says offset, limit, total. Past the end it is empty."""
    size, offset = _size(query, "limit", listing), whole(query, "offset", 0)
    start = min(offset, max(0, len(listing.positions) - size)) if listing.endless else offset
    total = 10**9 if listing.endless else len(listing.positions)
    return Page(listing.positions[start : start + size], {"offset": offset, "limit": size, "total": total})


def by_cursor(query: Query, listing: Listing) -> Page:
    """?cursor=...&limit=100; meta.next_cursor is the next one, null at the end. An unknown cursor is refused."""
    size = _size(query, "limit", listing)
    start = after(listing.positions, _position(query["cursor"])) if query.get("cursor") else 0
    found = listing.positions[start : start + size]
    if listing.endless:
        found = found or listing.positions[-size:]
        return Page(found, {"next_cursor": _cursor(found[-1]) if found else _cursor(0)})
    more = start + size < len(listing.positions)
    return Page(found, {"next_cursor": _cursor(found[-1]) if more and found else None})


def by_link(query: Query, listing: Listing) -> Page:
    """?page=1&per_page=100; the Link header names first, prev, next and last."""
    found, number, size, last, more = _numbered(query, listing)
    numbers = {"first": 1, "prev": number - 1, "next": number + 1 if more else 0, "last": last}
    rest = {name: value for name, value in query.items() if name not in ("page", "per_page")}
    links = [
        f'<{listing.url}?{urlencode({**rest, "page": n, "per_page": size})}>; rel="{rel}"'
        for rel, n in numbers.items()
        if n
    ]
    return Page(found, {"count": len(found)}, headers={"Link": ", ".join(links)})


def by_next_url(query: Query, listing: Listing) -> Page:
    """?page=1&per_page=100; `next` in the body is the whole URL of the next page, null at the end."""
    found, number, size, _, more = _numbered(query, listing)
    rest = {name: value for name, value in query.items() if name not in ("page", "per_page")}
    following = f"{listing.url}?{urlencode({**rest, 'page': number + 1, 'per_page': size})}" if more else None
    return Page(found, {"count": len(found)}, {"next": following})


STYLES: dict[str, Callable[[Query, Listing], Page]] = {
    "page": by_page,
    "offset": by_offset,
    "cursor": by_cursor,
    "link": by_link,
    "next_url": by_next_url,
}


def _cursor(position: int) -> str:
    return base64.urlsafe_b64encode(f"after:{position}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    word, _, number = text.partition(":")
    if word != "after" or not number.isdigit():
        raise ValueError(f"cursor {cursor!r} is not one of ours.")
    return int(number)
