"""Nobody is lost between the sides and the buckets."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import Parameters, Ratings, by_side, encode, perspectives, score
from aggregation.evidence.sides import BUCKETS, SIDES


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
    for k in range(len(table)):
        for name, sign in (("negative", -1), ("positive", 1)):
            mine = [
                h
                for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful)
                if g == k and np.sign(p.user_embedding[u, 0]) == sign
            ]
            assert table[f"n_ratings_{name}"][k] == len(mine)
            rate = table[f"helpful_rate_{name}"][k]
            assert rate == pytest.approx(np.mean(mine)) if mine else np.isnan(rate)


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
