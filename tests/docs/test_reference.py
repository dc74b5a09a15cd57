"""Reference pages are complete, and name nothing that is not there: each is compared with the code or with the migrated schema."""

from __future__ import annotations

import re
from typing import Any

from counterfoil.model import errors
from tests.docs import sources
from tests.docs.sources import DOCS, first_cells

REFERENCE = DOCS / "reference"

WORDS = {
    "flow", "item", "run", "attempt", "receipt", "step", "batch", "case", "move", "chunk", "slice", "gate", "watermark", "window",
    "overlap", "look-back", "found", "inserted", "updated", "unchanged", "rejected", "review", "failed", "outcome",
}  # fmt: skip


def test_every_fault_word_has_its_row() -> None:
    # misconfigured errors without a word of their own; and the words of classes that others may raise
    assert set(first_cells(REFERENCE / "faults.md")) == sources.fault_words()


def test_a_fault_word_stands_once() -> None:
    words = first_cells(REFERENCE / "faults.md")
    assert len(words) == len(set(words))


def test_every_log_event_has_its_row() -> None:
    assert set(first_cells(REFERENCE / "log-events.md")) == sources.log_events()


async def test_every_table_and_column_has_its_row(owner: Any) -> None:
    rows = await owner.fetch(
        """select table_name, column_name from information_schema.columns where table_schema = 'counterfoil'
           and table_name in (select table_name from information_schema.tables
                              where table_schema = 'counterfoil' and table_type = 'BASE TABLE')"""
    )
    there: dict[str, set[str]] = {}
    for row in rows:
        there.setdefault(row["table_name"], set()).add(row["column_name"])
    page = REFERENCE / "tables.md"
    told = {name: set(first_cells(page, heading=name)) for name in re.findall(r"^## (\w+)$", page.read_text(), re.M)}
    assert told == there


async def test_every_public_function_is_told(owner: Any) -> None:
    rows = await owner.fetch(
        """select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
           where n.nspname = 'counterfoil' and has_function_privilege('counterfoil_app', p.oid, 'execute')"""
    )
    text = (REFERENCE / "sql-functions.md").read_text("utf-8")
    assert [row["proname"] for row in rows if f"`{row['proname']}(" not in text] == []
    assert rows


async def test_every_error_of_the_schema_is_told(owner: Any) -> None:
    sources_of = await owner.fetch(
        "select prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'counterfoil'"
    )
    raised = set(re.findall(r"errcode = '(CF\d+)'", " ".join(row["prosrc"] for row in sources_of)))
    assert set(first_cells(REFERENCE / "sql-functions.md")) >= raised
    assert raised


def test_every_exit_code_has_its_row() -> None:
    given = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CounterfoilError)
    }
    text = (REFERENCE / "exit-codes.md").read_text("utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
    assert told == given | {0, 5}


def test_the_glossary_has_each_noun_once() -> None:
    text = (REFERENCE / "words.md").read_text("utf-8")
    told = [word for row in re.findall(r"^\| (\*\*.+?\*\*) \|", text, re.M) for word in re.split(r", ", row.strip("*"))]
    assert len(told) == len(set(told))
    assert set(told) >= WORDS


def test_every_dependency_has_its_row() -> None:
    assert {name.lower() for name in first_cells(DOCS / "explanation" / "dependencies.md")} == sources.dependencies()
