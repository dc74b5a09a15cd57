"""Lighthouse Benefits Documents, to which a claim's documents are uploaded and which is asked later what became of them.

A token endpoint and four calls under /services/benefits-documents/v1, with the gateway's limit in front. Its parts are the modules
lighthouse_*.py. Start it with `python -m counterfoil.simulators.lighthouse_documents`. Imports nothing of ours but its fellows.
"""

import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from aiohttp import web

from counterfoil.simulators import faults, lighthouse_token, options
from counterfoil.simulators import lighthouse_uploads as uploads
from counterfoil.simulators.lighthouse_errors import (
    LIMITED,
    NOT_FOUND,
    REFUSALS,
    bad,
    errors,
    message,
    no_token,
    too_large,
    too_long,
)
from counterfoil.simulators.lighthouse_token import Client, Tokens
from counterfoil.simulators.lighthouse_uploads import POLICIES, Accepted, File, Uploads
from counterfoil.simulators.lighthouse_workflow import FATES, Workflow
from counterfoil.simulators.rate import Window
from counterfoil.simulators.side import Side
from counterfoil.simulators.store import encode
from counterfoil.simulators.wire import (
    Call,
    Controls,
    Reply,
    forward,
    listening,
    run,
    set_faults,
    spoil_body,
)

TOKEN_PATH = "/oauth2/benefits-documents/system/v1/token"
PREFIX = "/services/benefits-documents/v1"
STATUS_PATH = re.compile(r"/uploads/([^/]+)/status")
JSON_LIMIT = 8_000_000
TOKEN_LASTS = 1800.0
ENDPOINTS = ("token", "upload", "validate", "status")
PASSING = (
    "lost_reply", "error500_verify", "error502", "error504", "error504_unstored", "html500", "unknown_step", "unknown_status",
    "omit_not_found",
)  # fmt: skip
LASTING = (*FATES, "not_found_once", "unknown_claimant")
KNOWN = (*faults.PASSING, *PASSING, *LASTING)


@dataclass(frozen=True, kw_only=True)
class Options(options.Common):
    """Settings of Lighthouse Benefits Documents."""

    without: ClassVar[frozenset[str]] = options.RECORDS

    client_id: str = options.option("simulator-client", "client id that is known")
    client_secret: str = options.option("", "secret of the client; without it only signed assertions prove who it is")
    public_key: str = options.option(
        "", "PEM file with the client's public key; without it a key pair is made at start"
    )
    private_key_out: str = options.option("", "file to write the private key to, where a key pair is made")
    audience: str = options.option("", "`aud` that assertions must have; without it the URL of the token endpoint")
    assertion_clock: str = options.option(
        "real", "the clock that judges assertions: real, or simulated (see /_sim/clock)"
    )
    token_life: float = options.option(600.0, "how long a token lasts", options.duration)
    limit: tuple[int, float] | None = options.option(None, "calls allowed, for example 60/min", options.limit)
    token_limit: tuple[int, float] | None = options.option(
        None, "calls allowed for tokens, for example 240/min", options.limit
    )
    size_limit: int = options.option(150_000_000, "largest file in bytes", int)
    plain_limit: int = options.option(50_000_000, "largest file in bytes that is no PDF", int)
    ids_limit: int = options.option(1000, "most request ids in one call", int)
    duplicates: str = options.option("accept", f"what is done with the same document again: {', '.join(POLICIES)}")
    idempotency: bool = options.option(False, "honour Idempotency-Key, which the real one does not know", bool)
    step: tuple[float, float] = options.option((1.0, 10.0), "how long each step of an upload takes", options.span)
    revoke_after: tuple[float, float] = options.option(
        (3600.0, 86400.0),
        "how long after its success an upload is reopened or revoked, where that is its fate",
        options.span,
    )


