"""A worker opens a project of which one table does not match: that flow is refused alone, the others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from counterfoil.app import open_app
from counterfoil.cli.init import init
from counterfoil.model.errors import TableMismatch, UsageError


@pytest.fixture
def folder(tmp_path: Path, database: str) -> Path:
    """Two flows of the starter project, each with a table of its own."""
    init(tmp_path / "club")
    flow = tmp_path / "club" / "flows" / "example.yaml"
    other = (
        flow.read_text("utf-8").replace("flow: example", "flow: friends").replace("public.members", "public.friends")
    )
    flow.with_name("friends.yaml").write_text(other, "utf-8")
    (tmp_path / "club" / "counterfoil.toml").write_text('[database]\ndsn = "${DATABASE_URL}"\n')
    return tmp_path / "club"


async def test_a_table_that_does_not_match_refuses_its_own_flow_alone(folder: Path, database: str, owner: Any) -> None:
    await owner.execute("create table public.members (member_no text primary key, name integer)")
    async with open_app(folder, environment={"DATABASE_URL": database}) as app:
        with pytest.raises(UsageError, match="members.name is integer"):
            await app.apply()
        await app.apply_what_fits()
        assert list(app.misfits) == ["example"]
        with pytest.raises(TableMismatch, match="members.name is integer"):
            app.job("example", 1)
        assert app.job("friends", 1).flow.name == "friends"
    assert await owner.fetchval("select to_regclass('public.friends')") is not None
    assert await owner.fetch("select name from counterfoil.flow order by 1") == [("example",), ("friends",)]
