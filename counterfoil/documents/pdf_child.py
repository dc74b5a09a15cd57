"""The program that opens PDFs for `pdf.py`, in a process of its own: a file that makes the parser hang or eat memory ends only this.

Run by its path, isolated: imports nothing of ours. It says "ready"; then a JSON line in (`path`, `cpu` seconds), one out, until its input ends.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import Any, BinaryIO

import pikepdf
from pikepdf import settings

MEMORY = 1024**3  # of address space, the program itself included
UNPACKED = 64 * 1024**2  # of one compressed stream: a table of some million objects
_TAIL = 2048


def main() -> None:
    settings.set_qpdf_limits(flate_max_memory=UNPACKED, png_max_memory=UNPACKED, doc_max_warnings=20_000)
    print("ready", flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        with open(ask["path"], "rb") as file:
            _limit(ask["cpu"], os.fstat(file.fileno()).st_size)
            print(json.dumps(look(file)), flush=True)


def look(file: BinaryIO) -> dict[str, Any]:
    """`encrypted`, `pages`; or `broken`: why, in a word."""
    try:
        return _opened(file, recover=False)
    except pikepdf.PdfError as error:
        if "encryption" in str(error):
            return {"encrypted": True, "pages": 0}
        if not _ends(file):
            return {"broken": "cut"}
    except MemoryError:
        return {"broken": "memory"}
    except (RuntimeError, OSError, ValueError, RecursionError):
        return {"broken": "unreadable"}
    return _recovered(file)


def _recovered(file: BinaryIO) -> dict[str, Any]:
    """As viewers do: what has a wrong table of its objects may still be read."""
    try:
        return _opened(file, recover=True)
    except MemoryError:
        return {"broken": "memory"}
    except (pikepdf.PdfError, RuntimeError, OSError, ValueError, RecursionError):
        return {"broken": "unreadable"}


def _opened(file: BinaryIO, *, recover: bool) -> dict[str, Any]:
    try:
        with pikepdf.open(
            file, attempt_recovery=recover, suppress_warnings=True, access_mode=pikepdf.AccessMode.mmap
        ) as pdf:
            pages = len(pdf.pages)
            return {"encrypted": bool(pdf.is_encrypted), "pages": pages} if pages else {"broken": "unreadable"}
    except pikepdf.PasswordError:
        return {"encrypted": True, "pages": 0}


def _ends(file: BinaryIO) -> bool:
    """Whether the end of a PDF stands at its end: where it does not, a part of the file is missing."""
    file.seek(0, 2)
    file.seek(max(0, file.tell() - _TAIL))
    return b"%%EOF" in file.read()


def _limit(seconds: float, size: int) -> None:
    """The system kills this process when it has used so much more time, and gives it no memory beyond; the file is mapped into it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        resource.RLIMIT_CPU: math.ceil(time.process_time() + seconds),
        resource.RLIMIT_AS: MEMORY + size,
        resource.RLIMIT_CORE: 0,
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, resource.getrlimit(which)[1]))


if __name__ == "__main__":
    main()
