"""Posting: a constitution sent to the platform exactly once, with a receipt.

`published/` in the run's folder outlives later runs of that name:

    receipt.json        what was last sent where and when, and what became of it
    pending.json        its body
    known.json          the receipt of what the platform is known to have
    constitution.json   its body
    last.txt            what the last run did, in words; cleared by the next

A receipt has the hash of its body, and a seal. It says `sending` before the request goes out, so
that a process which dies under way leaves a trace, and the next one asks the platform before it
sends anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from aggregation.decisions.payload import SAME, Changes, Payload, changes, guards
from aggregation.errors import RunError, ServiceError, UnknownOutcomeError
from aggregation.files import checksum_holds, with_checksum
from aggregation.params import PublishSection
from aggregation.runs.folder import RunFolder

if TYPE_CHECKING:
    from aggregation.services.platform import Platform

RECEIPT, PENDING = "published/receipt.json", "published/pending.json"
LAST = "published/last.txt"
KNOWN, KNOWN_BODY = "published/known.json", "published/constitution.json"


@dataclass(frozen=True)
class Receipt:
    """What became of the last body that was sent."""

    state: Literal["sending", "published", "refused", "unknown"]
    url: str
    body_sha256: str
    n_ratings: int
    sent_at: str
    answered_at: str = ""
    status: int | None = None
    response: str = ""
    """The platform's answer, or why there is none."""
    forced: str = ""
    """Why it was sent although a guard said no."""


@dataclass(frozen=True)
class Posting:
    """What was posted, or would be."""

    told: str
    """One or a few lines for people."""
    changes: Changes | None = None

    def table(self) -> pd.DataFrame:
        """What changes against the last published constitution."""
        return pd.DataFrame() if self.changes is None else self.changes.table()


def post(folder: RunFolder, wanted: PublishSection) -> Posting:
    """Send the folder's constitution.json, byte for byte, unless that is not wanted or not needed.

    `target: file` sends nothing, and without `confirm` it is a dry run. A guard that says no is a
    RunError unless `force` is set. Raises ServiceError, and leaves a receipt, where sending fails.
    """
    if wanted.target == "file":
        return Posting("target: file. Nothing is sent.")
    posting = _post(folder, wanted)
    folder.write_text(LAST, posting.told + "\n")
    return posting


def _post(folder: RunFolder, wanted: PublishSection) -> Posting:
    from aggregation.services.platform import Platform, service

    body = folder.read_bytes("constitution.json")
    payload = Payload.model_validate_json(body)
    with Platform(service(wanted.environment, wanted.base_url)) as platform:
        _settle(folder, platform)
        known = _receipt(folder, KNOWN, platform.url)
        before = Payload.model_validate_json(folder.read_bytes(KNOWN_BODY)) if known else None
        found = changes(before, payload)
        if known and found.same:
            return Posting(
                f"{platform.url} has this constitution since {known.sent_at}: nothing is sent.",
                found,
            )
        n = folder.read_json("model/fit.json")["n_ratings"]
        against = guards(found, payload, n, known.n_ratings if known else 0)
        if not wanted.confirm:
            but = f" A guard would stop it: {'; '.join(against)}." if against else ""
            return Posting(
                f"Dry run: nothing is sent to {platform.url}.{but} To send it, set "
                "publish.confirm: true",
                found,
            )
        if against and not wanted.force:
            raise RunError(
                f"not published to {platform.url}: {'; '.join(against)}.\n"
                "If that is right, set publish.force: true and say why in publish.reason"
            )
        receipt = Receipt(
            state="sending",
            url=platform.url,
            body_sha256=hashlib.sha256(body).hexdigest(),
            n_ratings=n,
            sent_at=_now(),
            forced=wanted.reason if against else "",
        )
        folder.write_bytes(PENDING, body)
        _write(folder, RECEIPT, receipt)
        try:
            answer = platform.post_constitution(body)
        except UnknownOutcomeError as error:
            _keep(folder, replace(receipt, state="unknown", response=str(error)))
            raise
        except ServiceError as error:
            _keep(folder, replace(receipt, state="refused", response=str(error)))
            raise
        text = answer.body.decode("utf-8", "replace")[:500]
        _published(folder, replace(receipt, status=answer.status, response=text))
        return Posting(f"Published to {platform.url}: status {answer.status}.", found)


def _settle(folder: RunFolder, platform: Platform) -> None:
    """Ask the platform what it has, where it is unknown whether the last body arrived."""
    receipt = _receipt(folder, RECEIPT, platform.url)
    if receipt is None or receipt.state not in ("sending", "unknown"):
        return
    sent = Payload.model_validate_json(folder.read_bytes(PENDING))
    try:
        arrived = _has(platform.export({"mu": True, "guidelines": True}), sent)
    except ServiceError as error:
        raise RunError(
            f"{folder.path / RECEIPT}: whether the constitution of {receipt.sent_at} arrived is "
            f"unknown, and the platform cannot be asked ({str(error).splitlines()[0]}).\n"
            "Nothing was sent: run it again when the platform answers"
        ) from None
    if arrived:
        _published(folder, replace(receipt, response="found there when asked later"))
    else:
        _keep(folder, replace(receipt, state="refused", response="not there when asked later"))


def _receipt(folder: RunFolder, name: str, url: str) -> Receipt | None:
    """The receipt, if there is one of this address."""
    if not (folder.path / name).exists():
        return None
    found = folder.read_json(name)
    if not checksum_holds(found):
        raise RunError(
            f"{folder.path / name}: was changed since it was written, so nobody knows what the "
            "platform has: look there, then remove the file"
        )
    receipt = Receipt(**{key: value for key, value in found.items() if key != "sha256"})
    return receipt if receipt.url == url else None


def _has(export: dict[str, Any], sent: Payload) -> bool:
    """Whether the platform's export shows the model that was sent."""
    mu = export.get("mu")
    if mu is None or abs(mu - sent.mu) > SAME:
        return False
    has = {g["id"]: g.get("intercept") for g in export.get("guidelines") or [] if g}
    return all(
        has.get(g) is not None and abs(has[g] - intercept) <= SAME
        for g, intercept in sent.guideline_intercepts.items()
        if g in has
    )


def _published(folder: RunFolder, receipt: Receipt) -> None:
    receipt = replace(receipt, state="published", answered_at=_now())
    folder.write_bytes(KNOWN_BODY, folder.read_bytes(PENDING))
    _write(folder, KNOWN, receipt)
    _write(folder, RECEIPT, receipt)


def _keep(folder: RunFolder, receipt: Receipt) -> None:
    _write(folder, RECEIPT, replace(receipt, answered_at=_now()))


def _write(folder: RunFolder, name: str, receipt: Receipt) -> None:
    folder.write_json(name, with_checksum(asdict(receipt)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