@dataclass
class Lighthouse:
    """One running side: the shared machinery, who may call, and what was accepted."""

    side: Side
    options: Options
    client: Client
    private_key: bytes
    tokens: Tokens
    uploads: Uploads
    window: Window | None
    token_window: Window | None
    missed: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.side.url

    async def classify(self, request: web.BaseRequest) -> Call | Reply:
        """What a request asks for; a Reply at once when it may not or cannot."""
        path = request.rel_url.raw_path
        if path == TOKEN_PATH and request.method == "POST":
            return self._over(self.token_window) or await self._token(request)
        route = _route(request.method, path)
        if route is None:
            return message(404, "no Route matched with those values")
        over = self._over(self.window)
        if over:
            return over
        scopes = self.tokens.scopes(request.headers.get("Authorization", ""), self.side.clock())
        if scopes is None:
            return self._limited(no_token())
        if route.scope not in scopes:
            return self._limited(errors(403, "Forbidden", f"The token lacks the scope {route.scope}."))
        return await route.prepare(self, request)

    def _over(self, window: Window | None) -> Reply | None:
        now = self.side.clock()
        if window is None or window.take(now):
            return None
        self.side.record.faults["limit"] += 1
        return message(429, LIMITED, {"Retry-After": f"{max(1.0, window.ends - now):.0f}", **self._headers(window)})

    def _headers(self, window: Window | None) -> dict[str, str]:
        if window is None:
            return {}
        told = window.headers(self.side.clock())
        if window.seconds == 60:
            told["X-RateLimit-Limit-Minute"] = told["RateLimit-Limit"]
            told["X-RateLimit-Remaining-Minute"] = told["RateLimit-Remaining"]
        return told

    def _limited(self, reply: Reply) -> Reply:
        """The reply with the headers of the limit."""
        reply.headers.update(self._headers(self.window))
        return reply

    async def _token(self, request: web.BaseRequest) -> Call | Reply:
        if (request.content_length or 0) > JSON_LIMIT:
            return too_large()
        body, authorization = await request.read(), request.headers.get("Authorization", "")
        return Call("token", "", partial(self._give_token, body, authorization))

    async def _give_token(self, body: bytes, authorization: str, fault: str | None) -> Reply:
        now = self.side.clock()
        judged = now if self.options.assertion_clock == "simulated" else time.time()
        client = replace(self.client, audience=self.client.audience or self.side.url + TOKEN_PATH)
        reply = lighthouse_token.answer(body, authorization, client, self.tokens, now, judged)
        reply.headers.update(self._headers(self.token_window))
        return spoil(reply, fault)

    async def prepare_upload(self, request: web.BaseRequest) -> Call | Reply:
        """Read an upload to its end; one that cannot be read is refused at once."""
        try:
            data, file = await uploads.read(request, self.options.size_limit)
        except uploads.Malformed as error:
            return self._limited(bad(str(error)))
        except uploads.TooLarge:
            return self._limited(too_large())
        if file.size > self.options.plain_limit and uploads.kind_of(data.get("fileName")) != "pdf":
            return self._limited(too_large())
        key = request.headers.get("Idempotency-Key", "") if self.options.idempotency else ""
        place = f"{data.get('claimId')}:{data.get('docType')}:{data.get('fileName')}"
        return Call("upload", place, self._met(partial(self._upload, data, file, key)))

    async def prepare_validate(self, request: web.BaseRequest) -> Call | Reply:
        """Whether a claimant may upload for a claim."""
        data = await self._json(request)
        if isinstance(data, Reply):
            return data
        return Call("validate", str(data.get("claimId")), self._met(partial(self._validate, data)))

    async def prepare_bulk(self, request: web.BaseRequest) -> Call | Reply:
        """The status of many uploads."""
        data = await self._json(request)
        if isinstance(data, Reply):
            return data
        ids = _ids(data.get("requestIds"), self.options.ids_limit)
        if isinstance(ids, str):
            return self._limited(bad(ids))
        return Call("status", f"{ids[0]}+{len(ids)}", self._met(partial(self._bulk, ids, _internal(request))))

    async def prepare_single(self, request: web.BaseRequest) -> Call | Reply:
        """The status of one upload."""
        found = STATUS_PATH.fullmatch(request.rel_url.raw_path[len(PREFIX) :])
        request_id = uploads.whole(found[1]) if found else None
        if request_id is None:
            return self._limited(bad("requestId must be a whole number."))
        return Call("status", str(request_id), self._met(partial(self._single, request_id, _internal(request))))

    async def _json(self, request: web.BaseRequest) -> Mapping[str, Any] | Reply:
        if (request.content_length or 0) > JSON_LIMIT:
            return self._limited(too_large())
        try:
            value = json.loads(await request.read())
        except (ValueError, RecursionError):
            return self._limited(bad("The body is no JSON."))
        data = value.get("data") if isinstance(value, dict) else None
        return data if isinstance(data, dict) else self._limited(bad("data must not be null."))

    def _met(self, answer: Callable[[str | None], Awaitable[Reply]]) -> Callable[[str | None], Awaitable[Reply]]:
        """The answer as it goes out: an ended token comes before it, other faults spoil it, the limit's headers go with it."""

        async def met(fault: str | None) -> Reply:
            if fault == "expired_token":
                return self._limited(no_token())
            return self._limited(spoil(await answer(fault), fault))

        return met

    async def _upload(self, data: Mapping[str, Any], file: File, key: str, fault: str | None) -> Reply:
        wrong = uploads.faults_of(data, file)
        if wrong or fault == "disconnect":
            return bad(*wrong)
        try:
            accepted = self.uploads.accept(uploads.upload_of(data, file), self.side.clock(), key)
        except uploads.Duplicate:
            return bad(uploads.DUPLICATE)
        except uploads.OtherContent:
            return errors(422, "Unprocessable Entity", "This Idempotency-Key came with another document before.")
        return self._receipt(accepted)

    def _receipt(self, accepted: Accepted) -> Reply:
        told = {
            "success": True,
            "requestId": accepted.request_id,
            **({"duplicate": True} if accepted.duplicate else {}),
        }
        reply = Reply(200, encode({"data": told}))
        reply.sent = partial(self.uploads.told.update, (accepted.request_id,))
        return reply

    async def _validate(self, data: Mapping[str, Any], fault: str | None) -> Reply:
        checks = (uploads.doc_type, uploads.claim_id, uploads.one_identifier)
        wrong = [told for check in checks if (told := check(data))]
        if wrong:
            return bad(*wrong)
        if self.side.faults.marks("unknown_claimant", str(data["claimId"])):
            return Reply(200, encode({"data": {"valid": False, "error": {"message": "No claimant fits this claim."}}}))
        until = int((self.side.clock() + TOKEN_LASTS) * 1000)
        granted = {"validationToken": secrets.token_hex(16), "validUntil": until}
        return Reply(200, encode({"data": {"valid": True, "success": granted}}))

    async def _bulk(self, ids: list[int], internal: bool, fault: str | None) -> Reply:
        now_ms, tell, missed = int(self.side.clock() * 1000), self.uploads.workflow.tell, self._missed(ids)
        told = [None if one in missed else tell(one, now_ms, internal, fault) for one in ids]
        found = [piece for piece in told if piece is not None]
        if not found:
            return errors(404, "Not Found", NOT_FOUND)
        self.side.record.notes["statuses"] += len(found)
        body = b'{"data":{"statuses":[' + b",".join(found) + b"]"
        if fault != "omit_not_found":
            lacking = [one for one, piece in zip(ids, told, strict=True) if piece is None]
            body += b',"requestIdsNotFound":' + encode(lacking)
        return Reply(200, body + b"}}")

    async def _single(self, request_id: int, internal: bool, fault: str | None) -> Reply:
        now_ms, missed = int(self.side.clock() * 1000), self._missed([request_id])
        piece = None if missed else self.uploads.workflow.tell(request_id, now_ms, internal, fault)
        if piece is None:
            return errors(404, "Not Found", NOT_FOUND)
        self.side.record.notes["statuses"] += 1
        return Reply(200, b'{"data":' + piece + b"}")

    def _missed(self, ids: list[int]) -> set[int]:
        """Those on which the fault `not_found_once` lies and that were never missed before; they are from now on."""
        marks = self.side.faults.marks
        if not self.side.faults.on("not_found_once"):
            return set()
        missed = {one for one in ids if one not in self.missed and marks("not_found_once", str(one))}
        self.missed |= missed
        return missed


