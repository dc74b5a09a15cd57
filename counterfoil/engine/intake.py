"""What a delivery takes in by looking: rows of a table that say they are waiting, files that lie in a folder. Each becomes an item.

A table is of the ledger's own database: rows are marked as taken in the transaction that makes their items. A file is in the object store
before its item is, and is moved away last: killed in between, it is taken again, and the same key is one item. What can't be taken in
becomes an item as well, owned by a case, so that it neither is lost nor stands in the way of the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from counterfoil.engine.log import get_logger
from counterfoil.engine.upkeep.schedule import last_fire, next_fire
from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.ledger import flows, items
from counterfoil.ledger.items import Move
from counterfoil.ledger.pool import Connection, Ledger
from counterfoil.model.clock import Clock
from counterfoil.model.delivery import HandIn
from counterfoil.model.item import ItemEvent

log = get_logger(__name__)

ACTOR = "intake"


class Watched(Protocol):
    """Something that is looked at: a table, a folder."""

    limit: int  # what is taken at one time

    async def take(self, connection: Connection) -> Sequence[HandIn]:
        """What is waiting now, at most `limit`, marked as taken within the transaction of `connection`."""
        ...

    async def taken(self, given: Sequence[HandIn]) -> None:
        """Called after the commit: put away what was taken."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    found: int = 0
    new: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Intakes:
    """The duty: each flow's intake when its schedule says so, or every few seconds where it has none."""

    ledger: Ledger
    clock: Clock
    flows: Mapping[str, DeliveryFlow]
    watched: Callable[[DeliveryFlow], Watched]
    every: float = 2.0  # seconds

    async def run_once(self) -> dict[str, int]:
        """Counts: found, new, refused."""
        done = Taken()
        for flow in self.flows.values():
            if flow.intake is not None:
                one = await self._when_due(flow)
                done = Taken(done.found + one.found, done.new + one.new, done.refused + one.refused)
        return {"found": done.found, "new": done.new, "refused": done.refused}

    async def _when_due(self, flow: DeliveryFlow) -> Taken:
        async def look() -> Taken:
            return await take_all(self.ledger, flow, self.watched(flow))

        if flow.intake is None or flow.intake.schedule is None:
            return await look()
        return await self._on_schedule(flow, look)

    async def _on_schedule(self, flow: DeliveryFlow, look: Callable[[], Awaitable[Taken]]) -> Taken:
        """The schedule is moved on when all is taken in: killed before, it fires again. One host at a time."""
        async with self.ledger.transaction() as connection:
            due = await flows.claim_schedules(connection, flow.name, flows.INTAKE)
            if not due:
                return Taken()
            row, now = due[0], self.clock.now()
            done = await look()
            fired = last_fire(row["cron"], row["timezone"], row["next_fire_at"], now)
            await flows.fire_schedule(
                connection,
                flow.name,
                name=flows.INTAKE,
                next_fire_at=next_fire(row["cron"], row["timezone"], max(now, fired)),
                last_fire_at=fired,
                outcome=f"took {done.new} of {done.found}",
            )
        return done


async def take_all(ledger: Ledger, flow: DeliveryFlow, watched: Watched) -> Taken:
    """Take in what is waiting, piece by piece, until nothing is left."""
    found = new = refused = 0
    while True:
        async with ledger.transaction() as connection:
            given = await watched.take(connection)
            accepted, bad = await items.accept_each(connection, flow.name, given, actor=ACTOR) if given else ([], [])
            await _own(connection, flow, bad)
        await watched.taken(given)
        found, refused = found + len(given), refused + len(bad)
        new += sum(one.outcome != "known" for one in accepted)
        if len(given) < watched.limit:
            break
    if found:
        log.info("deliveries.taken_in", flow=flow.name, found=found, new=new, refused=refused)
    return Taken(found, new, refused)


async def _own(connection: Connection, flow: DeliveryFlow, bad: Sequence[tuple[HandIn, str]]) -> None:
    """What can't be taken in as it is: a person's, under its own key."""
    moves = [
        Move(ItemEvent.FAIL, key=one.key, kind=one.kind, group=one.group, fault="bad_hand_in", problem=problem)
        for one, problem in bad
    ]
    await items.move(connection, flow.name, moves, actor=ACTOR)
