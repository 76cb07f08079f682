"""Evidence: what supports each decision, as more columns of Scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

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
    """[G, BUCKETS] sum of ratings; whole numbers unless a rating lies between 0 and 1."""
    not_helpful: np.ndarray
    """[G, BUCKETS] sum of 1 - rating."""


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
    cell = ratings.guideline.astype(np.int64) * BUCKETS + bucket[ratings.user]
    size = ratings.n_guidelines * BUCKETS
    helpful = np.bincount(cell, ratings.helpful, size)
    total = np.bincount(cell, minlength=size)
    shape = (ratings.n_guidelines, BUCKETS)
    return Perspectives(edges, helpful.reshape(shape), (total - helpful).reshape(shape))


def by_side(
    scores: pd.DataFrame, ratings: Ratings, ids: Ids, parameters: Parameters
) -> pd.DataFrame:
    """Scores with n_ratings_<side> and helpful_rate_<side> (NaN without ratings) of both sides."""
    side = np.sign(np.asarray(parameters.user_embedding)[:, 0])[ratings.user]
    rows = ids.guidelines.get_indexer(pd.Index(scores["guideline_id"]))
    columns = {}
    for name, sign in SIDES.items():
        of = side == sign
        n = np.bincount(ratings.guideline[of], minlength=ratings.n_guidelines)
        helpful = np.bincount(
            ratings.guideline[of], ratings.helpful[of], minlength=ratings.n_guidelines
        )
        rate = np.divide(helpful, n, out=np.full(len(n), np.nan), where=n > 0)
        columns[f"n_ratings_{name}"] = n[rows]
        columns[f"helpful_rate_{name}"] = rate[rows]
    return scores.assign(**columns)
