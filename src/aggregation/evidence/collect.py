"""Collect: all evidence for the decisions of one fit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.rules import COMMUNITY_NOTES_STATUS, RULES, Rule
from aggregation.decisions.scores import score, with_columns, with_unrated
from aggregation.evidence.answers import by_answer
from aggregation.evidence.attacks import NEW, cheapest, costs, smallest_unanimous
from aggregation.evidence.bootstrap import REPLICATES, bootstrap, many, resampled, with_intervals
from aggregation.evidence.confidence import CLEAR, CLOSE, THIN, confidence
from aggregation.evidence.groups import by_group, opinion_groups
from aggregation.evidence.note_status import status_columns
from aggregation.evidence.prediction import division, prediction
from aggregation.evidence.raters import (
    activity_share,
    decided_without,
    influence,
    suspicious,
)
from aggregation.evidence.reach import accepted_in, reach
from aggregation.evidence.sides import by_side, sides_found
from aggregation.evidence.two_sides import by_axis, two_sides, with_two_sides
from aggregation.evidence.warnings import warnings
from aggregation.evidence.yardsticks import MOST_USERS, overlap, with_yardsticks
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids, Ratings

Depth = Literal["quick", "full"]

WITHOUT_FLAGGED = "without flagged users"
"""The same rule where these do not count, among `other_rules` of the summary."""


@dataclass(frozen=True)
class Evidence:
    """What supports the decisions."""

    constitution: Constitution
    """By the rule of the run; its scores hold a column for each measure of a guideline."""
    summary: dict[str, Any]
    """Of the whole deliberation, as plain values."""

    def facts(self) -> pd.DataFrame:
        """The plain numbers and words of the summary: what, value."""
        rows = [
            (name, value) for name, value in self.summary.items() if not isinstance(value, list)
        ]
        flat = [
            (f"{name}: {key}" if key else name, value)
            for name, whole in rows
            for key, value in (whole.items() if isinstance(whole, dict) else [("", whole)])
        ]
        shown = [
            (name.replace("_", " "), f"{v:.3f}" if isinstance(v, float) else str(v))
            for name, v in flat
        ]
        return pd.DataFrame(shown, columns=["what", "value"])

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

    `quick`: sides, opinion groups, yardsticks, the other rules' verdicts, flagged users, reach.
    `full` as well: intervals and P(accept) by `replicates` resamples of the users, the cost of
    manipulation, held-out prediction, influence of single users. `callback` is told each step.
    """
    say = callback or (lambda _: None)
    rules = {**RULES, rule.name: rule}
    say("sides")
    with ThreadPoolExecutor() as pool:  # both take a while
        grouped = pool.submit(opinion_groups, ratings, seed)
        sides, groups = two_sides(ratings), grouped.result()
    scores = by_side(score(ratings, ids, fit.parameters), ratings, ids, fit.parameters)
    scores = by_axis(with_two_sides(scores, sides, ids), sides, ids)
    scores = by_group(scores, ratings, ids, groups.member)
    scores = by_answer(scores, ratings, ids, dataset.answers)
    say("yardsticks")
    scores = with_yardsticks(scores, ratings, ids, groups.member)
    found_division = division(sides)
    flags = suspicious(ratings, sides, dataset.ratings["rated_at"])
    left_out = ["pairs of users"] if ratings.n_users > MOST_USERS else []
    if depth == "full" and not resampled(rule):
        left_out.append("resamples")
    elif depth == "full" and many(ratings):
        left_out.append("cold refits")
    summary: dict[str, Any] = {
        "depth": depth,
        "division": found_division,
        "sides": sides_found(fit.parameters.user_embedding, found_division),
        "warnings": warnings(dataset, fit.n_blocks, found_division, left_out=left_out),
        "left_out": left_out,
        "axes_explain": sides.explained.tolist(),
        "groups": list(groups.sizes),
        "silhouette": groups.silhouette,
        "flagged_users": {name: int(flags[name].sum()) for name in flags},
        "most_active_share": activity_share(ratings),
    }
    if rule.name == COMMUNITY_NOTES_STATUS.name:
        at = dataset.ratings["rated_at"]
        status = status_columns(ratings, fit.parameters, fit.penalty, at, rule)
        scores = with_columns(scores, ids, status)
    scores = with_unrated(scores, dataset.guidelines["guideline_id"])
    rules = {name: r for name, r in rules.items() if r is rule or resampled(r)}
    others = {name: select(scores, other) for name, other in rules.items() if name != rule.name}
    for name, other in others.items():
        verdicts = other.scores.set_index("guideline_id")["verdict"]
        scores[f"verdict_{name}"] = scores["guideline_id"].map(verdicts)
    constitution = select(scores, rule)
    if depth == "full" and not resampled(rule):
        say("prediction")
        predictors, calibration, _ = prediction(ratings, fit, seed=seed, callback=say)
        summary |= {"predictors": _records(predictors), "calibration": _records(calibration)}
    elif depth == "full":
        # Side by side: while one compiles, the others compute.
        with ThreadPoolExecutor() as pool:
            drawn = pool.submit(
                bootstrap,
                *(ratings, fit, sides, list(rules.values())),
                replicates=replicates,
                seed=seed,
                callback=say,
            )
            foretold = pool.submit(prediction, ratings, fit, seed=seed, callback=say)
            against = (constitution, ratings, ids, fit, sides)
            bought = pool.submit(costs, *against, only_cheapest=True, seed=seed, callback=say)
        found, (predictors, calibration, notes) = drawn.result(), foretold.result()
        if flags.any(axis=None):
            say("without flagged users")
            others[WITHOUT_FLAGGED] = decided_without(flags, ratings, ids, fit, sides, constitution)
        say("influence of single users")
        changed = influence(ratings, fit, sides, rule)["verdicts_changed"]
        table = cheapest(bought.result())
        new = table[table["guideline_id"] == NEW].drop(columns="guideline_id")
        bound = smallest_unanimous(constitution)
        summary |= {
            "replicates": replicates,
            "refits_missed": found.missed,
            "predictors": _records(predictors),
            "calibration": _records(calibration),
            "most_verdicts_of_one_user": int(changed.max()),
            "new_guideline": _records(new.assign(smallest_unanimous=bound))[0],
        }
        scores = with_intervals(constitution.scores, ids, found, list(rules.values()))
        level = {"community_notes_intercept": notes.guideline_intercept}
        scores = with_columns(scores, ids, level).merge(table, on="guideline_id", how="left")
        constitution = replace(constitution, scores=scores)
    scores = constitution.scores.assign(accepted_in=accepted_in(constitution))
    constitution = replace(constitution, scores=scores)
    sure = confidence(constitution, two=summary["sides"]["two"])
    constitution = replace(constitution, scores=scores.assign(confidence=sure))
    scores = constitution.scores
    summary |= {
        "confidence": {word: int((sure == word).sum()) for word in (CLEAR, CLOSE, THIN)},
        "reach": reach(constitution, ratings, ids, groups),
        "other_rules": [
            {"rule": name, **other.verdicts(), **_against(constitution, other)}
            for name, other in others.items()
        ],
        "yardsticks": overlap(constitution).to_dict("records"),
    }
    return Evidence(constitution, summary)


def _records(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows as JSON can hold them: what is not known is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _against(constitution: Constitution, other: Constitution) -> dict[str, list[str]]:
    """Guidelines that only the other accepts, and that only this one does."""
    here, there = (set(c.accepted["guideline_id"]) for c in (constitution, other))
    return {"gained": sorted(there - here), "lost": sorted(here - there)}
