"""Two sides: the posterior is that of its formula, and planted worlds are told apart."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy.stats import beta as beta_law
from threadpoolctl import threadpool_limits

from aggregation import ROBUST, Ratings, encode, score, select, simulate
from aggregation.data.choices import Choices
from aggregation.data.dataset import HELPFUL
from aggregation.evidence import two_sides as module
from aggregation.evidence.two_sides import TwoSides, by_axis, two_sides, with_two_sides
from aggregation.model.parameters import Parameters
from aggregation.sources.platform_export import read_export


def sides(n, helpful, pooling=0.0):
    """One axis; n and helpful are [2, G]."""
    n, helpful = np.array(n, float)[None], np.array(helpful, float)[None]
    g = n.shape[2]
    ones = np.ones(1)
    axes = (0.0, np.zeros(1), np.zeros(g), np.zeros((1, g)), np.zeros((1, 1)))
    return TwoSides(n, helpful, np.array([pooling]), ones, ones, *axes)


def test_the_probability_is_the_integral_of_both_posteriors():
    found = sides([[12, 30], [9, 4]], [[11, 20], [7, 4]]).probability()
    rates = (np.arange(1000) + 0.5) / 1000
    left, right = rates[:, None], rates[None]
    good = (left >= 0.65) & (right >= 0.65) & (left + right >= 1.4)
    for g, (a, b) in enumerate((((12, 2), (8, 3)), ((21, 11), (5, 1)))):
        density = beta_law.pdf(left, *a) * beta_law.pdf(right, *b)
        assert found[g] == pytest.approx((good * density).sum() / 1e6, abs=5e-3)


def test_each_side_borrows_from_both_as_much_as_the_pooling_says():
    a, b = sides([[10], [20]], [[9], [10]], pooling=4).posterior()
    m = 19.5 / 31
    assert a[0, :, 0] == pytest.approx([10 + 4 * m, 11 + 4 * m])
    assert b[0, :, 0] == pytest.approx([2 + 4 * (1 - m), 11 + 4 * (1 - m)])


def test_the_lowest_axis_decides():
    one, other = sides([[40], [40]], [[39], [38]]), sides([[40], [40]], [[39], [5]])
    both = replace(
        one,
        n=np.concatenate([one.n, other.n]),
        helpful=np.concatenate([one.helpful, other.helpful]),
        pooling=np.zeros(2),
    )
    assert both.probability() == pytest.approx(other.probability())
    assert one.probability() > 0.99 > 0.01 > other.probability()


def test_raters_are_scaled_to_what_a_small_deliberation_can_have():
    assert sides([[30, 5], [20, 4]], [[0, 0], [0, 0]]).relative_raters() == pytest.approx([50, 9])
    small = sides([[10, 2], [8, 3]], [[0, 0], [0, 0]])  # half of 18 is enough here
    assert small.relative_raters() == pytest.approx([36, 10])
    assert small.smaller_side() == pytest.approx([8, 2])


def planted(seed=0, users=80, guidelines=24, slope=1.0, tilt=2.0):
    """Half of the users like what the others do not; all like the last eight guidelines."""
    random = np.random.default_rng(seed)
    side = np.where(np.arange(users) % 2 == 0, 1.0, -1.0)
    lean = np.where(np.arange(guidelines) % 2 == 0, slope, -slope)
    lean[-8:] = 0.0
    odds = tilt * side[:, None] * lean + np.where(lean == 0, 2.5, 0.0)
    rated = random.random((users, guidelines)) < 0.8
    user, guideline = np.nonzero(rated)
    helpful = random.random(len(user)) < 1 / (1 + np.exp(-odds[user, guideline]))
    rows = (user.astype(np.int32), guideline.astype(np.int32), helpful.astype(float))
    return Ratings(*rows, users, guidelines), side, lean


def test_the_axis_finds_the_planted_sides_and_parts_shared_from_divisive():
    ratings, side, lean = planted()
    found = two_sides(ratings)
    agree = (np.sign(found.user_axis[0]) == side).mean()
    assert max(agree, 1 - agree) > 0.95
    assert found.beta[0] > 0.8
    p = found.probability()
    assert p[lean == 0].min() > 0.8
    assert p[lean != 0].max() < 0.05


def test_noise_has_no_sides():
    ratings, _, _ = planted(slope=0.0)
    found = two_sides(ratings)
    np.testing.assert_allclose(found.n[:, 0] / found.n.sum(axis=1), 0.5, atol=0.05)
    assert found.pooling.min() > 10


@given(st.integers(0, 3))
def test_a_rating_of_weight_0_is_no_rating(seed):
    ratings, _, _ = planted(seed, users=30, guidelines=12)
    gone = np.random.default_rng(seed).random(len(ratings)) < 0.2
    rest = Ratings(*(x[~gone] for x in (ratings.user, ratings.guideline, ratings.helpful)), 30, 12)
    weighted = two_sides(replace(ratings, weight=np.where(gone, 0.0, 1.0)))
    without = two_sides(rest)
    np.testing.assert_allclose(weighted.n, without.n, atol=1e-9)
    np.testing.assert_allclose(weighted.probability(), without.probability(), atol=1e-9)


def test_the_bits_do_not_depend_on_the_threads_of_blas():
    ratings, *_ = planted(3, users=3000, guidelines=60)
    ratings = replace(ratings, helpful=np.random.default_rng(0).integers(0, 4, len(ratings)) / 3)
    here = two_sides(ratings)
    with threadpool_limits(1):
        there = two_sides(ratings)
    assert here.mean == there.mean
    np.testing.assert_array_equal(here.n, there.n)


def test_the_order_of_users_changes_nothing():
    ratings, _, _ = planted(1)
    turn = np.random.default_rng(2).permutation(ratings.n_users)
    user = turn[ratings.user].astype(np.int32)
    order = np.lexsort((ratings.guideline, user))
    rows = (user[order], ratings.guideline[order], ratings.helpful[order])
    turned = two_sides(Ratings(*rows, ratings.n_users, ratings.n_guidelines))
    np.testing.assert_allclose(turned.probability(), two_sides(ratings).probability(), atol=1e-6)


def test_a_rater_counts_by_the_other_ratings_of_the_account():
    ratings, _, _ = planted(users=40, guidelines=24)
    n = two_sides(ratings).raters()
    accounts = np.bincount(ratings.user, minlength=40)
    by_hand = np.bincount(ratings.guideline, np.minimum((accounts[ratings.user] - 1) / 20, 1), 24)
    np.testing.assert_allclose(n, by_hand)


def test_whose_side_a_rating_counts_for_follows_from_the_others_of_that_user():
    """Another rating of the guideline itself moves nobody who gave it to the other side."""
    ratings, _, lean = planted(3)
    g = int(np.flatnonzero(lean != 0)[0])
    of_g = ratings.guideline == g
    turned = replace(ratings, helpful=np.where(of_g, 1.0, ratings.helpful))
    before, after = two_sides(ratings), two_sides(turned)
    # everybody finds it helpful now: nobody is moved to the side that always did
    np.testing.assert_allclose(after.n[0, :, g], before.n[0, :, g], rtol=0.05)
    assert after.helpful[0, :, g] == pytest.approx(after.n[0, :, g])


def verdicts(ratings, ids):
    p = Parameters(0.0, *(np.zeros(s) for s in _shapes(ratings)))
    scores = with_two_sides(score(ratings, ids, p), two_sides(ratings), ids)
    return select(scores, ROBUST).scores.set_index("guideline_id")["verdict"]


def _shapes(ratings):
    return ratings.n_users, (ratings.n_users, 1), ratings.n_guidelines, (ratings.n_guidelines, 1)


@pytest.fixture(scope="module")
def world():
    made = simulate(1000)
    table = read_export(made.export, Choices(HELPFUL), "simulated").ratings
    return table, made.guidelines.set_index("guideline_id")["kind"]


def test_the_rule_accepts_what_was_planted_as_shared_and_nothing_divisive(world):
    table, kind = world
    verdict = verdicts(*encode(table))
    accepted = verdict.index[verdict == "accepted"]
    rejected = verdict.index[verdict == "rejected"]
    assert (kind[accepted] == "shared").all()
    assert (kind[accepted] == "shared").sum() >= 0.8 * (kind == "shared").sum()
    assert not (kind[rejected] == "shared").any()


def test_five_new_accounts_promote_no_new_guideline(world):
    table, _ = world
    liked = table.groupby("guideline_id")["helpful"].mean().nlargest(4).index
    rows = [(f"x{k}", g, 1.0) for k in range(5) for g in ("new", *liked)]
    attack = pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])
    verdict = verdicts(*encode(pd.concat([table, attack])))
    assert verdict["new"] == "undecided"


def test_unrated_guidelines_have_no_numbers(world):
    ratings, ids = encode(world[0])
    scores = pd.DataFrame({"guideline_id": [ids.guidelines[0], "nobody rated"]})
    found = with_two_sides(scores, two_sides(ratings), ids)
    assert found.loc[1].drop("guideline_id").isna().all()
    assert found.loc[0].notna().all()


def test_junk_does_not_make_the_sides_borrow_more_from_each_other():
    ratings, *_ = planted(6, users=200, guidelines=40)
    random = np.random.default_rng(0)
    n = 20 * 60
    user = np.concatenate([random.choice(200, 60, replace=False) for _ in range(20)])
    rows = [
        np.append(x, y)
        for x, y in (
            (ratings.user, user),
            (ratings.guideline, np.repeat(np.arange(40, 60), 60)),
            (ratings.helpful, random.integers(0, 2, n)),
        )
    ]
    order = np.lexsort(rows[1::-1])
    u, g, y = (x[order] for x in rows)
    more = Ratings(u.astype(np.int32), g.astype(np.int32), y.astype(float), 200, 60)
    before, after = (two_sides(r).pooling[0] for r in (ratings, more))
    assert after == pytest.approx(before, rel=0.15)


def test_each_side_of_each_axis_has_its_rate_and_interval(small):
    found = by_axis(small.scores, small.sides, small.ids)
    a, b = small.sides.posterior()
    law = beta_law(a[1, 0], b[1, 0])
    np.testing.assert_allclose(found["rate_axis_2_left"], law.mean())
    np.testing.assert_allclose(found["rate_axis_2_left_low"], law.ppf(0.05))
    np.testing.assert_allclose(found["rate_axis_2_left_high"], law.ppf(0.95))
    np.testing.assert_allclose(
        found["raters_axis_1_left"] + found["raters_axis_1_right"], small.sides.raters()
    )
    rates = [c for c in found if c.startswith("rate_axis") and c.endswith(("left", "right"))]
    assert len(rates) == 4
    np.testing.assert_array_equal(found["lowest_side_rate"], found[rates].min(axis=1))


def test_of_many_ratings_the_axes_are_sought_near_those_of_a_sample(world, monkeypatch):
    ratings = encode(world[0])[0]
    every = two_sides(ratings)
    monkeypatch.setattr(module, "SAMPLE", len(ratings) // 4)
    found = two_sides(ratings)
    assert not np.array_equal(found.guideline_axis, every.guideline_axis)
    together = np.corrcoef(found.guideline_axis[0], every.guideline_axis[0])[0, 1]
    assert abs(together) > 0.999
    np.testing.assert_allclose(found.probability(), every.probability(), atol=0.02)
