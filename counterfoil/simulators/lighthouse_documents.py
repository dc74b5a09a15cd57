"""Seed 001's upload service: OAuth, multipart uploads, bulk status of what is on its way through other people's systems, and its faults.

Start it with `python -m counterfoil.simulators.lighthouse_documents`. Imports nothing of counterfoil but its fellow simulators.
"""

import hashlib
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from counterfoil.simulators import options
from counterfoil.simulators.lighthouse_token import CLIENT, TOKEN_PATH, Tokens, public_key_of
from counterfoil.simulators.receiver import AFTER, Before, Call, Receiver, Sending, plain, receiving
from counterfoil.simulators.store import encode
from counterfoil.simulators.uploads import Kept, Uploads, Ways
from counterfoil.simulators.wire import HTML, Reply, run

BASE = "/services/benefits-documents/v1"
TYPES = ("pdf", "gif", "png", "tiff", "tif", "jpeg", "jpg", "bmp", "txt")
KNOWN = (
    "error500", "error500_verify", "error502", "error504", "error504_unstored", "html500", "throttle", "expired_token", "disconnect", "latency",
    "not_found_once", "omit_not_found", *AFTER,
)  # fmt: skip
ENDPOINTS = ("token", "upload", "status", "validate")
NOT_FOUND = "Upload Request Async Status Not Found"


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of the upload service. Shares are of uploads, from 0 to 1."""

    client_id: str = options.option(CLIENT, "the client that is known")
    client_secret: str = options.option("", "its secret, where it may use one instead of an assertion")
    audience: str = options.option("", "the audience an assertion must be for; without it any")
    public_key: str = options.option(
        "", "PEM file with the client's public key; without it a pair is made at the start"
    )
    private_key_out: str = options.option("", "file that the private key of that pair is written to")
    token_life: float = options.option(600.0, "how long a token is good", options.duration)
    limit: tuple[int, float] | None = options.option(None, "calls allowed, for example 60/min", options.limit)
    ids_limit: int = options.option(1000, "the most ids in one bulk status call", int)
    size_limit: int = options.option(150 * 1024 * 1024, "the largest upload in bytes", int)
    duplicates: str = options.option("accept", "the same upload again: accept, refuse or flag")
    idempotency: bool = options.option(False, "honour an Idempotency-Key, as the real one does not", bool)
    step: tuple[float, float] = options.option(
        (1.0, 10.0), "how long each step takes, for example 1s-10s", options.span
    )
    fail_evidence: float = options.option(0.0, "share that fails at the first step", float)
    fail_gateway: float = options.option(0.0, "share that fails at the second step", float)
    stall: float = options.option(0.0, "share that never ends", float)
    revoke: float = options.option(0.0, "share whose success goes back to IN_PROGRESS for a while", float)
    revoke_failed: float = options.option(0.0, "share whose success becomes a failure", float)
    revoke_after: float = options.option(3600.0, "so long after the success", options.duration)
    unknown_step: float = options.option(0.0, "share that shows a step nobody has heard of", float)
    unknown_status: float = options.option(0.0, "share that shows a status nobody has heard of", float)


@dataclass
class Service:
    """One running upload service."""

    receiver: Receiver
    options: Options
    uploads: Uploads
    tokens: Tokens
    window: list[float] = field(default_factory=lambda: [0.0, 0.0])  # when it ends, calls left
    hidden: set[str] = field(default_factory=set)  # ids that were reported not found once

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        path = request.rel_url.raw_path
        if path == TOKEN_PATH and request.method == "POST":
            return Call(endpoint="token", key="token", answer=partial(self._token, await request.read()))
        if not path.startswith(BASE):
            return _message(404, "no Route matched with those values")
        if over := self._over_limit():
            return over
        if not self.tokens.takes(request.headers.get("Authorization", "")):
            return errors(401, "Unauthorized", "Invalid token.")
        return await self._routed(request, path[len(BASE) :])

    async def _routed(self, request: web.BaseRequest, path: str) -> Call | Reply:
        if request.method == "POST" and path == "/documents":
            return await self._uploading(request)
        if request.method == "POST" and path == "/uploads/status":
            body, internal = (
                await request.read(),
                request.rel_url.query.get("includeInternalOnlyStepStatuses") == "true",
            )
            return Call(endpoint="status", key="bulk", answer=partial(self._bulk, body, internal))
        if request.method == "GET" and path.startswith("/uploads/") and path.endswith("/status"):
            number = path[len("/uploads/") : -len("/status")]
            return Call(
                endpoint="status",
                key=number,
                answer=partial(self._bulk, encode({"data": {"requestIds": [number]}}), False),
            )
        if request.method == "POST" and path == "/documents/validate/claimant":
            return Call(endpoint="validate", key="claimant", answer=self._validate)
        return errors(404, "Not Found", "There is no such resource.")

    def _over_limit(self) -> Reply | None:
        if self.options.limit is None:
            return None
        calls, seconds = self.options.limit
        now = self.receiver.clock()
        if now >= self.window[0]:
            self.window[:] = [now + seconds, float(calls)]
        self.window[1] -= 1
        if self.window[1] >= 0:
            return None
        self.receiver.struck["limit"] += 1
        left = max(0, round(self.window[0] - now))
        headers = {"RateLimit-Limit": str(calls), "RateLimit-Remaining": "0", "RateLimit-Reset": str(left), "Retry-After": str(left),
                   "X-RateLimit-Limit-Minute": str(calls), "X-RateLimit-Remaining-Minute": "0"}  # fmt: skip
        return _message(429, "API rate limit exceeded", headers)

    async def _token(self, body: bytes) -> Reply:
        return self.tokens.answer(body)

    async def _validate(self) -> Reply:
        until = int((self.receiver.clock() + 600) * 1000)
        return Reply(
            200,
            encode({"data": {"valid": True, "success": {"validationToken": uuid.uuid4().hex, "validUntil": until}}}),
        )

    # --- uploads ----------------------------------------------------------------------------------------------

    async def _uploading(self, request: web.BaseRequest) -> Call | Reply:
        kind = request.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data"):
            return errors(415, "Unsupported Media Type", "Content type must be multipart/form-data.")
        if (request.content_length or 0) > self.options.size_limit + 1024 * 1024:
            return _message(413, "Request size limit exceeded")
        parts = await _parts(request)
        if parts is None:
            return errors(400, "Bad Request", "The multipart body can't be read.")
        parameters, file = parts
        data = parameters.get("data") if isinstance(parameters, dict) else None
        if why := _wrong(data, file):
            return errors(400, "Bad Request", why)
        assert isinstance(data, dict)
        if file["size"] > self.options.size_limit:
            return _message(413, "Request size limit exceeded")
        stored: list[int] = []
        key = f"{data['claimId']}/{data['docType']}/{data['fileName']}"
        token = request.headers.get("Idempotency-Key", "") if self.options.idempotency else ""
        return Call(
            endpoint="upload",
            key=key,
            answer=partial(self._store, data, file, token, stored),
            lost=partial(self._lost, stored),
        )

    async def _store(self, data: dict[str, Any], file: dict[str, Any], token: str, stored: list[int]) -> Reply:
        uploads = self.uploads
        if token and token in uploads.by_key:
            stored.append(uploads.by_key[token])
            return _received(uploads.by_key[token])
        identity = (int(data["claimId"]), data["docType"], file["sha256"], data["fileName"])
        before = uploads.same.get(identity)
        if before is not None and self.options.duplicates == "refuse":
            return errors(400, "Bad Request", "Duplicate document: the same file was uploaded for this claim.")
        if before is not None and self.options.duplicates == "flag":
            stored.append(before)
            return _received(before, duplicate=True)
        number = uploads.add(self.receiver.clock())
        uploads.kept[number] = Kept(identity[0], identity[1], data["fileName"], file["sha256"], file["size"])
        first = uploads.same.setdefault(identity, number)
        if first != number:
            uploads.kept[first].times += 1
        if token:
            uploads.by_key[token] = number
        stored.append(number)
        return _received(number)

    def _lost(self, stored: list[int]) -> None:
        for number in stored:
            self.uploads.kept[number].lost += 1

    # --- status -----------------------------------------------------------------------------------------------

    async def _bulk(self, body: bytes, internal: bool) -> Reply:
        try:
            ids = json.loads(body)["data"]["requestIds"]
            numbers = [int(one) for one in ids]
        except (ValueError, TypeError, KeyError):
            return errors(400, "Bad Request", "requestIds must be a list of numbers.")
        if not numbers or len(numbers) > self.options.ids_limit:
            return errors(400, "Bad Request", f"requestIds must have 1 to {self.options.ids_limit} entries.")
        uploads, now = self.uploads, self.receiver.clock()
        known = [number for number in numbers if uploads.knows(number) and not self._hides(number)]
        if not known:
            return errors(404, "Not Found", NOT_FOUND)
        entries = b",".join([uploads.status(number, now, internal=internal) for number in known])
        missing = sorted(set(numbers) - set(known))
        rest = b"" if self.receiver.faults.on("omit_not_found") else b',"requestIdsNotFound":' + encode(missing)
        return Reply(200, b'{"data":{"statuses":[' + entries + b"]" + rest + b"}}")

    def _hides(self, number: int) -> bool:
        """The fault `not_found_once`: an id that exists is not known, the first time."""
        key = str(number)
        if not self.receiver.faults.on("not_found_once") or key in self.hidden:
            return False
        if self.receiver.faults.draw("not_found_once", key) >= self.receiver.faults.rates["not_found_once"][0]:
            return False
        self.hidden.add(key)
        self.receiver.struck["not_found_once"] += 1
        return True

    def preload(self, body: dict[str, Any]) -> dict[str, object]:
        count = int(body["count"])
        return {"first": self.uploads.preload(count, self.receiver.clock()), "count": count}


async def _parts(request: web.BaseRequest) -> tuple[Any, dict[str, Any]] | None:
    """The parameters and, of the file, what is to be known; its content is hashed and dropped."""
    parameters, file = None, {"name": "", "size": 0, "sha256": "", "ascii": True}
    try:
        reader: Any = await request.multipart()
        async for part in reader:
            if part.name == "parameters":
                parameters = json.loads(await part.read())
            elif part.name == "file":
                file = await _read_file(part)
    except (ValueError, AssertionError, RuntimeError):
        return None
    return parameters, file


async def _read_file(part: Any) -> dict[str, Any]:
    digest, size, ascii_only = hashlib.sha256(), 0, True
    while chunk := await part.read_chunk(256 * 1024):
        digest.update(chunk)
        size += len(chunk)
        ascii_only = ascii_only and chunk.isascii()
    return {"name": part.filename or "", "size": size, "sha256": digest.hexdigest(), "ascii": ascii_only}


def _wrong(data: Any, file: dict[str, Any]) -> str:
    """What is wrong with an upload; "" where nothing is."""
    if not isinstance(data, dict):
        return "parameters.data is required."
    for name in ("systemName", "docType", "claimId", "fileName"):
        if data.get(name) in (None, ""):
            return f"{name} is required."
    if ("fileNumber" in data) == ("participantId" in data):
        return "Exactly one identifier, fileNumber or participantId, must be set."
    if not isinstance(data["claimId"], int) or data["claimId"] < 1:
        return "claimId must be a positive number."
    name = str(data["fileName"])
    ending = name.rpartition(".")[2].lower()
    if len(name) > 256 or "." not in name or ending not in TYPES:
        return "fileName must have at most 256 characters and a known type."
    if not file["size"]:
        return "The file is empty."
    return "Text files must be ASCII." if ending == "txt" and not file["ascii"] else ""


def _received(number: int, *, duplicate: bool = False) -> Reply:
    return Reply(
        200, encode({"data": {"success": True, "requestId": number, **({"duplicate": True} if duplicate else {})}})
    )


def errors(status: int, title: str, detail: str) -> Reply:
    error = {"detail": detail, "status": status, "title": title, "instance": str(uuid.uuid4()), "diagnostics": "x" * 40}
    return Reply(status, encode({"errors": [error]}))


def _message(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, encode({"message": message}), headers or {})


BEFORE: Before = {
    "error500": lambda side, call: errors(500, "Internal Server Error", "Something went wrong."),
    "error500_verify": lambda side, call: Reply(500, encode({"status": 500, "error": "Failed to verify payload."})),
    "error502": lambda side, call: errors(502, "Bad Gateway", "The upstream did not answer."),
    "error504_unstored": lambda side, call: _message(504, "The server took too long to respond"),
    "html500": lambda side, call: Reply(500, HTML, content_type="text/html"),
    "throttle": lambda side, call: _message(429, "API rate limit exceeded", {"Retry-After": "1"}),
    "expired_token": lambda side, call: errors(401, "Unauthorized", "The token has expired."),
}


async def _too_long(receiver: Receiver, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """The gateway's 504, although the upload was stored."""
    return plain(_message(504, "The server took too long to respond"))


