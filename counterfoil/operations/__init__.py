"""FLOOR 5: people do it: one function per human act, each with an actor and a reason."""
