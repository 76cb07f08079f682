"""Delivery: a constitution sent to the platform once, with a receipt.

The folder `published/` outlives later runs of the same name:

    receipt.json        what was last sent, where and when, and what became of it
    pending.json        its body
    known.json          the receipt of what was last published
    constitution.json   its body
    last.txt            what the last run did, in words

A receipt says `sending` before the request goes out, so a process that dies under way leaves a
trace. Before anything is sent, the platform's export is asked for the model that it has. It tells
whether an unknown body arrived only if the platform had another model before: two constitutions of
the same model look alike in an export. Where it does not tell, the body is sent again. That is
harmless; to report as published what never arrived is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from aggregation.decisions.payload import Changes, Payload, changes, guards
from aggregation.errors import InputError, RunError, ServiceError, UnknownOutcomeError
from aggregation.files import (
    atomic_write,
    checksum_holds,
    read_json,
    sha256,
    with_checksum,
    write_json,
)
from aggregation.params import PublishSection
from aggregation.services.http import DEFAULT, Policy
from aggregation.services.platform import Platform

RECEIPT, PENDING = "receipt.json", "pending.json"
KNOWN, KNOWN_BODY = "known.json", "constitution.json"
LAST = "published/last.txt"
"""Within the folder of a run."""

STORED_TOLERANCE = 1e-6
"""Numbers that differ by less are the same: the platform may keep them in single precision."""


@dataclass(frozen=True)
class Receipt:
    """What became of the last body that was sent."""

    state: Literal["sending", "published", "refused", "unknown"]
    url: str
    body_sha256: str
    n_ratings: int
    sent_at: str
    other_model_before: bool = False
    """Whether the platform had another model just before, so that an export tells them apart."""
    outcome: str = ""
    """Why the state is what it is. Nothing that the platform wrote: it may repeat the key."""
    forced: str = ""
    """Why it was sent although a guard said no."""


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
    published: Path,
    body: bytes,
    n_ratings: int,
    wanted: PublishSection,
    policy: Policy = DEFAULT,
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
    _write(published / Path(LAST).name, (delivery.told + "\n").encode())
    return delivery


def _deliver(
    platform: Platform, published: Path, body: bytes, n_ratings: int, wanted: PublishSection
) -> Delivery:
    payload, export = Payload.model_validate_json(body), _export(platform)
    settled = _settle(published, platform.url, export)
    known = _receipt(published / KNOWN)
    known = known if known is not None and known.url == platform.url else None
    before = _body(published / KNOWN_BODY, known)
    found = changes(before, payload)
    if settled and known and found.same and _shows(export, before):
        told = f"{platform.url} has the model that was published from here at {known.sent_at}"
        return Delivery(f"{told}, and this constitution is the same: nothing is sent.", found)
    against = guards(found, payload, n_ratings, known.n_ratings if known else 0)
    if not wanted.confirm:
        but = f" A guard would stop it: {'; '.join(against)}." if against else ""
        told = f"Dry run: nothing is sent to {platform.url}.{but} To send it, set"
        return Delivery(f"{told} publish.confirm: true", found)
    if against and not wanted.force:
        raise RunError(
            f"not published to {platform.url}: {'; '.join(against)}.\n"
            "If that is right, set publish.force: true and say why in publish.reason"
        )
    receipt = Receipt(
        state="sending",
        url=platform.url,
        body_sha256=hashlib.sha256(body).hexdigest(),
        n_ratings=n_ratings,
        sent_at=datetime.now(UTC).isoformat(timespec="seconds"),
        other_model_before=settled and _shows(export, payload) is False,
        forced=wanted.reason if against else "",
    )
    _write(published / PENDING, body)
    _keep(published / RECEIPT, receipt)
    try:
        answer = platform.post_constitution(body)
    except ServiceError as error:
        # refused, for sure, if nothing of an earlier try may still have arrived
        refused = settled and not isinstance(error, UnknownOutcomeError)
        state = "refused" if refused else "unknown"
        _keep(published / RECEIPT, replace(receipt, state=state, outcome=str(error)))
        raise
    _publish(published, replace(receipt, outcome=f"status {answer.status}"))
    return Delivery(f"Published to {platform.url}: status {answer.status}.", found)


def _settle(published: Path, url: str, export: _Export | None) -> bool:
    """Whether it is known what became of the last body. If it arrived, its receipt says so."""
    last = _receipt(published / RECEIPT)
    if last is None:
        return True
    if last.url != url or last.state in ("published", "refused"):
        return last.url == url
    arrived = _shows(export, _body(published / PENDING, last))
    if arrived and last.other_model_before:
        _publish(published, replace(last, outcome="the platform had it when asked later"))
        return True
    return arrived is False


class _Guideline(BaseModel):
    id: str
    intercept: float | None = None
    embeddings: list[float] | None = None


class _Export(BaseModel):
    """What an export tells of the model that the platform has. Null mu: it has none yet."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

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
    if export.mu is None or abs(export.mu - sent.mu) > STORED_TOLERANCE:
        return False
    has = {
        g.id: [g.intercept, *(g.embeddings or ())]
        for g in export.guidelines or ()
        if g is not None and g.intercept is not None
    }
    for key, intercept in sent.guideline_intercepts.items():
        numbers = [intercept, *sent.guideline_embeddings[key]]
        if key in has and (
            len(has[key]) != len(numbers)
            or any(abs(a - b) > STORED_TOLERANCE for a, b in zip(has[key], numbers, strict=True))
        ):
            return False
    return True if has and sent.guideline_intercepts.keys() <= has.keys() else None


def _publish(published: Path, receipt: Receipt) -> None:
    """Keep what is pending as what is published."""
    receipt = replace(receipt, state="published")
    _write(published / KNOWN_BODY, (published / PENDING).read_bytes())
    _keep(published / KNOWN, receipt)
    _keep(published / RECEIPT, receipt)


def _receipt(path: Path) -> Receipt | None:
    """The receipt, if there is one. Raises InputError if it is damaged."""
    if not path.exists():
        return None
    found = read_receipt(path, "look what the platform has, then remove the file")
    return Receipt(**{f.name: found[f.name] for f in fields(Receipt) if f.name in found})


def read_receipt(path: Path, remedy: str) -> dict[str, Any]:
    """A receipt whose checksum holds. Raises InputError, with the remedy, if it does not."""
    try:
        found = read_json(path)
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not checksum_holds(found):
        raise InputError(f"{path}: was changed since it was written: {remedy}")
    return found


def _body(path: Path, receipt: Receipt | None) -> Payload | None:
    """The body of that receipt; None if it is not there."""
    if receipt is None or sha256(path) != receipt.body_sha256:
        return None
    return Payload.model_validate_json(path.read_bytes())


def _keep(path: Path, receipt: Receipt) -> None:
    write_json(path, with_checksum(asdict(receipt)))


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
