"""What the deputy gateway's simulator knows of each document: how often it was filed, and how often its caller was told so.

A document is what the sender takes for one: case, kind, submission, report and file name. With the case system in the same
process it counts what was really filed, late and unanswered too. For a test to lay beside the ledger. Knows no HTTP.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from counterfoil.simulators.case_store import Sent
from counterfoil.simulators.gateway_function import KINDS, REPORT, Asked
from counterfoil.simulators.store import encode

Key = tuple[str, str, object, str | None, str]
NAMES = ("case", "kind", "submission_id", "report_id", "file")
KIND_OF = {kind.filed_as: kind.name for kind in KINDS.values()}


@dataclass(slots=True)
class Entry:
    """One document: `uuids` in the order of filing, how often it was replaced, and how often a whole right answer said so."""

    uuids: list[str] = field(default_factory=list)
    parent: str | None = None
    sha256: str = ""
    updated: int = 0
    answered: int = 0

    @property
    def lost(self) -> int:
        """Times it was filed or replaced and nobody was told (or not yet)."""
        return len(self.uuids) + self.updated - self.answered


@dataclass
class GatewayRecord:
    """All documents that were filed, by what makes one."""

    entries: dict[Key, Entry] = field(default_factory=dict)

    def filed(self, sent: Sent, uuid: str, again: bool) -> None:
        """A document was filed, or (again) replaced."""
        kind, metadata = KIND_OF[sent.type], sent.metadata
        report = None if kind == REPORT.name else metadata.get("report_id")
        key = (sent.case, kind, metadata.get("submission_id"), report, sent.name)
        entry = self.entries.setdefault(key, Entry())
        entry.sha256 = sent.sha256
        if again:
            entry.updated += 1
            return
        entry.uuids.append(uuid)
        if len(entry.uuids) == 1:
            entry.parent = sent.parent

    def answered(self, asked: Asked) -> None:
        """Its caller was told."""
        self.entries.setdefault(key_of(asked), Entry()).answered += 1

    def counts(self) -> dict[str, int]:
        """How many documents, how often they were filed, filed more than once, replaced, told and not told."""
        entries = list(self.entries.values())
        stored = sum(len(entry.uuids) for entry in entries)
        return {
            "documents": len(entries),
            "stored": stored,
            "duplicates": sum(max(0, len(entry.uuids) - 1) for entry in entries),
            "updated": sum(entry.updated for entry in entries),
            "answered": sum(entry.answered for entry in entries),
            "lost": sum(entry.lost for entry in entries),
        }

    def lines(self) -> Iterator[bytes]:
        """JSONL: each document; `uuid` and `parentUuid` are those of its first filing."""
        for key, entry in self.entries.items():
            line = {
                **dict(zip(NAMES, key, strict=True)),
                "uuid": next(iter(entry.uuids), None),
                "parentUuid": entry.parent,
                "stored": len(entry.uuids),
                "updated": entry.updated,
                "answered": entry.answered,
                "lost": entry.lost,
                "sha256": entry.sha256,
                "uuids": entry.uuids,
            }
            yield encode(line) + b"\n"


def key_of(asked: Asked) -> Key:
    """What makes the document of a request one."""
    return (asked.case, asked.kind.name, asked.submission, asked.report, asked.file["name"])
