"""Whole: a file that is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A temporary file beside `target`, which becomes it when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)
    os.close(handle)
    try:
        yield Path(partial)
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)


def clear_partial(path: Path) -> None:
    """Remove what a process left in the folder `path` that was killed while it wrote."""
    for left in path.rglob(".*.partial"):
        left.unlink(missing_ok=True)
