"""Constitution: the verdict of a rule on every guideline."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aggregation.data.cards import Card, Shown
from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED, Rule

ORDER = (ACCEPTED, UNDECIDED, REJECTED)
"""Order of the verdicts in a constitution."""


@dataclass(frozen=True, repr=False)
class Constitution(Shown):
    """Scores with verdicts, accepted first; within a verdict by consensus score, then by id."""

    rule: Rule
    scores: pd.DataFrame
    """Scores with the columns `verdict` and `failed`: of each failed condition a dictionary with
    name, value (null where unknown), limit and reason, in the order of the rule."""

    @property
    def accepted(self) -> pd.DataFrame:
        """The rows of `scores` that are accepted."""
        return self.scores[self.scores["verdict"] == ACCEPTED]

    def verdicts(self) -> dict[str, int]:
        """Number of guidelines by verdict."""
        n = self.scores["verdict"].value_counts()
        return {verdict: int(n.get(verdict, 0)) for verdict in ORDER}

    def kept(self) -> pd.DataFrame:
        """The accepted rows that failed a condition: `Rule.slack` keeps them."""
        return self.accepted[self.accepted["failed"].map(len) > 0]

    def near_misses(self) -> pd.DataFrame:
        """The rows that failed exactly one condition, by consensus score."""
        missed = self.scores["verdict"] != ACCEPTED
        near = self.scores[missed & (self.scores["failed"].map(len) == 1)]
        return near.sort_values(
            ["consensus_score", "guideline_id"], ascending=[False, True], kind="stable"
        )

    def _card(self) -> Card:
        verdicts = self.verdicts()
        failed = Counter(f["name"] for failed in self.scores["failed"] for f in failed)
        words = {name.removeprefix("min_").replace("_", " "): n for name, n in failed.items()}
        facts = [("rule", str(self.rule))]
        if "helpful_rate" in (c.column for c in self.rule.conditions):
            n = self.rule.liked(self.scores).sum()
            facts.append(("helpful rate alone", f"would accept {n:,}"))
        return Card(
            "Constitution: " + ", ".join(f"{n:,} {verdict}" for verdict, n in verdicts.items()),
            (
                *facts,
                ("near misses", f"{len(self.near_misses()):,} failed exactly one condition"),
                ("failed", ", ".join(f"{w} {n:,}" for w, n in sorted(words.items())) or "none"),
            ),
            () if verdicts[ACCEPTED] else ("no guideline is accepted",),
            (".accepted", ".near_misses()", ".scores", ".verdicts()"),
        )


def select(scores: pd.DataFrame, rule: Rule) -> Constitution:
    """Judge every row of `scores`, which has the rule's columns; extra columns are carried along.

    The verdicts are those of `Rule.verdicts`.
    """
    verdict = rule.verdicts(scores)
    failed: list[list[dict[str, object]]] = [[] for _ in range(len(scores))]
    for condition in rule.conditions:
        values = scores[condition.column].to_numpy(np.float64)
        for k in np.flatnonzero(~condition.holds(scores)):
            value = float(values[k])
            failed[k].append(
                {
                    "name": condition.name,
                    "value": None if np.isnan(value) else value,
                    "limit": float(condition.bound),
                    "reason": condition.reason(value),
                }
            )
    judged = scores.assign(
        verdict=pd.Series(verdict, index=scores.index, dtype="str"),
        failed=pd.Series(failed, index=scores.index, dtype=object),
        rank=[ORDER.index(word) for word in verdict],
    )
    by = ["rank", "consensus_score", "guideline_id"]
    judged = judged.sort_values(by, ascending=[True, False, True], kind="stable", ignore_index=True)
    return Constitution(rule, judged.drop(columns="rank"))
