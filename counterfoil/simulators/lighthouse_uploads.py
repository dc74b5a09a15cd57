"""An upload as it comes (multipart, read as a stream and hashed, never kept), what is wrong with it, and what was accepted.

Also here: what is done with the same document sent again, and the simulator's own record of every upload, for a test to lay
beside the ledger. What becomes of an upload afterwards is lighthouse_workflow.py.
"""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, web

from counterfoil.simulators.lighthouse_workflow import FIRST, Workflow
from counterfoil.simulators.store import encode

PARAMETERS_LIMIT = 65_536
PIECE = 262_144
LONGEST_NAME = 256
LONGEST_TOKEN = 64
BIGGEST = 2**63 - 1
TYPES = ("pdf", "jpg", "jpeg", "txt", "tif", "tiff", "png", "gif", "bmp")
ONE_IDENTIFIER = "Exactly one identifier, fileNumber or participantId, must be set."
DUPLICATE = "Document is a duplicate of one that was already uploaded."
POLICIES = ("accept", "refuse", "flag")
_DOC_TYPE = re.compile(r"L\d{3}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")

Data = Mapping[str, Any]


class TooLarge(Exception):
    """The file, or the whole request, is above a limit."""


class Malformed(ValueError):
    """The request cannot be read as an upload; the text says why."""


@dataclass(slots=True)
class File:
    """What came in part `file`: its content's hash and size, and whether it is ASCII throughout."""

    size: int = 0
    ascii: bool = True
    digest: Any = field(default_factory=sha256)

    def take(self, piece: bytes) -> None:
        """One more piece of it."""
        self.size += len(piece)
        self.ascii = self.ascii and piece.isascii()
        self.digest.update(piece)


@dataclass(frozen=True, slots=True)
class Upload:
    """One document as it was sent. What is the same in all but size is the same document."""

    claim_id: int
    doc_type: str
    file_name: str
    sha256: str
    size: int


async def read(request: web.BaseRequest, limit: int) -> tuple[Data, File]:
    """The value of `parameters.data` and the file, wherever each stands. Raises Malformed and TooLarge (above `limit` bytes)."""
    if (request.content_length or 0) > limit + PARAMETERS_LIMIT:
        raise TooLarge
    if not request.content_type.startswith("multipart/form-data"):
        raise Malformed("Content-Type must be multipart/form-data.")
    try:
        parts = [part async for part in _parts(request, limit)]
    except (ValueError, AssertionError, RuntimeError) as error:
        if isinstance(error, Malformed):
            raise
        raise Malformed("The multipart body cannot be read.") from error
    found = dict(parts)
    for name in ("parameters", "file"):
        if name not in found:
            raise Malformed(f"Required part '{name}' is not present.")
    return _data(found["parameters"]), found["file"]


async def _parts(request: web.BaseRequest, limit: int) -> AsyncIterator[tuple[str, Any]]:
    async for part in MultipartReader(request.headers, request.content):
        if not isinstance(part, BodyPartReader):
            raise Malformed("A part of the body is itself multipart.")
        if part.name == "parameters":
            yield "parameters", await _short(part)
        elif part.name == "file":
            yield "file", await _file(part, limit)
        else:
            await part.release()


async def _short(part: BodyPartReader) -> bytes:
    whole = bytearray()
    while piece := await part.read_chunk(PIECE):
        whole += piece
        if len(whole) > PARAMETERS_LIMIT:
            raise TooLarge
    return bytes(whole)


async def _file(part: BodyPartReader, limit: int) -> File:
    file = File()
    while piece := await part.read_chunk(PIECE):
        file.take(piece)
        if file.size > limit:
            raise TooLarge
    return file


def _data(raw: bytes) -> Data:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise Malformed("Part 'parameters' is no JSON.") from None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, dict):
        raise Malformed("data must not be null.")
    return data


def whole(value: object) -> int | None:
    """A whole number given as such or as text, as real callers do both; None when it is none."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else None


def _given(value: object) -> bool:
    return value is not None and value != ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def kind_of(name: object) -> str:
    """The extension of a file's name in small letters; "" where there is none."""
    stem, dot, extension = _text(name).rpartition(".")
    return extension.lower() if dot and stem else ""


def one_identifier(data: Data) -> str | None:
    """What is wrong with fileNumber and participantId."""
    if _given(data.get("fileNumber")) == _given(data.get("participantId")):
        return ONE_IDENTIFIER
    number, participant = data.get("fileNumber"), data.get("participantId")
    if _given(participant) and (whole(participant) or 0) < 1:
        return "participantId must be a whole number greater than or equal to 1."
    return "fileNumber must be a string." if _given(number) and not isinstance(number, str) else None


def doc_type(data: Data) -> str | None:
    """What is wrong with docType."""
    fits = _DOC_TYPE.fullmatch(_text(data.get("docType")))
    return None if fits else "docType must be an L code, such as L023."


def claim_id(data: Data) -> str | None:
    """What is wrong with claimId."""
    fits = 1 <= (whole(data.get("claimId")) or 0) <= BIGGEST
    return None if fits else "claimId must be a whole number greater than or equal to 1."


def _system_name(data: Data) -> str | None:
    return None if _text(data.get("systemName")).strip() else "systemName must not be blank."


