"""Publish: the constitution as the platform takes it, and as a table for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from aggregation.decisions.constitution import Constitution
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids


class Payload(BaseModel):
    """The body of `POST /constitution`: exactly these seven keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    accepted_guideline_ids: list[str]
    guideline_scores: dict[str, float]
    """accepted id -> consensus score"""
    guideline_intercepts: dict[str, float]
    user_intercepts: dict[str, float]
    guideline_embeddings: dict[str, list[float]]
    user_embeddings: dict[str, list[float]]
    mu: float

    def summary(self) -> pd.DataFrame:
        """How many entries each key holds: key, entries."""
        rows = [(key, len(v) if key != "mu" else 1) for key, v in self]
        return pd.DataFrame(rows, columns=["key", "entries"])


def payload(constitution: Constitution, parameters: Parameters, ids: Ids) -> Payload:
    """What the platform is told: the accepted guidelines, and the model of everybody in it.

    Guidelines and users without ratings are not in the model and so not in the payload. Accepted
    guidelines are in the order of their ids, as in the original notebook's `produce_constitution`.
    """
    accepted = constitution.accepted.sort_values("guideline_id")
    p = parameters
    return Payload(
        accepted_guideline_ids=list(accepted["guideline_id"]),
        guideline_scores=_by_id(accepted["guideline_id"], accepted["consensus_score"]),
        guideline_intercepts=_by_id(ids.guidelines, p.guideline_intercept),
        user_intercepts=_by_id(ids.users, p.user_intercept),
        guideline_embeddings=_by_id(ids.guidelines, p.guideline_embedding),
        user_embeddings=_by_id(ids.users, p.user_embedding),
        mu=float(p.mu),
    )


def body(payload: Payload) -> str:
    """The payload as the JSON text that is posted, the same bytes every time."""
    return json.dumps(
        payload.model_dump(), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


NUMBER_TOLERANCE = 1e-6
"""Numbers of two models that differ by less are the same: a fit's own tolerance."""


@dataclass(frozen=True)
class Changes:
    """What a new constitution would change against the last published one."""

    first: bool
    """Whether nothing was published before."""
    accepted: tuple[str, ...]
    """Newly accepted guidelines."""
    gone: tuple[str, ...]
    """No longer accepted."""
    kept: int
    """Accepted before and now."""
    moved: dict[str, float]
    """Changes of the consensus scores of those kept that exceed `NUMBER_TOLERANCE`."""
    mu: float
    """Change of mu."""
    same: bool
    """Whether nothing in it differs, but for numbers within `NUMBER_TOLERANCE`."""

    def table(self) -> pd.DataFrame:
        """For people: what, how many, which."""
        largest = max(self.moved.values(), key=abs, default=0.0)
        rows = [
            ("newly accepted", len(self.accepted), list(self.accepted)),
            ("no longer accepted", len(self.gone), list(self.gone)),
            ("accepted as before", self.kept, []),
            (f"of these, score moved (by {largest:+.3f} at most)", len(self.moved), []),
            (f"mu moved by {self.mu:+.4f}", int(abs(self.mu) > NUMBER_TOLERANCE), []),
        ]
        return pd.DataFrame(rows, columns=["change", "n", "guidelines"])


def changes(before: Payload | None, after: Payload) -> Changes:
    """What publishing `after` would change against `before`, None: nothing was published."""
    old = frozenset() if before is None else frozenset(before.accepted_guideline_ids)
    new = frozenset(after.accepted_guideline_ids)
    scores = {} if before is None else before.guideline_scores
    shift = {g: after.guideline_scores[g] - scores[g] for g in sorted(old & new)}
    return Changes(
        first=before is None,
        accepted=tuple(sorted(new - old)),
        gone=tuple(sorted(old - new)),
        kept=len(old & new),
        moved={g: change for g, change in shift.items() if abs(change) > NUMBER_TOLERANCE},
        mu=after.mu - (0.0 if before is None else before.mu),
        same=before is not None and old == new and _close(_model(before), _model(after)),
    )


def _model(payload: Payload) -> dict[str, Any]:
    return payload.model_dump(exclude={"accepted_guideline_ids"})


def _close(one: Any, other: Any) -> bool:
    """Whether keys and lengths are equal, and numbers within `NUMBER_TOLERANCE`."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_close, one, other))
    return abs(one - other) <= NUMBER_TOLERANCE


def guards(changes: Changes, after: Payload, n_ratings: int, before_ratings: int) -> list[str]:
    """Reasons not to publish, in words; none: nothing speaks against it."""
    reasons = []
    if not after.accepted_guideline_ids:
        reasons.append("no guideline is accepted")
    old = changes.kept + len(changes.gone)
    if len(changes.gone) > old / 2:
        reasons.append(f"{len(changes.gone)} of the {old} accepted guidelines would be gone")
    if n_ratings < before_ratings:
        reasons.append(f"{n_ratings:,} ratings are fewer than the {before_ratings:,} before")
    return reasons


def _by_id(keys: pd.Index | pd.Series, values: np.ndarray | pd.Series) -> dict[str, Any]:
    """Plain floats, or lists of them, by id."""
    return dict(zip(map(str, keys), np.asarray(values, np.float64).tolist(), strict=True))
