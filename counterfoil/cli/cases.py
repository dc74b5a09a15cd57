"""`case list | show`: open problems with an owner and a due time."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, Limit, database, go
from counterfoil.cli.output import emit, say, show, table, when
from counterfoil.ledger import cases, items
from counterfoil.model.errors import NotFoundError

MOST = 10_000


def list_(
    *,
    flow: Annotated[str | None, Parameter(help="Only cases of this flow.")] = None,
    all: Annotated[bool, Parameter(negative="", help="Also cases that are closed.")] = False,
    limit: Limit = 50,
    common: Common = COMMON,
) -> int:
    """List open cases, the ones due first on top."""

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            rows = await cases.list_(session, flow=flow, open_only=not all, limit=limit)
        if common.json:
            emit("cases", cases=rows, complete=len(rows) < limit)
        elif not rows:
            say("No case is open: nothing needs a person.")
        else:
            lines = [[f"{c['id']}", c["flow"], c["open_items"], c["owner"], c["due_at"], c["title"]] for c in rows]
            show(table(("case", "flow", "items", "owner", "due", "title"), lines))
        return 0

    return go(work())


def show_(
    case: Annotated[int, Parameter(help="Number of the case.")],
    /,
    *,
    limit: Limit = 20,
    common: Common = COMMON,
) -> int:
    """Show one case with its items."""

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            every = await cases.list_(session, open_only=False, limit=MOST)
            row = next((row for row in every if row["id"] == case), None)
            if row is None:
                raise NotFoundError(f"There is no case {case}.", "`counterfoil case list --all` shows them.")
            owned = await items.list_(session, case_id=case, limit=limit)
        if common.json:
            emit("case", case=row, items=owned)
            return 0
        state = (
            f"closed {when(row['closed_at'])}: {row['reason']}" if row["closed_at"] else f"due {when(row['due_at'])}"
        )
        show(f"Case {case} of {row['flow']}: {row['title']}")
        show(f"  fault {row['fault']}, owner {row['owner']}, opened {when(row['opened_at'])}, {state}")
        show(f"  owns {row['open_items']:,} items")
        if owned:
            show(
                "\n"
                + table(
                    ("id", "key", "state", "since"),
                    [[f"{i['id']}", i["key"], i["state"], i["state_since"]] for i in owned],
                )
            )
            say(f"\nWhen the cause is mended: counterfoil items retry --case {case} --reason '…'")
        return 0

    return go(work())