@dataclass(frozen=True, slots=True)
class Route:
    """A call: the scope its token needs, and how it is prepared."""

    scope: str
    prepare: Callable[[Lighthouse, web.BaseRequest], Awaitable[Call | Reply]]


ROUTES = {
    ("POST", "/documents"): Route("documents.write", Lighthouse.prepare_upload),
    ("POST", "/documents/validate/claimant"): Route("documents.read", Lighthouse.prepare_validate),
    ("POST", "/uploads/status"): Route("documents.read", Lighthouse.prepare_bulk),
}
SINGLE = Route("documents.read", Lighthouse.prepare_single)


def _route(method: str, path: str) -> Route | None:
    if not path.startswith(PREFIX):
        return None
    rest = path[len(PREFIX) :]
    if method == "GET" and STATUS_PATH.fullmatch(rest):
        return SINGLE
    return ROUTES.get((method, rest))


def _ids(given: object, most: int) -> list[int] | str:
    """The request ids asked for, each once, whether sent as numbers or as text; or what is wrong with them."""
    if not isinstance(given, list) or not given:
        return "requestIds must not be empty."
    if len(given) > most:
        return f"requestIds must not have more than {most} entries."
    ids = [uploads.whole(one) for one in given]
    whole = [one for one in ids if one is not None]
    return list(dict.fromkeys(whole)) if len(whole) == len(ids) else "requestIds must be whole numbers and not null."


