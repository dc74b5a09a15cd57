"""Flows as they are named at the terminal. A name that nobody knows is told: at night, "no item" must not mean "mistyped"."""

from __future__ import annotations

from counterfoil.ledger import flows
from counterfoil.ledger.pool import Connection
from counterfoil.model.errors import NotFoundError


async def require(session: Connection, flow: str | None) -> None:
    """Raises NotFoundError for a flow the ledger does not know; None stands for all."""
    if flow is None:
        return
    names = [row["name"] for row in await flows.list_(session)]
    if flow not in names:
        remedy = (
            f"Known: {', '.join(names)}." if names else "None is registered yet: `counterfoil sync run FLOW` does it."
        )
        raise NotFoundError(f"The ledger knows no flow `{flow}`.", remedy)
