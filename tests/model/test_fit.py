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
from hypothesis import given, settings
from hypothesis import strategies as st

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
    refit,
    simulate,
)


def one_descent(**changes):
    return Settings(**({"starts": 1, "max_starts": 1, "moves": False} | changes))


def ratings_table(export):
    table = pd.DataFrame(export["ratings"])
    helpful = (table["rating"] == "helpful").astype(float)
    return pd.DataFrame(
        {"user_id": table["authorId"], "guideline_id": table["guidelineId"], "helpful": helpful}
    )


def coded(export):
    return encode(ratings_table(export))


@pytest.fixture(scope="module")
def world():
    return coded(simulate(3, 150).export)


@pytest.mark.parametrize(
    ("dimensions", "penalty"),
    [
        (1, ALIGNED),
        (1, COMMUNITY_NOTES),
        (2, Penalty(0.1, 0.02, "l1", "parameter")),
        (2, Penalty(0.2, 0.1, "l2", "rating")),
        (4, COMMUNITY_NOTES),
        (8, ALIGNED),
    ],
)
def test_converged_means_that_no_coordinate_can_lower_the_loss(world, dimensions, penalty):
    ratings, _ = world
    found = fit(ratings, penalty, one_descent(dimensions=dimensions))
    assert found.converged
    assert found.balance < 1e-4
    base = found.objective
    assert float(loss(found.parameters, ratings, penalty)) == pytest.approx(base, rel=1e-12)
    random = np.random.default_rng(0)
    for name in (
        "user_intercept",
        "user_embedding",
        "guideline_intercept",
        "guideline_embedding",
    ):
        value = getattr(found.parameters, name)
        for _ in range(40):
            at = tuple(random.integers(0, size) for size in value.shape)
            for step in (1e-3, -1e-3):
                moved = value.copy()
                moved[at] += step
                p = replace(found.parameters, **{name: moved})
                assert float(loss(p, ratings, penalty)) >= base - 1e-10


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


@pytest.mark.parametrize(
    ("dimensions", "norm", "per"),
    [(1, "l1", "rating"), (1, "l2", "parameter"), (2, "l1", "parameter"), (3, "l2", "rating")],
)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_sweep_lowers_the_loss_of_every_start(dimensions, norm, per, seed):
    random = np.random.default_rng(seed)
    users, guidelines = 8, 6  # one shape: compiled once for each case
    user, guideline = np.divmod(np.arange(users * guidelines), guidelines)
    ratings = Ratings(
        user.astype(np.int32),
        guideline.astype(np.int32),
        random.choice([0.0, 0.5, 1.0], users * guidelines),
        users,
        guidelines,
    )
    penalty = Penalty(norm=norm, per=per)
    settings = one_descent(dimensions=dimensions, starts=3, max_starts=3, seed=seed)
    found = fit(ratings, penalty, settings)
    assert np.diff(found.history, axis=0).max(initial=0) <= 1e-12
    assert found.objective <= found.history[-1].min() + 1e-12
    assert np.isfinite(found.parameters.user_embedding).all()


@pytest.fixture(scope="module")
def two_starts(world):
    return fit(world[0], settings=Settings(starts=2))


def test_both_sides_carry_the_same_penalty(world, two_starts):
    ratings, _ = world
    p = two_starts.parameters
    users = (ratings.per_user() * np.abs(p.user_embedding[:, 0])).sum()
    guidelines = (ratings.per_guideline() * np.abs(p.guideline_embedding[:, 0])).sum()
    assert users == pytest.approx(guidelines, rel=1e-4)


def bits(found):
    arrays = (np.asarray(x) for x in found.parameters.arrays())
    return hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest()


