"""Platform: the export over HTTP, kept as it came, so that a run can be repeated without asking."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aggregation.data.cleaning import Choices
from aggregation.data.dataset import Dataset
from aggregation.errors import InputError
from aggregation.files import atomic_write, sha256, with_checksum, write_json
from aggregation.params import PlatformSource
from aggregation.services.delivery import read_receipt
from aggregation.services.platform import Platform
from aggregation.sources.platform_export import read_export

EXPORT, RECEIPT = "export.json", "receipt.json"


def read(source: PlatformSource, choices: Choices, raw: Path) -> Dataset:
    """Fetch the export into the folder `raw` and read it; `offline` reads what is there already.

    `raw` holds export.json, byte for byte, and receipt.json: where it came from, its hash. An
    answer that cannot be used replaces neither. Raises ServiceError if the platform does not give
    it, InputError if it cannot be used.
    """
    export, receipt = raw / EXPORT, raw / RECEIPT
    if source.offline:
        return read_export(export, choices, f"{_came_from(export, receipt)} (exports)")
    platform = Platform(source.environment)
    content = platform.export(source.flags())
    told = {
        "url": platform.url,
        "asked": source.flags(),
        "body_sha256": hashlib.sha256(content).hexdigest(),
    }
    with atomic_write(export) as partial:
        partial.write_bytes(content)
        dataset = read_export(partial, choices, f"{platform.url} (exports)")
    write_json(receipt, with_checksum(told))
    return dataset


def _came_from(export: Path, receipt: Path) -> str:
    """Address that the saved export came from. Raises InputError if it is not what came."""
    remedy = "run once without source.offline"
    if not (export.exists() and receipt.exists()):
        raise InputError(f"{export}: there is no whole export of an earlier run: {remedy}")
    told = read_receipt(receipt, remedy)
    if sha256(export) != told["body_sha256"]:
        raise InputError(f"{export}: is not what the platform sent (its hash differs): {remedy}")
    return told["url"]
