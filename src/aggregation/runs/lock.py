"""Alone: a run's folder, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from aggregation.errors import RunError, unwritable

HELD = ".lock"
"""Held by the process that runs."""


@contextmanager
def alone(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold the folder while the block runs. A process that dies lets go of it.

    Gives a function that says whether the folder is still the one that is held: it may have been
    deleted and made anew by others. Raises RunError, naming the process and when it began, if
    another one holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except OSError as error:
        raise unwritable(path, error) from None
    with file:
        try:
            file.truncate(0)
            began = datetime.now(UTC).isoformat(timespec="seconds")
            file.write(f"process {os.getpid()} since {began}".encode())
        except OSError as error:
            raise unwritable(path, error) from None
        try:
            yield lambda: _is_at(path, file)
        finally:
            with suppress(OSError):
                if _is_at(path, file):
                    (path / HELD).unlink()


def _open(path: Path) -> FileIO:
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW  # nobody else's file
        file = FileIO(os.open(path / HELD, flags, 0o644), "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            held = (file.read() or b"").decode("utf-8", "replace").strip() or "just begun"
            file.close()
            raise RunError(
                f"{path}: another run is at work there ({held}): "
                "wait for it, or give this one another name with --set run=..."
            ) from None
        if _is_at(path, file):
            return file
        file.close()  # it was unlinked between opening and locking, by the run that held it


def _is_at(path: Path, file: FileIO) -> bool:
    try:
        there = (path / HELD).stat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(file.fileno()))
