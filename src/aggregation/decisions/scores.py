"""Scores: one row of numbers for each guideline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtri

from aggregation.data.categories import CHUNK
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings


def score(ratings: Ratings, ids: Ids, parameters: Parameters) -> pd.DataFrame:
    """Scores: one row per rated guideline.

    n_ratings (a plain count), helpful_rate (mean rating, weighted by `Ratings.weight`; NaN where
    all weights are 0), intercept, embedding (list), consensus_score; the last is the original's
    (1.1 - rate) * intercept + rate - 0.1.
    """
    given, helpful = tally(ratings, np.zeros(ratings.n_users, np.int64), 1)
    share = rate(helpful, given)[:, 0]
    intercept = np.asarray(parameters.guideline_intercept)
    return pd.DataFrame(
        {
            "guideline_id": ids.guidelines,
            "n_ratings": ratings.per_guideline(),
            "helpful_rate": share,
            "intercept": intercept,
            "embedding": np.asarray(parameters.guideline_embedding).tolist(),
            "consensus_score": (1.1 - share) * intercept + share - 0.1,
        }
    )


def tally(ratings: Ratings, group: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """What each group of users said of each guideline, `group` [U] being every user's.

    Weight of the ratings (their number without weights) and weighted sum of helpful ones, both
    [G, n_groups].
    """
    shape = (ratings.n_guidelines, n_groups)
    given, helpful = np.zeros((2, shape[0] * shape[1]))
    for at in range(0, len(ratings), CHUNK):
        part = slice(at, at + CHUNK)
        cell = ratings.guideline[part].astype(np.int64) * n_groups + group[ratings.user[part]]
        w, y = None if ratings.weight is None else ratings.weight[part], ratings.helpful[part]
        given += np.bincount(cell, w, len(given))
        helpful += np.bincount(cell, y if w is None else w * y, len(given))
    return given.reshape(shape), helpful.reshape(shape)


def rate(helpful: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Their quotient, NaN where nothing was given."""
    return np.divide(helpful, given, out=np.full(given.shape, np.nan), where=given > 0)


def wilson(helpful: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, ...]:
    """Lower and upper Wilson bound of a rate (Wilson 1927), two-sided; NaN where n is 0.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    z = ndtri((1 + confidence) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = helpful / n
        centre = p + z**2 / (2 * n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        scale = 1 + z**2 / n
        return (centre - half) / scale, (centre + half) / scale


def with_columns(scores: pd.DataFrame, ids: Ids, columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Scores with more columns, given as arrays [G] in the order of `ids`; NaN where unrated."""
    rows = ids.guidelines.get_indexer(pd.Index(scores["guideline_id"]))
    return scores.assign(**{k: np.where(rows >= 0, v[rows], np.nan) for k, v in columns.items()})


def with_unrated(scores: pd.DataFrame, guideline_ids: pd.Series) -> pd.DataFrame:
    """Scores with a row for every guideline; one that nobody rated has n 0 and nothing else."""
    every = pd.DataFrame({"guideline_id": sorted(guideline_ids)}, dtype="str")
    full = every.merge(scores, on="guideline_id", how="left", validate="one_to_one")
    counts = [c for c in full.columns if c.startswith("n_ratings")]
    full[counts] = full[counts].fillna(0).astype("int64")
    return full
