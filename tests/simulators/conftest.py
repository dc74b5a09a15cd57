"""Callers of the simulators over real sockets, as fixtures: `rest(...)`, `occ(...)`, `case(...)` and `deputy(...)` start one.

Callers that sign do so with botocore and PyJWT, so that the simulators' own checks are judged by code they do not share. What the
case system and the deputy gateway answer is held to their contracts by the reference implementation of JSON Schema.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from yarl import URL

from counterfoil.simulators import case_system, customer_api, deputy_gateway, occ_lambda
from counterfoil.simulators.contract import EXAMPLES

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

    sim: Any
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


@dataclass
class Spec:
    """A contract, read by other code than the simulators' own."""

    document: Any

    @classmethod
    def of(cls, path: str) -> "Spec":
        """From a file of the examples folder."""
        return cls(YAML(typ="safe", pure=True).load(EXAMPLES / path))

    def request(self, operation: str, body: object) -> list[str]:
        """What is wrong with a body."""
        return self._wrong(self._operation(operation)["requestBody"]["content"]["application/json"], body)

    def reply(self, operation: str, answer: Answer) -> list[str]:
        """What is wrong with an answer: its status, its media type, its body."""
        responses, media = self._operation(operation)["responses"], answer.headers["Content-Type"].partition(";")[0]
        response = self._followed(responses.get(str(answer.status)) or responses["default"])
        if media not in response["content"]:
            return [f"{answer.status} {media} is not declared"]
        return self._wrong(response["content"][media], answer.body.decode() if media == "text/html" else answer.json)

    def _operation(self, name: str) -> Any:
        items = [one for item in self.document["paths"].values() for one in item.values()]
        return next(one for one in items if isinstance(one, dict) and one.get("operationId") == name)

    def _followed(self, node: Any) -> Any:
        found = self.document if "$ref" in node else node
        for part in node.get("$ref", "#/").removeprefix("#/").split("/"):
            found = found[part] if part else found
        return found

    def _wrong(self, content: Any, body: object) -> list[str]:
        whole = {"allOf": [content["schema"]], "components": self.document["components"]}
        return [error.message for error in Draft202012Validator(whole).iter_errors(body)]


GATEWAY = Spec.of(deputy_gateway.CONTRACT)
CASE = Spec.of(case_system.CONTRACT)
REPORT_UUID = "5f0e1c2d-0000-4000-8000-00000000abcd"
DOCUMENTS = "/api/public/v1/documents"


@dataclass
class Case(Rest):
    """A caller of the case system. What it sends and gets is held to the contract, unless `held` is false."""

    async def ask(self, method: str, path: str = "", body: object = None, held: bool = True, **more: Any) -> Answer:
        """One call with a token made by PyJWT; `token` gives another one, `claims` changes it."""
        operation = {"GET": "findDocuments", "POST": "createDocument", "PUT": "replaceDocument"}[method]
        now = int(time.time())
        claims = {"session-data": "sync@example.com", "iat": now, "exp": now + 600} | more.pop("claims", {})
        token = more.pop("token", None) or jwt.encode(claims, case_system.SECRET, "HS256")
        if body is not None and held:
            assert CASE.request(operation, body) == []
        sent = {"json": body} if body is not None else {}
        answer = await self.call(method, DOCUMENTS + path, headers={"Authorization": f"Bearer {token}"}, **sent | more)
        assert not held or CASE.reply(operation, answer) == []
        return answer

    async def file(self, **changes: Any) -> Answer:
        """File a supporting document; `changes` to the body's fields, `file` to those of its file."""
        file = {"name": "a.pdf", "source": base64.b64encode(b"content").decode(), "type": "application/pdf"}
        body = {"type": "Report - General", "caseRecNumber": "12345678", "metadata": {"submission_id": 7}}
        held = changes.pop("held", True)
        return await self.ask("POST", "", {**body, **changes, "file": file | changes.pop("file", {})}, held)

    async def find(self, number: str = "12345678", **metadata: str) -> list[Any]:
        """What a search finds."""
        query = {"caserecnumber": number} | {f"metadata[{name}]": value for name, value in metadata.items()}
        return list((await self.ask("GET", params=query)).json)

    async def listing(self, path: str = "/documents") -> list[Any]:
        """The simulator's own record, JSONL."""
        return [json.loads(line) for line in (await self.control(path)).body.splitlines()]


