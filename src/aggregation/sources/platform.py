"""Platform: the export over HTTP, kept as it came, so that a run can be repeated without asking."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from aggregation.dataset import Choices, Dataset
from aggregation.errors import InputError
from aggregation.params import PlatformSource
from aggregation.seal import sealed
from aggregation.services.platform import Platform, service
from aggregation.sources.platform_export import read_export
from aggregation.whole import writing

EXPORT, RECEIPT = "export.json", "receipt.json"


def read(source: PlatformSource, choices: Choices, raw: Path) -> Dataset:
    """Fetch the export into the folder `raw` and read it; `offline` reads what is there already.

    `raw` holds export.json, byte for byte, and receipt.json: where it came from, its hash. Raises
    ServiceError if the platform does not give it, InputError if it cannot be used.
    """
    export, receipt = raw / EXPORT, raw / RECEIPT
    if source.offline:
        _check(export, receipt)
    else:
        raw.mkdir(parents=True, exist_ok=True)
        with Platform(service(source.environment, source.base_url)) as platform:
            receipt.unlink(missing_ok=True)  # until the new export is whole, there is none
            digest = platform.download_export(export, source.flags())
            told = {"url": platform.url, "asked": source.flags(), "body_sha256": digest}
        with writing(receipt) as partial:
            partial.write_text(json.dumps(sealed(told), indent=2) + "\n", encoding="utf-8")
    return read_export(
        export, choices, f"{json.loads(receipt.read_text('utf-8'))['url']} (exports)"
    )


def _check(export: Path, receipt: Path) -> None:
    """Whether the saved export is there, and the one that came."""
    if not (export.exists() and receipt.exists()):
        raise InputError(
            f"{export}: there is no whole export of an earlier run: run once without source.offline"
        )
    with export.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != json.loads(receipt.read_text("utf-8"))["body_sha256"]:
        raise InputError(
            f"{export}: is not what the platform sent (its hash differs): run once without "
            "source.offline"
        )
