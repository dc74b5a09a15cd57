"""A real S3 server for tests, which verifies signatures: the binary of a wheel over a folder. It goes with the session."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY, BUCKET = "AKIDCOUNTERFOIL", "not-a-real-secret", "documents"
_RCLONE = Path(sys.executable).with_name("rclone")
_ADDRESS = re.compile(r"\[(http://127\.0\.0\.1:\d+)/\]")


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    folder: Path  # of the bucket


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with one empty bucket in `folder`."""
    bucket = folder / BUCKET
    bucket.mkdir(parents=True)
    command = [str(_RCLONE), "serve", "s3", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--addr", "127.0.0.1:0"]
    server = subprocess.Popen(
        [*command, "--config", "", str(folder)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        found = _ADDRESS.search(said)
        assert found, said
        yield S3Server(found[1], bucket)
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()
