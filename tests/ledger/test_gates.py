"""Gates, circuits and buckets that all hosts share: they add up over sessions and never give more than was declared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from counterfoil.ledger import gates
from tests.support import NOON, set_database_clock


@pytest.fixture
async def stopped(app: Any) -> Any:
    """The application's connection, its clock standing at noon."""
    await set_database_clock(app, NOON)
    return app


async def test_a_gate_nobody_closed_is_open(app: Any) -> None:
    assert await gates.wait(app, "pets") == (0.0, "")


async def test_a_closed_gate_opens_by_itself(stopped: Any) -> None:
    await gates.close(stopped, "pets", 30, "The source said 429.")
    assert await gates.wait(stopped, "pets") == (30.0, "The source said 429.")
    await set_database_clock(stopped, NOON + timedelta(seconds=20))
    assert (await gates.wait(stopped, "pets"))[0] == 10.0
    await set_database_clock(stopped, NOON + timedelta(seconds=31))
    assert (await gates.wait(stopped, "pets"))[0] == 0.0


async def test_closing_never_shortens_what_another_host_has_set(stopped: Any) -> None:
    await gates.close(stopped, "pets", 60, "long")
    await gates.close(stopped, "pets", 5, "short")
    assert (await gates.wait(stopped, "pets"))[0] == 60.0


async def test_failures_of_all_hosts_open_the_circuit(stopped: Any) -> None:
    assert await gates.note_failures(stopped, "pets", 3, limit=5, seconds=10) == 0
    assert await gates.note_failures(stopped, "pets", 2, limit=5, seconds=10) == 10
    assert "circuit open" in (await gates.wait(stopped, "pets"))[1]


async def test_enough_failures_at_once_open_the_circuit_although_the_gate_is_new(stopped: Any) -> None:
    assert await gates.note_failures(stopped, "pets", 5, limit=5, seconds=10) == 10


async def test_a_circuit_that_opens_again_stays_open_longer_up_to_a_limit(stopped: Any) -> None:
    waits = []
    for n in range(7):
        await set_database_clock(stopped, NOON + timedelta(hours=n))
        waits.append(await gates.note_failures(stopped, "pets", 5, limit=5, seconds=10))
    assert waits == [10, 20, 40, 80, 160, 160, 160]


async def test_one_success_forgets_the_failures(stopped: Any) -> None:
    await gates.note_failures(stopped, "pets", 4, limit=5, seconds=10)
    await gates.note_success(stopped, "pets")
    assert await gates.note_failures(stopped, "pets", 4, limit=5, seconds=10) == 0


async def test_a_bucket_holds_one_second_and_lends_at_its_rate(stopped: Any) -> None:
    """Tokens come back by the server's own clock; the debt of this test is far larger than what it earns while it runs."""
    assert await gates.take(stopped, "pets", 100, 100) == 0, "a full bucket"
    first = await gates.take(stopped, "pets", 100_000, 100)
    second = await gates.take(stopped, "pets", 100_000, 100)
    assert 900 < first <= 1000
    assert first + 900 < second <= first + 1000
