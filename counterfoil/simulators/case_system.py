"""The case system behind seed 000's gateway: documents stored, replaced and searched, callers proven by a JWT (HS256).

POST and GET /api/public/v1/documents, PUT /api/public/v1/documents/{uuid}; problem details as errors. Start it with
`python -m counterfoil.simulators.case_system`. Imports nothing of counterfoil but its fellow simulators.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from counterfoil.simulators import options
from counterfoil.simulators.documents import Documents, ProblemError
from counterfoil.simulators.receiver import AFTER, Before, Call, Receiver, receiving
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import HTML, Reply, run

PATH = "/api/public/v1/documents"
SECRET = "simulator-secret-of-thirty-two-bytes!"
KNOWN = ("error500", "error503", "html500", "disconnect", "latency", *AFTER)
ENDPOINTS = ("store", "replace", "find")


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the case system. The secret falls back to the environment's CASE_SYSTEM_SECRET."""

    secret: str = options.option(
        "", "the secret that callers sign their JWT with; else CASE_SYSTEM_SECRET, else a known one"
    )
    unknown_case: tuple[str, ...] = options.option(
        (), "a case number that nobody has; without one those ending in 9999", str, True
    )
    duplicates: str = options.option("accept", "the same document again: accept, refuse or flag")
    visible_after: float = options.option(
        0.0, "so long after it was stored a document is found by a search", options.duration
    )
    store_slowly: float = options.option(
        0.0, "how long storing takes: it is stored at once, and answered late", options.duration
    )


@dataclass
class System:
    """One running case system, or the part of another simulator that is one."""

    receiver: Receiver
    documents: Documents
    secret: bytes
    store_slowly: float = 0.0

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        path = request.rel_url.raw_path
        if not path.startswith(PATH):
            return problem(ProblemError(404, "Page not found"))
        if refused := self._refused(request.headers.get("Authorization", "")):
            return problem(ProblemError(401, refused))
        if request.method == "GET" and path == PATH:
            query = dict(request.rel_url.query)
            return Call(endpoint="find", key=query.get("caserecnumber", ""), answer=partial(self._find, query))
        if request.method == "POST" and path == PATH:
            return await self._storing(request)
        if request.method == "PUT" and path.startswith(PATH + "/"):
            body = _json(await request.read())
            known = path[len(PATH) + 1 :]
            return Call(
                endpoint="replace",
                key=known,
                answer=partial(self._replace, known, body),
                lost=partial(self._lost, known),
            )
        return problem(ProblemError(405, "Method not allowed"))

    def _refused(self, header: str) -> str:
        """Why a token is not taken; "" where it is."""
        scheme, _, token = header.partition(" ")
        claims = verified(token, self.secret) if scheme == "Bearer" else None
        if claims is None:
            return "Authentication failed"
        return "" if float(claims.get("exp", 0)) > self.receiver.clock() else "The token has expired"

    async def _storing(self, request: web.BaseRequest) -> Call:
        body = _json(await request.read())
        stored: list[str] = []
        file = body.get("file") if isinstance(body.get("file"), dict) else {}
        key = f"{body.get('caseRecNumber')}/{body.get('metadata', {}).get('submission_id')}/{(file or {}).get('name')}"
        return Call(
            endpoint="store",
            key=key,
            answer=partial(self._store, body, stored),
            lost=partial(self._lost_all, stored),
        )

    async def _store(self, body: dict[str, Any], stored: list[str]) -> Reply:
        try:
            document, before = self.documents.store(body, content_of(body), self.receiver.clock())
        except ProblemError as error:
            return problem(error)
        stored.append(document.uuid)
        if self.store_slowly:
            await asyncio.sleep(self.store_slowly)
        if before and self.documents.duplicates == "refuse":
            return problem(ProblemError(400, f"The same document exists already: {document.uuid}"))
        flag = {"duplicate": True} if before and self.documents.duplicates == "flag" else {}
        return Reply(201, encode({**document.shown(), **flag}))

    async def _replace(self, known: str, body: dict[str, Any]) -> Reply:
        try:
            return Reply(200, encode(self.documents.replace(known, body, content_of(body)).shown()))
        except ProblemError as error:
            return problem(error)

    async def _find(self, query: dict[str, str]) -> Reply:
        wanted = {name[9:-1]: value for name, value in query.items() if name.startswith("metadata[") and value}
        found = self.documents.find(query.get("caserecnumber", ""), wanted, self.receiver.clock())
        return Reply(200, encode([one.shown() for one in found]))

    def _lost_all(self, stored: list[str]) -> None:
        for known in stored:
            self._lost(known)

    def _lost(self, known: str) -> None:
        if known in self.documents.by_uuid:
            self.documents.by_uuid[known].lost += 1


def content_of(body: dict[str, Any]) -> bytes | None:
    """The file of a body, decoded; None where there is none."""
    file = body.get("file")
    source = file.get("source") if isinstance(file, dict) else None
    try:
        return base64.b64decode(source, validate=True) if isinstance(source, str) and source else None
    except (binascii.Error, ValueError):
        return None


def _json(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def problem(error: ProblemError) -> Reply:
    return Reply(error.status, error.body(), content_type="application/problem+json")


def verified(token: str, secret: bytes) -> dict[str, Any] | None:
    """The claims of a JWT (HS256) whose signature is right, else None. Shares no code with any client."""
    try:
        head, body, signature = token.split(".")
        if json.loads(_unpadded(head)).get("alg") != "HS256":
            return None
        right = hmac.new(secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
        claims = json.loads(_unpadded(body)) if hmac.compare_digest(right, _unpadded(signature)) else None
    except (ValueError, AttributeError):
        return None
    return claims if isinstance(claims, dict) else None


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


BEFORE: Before = {
    "error500": lambda side, call: problem(ProblemError(500, "Something went wrong")),
    "error503": lambda side, call: problem(ProblemError(503, "Service unavailable")),
    "html500": lambda side, call: Reply(500, HTML, content_type="text/html"),
}


def documents_of(unknown_cases: Iterable[str], duplicates: str, visible_after: float) -> Documents:
    """An empty store. ValueError on a policy that is none."""
    if duplicates not in ("accept", "refuse", "flag"):
        raise ValueError(f"--duplicates {duplicates!r} is not known. Known: accept, refuse, flag.")
    return Documents(frozenset(unknown_cases) or None, duplicates, visible_after)


def secret_of(given: str) -> bytes:
    """The secret callers sign with: as given, of the environment, or the known one."""
    return (given or os.environ.get("CASE_SYSTEM_SECRET") or SECRET).encode()


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Receiver]:
    """Serve until the block ends; the documents are at `.documents` of the yielded side's system, and at /_sim/documents."""
    given = given or Options()
    documents = documents_of(given.unknown_case, given.duplicates, given.visible_after)
    receiver = Receiver.of(given, KNOWN, ENDPOINTS)
    system = System(receiver, documents, secret_of(given.secret), given.store_slowly)
    controls = {
        ("GET", "/_sim/record"): lambda body: {**system.receiver.summary(), **system.documents.summary()},
        ("GET", "/_sim/documents"): lambda body: system.documents.lines(),
    }
    async with receiving(system.receiver, system.classify, BEFORE, AFTER, controls) as side:  # type: ignore[arg-type]
        yield side


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "A case system that keeps documents, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
