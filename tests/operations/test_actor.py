"""Who acts, and why."""

from __future__ import annotations

import socket

import pytest

from counterfoil.model.errors import UsageError
from counterfoil.operations.actor import actor_of, needed_reason
from counterfoil.settings import Settings


def test_the_operator_of_the_settings_or_user_and_host() -> None:
    assert actor_of(Settings(operator="ana")) == "ana"
    assert actor_of(Settings()).endswith(f"@{socket.gethostname()}")


@pytest.mark.parametrize("reason", [None, "", "   "])
def test_an_act_without_a_reason_is_refused(reason: str | None) -> None:
    with pytest.raises(UsageError, match="--reason"):
        needed_reason(reason)
    assert needed_reason(" why ") == "why"
