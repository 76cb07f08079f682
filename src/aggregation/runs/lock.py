"""Lock: one process at a time works on a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aggregation.errors import RunError, unwritable


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the file `path` while the block runs. A process that dies lets go of it.

    Raises RunError, naming the process and when it began, if another one holds it. The file stays:
    to remove it would let two processes hold files of the same name.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o644), "r+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{path.parent}: another run of this name is at work ({file.read().strip()}): "
                "wait for it, or give this one another name with --set run=..."
            ) from None
        try:
            file.truncate(0)
            began = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"process {os.getpid()} since {began}")
            file.flush()
        except OSError as error:
            raise unwritable(path, error) from None
        yield
