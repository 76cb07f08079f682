"""Verdict changes: guidelines of two runs side by side, and which condition changed a verdict."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from aggregation.decisions.rules import ACCEPTED, COMPARISONS, Condition, Rule
from aggregation.verify.equality import cells

NUMBERS = ("intercept", "helpful_rate", "n_ratings", "consensus_score")
COLUMNS = ("guideline_id", "verdict", "failed", *NUMBERS)
"""What is read of evidence/guidelines.parquet."""

CHANGES = {
    "gained": "Accepted now",
    "lost": "No longer accepted",
    "other": "Judged otherwise, accepted in neither",
    "new": "New guidelines",
    "gone": "Guidelines that are gone",
    "same": "Judged as before",
}
"""Values of the column `change`, in the order of the rows, as headings."""


def changes(
    one: pd.DataFrame,
    other: pd.DataFrame,
    texts: tuple[pd.Series, pd.Series],
    rules: tuple[Rule, Rule],
) -> pd.DataFrame:
    """See `compare.Comparison.guidelines`. `texts`: of both runs, by guideline_id."""
    both = (
        one[[*COLUMNS]]
        .merge(other[[*COLUMNS]], on="guideline_id", how="outer", suffixes=("_before", "_after"))
        .fillna({"verdict_before": "", "verdict_after": ""})
    )
    old, new = (both["guideline_id"].map(text) for text in texts)
    change = list(map(_change, both["verdict_before"], both["verdict_after"]))
    why = list(map(partial(_why, rules), both.to_dict("records"), change))
    alike = [cells(both[f"{name}_before"], both[f"{name}_after"]) for name in NUMBERS]
    both = both.astype({"n_ratings_before": "Int64", "n_ratings_after": "Int64"}).assign(
        text=new.fillna(old).fillna("").astype("str"),
        text_before=old.where(old.notna() & new.notna() & (old != new), "").astype("str"),
        change=change,
        moved=~np.logical_and.reduce(alike),
        why=pd.Series(why, index=both.index, dtype=object),
        rank=[list(CHANGES).index(c) for c in change],
    )
    sides = [f"{name}_{side}" for name in ("verdict", *NUMBERS) for side in ("before", "after")]
    both = both.sort_values(["rank", "text", "guideline_id"], kind="stable", ignore_index=True)
    return both[["guideline_id", "text", "text_before", "change", "moved", "why", *sides]]


def _change(before: str, after: str) -> str:
    if not before or not after:
        return "gone" if before else "new"
    if before == after:
        return "same"
    return "gained" if after == ACCEPTED else "lost" if before == ACCEPTED else "other"


def _why(rules: tuple[Rule, Rule], row: dict[Any, Any], change: str) -> list[str]:
    """Which conditions hold on one side only, a sentence for each."""
    if change in ("new", "gone", "same"):
        return [] if change == "same" else [change]
    one, other = ({f["name"] for f in row[f"failed_{side}"]} for side in ("before", "after"))
    before = {c.name: c for c in rules[0].conditions}
    reasons = [
        _reason((before.get(c.name, c), c), row)
        for c in rules[1].conditions
        if c.name in one ^ other
    ]
    return reasons or ["no condition differs: the two versions judge differently"]


def _reason(conditions: tuple[Condition, Condition], row: dict[Any, Any]) -> str:
    """Numbers with as few decimals as show on which side of its bound each lies."""
    column, least = conditions[1].column, conditions[1].decimals
    needs = COMPARISONS[conditions[1].comparison][1]
    limits = {"before": conditions[0].bound, "after": conditions[1].bound}
    pairs = [(row[f"{column}_{side}"], limits[side]) for side in ("before", "after")]
    known = [pair for pair in pairs if not math.isnan(pair[0])]
    decimals = least
    while decimals < 17 and any(
        np.sign(float(f"{v:.{decimals}f}") - limit) != np.sign(v - limit) for v, limit in known
    ):
        decimals += 1
    numbers = ["none" if math.isnan(v) else f"{v:.{decimals}f}" for v, _ in pairs]
    bounds = [f"{x:.{least}f}" if float(f"{x:.{least}f}") == x else repr(x) for _, x in pairs]
    number, bound = (" -> ".join(dict.fromkeys(both)) for both in (numbers, bounds))
    what = column.removeprefix("n_").replace("_", " ")
    return f"{what} {number}, {'limit' if bounds[0] != bounds[1] else f'needs {needs}'} {bound}"
