"""Lock: a run is built by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from aggregation.errors import RunError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. A process that dies lets go of it.

    Raises RunError, naming the process and when it began, if another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path) as file:
        file.truncate(0)
        began = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} since {began}".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _open(path: Path) -> FileIO:
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW  # never through a link
        file = FileIO(os.open(path, flags, 0o644), "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode("utf-8", "replace") or "just begun"
            file.close()
            raise RunError(
                f"{path}: another run is at work there ({holder}): "
                "wait for it, or give this one another name with --set run=..."
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # the run that held it has removed it since it was opened
