"""Minima: what the rule would accept in every local minimum that the fit found."""

from __future__ import annotations

from typing import Any

import pandas as pd

from aggregation.decisions.constitution import select
from aggregation.decisions.rules import ACCEPTED, Rule


def minima_table(
    scores: pd.DataFrame, rule: Rule, intercepts: pd.DataFrame, ends: list[dict[str, Any]]
) -> pd.DataFrame:
    """What the rule would accept in every local minimum that the fit found, lowest first.

    `intercepts`: minimum (from 1), guideline_id, intercept; `ends`: objective and starts of each
    minimum. Columns: minimum, loss, starts (how many ended there; 0: found by moving single rows),
    accepted, gained and lost (guideline ids against the lowest, which is the fit).
    """
    rows, first = [], frozenset()
    for number, end in enumerate(ends, start=1):
        here = intercepts[intercepts["minimum"] == number].set_index("guideline_id")["intercept"]
        judged = select(scores.assign(intercept=scores["guideline_id"].map(here)), rule).scores
        accepted = frozenset(judged.loc[judged["verdict"] == ACCEPTED, "guideline_id"])
        first = accepted if number == 1 else first
        rows.append(
            {
                "minimum": number,
                "loss": end["objective"],
                "starts": end["starts"],
                "accepted": len(accepted),
                "gained": sorted(accepted - first),
                "lost": sorted(first - accepted),
            }
        )
    return pd.DataFrame(rows)
