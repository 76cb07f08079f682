"""Sides: who found a guideline helpful, by the side of the users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from aggregation.decisions.scores import rate, tally, wilson
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings

BUCKETS = 15
"""Buckets of the "range of perspectives", as on the platform's page."""

SIDES = {"smaller": -1, "larger": 1}
"""The two sides of the first axis, by the number of their users."""

FEWEST, LEAST_SHARE = 5, 0.05
"""Users of the smaller side, and their share of all, from which a deliberation has two sides."""


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


def side_of_users(user_embedding: np.ndarray) -> np.ndarray:
    """[U]: 1 on the larger side, -1 on the smaller one, 0 on neither.

    A user's side is the sign of the first coordinate of the embedding [U, D]; users at 0 have none.
    Of two sides of one size the positive one is called the larger.
    """
    sign = np.sign(np.asarray(user_embedding)[:, 0]).astype(np.int64)
    return sign if sign.sum() >= 0 else -sign


def sides_found(user_embedding: np.ndarray, division: str) -> dict[str, Any]:
    """How many users stand where (smaller, larger, neither), and whether these are two sides (two).

    They are none where the smaller side has under 5 users or 5 % of them, or the ratings show no
    `division` (that of `evidence.prediction.division`).
    """
    side = side_of_users(user_embedding)
    found = {name: int((side == sign).sum()) for name, sign in (SIDES | {"neither": 0}).items()}
    return found | {"two": enough(found) and division != "none"}


def enough(sides: Mapping[str, int]) -> bool:
    """Whether the smaller side has enough users to be one; `sides`: of `sides_found`."""
    total = sum(sides[name] for name in ("smaller", "larger", "neither"))
    return sides["smaller"] >= max(FEWEST, LEAST_SHARE * total)


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
    """Scores with n_ratings_<side>, helpful_rate_<side> and its 95 % Wilson interval
    helpful_rate_<side>_low and _high of both `SIDES`; gap: the larger side's rate minus the other.

    The numbers are plain counts; the rates are weighted by `Ratings.weight`, NaN without ratings.
    """
    side = side_of_users(parameters.user_embedding)
    rows = ids.guidelines.get_indexer(pd.Index(scores["guideline_id"]))
    counted, _ = tally(replace(ratings, weight=None), side + 1, 3)
    given, helpful = tally(ratings, side + 1, 3)
    columns = {}
    for name, sign in SIDES.items():
        columns[f"n_ratings_{name}"] = counted[rows, sign + 1]
        columns[f"helpful_rate_{name}"] = rate(helpful, given)[rows, sign + 1]
        low, high = wilson(helpful[rows, sign + 1], given[rows, sign + 1])
        columns |= {f"helpful_rate_{name}_low": low, f"helpful_rate_{name}_high": high}
    gap = columns["helpful_rate_larger"] - columns["helpful_rate_smaller"]
    return scores.assign(**columns, gap=gap)
