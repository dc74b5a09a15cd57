"""The half of the demo that delivers: documents of deputies through a gateway and then through a relay, uploads that are confirmed later.

What a person would do by hand is done here in the same ways: rows in a table, items handed in with their files, the engine's own rounds.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from counterfoil.cli.output import paint, show, took, when
from counterfoil.model.delivery import HandIn, StoredFile

if TYPE_CHECKING:
    from counterfoil.app import App


@dataclass(frozen=True, slots=True)
class Example:
    """One example project and the other side it talks to. `{folder}` and `{url}` in arguments and environment are filled in."""

    folder: str
    flow: str
    simulator: str
    arguments: tuple[str, ...]
    url_variables: tuple[str, ...]
    environment: Mapping[str, str]
    rows: str = ""  # of a sync: how many rows it has loaded
    shorter: tuple[tuple[str, str], ...] = field(default=())  # waits of its flow: as declared, as the demo has them


DEPUTY, CLAIMS = "deputy-documents", "claim-uploads"
SUBMISSIONS, RELAYED, CLAIMED = 40, 10, 30
LONGEST = 25.0  # seconds that the demo follows one flow
STORED = "dd_doc_{}"

DELIVERIES = (
    Example(
        "deputy-documents",
        DEPUTY,
        "deputy_gateway",
        ("--file-store", "{folder}/.counterfoil/objects", "--latency", "5-40ms", "--gateway-timeout", "0.4", "--store-takes", "0.8",
         "--fault", "lost_reply=0.04", "--fault", "timeout_504=0.03", "--fault", "error500_html=0.03", "--fault", "throttle=0.01",
         "--fault", "truncated=0.02", "--fault", "disconnect=0.02", "--fault", "forbidden=0.01", "--case-fault", "error500=0.02"),
        ("DEPUTY_GATEWAY_URL", "CASE_SYSTEM_URL"),
        {
            "DEPUTY_ACCESS_KEY": "AKIDSIMULATOR",
            "DEPUTY_SECRET_KEY": "simulator-secret",
            "CASE_SYSTEM_SECRET": "simulator-secret-of-thirty-two-bytes!",
        },
        shorter=(("after: 35s", "after: 1500ms"), ("first_delay: 30s", "first_delay: 500ms"), ("after: 1m}", "after: 1s}")),
    ),
    Example(
        "claim-uploads",
        CLAIMS,
        "lighthouse_documents",
        ("--private-key-out", "{folder}/client.pem", "--latency", "5-40ms", "--step", "100-900ms",
         "--fault", "error500_verify=0.05@upload", "--fault", "throttle=0.01", "--fault", "error504=0.02@upload",
         "--fault", "fail_evidence=0.03", "--fault", "stall_gateway=0.02", "--fault", "strange_step=0.1"),
        ("BENEFITS_URL",),
        {
            "BENEFITS_TOKEN_URL": "{url}/oauth2/benefits-documents/system/v1/token",
            "BENEFITS_CLIENT_ID": "simulator-client",
            "BENEFITS_PRIVATE_KEY_FILE": "{folder}/client.pem",
        },
        shorter=(("first: 5m", "first: 500ms"), ("every: 1h", "every: 1s"), ("deadline: 24h", "deadline: 9s"),
                 ("first_delay: 30s", "first_delay: 500ms"), ("within: 1h", "within: 2s")),
    ),
)  # fmt: skip


async def play(app: App, urls: Sequence[str]) -> None:
    """Both delivery examples, then the relay, then two stories."""
    show(
        paint(
            "4. Documents are delivered: the report first, then what belongs to it; nothing twice after a lost reply",
            "bold",
        )
    )
    await _fill(app, range(SUBMISSIONS))
    await _deliver(app, DEPUTY)
    show()
    show(paint("5. The gateway's function is replaced by our own relay; ten more submissions go through it", "bold"))
    await _fill(app, range(SUBMISSIONS, SUBMISSIONS + RELAYED))
    async with _relayed(app) as through:
        await _deliver(through, DEPUTY)
    show()
    show(paint("6. Uploads of claims are accepted at once and confirmed later", "bold"))
    await _hand_in_claims(app)
    await _deliver(app, CLAIMS)
    show()
    await _stories(app)


async def compare(session: Any, urls: Sequence[str]) -> None:
    """What the other sides' own records say, beside the ledger."""
    for example, url in zip(DELIVERIES, urls, strict=True):
        record = await asyncio.to_thread(_get, f"{url}/_sim/record")
        if "uploads" in record:
            kept = record["uploads"]
            record |= {"stored": kept["stored"], "duplicates": kept["stored"] - kept["documents"]}
        receipts = await session.fetchval(
            "select count(*) from counterfoil.item where flow = $1 and receipt is not null and kind <> 'claim'",
            example.flow,
        )
        show(
            f"  {example.flow}: {receipts:,} receipts here; the other side keeps {record['stored']:,} documents, "
            f"{record['duplicates']:,} of them twice."
        )


