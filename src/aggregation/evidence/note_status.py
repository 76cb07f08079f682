"""Note status: the numbers that Community Notes' rule reads, besides the model's own.

Of their published scorer (github.com/twitter/communitynotes, scoring/src/scoring, 2026-07) those
parts that need no private data: note_ratings.py (net helpful ratings, ratio rule), scoring_rules.py
(minority raters, balance, large factors, intercept without high-volume raters), process_data.py
(high-volume raters). docs/method.md lists what is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from aggregation.decisions.rules import Rule
from aggregation.decisions.scores import rate, tally
from aggregation.evidence.bootstrap import ROUGH
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ratings
from aggregation.model.refit import refit

REJECTED_BELOW, PER_EMBEDDING = -0.05, -0.8
"""A note is not helpful if its intercept is at most the first + the second times |embedding|."""

DISLIKED, FEWEST_EACH = 0.4, 3
"""Both sides dislike a note: so many raters each, whose mean ratings are at most this."""

ENOUGH = 10
"""Net helpful ratings of the smaller side from which their share of all does not count."""

DAYS, MOST_ACTIVE, LEAST_NOTES = (7, 28), 0.999, 200
"""Raters above this quantile of the ratings in the last days are left out; with fewer notes nobody
is."""


def status_columns(
    ratings: Ratings, parameters: Parameters, penalty: Penalty, rated_at: pd.Series, rule: Rule
) -> Mapping[str, np.ndarray]:
    """[G] each, of axis 1, of which users below 0 are one side and all others the other:

    above_rejection: intercept + 0.05 + 0.8 |embedding|. both_sides_rate: mean of the sides' mean
    ratings where each has 3 raters and a mean of at most 0.4, else 1. embedding_size.
    net_helpful: helpful less not helpful ratings of the side where that is less, at least 0; a
    rating between the two counts for neither. net_helpful_share: its share of all ratings; 1 from
    10 on. intercept_without_most_active: of a refit without the most active raters, where `rule`
    reads it.
    """
    p = parameters
    size, level = np.abs(p.guideline_embedding[:, 0]), p.guideline_intercept
    side = (p.user_embedding[:, 0] >= 0).astype(np.int64)
    given, helpful = tally(ratings, side, 2)
    mean, n = rate(helpful, given), given.sum(axis=1)
    cell = ratings.guideline.astype(np.int64) * 2 + side[ratings.user]
    said = (ratings.helpful == 1).astype(np.float64) - (ratings.helpful == 0)
    w = 1.0 if ratings.weight is None else ratings.weight
    net = np.bincount(cell, w * said, 2 * ratings.n_guidelines).reshape(-1, 2).min(axis=1)
    net = np.maximum(net, 0.0)
    disliked = (given >= FEWEST_EACH).all(axis=1) & (np.nan_to_num(mean, nan=1) <= DISLIKED).all(1)
    share = np.divide(net, n, out=np.zeros(len(n)), where=n > 0)
    found = {
        "above_rejection": level - (REJECTED_BELOW + PER_EMBEDDING * size),
        "both_sides_rate": np.where(disliked, np.nan_to_num(mean).mean(axis=1), 1.0),
        "embedding_size": size,
        "net_helpful": net,
        "net_helpful_share": np.where(net >= ENOUGH, 1.0, share),
    }
    if "intercept_without_most_active" in (c.column for c in rule.conditions):
        kept = ~most_active(ratings, rated_at)[ratings.user]
        if not kept.all():
            weights = (w * kept)[:, None]
            level = refit(ratings, weights, p, penalty, ROUGH).parameters.guideline_intercept
            level = np.where(ratings.per_guideline() > 0, level[:, 0], np.nan)
        found["intercept_without_most_active"] = level
    return found


def most_active(ratings: Ratings, rated_at: pd.Series) -> np.ndarray:
    """Users with more ratings in the last 7 or 28 days than all but a thousandth; bool [U].

    The quantile is over users who rated in these days. Nobody without times or with few notes.
    """
    at = pd.to_datetime(rated_at, utc=True).dt.tz_localize(None).to_numpy("datetime64[ms]")
    found = np.zeros(ratings.n_users, bool)
    if ratings.n_guidelines < LEAST_NOTES or np.isnat(at).all():
        return found
    for days in DAYS:
        recent = at > np.nanmax(at) - np.timedelta64(days, "D")
        n = np.bincount(ratings.user[recent], minlength=ratings.n_users)
        found |= n > np.quantile(n[n > 0], MOST_ACTIVE)
    return found
