"""The seams between engine and connectors, each a small protocol; a protocol stands here only where two real implementations do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from counterfoil.model.delivery import Answer, Parcel, PollAnswer, StoredFile
from counterfoil.model.run import Window

Cursor = Mapping[str, Any]  # opaque JSON: where a list goes on; made and read by one connector only


@dataclass(frozen=True, slots=True)
class BrokenEntry:
    """An entry of a list that is no record at all (a broken CSV line, an element that is no object)."""

    where: str  # "line 17", "page 3, entry 5"
    problem: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. `entries` are JSON objects as bytes, in the order served; `cursor` None means the list has ended."""

    entries: Sequence[bytes]
    cursor: Cursor | None
    broken: Sequence[BrokenEntry] = ()


class Source(Protocol):
    """Where records come from. Every method raises only the connector errors of `model.errors`."""

    has_detail: bool  # True: the list gives keys, `record` gives the record

    async def page(self, window: Window, cursor: Cursor | None) -> Page:
        """The page at `cursor` (None: the first). Safe to repeat."""
        ...

    async def record(self, key: str) -> bytes:
        """One record as a JSON object. Safe to repeat. Raises Gone for an unknown key."""
        ...

    async def write_back(self, key: str, body: Mapping[str, Any]) -> None:
        """Tell the source about one record (PUT). Idempotent on the other side."""
        ...

    async def probe(self) -> str:
        """Reach the other side with our credentials; a plain sentence of what answered. Raises like `page`."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row the database would not take. `problem` is a sentence without the row's values."""

    index: int
    fault: str
    problem: str


class Loaded(Protocol):
    """What became of rows: inserted + updated + unchanged + refused = rows given."""

    @property
    def inserted(self) -> int: ...
    @property
    def updated(self) -> int: ...
    @property
    def unchanged(self) -> int: ...
    @property
    def refused(self) -> Sequence[RefusedRow]: ...
    @property
    def changed_indexes(self) -> Sequence[int]: ...


class Destination(Protocol):
    """The table rows go to. In the ledger's own database: every call runs inside the engine's transaction."""

    async def load(
        self, connection: Any, rows: Sequence[tuple[Any, ...]], *, now: datetime, want_changed: bool
    ) -> Loaded:
        """Insert what is new, update what differs, leave the rest alone."""
        ...

    async def soft_delete(self, connection: Any, run_id: int, *, now: datetime) -> int:
        """Mark rows that the complete listing of this run did not hold; how many."""
        ...


# --- deliveries -----------------------------------------------------------------------------------------------


class Prepared(Protocol):
    """A request ready to leave, made and read by one target only. Holds no file's content: that is streamed when it is sent."""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        ...


class Target(Protocol):
    """Where deliveries go. No call is ever tried again in here: every request that leaves is the engine's decision, and has its proof."""

    def prepare(self, parcel: Parcel) -> Prepared:
        """The request for a parcel, held to the contract. Raises Refused for what is wrong with it, Misconfigured for the flow file."""
        ...

    async def send(self, prepared: Prepared) -> Answer:
        """Send it once. Raises Misconfigured (credentials, certificates), and nothing else for what the other side does."""
        ...

    async def look_up(self, parcel: Parcel) -> Answer:
        """Whether the other side has it: DONE with its receipt, NOT_FOUND, or why that could not be told."""
        ...

    async def poll(self, receipts: Sequence[str]) -> PollAnswer:
        """What the other side says of these receipts, in one call."""
        ...

    async def probe(self) -> str:
        """Reach the other side with our credentials; a plain sentence of what answered."""
        ...

    async def close(self) -> None: ...


class FileDesk(Protocol):
    """Gets the file of a parcel ready: rendered, checked, its name cleaned, in the object store."""

    async def ready(self, parcel: Parcel, *, flow: str) -> StoredFile | None:
        """The file as it is to be sent, or None where the kind has none. Raises Refused (with what is wrong, for a person), Transient
        where the object store can't be reached, Misconfigured."""
        ...
