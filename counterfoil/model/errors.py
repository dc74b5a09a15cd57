"""All errors that cross a floor. Each says what is wrong and what to do next; the engine never looks at a status code.

A connector raises only `Transient` (and its `Throttled`), `Refused` (and its `Gone`, `TooLarge`), `Unknown` or `Misconfigured`.
"""

from __future__ import annotations

from dataclasses import dataclass


class CounterfoilError(Exception):
    """Problem, then remedy. `str()` gives both."""

    code = "error"
    exit_code = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class UsageError(CounterfoilError):
    code, exit_code = "usage", 2


class NotFoundError(CounterfoilError):
    code, exit_code = "not_found", 3


class NotAllowedError(CounterfoilError):
    code, exit_code = "not_allowed", 4


class ConflictError(CounterfoilError):
    code, exit_code = "conflict", 6


class UnhealthyError(CounterfoilError):
    code, exit_code = "unhealthy", 7


class WaitTimeoutError(CounterfoilError):
    code, exit_code = "timed_out", 8


class LeaseLostError(CounterfoilError):
    """Another attempt has the work now; nothing of this attempt may be written."""

    code, exit_code = "lease_lost", 6


# --- what a connector may raise -------------------------------------------------------------------------------


class ConnectorError(CounterfoilError):
    """`fault` is a short stable word for the same trouble (one case per flow and fault), such as `http_503`."""

    fault = "connector"

    def __init__(self, problem: str, remedy: str = "", *, fault: str | None = None) -> None:
        super().__init__(problem, remedy)
        self.fault = fault or type(self).fault


class Transient(ConnectorError):
    """Failed, may work later."""

    fault = "transient"


class Throttled(Transient):
    """The other side asks for less. `retry_after` in seconds where it said so."""

    fault = "throttled"

    def __init__(self, problem: str, *, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class Refused(ConnectorError):
    """The other side understood and said no; the same request will be refused again."""

    fault = "refused"


class Gone(Refused):
    """The other side does not know this key (any more)."""

    fault = "vanished"


class TooLarge(Refused):
    """A reply over the declared limit; reading stopped at the limit."""

    fault = "too_large"


class Unknown(ConnectorError):
    """Sent, and no answer: whether it was done is unknown."""

    fault = "unknown"


class Misconfigured(ConnectorError):
    """Nothing to wait for: address, credentials or the flow file are wrong."""

    fault = "misconfigured"
    exit_code = 2


class TableMismatch(Misconfigured):
    """The destination table does not take the records of its flow."""

    fault = "table_mismatch"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a declared file. `line` counts from 1."""

    file: str
    line: int
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem} {self.remedy}".strip()


class InvalidFilesError(UsageError):
    """All faults of all files at once."""

    code = "invalid_files"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(
            f"{len(faults)} fault{'s' * (len(faults) != 1)} in the project's files.", "Run `counterfoil check`."
        )
        self.faults = faults