@dataclass
class Deputy(Case):
    """A caller of the deputy gateway, and of the case system inside it."""

    async def send(self, operation: str, path: str, body: object, held: bool = True, **signing: Any) -> Answer:
        """A signed call; `signing` changes access, secret, region, service, headers, method, the raw body, what is sent of it."""
        raw = signing.get("raw", json.dumps(body).encode())
        method = signing.get("method", "PUT" if operation == "updateChecklist" else "POST")
        headers = {"Content-Type": "application/json", "Accept": "application/vnd.opg-data.v1+json"}
        request = AWSRequest(method, self.sim.url + "/v2" + path, data=raw, headers=signing.get("headers", headers))
        keys = Credentials(signing.get("access", "AKIDSIMULATOR"), signing.get("secret", "simulator-secret"), "session")
        SigV4Auth(keys, signing.get("service", "execute-api"), signing.get("region", "eu-west-1")).add_auth(request)
        timeout = aiohttp.ClientTimeout(total=signing.get("wait", 5))
        answer = await self.call(
            method, "/v2" + path, data=signing.get("sent", raw), headers=dict(request.headers), timeout=timeout
        )
        if held:
            assert GATEWAY.reply(operation, answer) == []
            assert answer.status >= 300 or GATEWAY.request(operation, body) == []
        return answer

    async def report(self, submission: int = 7, case: str = "12345678", held: bool = True, **more: Any) -> Answer:
        """The PDF of a report, by reference; `file` changes its file, the rest is as in `send`."""
        attributes = {
            "submission_id": submission,
            "reporting_period_from": "2025-04-01",
            "reporting_period_to": "2026-03-31",
            "year": 2025,
            "date_submitted": "2026-04-02T09:30:00+01:00",
            "type": "PF",
        }
        file = {"name": "report.pdf", "mimetype": "application/pdf", "s3_reference": f"dd_doc_{submission}"}
        data = {"type": "reports", "attributes": attributes, "file": file | more.pop("file", {})}
        return await self.send("createReport", f"/clients/{case}/reports", {"report": {"data": data}}, held, **more)

    async def supporting(
        self, name: str = "a.pdf", submission: int = 7, report: str = REPORT_UUID, **more: Any
    ) -> Answer:
        """A supporting document, by reference."""
        file = {"name": name, "mimetype": "application/pdf", "s3_reference": f"dd_doc_{name}"}
        data = {"type": "supportingdocuments", "attributes": {"submission_id": submission}, "file": file}
        path = f"/clients/12345678/reports/{report}/supportingdocuments"
        return await self.send("createSupportingDocument", path, {"supporting_document": {"data": data}}, **more)

    async def checklist(self, replaces: str = "", content: bytes = b"checked", **more: Any) -> Answer:
        """A checklist, inline; with `replaces` an update of that one."""
        file = {"name": "checklist.pdf", "mimetype": "application/pdf", "source": base64.b64encode(content).decode()}
        attributes = {"submission_id": more.pop("submission", 7), "year": 2026, "type": "PF"}
        data = {"type": "checklists", "attributes": attributes, "file": file}
        path = f"/clients/12345678/reports/{more.pop('report', REPORT_UUID)}/checklists"
        operation = "updateChecklist" if replaces else "createChecklist"
        return await self.send(operation, f"{path}/{replaces}".rstrip("/"), {"checklist": {"data": data}}, **more)

    async def one(self) -> Any:
        """The only document there is in the gateway's record."""
        (line,) = await self.listing()
        return line


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


@pytest.fixture
def case(session: aiohttp.ClientSession) -> Opener:
    """`async with case(faults=("late_store",)) as system`."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Case]:
        async with case_system.serve(case_system.Options(**options)) as sim:
            yield Case(sim, session)

    return opened


@pytest.fixture
def deputy(session: aiohttp.ClientSession) -> Opener:
    """`async with deputy(faults=("lost_reply",), cases="12345678") as gateway`."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Deputy]:
        async with deputy_gateway.serve(deputy_gateway.Options(**options)) as sim:
            yield Deputy(sim, session)

    return opened
