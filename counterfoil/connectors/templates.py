"""Placeholders of a declared call: `{since}` `{until}` `{key}` `{cursor}` in a query, a path or a payload.

Only these names are replaced; other braces are text. A parameter whose placeholder has no value is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from yarl import URL

from counterfoil.flows.flow import Granularity, Watermark
from counterfoil.model.errors import Misconfigured, Refused
from counterfoil.model.run import Window

Values = Mapping[str, str | None]

_PLACEHOLDER = re.compile(r"\{(since|until|key|cursor)\}")
_KEY_MARK = "0counterfoil0key0"  # stands for {key} while the rest of a URL is encoded


def moments(window: Window, watermark: Watermark | None) -> dict[str, str | None]:
    """`since` and `until` as the source wants them: ISO 8601 in UTC, or a date in the source's time zone.

    A date `until` is rounded up to the next day: a source may read it as exclusive, and a record twice is no loss.
    """
    shape = watermark or Watermark()
    if shape.granularity is Granularity.TIME:
        return {"since": _instant(window.since), "until": _instant(window.until)}
    zone = ZoneInfo(shape.timezone)
    return {"since": _day(window.since, zone), "until": _day(window.until, zone, round_up=True)}


def fill_query(template: Mapping[str, str], values: Values) -> dict[str, str]:
    """The parameters whose placeholders all have a value."""
    filled = ((name, _fill(str(value), values)) for name, value in template.items())
    return {name: value for name, value in filled if value is not None}


def fill_payload(template: Any, values: Values) -> Any:
    """A nested payload with its placeholders replaced; an entry of a mapping or list without a value is left out."""
    if isinstance(template, str):
        return _fill(template, values)
    if isinstance(template, Mapping):
        pairs = {name: fill_payload(inner, values) for name, inner in template.items()}
        return {name: value for name, value in pairs.items() if value is not None or template[name] is None}
    if isinstance(template, list | tuple):
        made = [(inner, fill_payload(inner, values)) for inner in template]
        return [value for inner, value in made if value is not None or inner is None]
    return template


def with_query(url: URL, query: Mapping[str, str]) -> URL:
    """`url` with parameters added, everything percent-encoded (signed URLs need the strict form)."""
    if not query:
        return url
    added = urlencode({**url.query, **query}, quote_via=quote, safe="")
    return URL(f"{str(url.with_query(None)).rstrip('?')}?{added}", encoded=True)


def http_url(text: str, remedy: str) -> URL:
    """The declared address of a source. Raises Misconfigured with `remedy` for what is no http or https address."""
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        usable = False
    if not usable:
        raise Misconfigured("`source.url` is no http or https address.", remedy)
    return url


def join_url(base: URL, path: str) -> URL:
    """The path of a call under the base URL, whose own path stays: `https://h/v2` and `/items` give `https://h/v2/items`."""
    return URL(f"{str(base).rstrip('/')}/{path.lstrip('/')}") if path else base


def key_url(base: URL, path: str, query: Mapping[str, str]) -> Callable[[str], URL]:
    """A function from a key to the URL of its record. The key is encoded fully, `/` and dots-only keys too."""
    marked = {name: value.replace("{key}", _KEY_MARK) for name, value in fill_query(query, {"key": _KEY_MARK}).items()}
    parts = str(with_query(join_url(base, path.replace("{key}", _KEY_MARK)), marked)).split(_KEY_MARK)
    if len(parts) == 1:
        raise Misconfigured(
            "The call for one record does not say where the key goes.", "Put {key} into its path or query."
        )
    return lambda key: URL(_encoded(key).join(parts), encoded=True)


def _encoded(key: str) -> str:
    if not key:
        raise Refused("The key of the record is empty.", "Look at `source.key`.", fault="empty_key")
    encoded = quote(key, safe="")
    return encoded if key.strip(".") else encoded.replace(".", "%2E")  # `..` would climb to the list


def _fill(text: str, values: Values) -> str | None:
    names = _PLACEHOLDER.findall(text)
    if any(values.get(name) is None for name in names):
        return None
    return _PLACEHOLDER.sub(lambda match: str(values[match.group(1)]), text) if names else text


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _day(moment: datetime | None, zone: ZoneInfo, *, round_up: bool = False) -> str | None:
    if moment is None:
        return None
    local = moment.astimezone(zone)
    into_day = local.replace(hour=0, minute=0, second=0, microsecond=0) != local
    return (local.date() + timedelta(days=1 if round_up and into_day else 0)).isoformat()
