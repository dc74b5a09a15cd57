"""The documents of the case system, and its own record of them: what was filed, how often the same content was filed.

Files are not kept, only their hash and size. The same content is: same case, type, name, metadata and file. Knows no HTTP, no
fault and no policy: see case_system.py.
"""

import base64
import binascii
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256
from typing import Any

from counterfoil.simulators.store import encode

Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """A document as it was sent, its file already hashed. `content` is equal for two that say the same."""

    case: str
    type: str
    name: str
    mime: str
    metadata: Metadata
    parent: str | None
    sha256: str
    size: int
    content: bytes

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> "Sent":
        """From a payload that keeps to the contract. ValueError when its file is no base64."""
        file = payload["file"]
        try:
            raw = base64.b64decode(file["source"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("The file's source is no base64.") from error
        case, kind, metadata, digest = payload["caseRecNumber"], payload["type"], payload["metadata"], sha256(raw)
        same = json.dumps([case, kind, file["name"], metadata, digest.hexdigest()], sort_keys=True)
        content = blake2b(same.encode(), digest_size=16).digest()
        parent = payload.get("parentUuid")
        return cls(case, kind, file["name"], file["type"], metadata, parent, digest.hexdigest(), len(raw), content)


@dataclass(slots=True)
class Document:
    """A document that was filed. `versions` counts how often its file was put, the first time included."""

    uuid: str
    filename: str
    sent: Sent
    filed_at: float
    versions: int = 1

    def shown(self) -> dict[str, Any]:
        """As the API shows it."""
        sent = self.sent
        shown = {
            "type": sent.type,
            "filename": self.filename,
            "mimeType": sent.mime,
            "metadata": sent.metadata,
            "uuid": self.uuid,
        }
        return {**shown, "parentUuid": sent.parent} if sent.parent else shown


@dataclass
class CaseStore:
    """All documents by uuid, by case and submission, and by content. `filed` is told of each filing and replacing."""

    documents: dict[str, Document] = field(default_factory=dict)
    filed: Callable[[Document], None] = lambda document: None
    _places: dict[tuple[str, str | None], list[Document]] = field(default_factory=dict)
    _same: dict[bytes, list[str]] = field(default_factory=dict)

    def add(self, sent: Sent, now: float) -> Document:
        """File it at `now` (epoch seconds), whether or not the same was filed before."""
        document = Document(str(uuid.uuid4()), _filename(sent.name), sent, now)
        self.documents[document.uuid] = document
        for place in self._of(sent):
            self._places.setdefault(place, []).append(document)
        self._same.setdefault(sent.content, []).append(document.uuid)
        self.filed(document)
        return document

    def replace(self, document: Document, sent: Sent) -> Document:
        """Put another file and other metadata under the same uuid; parent and place among the others stay."""
        before = document.sent
        document.sent = replace(sent, parent=before.parent)
        document.filename, document.versions = _filename(sent.name), document.versions + 1
        self._same[before.content].remove(document.uuid)
        self._same.setdefault(sent.content, []).append(document.uuid)
        for place in set(self._of(before)) - set(self._of(sent)):
            self._places[place].remove(document)
        for place in set(self._of(sent)) - set(self._of(before)):
            self._places.setdefault(place, []).append(document)
        self.filed(document)
        return document

    def first(self, sent: Sent) -> Document | None:
        """The first document with the same content, or None."""
        same = self._same.get(sent.content)
        return self.documents[same[0]] if same else None

    def find(self, case: str, metadata: Mapping[str, str]) -> list[Document]:
        """The documents of a case whose metadata have all these values (as text), in the order of filing."""
        near = self._places.get((case, metadata.get("submission_id")), [])
        return [one for one in near if all(_text(one.sent.metadata.get(k)) == v for k, v in metadata.items())]

    def counts(self) -> dict[str, int]:
        """How many documents, how many different contents, and how many documents more than contents."""
        contents = sum(1 for same in self._same.values() if same)
        return {"documents": len(self.documents), "contents": contents, "duplicates": len(self.documents) - contents}

    def lines(self) -> Iterator[bytes]:
        """JSONL: each document with what was said of it, and how many documents have the same content (`stored`)."""
        for one in self.documents.values():
            sent, same = one.sent, self._same[one.sent.content]
            line = {
                "uuid": one.uuid,
                "case": sent.case,
                "type": sent.type,
                "file": sent.name,
                "filename": one.filename,
                "sha256": sent.sha256,
                "size": sent.size,
                "metadata": sent.metadata,
                "parentUuid": sent.parent,
                "versions": one.versions,
                "stored": len(same),
                "first": same[0],
            }
            yield encode(line) + b"\n"

    def _of(self, sent: Sent) -> tuple[tuple[str, str | None], ...]:
        submission = _text(sent.metadata.get("submission_id"))
        return ((sent.case, None),) if submission is None else ((sent.case, None), (sent.case, submission))


def _text(value: object) -> str | None:
    """A value of the metadata as a query would say it; None where there is none."""
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _filename(name: str) -> str:
    return f"{uuid.uuid4().hex}_{name}"
