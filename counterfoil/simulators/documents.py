"""What a case system keeps: documents by uuid, with how often the same content was stored. No HTTP here.

Both the case system's own simulator and the gateway in front of it store here, and a test lays `lines` beside the ledger.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from counterfoil.simulators.store import encode

KINDS = ("Report", "Report - General", "Report - Checklist")


class ProblemError(Exception):
    """A refusal of the case system: status, title, detail."""

    def __init__(self, status: int, detail: str, errors: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, dict(errors or {})

    def body(self) -> bytes:
        title = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}.get(self.status, "Error")
        errors = {"validation_errors": self.errors} if self.errors else {}
        kind = "http://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html"
        return encode({"type": kind, "title": title, "status": self.status, "detail": self.detail, **errors})


@dataclass(slots=True)
class Document:
    """One stored document. `times`: how often exactly this was stored; above 1 it is there twice."""

    uuid: str
    kind: str
    case: str
    name: str  # as it was given
    mime: str
    metadata: dict[str, Any]
    parent: str | None
    sha256: str
    size: int
    visible_at: float
    versions: int = 1
    lost: int = 0  # good answers that never arrived

    def shown(self) -> dict[str, Any]:
        parent = {"parentUuid": self.parent} if self.parent else {}
        prefix = hashlib.md5(self.uuid.encode(), usedforsecurity=False).hexdigest()
        named = {"type": self.kind, "filename": f"{prefix}_{self.name}", "mimeType": self.mime}
        return {**named, "metadata": self.metadata, "uuid": self.uuid, **parent}

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes two documents the same to a person who looks at the case."""
        places = (self.metadata.get("submission_id"), self.metadata.get("report_id"))
        return (self.case, self.kind, *places, self.name, self.sha256)


@dataclass
class Documents:
    """`unknown_cases`: case numbers nobody has; None: every number that ends in 9999 is unknown. `duplicates`: accept, refuse or flag."""

    unknown_cases: frozenset[str] | None = None
    duplicates: str = "accept"
    visible_after: float = 0.0  # seconds until a stored document is found by a search
    by_uuid: dict[str, Document] = field(default_factory=dict)
    same: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    by_case: dict[str, list[str]] = field(default_factory=dict)

    def store(self, given: Mapping[str, Any], content: bytes | None, now: float) -> tuple[Document, bool]:
        """The document, and whether the same was there before. Raises ProblemError."""
        case = str(given.get("caseRecNumber", ""))
        self._check(given, case, content)
        assert content is not None
        file = given["file"]
        document = Document(
            str(uuid.uuid4()), given["type"], case, file["name"], file["type"], dict(given.get("metadata") or {}), given.get("parentUuid"),
            hashlib.sha256(content).hexdigest(), len(content), now + self.visible_after,
        )  # fmt: skip
        before = self.same.get(document.identity, [])
        if before and self.duplicates != "accept":
            return self.by_uuid[before[0]], True
        self.by_uuid[document.uuid] = document
        self.same.setdefault(document.identity, []).append(document.uuid)
        self.by_case.setdefault(case, []).append(document.uuid)
        return document, bool(before)

    def replace(self, known: str, given: Mapping[str, Any], content: bytes | None) -> Document:
        """A new version of a document. Raises ProblemError."""
        document = self.by_uuid.get(known)
        if document is None:
            raise ProblemError(404, f"Document {known} was not found")
        self._check(given, document.case, content)
        assert content is not None
        document.versions += 1
        document.sha256, document.size = hashlib.sha256(content).hexdigest(), len(content)
        document.metadata = dict(given.get("metadata") or {})
        return document

    def _check(self, given: Mapping[str, Any], case: str, content: bytes | None) -> None:
        unknown = case.rstrip("T").endswith("9999") if self.unknown_cases is None else case in self.unknown_cases
        if unknown:
            raise ProblemError(400, f'Client referenced by court reference "{case}" was not found')
        if not content:
            raise ProblemError(
                400,
                "Payload failed validation",
                {"file -> source": {"isEmpty": "Value is required and can't be empty"}},
            )
        if given.get("type") not in KINDS:
            raise ProblemError(
                400, "Payload failed validation", {"type": {"notInArray": "The input was not found in the haystack"}}
            )

    def find(self, case: str, metadata: Mapping[str, str], now: float) -> list[Document]:
        """Documents of a case whose metadata match as texts, the oldest first."""
        found = [self.by_uuid[one] for one in self.by_case.get(case, [])]
        return [
            one
            for one in found
            if one.visible_at <= now and all(str(one.metadata.get(name)) == value for name, value in metadata.items())
        ]

    def lines(self) -> Iterator[bytes]:
        """JSONL, a document a line, for a test to lay beside the ledger."""
        for one in self.by_uuid.values():
            yield encode({
                "uuid": one.uuid, "type": one.kind, "case": one.case, "name": one.name, "submission_id": one.metadata.get("submission_id"),
                "report_id": one.metadata.get("report_id"), "parent": one.parent, "sha256": one.sha256, "size": one.size,
                "versions": one.versions, "lost": one.lost, "same": len(self.same[one.identity]) if one.identity in self.same else 1,
            }) + b"\n"  # fmt: skip

    def summary(self) -> dict[str, object]:
        several = [uuids for uuids in self.same.values() if len(uuids) > 1]
        return {
            "documents": len(self.by_uuid),
            "different": len(self.same),
            "there_twice": len(several),
            "answers_lost": sum(one.lost for one in self.by_uuid.values()),
        }
