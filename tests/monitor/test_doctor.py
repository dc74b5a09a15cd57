"""The doctor: each thing that is not well is found, and comes with a remedy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from counterfoil.ledger import pool
from counterfoil.model.errors import Misconfigured
from counterfoil.monitor import doctor
from tests.support import Databases


async def test_a_sound_database(app: Any) -> None:
    checks = [
        *await doctor.check_server(app, datetime.now(UTC)),
        *await doctor.check_schema(app),
        *await doctor.check_work(app),
    ]
    assert [check for check in checks if not check.well] == []


async def test_a_clock_that_is_wrong(app: Any) -> None:
    checks = await doctor.check_server(app, datetime.now(UTC) - timedelta(minutes=5))
    (bad,) = [check for check in checks if not check.well]
    assert (bad.name, "NTP" in bad.remedy) == ("Clocks", True)


async def test_a_database_without_the_schema(databases: Databases) -> None:
    connection = await pool.connect(databases.dsn(await databases.create()))
    (check,) = await doctor.check_schema(connection)
    await connection.close()
    assert (check.well, check.remedy) == (False, "Run `counterfoil migrate`.")


async def test_a_database_that_is_newer(owner: Any) -> None:
    await owner.execute("insert into counterfoil.migration (number, name, sha256) values (9999, 'pre_x', 'x')")
    (check,) = await doctor.check_schema(owner)
    assert not check.well
    assert "newer" in check.said


def test_machine_files_tables_and_sources(tmp_path: Path) -> None:
    assert all(check.well for check in doctor.check_machine(tmp_path))
    assert doctor.check_files(["a fault"], 1)[0].remedy
    good, bad = doctor.check_tables({"pets": (), "cats": ("Column `age` is text, not integer.",)})
    assert good.well
    assert (bad.well, bad.said) == (False, "Column `age` is text, not integer.")
    good, bad = doctor.check_sources(
        {"pets": "200 OK", "cats": Misconfigured("The token was refused.", "Set API_TOKEN.")}
    )
    assert good.well
    assert (bad.well, bad.said, bad.remedy) == (False, "The token was refused.", "Set API_TOKEN.")


async def test_a_login_that_may_not_work(owner: Any) -> None:
    await owner.execute("drop role if exists stranger; create role stranger login")
    try:
        await owner.execute("set session authorization stranger")
        (bad,) = await doctor.check_login(owner)
        assert (bad.well, bad.remedy) == (False, 'As an administrator: grant counterfoil_app to "stranger".')
    finally:
        await owner.execute("reset session authorization; drop role stranger")
    (good,) = await doctor.check_login(owner)
    assert good.well
