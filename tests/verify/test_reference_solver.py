"""The reference solver: right by hand and by derivatives, and independent of the first one."""

import ast
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from aggregation.model import parameters as model
from aggregation.model.alternating import Sweeper
from aggregation.model.fit import fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import Penalty
from aggregation.model.ratings import Ratings
from aggregation.verify import reference_solver as solver
from aggregation.verify.reference_solver import Point, Problem

PENALTIES = [("l1", "rating"), ("l2", "rating"), ("l1", "parameter"), ("l2", "parameter")]

penalties = pytest.mark.parametrize(("norm", "per"), PENALTIES)


def world(seed, norm="l1", per="rating", users=30, guidelines=12, axes=1):
    """Two camps that rate at random, and any point."""
    random = np.random.default_rng(seed)
    user, guideline = np.nonzero(random.random((users, guidelines)) < 0.6)
    liked = random.random((2, guidelines)) < 0.5
    rating = np.where(random.random(len(user)) < 0.1, 0.5, liked[user % 2, guideline])
    p = Problem(user, guideline, rating.astype(float), (users, guidelines), 0.15, 0.03, norm, per)
    draw = [random.normal(0, 0.5, (rows, 1 + axes)) for rows in p.size]
    draw[0][3, 1:] = 0  # a user at the kink
    return p, Point(0.4, (draw[0][:, 0], draw[1][:, 0]), (draw[0][:, 1:], draw[1][:, 1:]))


def lowest(p, near, starts):
    """Lowest loss of so many starts."""
    return min(solver.loss(p, end) for end in solver.search(p, near, 0, starts, 2000))


def as_first(p, x):
    """The same for the first implementation."""
    ratings = Ratings(p.user.astype(np.int32), p.guideline.astype(np.int32), p.rating, *p.size)
    (i, j), (f, h) = x.intercepts, x.embeddings
    penalty = Penalty(p.intercept, p.embedding, p.norm, p.per)
    return ratings, model.Parameters(np.float64(x.mu), i, f, j, h), penalty


def test_it_imports_numpy_and_nothing_of_this_package():
    tree = ast.parse(Path(solver.__file__).read_text("utf-8"))
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names - set(sys.stdlib_module_names) == {"collections.abc", "numpy"}


def test_the_loss_of_one_rating_by_hand():
    p = Problem(np.array([0]), np.array([0]), np.array([1.0]), (1, 1), 0.15, 0.03, "l1", "rating")
    x = Point(0.5, (np.array([0.1]), np.array([0.2])), (np.array([[-0.5]]), np.array([[0.4]])))
    error = 1 - (0.5 + 0.1 + 0.2 - 0.2)
    by_hand = error**2 + 0.15 * (0.25 + 0.01 + 0.04) + 0.03 * (0.5 + 0.4)
    assert solver.loss(p, x) == pytest.approx(by_hand, rel=1e-14)


@penalties
@pytest.mark.parametrize("axes", [1, 3])
def test_both_implementations_have_the_same_loss(norm, per, axes):
    p, x = world(8, norm, per, axes=axes)
    ratings, parameters, penalty = as_first(p, x)
    assert solver.loss(p, x) == pytest.approx(model.loss(parameters, ratings, penalty), rel=1e-12)


@pytest.mark.parametrize(("norm", "per"), [("l1", "rating"), ("l2", "parameter")])
def test_both_implementations_have_the_same_residual_anywhere(norm, per):
    """Also where one user, one guideline or mu alone is far from its best."""
    p, x = world(5, norm, per)
    solved = solver.descend(p, x, 1e-12, 40)
    (i, j), (f, h) = solved.intercepts, solved.embeddings
    i, h = i.copy(), h.copy()
    i[7] += 0.3
    h[2] += 0.3
    for point in (
        x,
        replace(solved, intercepts=(i, j)),
        replace(solved, embeddings=(f, h)),
        replace(solved, mu=solved.mu + 0.2),
    ):
        ratings, parameters, penalty = as_first(p, point)
        found = Sweeper(ratings, penalty).measure(parameters)
        own = solver.loss(p, point), solver.residual(p, point)
        assert found == pytest.approx(own, rel=1e-9, abs=1e-12)


