"""The check of a delivery before anything leaves: parent's receipt, payload, file, request. One item's trouble stays its own.

What can't be sent comes back as the move that says why, for a person or for later. Nothing here touches the network but the object store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from counterfoil.engine.answers import Judging, failed_temporarily
from counterfoil.engine.job import DeliveryJob
from counterfoil.engine.log import get_logger
from counterfoil.flows.delivery import DeliveryFlow
from counterfoil.ledger.deliveries import Claimed, Proof
from counterfoil.ledger.items import Move
from counterfoil.model.delivery import Answer, Outcome, Parcel, Parent, StoredFile
from counterfoil.model.errors import Misconfigured, Refused, Transient
from counterfoil.model.item import ItemEvent
from counterfoil.model.ports import Prepared

log = get_logger(__name__)

AT_DESK = 4  # files made ready at one time


@dataclass(frozen=True, slots=True)
class Ready:
    """A claimed item whose request stands."""

    item: Claimed
    parcel: Parcel
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Done:
    """What an attempt came to, and the proof of every exchange it had."""

    item: Claimed
    move: Move
    proofs: tuple[Proof, ...] = ()


async def check(job: DeliveryJob, items: Sequence[Claimed]) -> tuple[list[Ready], list[Done]]:
    """Requests that stand, and what can't be sent now with the reason. Raises Misconfigured: then it is no item's fault."""
    desk = asyncio.Semaphore(AT_DESK)
    checked = await asyncio.gather(*(_check(job, item, desk) for item in items))
    return [one for one in checked if isinstance(one, Ready)], [one for one in checked if isinstance(one, Done)]


async def _check(job: DeliveryJob, item: Claimed, desk: asyncio.Semaphore) -> Ready | Done:
    judging = Judging(job.flow, item, job.clock.now())
    if item.kind not in job.flow.kinds or job.flow.kinds[item.kind].create is None:
        problem = f"The flow does not say how `{item.kind}` is sent. Declare it, or archive the item."
        return Done(item, judging.move(ItemEvent.FAIL, fault="unknown_kind", problem=problem))
    if waits := _waits_for_parent(judging):
        return Done(item, waits)
    try:
        parcel = parcel_of(job.flow, item)
        if item.rendered is None and job.flow.kinds[item.kind].file is not None:
            async with desk:
                parcel = replace(parcel, file=await job.files.ready(parcel, flow=job.flow.name))
        return Ready(item, parcel, job.target.prepare(parcel))
    except Transient as error:  # the object store: nothing has left
        answer = Answer(Outcome.TEMPORARY, None, fault=error.fault, problem=str(error))
        return Done(item, failed_temporarily(judging, answer))
    except Misconfigured:
        raise
    except Refused as error:
        return Done(item, judging.move(ItemEvent.FAIL, fault=error.fault, problem=str(error)))
    except Exception as error:
        log.exception("delivery.check_failed", flow=job.flow.name, item=item.id)
        problem = f"Its request could not be made ({type(error).__name__}); the log of the worker has the trace."
        return Done(item, judging.move(ItemEvent.FAIL, fault="check_failed", problem=problem))


def _waits_for_parent(judging: Judging) -> Move | None:
    """A child whose parent has no receipt (it was retried by hand, say) waits on, whatever put it into the queue."""
    parent, item = judging.kind.parent, judging.item
    if parent is None or item.parent_receipt is not None or (item.parent_id is None and parent.stand_in is not None):
        return None
    return judging.move(ItemEvent.HOLD, next_action_at=judging.now + parent.wait)


def parcel_of(flow: DeliveryFlow, item: Claimed) -> Parcel:
    """All that a request is built from. Raises Refused where the payload is no JSON object."""
    parent = flow.kinds[item.kind].parent
    stand_in = parent.stand_in if parent is not None and item.parent_id is None else None
    receipt = item.parent_receipt or stand_in
    return Parcel(
        key=item.key,
        kind=item.kind,
        payload=_payload(item.payload),
        group=item.group,
        parent=None if receipt is None else Parent(receipt, item.parent_key, _payload(item.parent_payload)),
        receipt=item.receipt,
        file=_stored(item.rendered or item.file),
        idempotency_key=f"{flow.name}-{item.id}-{item.version}",  # the same for every try at the same content
        attempt=item.attempts,
        accepted_at=item.accepted_at,
    )


def _payload(text: str | None) -> dict[str, Any]:
    value = {} if text is None else msgspec.json.decode(text)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused("The payload is no JSON object.", "Hand the item in anew with one.", fault="bad_payload")
    return value


def _stored(file: Mapping[str, Any] | None) -> StoredFile | None:
    return None if file is None else StoredFile(**file)
