"""Opinion groups are found where they are planted, and every rating is counted once."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import Ratings, encode
from aggregation.evidence.groups import by_group, group_counts, opinion_groups


def planted(sizes, guidelines=30, seed=0):
    """Groups that each like another part of the guidelines."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    liked = np.arange(guidelines) % len(sizes) == group[:, None]
    helpful = random.random(liked.shape) < np.where(liked, 0.9, 0.1)
    user, guideline = np.nonzero(random.random(liked.shape) < 0.8)
    rows = (user.astype(np.int32), guideline.astype(np.int32), helpful[user, guideline] * 1.0)
    return Ratings(*rows, len(group), guidelines), group


def test_planted_groups_are_found_the_largest_first():
    ratings, group = planted((30, 50, 20))
    found = opinion_groups(ratings)
    assert found.sizes == (50, 30, 20)
    assert found.silhouette > 0.5
    for k, planted_as in enumerate((1, 0, 2)):
        assert (found.member[group == planted_as] == k).all()


def test_users_with_few_ratings_are_in_no_group():
    ratings, _ = planted((30, 30))
    few = (ratings.user == 7) & (ratings.guideline >= 3)
    rest = (x[~few] for x in (ratings.user, ratings.guideline, ratings.helpful))
    found = opinion_groups(Ratings(*rest, ratings.n_users, ratings.n_guidelines))
    assert found.member[7] == -1
    assert sum(found.sizes) == ratings.n_users - 1


def test_too_few_users_have_no_groups():
    ratings, _ = planted((4, 4))
    found = opinion_groups(ratings)
    assert found.sizes == ()
    assert (found.member == -1).all()


def test_groups_are_the_same_every_time():
    ratings, _ = planted((40, 25, 35), seed=3)
    one, other = opinion_groups(ratings), opinion_groups(ratings)
    assert one.silhouette == other.silhouette
    np.testing.assert_array_equal(one.member, other.member)


@given(st.lists(st.integers(-1, 2), min_size=6, max_size=6))
def test_every_rating_of_a_member_is_counted_once(member):
    ratings, _ = planted((3, 3), guidelines=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aggregation.decisions.scores.CHUNK", 5)  # ratings counted at a time
        n, helpful = group_counts(ratings, np.array(member))
    for k in range(len(n)):
        for g in range(4):
            of = (np.array(member)[ratings.user] == k) & (ratings.guideline == g)
            assert (n[k, g], helpful[k, g]) == (of.sum(), ratings.helpful[of].sum())
    assert n.sum() == (np.array(member)[ratings.user] >= 0).sum()


def test_the_scores_say_what_each_group_said():
    rows = [("a", "x", 1.0), ("b", "x", 0.0), ("c", "x", 1.0), ("a", "y", 0.0)]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    scores = pd.DataFrame({"guideline_id": ["y", "x"]})
    found = by_group(scores, ratings, ids, np.array([0, 0, 1]))
    assert found["n_ratings_group_1"].tolist() == [1, 2]
    assert found["helpful_rate_group_1"].tolist() == [0.0, 0.5]
    assert found["n_ratings_group_2"].tolist() == [0, 1]
    assert np.isnan(found["helpful_rate_group_2"][0])
    assert found["helpful_rate_group_2"][1] == 1.0
    low, high = found["helpful_rate_group_1_low"][1], found["helpful_rate_group_1_high"][1]
    assert 0 < low < 0.5 < high < 1


def test_single_people_are_no_group():
    ratings, _ = planted((40, 30, 1))
    found = opinion_groups(ratings)
    assert min(found.sizes) >= 5
    assert len(found.sizes) == 2
    alone, _ = planted((30, 1))
    assert all(n >= 5 for n in opinion_groups(alone).sizes)