@penalties
def test_the_residual_is_the_largest_slope_per_rating(norm, per):
    """Against differences of the loss itself, in every coordinate, from both sides of a kink."""
    p, x = world(1, norm, per, axes=2)
    n, step, slopes = len(p.rating), 1e-7, []

    def at(mu=0.0, side=0, kind=0, place=None, by=0.0):
        i, f = [a.copy() for a in x.intercepts], [a.copy() for a in x.embeddings]
        if place is not None:
            (i if kind == 0 else f)[side][place] += by
        return n * solver.loss(p, Point(x.mu + mu, (i[0], i[1]), (f[0], f[1])))

    here = at()
    slopes.append(abs(at(mu=step) - at(mu=-step)) / (2 * step) / n)
    for side, row in enumerate(p.sides()):
        count = np.bincount(row, minlength=p.size[side])
        for kind, shape in enumerate((x.intercepts[side].shape, x.embeddings[side].shape)):
            for place in np.ndindex(shape):
                up = (at(side=side, kind=kind, place=place, by=step) - here) / step
                down = (here - at(side=side, kind=kind, place=place, by=-step)) / step
                away = 0 if down <= 0 <= up else min(abs(up), abs(down))
                slopes.append(away / count[place[0]])
    assert solver.residual(p, x) == pytest.approx(max(slopes), rel=1e-4)


def test_both_implementations_end_at_the_same_minimum():
    p, x = world(2)
    ratings, _, penalty = as_first(p, x)
    search = Settings(starts=8, max_starts=8, tolerance=1e-9, moves=False)
    found = fit(ratings, penalty, search)
    q = found.parameters
    same = Point(
        float(q.mu),
        (q.user_intercept, q.guideline_intercept),
        (q.user_embedding, q.guideline_embedding),
    )
    assert solver.residual(p, same) == pytest.approx(found.kkt_residual, abs=1e-9)
    assert solver.residual(p, same) <= 1e-9
    near = Point(
        round(same.mu, 2),
        tuple(np.round(a, 2) for a in same.intercepts),
        tuple(np.round(a, 2) for a in same.embeddings),
    )
    end = solver.descend(p, near, 1e-9, 20000)
    assert solver.residual(p, end) <= 1e-9
    assert solver.loss(p, end) == pytest.approx(found.objective, rel=1e-9)
    assert lowest(p, same, 8) == pytest.approx(found.objective, rel=1e-7)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_descent_never_goes_up(seed):
    p, x = world(seed)
    losses = [solver.loss(p, x)]
    for sweeps in (1, 2, 5, 20):
        losses.append(solver.loss(p, solver.descend(p, x, 0.0, sweeps)))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(losses))


def test_fixed_rows_keep_every_bit_and_do_not_count():
    free, x = world(3)
    p = replace(free, fixed=(np.arange(30) < 20, np.zeros(12, bool)))
    end = solver.descend(p, x, 1e-9, 5000)
    assert end.mu == x.mu
    assert np.array_equal(end.intercepts[0][:20], x.intercepts[0][:20])
    assert np.array_equal(end.embeddings[0][:20], x.embeddings[0][:20])
    assert not np.array_equal(end.intercepts[0][20:], x.intercepts[0][20:])
    assert solver.residual(p, end) <= 1e-9 < solver.residual(free, end)


def test_a_search_leaves_the_stationary_point_without_embeddings():
    p, x = world(4, users=80)
    nowhere = Point(x.mu, x.intercepts, (np.zeros((80, 1)), np.zeros((12, 1))))
    dead = solver.descend(p, nowhere, 1e-9, 5000)
    assert solver.residual(p, dead) <= 1e-9  # a minimum as well, and a bad one
    assert lowest(p, dead, 4) < 0.9 * solver.loss(p, dead)


def test_a_search_leaves_fixed_rows_and_ends_where_all_agree():
    """With all users fixed each guideline has one minimum: every start ends there."""
    p, x = world(5)
    p = replace(p, fixed=(np.ones(30, bool), np.zeros(12, bool)))
    ends = list(solver.search(p, x, 0, 6, 2000))
    for end in ends:
        assert end.mu == x.mu
        assert np.array_equal(end.embeddings[0], x.embeddings[0])
        assert solver.loss(p, end) == pytest.approx(solver.loss(p, ends[0]), rel=1e-9)


def test_a_number_that_is_none_never_passes_for_a_small_residual():
    p, x = world(6)
    x.intercepts[0][0] = np.nan
    assert np.isnan(solver.residual(p, x))
    assert np.isnan(solver.residual(replace(p, fixed=(np.arange(30) > 0, np.ones(12, bool))), x))
