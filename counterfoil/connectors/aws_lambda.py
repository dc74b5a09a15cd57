"""A source behind AWS Lambda: the Invoke API over HTTPS, signed, with the list and the record as two declared payloads.

Three layers can fail, and each is told apart: the Lambda service (status and x-amzn-ErrorType), the function
(X-Amz-Function-Error), and what the function answered (`statusCode` and `body`). One try per call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from yarl import URL

from counterfoil.connectors import auth
from counterfoil.connectors.authorise import SigV4
from counterfoil.connectors.paging import check_paging, load_place, next_place, save_place
from counterfoil.connectors.replies import ListReader, RecordReader, retry_after, status_error
from counterfoil.connectors.templates import fill_payload, http_url, moments
from counterfoil.connectors.wire import Ask, Reply, Wire
from counterfoil.flows.flow import AuthType, PagingStyle, SourceSpec
from counterfoil.model.clock import Clock
from counterfoil.model.errors import ConnectorError, Misconfigured, Refused, Throttled, Transient
from counterfoil.model.ports import Cursor, Page
from counterfoil.model.run import Window

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,79}")
_WRONG_KEYS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "InvalidClientTokenId",
        "IncompleteSignatureException",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
    }
)
_TIMED_OUT = re.compile(r"timed ?out", re.IGNORECASE)


class _Envelope(msgspec.Struct):
    """What an API-style function answers. Without `statusCode` the payload itself is the body."""

    statusCode: int | str | None = None
    body: msgspec.Raw = msgspec.Raw()
    headers: dict[str, Any] | None = None


class _Failure(msgspec.Struct):
    """What the service or the runtime says of a failure."""

    errorType: Any = None
    errorMessage: Any = None
    type_: Any = msgspec.field(name="__type", default=None)


@dataclass(frozen=True, slots=True)
class _Function:
    """One function to invoke, as often as wanted."""

    url: URL
    place: str
    payload: Any
    limit: int
    setting: str
    gone: bool  # a 404 in its answer means an unknown key


class LambdaSource:
    """Implements `model.ports.Source`. Auth must be sigv4; `url` is the endpoint, or empty for AWS itself."""

    def __init__(
        self, spec: SourceSpec, *, environment: Mapping[str, str], folder: Path, concurrency: int, clock: Clock
    ) -> None:
        if spec.auth.type is not AuthType.SIGV4:
            raise Misconfigured(
                "A source of kind aws_lambda needs `auth` of type sigv4.", "Declare its keys in `source.auth`."
            )
        values = auth.credentials(spec.auth, environment)
        endpoint = auth.resolve(spec.url, environment) or f"https://lambda.{values['region']}.amazonaws.com"
        self._spec, self._clock, self._paging = spec, clock, spec.list.paging
        self._wire = Wire(
            http_url(endpoint, "Leave it out for AWS itself."),
            headers={"Accept": "application/json", "User-Agent": "counterfoil"},
            timeouts=spec.timeouts,
            concurrency=concurrency,
            authoriser=SigV4(values, "lambda"),
        )
        self._prepare(endpoint, environment)

    @property
    def has_detail(self) -> bool:
        return self._detail is not None

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        """One page; all of the list unless paging of style cursor is declared."""
        place = load_place(self._paging, cursor)
        at = None if place.at is None else str(place.at)
        payload = fill_payload(self._list.payload, {**moments(window, self._spec.watermark), "cursor": at})
        body = await self._invoke(self._list, payload)
        listed = self._reader.read(body, self._list.place, place.number)
        after = next_place(
            self._paging,
            place,
            count=listed.count,
            digest="" if self._paging.style is PagingStyle.NONE else listed.digest(),
            follow=listed.follow,
            pages=self._spec.limits.pages,
            where=self._list.place,
        )
        return Page(listed.entries, save_place(after), listed.broken)

    async def record(self, key: str) -> bytes:
        """One record. Gone when the function answers `statusCode` 404 or 410."""
        if self._detail is None:
            raise Misconfigured("This source declares no `detail` call.", "Add `detail` to the flow's `source`.")
        body = await self._invoke(self._detail, fill_payload(self._detail.payload, {"key": key}))
        return self._record.read(body, self._detail.place)

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None:
        raise Misconfigured("A source of kind aws_lambda has no write-back.", "Remove `write_back` from the flow.")

    async def probe(self) -> str:
        """A dry run of the list function: AWS checks name, keys and permission, and runs nothing."""
        ask = self._ask(self._list, b"{}")
        reply = await self._wire.call(ask, {"X-Amz-Invocation-Type": "DryRun"})
        if reply.status not in (200, 204):
            raise self._service_error(reply, self._list.place)
        return f"{self._list.place} may be invoked (dry run answered {reply.status})."

    async def close(self) -> None:
        await self._wire.close()

    def _prepare(self, endpoint: str, environment: Mapping[str, str]) -> None:
        spec, limits = self._spec, self._spec.limits
        check_paging(spec.list.paging, spec.list.items)
        if spec.list.paging.style not in (PagingStyle.NONE, PagingStyle.CURSOR):
            raise Misconfigured("A source of kind aws_lambda pages by cursor only.", "Use `style: cursor` or none.")
        self._reader = ListReader(spec.list.items, spec.list.paging.next_at, limits.record_bytes)
        self._record = RecordReader(spec.detail.record if spec.detail else "", spec.key)
        self._list = _function(
            endpoint, spec.list.function, spec.list.payload, environment, limits.page_bytes, "page_bytes", gone=False
        )
        self._detail: _Function | None = None
        if spec.detail:
            function, payload = spec.detail.function, spec.detail.payload
            self._detail = _function(
                endpoint, function, payload, environment, limits.record_bytes, "record_bytes", gone=True
            )

    def _ask(self, function: _Function, payload: bytes) -> Ask:
        return Ask("POST", function.url, function.place, function.limit, function.setting, payload, repeatable=True)

    async def _invoke(self, function: _Function, payload: Any) -> bytes:
        """The body the function answered. Raises for each of the three layers."""
        reply = await self._wire.call(self._ask(function, msgspec.json.encode(payload)))
        if reply.status != 200:
            raise self._service_error(reply, function.place)
        if "X-Amz-Function-Error" in reply.headers:
            raise _function_error(reply, function.place)
        return self._answered(reply.body, function)

    def _answered(self, payload: bytes, function: _Function) -> bytes:
        try:
            envelope = _ENVELOPE.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            # A plain list, null, or nothing readable: the reader of the body says what it is.
            return b"" if payload.strip() == b"null" else payload
        if envelope.statusCode is None:
            return payload
        if str(envelope.statusCode) != "200":
            raise self._answered_error(envelope, function)
        body = bytes(envelope.body)
        if body.startswith(b'"'):
            return msgspec.json.decode(body, type=str).encode("utf-8", "surrogatepass")
        return b"" if body == b"null" else body

    def _answered_error(self, envelope: _Envelope, function: _Function) -> ConnectorError:
        headers = {str(name).lower(): str(value) for name, value in (envelope.headers or {}).items()}
        wait = retry_after(headers.get("retry-after"), self._clock.now())
        text = str(envelope.statusCode)
        status = int(text) if text.isdecimal() else 0
        return status_error(status, function.place, wait=wait, gone=function.gone, login="the payload's client id")

    def _service_error(self, reply: Reply, place: str) -> ConnectorError:
        kind = _service_kind(reply)
        spec = self._spec.auth
        if kind in _WRONG_KEYS:
            secret = "Signature" in kind or kind == "SignatureDoesNotMatch"
            names = auth.variables(
                spec, *(("secret_key", "session_token") if secret else ("access_key", "session_token"))
            )
            return Misconfigured(
                f"{place}: AWS refused the credentials ({kind}).", f"Look at {names} and this machine's clock."
            )
        if reply.status == 404:
            return Misconfigured(
                f"{place}: AWS knows no such function in this region.", "Look at `function` and `auth.region`."
            )
        if kind.startswith("ExpiredToken"):
            names = auth.variables(spec, "session_token")
            return Transient(f"{place}: the session token has expired.", f"Renew {names}.", fault="unauthorised")
        if reply.status == 409:  # the function is being updated, or wakes up
            return Transient(f"{place} answered 409 ({kind or 'no reason given'}).", fault="http_409")
        wait = retry_after(reply.headers.get("Retry-After"), self._clock.now())
        return status_error(reply.status, place, wait=wait, gone=False, login=auth.variables(spec))


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def _function(
    endpoint: str, declared: str, payload: Any, environment: Mapping[str, str], limit: int, setting: str, *, gone: bool
) -> _Function:
    name = auth.resolve(declared, environment)
    if not name:
        raise Misconfigured("A call of a Lambda source names no `function`.", "Give its name or ARN.")
    url = URL(f"{endpoint.rstrip('/')}/2015-03-31/functions/{quote(name, safe='')}/invocations", encoded=True)
    short = name.split(":function:")[-1]  # an ARN holds the account number, which is nobody's business
    return _Function(url, f"Lambda function {short}", auth.resolve_all(payload, environment), limit, setting, gone)


def _failure(body: bytes) -> _Failure:
    try:
        return msgspec.json.decode(body, type=_Failure)
    except (msgspec.DecodeError, RecursionError):
        return _Failure()


def _service_kind(reply: Reply) -> str:
    """`InvalidSignatureException` from `InvalidSignatureException:http://...` or `com.amazonaws#Invalid...`, "" for none."""
    text = reply.headers.get("x-amzn-ErrorType") or str(_failure(reply.body).type_ or "")
    kind = text.split(":")[0].split("#")[-1]
    return kind if _KIND.fullmatch(kind) else ""


def _function_error(reply: Reply, place: str) -> ConnectorError:
    """`Handled`: the function itself said no. `Unhandled`: it broke, ran out of time or memory, and may not next time."""
    failure = _failure(reply.body)
    kind = str(failure.errorType or "")
    named = kind if _KIND.fullmatch(kind) else "no error type given"
    if kind == "Sandbox.Timedout" or _TIMED_OUT.search(str(failure.errorMessage or "")):
        return Transient(f"{place} ran out of time ({named}).", fault="function_timeout")
    if kind in ("TooManyRequestsException", "ThrottlingException"):
        return Throttled(f"{place}: the function is throttled ({named}).")
    if reply.headers["X-Amz-Function-Error"] == "Handled":
        return Refused(f"{place} answered with an error of its own ({named}).", fault="function_error")
    return Transient(f"{place} broke ({named}).", "Its log says why.", fault="function_error")
