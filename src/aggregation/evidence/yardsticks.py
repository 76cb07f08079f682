"""Yardsticks: other measures of agreement, side by side with the constitution."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.scores import wilson, with_columns
from aggregation.evidence.groups import group_counts
from aggregation.model.ratings import Ids, Ratings, counts

MOST_USERS = 5000
"""With more users, pairs of them are too many: what compares pairs is left out."""


def pairwise_bridging(ratings: Ratings) -> np.ndarray:
    """[G]: of the pairs of raters of a guideline, each weighted by how often the two disagree on
    the other guidelines that both rated, the share in which both found it helpful.

        sum_{u<v} d_uv r_u r_v / sum_{u<v} d_uv,  d_uv = disagreements / shared guidelines

    NaN where no two of its raters share another guideline, or there are more than `MOST_USERS`.
    """
    out = np.full(ratings.n_guidelines, np.nan)
    if ratings.n_users > MOST_USERS:
        return out
    given = np.zeros((ratings.n_users, ratings.n_guidelines), np.float32)
    liked = np.zeros_like(given)
    given[ratings.user, ratings.guideline] = 1
    liked[ratings.user, ratings.guideline] = ratings.helpful
    disliked = given - liked
    shared, apart = given @ given.T, liked @ disliked.T
    apart = apart + apart.T
    for g in range(ratings.n_guidelines):
        who = np.flatnonzero(given[:, g])
        r = liked[who, g].astype(np.float64)
        pairs = np.ix_(who, who)
        here = np.outer(r, 1 - r)
        n = shared[pairs].astype(np.float64) - 1
        d = np.divide(apart[pairs] - here - here.T, n, out=np.zeros_like(n), where=n > 0)
        np.fill_diagonal(d, 0)
        total = d.sum()
        out[g] = (r @ d @ r) / total if total > 1e-9 else np.nan
    return out


YARDSTICKS = (
    *("helpful_rate", "wilson_lower", "group_informed_consensus", "lowest_group_rate"),
    *("pairwise_bridging", "community_notes_intercept"),
)
"""Columns by which guidelines can be ranked, the last one only at full depth."""


def with_yardsticks(
    scores: pd.DataFrame, ratings: Ratings, ids: Ids, member: np.ndarray
) -> pd.DataFrame:
    """Scores with wilson_lower, group_informed_consensus, lowest_group_rate, pairwise_bridging.

    `member` [U]: the opinion group of each user. Group rates are (helpful + 1) / (n + 2); without
    groups they are NaN.
    """
    n, helpful = group_counts(ratings, member)
    shrunken = (helpful + 1) / (n + 2) if len(n) else np.full((1, ratings.n_guidelines), np.nan)
    liked = counts(ratings.guideline, ratings.n_guidelines, ratings.helpful)
    columns = {
        "wilson_lower": wilson(liked, ratings.per_guideline())[0],
        "group_informed_consensus": shrunken.prod(axis=0),
        "lowest_group_rate": shrunken.min(axis=0),
        "pairwise_bridging": pairwise_bridging(ratings),
    }
    return with_columns(scores, ids, columns)


def overlap(constitution: Constitution) -> pd.DataFrame:
    """What bridging changed: as many guidelines as are accepted, those highest by each of
    `YARDSTICKS` that is known, against the accepted ones.

    Columns: yardstick, same (in both sets), gained (ids that only the rule accepts), lost (ids that
    only the yardstick takes).
    """
    accepted, rows = set(constitution.accepted["guideline_id"]), []
    scores = constitution.scores
    for name in (name for name in YARDSTICKS if name in scores and scores[name].notna().any()):
        ranked = scores.sort_values([name, "guideline_id"], ascending=[False, True])
        top = set(ranked["guideline_id"].head(len(accepted)))
        rows.append((name, len(top & accepted), sorted(accepted - top), sorted(top - accepted)))
    return pd.DataFrame(rows, columns=["yardstick", "same", "gained", "lost"])
