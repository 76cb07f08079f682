"""Raters: how much hangs on few of them, and who rates in ways that people rarely do.

Nobody is removed for it. Rows say which users are flagged: they are for the analyst alone, and only
counts of them may be published.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from aggregation.data.dataset import Count, Dataset
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.rules import Rule
from aggregation.decisions.scores import with_columns
from aggregation.errors import InputError
from aggregation.evidence.bootstrap import levels, rule_columns
from aggregation.evidence.two_sides import TwoSides, two_sides
from aggregation.evidence.yardsticks import MOST_USERS
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids, Ratings, counts, encode

MOST_ACTIVE = 40
"""Users whose influence is measured, the most active ones: each is a refit."""

STRAIGHT, STRAIGHT_CHANCE = 15, 1e-4
"""Ratings that are all the same, and the chance of that below which it is flagged."""

SHARED, CLONE_CHANCE = 10, 1e-6
"""Guidelines that two users rated alike, and its chance."""

BURST, BURST_SECONDS = 15, 30
"""Ratings within so many seconds: two seconds to read each."""


def activity_share(ratings: Ratings, share: float = 0.01) -> float:
    """Share of the ratings that come from the most active `share` of the users, one at least."""
    n = np.sort(ratings.per_user())[::-1]
    return float(n[: max(int(len(n) * share), 1)].sum() / n.sum())


def influence(ratings: Ratings, fit: Fit, sides: TwoSides, rule: Rule) -> pd.DataFrame:
    """What would change without one user, for the most active ones.

    Columns: user (row), verdicts_changed. The fit without a user starts from `fit`.
    """
    chosen = np.argsort(-ratings.per_user(), kind="stable")[:MOST_ACTIVE]
    of_users = np.ones((ratings.n_users, len(chosen)))
    of_users[chosen, np.arange(len(chosen))] = 0.0
    weights = of_users[ratings.user]
    if ratings.weight is not None:
        weights *= ratings.weight[:, None]

    def decided(weight: np.ndarray | None, level: np.ndarray) -> np.ndarray:
        columns = rule_columns(replace(ratings, weight=weight), level, [rule], sides)
        return rule.verdicts(columns)

    before = decided(ratings.weight, fit.parameters.guideline_intercept)
    level = levels(ratings, weights, fit.parameters, fit.penalty, rule)
    changed = [(decided(*one) != before).sum() for one in zip(weights.T, level.T, strict=True)]
    return pd.DataFrame({"user": chosen, "verdicts_changed": changed})


def suspicious(
    ratings: Ratings, sides: TwoSides, rated_at: pd.Series | None = None
) -> pd.DataFrame:
    """Users (rows) who rate in ways that people rarely do; bool columns, one row per user.

    straight_liner: all ratings the same, which the guidelines' own rates make unlikely. clone: the
    same ratings as another user on every guideline that both rated, more than their sides explain.
    burst: many ratings within seconds; `rated_at` [n] are the times, missing ones in no burst.
    """
    liked = counts(ratings.guideline, ratings.n_guidelines, ratings.helpful)
    mean = np.clip(liked / np.maximum(ratings.per_guideline(), 1), 0.01, 0.99)
    flags = pd.DataFrame({"straight_liner": np.zeros(ratings.n_users, bool)})
    n = ratings.per_user()
    for value, chance in ((1.0, mean), (0.0, 1 - mean)):
        same = counts(ratings.user, ratings.n_users, ratings.helpful == value) == n
        log = counts(ratings.user, ratings.n_users, np.log(chance)[ratings.guideline])
        flags["straight_liner"] |= same & (n >= STRAIGHT) & (log < np.log(STRAIGHT_CHANCE))
    flags["clone"] = _clones(ratings, sides)
    flags["burst"] = False if rated_at is None else _bursts(ratings, rated_at)
    return flags


def without_flagged(dataset: Dataset) -> Dataset:
    """The dataset without the ratings of users that `suspicious` flags; counted by reason.

    Raises InputError where nobody would be left.
    """
    ratings, _ = encode(dataset.ratings)  # its rows are those of the table
    flags = suspicious(ratings, two_sides(ratings), dataset.ratings["rated_at"])
    first = flags.idxmax(axis=1).where(flags.any(axis=1), "")  # one reason for each user
    of_rating = first.to_numpy()[ratings.user]
    gone = pd.Series(of_rating[of_rating != ""]).value_counts(sort=False)
    if gone.sum() == len(ratings):
        raise InputError("every user is flagged: keep them with ratings.flagged: keep")
    dropped = [
        Count("ratings", "dropped", f"the user is flagged: {str(name).replace('_', ' ')}", int(n))
        for name, n in gone.items()
    ]
    counts = [
        replace(c, n=c.n - int(gone.sum())) if (c.table, c.action) == ("ratings", "kept") else c
        for c in dataset.counts
    ]
    kept = dataset.ratings[of_rating == ""].reset_index(drop=True)
    return replace(dataset, ratings=kept, counts=(*dropped, *counts))


def decided_without(
    flags: pd.DataFrame, ratings: Ratings, ids: Ids, fit: Fit, sides: TwoSides, before: Constitution
) -> Constitution:
    """What the rule decides where flagged users (rows of `flags`) do not count."""
    counts = ~flags.any(axis=1).to_numpy()[ratings.user]
    weight = counts * (1.0 if ratings.weight is None else ratings.weight)
    level = levels(ratings, weight[:, None], fit.parameters, fit.penalty, before.rule)[:, 0]
    columns = rule_columns(replace(ratings, weight=weight), level, [before.rule], sides)
    scores = before.scores.drop(columns=["verdict", "failed"])
    return select(with_columns(scores, ids, columns), before.rule)


def _bursts(ratings: Ratings, rated_at: pd.Series) -> np.ndarray:
    """Bool [U]: who gave `BURST` ratings within `BURST_SECONDS`."""
    at = pd.to_datetime(rated_at, utc=True).dt.tz_localize(None).to_numpy("datetime64[ms]")
    found = np.zeros(ratings.n_users, bool)
    for _, part in ratings.parts():
        order = np.lexsort((at[part], ratings.user[part]))
        who, when = ratings.user[part][order], at[part][order]
        soon = when[BURST - 1 :] - when[: 1 - BURST] <= np.timedelta64(BURST_SECONDS, "s")
        soon &= who[BURST - 1 :] == who[: 1 - BURST]
        found[who[BURST - 1 :][soon]] = True
    return found


def _clones(ratings: Ratings, sides: TwoSides) -> np.ndarray:
    """Bool [U]: who has a clone."""
    found = np.zeros(ratings.n_users, bool)
    if ratings.n_users > MOST_USERS:
        return found
    shape = (ratings.n_users, ratings.n_guidelines)
    given, liked = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    given[ratings.user, ratings.guideline] = 1
    liked[ratings.user, ratings.guideline] = ratings.helpful
    every = np.indices(shape)
    p = np.clip(sides.predict(every[0].ravel(), every[1].ravel()), 0.02, 0.98).reshape(shape)
    shared, apart = given @ given.T, liked @ (given - liked).T
    pairs = np.argwhere(np.triu((shared >= SHARED) & (apart + apart.T == 0), 1))
    for u, v in pairs:
        both = (given[u] > 0) & (given[v] > 0)
        alike = p[u, both] * p[v, both] + (1 - p[u, both]) * (1 - p[v, both])
        if np.log(alike).sum() < np.log(CLONE_CHANCE):
            found[[u, v]] = True
    return found
