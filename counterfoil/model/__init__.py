"""FLOOR 1: the words. Standard library only; no IO, no clock of its own, no database."""
