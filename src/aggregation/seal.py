"""Seal: values that carry the hash of all the rest of them.

A seal finds what was changed by accident or in haste. Whoever makes it anew is found by
recomputing, see `verify`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with `sha256`, the hash of all the rest of it, in whatever order."""
    rest = {key: v for key, v in value.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return rest | {"sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether the seal is there and true."""
    return sealed(value)["sha256"] == value.get("sha256")
