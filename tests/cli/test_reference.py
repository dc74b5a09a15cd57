"""The reference page is what the commands are."""

from __future__ import annotations

from pathlib import Path

from counterfoil.cli.main import COMMANDS
from counterfoil.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_page_is_made_from_the_commands() -> None:
    made = reference()
    assert PAGE.read_text("utf-8") == made, "python -m counterfoil.cli.reference > docs/reference/commands.md"
    for command in COMMANDS:
        assert f"## counterfoil {command.path}\n" in made
    for option in ("--project", "--json", "--debug", "--reason", "--since", "--where", "--yes", "--check", "--phase"):
        assert f"`{option}`" in made
