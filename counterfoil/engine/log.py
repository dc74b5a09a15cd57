"""The engine's log: structlog, to stderr, a line an event; JSON where nobody watches a terminal. Everybody gets their logger from here.

Nothing personal and no secret is ever an argument of an event: keys, counts, faults and sentences about them only.
"""

from __future__ import annotations

import logging
import sys

_rich_was_absent = "rich" not in sys.modules
if _rich_was_absent:
    # structlog draws in rich for pretty tracebacks that we never print, a third of a command's start; without it it does without.
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _rich_was_absent:
        del sys.modules["rich"]

get_logger = structlog.get_logger


def to_stderr(*, level: str, debug: bool) -> None:
    """From `level` on (`debug`: everything)."""
    least = logging.DEBUG if debug else getattr(logging, level.upper())
    order = ["timestamp", "level", "event"]
    render = structlog.processors.LogfmtRenderer(key_order=order, bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
            structlog.processors.format_exc_info,
            render if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # the stderr of the moment, whoever replaced it
        cache_logger_on_first_use=False,
    )
