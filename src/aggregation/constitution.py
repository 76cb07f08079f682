"""Constitution: scores of every guideline, the rule that judges them, and its verdicts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from aggregation.cards import Card, Shown
from aggregation.model import Parameters
from aggregation.ratings import Ids, Ratings

ACCEPTED, UNDECIDED, REJECTED = "accepted", "undecided", "rejected"

CONDITIONS = {
    "min_intercept": ("intercept", "more than", 3),
    "min_ratings": ("n_ratings", "at least", 0),
    "min_helpful_rate": ("helpful_rate", "at least", 2),
}
"""Condition of a rule: the column it reads, how that is to lie, decimals to show at least."""


@dataclass(frozen=True)
class Rule:
    """When a guideline is accepted: all three conditions hold.

    Defaults: `produce_constitution` of the original notebook.
    """

    name: Literal["aligned-2023"] = "aligned-2023"
    min_intercept: float = 0.375
    """The intercept must be greater."""
    min_ratings: int = 5
    """The number of ratings must be at least this."""
    min_helpful_rate: float = 0.8
    """The helpful rate must be at least this."""

    def liked(self, scores: pd.DataFrame) -> pd.Series:
        """Which rows the number of ratings and the helpful rate alone would accept."""
        return (scores["n_ratings"] >= self.min_ratings) & (
            scores["helpful_rate"] >= self.min_helpful_rate
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: intercept more than {self.min_intercept:g}, at least "
            f"{self.min_ratings} ratings, helpful rate at least {self.min_helpful_rate:g}"
        )


@dataclass(frozen=True)
class Condition:
    """One condition of a rule, as one guideline met it or not."""

    name: Literal["min_intercept", "min_ratings", "min_helpful_rate"]
    value: float
    """The guideline's own number."""
    limit: float
    holds: bool

    def __str__(self) -> str:
        column, needs, decimals = CONDITIONS[self.name]
        what = column.replace("_", " ")
        if math.isnan(self.value):
            return f"no ratings, so no {what}"
        if self.name == "min_ratings":
            plural = "" if self.value == 1 else "s"
            return f"{self.value:.0f} rating{plural}, needs at least {self.limit:.0f}"
        value = apart(self.value, self.limit, decimals)
        return f"{what} {value}, needs {needs} {self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """What a rule says of one guideline.

    Undecided: too few ratings to judge, whatever the other conditions say. Rejected: enough
    ratings, and another condition failed.
    """

    guideline_id: str
    verdict: Literal["accepted", "undecided", "rejected"]
    failed: tuple[Condition, ...]


@dataclass(frozen=True, repr=False)
class Constitution(Shown):
    """Every verdict, accepted first; within a verdict by consensus score, then by id."""

    rule: Rule
    verdicts: tuple[Verdict, ...]
    scores: pd.DataFrame
    """Scores with the columns verdict and failed, in the order of `verdicts`."""

    @property
    def accepted(self) -> pd.DataFrame:
        """The rows of `scores` that are accepted."""
        return self.scores[self.scores["verdict"] == ACCEPTED]

    def near_misses(self) -> pd.DataFrame:
        """The rows that failed exactly one condition, by consensus score."""
        one = np.array([len(v.failed) == 1 for v in self.verdicts], dtype=bool)
        near = self.scores[one]
        return near.sort_values(
            ["consensus_score", "guideline_id"], ascending=[False, True], kind="stable"
        )

    def _card(self) -> Card:
        verdicts = Counter(v.verdict for v in self.verdicts)
        failed = Counter(condition.name for v in self.verdicts for condition in v.failed)
        names = {name: name.removeprefix("min_").replace("_", " ") for name in failed}
        return Card(
            "Constitution: "
            + ", ".join(f"{verdicts[v]:,} {v}" for v in (ACCEPTED, UNDECIDED, REJECTED)),
            (
                ("rule", str(self.rule)),
                ("helpful rate alone", f"would accept {self.rule.liked(self.scores).sum():,}"),
                ("near misses", f"{len(self.near_misses()):,} failed exactly one condition"),
                (
                    "failed",
                    ", ".join(f"{names[c]} {failed[c]:,}" for c in sorted(failed)) or "none",
                ),
            ),
            () if verdicts[ACCEPTED] else ("no guideline is accepted",),
            (".accepted", ".near_misses()", ".scores", ".verdicts"),
        )


def score(ratings: Ratings, ids: Ids, parameters: Parameters) -> pd.DataFrame:
    """Scores: one row per rated guideline.

    n_ratings, helpful_rate (mean rating), intercept, embedding (list), consensus_score; the last
    is the original's (1.1 - rate) * intercept + rate - 0.1.
    """
    n = ratings.per_guideline()
    helpful = np.bincount(ratings.guideline, ratings.helpful, minlength=ratings.n_guidelines)
    rate = helpful / n
    intercept = np.asarray(parameters.guideline_intercept)
    return pd.DataFrame(
        {
            "guideline_id": ids.guidelines,
            "n_ratings": n,
            "helpful_rate": rate,
            "intercept": intercept,
            "embedding": [row.tolist() for row in np.asarray(parameters.guideline_embedding)],
            "consensus_score": (1.1 - rate) * intercept + rate - 0.1,
        }
    )


def judge(rule: Rule, guideline_id: str, n: int, rate: float, intercept: float) -> Verdict:
    """The rule's verdict on one guideline. A missing number (NaN) fails its condition."""
    conditions = (
        Condition("min_intercept", intercept, rule.min_intercept, intercept > rule.min_intercept),
        Condition("min_ratings", n, rule.min_ratings, n >= rule.min_ratings),
        Condition("min_helpful_rate", rate, rule.min_helpful_rate, rate >= rule.min_helpful_rate),
    )
    failed = tuple(c for c in conditions if not c.holds)
    few = any(c.name == "min_ratings" for c in failed)
    verdict = UNDECIDED if few else REJECTED if failed else ACCEPTED
    return Verdict(guideline_id, verdict, failed)  # type: ignore[arg-type]


def select(scores: pd.DataFrame, rule: Rule) -> Constitution:
    """Judge every row of `scores`. Extra columns are carried along."""
    columns = ["guideline_id", "n_ratings", "helpful_rate", "intercept"]
    verdicts = [judge(rule, *row) for row in scores[columns].itertuples(index=False)]
    scores = scores.assign(
        verdict=pd.Series([v.verdict for v in verdicts], index=scores.index, dtype="str"),
        failed=pd.Series(
            [[_failure(c) for c in v.failed] for v in verdicts], index=scores.index, dtype=object
        ),
    )
    rank = scores["verdict"].map({ACCEPTED: 0, UNDECIDED: 1, REJECTED: 2})
    order = (
        scores.assign(rank=rank)
        .reset_index(drop=True)
        .sort_values(
            ["rank", "consensus_score", "guideline_id"],
            ascending=[True, False, True],
            kind="stable",
        )
        .index
    )
    return Constitution(
        rule,
        tuple(verdicts[i] for i in order),
        scores.iloc[order].reset_index(drop=True),
    )


def _failure(condition: Condition) -> dict[str, object]:
    """A failed condition as a table holds it; a number that is not known is null."""
    c = condition
    value = None if math.isnan(c.value) else float(c.value)
    return {"name": c.name, "value": value, "limit": float(c.limit), "reason": str(c)}


def apart(value: float, limit: float, least: int) -> str:
    """The value with as few decimals, `least` of them at least, as show on which side it lies."""
    for digits in range(least, 16):
        text = f"{value:.{digits}f}"
        if np.sign(float(text) - limit) == np.sign(value - limit):
            return text
    return repr(value)
