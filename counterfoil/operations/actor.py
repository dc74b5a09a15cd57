"""Who acts: the name that stands for ever beside every act by hand."""

from __future__ import annotations

import getpass
import socket

from counterfoil.model.errors import UsageError
from counterfoil.settings import Settings


def actor_of(settings: Settings) -> str:
    """The operator of the settings, or user and host of this session."""
    if settings.operator:
        return settings.operator
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def needed_reason(reason: str | None) -> str:
    """The reason, trimmed. Raises UsageError where there is none: it is part of the record."""
    if not (reason or "").strip():
        raise UsageError("An act by hand needs a reason; it stands in the record for ever.", "Add --reason 'why'.")
    return str(reason).strip()
