"""What stands in the pages is so: links lead somewhere, flow files load, functions run, statements run, commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from counterfoil.cli.main import COMMANDS
from counterfoil.connectors.table import Table
from counterfoil.flows.load import load_project
from counterfoil.ledger import flows
from tests.docs.pages import Block, anchors, blocks, commands, links, pages
from tests.docs.sources import DOCS, ROOT

HOWTO = DOCS / "howto"
FLOWS = [block for page in pages() for block in blocks(page, "yaml") if block.text.startswith("flow:")]
EXAMPLES = sorted(file.parent for file in (ROOT / "examples").glob("*/counterfoil.toml"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    assert [page for page in sorted(DOCS.rglob("*.md")) if page != DOCS / "README.md" and page not in index] == []


def test_no_page_names_this_machine() -> None:
    told = re.compile(
        r"/w[o]rk/|/tmp/|/root/|https?://(?!127\.0\.0\.1|localhost)[\w.-]*(pypi|index|mirror|registry)[\w.-]*"
    )
    assert [str(page) for page in pages() if told.search(page.read_text("utf-8"))] == []


def _of(page: Path, language: str) -> str:
    return "\n\n".join(block.text for block in blocks(page, language))


@pytest.mark.parametrize("block", FLOWS, ids=lambda block: block.name)
def test_flow_files_load(block: Block, tmp_path: Path) -> None:
    if mapping := re.search(r"^mapping: ([a-z-]+)", block.text, re.M):
        (tmp_path / "mappings").mkdir()
        (tmp_path / "mappings" / f"{mapping[1]}.yaml").write_text(
            next(b.text for b in blocks(block.page, "yaml") if b.text.startswith(f"mapping: {mapping[1]}"))
        )
    (tmp_path / "flows").mkdir()
    name = re.match(r"flow: (\S+)", block.text)
    assert name
    (tmp_path / "flows" / f"{name[1]}.yaml").write_text(block.text)
    (tmp_path / "functions.py").write_text(_of(block.page, "python"))
    project = load_project(tmp_path)
    assert [str(fault) for fault in project.faults] == []
    assert set(project.flows) == {name[1]}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_examples_load(folder: Path) -> None:
    project = load_project(folder)
    assert [str(fault) for fault in project.faults] == []
    assert set(project.flows) == {folder.name}


@pytest.mark.parametrize("page", [p for p in pages() if commands(p)], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    known = {command.path for command in COMMANDS}
    for line in commands(page):
        words = [word for word in shlex.split(line.split("|")[0], comments=True) if "=" not in word.split("/")[0]]
        if words[:1] == ["counterfoil"]:
            assert " ".join(words[1:3]) in known or words[1] in known, line


def test_commands_in_the_text_exist() -> None:
    known = {command.path for command in COMMANDS} | {command.path.split()[0] for command in COMMANDS}
    for page in pages():
        for said in re.findall(r"`counterfoil ([a-z]+)(?: ([a-z]+))?", page.read_text("utf-8")):
            assert " ".join(filter(None, said)) in known or said[0] in known, f"{page}: {said}"


# --- SQL ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def project_database(owner: Any) -> Any:
    """A database with the flows the pages speak of, and the loan example's table and view."""
    for name in ("customer-records", "loan-applications", "pets"):
        await flows.register(owner, name, title=name, owner="operators", case_due=_hours(4), definition="")
    example = load_project(ROOT / "examples" / "loan-applications").flows["loan-applications"]
    table = Table(example.destination, example.mapping.fields)
    await table.apply(owner, await table.plan(owner))
    await owner.execute((ROOT / "examples" / "loan-applications" / "views.sql").read_text("utf-8"))
    await owner.execute("grant usage on schema public to public")  # as it is in a new database
    return owner


def _hours(number: int) -> Any:
    from datetime import timedelta

    return timedelta(hours=number)


async def _run(connection: Any, block: Block) -> None:
    for statement in re.split(r";\s*(?:--[^\n]*)?\n", block.text + "\n"):
        if statement.strip():
            await connection.fetch(statement)


async def test_items_can_be_handed_in_from_sql_as_the_page_says(project_database: Any, app: Any) -> None:
    for block in blocks(HOWTO / "accept-items-from-sql.md", "sql"):
        await _run(app, block)
    rows = await app.fetch("select key, state from counterfoil.item order by key")
    assert {row["key"]: row["state"] for row in rows} == {"C-00042": "CANCELLED", "C-00043": "QUEUED", "X-1": "QUEUED"}


async def test_a_reader_may_run_every_monitoring_query_and_sees_its_flows_only(project_database: Any) -> None:
    owner = project_database
    await owner.execute("select counterfoil.accept('customer-records', 'A'), counterfoil.accept('pets', 'B')")
    undo = owner.transaction()
    await undo.start()
    try:
        for block in blocks(HOWTO / "use-your-own-postgresql.md", "sql"):
            # A server that has the database of this test has our three roles already.
            await owner.execute(re.sub(r"create role counterfoil_\w+ nologin;", "", block.text))
        await owner.execute(
            "grant select on public.tblsovereignapplications, public.tblsovereignapplicationssynclog to dashboard"
        )
        await owner.execute("set local session authorization dashboard")
        for block in blocks(HOWTO / "monitor-with-sql.md", "sql"):
            await _run(owner, block)
        assert [row["key"] for row in await owner.fetch("select key from counterfoil.item")] == ["A"]
        flows_seen = {row["name"] for row in await owner.fetch("select name from counterfoil.flow")}
        assert flows_seen == {"customer-records", "loan-applications"}
        with pytest.raises(Exception, match="permission denied"):
            async with owner.transaction():
                await owner.fetch("select payload from counterfoil.item")
    finally:
        await undo.rollback()


async def test_the_queries_of_the_old_sync_log_run_unchanged(project_database: Any) -> None:
    asked = [block for block in blocks(HOWTO / "monitor-with-sql.md", "sql") if block.note == "loan-applications"]
    assert len(asked) == 3
    for block in asked:
        await _run(project_database, block)
