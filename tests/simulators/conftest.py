"""Callers of the two simulators over real sockets, as fixtures: `rest(...)` and `occ(...)` start one and yield a caller.

The Lambda caller signs with botocore, so that the simulator's own check of signatures is judged by AWS's code.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from counterfoil.simulators import customer_api, occ_lambda
from counterfoil.simulators.side import Side

INVOKE = "/2015-03-31/functions/{}/invocations"


@dataclass
class Answer:
    """A reply as it came."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body decoded."""
        return json.loads(self.body)

    @property
    def inner(self) -> Any:
        """The body inside a Lambda's payload, decoded."""
        return json.loads(self.json["body"])


@dataclass
class Rest:
    """A caller of the customer API."""

    sim: Side
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str = "/api/v1/data", **more: Any) -> Answer:
        """One request with the bearer token unless headers are given; waits 1 s at most."""
        more = {
            "headers": {"Authorization": "Bearer simulator-token"},
            "timeout": aiohttp.ClientTimeout(total=1),
        } | more
        async with self.session.request(method, URL(self.sim.url + path, encoded=True), **more) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def get(self, path: str = "", **query: Any) -> Answer:
        """GET beneath /api/v1/data."""
        return await self.call("GET", "/api/v1/data" + path, params=query)

    async def put(self, path: str, body: object) -> Answer:
        """PUT beneath /api/v1/data."""
        return await self.call("PUT", "/api/v1/data" + path, json=body)

    async def control(self, path: str, **body: Any) -> Answer:
        """A POST with a body, a GET without, to /_sim."""
        return await self.call("POST" if body else "GET", "/_sim" + path, json=body or None)


@dataclass
class Occ(Rest):
    """A caller of the Lambda simulator."""

    async def invoke(self, event: object, name: str = "occ-applications", **signing: Any) -> Answer:
        """A signed invocation; `signing` changes access, secret, region, service, headers or the raw body."""
        body = signing.get("body", json.dumps(event).encode())
        url = self.sim.url + INVOKE.format(name)
        request = AWSRequest("POST", url, data=body, headers=signing.get("headers", {}))
        keys = Credentials(signing.get("access", "AKIDSIMULATOR"), signing.get("secret", "simulator-secret"))
        SigV4Auth(keys, signing.get("service", "lambda"), signing.get("region", "ap-southeast-2")).add_auth(request)
        return await self.call(
            "POST", INVOKE.format(name), data=signing.get("sent", body), headers=dict(request.headers)
        )

    async def listed(self, since: str = "2000-01-01") -> Answer:
        """The list of what changed since a date."""
        return await self.invoke(
            {"functionName": "applications-by-date", "changedDatSince": since, "clientId": "0000000001"}
        )

    async def medium(self, number: str) -> Answer:
        """One application."""
        event = {"functionName": "application-medium", "applicationExternalNumber": number, "clientId": "0000000001"}
        return await self.invoke(event)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client session."""
    async with aiohttp.ClientSession() as opened:
        yield opened


Opener = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def rest(session: aiohttp.ClientSession) -> Opener:
    """`async with rest(paging="cursor", faults=("html",)) as api`."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Rest]:
        async with customer_api.serve(customer_api.Options(**options)) as sim:
            yield Rest(sim, session)

    return opened


@pytest.fixture
def occ(session: aiohttp.ClientSession) -> Opener:
    """`async with occ(faults=("function_error",)) as side`."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Occ]:
        async with occ_lambda.serve(occ_lambda.Options(**options)) as sim:
            yield Occ(sim, session)

    return opened