def _internal(request: web.BaseRequest) -> bool:
    return request.rel_url.query.get("includeInternalOnlyStepStatuses", "").lower() == "true"


def spoil(reply: Reply, fault: str | None) -> Reply:
    """What a fault makes of an answer that was worked out, and so stored where it stores."""
    return too_long() if fault == "error504" else spoil_body(reply, fault)


def _controls(lighthouse: Lighthouse) -> Controls:
    side, kept = lighthouse.side, lighthouse.uploads

    def record(_: Side, body: dict[str, Any]) -> dict[str, object]:
        return {**side.record.traffic(), "uploads": kept.summary(), "tokens": lighthouse.tokens.given}

    def preload(_: Side, body: dict[str, Any]) -> dict[str, object]:
        count = int(body["count"])
        return {"first": kept.preload(count, side.clock()), "count": count}

    def set_policy(_: Side, body: dict[str, Any]) -> dict[str, object]:
        kept.set_policy(str(body["policy"]))
        return {"policy": kept.policy}

    def condemn(_: Side, body: dict[str, Any]) -> dict[str, object]:
        kept.workflow.condemn(int(body["requestId"]), str(body["fate"]))
        return {"requestId": int(body["requestId"]), "fate": str(body["fate"])}

    def key(_: Side, body: dict[str, Any]) -> dict[str, object]:
        audience = lighthouse.client.audience or side.url + TOKEN_PATH
        return {
            "client_id": lighthouse.client.name,
            "audience": audience,
            "private_key": lighthouse.private_key.decode(),
        }

    return {
        ("GET", "/_sim/record"): record,
        ("GET", "/_sim/uploads"): lambda _, body: kept.lines(side.clock()),
        ("GET", "/_sim/statuses"): lambda _, body: dict(kept.workflow.statuses(int(side.clock() * 1000))),
        ("GET", "/_sim/key"): key,
        ("POST", "/_sim/clock"): forward,
        ("POST", "/_sim/faults"): set_faults,
        ("POST", "/_sim/preload"): preload,
        ("POST", "/_sim/duplicates"): set_policy,
        ("POST", "/_sim/fate"): condemn,
        ("POST", "/_sim/expire"): lambda _, body: {"expired": lighthouse.tokens.expire()},
    }


def _client(given: Options) -> tuple[Client, bytes]:
    """The client that is known, and its private key where it was made here."""
    if given.public_key:
        key = lighthouse_token.read_public_key(given.public_key)
        return Client(given.client_id, given.audience, key, given.client_secret), b""
    key, pem = lighthouse_token.make_private_key()
    if given.private_key_out:
        lighthouse_token.write_private_key(given.private_key_out, pem)
    return Client(given.client_id, given.audience, key, given.client_secret), pem


@asynccontextmanager
async def serve(given: Options | None = None) -> AsyncIterator[Lighthouse]:
    """Serve until the block ends; yields the simulator with .url, .side, .uploads, .tokens and .private_key (PEM)."""
    given = given or Options()
    if given.assertion_clock not in ("real", "simulated"):
        raise ValueError(f"--assertion-clock {given.assertion_clock!r} is not known. Known: real, simulated.")
    side = Side.without_rows(given, KNOWN, ENDPOINTS, LASTING)
    client, pem = _client(given)
    workflow = Workflow(given.seed, given.step, given.revoke_after)
    kept = Uploads(workflow, lambda: {name: rate for name, (rate, _) in side.faults.rates.items()}, given.duplicates)
    windows = Window.of(given.limit), Window.of(given.token_limit)
    lighthouse = Lighthouse(side, given, client, pem, Tokens(given.token_life), kept, *windows)
    async with listening(side, lighthouse.classify, REFUSALS, _controls(lighthouse)):
        yield lighthouse


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options.from_arguments(Options, arguments, "Lighthouse Benefits Documents, with faults.")
    return run(lambda: serve(given))


if __name__ == "__main__":
    sys.exit(main())
