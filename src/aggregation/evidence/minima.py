"""Minima: what the rule would accept in every local minimum that the fit found."""

from __future__ import annotations

import pandas as pd

from aggregation.decisions.constitution import select
from aggregation.decisions.rules import Rule
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids


def minima_table(scores: pd.DataFrame, rule: Rule, ids: Ids, fit: Fit) -> pd.DataFrame:
    """What the rule would accept in every local minimum that the fit found, lowest first.

    Columns: minimum (from 1), loss, starts (how many ended there; 0: found by moving rows),
    accepted (how many), gained and lost (guideline ids against the lowest, which is the fit).
    """
    accepted: list[set[str]] = []
    for minimum in fit.minima:
        intercept = pd.Series(minimum.parameters.guideline_intercept, ids.guidelines)
        here = scores.assign(intercept=scores["guideline_id"].map(intercept))
        accepted.append(set(select(here, rule).accepted["guideline_id"]))
    return pd.DataFrame(
        {
            "minimum": range(1, len(accepted) + 1),
            "loss": [minimum.objective for minimum in fit.minima],
            "starts": [minimum.starts for minimum in fit.minima],
            "accepted": [len(found) for found in accepted],
            "gained": [sorted(found - accepted[0]) for found in accepted],
            "lost": [sorted(accepted[0] - found) for found in accepted],
        }
    )