UPLOAD_AFTER: dict[str, Sending] = {**AFTER, "error504": _too_long}


def _ways(given: Options) -> Ways:
    names = (
        "step",
        "fail_evidence",
        "fail_gateway",
        "stall",
        "revoke",
        "revoke_failed",
        "revoke_after",
        "unknown_step",
        "unknown_status",
        "seed",
    )
    return Ways(**{name: getattr(given, name) for name in names})


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Receiver]:
    """Serve until the block ends; uploads show at /_sim/uploads."""
    given = given or Options()
    receiver = Receiver.of(given, KNOWN, ENDPOINTS)
    key = public_key_of(given.public_key, given.private_key_out)
    tokens = Tokens(receiver.clock, given.client_id, given.client_secret, given.audience, given.token_life, key)
    service = Service(receiver, given, Uploads(_ways(given)), tokens)
    controls = {
        ("GET", "/_sim/record"): lambda body: {
            **receiver.summary(),
            **service.uploads.summary(),
            "tokens": tokens.given,
        },
        ("GET", "/_sim/uploads"): lambda body: service.uploads.lines(receiver.clock()),
        ("POST", "/_sim/preload"): service.preload,
    }
    async with receiving(receiver, service.classify, BEFORE, UPLOAD_AFTER, controls) as side:  # type: ignore[arg-type]
        yield side


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "An upload service that confirms later, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