# --- what is handed in ----------------------------------------------------------------------------------------


async def _fill(app: App, numbers: Sequence[int] | range) -> None:
    """As the web application does: a file in the store, a row in its table. The intake finds what is QUEUED."""
    from counterfoil.engine.intake import take_all
    from counterfoil.ledger.pool import connect

    await app.deliveries.objects.put(STORED.format("report"), _pdf())
    owner = await connect(app.owner_dsn)
    try:
        await owner.executemany(
            "insert into dd.document (id, kind, report_id, report_document_id, submission_id, caseref, period_from, period_to, year, "
            "report_type, submitted_at, file_name, storage_reference, answers) "
            "values ($1, $2, $3, $4, $5, $6, '2024-04-01', '2025-03-31', 2024, 'PF', now(), $7, $8, $9::text::jsonb)",
            [row for number in numbers for row in _rows(number)],
        )
    finally:
        await owner.close()
    flow = app.deliveries.flow(DEPUTY)
    taken = await take_all(app.ledger, flow, app.deliveries.watched(flow))
    show(f"  {DEPUTY}: {taken.found:,} rows were QUEUED in dd.document; {taken.new:,} are items now")


def _rows(number: int) -> Iterator[tuple[Any, ...]]:
    """A report, three supporting documents, a checklist."""
    about = (5000 + number, f"{10_000_000 + 37 * number}")
    stored = STORED.format("report")
    yield f"report-{number}", "report", f"r{number}", None, *about, f"Report {number}.pdf", stored, None
    for part in range(3):
        yield (
            f"document-{number}-{part}",
            "supporting_document",
            f"r{number}",
            f"report-{number}",
            *about,
            f"Bank statement {part}.pdf",
            stored,
            None,
        )
    yield (
        f"checklist-{number}",
        "checklist",
        f"r{number}",
        None,
        *about,
        None,
        None,
        json.dumps({"Accounts agree": "yes"}),
    )


async def _hand_in_claims(app: App) -> None:
    from counterfoil.operations.hand_in import hand_in

    given = [item for number in range(CLAIMED) for item in await _claim(app, number)]
    done = await hand_in(app.ledger, CLAIMS, given, actor="demo")
    show(
        f"  {CLAIMS}: {len(done.accepted):,} items handed in: {CLAIMED} claims with their documents; of the last claim one is missing"
    )


async def _claim(app: App, number: int) -> list[HandIn]:
    """A claim that was accepted elsewhere, and its documents: a static one, one that is made, and what the veteran uploaded."""
    key, claim = f"claim:{number}", 600_000 + number
    payload = {"claim_id": claim, "file_number": "796043735", "bdd": number % 3 == 0, "ptsd": number % 2 == 0, "assault": False,
               "attachments": [{"id": 1}]}  # fmt: skip
    given = [HandIn(key, payload, kind="claim", group=key, receipt=str(claim))]
    if payload["bdd"]:
        given.append(HandIn(f"{key}/bdd", {}, kind="bdd_instructions", parent_key=key, group=key))
    if payload["ptsd"]:
        given.append(
            HandIn(f"{key}/0781", {"statement": "It happened at night."}, kind="form_0781", parent_key=key, group=key)
        )
    if number < CLAIMED - 1:
        stored = await app.deliveries.objects.put(f"uploads/{number}/1", b"Medical record, page 1\n" * 40)
        file = StoredFile("medical record.txt", "text/plain", stored.size, stored.sha256, stored.key)
        given.append(
            HandIn(
                f"{key}/attachment/1", {"doc_type": "L023"}, kind="veteran_upload", parent_key=key, group=key, file=file
            )
        )
    return given


