"""A caller of the Lighthouse simulator over real sockets, which holds every request and reply to the contract of the example project.

Assertions are signed with PyJWT, so that the simulator's own check is judged by code that is not its own.
"""

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema_rs
import jwt
from ruamel.yaml import YAML
from yarl import URL

from counterfoil.simulators import lighthouse_documents as lighthouse

FILE = Path(__file__).parents[2] / "examples/claim-uploads/contracts/benefits-documents.yaml"
DOCUMENT: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE)
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PDF = b"%PDF-1.7\nA document.\n%%EOF\n"
CLAIM = {
    "systemName": "VA.gov",
    "docType": "L023",
    "claimId": 600,
    "fileName": "instructions.pdf",
    "participantId": "796130115",
}


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
    def data(self) -> Any:
        """What stands in `data`."""
        return self.json["data"]

    @property
    def details(self) -> list[str]:
        """The details of the service's own errors."""
        return [entry["detail"] for entry in self.json["errors"]]


class Contract:
    """Schemas of the contract, by where they stand."""

    def __init__(self) -> None:
        self._registry = jsonschema_rs.Registry([("urn:contract", DOCUMENT)], draft=jsonschema_rs.Draft202012)

    def wrong(self, value: object, *place: str) -> list[str]:
        """What of the value breaks the schema at a place in the document."""
        pointer = "/".join(quote(part.replace("~", "~0").replace("/", "~1")) for part in place)
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": f"urn:contract#/{pointer}"}
        validator = jsonschema_rs.validator_for(schema, registry=self._registry, validate_formats=True)
        return [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(value)]

    def reply(self, operation: tuple[str, str], answer: Answer) -> list[str]:
        """What of a reply breaks the contract; a status or a content type that it does not name does."""
        found, place = _followed("paths", *operation, "responses", str(answer.status))
        kind = answer.headers["Content-Type"].partition(";")[0]
        if found is None or kind not in found["content"]:
            return [f"{answer.status} {kind} is not in the contract"]
        content = found["content"][kind]
        return self.wrong(answer.json, *place, "content", kind, "schema") if "schema" in content else []

    def request(self, operation: tuple[str, str], value: object) -> list[str]:
        """What of a JSON body, or of part `parameters`, breaks the contract."""
        if operation[0] == "/documents":
            return self.wrong(value, "components", "schemas", "UploadParameters")
        return self.wrong(value, "paths", *operation, "requestBody", "content", "application/json", "schema")


def _followed(*place: str) -> tuple[Any, tuple[str, ...]]:
    found: Any = DOCUMENT
    for part in place:
        found = found.get(part) if found else None
    if found and "$ref" in found:
        return _followed(*found["$ref"].removeprefix("#/").split("/"))
    return found, place


def operation_of(method: str, path: str) -> tuple[str, str]:
    """The path and method by which the contract knows a call."""
    known = re.sub(r"/uploads/[^/]+/status", "/uploads/{requestId}/status", path.partition("?")[0])
    return known, method.lower()


CONTRACT = Contract()


@dataclass
class Caller:
    """A caller with a token of its own. Calls wait 2 s at most."""

    sim: lighthouse.Lighthouse
    session: aiohttp.ClientSession
    token: str = ""

    async def send(self, method: str, path: str, **more: Any) -> Answer:
        """One request as it is, without a token."""
        more = {"timeout": aiohttp.ClientTimeout(total=2)} | more
        async with self.session.request(method, URL(self.sim.url + path, encoded=True), **more) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        """A call of the API with the token, its reply held to the contract."""
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        answer = await self.send(method, lighthouse.PREFIX + path, headers=headers, **more)
        assert CONTRACT.reply(operation_of(method, path), answer) == []
        return answer

    async def control(self, path: str, **body: Any) -> Answer:
        """A POST with a body, a GET without, to /_sim."""
        return await self.send("POST" if body else "GET", "/_sim" + path, json=body or None)

    async def lines(self, path: str = "/uploads") -> list[Any]:
        """JSONL of a control."""
        return [json.loads(line) for line in (await self.control(path)).body.splitlines()]

    async def forward(self, seconds: float) -> None:
        """Move the simulator's clock."""
        assert (await self.control("/clock", forward=seconds)).status == 200

    def assertion(self, *, algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        """A signed client assertion; claims given replace its own, None takes one away."""
        now, client = int(time.time()), self.sim.options.client_id
        own = {"iss": client, "sub": client, "aud": self.sim.url + lighthouse.TOKEN_PATH, "iat": now, "exp": now + 300}
        told = {name: value for name, value in {**own, **claims}.items() if value is not None}
        return jwt.encode(told, key or self.sim.private_key, algorithm=algorithm)

    async def ask_token(self, assertion: str | None = None, **form: str) -> Answer:
        """A request for a token with an assertion; parts of the form may be replaced."""
        own = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion or self.assertion(),
            "scope": "documents.read documents.write",
        }
        return await self.send("POST", lighthouse.TOKEN_PATH, data={**own, **form})

    async def login(self, **form: str) -> None:
        """Take a token and use it from now on."""
        answer = await self.ask_token(**form)
        assert answer.status == 200, answer.body
        self.token = answer.json["access_token"]

    async def upload(
        self, data: object = None, file: bytes = PDF, headers: dict[str, str] | None = None, **changes: Any
    ) -> Answer:
        """One upload; `changes` replace fields of CLAIM, None takes one away."""
        own = {name: value for name, value in {**CLAIM, **changes}.items() if value is not None}
        parameters = {"data": own} if data is None else data
        form = aiohttp.FormData()
        form.add_field(
            "parameters", json.dumps(parameters), content_type="application/json", filename="parameters.json"
        )
        form.add_field("file", file, content_type="application/octet-stream", filename="file")
        answer = await self.call("POST", "/documents", data=form, headers=headers or {})
        if answer.status == 200:
            assert CONTRACT.request(("/documents", "post"), parameters) == []
        return answer

    async def stored(self, **changes: Any) -> int:
        """The request id of an upload that was accepted."""
        answer = await self.upload(**changes)
        assert answer.status == 200, answer.body
        request_id = answer.data["requestId"]
        assert isinstance(request_id, int)
        return request_id

    async def bulk(self, *ids: object, query: str = "") -> Answer:
        """The status of many."""
        return await self.call("POST", f"/uploads/status{query}", json={"data": {"requestIds": list(ids)}})

    async def status(self, request_id: object, query: str = "") -> Any:
        """The status of one, as `data` has it."""
        answer = await self.call("GET", f"/uploads/{request_id}/status{query}")
        assert answer.status == 200, answer.body
        return answer.data


@asynccontextmanager
async def opened(login: bool = True, **options: Any) -> AsyncIterator[Caller]:
    """A simulator and its caller, with a token unless told otherwise."""
    async with lighthouse.serve(lighthouse.Options(**options)) as sim, aiohttp.ClientSession() as session:
        caller = Caller(sim, session)
        if login:
            await caller.login()
        yield caller