def _file_name(data: Data) -> str | None:
    name = _text(data.get("fileName"))
    if not name.strip():
        return "fileName must not be blank."
    if len(name) > LONGEST_NAME:
        return f"fileName must not be longer than {LONGEST_NAME} characters."
    fits = kind_of(name) in TYPES
    return None if fits else "The file must be one of these types: PDF, JPG, TXT, TIF, PNG, GIF, BMP."


def _tracked_items(data: Data) -> str | None:
    items = data.get("trackedItemIds")
    fits = items is None or (isinstance(items, list) and all(whole(item) is not None for item in items))
    return None if fits else "trackedItemIds must be a list of whole numbers."


def _validation_token(data: Data) -> str | None:
    token = data.get("validationToken")
    fits = token is None or (isinstance(token, str) and len(token) <= LONGEST_TOKEN)
    return None if fits else f"validationToken must not be longer than {LONGEST_TOKEN} characters."


CHECKS: tuple[Callable[[Data], str | None], ...] = (
    _system_name, doc_type, claim_id, _file_name, one_identifier, _tracked_items, _validation_token,
)  # fmt: skip


def faults_of(data: Data, file: File) -> list[str]:
    """All that is wrong with an upload, in words; [] when it may be accepted."""
    wrong = [told for check in CHECKS if (told := check(data))]
    if file.size == 0:
        wrong.append("The file must not be empty.")
    if kind_of(data.get("fileName")) == "txt" and not file.ascii:
        wrong.append("A text file must be ASCII only.")
    return wrong


def upload_of(data: Data, file: File) -> Upload:
    """The upload, of data without faults."""
    return Upload(whole(data["claimId"]) or 0, data["docType"], data["fileName"], file.digest.hexdigest(), file.size)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an upload came to: its request id, which is that of the first where it is flagged as a duplicate."""

    request_id: int
    duplicate: bool = False


class Duplicate(Exception):
    """The policy refuses the same document a second time."""


class OtherContent(Exception):
    """An Idempotency-Key comes again with another document."""


@dataclass
class Uploads:
    """Everything that was accepted. `rates` gives the fates in force, `policy` is one of POLICIES.

    `replies` counts by request id how often it was to be told, `told` how often it went out whole; the rest was lost.
    """

    workflow: Workflow
    rates: Callable[[], Mapping[str, float]]
    policy: str = "accept"
    about: dict[int, Upload] = field(default_factory=dict)
    ids: dict[Upload, list[int]] = field(default_factory=dict)
    keys: dict[str, tuple[Upload, Accepted]] = field(default_factory=dict)
    replies: Counter[int] = field(default_factory=Counter)
    told: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.set_policy(self.policy)

    def set_policy(self, policy: str) -> None:
        """What is done with the same document again. ValueError for a policy that is not known."""
        if policy not in POLICIES:
            raise ValueError(f"The policy for duplicates {policy!r} is not known. Known: {', '.join(POLICIES)}.")
        self.policy = policy

    def accept(self, upload: Upload, now: float, key: str = "") -> Accepted:
        """Keep it, as the policy says; `key` is an Idempotency-Key that is honoured. Raises Duplicate and OtherContent."""
        if key in self.keys:
            before, accepted = self.keys[key]
            if before != upload:
                raise OtherContent
            self.counts["by_key"] += 1
        else:
            accepted = self._by_policy(upload, now)
            if key:
                self.keys[key] = upload, accepted
        self.replies[accepted.request_id] += 1
        return accepted

    def _by_policy(self, upload: Upload, now: float) -> Accepted:
        earlier = self.ids.get(upload)
        if earlier and self.policy != "accept":
            self.counts["refused" if self.policy == "refuse" else "flagged"] += 1
            if self.policy == "refuse":
                raise Duplicate
            return Accepted(earlier[0], duplicate=True)
        request_id = self.workflow.add(1, now, self.rates())
        self.about[request_id] = upload
        self.ids.setdefault(upload, []).append(request_id)
        return Accepted(request_id)

    def preload(self, count: int, now: float) -> int:
        """Accept so many at once that nobody sent; gives the first request id. ValueError for a number that is none."""
        if not 1 <= count <= 20_000_000:
            raise ValueError("count must be from 1 to 20000000.")
        self.counts["preloaded"] += count
        return self.workflow.add(count, now, self.rates())

    def summary(self) -> dict[str, object]:
        """Totals: uploads stored, different documents, replies lost after an upload was stored, what the policy did."""
        lost = self.replies.total() - self.told.total()
        stored = {"first": FIRST, "stored": len(self.about), "documents": len(self.ids), "lost": lost}
        return {**stored, **{name: self.counts[name] for name in ("preloaded", "refused", "flagged", "by_key")}}

    def lines(self, now: float) -> Iterator[bytes]:
        """JSONL of every upload that was sent: what it is, times its document was stored, whether its reply was lost, its status."""
        now_ms = int(now * 1000)
        for request_id, upload in self.about.items():
            told = {
                "requestId": request_id,
                "claimId": upload.claim_id,
                "docType": upload.doc_type,
                "fileName": upload.file_name,
                "sha256": upload.sha256,
                "size": upload.size,
                "stored": len(self.ids[upload]),
                "lost": self.replies[request_id] - self.told[request_id],
                "status": self.workflow.status(request_id, now_ms),
            }
            yield encode(told) + b"\n"
