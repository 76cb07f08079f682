"""The fit reaches the optimum, says whether it did, and gives the same bits every time."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from deliberations import at_most, dense, lowest_nearby, one_descent, simulated_table

from aggregation import (
    ALIGNED,
    COMMUNITY_NOTES,
    InputError,
    Parameters,
    Penalty,
    Ratings,
    Settings,
    encode,
    fit,
    loss,
    predict,
)


@pytest.mark.parametrize(
    ("dimensions", "penalty"),
    [(1, ALIGNED), (2, Penalty(0.1, 0.02, "l1", "parameter"))],
)
def test_converged_means_that_no_coordinate_can_lower_the_loss(world, dimensions, penalty):
    ratings, _ = world
    found = fit(ratings, penalty, one_descent(dimensions=dimensions))
    assert found.converged
    assert found.balance < 1e-4
    base = found.objective
    assert float(loss(found.parameters, ratings, penalty)) == pytest.approx(base, rel=1e-12)
    assert lowest_nearby(found.parameters, ratings, penalty) >= base - 1e-10


def test_residual_is_the_subgradient_distance_of_an_independent_computation(world):
    ratings, _ = world
    found = fit(ratings, settings=one_descent(tolerance=1e-3))
    p, li, lf = found.parameters, 0.15, 0.03
    user, guideline, y = ratings.user, ratings.guideline, ratings.helpful
    f, h = p.user_embedding[:, 0], p.guideline_embedding[:, 0]
    error = y - (
        p.mu + p.user_intercept[user] + p.guideline_intercept[guideline] + f[user] * h[guideline]
    )

    def worst(row, intercept, embedding, other):
        n = np.bincount(row)
        slope_i = 2 * (li * intercept - np.bincount(row, error) / n)
        slope_f = -2 * np.bincount(row, error * other) / n
        away = np.where(
            embedding != 0,
            np.abs(slope_f + lf * np.sign(embedding)),
            np.maximum(np.abs(slope_f) - lf, 0),
        )
        return max(np.abs(slope_i).max(), away.max())

    expected = max(
        worst(user, p.user_intercept, f, h[guideline]),
        worst(guideline, p.guideline_intercept, h, f[user]),
        abs(2 * (li * p.mu - error.mean())),
    )
    assert found.kkt_residual == pytest.approx(expected, rel=1e-6)


def test_both_sides_carry_the_same_penalty(world, single):
    ratings, _ = world
    p = single.parameters
    users = (ratings.per_user() * np.abs(p.user_embedding[:, 0])).sum()
    guidelines = (ratings.per_guideline() * np.abs(p.guideline_embedding[:, 0])).sum()
    assert users == pytest.approx(guidelines, rel=1e-4)


def bits(found):
    arrays = (np.asarray(x) for x in found.parameters.arrays())
    return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()


def test_fit_gives_the_same_bits_for_any_number_of_threads(single):
    """As many as this process has, or one, compiled anew."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_fit import bits, fit, one_descent\n"
        "from deliberations import simulated\n"
        "print(bits(fit(simulated()[0], settings=one_descent())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env={**os.environ, "PJRT_NPROC": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == bits(single)


