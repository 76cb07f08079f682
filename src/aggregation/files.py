"""Files: atomic writes, file hashes, and JSON that carries its own checksum."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aggregation.errors import InputError


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """A temporary file beside `target`, which replaces it when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(".partial", f".{target.name}.", target.parent)
    os.close(handle)
    try:
        yield Path(partial)
        Path(partial).chmod(0o644)
        Path(partial).replace(target)
    finally:
        Path(partial).unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder and below."""
    for left in folder.rglob(".*.????????.partial"):
        left.unlink()


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, text as UTF-8."""
    with atomic_write(path) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    """Write JSON for people: indented, in the order given. NaN is a ValueError."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read UTF-8 JSON."""
    return json.loads(path.read_text("utf-8"))


def read_if_any(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it is not there or is damaged."""
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


GRAIN = 100_000_000
"""Nanoseconds: a file that changed this recently may change again and have the same time of it."""

_hashes: dict[tuple[int, ...], str] = {}


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hex; empty if it is not there, or is a pipe or a device.

    A file is read once, as long as its size and its times of change stay as they were. Raises
    InputError if it cannot be read.
    """
    try:
        if not path.is_file():  # others may have no end
            return ""
        s = path.stat()
        state = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        if state in _hashes:
            return _hashes[state]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - s.st_ctime_ns > GRAIN:
            _hashes[state] = digest
        return digest
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """The value with `sha256`, the hash of everything else in it, in whatever order.

    It finds accidental changes. Whoever forges a value can compute it anew.
    """
    rest = {key: v for key, v in value.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return rest | {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}


def checksum_holds(value: dict[str, Any]) -> bool:
    """Whether the checksum is there and right."""
    return with_checksum(value)["sha256"] == value.get("sha256")
