"""Raters: planted oddities are flagged, honest people are not, and few who decide are found."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_two_sides import planted

from aggregation import ALIGNED_2023, Condition, InputError, Ratings, Rule, select
from aggregation.evidence.raters import (
    activity_share,
    decided_without,
    influence,
    suspicious,
    without_flagged,
)
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


def test_clones_are_flagged_both_unless_there_are_too_many_users(monkeypatch):
    ratings, *_ = planted(2, users=60, guidelines=70, tilt=0.7)
    copy = {g: h for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful) if u == 4}
    helpful = [
        copy.get(g, h) if u == 11 else h
        for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful)
    ]
    copied = replace(ratings, helpful=np.array(helpful))
    assert flagged(copied)["clone"] == [4, 11]
    monkeypatch.setattr("aggregation.evidence.raters.MOST_USERS", 59)
    assert flagged(copied)["clone"] == []


@pytest.mark.parametrize("chunk", [3, 100, 10**6])  # ratings that are sorted at a time
def test_many_ratings_within_seconds_are_a_burst(monkeypatch, chunk):
    monkeypatch.setattr("aggregation.model.ratings.CHUNK", chunk)
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


def test_dropping_flagged_users_drops_their_ratings_and_counts_them(small):
    many = small.dataset.ratings["guideline_id"].unique()[:40]
    liner = pd.DataFrame(
        {"user_id": "zz", "guideline_id": many, "helpful": 0.0, "rated_at": pd.NaT}
    )
    ratings = pd.concat([small.dataset.ratings, liner], ignore_index=True)
    counts = [
        replace(c, n=c.n + 40)
        if (c.table, c.action) in {("ratings", "kept"), ("ratings", "read")}
        else c
        for c in small.dataset.counts
    ]
    with_liner = replace(small.dataset, ratings=ratings, counts=tuple(counts))
    kept = without_flagged(with_liner)
    assert "zz" not in set(kept.ratings["user_id"])
    told = {(c.action, c.reason): c.n for c in kept.counts if c.table == "ratings"}
    assert told["dropped", "the user is flagged: straight liner"] == 40
    fates = {
        action: sum(c.n for c in kept.counts if (c.table, c.action) == ("ratings", action))
        for action in ("read", "added", "dropped", "merged", "kept")
    }
    assert fates["kept"] == len(kept.ratings)
    assert fates["read"] + fates["added"] - fates["dropped"] - fates["merged"] == fates["kept"]


def test_where_everybody_is_flagged_it_says_so(small):
    alike = small.dataset.ratings.groupby("user_id").head(20).assign(helpful=1.0)
    alike = alike[alike.groupby("user_id")["helpful"].transform("size") == 20]
    mixed = pd.concat(
        [alike.assign(user_id=alike["user_id"].astype(str) + "b", helpful=0.0), alike]
    )
    mixed = mixed.sort_values(["user_id", "guideline_id"], ignore_index=True)
    with pytest.raises(InputError, match=r"every user is flagged.*ratings\.flagged: keep"):
        without_flagged(replace(small.dataset, ratings=mixed))


def test_without_flagged_users_the_rule_decides_as_if_they_had_not_come(small):
    rule = Rule("liked", (Condition("min_helpful_rate", "helpful_rate", ">=", 0.8),))
    flags = pd.DataFrame({"burst": np.arange(small.ratings.n_users) % 3 == 0})
    before = select(small.scores, rule)
    given = (flags, small.ratings, small.ids, small.fit, small.sides)
    found = decided_without(*given, before)
    kept = small.ratings.user % 3 != 0
    by = pd.Series(small.ratings.helpful[kept]).groupby(small.ratings.guideline[kept]).mean()
    expected = set(small.ids.guidelines[by.index[by >= 0.8]])
    assert set(found.accepted["guideline_id"]) == expected != set(before.accepted["guideline_id"])
    again = decided_without(*given, select(small.scores, ALIGNED_2023))
    assert (again.scores["intercept"] - small.scores["intercept"]).abs().max() > 1e-3