def test_another_seed_finds_the_same_optimum_by_other_starts(world, optimum):
    ratings, _ = world
    one, other = optimum, fit(ratings, settings=Settings(seed=1))
    assert one.history[0].tolist() != other.history[0].tolist()
    assert one.objective == pytest.approx(other.objective, abs=1e-10)
    for a, b in zip(one.parameters.arrays(), other.parameters.arrays(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_shuffled_rows_change_no_bit_and_new_names_change_nothing(optimum):
    base, table = optimum, simulated_table(3, 150)
    shuffled, ids = encode(table.sample(frac=1, random_state=5))
    same = fit(shuffled)
    for a, b in zip(base.parameters.arrays(), same.parameters.arrays(), strict=True):
        assert a.tobytes() == b.tobytes()
    random = np.random.default_rng(8)
    names = {
        key: dict(zip(old, random.permutation([f"{key}{k}" for k in range(len(old))])))
        for key, old in (("user_id", ids.users), ("guideline_id", ids.guidelines))
    }
    renamed, new = encode(table.assign(**{key: table[key].map(names[key]) for key in names}))
    other = fit(renamed).parameters
    at = new.guidelines.get_indexer([names["guideline_id"][g] for g in ids.guidelines])
    who = new.users.get_indexer([names["user_id"][u] for u in ids.users])
    p = base.parameters
    np.testing.assert_allclose(other.guideline_intercept[at], p.guideline_intercept, atol=1e-6)
    np.testing.assert_allclose(other.guideline_embedding[at], p.guideline_embedding, atol=1e-6)
    np.testing.assert_allclose(other.user_embedding[who], p.user_embedding, atol=1e-6)


def test_axes_are_sorted_by_what_the_users_carry_on_them(world):
    ratings, _ = world
    penalty = Penalty(0.1, 0.02, "l1", "parameter")
    for seed in range(3):
        found = fit(ratings, penalty, one_descent(dimensions=2, seed=seed)).parameters
        carried = np.abs(found.user_embedding).sum(axis=0)
        assert (np.diff(carried) < 0).all()


def test_the_demo_has_one_minimum(optimum):
    assert optimum.settled
    assert optimum.minima[0].starts >= 3


def test_a_warm_start_begins_at_the_earlier_optimum(world, optimum):
    ratings, _ = world
    settings = Settings(max_starts=8, moves=False)
    warm = fit(ratings, settings=settings, warm_start=optimum.parameters)
    assert warm.warm_start
    assert len(warm.starts) == 8
    assert warm.history[0, 0] == pytest.approx(optimum.objective, rel=1e-6)
    assert warm.history[0, 1] > optimum.objective * 1.001


def test_a_warm_start_keeps_the_sign_of_the_axis(world, optimum):
    ratings, cold = world[0], optimum.parameters
    turned = replace(
        cold, user_embedding=-cold.user_embedding, guideline_embedding=-cold.guideline_embedding
    )
    warm = fit(ratings, settings=one_descent(), warm_start=turned).parameters
    np.testing.assert_allclose(warm.user_embedding, turned.user_embedding, atol=1e-3)


def test_guidelines_that_the_warm_start_does_not_know_are_drawn(world, optimum):
    intercept = optimum.parameters.guideline_intercept.copy()
    intercept[::2] = np.nan
    known = replace(optimum.parameters, guideline_intercept=intercept)
    warm = fit(world[0], settings=one_descent(), warm_start=known)
    assert warm.converged
    assert np.isfinite(warm.parameters.guideline_intercept).all()
    assert warm.objective == pytest.approx(optimum.objective, abs=1e-7)


def test_without_a_warm_start_the_axis_points_to_the_side_with_more_users(optimum):
    f = optimum.parameters.user_embedding[:, 0]
    assert (f > 0).sum() > (f < 0).sum()


def test_max_starts_bounds_the_starts():
    found = fit(counting((0, 1, 4)), settings=Settings(max_starts=2, moves=False))
    assert len(found.starts) == 2
    losses = [start.objective for start in found.starts]
    assert np.ptp(losses) <= 1e-7 * found.objective
    assert not found.settled  # two starts that agree are too few


def test_too_few_sweeps_are_told_not_hidden(world):
    found = fit(world[0], settings=one_descent(max_sweeps=1, tolerance=1e-12))
    assert not found.converged
    assert found.kkt_residual > 1e-12


# Fixed rows: new guidelines scored against fixed users.


def ridge_and_lasso_of_one_row(errors, h, intercept=0.15, embedding=0.03):
    """Best (i, f) of a row, by minimising over i and both signs of f with calculus by hand."""
    n, best = len(errors), None
    for sign in (-1, 0, 1):
        if sign == 0:
            i, f = errors.sum() / (n * (1 + intercept)), 0.0
        else:
            a = np.array([[n * (1 + intercept), h.sum()], [h.sum(), (h * h).sum()]])
            b = np.array([errors.sum(), (h * errors).sum() - sign * embedding * n / 2])
            i, f = np.linalg.solve(a, b)
            if np.sign(f) != sign:
                continue
        value = ((errors - i - f * h) ** 2).sum() + n * (intercept * i**2 + embedding * abs(f))
        if best is None or value < best[0]:
            best = value, i, f
    return best[1:]


def test_new_guidelines_are_scored_against_fixed_users(world, optimum):
    ratings, earlier = world[0], optimum.parameters
    warm_start = replace(
        earlier,
        guideline_intercept=np.where(np.arange(121) < 116, earlier.guideline_intercept, np.nan),
        guideline_embedding=np.where(
            np.arange(121)[:, None] < 116, earlier.guideline_embedding, np.nan
        ),
    )
    assert ratings.n_guidelines == 121
    found = fit(ratings, settings=one_descent(), warm_start=warm_start, hold="users")
    p = found.parameters
    assert found.converged
    assert found.balance is None
    for name in ("mu", "user_intercept", "user_embedding"):
        assert getattr(p, name).tobytes() == getattr(earlier, name).tobytes()
    for g in range(ratings.n_guidelines):
        mine = ratings.guideline == g
        who = ratings.user[mine]
        errors = ratings.helpful[mine] - p.mu - p.user_intercept[who]
        i, f = ridge_and_lasso_of_one_row(errors, p.user_embedding[who, 0])
        assert p.guideline_intercept[g] == pytest.approx(i, abs=1e-9)
        assert p.guideline_embedding[g, 0] == pytest.approx(f, abs=1e-9)


def test_new_users_are_placed_among_fixed_guidelines(world, optimum):
    ratings, earlier = world[0], optimum.parameters
    known = np.arange(ratings.n_users) < 100
    warm_start = replace(earlier, user_intercept=np.where(known, earlier.user_intercept, np.nan))
    found = fit(
        ratings, settings=one_descent(), warm_start=warm_start, hold="guidelines"
    ).parameters
    for name in ("mu", "guideline_intercept", "guideline_embedding"):
        assert getattr(found, name).tobytes() == getattr(earlier, name).tobytes()
    np.testing.assert_allclose(found.user_embedding, earlier.user_embedding, atol=1e-5)


def test_hold_needs_an_earlier_model_with_its_mu(world, optimum):
    without = replace(optimum.parameters, mu=np.float64(np.nan))
    for warm_start in (None, without):
        with pytest.raises(InputError, match="hold is 'users': that needs a warm start with mu"):
            fit(world[0], warm_start=warm_start, hold="users")
    unknown = replace(optimum.parameters, user_intercept=np.full(world[0].n_users, np.nan))
    with pytest.raises(InputError, match="hold is 'users': the warm start knows none of them"):
        fit(world[0], warm_start=unknown, hold="users")


def test_gradient_descent_refuses_to_hold(world, optimum):
    settings = Settings(method="gradient-descent")
    with pytest.raises(InputError, match="gradient descent holds nothing, use alternating"):
        fit(world[0], settings=settings, warm_start=optimum.parameters, hold="users")


# Weights.


def test_ratings_that_weigh_double_are_ratings_given_twice(world, optimum):
    ratings, _ = world
    times = np.random.default_rng(3).integers(0, 3, len(ratings))
    twice = Ratings(
        *(np.repeat(x, times) for x in (ratings.user, ratings.guideline, ratings.helpful)),
        ratings.n_users,
        ratings.n_guidelines,
    )
    weighted = replace(ratings, weight=times.astype(float))
    found = fit(weighted, settings=one_descent(), warm_start=optimum.parameters)
    assert abs(found.objective - optimum.objective) > 1e-4
    assert float(loss(found.parameters, twice, ALIGNED)) == pytest.approx(found.objective)
    assert lowest_nearby(found.parameters, twice, ALIGNED) >= found.objective - 1e-10


# Data at the edge.


SMALL = dense([[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 1]])


def counting(ratings):
    """The small deliberation of which only some ratings count: one shape, compiled once."""
    return replace(SMALL, weight=np.isin(np.arange(12), list(ratings)).astype(float))


@pytest.mark.parametrize(
    "ratings",
    [
        dense([[1.0]]),
        counting(range(4)),
        counting(range(0, 12, 4)),
        replace(counting(range(12)), helpful=np.ones(12)),
        replace(counting(range(12)), helpful=np.zeros(12)),
        counting((0, 5, 10)),
    ],
    ids=["one rating", "one user", "one guideline", "ones", "zeros", "diagonal"],
)
def test_every_deliberation_with_a_rating_has_a_finite_fit(ratings):
    found = fit(ratings, settings=Settings(starts=2, max_starts=16))
    assert found.converged
    for value in found.parameters.arrays():
        assert np.isfinite(value).all()
    assert float(loss(found.parameters, ratings, ALIGNED)) == pytest.approx(
        found.objective, abs=1e-12
    )
    zeros = Parameters(*(0.0 * x for x in found.parameters.arrays()))
    assert found.objective <= float(loss(zeros, ratings, ALIGNED)) + 1e-12
    unrated = np.bincount(ratings.user, ratings.weight, ratings.n_users) == 0
    assert not found.parameters.user_embedding[unrated].any()


def test_a_warm_start_with_constant_embeddings_is_a_start_like_any_other(world, optimum):
    flat = Parameters(*(np.full_like(x, 0.5) for x in optimum.parameters.arrays()))
    found = fit(world[0], settings=one_descent(), warm_start=flat)
    assert found.converged
    assert np.isfinite(found.parameters.user_embedding).all()


def none():
    empty = np.zeros(0, np.int32)
    return Ratings(empty, empty, np.zeros(0), 0, 0)


@pytest.mark.parametrize(
    ("ratings", "dimensions", "says"),
    [
        (none(), 1, "no ratings"),
        (replace(dense(np.eye(3)), n_users=2), 1, "no row from 0 to 1"),
        (replace(dense(np.eye(3)), guideline=np.full(9, -1, np.int32)), 1, "guideline is no row"),
        (replace(dense(np.eye(3)), user=np.arange(9)[::-1] // 3), 1, "sorted by user"),
        (replace(dense(np.eye(3)), helpful=np.full(9, np.nan)), 1, "outside"),
        (replace(dense(np.eye(3)), helpful=np.full(9, 1.5)), 1, "outside"),
        (replace(dense(np.eye(3)), helpful=np.ones(8)), 1, "the same length"),
        (dense(np.ones((9, 3))), 4, "can carry 3 at most"),
    ],
    ids=["empty", "user", "guideline", "order", "nan", "out of range", "short", "axes"],
)
def test_ratings_that_no_model_fits_are_refused(ratings, dimensions, says):
    with pytest.raises(InputError, match=says):
        fit(ratings, settings=Settings(dimensions=dimensions))


@pytest.mark.parametrize(
    ("field", "spoil"),
    [
        ("mu", lambda x: x + np.inf),
        ("user_intercept", lambda x: x - np.inf),
        ("guideline_embedding", lambda x: x + np.inf),
        ("user_intercept", lambda x: x[1:]),
        ("user_embedding", np.ravel),
    ],
)
def test_a_warm_start_that_is_not_finite_or_of_another_shape_is_refused(
    world, optimum, field, spoil
):
    spoilt = replace(optimum.parameters, **{field: spoil(getattr(optimum.parameters, field))})
    with pytest.raises(InputError, match=rf"warm_start\.{field}"):
        fit(world[0], warm_start=spoilt)


def test_a_warm_start_with_other_axes_is_refused(world, optimum):
    with pytest.raises(InputError, match="warm_start has 1 axes, but dimensions is 2"):
        fit(world[0], settings=Settings(dimensions=2), warm_start=optimum.parameters)


@pytest.mark.parametrize("method", ["alternating", "gradient-descent"])
def test_a_loss_that_overflows_ends_with_an_error(world, optimum, method):
    large = np.full_like(optimum.parameters.guideline_embedding, 1e160)
    spoilt = replace(optimum.parameters, guideline_embedding=large)
    with at_most(120), pytest.raises(InputError, match="the loss is not finite"):
        fit(world[0], settings=one_descent(method=method), warm_start=spoilt)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"settings": Settings(tolerance=np.nan)}, "tolerance is nan"),
        ({"settings": Settings(tolerance=0.0)}, "tolerance is 0.0: Input should be greater than 0"),
        ({"settings": Settings(starts=0)}, "starts is 0"),
        ({"settings": Settings(method="newton")}, "method is 'newton'"),
        ({"penalty": Penalty(embedding=np.inf)}, "embedding is inf"),
        ({"penalty": Penalty(intercept=-1.0)}, "intercept is -1.0"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(given, says):
    with pytest.raises(InputError, match=says):
        fit(SMALL, **given)


def test_blocks_that_share_no_rating_are_told_and_each_has_its_own_sign():
    random = np.random.default_rng(1)
    u, g = 30, 12
    camp = np.where(np.arange(u) % 3 == 0, -1, 1)[:, None]
    one = dense(random.random((u, g)) < 1 / (1 + np.exp(-2 * camp * random.normal(size=g))))
    both = Ratings(
        np.concatenate([one.user, one.user + u]),
        np.concatenate([one.guideline, one.guideline + g]),
        np.concatenate([one.helpful, 1 - one.helpful]),
        2 * u + 1,
        2 * g,
    )
    users, guidelines = both.blocks()
    assert (users == np.repeat([0, 1, -1], [u, u, 1])).all()
    assert (guidelines == np.repeat([0, 1], g)).all()
    assert {*one.blocks()[0], *one.blocks()[1]} == {0}
    found = fit(both, settings=one_descent())
    assert found.n_blocks == 2
    assert "2 blocks" in repr(found)
    side = np.sign(found.parameters.user_embedding[:, 0])
    assert side[users == -1] == [0]  # without ratings
    for block in (0, 1):
        assert side[users == block].any()
        assert side[users == block].sum() >= 0


def test_community_notes_penalty_is_the_formula_and_its_fit_as_low_as_a_general_optimisers():
    from scipy.optimize import minimize

    random = np.random.default_rng(6)
    camp = np.where(np.arange(30) % 3 == 0, -1, 1)[:, None]
    ratings = dense(
        random.random((30, 12)) < 1 / (1 + np.exp(-1.5 * camp * random.normal(size=12)))
    )
    u, g = 30, 12

    def parameters(x):
        cut = np.cumsum([1, u, u, g])
        mu, i, f, j, h = np.split(x, cut)
        return Parameters(mu[0], i, f[:, None], j, h[:, None])

    def formula(x):
        p = parameters(x)
        error = ratings.helpful - predict(p, ratings.user, ratings.guideline)
        return (
            (error**2).mean()
            + 0.15 * ((p.user_intercept**2).mean() + (p.guideline_intercept**2).mean() + p.mu**2)
            + 0.03 * ((p.user_embedding**2).mean() + (p.guideline_embedding**2).mean())
        )

    def slope(x):
        p = parameters(x)
        error = ratings.helpful - predict(p, ratings.user, ratings.guideline)
        e, f, h = error.reshape(u, g), p.user_embedding[:, 0], p.guideline_embedding[:, 0]
        return np.concatenate(
            [
                [-2 * e.mean() + 0.3 * p.mu],
                -2 * e.sum(1) / (u * g) + 0.3 * p.user_intercept / u,
                -2 * (e @ h) / (u * g) + 0.06 * f / u,
                -2 * e.sum(0) / (u * g) + 0.3 * p.guideline_intercept / g,
                -2 * (f @ e) / (u * g) + 0.06 * h / g,
            ]
        )

    found = fit(ratings, COMMUNITY_NOTES, Settings(max_starts=8, moves=False))
    p = found.parameters
    here = np.concatenate([[p.mu], *(x.ravel() for x in p.arrays()[1:])])
    assert formula(here) == pytest.approx(found.objective, rel=1e-12)
    assert p.user_embedding.any()
    lowest = min(
        minimize(formula, random.normal(size=len(here)), jac=slope, options={"maxiter": 5000}).fun
        for _ in range(2)
    )
    assert found.objective == pytest.approx(lowest, rel=1e-7)


def test_a_frame_is_refused_with_what_takes_one():
    with pytest.raises(InputError, match=r"fit takes Ratings, not a DataFrame: .*deliberate"):
        fit(pd.DataFrame({"user_id": ["u"]}))
