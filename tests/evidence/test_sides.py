"""Nobody is lost between the sides and the buckets."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import Parameters, Ratings, by_side, encode, perspectives, score
from aggregation.evidence.sides import BUCKETS, SIDES, side_of_users, sides_found


def world(seed, users=12, guidelines=5):
    random = np.random.default_rng(seed)
    rows = [
        (f"u{u:02d}", f"g{g}", float(random.integers(0, 2)))
        for u in range(users)
        for g in range(guidelines)
        if random.random() < 0.7 or g == u % guidelines
    ]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    axis = (
        random.choice([-1.0, 0.0, 1.0], users)
        * random.random(users)
        * 10.0 ** random.integers(-3, 3)
    )
    p = Parameters(
        0.0, np.zeros(users), axis[:, None], np.zeros(guidelines), np.zeros((guidelines, 1))
    )
    return ratings, ids, p


@given(st.integers(0, 2**32 - 1))
def test_buckets_hold_every_rating_once(seed):
    ratings, _, p = world(seed)
    found = perspectives(ratings, p.user_embedding)
    assert found.helpful.shape == (ratings.n_guidelines, BUCKETS) == (5, 15)
    np.testing.assert_allclose(
        (found.helpful + found.not_helpful).sum(axis=1), ratings.per_guideline()
    )
    np.testing.assert_allclose(
        found.helpful.sum(axis=1), np.bincount(ratings.guideline, ratings.helpful)
    )
    assert (np.diff(found.edges) > 0).all()


def test_the_last_bucket_is_closed():
    ratings, _ = encode(
        pd.DataFrame(
            [(f"u{k:03d}", "g", 1.0) for k in range(101)],
            columns=["user_id", "guideline_id", "helpful"],
        )
    )
    axis = np.linspace(0, 1, 101)[:, None]
    found = perspectives(ratings, axis)
    assert found.helpful[0, -1] >= 6  # the highest of the middle 95 %, and those beyond
    assert found.helpful[0].sum() == 101
    alone = perspectives(ratings, np.zeros((101, 1)))
    assert alone.helpful[0, BUCKETS // 2] == 101


@given(st.integers(0, 2**32 - 1))
def test_sides_count_as_a_plain_loop_does(seed):
    ratings, ids, p = world(seed)
    table = by_side(score(ratings, ids, p), ratings, ids, p)
    sign = np.sign(p.user_embedding[:, 0])
    larger = 1 if (sign > 0).sum() >= (sign < 0).sum() else -1
    for k in range(len(table)):
        for name, sign in (("smaller", -1), ("larger", 1)):
            mine = [
                h
                for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful)
                if g == k and np.sign(p.user_embedding[u, 0]) == sign * larger
            ]
            assert table[f"n_ratings_{name}"][k] == len(mine)
            rate = table[f"helpful_rate_{name}"][k]
            assert rate == pytest.approx(np.mean(mine)) if mine else np.isnan(rate)
            low, high = (table[f"helpful_rate_{name}_{end}"][k] for end in ("low", "high"))
            assert low - 1e-12 <= rate <= high + 1e-12 if mine else np.isnan([low, high]).all()
    gap = table["helpful_rate_larger"] - table["helpful_rate_smaller"]
    np.testing.assert_array_equal(table["gap"], gap)


@given(st.integers(0, 2**32 - 1))
def test_a_rating_of_weight_2_is_two_ratings_but_counts_once(seed):
    ratings, ids, p = world(seed)
    times = np.random.default_rng(seed).integers(0, 3, len(ratings))
    twice = Ratings(
        *(np.repeat(x, times) for x in (ratings.user, ratings.guideline, ratings.helpful)),
        ratings.n_users,
        ratings.n_guidelines,
    )
    weighted = replace(ratings, weight=times.astype(float))
    with np.errstate(invalid="raise"):
        one, other = (by_side(score(r, ids, p), r, ids, p) for r in (weighted, twice))
    rates = ["helpful_rate", "consensus_score", *(f"helpful_rate_{name}" for name in SIDES)]
    pd.testing.assert_frame_equal(one[rates], other[rates])
    counts = ["n_ratings", *(f"n_ratings_{name}" for name in SIDES)]
    plain = by_side(score(ratings, ids, p), ratings, ids, p)
    pd.testing.assert_frame_equal(one[counts], plain[counts])
    one, other = (perspectives(r, p.user_embedding) for r in (weighted, twice))
    np.testing.assert_allclose(one.helpful, other.helpful)
    np.testing.assert_allclose(one.not_helpful, other.not_helpful)


def test_the_larger_side_is_that_of_more_users_whatever_its_sign():
    embedding = np.array([[-1.0], [-2.0], [0.0], [3.0]])
    assert side_of_users(embedding).tolist() == [1, 1, 0, -1]
    assert side_of_users(-embedding).tolist() == [1, 1, 0, -1]
    assert side_of_users(np.array([[1.0], [-1.0]])).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("smaller", "larger", "neither", "division", "two"),
    [
        (5, 50, 0, "two sides", True),
        (5, 94, 1, "more", True),
        (4, 50, 0, "two sides", False),  # too few people
        (5, 94, 2, "two sides", False),  # under 5 %
        (0, 50, 10, "two sides", False),
        (25, 25, 0, "none", False),
    ],
)
def test_there_are_two_sides_where_both_have_enough_people(smaller, larger, neither, division, two):
    embedding = np.repeat([-1.0, 1.0, 0.0], [smaller, larger, neither])[:, None]
    counts = {"smaller": smaller, "larger": larger, "neither": neither}
    assert sides_found(embedding, division) == counts | {"two": two}
