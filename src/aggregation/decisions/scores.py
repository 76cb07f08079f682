"""Scores: one row of numbers for each guideline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings


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


def with_unrated(scores: pd.DataFrame, guideline_ids: pd.Series) -> pd.DataFrame:
    """Scores with a row for every guideline; one that nobody rated has n 0 and nothing else."""
    every = pd.DataFrame({"guideline_id": sorted(guideline_ids)}, dtype="str")
    full = every.merge(scores, on="guideline_id", how="left", validate="one_to_one")
    counts = [c for c in full.columns if c.startswith("n_ratings")]
    full[counts] = full[counts].fillna(0).astype("int64")
    return full
