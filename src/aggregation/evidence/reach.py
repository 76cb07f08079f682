"""Reach: whom the constitution serves, and who is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED
from aggregation.decisions.scores import wilson
from aggregation.evidence.groups import Groups, group_counts
from aggregation.model.ratings import Ids, Ratings, counts

AGREED = 0.7
"""A group agrees on a guideline if the lower Wilson bound of its helpful rate is at least this."""

LEAST_GROUP = 0.05
"""Share of the users that a group has at least, to be named."""


def reach(constitution: Constitution, ratings: Ratings, ids: Ids, groups: Groups) -> dict[str, Any]:
    """How many users the accepted guidelines reach, as shares of the users who rated any of them.

    at_least_one, at_least_three: found so many of them helpful. at_least_half: of those that they
    rated. n_users: how many rated any. left_out: share of all users in the largest opinion group
    that agrees on guidelines of which none was accepted; 0 if there is none.
    """
    accepted = ids.guidelines.isin(constitution.accepted["guideline_id"])
    of = accepted[ratings.guideline]
    rated = counts(ratings.user, ratings.n_users, of)
    liked = counts(ratings.user, ratings.n_users, of * ratings.helpful)
    asked = rated > 0
    shares = {
        "at_least_one": liked >= 1,
        "at_least_three": liked >= 3,
        "at_least_half": 2 * liked >= rated,
    }
    n, helpful = group_counts(ratings, groups.member)
    lower, _ = wilson(helpful, n)
    agreed = lower >= AGREED
    left_out = agreed.any(axis=1) & ~(agreed & accepted).any(axis=1)
    sizes = np.array(groups.sizes, float)[left_out] / ratings.n_users
    largest = float(sizes.max(initial=0.0))
    found: dict[str, Any] = {"n_users": int(asked.sum())}
    for name, held in shares.items():
        found[name] = float(held[asked].mean()) if asked.any() else 0.0
    return found | {"left_out": largest if largest >= LEAST_GROUP else 0.0}


def accepted_in(constitution: Constitution) -> pd.Series:
    """For each row of the scores, the share of variants of the rule that accept it.

    Variants: each bound of the rule's own, looser and stricter by a tenth of it; the fit with the
    Community Notes' penalty in place of the intercept, where that is known. 1: never in doubt.
    """
    rule, scores, held = constitution.rule, constitution.scores, []
    tables = [scores]
    if "community_notes_intercept" in scores:
        tables.append(scores.assign(intercept=scores["community_notes_intercept"]))
    for table in tables:
        for factor in (0.9, 1.0, 1.1):
            bounds = {
                c.name: min(c.bound * factor, (c.most or np.inf) * 0.99) for c in rule.conditions
            }
            held.append(rule.with_bounds(**bounds).verdicts(table) == ACCEPTED)
    return pd.Series(np.mean(held, axis=0), index=scores.index)
