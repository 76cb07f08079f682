"""Collect: all evidence for the decisions of one fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.rules import RULES, Rule
from aggregation.decisions.scores import score, with_unrated
from aggregation.evidence.bootstrap import REPLICATES, bootstrap, with_intervals
from aggregation.evidence.groups import by_group, opinion_groups
from aggregation.evidence.sides import by_side
from aggregation.evidence.two_sides import two_sides, with_two_sides
from aggregation.evidence.yardsticks import overlap, with_yardsticks
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids, Ratings

Depth = Literal["quick", "full"]


@dataclass(frozen=True)
class Evidence:
    """What supports the decisions."""

    constitution: Constitution
    """By the rule of the run; its scores hold a column for each measure of a guideline."""
    summary: dict[str, Any]
    """Of the whole deliberation, as plain values."""

    def table(self, name: str) -> pd.DataFrame:
        """A table of the summary; empty where it is not computed at this depth."""
        return pd.DataFrame(self.summary.get(name, []))


def collect(
    dataset: Dataset,
    ratings: Ratings,
    ids: Ids,
    fit: Fit,
    rule: Rule,
    *,
    depth: Depth = "quick",
    replicates: int = REPLICATES,
    seed: int = 0,
    callback: Callable[[str], None] | None = None,
) -> Evidence:
    """All evidence, with the verdicts of `rule`, for every guideline of `dataset`.

    `quick`: sides, groups, yardsticks and the verdicts of the other rules. `full`: intervals and
    P(accept) by `replicates` resamples of the users as well. `callback` is told each step.
    """
    say = callback or (lambda _: None)
    rules = {**RULES, rule.name: rule}
    say("sides")
    sides, groups = two_sides(ratings), opinion_groups(ratings, seed)
    scores = by_side(score(ratings, ids, fit.parameters), ratings, ids, fit.parameters)
    scores = with_two_sides(scores, sides, ids)
    scores = by_group(scores, ratings, ids, groups.member)
    say("yardsticks")
    scores = with_yardsticks(scores, ratings, ids, groups.member)
    summary: dict[str, Any] = {
        "depth": depth,
        "beta": sides.beta.tolist(),
        "groups": list(groups.sizes),
        "silhouette": groups.silhouette,
    }
    if depth == "full":
        found = bootstrap(
            *(ratings, fit, sides, list(rules.values())),
            replicates=replicates,
            seed=seed,
            callback=say,
        )
        scores = with_intervals(scores, ids, found, list(rules.values()))
        summary |= {"replicates": replicates, "refits_missed": found.missed}
    scores = with_unrated(scores, dataset.guidelines["guideline_id"])
    others = {name: select(scores, other) for name, other in rules.items() if name != rule.name}
    for name, other in others.items():
        verdicts = other.scores.set_index("guideline_id")["verdict"]
        scores[f"verdict_{name}"] = scores["guideline_id"].map(verdicts)
    constitution = select(scores, rule)
    summary["other_rules"] = [
        {"rule": name, **other.verdicts(), **_against(constitution, other)}
        for name, other in others.items()
    ]
    summary["yardsticks"] = overlap(constitution).to_dict("records")
    return Evidence(constitution, summary)


def _against(constitution: Constitution, other: Constitution) -> dict[str, list[str]]:
    """Guidelines that only the other accepts, and that only this one does."""
    here, there = (set(c.accepted["guideline_id"]) for c in (constitution, other))
    return {"gained": sorted(there - here), "lost": sorted(here - there)}
