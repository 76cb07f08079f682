"""Sides: who found a guideline helpful, by the side of the users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from aggregation.decisions.scores import rate, tally
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings

BUCKETS = 15
"""Buckets of the "range of perspectives", as on the platform's page."""

SIDES = {"negative": -1, "positive": 1}
"""A user's side is the sign of the first coordinate of the embedding; users at 0 have none."""


@dataclass(frozen=True)
class Perspectives:
    """Who found a guideline helpful, along the first axis."""

    edges: np.ndarray
    """[BUCKETS + 1] bounds of the buckets; each holds its lower bound, the last its upper one too.
    The two outer ones also hold everybody beyond them, so nobody is lost."""
    helpful: np.ndarray
    """[G, BUCKETS] (weighted) sum of ratings."""
    not_helpful: np.ndarray
    """[G, BUCKETS] (weighted) sum of 1 - rating."""


def perspectives(ratings: Ratings, user_embedding: np.ndarray) -> Perspectives:
    """Histogram of each guideline's ratings over the first axis of `user_embedding` [U, D].

    The bounds span the middle 95 % of the users: a few far out would squeeze all others into one
    bucket.
    """
    axis = user_embedding[:, 0]
    low, high = np.quantile(axis, [0.025, 0.975])
    if high - low < 1e-9:  # everybody at one place: the middle bucket
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BUCKETS + 1)
    bucket = np.clip(np.searchsorted(edges, axis, side="right") - 1, 0, BUCKETS - 1)
    given, helpful = tally(ratings, bucket, BUCKETS)
    return Perspectives(edges, helpful, given - helpful)


def by_side(
    scores: pd.DataFrame, ratings: Ratings, ids: Ids, parameters: Parameters
) -> pd.DataFrame:
    """Scores with n_ratings_<side> and helpful_rate_<side> of both sides.

    The numbers are plain counts; the rates are weighted by `Ratings.weight`, NaN without ratings.
    """
    side = np.sign(np.asarray(parameters.user_embedding)[:, 0]).astype(np.int64)
    rows = ids.guidelines.get_indexer(pd.Index(scores["guideline_id"]))
    counted, _ = tally(replace(ratings, weight=None), side + 1, 3)
    given, helpful = tally(ratings, side + 1, 3)
    columns = {}
    for name, sign in SIDES.items():
        columns[f"n_ratings_{name}"] = counted[rows, sign + 1]
        columns[f"helpful_rate_{name}"] = rate(helpful, given)[rows, sign + 1]
    return scores.assign(**columns)
