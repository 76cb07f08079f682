"""Constitution: scores of every guideline, the rule that judges them, and its verdicts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from aggregation.data.cards import Card, Shown
from aggregation.decisions.rules import Condition, Rule

ACCEPTED, UNDECIDED, REJECTED = "accepted", "undecided", "rejected"


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