def test_fit_gives_the_same_bits_for_any_number_of_threads(two_starts):
    """As many as this process has, or one, or two; compiled anew each time."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_fit import bits, coded, fit, simulate, Settings\n"
        "print(bits(fit(coded(simulate(3, 150).export)[0], settings=Settings(starts=2))))"
    )
    found = {bits(two_starts)}
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "PJRT_NPROC": threads, "JAX_ENABLE_COMPILATION_CACHE": "false"},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_another_seed_finds_the_same_optimum_by_other_starts(world):
    ratings, _ = world
    one, other = (fit(ratings, settings=Settings(seed=s)) for s in (1, 2))
    assert one.history[0].tolist() != other.history[0].tolist()
    assert one.objective == pytest.approx(other.objective, abs=1e-10)
    for a, b in zip(one.parameters.arrays(), other.parameters.arrays(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_shuffled_rows_change_no_bit_and_new_names_change_nothing(world):
    export = simulate(3, 150).export
    base = fit(world[0])
    table = ratings_table(export)
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
    n = ratings.per_user()[:, None]
    for seed in range(3):
        found = fit(ratings, settings=one_descent(dimensions=3, seed=seed)).parameters
        carried = (n * np.abs(found.user_embedding)).sum(axis=0)
        assert (np.diff(carried) < 0).all()


def test_the_demo_has_one_minimum(optimum):
    assert optimum.settled
    assert optimum.minima[0].starts >= 3


def test_a_warm_start_begins_at_the_earlier_optimum(world):
    ratings, _ = world
    cold = fit(ratings)
    warm = fit(ratings, settings=one_descent(starts=2), warm_start=cold.parameters)
    assert warm.warm_start
    assert len(warm.starts) == 2
    assert warm.history[0, 0] == pytest.approx(cold.objective, rel=1e-6)
    assert warm.history[0, 1] > cold.objective * 1.001


def test_a_warm_start_keeps_the_sign_of_the_axis(world):
    ratings, _ = world
    cold = fit(ratings).parameters
    turned = replace(
        cold, user_embedding=-cold.user_embedding, guideline_embedding=-cold.guideline_embedding
    )
    warm = fit(ratings, settings=one_descent(), warm_start=turned).parameters
    np.testing.assert_allclose(warm.user_embedding, turned.user_embedding, atol=1e-3)


def test_unknown_ids_of_a_prior_start_cold(world):
    ratings, _ = world
    cold = fit(ratings)
    warm_start = replace(
        cold.parameters, guideline_intercept=cold.parameters.guideline_intercept.copy()
    )
    warm_start.guideline_intercept[::2] = np.nan
    warm = fit(ratings, settings=one_descent(), warm_start=warm_start)
    assert warm.converged
    assert np.isfinite(warm.parameters.guideline_intercept).all()
    assert warm.objective == pytest.approx(cold.objective, abs=1e-7)


def test_without_a_prior_the_axis_points_to_the_side_with_more_users(world):
    f = fit(world[0]).parameters.user_embedding[:, 0]
    assert (f > 0).sum() > (f < 0).sum()


def test_too_few_sweeps_are_told_not_hidden(world):
    found = fit(world[0], settings=one_descent(max_sweeps=1, tolerance=1e-12))
    assert not found.converged
    assert found.kkt_residual > 1e-12


# Held rows: new guidelines scored against fixed users.


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


def test_new_guidelines_are_scored_against_fixed_users(world):
    ratings, _ = world
    old = ratings.guideline < ratings.n_guidelines - 5
    earlier = fit(ratings).parameters
    warm_start = replace(
        earlier,
        guideline_intercept=np.where(np.arange(121) < 116, earlier.guideline_intercept, np.nan),
        guideline_embedding=np.where(
            np.arange(121)[:, None] < 116, earlier.guideline_embedding, np.nan
        ),
    )
    assert ratings.n_guidelines == 121
    assert not old.all()
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


def test_guidelines_can_be_held_and_new_users_are_placed_among_the_known(world):
    ratings, _ = world
    earlier = fit(ratings).parameters
    known = np.arange(ratings.n_users) < 100
    warm_start = replace(earlier, user_intercept=np.where(known, earlier.user_intercept, np.nan))
    found = fit(
        ratings, settings=one_descent(), warm_start=warm_start, hold="guidelines"
    ).parameters
    for name in ("mu", "guideline_intercept", "guideline_embedding"):
        assert getattr(found, name).tobytes() == getattr(earlier, name).tobytes()
    np.testing.assert_allclose(found.user_embedding, earlier.user_embedding, atol=1e-5)


# Weights.


def test_ratings_that_weigh_double_are_ratings_given_twice(world, optimum):
    ratings, _ = world
    random = np.random.default_rng(3)
    times = random.integers(0, 3, len(ratings))
    twice = Ratings(
        *(np.repeat(x, times) for x in (ratings.user, ratings.guideline, ratings.helpful)),
        ratings.n_users,
        ratings.n_guidelines,
    )
    near = {"settings": one_descent(), "warm_start": optimum.parameters}
    weighted = fit(replace(ratings, weight=times.astype(float)), **near)
    repeated = fit(twice, **near)
    assert abs(weighted.objective - optimum.objective) > 1e-4
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-9)
    for a, b in zip(weighted.parameters.arrays(), repeated.parameters.arrays(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module")
def optimum(world):
    return fit(world[0])


def test_refits_are_fits_with_those_weights(world, optimum):
    ratings, _ = world
    weights = np.random.default_rng(4).poisson(1.0, (len(ratings), 11)).astype(float)
    weights[:, 0] = 1
    weights[:, 1] = 2.5  # the scale of the weights means nothing
    weights[ratings.user == 7, 2] = 0
    found = refit(ratings, weights, optimum.parameters)
    assert found.converged.all()
    assert found.kkt_residual.max() <= 1e-6
    for r in (0, 1):
        assert found.objective[r] == pytest.approx(optimum.objective, rel=1e-9)
    assert found.parameters.user_intercept[7, 2] == 0
    assert not found.parameters.user_embedding[7, :, 2].any()
    for r in range(11):
        p = Parameters(*(x[..., r] for x in found.parameters.arrays()))
        weighted = replace(ratings, weight=weights[:, r])
        assert float(loss(p, weighted, ALIGNED)) == pytest.approx(found.objective[r], rel=1e-12)
        alone = fit(weighted, settings=one_descent(), warm_start=optimum.parameters)
        assert alone.objective == pytest.approx(found.objective[r], rel=1e-9)


def test_a_refit_does_not_depend_on_its_neighbours(world, optimum):
    ratings, _ = world
    weights = np.random.default_rng(5).poisson(1.0, (len(ratings), 9)).astype(float)
    together = refit(ratings, weights, optimum.parameters).parameters
    alone = refit(ratings, weights[:, [8]], optimum.parameters).parameters
    for a, b in zip(together.arrays(), alone.arrays(), strict=True):
        np.testing.assert_allclose(a[..., 8], b[..., 0], atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: -w, "negative or not a number"),
        (lambda w: np.where(np.arange(len(w)) == 3, np.nan, w), "negative or not a number"),
        (lambda w: np.where(np.arange(len(w)) == 3, np.inf, w), "negative or not a number"),
        (lambda w: 0 * w, "all weights are 0"),
        (lambda w: w[1:], "one row for each of the"),
    ],
    ids=["negative", "nan", "infinite", "zero", "short"],
)
def test_weights_that_cannot_weigh_are_refused(world, optimum, spoil, says):
    ratings, _ = world
    weight = spoil(np.ones(len(ratings)))
    with pytest.raises(InputError, match=says):
        fit(replace(ratings, weight=weight))
    with pytest.raises(InputError, match=says):
        refit(ratings, weight[:, None], optimum.parameters)


# Data at the edge.


def dense(helpful):
    """Every user rates every guideline: [users, guidelines]."""
    helpful = np.asarray(helpful, float)
    user, guideline = (x.ravel().astype(np.int32) for x in np.indices(helpful.shape))
    return Ratings(user, guideline, helpful.ravel(), *helpful.shape)


@pytest.mark.parametrize(
    "ratings",
    [
        dense([[1.0]]),
        dense([[1.0, 0.0, 1.0]]),
        dense([[1.0], [0.0], [0.0]]),
        dense(np.ones((3, 4))),
        dense(np.zeros((3, 4))),
        replace(dense([[1, 0, 1], [0, 1, 1]]), n_users=4, n_guidelines=5),
        replace(dense(np.eye(3, 4)), weight=np.where(np.arange(12) < 4, 0.0, 1.0)),
    ],
    ids=["one rating", "one user", "one guideline", "ones", "zeros", "unrated", "weightless"],
)
@pytest.mark.parametrize("penalty", [ALIGNED, COMMUNITY_NOTES], ids=["aligned", "community-notes"])
def test_every_deliberation_with_a_rating_has_a_finite_fit(ratings, penalty):
    found = fit(ratings, penalty, Settings(starts=2, max_starts=16))
    assert found.converged
    for value in found.parameters.arrays():
        assert np.isfinite(value).all()
    assert float(loss(found.parameters, ratings, penalty)) == pytest.approx(
        found.objective, abs=1e-12
    )
    zeros = Parameters(*(0.0 * x for x in found.parameters.arrays()))
    assert found.objective <= float(loss(zeros, ratings, penalty)) + 1e-12
    unrated = ratings.per_user() == 0
    assert not found.parameters.user_embedding[unrated].any()


def test_a_prior_with_constant_embeddings_is_a_start_like_any_other(world):
    ratings, _ = world
    flat = Parameters(*(np.full_like(x, 0.5) for x in fit(ratings).parameters.arrays()))
    found = fit(ratings, settings=one_descent(), warm_start=flat)
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
        (replace(dense(np.eye(3)), helpful=np.full(9, np.nan)), 1, "outside"),
        (replace(dense(np.eye(3)), helpful=np.full(9, 1.5)), 1, "outside"),
        (replace(dense(np.eye(3)), helpful=np.ones(8)), 1, "the same length"),
        (dense(np.ones((9, 3))), 4, "can carry 3 at most"),
    ],
    ids=["empty", "user", "guideline", "nan", "out of range", "short", "axes"],
)
def test_ratings_that_no_model_fits_are_refused(ratings, dimensions, says):
    with pytest.raises(InputError, match=says):
        fit(ratings, settings=Settings(dimensions=dimensions))


def test_holding_needs_an_earlier_model_with_its_mu(world, optimum):
    without = replace(optimum.parameters, mu=np.float64(np.nan))
    for warm_start in (None, without):
        with pytest.raises(InputError, match=r"train\.hold: users needs an earlier model with mu"):
            fit(world[0], warm_start=warm_start, hold="users")


def test_blocks_that_share_no_rating_are_told_and_each_has_its_own_sign(world):
    ratings, _ = world
    u, g = ratings.n_users, ratings.n_guidelines
    both = Ratings(
        np.concatenate([ratings.user, ratings.user + u]),
        np.concatenate([ratings.guideline, ratings.guideline + g]),
        np.concatenate([ratings.helpful, 1 - ratings.helpful]),
        2 * u + 1,
        2 * g,
    )
    users, guidelines = both.blocks()
    assert (users == np.repeat([0, 1, -1], [u, u, 1])).all()
    assert (guidelines == np.repeat([0, 1], g)).all()
    found = fit(both, settings=one_descent())
    assert found.n_blocks == 2
    assert "2 blocks" in found.certificate()
    side = np.sign(found.parameters.user_embedding[:, 0])
    for block in (0, 1):
        assert side[users == block].sum() >= 0
    alone = fit(ratings, settings=one_descent())
    assert alone.n_blocks == 1
    assert "blocks" not in alone.certificate()


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

    found = fit(ratings, COMMUNITY_NOTES)
    p = found.parameters
    here = np.concatenate([[p.mu], *(x.ravel() for x in p.arrays()[1:])])
    assert formula(here) == pytest.approx(found.objective, rel=1e-12)
    assert p.user_embedding.any()
    lowest = min(
        minimize(formula, random.normal(size=len(here)), jac=slope, options={"maxiter": 5000}).fun
        for _ in range(5)
    )
    assert found.objective == pytest.approx(lowest, rel=1e-7)
