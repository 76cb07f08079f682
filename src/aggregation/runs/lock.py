"""Lock: a run is built by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aggregation.errors import RunError


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs. A process that dies lets go of it.

    The file stays, since to remove it safely is harder than to keep it. Raises RunError, naming the
    process and when it began, if another one holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # never through a link
    with os.fdopen(os.open(path, flags, 0o644), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{path.parent}: another run of this name is at work ({file.read()}): "
                "wait for it, or give this one another name with --set run=..."
            ) from None
        file.truncate()
        file.write(f"process {os.getpid()} since {datetime.now(UTC).isoformat(timespec='seconds')}")
        file.flush()
        yield
