"""Platform: the export over HTTP, kept as it came, so that a run can be repeated without asking."""

from __future__ import annotations

from pathlib import Path

from aggregation.data.cleaning import Choices
from aggregation.data.dataset import Dataset
from aggregation.errors import InputError
from aggregation.files import checksum_holds, sha256, with_checksum
from aggregation.params import PlatformSource
from aggregation.runs.folder import RunFolder
from aggregation.services.platform import Platform, service
from aggregation.sources.platform_export import read_export

EXPORT, RECEIPT = "export.json", "receipt.json"


def read(source: PlatformSource, choices: Choices, raw: Path) -> Dataset:
    """Fetch the export into the folder `raw` and read it; `offline` reads what is there already.

    `raw` holds export.json, byte for byte, and receipt.json: where it came from, its hash. Raises
    ServiceError if the platform does not give it, InputError if it cannot be used.
    """
    export = raw / EXPORT
    if not source.offline:
        raw.mkdir(parents=True, exist_ok=True)
        with Platform(service(source.environment, source.base_url)) as platform:
            digest = platform.download_export(export, source.flags())
            told = {"url": platform.url, "asked": source.flags(), "body_sha256": digest}
        RunFolder(raw).write_json(RECEIPT, with_checksum(told))
    return read_export(export, choices, f"{_came_from(raw)} (exports)")


def _came_from(raw: Path) -> str:
    """Address that the saved export came from; InputError if it is not there, or not what came."""
    export, receipt = raw / EXPORT, RunFolder(raw).read_if_any(RECEIPT)
    remedy = "run once without source.offline"
    if not (export.exists() and (raw / RECEIPT).exists()):
        raise InputError(f"{export}: there is no whole export of an earlier run: {remedy}")
    if not checksum_holds(receipt):
        raise InputError(f"{raw / RECEIPT}: was changed since it was written: {remedy}")
    if sha256(export) != receipt["body_sha256"]:
        raise InputError(f"{export}: is not what the platform sent (its hash differs): {remedy}")
    return receipt["url"]
