"""The proof of a delivery as a folder: enough to show to somebody who doubts it. Reads the ledger, writes files, changes nothing.

What is in it was redacted when it was written down; the hashes are of the real bodies. SHA256SUMS lists the folder's own files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from counterfoil.model.errors import UsageError
from counterfoil.monitor.explain import Delivered, Story

Row = Mapping[str, Any]

_README = """The proof of one delivery, written by Counterfoil {version} on {at}.

story.txt        what happened, in sentences
item.json        the item as it stands, without its payload
events.jsonl     every change of its state: when, what, who, why, before and after
attempts.jsonl   every try: when, by which worker, under which identity
exchanges/       every request that left and its answer: time, address, status, sizes, SHA-256; bodies as far as they may be kept
steps.jsonl      its way through the other side's systems, as that told it
SHA256SUMS       of these files: `sha256sum -c SHA256SUMS`

Sizes and hashes of requests and answers are of what really went over the wire, also where a body is kept in part or not at all.
Times are UTC.
"""


def write(
    folder: Path,
    item: Row,
    events: Sequence[Row],
    attempts: Sequence[Row],
    delivered: Delivered,
    story: Story,
    *,
    version: str,
) -> list[Path]:
    """The files written. Raises UsageError where the folder is there already and not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already.", "Name a new folder.")
    (folder / "exchanges").mkdir(parents=True, exist_ok=True)
    at = datetime.now(UTC)
    written = [
        _text(folder / "README.txt", _README.format(version=version, at=f"{at:%Y-%m-%d %H:%M:%S} UTC")),
        _text(folder / "story.txt", _story(item, story)),
        _json(folder / "item.json", {name: value for name, value in item.items() if name != "payload"}),
        _lines(folder / "events.jsonl", events),
        _lines(folder / "attempts.jsonl", attempts),
        _lines(folder / "steps.jsonl", delivered.steps),
    ]
    for number, one in enumerate(delivered.exchanges, 1):
        written += _exchange(folder / "exchanges", number, one)
    sums = "".join(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(written))
    return [*written, _text(folder / "SHA256SUMS", sums)]


def _story(item: Row, story: Story) -> str:
    head = f"Item {item['id']}, key {item['key']}, flow {item['flow']}: {item['state']}"
    parts = [
        ("", story.now),
        ("What happened:", story.history),
        ("What was exchanged:", story.exchanges),
        ("Its way there:", story.steps),
    ]
    blocks = ["\n".join([*([title] if title else []), *lines]) for title, lines in parts if lines]
    return "\n\n".join([head, *blocks]) + "\n"


def _exchange(folder: Path, number: int, one: Row) -> list[Path]:
    """The facts of an exchange, and its bodies where they were kept."""
    name = f"{number:03d}-{one['kind']}"
    facts = {key: value for key, value in one.items() if key not in ("request", "reply")}
    written = [_json(folder / f"{name}.json", facts)]
    for part in ("request", "reply"):
        if one[part] is not None:
            written.append(_text(folder / f"{name}-{part}.txt", one[part] + "\n"))
    return written


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _json(path: Path, value: Row) -> Path:
    return _text(path, msgspec.json.format(msgspec.json.encode(_plain(value)), indent=2).decode() + "\n")


def _lines(path: Path, rows: Sequence[Row]) -> Path:
    return _text(path, "".join(msgspec.json.encode(_plain(row)).decode() + "\n" for row in rows))


def _plain(row: Row) -> dict[str, Any]:
    return {str(name): _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value) if isinstance(value, UUID) else value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