def _pdf() -> bytes:
    from io import BytesIO

    import pikepdf

    pdf, out = pikepdf.new(), BytesIO()
    pdf.add_blank_page()
    pdf.save(out, deterministic_id=True)
    return out.getvalue()


# --- what is sent ---------------------------------------------------------------------------------------------


async def _deliver(app: App, flow: str) -> None:
    """As a worker would, until nothing is due any more or it has taken long enough to be watched."""
    from counterfoil.engine.poll import Polled
    from counterfoil.engine.push import Pushed
    from counterfoil.monitor.audit import audit

    began, pushed, polled = time.monotonic(), Pushed(), Polled()
    while time.monotonic() - began < LONGEST:
        sent, asked = await app.deliver(flow, within=1.0)
        pushed, polled = pushed + sent, polled + asked
        if not next(one.due for one in await audit(app.ledger) if one.flow == flow):
            break
    show(
        f"  {flow}: {pushed.claimed:,} attempts in {took(time.monotonic() - began)} = {pushed.arrived:,} arrived + {pushed.doubtful:,} in doubt"
        f" + {pushed.later:,} to be tried again + {pushed.stopped:,} for a person + {pushed.given_back + pushed.lost:,} given back"
    )
    if polled.calls:
        show(
            f"    asked {polled.calls:,} times about {polled.asked:,} uploads: {polled.confirmed:,} confirmed, {polled.failed:,} failed, "
            f"the others were still under way"
        )


@asynccontextmanager
async def _relayed(app: App) -> AsyncIterator[App]:
    """The same project whose gateway is our relay."""
    from counterfoil.app import open_app
    from counterfoil.web.relays import serving

    async with app.deliveries.relays(app.dsn) as jobs, serving(jobs, "127.0.0.1", 0) as url:
        environment = {**app.environment, "DEPUTY_GATEWAY_URL": url}
        async with open_app(app.folder, environment=environment) as through:
            yield through


# --- what is told ---------------------------------------------------------------------------------------------

_SUPPORTING = (
    "select id from counterfoil.item where flow = $1 and kind = 'supporting_document' and state = 'SUCCESS' "
    "order by attempts desc, id limit 1"
)
_LOST = (
    "select i.id from counterfoil.item i join counterfoil.exchange e on e.flow = i.flow and e.item_id = i.id "
    "where e.kind = 'look_up' and e.outcome = 'done' and i.flow = $1 and i.state = 'SUCCESS' order by i.id limit 1"
)


async def _stories(app: App) -> None:
    async with app.ledger.session() as session:
        for title, question in (
            ("One supporting document, from waiting for its report to SUCCESS", _SUPPORTING),
            ("One lost reply: the case system was asked, and had it", _LOST),
        ):
            item = await session.fetchval(question, DEPUTY)
            if item is not None:
                show(paint(f"   {title} (counterfoil items explain {item})", "bold"))
                await _story(session, int(item))
                show()


async def _story(session: Any, number: int) -> None:
    from counterfoil.cli.items import show_story
    from counterfoil.ledger import items
    from counterfoil.monitor import deliveries
    from counterfoil.monitor.explain import explain

    (row,) = await items.get(session, item_id=number)
    events = await items.list_events(session, row["flow"], row["id"])
    attempts = await items.list_attempts(session, row["flow"], row["id"])
    delivered = await deliveries.of_item(session, row)
    show_story(row, explain(row, events, attempts, now=datetime.now(UTC), when=when, delivered=delivered))


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.loads(reply.read())
