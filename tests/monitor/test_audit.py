"""The audit proves the sum, and finds each way in which it can be wrong."""

from __future__ import annotations

from typing import Any

import pytest

from counterfoil.ledger.pool import Ledger
from counterfoil.model.errors import NotFoundError
from counterfoil.model.item import ItemEvent
from counterfoil.monitor.audit import audit
from tests.support import act, register


@pytest.fixture
async def pets(app: Any) -> Any:
    await register(app, "pets")
    await act(app, "pets", ItemEvent.FAIL, "a", "b", fault="http_400", problem="No.")
    await act(app, "pets", ItemEvent.FAIL_TEMPORARILY, "c", "d", fault="http_503", problem="Later.")
    await act(app, "pets", ItemEvent.LOAD, "d")
    return app


async def test_a_sound_ledger_holds(ledger: Ledger, pets: Any) -> None:
    (found,) = await audit(ledger)
    assert found.holds, found.faults
    assert (found.accepted, found.settled, found.due, found.owned) == (4, 1, 1, 2)
    assert found.oldest_due is not None
    assert found.oldest_owned is not None


# What only a superuser with a wrong idea could do; the ledger's own roles can't.
BREAKS = {
    "the counter of a state": (
        "update counterfoil.item_count set items = items + 5 where state = 'SUCCESS'",
        "The counter of SUCCESS says 6",
    ),
    "the number ever accepted": (
        "update counterfoil.item_count set items = items + 1 where state = 'NEW'",
        "Accepted: counted 5, the rows say 4.",
    ),
    "an item that is gone": ("delete from counterfoil.item where key = 'c'", "Accepted: counted 4, the rows say 3."),
    "a history": ("delete from counterfoil.item_event where event = 'load'", "does not lead to SUCCESS"),
    "a case": ('update counterfoil."case" set open_items = 7', "says it owns 7 items"),
}


@pytest.mark.parametrize("what", BREAKS)
async def test_every_contradiction_is_found(ledger: Ledger, pets: Any, owner: Any, what: str) -> None:
    statement, sentence = BREAKS[what]
    await owner.execute(statement)
    (found,) = await audit(ledger, "pets")
    assert not found.holds
    assert any(sentence in fault for fault in found.faults), found.faults


async def test_an_unknown_flow_is_told(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="knows no flow `cats`"):
        await audit(ledger, "cats")
