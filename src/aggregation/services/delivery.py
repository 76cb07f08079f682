"""Delivery: a constitution sent to the platform once, with a receipt.

The folder `published/` outlives later runs of the same name:

    receipt.json        what was last sent, where and when, and what became of it
    pending.json        its body
    known.json          the receipt of what was last published
    constitution.json   its body
    last.txt            what the last run did, in words

A receipt holds `state` (sending, published, refused or unknown), `url`, `body_sha256`, `n_ratings`,
`sent_at`, `settled_before` (whether it was known then what became of the body before it),
`other_model_before`, `forced` (why it was sent although a guard said no) and `why` (the state is
what it is). It holds nothing that the platform wrote, since that may repeat the key. It says
`sending` before the request goes out, so a process that dies under way leaves a trace.

Before anything is sent, the platform's export is asked for the model that it has. It tells whether
an unknown body arrived only if the platform had another model before: two constitutions of the same
model look alike in an export. Where it does not tell, the body is sent again. That is harmless; to
report as published what never arrived is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from aggregation.decisions.payload import Changes, Payload, changes, guards
from aggregation.errors import InputError, RunError, ServiceError, UnknownOutcomeError
from aggregation.files import (
    checksum_holds,
    read_json,
    sha256,
    with_checksum,
    write,
    write_json,
)
from aggregation.params.schema import PublishSection
from aggregation.services.http import DEFAULT, Policy
from aggregation.services.platform import Platform

RECEIPT, PENDING = "receipt.json", "pending.json"
KNOWN, KNOWN_BODY = "known.json", "constitution.json"
LAST = "last.txt"
"""Files in `published/`."""
LOOK = "look what the platform has, then remove the file"

STORED_TOLERANCE = 1e-6
"""Numbers that differ by less are the same: the platform may keep them in single precision."""


@dataclass(frozen=True)
class Delivery:
    """What was sent, or would be."""

    told: str
    """One or a few lines for people."""
    changes: Changes | None = None

    def table(self) -> pd.DataFrame:
        """What changes against the last published constitution."""
        return pd.DataFrame() if self.changes is None else self.changes.table()


def deliver(
    published: Path, body: bytes, n_ratings: int, wanted: PublishSection, policy: Policy = DEFAULT
) -> Delivery:
    """Send the body of a constitution, byte for byte, unless that is not wanted or not needed.

    `published` is the folder of receipts, `n_ratings` the number of ratings behind the body.
    `target: file` sends nothing, and without `confirm` it is a dry run. A guard that says no is a
    RunError unless `force` is set. Raises ServiceError, and leaves a receipt, where sending fails.
    """
    if wanted.target == "file":
        return Delivery("target: file. Nothing is sent.")
    platform = Platform(wanted.environment, policy)
    delivery = _deliver(platform, published, body, n_ratings, wanted)
    write(published / LAST, delivery.told + "\n")
    return delivery


def _deliver(
    platform: Platform, published: Path, body: bytes, n_ratings: int, wanted: PublishSection
) -> Delivery:
    payload, export = Payload.model_validate_json(body), _export(platform)
    settled = _settle(published, platform.url, export)
    known = read_receipt(published / KNOWN, LOOK)
    if known.get("url") != platform.url:
        known = {}
    before = _body(published / KNOWN_BODY, known)
    found = changes(before, payload)
    if settled and found.same and _shows(export, before):
        told = f"{platform.url} has the model that was published from here at {known['sent_at']}"
        return Delivery(f"{told}, and this constitution is the same: nothing is sent.", found)
    against = guards(found, payload, n_ratings, known.get("n_ratings", 0))
    if not wanted.confirm:
        but = f" A guard would stop it: {'; '.join(against)}." if against else ""
        told = f"Dry run: nothing is sent to {platform.url}.{but} To send it, set"
        return Delivery(f"{told} publish.confirm: true", found)
    if against and not wanted.force:
        raise RunError(
            f"not published to {platform.url}: {'; '.join(against)}.\n"
            "If that is right, set publish.force: true and say why in publish.reason"
        )
    receipt = {
        "state": "sending",
        "url": platform.url,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "n_ratings": n_ratings,
        "sent_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settled_before": settled,
        "other_model_before": settled and _shows(export, payload) is False,
        "forced": wanted.reason if against else "",
    }
    write(published / PENDING, body)
    write_json(published / RECEIPT, with_checksum(receipt))
    try:
        platform.post_constitution(body)
    except ServiceError as error:
        # refused, for sure, only if no earlier body may still have arrived
        refused = settled and not isinstance(error, UnknownOutcomeError)
        state = "refused" if refused else "unknown"
        receipt |= {"state": state, "why": str(error)}
        write_json(published / RECEIPT, with_checksum(receipt))
        raise
    _publish(published, receipt)
    return Delivery(f"Published to {platform.url}.", found)


def _settle(published: Path, url: str, export: _Export | None) -> bool:
    """Whether it is known what became of the last body. If it arrived, its receipt says so."""
    last = read_receipt(published / RECEIPT, LOOK)
    if not last:
        return True
    if last["url"] != url or last["state"] in ("published", "refused"):
        return last["url"] == url
    arrived = _shows(export, _body(published / PENDING, last))
    if arrived and last.get("other_model_before"):
        _publish(published, last | {"why": "the platform had it when asked later"})
        return True
    return arrived is False and last.get("settled_before", False)


class _Guideline(BaseModel, strict=True, allow_inf_nan=False):
    id: str
    intercept: float | None = None
    embeddings: list[float] | None = None


class _Export(BaseModel, strict=True, allow_inf_nan=False):
    """What an export tells of the model that the platform has. Null mu: it has none yet."""

    mu: float | None = None
    guidelines: list[_Guideline | None] | None = None


def _export(platform: Platform) -> _Export | None:
    """What the platform has; None if the answer cannot be understood."""
    content = platform.export({"guidelines": True, "mu": True})
    try:
        return _Export.model_validate_json(content)
    except ValidationError:
        return None


def _shows(export: _Export | None, sent: Payload | None) -> bool | None:
    """Whether the platform has the model of this payload; None: the export does not tell."""
    if export is None or sent is None:
        return None
    if export.mu is None:
        return False
    pairs = {"mu": ([export.mu], [sent.mu])}
    for g in filter(None, export.guidelines or ()):
        if g.intercept is not None and g.id in sent.guideline_intercepts:
            wanted = [sent.guideline_intercepts[g.id], *sent.guideline_embeddings[g.id]]
            pairs[f"guideline {g.id}"] = [g.intercept, *(g.embeddings or ())], wanted
    for has, wanted in pairs.values():
        if len(has) != len(wanted) or not np.allclose(has, wanted, rtol=0, atol=STORED_TOLERANCE):
            return False
    return True if len(pairs) == 1 + len(sent.guideline_intercepts) > 1 else None


def _publish(published: Path, receipt: dict[str, Any]) -> None:
    """Keep what is pending as what is published."""
    receipt = receipt | {"state": "published"}
    write(published / KNOWN_BODY, (published / PENDING).read_bytes())
    write_json(published / KNOWN, with_checksum(receipt))
    write_json(published / RECEIPT, with_checksum(receipt))


def read_receipt(path: Path, remedy: str) -> dict[str, Any]:
    """A receipt; empty if there is none. Raises InputError, with the remedy, if it is damaged."""
    try:
        found = read_json(path) if path.exists() else {}
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or (path.exists() and not checksum_holds(found)):
        raise InputError(f"{path}: was changed since it was written: {remedy}")
    return found


def _body(path: Path, receipt: dict[str, Any]) -> Payload | None:
    """The body of that receipt; None if it is not there."""
    if sha256(path) != receipt.get("body_sha256"):
        return None
    return Payload.model_validate_json(path.read_bytes())
