"""Groups: opinion groups of users, found as Polis finds them, and what each said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from aggregation.decisions.scores import rate, tally, wilson, with_columns
from aggregation.model.ratings import Ids, Ratings, counts

SIZES = (2, 3, 4, 5)
"""Numbers of groups that are tried; the best silhouette decides."""

LEAST_RATINGS = 7
"""A user with fewer ratings (or than the median, if that is lower) is in no group."""

LEAST_MEMBERS = 5
"""A number of groups with a smaller one is not taken: that would be single people, not a group."""

SILHOUETTE_SAMPLE = 1000
"""Users on whom a silhouette is computed at most: it compares all pairs."""


@dataclass(frozen=True)
class Groups:
    """Who is in which group."""

    member: np.ndarray
    """int [U]: group from 0, the largest first; -1: too few ratings."""
    sizes: tuple[int, ...]
    """Members of each group."""
    silhouette: float
    """From -1 to 1: how well the groups are parted. Below about 0.25 there are hardly any."""


def opinion_groups(ratings: Ratings, seed: int = 0) -> Groups:
    """Groups by k-means on the first two principal components, k from `SIZES` by silhouette.

    A missing rating counts as the guideline's mean. Places are scaled by sqrt(G / n_u), so that
    users with few ratings are not drawn to the middle (Small et al. 2021, "Polis: Scaling
    deliberation by mapping high dimensional opinion spaces"). Users without a group have -1, and so
    has everybody where no number of groups has `LEAST_MEMBERS` in each.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    n_u, n_g = ratings.per_user(), np.maximum(ratings.per_guideline(), 1)
    least = min(LEAST_RATINGS, float(np.median(n_u)))
    active = np.flatnonzero(n_u >= least)
    mean = counts(ratings.guideline, ratings.n_guidelines, ratings.helpful) / n_g
    matrix = ratings.matrix(ratings.helpful - mean[ratings.guideline])[active]
    member = np.full(ratings.n_users, -1)
    if len(active) < 2 * max(SIZES) or ratings.n_guidelines < 3 or not matrix.count_nonzero():
        return Groups(member, (), 0.0)
    with threadpool_limits(1):  # the same bits on any number of threads
        places = TruncatedSVD(2, random_state=seed).fit_transform(matrix)
        places *= np.sqrt(ratings.n_guidelines / n_u[active])[:, None]
        best, found = -2.0, None
        n_places = len(np.unique(places.round(9), axis=0))
        for k in (k for k in SIZES if k <= n_places):
            means = KMeans(k, n_init=10, random_state=seed)  # type: ignore[arg-type]  # stubs
            labels = means.fit_predict(places)
            if np.bincount(labels, minlength=k).min() < LEAST_MEMBERS:
                continue
            size = min(SILHOUETTE_SAMPLE, len(active))
            score = silhouette_score(places, labels, sample_size=size, random_state=seed)
            if score > best + 1e-9:
                best, found = float(score), labels
    if found is None:
        return Groups(member, (), 0.0)
    order = np.argsort(-np.bincount(found), kind="stable")
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    member[active] = rank[found]
    sizes = np.bincount(member[active])
    return Groups(member, tuple(int(n) for n in sizes), best)


def group_counts(ratings: Ratings, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of ratings and of helpful ones by group, [K, G] each; `member` [U], -1 in no group."""
    n_groups = int(member.max(initial=-1)) + 1
    n, helpful = tally(replace(ratings, weight=None), member + 1, n_groups + 1)
    return n.T[1:], helpful.T[1:]


def by_group(scores: pd.DataFrame, ratings: Ratings, ids: Ids, member: np.ndarray) -> pd.DataFrame:
    """Scores with n_ratings_group_<k> and helpful_rate_group_<k> (NaN without any), and the 95 %
    Wilson bounds of that, helpful_rate_group_<k>_low and _high; k from 1.
    """
    n, helpful = group_counts(ratings, member)
    columns = {f"n_ratings_group_{k}": given for k, given in enumerate(n, start=1)}
    rates = enumerate(rate(helpful, n), start=1)
    columns |= {f"helpful_rate_group_{k}": share for k, share in rates}
    for name, bounds in zip(("low", "high"), wilson(helpful, n), strict=True):
        columns |= {f"helpful_rate_group_{k}_{name}": of for k, of in enumerate(bounds, start=1)}
    return with_columns(scores, ids, columns)
