"""Raters: planted oddities are flagged, honest people are not, and few who decide are found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_two_sides import planted

from aggregation import Condition, Ratings, Rule
from aggregation.evidence.raters import activity_share, influence, suspicious
from aggregation.evidence.two_sides import two_sides


def flagged(ratings, rated_at=None):
    flags = suspicious(ratings, two_sides(ratings), rated_at)
    return {name: np.flatnonzero(flags[name]).tolist() for name in flags}


@pytest.mark.parametrize("seed", range(3))
def test_honest_people_are_not_flagged(seed):
    ratings, *_ = planted(seed)
    times = pd.Series(pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(9 * ratings.user, "D"))
    times += pd.to_timedelta(10 * np.arange(len(ratings)), "s")
    assert flagged(ratings, times) == {"straight_liner": [], "clone": [], "burst": []}


def test_who_says_the_same_to_everything_is_flagged():
    ratings, *_ = planted(0, guidelines=40)
    same = np.where(ratings.user == 3, 1.0, ratings.helpful)
    same = np.where(ratings.user == 8, 0.0, same)
    assert flagged(replace(ratings, helpful=same))["straight_liner"] == [3, 8]


def test_clones_are_flagged_both():
    ratings, *_ = planted(2, users=60, guidelines=70, tilt=0.7)
    copy = {g: h for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful) if u == 4}
    helpful = [
        copy.get(g, h) if u == 11 else h
        for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful)
    ]
    assert flagged(replace(ratings, helpful=np.array(helpful)))["clone"] == [4, 11]


def test_many_ratings_within_seconds_are_a_burst():
    ratings, *_ = planted(1)
    days = pd.Series(pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(ratings.user, "D"))
    slow = days + pd.to_timedelta(60 * ratings.guideline, "s")
    fast = days + pd.to_timedelta(ratings.guideline, "s")
    mixed = slow.where(ratings.user != 5, fast)
    assert flagged(ratings, mixed)["burst"] == [5]
    assert flagged(ratings, mixed.where(ratings.user != 5))["burst"] == []  # times unknown


def test_the_share_of_the_most_active():
    n = np.repeat(np.arange(200), np.where(np.arange(200) < 2, 50, 1)).astype(np.int32)
    ratings = Ratings(n, np.arange(len(n), dtype=np.int32), np.ones(len(n)), 200, len(n))
    assert activity_share(ratings) == pytest.approx(100 / 298)


def test_a_user_whose_rating_is_needed_has_influence(small):
    """Without any one of the raters of a guideline that has just enough ratings it has too few."""
    ratings, n = small.ratings, small.ratings.per_guideline()
    least = int(np.median(n))
    condition = Condition("min_ratings", "n_ratings", ">=", least, "undecided", decimals=0)
    found = influence(ratings, small.fit, small.sides, Rule("few", (condition,)))
    for user, changed in found.itertuples(index=False):
        rated = ratings.guideline[ratings.user == user]
        assert changed == (n[rated] == least).sum()
    assert found["verdicts_changed"].max() > 0
