"""Platform: the export over HTTP, kept as it came, so that a run can be repeated without asking."""

from __future__ import annotations

from pathlib import Path

from aggregation.data.choices import Choices
from aggregation.data.dataset import Dataset
from aggregation.errors import InputError
from aggregation.files import atomic_write, sha256, with_checksum, write_json
from aggregation.params.schema import PlatformSource
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
        remedy = "run once without source.offline"
        told = read_receipt(receipt, remedy)
        if not told or sha256(export) != told["body_sha256"]:
            raise InputError(f"{export}: is not what the platform sent, or is gone: {remedy}")
        return read_export(export, choices, f"{told['url']} (exports)")
    platform = Platform(source.environment)
    content, told = platform.export(source.flags()), {"url": platform.url, "asked": source.flags()}
    with atomic_write(export) as partial:
        partial.write_bytes(content)
        dataset = read_export(partial, choices, f"{platform.url} (exports)")
    write_json(receipt, with_checksum(told | {"body_sha256": sha256(export)}))
    return dataset
