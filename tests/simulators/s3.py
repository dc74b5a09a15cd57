"""Callers of an S3 for tests: obstore, the client library that the product uses, and botocore-signed requests for what it cannot say.

`ours` is the simulator, `theirs` the S3 server of rclone over a folder; both have one bucket and know one key pair.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import aiohttp
import obstore
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from obstore.store import S3Store
from yarl import URL

from counterfoil.simulators import object_store, sigv4
from counterfoil.simulators.sigv4 import Signed
from counterfoil.simulators.sigv4_s3 import UNSIGNED, canonical_request

ACCESS, SECRET, BUCKET, REGION = "AKIDSIMULATOR", "simulator-secret", "documents", "us-east-1"
RCLONE = Path(sys.executable).with_name("rclone")
ADDRESS = re.compile(r"\[(http://127\.0\.0\.1:\d+)/\]")
MB = 1024 * 1024


@dataclass
class Answer:
    """A reply as it came."""

    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error."""
        return self.text("Code")

    def text(self, name: str) -> str:
        """The text of the first element with this name; "" when there is none."""
        return next(iter(self.texts(name)), "")

    def texts(self, name: str) -> list[str]:
        """The texts of all elements with this name."""
        root = ElementTree.fromstring(self.body)
        return [found.text or "" for found in root.iter() if found.tag.rpartition("}")[2] == name]


@dataclass
class Caller:
    """A caller of one S3."""

    endpoint: str
    session: aiohttp.ClientSession

    def store(self, *, secret: str = SECRET, retries: int = 3, **more: Any) -> S3Store:
        """obstore's view of it, which tries again quickly."""
        quick = timedelta(milliseconds=5)
        return S3Store(
            more.pop("bucket", BUCKET),
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=ACCESS,
            secret_access_key=secret,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "timeout": timedelta(seconds=10)},
            retry_config={
                "max_retries": retries,
                "backoff": {"base": 2, "init_backoff": quick, "max_backoff": quick},
                "retry_timeout": timedelta(seconds=10),
            },
            **more,
        )

    def address(self, key: str, made: float, lasts: int) -> str:
        """A presigned address made at any time (epoch seconds), by the simulator's own code, which rclone then judges."""
        path, stamp = f"/{BUCKET}/{quote(key)}", datetime.fromtimestamp(made, UTC).strftime("%Y%m%dT%H%M%SZ")
        told = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{ACCESS}/{stamp[:8]}/{REGION}/s3/aws4_request",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(lasts),
            "X-Amz-SignedHeaders": "host",
        }
        signed = Signed("GET", path, "", {"host": self.endpoint.removeprefix("http://")}, b"")
        canonical = canonical_request(signed, ("host",), list(told.items()), UNSIGNED)
        known = sigv4.Credentials(ACCESS, SECRET, REGION, "s3")
        query = urlencode({**told, "X-Amz-Signature": sigv4.signature(known, stamp[:8], stamp, canonical)})
        return f"{self.endpoint}{path}?{query}"

    async def call(self, method: str, path: str, body: bytes = b"", **more: Any) -> Answer:
        """A signed request; `sent` is what is sent in place of the body that was signed, or with `unsigned` was not."""
        url = f"{self.endpoint}{path}"
        request = AWSRequest(method, url, data=body, headers=more.get("headers", {}))
        if more.get("unsigned"):
            request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
        S3SigV4Auth(Credentials(ACCESS, more.get("secret", SECRET)), "s3", REGION).add_auth(request)
        return await self.plain(method, url, data=more.get("sent", body), headers=dict(request.headers))

    async def plain(self, method: str, url: str, **more: Any) -> Answer:
        """A request as it is."""
        more = {"timeout": aiohttp.ClientTimeout(total=5), "skip_auto_headers": ("Content-Type",)} | more
        async with self.session.request(method, URL(url, encoded=True), **more) as reply:
            return Answer(reply.status, reply.headers, await reply.read())


@dataclass
class Ours(Caller):
    """A caller of the simulator."""

    sim: object_store.ObjectStore

    async def control(self, path: str, **body: Any) -> Any:
        """A POST with a body, a GET without, to /_sim; its JSON."""
        more = {"json": body} if body else {}
        async with self.session.request("POST" if body else "GET", f"{self.endpoint}/_sim{path}", **more) as reply:
            return await reply.json(content_type=None)


@asynccontextmanager
async def ours(**options: Any) -> AsyncIterator[Ours]:
    """The simulator, and a caller of it."""
    async with object_store.serve(object_store.Options(**options)) as sim, aiohttp.ClientSession() as session:
        yield Ours(sim.url, session, sim)


@contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """rclone's S3 server over a folder; its address."""
    (folder / BUCKET).mkdir(parents=True)
    command = [str(RCLONE), "serve", "s3", "--auth-key", f"{ACCESS},{SECRET}", "--addr", "127.0.0.1:0", "--config", ""]
    server = subprocess.Popen(
        [*command, str(folder)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        found = ADDRESS.search(server.stderr.readline())
        assert found
        yield found[1]
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


@asynccontextmanager
async def theirs(folder: Path) -> AsyncIterator[Caller]:
    """rclone's server, and a caller of it."""
    with rclone(folder) as endpoint:
        async with aiohttp.ClientSession() as session:
            yield Caller(endpoint, session)


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat soon."""
    line = b"".join(b"%08x" % (number * 2_654_435_761 * seed % 2**32) for number in range(4096))
    return (line * (size // len(line) + 1))[:size]


async def until(condition: Any) -> None:
    """Let others run until something is so; a second at most."""
    ends = time.monotonic() + 1
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0)


async def read(store: Any, key: str) -> bytes:
    """An object, whole."""
    return bytes(await (await obstore.get_async(store, key)).bytes_async())


async def keys(store: Any, prefix: str | None = None) -> list[str]:
    """All keys of a list, page after page."""
    return [meta["path"] async for batch in obstore.list(store, prefix) for meta in batch]


async def lines(s3: Ours) -> list[Any]:
    """The simulator's own record, an object a line."""
    answer = await s3.plain("GET", f"{s3.endpoint}/_sim/objects")
    return [json.loads(line) for line in answer.body.splitlines()]


def files(place: dict[str, str]) -> list[str]:
    """The files that a store keeps, those that do not count yet among them."""
    folder = Path(place["folder"]) if place else None
    places = [folder / BUCKET, folder / ".incoming"] if folder else []
    return sorted(path.name for one in places for path in one.iterdir()) if folder else ["large.pdf"]
