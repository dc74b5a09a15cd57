"""The pages about states and events are what the table of moves says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from counterfoil.model.item import MOVES, ItemEvent, ItemState
from counterfoil.model.run import RunState

SCRIPT = Path(__file__).parents[2] / "docs" / "draw_machine.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/ is no package: the script is loaded from its file."""
    spec = importlib.util.spec_from_file_location("draw_machine", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(script: ModuleType) -> None:
    for path, text in script.pages().items():
        assert path.read_text("utf-8") == text, f"{path.name} is old: run `python docs/draw_machine.py`"


def test_every_event_and_state_has_words(script: ModuleType) -> None:
    assert set(script.EVENTS) == set(ItemEvent)
    assert set(script.RUNS) == set(RunState)
    assert all(f"| `{state}` |" in script.states_page() for state in ItemState if state is not ItemState.NEW)


def test_the_drawing_shows_only_legal_moves_and_every_state_it_can(script: ModuleType) -> None:
    arrows = [line.strip() for line in script.drawing().splitlines() if "-->" in line]
    for arrow in arrows:
        one, rest = arrow.replace("[*]", "NEW").split(" --> ")
        other, events = rest.split(": ")
        for event in events.split(", "):
            assert MOVES[ItemState(one), ItemEvent(event)] == ItemState(other)
    reached = {arrow.split(" --> ")[1].split(":")[0] for arrow in arrows}
    assert reached >= set(ItemState) - {
        S for S in ItemState if S.name in ("NEW", "TRANSFERRED", "ARCHIVED", "CANCELLED", "SUPERSEDED")
    }
