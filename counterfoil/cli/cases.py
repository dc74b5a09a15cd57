"""`case list | show`: open problems with an owner and a due time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from counterfoil.cli.common import COMMON, Common, Limit, database, go
from counterfoil.cli.output import emit, many, say, show, table, when
from counterfoil.ledger import cases, items
from counterfoil.model.errors import NotFoundError
from counterfoil.operations import flows

WAYS: Mapping[str, str] = {
    "REVIEW": "To load what waits for a decision: `counterfoil items release --case {} --reason '…'`; else items archive.",
    "PERMANENT_ERROR": "When the cause is mended: `counterfoil items retry --case {} --reason '…'`",
}


def list_(
    *,
    flow: Annotated[str | None, Parameter(help="Only cases of this flow.")] = None,
    all: Annotated[bool, Parameter(negative="", show_default=False, help="Also cases that are closed.")] = False,
    limit: Limit = 50,
    common: Common = COMMON,
) -> int:
    """List open cases, the ones due first on top."""

    async def work() -> int:
        async with database(common) as opened, opened.ledger.session() as session:
            await flows.require(session, flow)
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
            row = await cases.get(session, case)
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
        show(f"  owns {many(row['open_items'], 'item')}")
        if owned:
            show(
                "\n"
                + table(
                    ("id", "key", "state", "since"),
                    [[f"{i['id']}", i["key"], i["state"], i["state_since"]] for i in owned],
                )
            )
            say("")
            for state in sorted({item["state"] for item in owned} & WAYS.keys()):
                say(WAYS[state].format(case))
        elif row["closed_at"] is None:
            say(f"\nIt closes by itself with the next good run: `counterfoil sync run {row['flow']}`")
        return 0

    return go(work())
