"""The second implementation: right by hand, by derivatives, and independent of the first."""

import ast
import sys
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.model import parameters as model
from aggregation.model.alternating import Sweeper
from aggregation.model.fit import fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import Penalty
from aggregation.model.ratings import Ratings
from aggregation.verify import reference_solver as recompute
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
    """Of so many ends of its search."""
    return min(loss for _, loss in islice(recompute.search(p, near, 0, 2000), starts))


def as_first(p, x):
    """The same for the first implementation."""
    ratings = Ratings(p.user.astype(np.int32), p.guideline.astype(np.int32), p.rating, *p.size)
    (i, j), (f, h) = x.intercepts, x.embeddings
    penalty = Penalty(p.intercept, p.embedding, p.norm, p.per)
    return ratings, model.Parameters(np.float64(x.mu), i, f, j, h), penalty


def test_it_imports_numpy_and_nothing_of_this_package():
    tree = ast.parse(Path(recompute.__file__).read_text("utf-8"))
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
    assert recompute.loss(p, x) == pytest.approx(by_hand, rel=1e-14)
    assert recompute.balance(p, x) == pytest.approx(0.1 / 0.9)


@penalties
@given(seed=st.integers(0, 10**6), axes=st.integers(1, 3))
def test_both_implementations_have_the_same_loss(norm, per, seed, axes):
    p, x = world(seed, norm, per, axes=axes)
    ratings, parameters, penalty = as_first(p, x)
    assert recompute.loss(p, x) == pytest.approx(
        model.loss(parameters, ratings, penalty), rel=1e-12
    )


@penalties
def test_both_implementations_have_the_same_residual_anywhere(norm, per):
    """Also where one user, one guideline or mu alone is far from its best."""
    p, x = world(5, norm, per)
    solved = recompute.descend(p, x, 1e-12, 40)
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
        own = recompute.loss(p, point), recompute.residual(p, point)
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
        return n * recompute.loss(p, Point(x.mu + mu, (i[0], i[1]), (f[0], f[1])))

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
    assert recompute.residual(p, x) == pytest.approx(max(slopes), rel=1e-4)


@pytest.mark.parametrize(
    ("norm", "per", "axes"), [("l1", "rating", 1), ("l1", "rating", 2), ("l2", "parameter", 2)]
)
def test_both_implementations_end_at_the_same_minimum(norm, per, axes):
    p, x = world(2, norm, per, axes=axes)
    ratings, _, penalty = as_first(p, x)
    settings = Settings(starts=8, max_starts=8, dimensions=axes, tolerance=1e-9)
    found = fit(ratings, penalty, settings)
    q = found.parameters
    same = Point(
        float(q.mu),
        (q.user_intercept, q.guideline_intercept),
        (q.user_embedding, q.guideline_embedding),
    )
    assert recompute.residual(p, same) == pytest.approx(found.kkt_residual, abs=1e-9)
    assert recompute.residual(p, same) <= 1e-9
    assert recompute.balance(p, same) == pytest.approx(found.balance, abs=1e-9)
    near = Point(
        round(same.mu, 2),
        tuple(np.round(a, 2) for a in same.intercepts),
        tuple(np.round(a, 2) for a in same.embeddings),
    )
    end = recompute.descend(p, near, 1e-9, 20000)
    assert recompute.residual(p, end) <= 1e-9
    assert recompute.loss(p, end) == pytest.approx(found.objective, rel=1e-9)
    assert lowest(p, same, 64) == pytest.approx(found.objective, rel=1e-7)


@given(seed=st.integers(0, 10**6))
def test_a_descent_never_goes_up(seed):
    p, x = world(seed)
    losses = [recompute.loss(p, x)]
    for sweeps in (1, 2, 5, 20):
        losses.append(recompute.loss(p, recompute.descend(p, x, 0.0, sweeps)))
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(losses))


def test_held_rows_keep_every_bit_and_do_not_count():
    p, x = world(3)
    held = (np.arange(30) < 20, np.zeros(12, bool))
    end = recompute.descend(p, x, 1e-9, 5000, held)
    assert end.mu == x.mu
    assert np.array_equal(end.intercepts[0][:20], x.intercepts[0][:20])
    assert np.array_equal(end.embeddings[0][:20], x.embeddings[0][:20])
    assert not np.array_equal(end.intercepts[0][20:], x.intercepts[0][20:])
    assert recompute.residual(p, end, held) <= 1e-9 < recompute.residual(p, end)


def test_a_search_leaves_the_point_at_which_nobody_stands_anywhere():
    p, x = world(4, users=80)
    nowhere = Point(x.mu, x.intercepts, (np.zeros((80, 1)), np.zeros((12, 1))))
    dead = recompute.descend(p, nowhere, 1e-9, 5000)
    assert recompute.residual(p, dead) <= 1e-9  # a minimum as well, and a bad one
    assert lowest(p, dead, 4) < 0.9 * recompute.loss(p, dead)


def test_a_search_leaves_what_is_held_and_ends_where_all_agree():
    """With users held and no new ones each guideline has one minimum: every start ends there."""
    p, x = world(5)
    held = (np.ones(30, bool), np.zeros(12, bool))
    ends = list(islice(recompute.search(p, x, 0, 2000, held), 12))
    for end, loss in ends:
        assert end.mu == x.mu
        assert np.array_equal(end.embeddings[0], x.embeddings[0])
        assert loss == pytest.approx(ends[0][1], rel=1e-9)


@given(seed=st.integers(0, 10**6), axes=st.integers(1, 3))
def test_a_turned_model_is_turned_back_where_the_loss_is_blind_to_it(seed, axes):
    p, x = world(seed, "l2", axes=axes)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(axes, axes)))[0]
    turned = Point(x.mu, x.intercepts, tuple(f @ turn for f in x.embeddings))
    assert recompute.loss(p, turned) == pytest.approx(recompute.loss(p, x), rel=1e-12)
    if axes > 1:
        back = recompute.aligned(p, turned, x)
        assert all(np.allclose(a, b) for a, b in zip(back.embeddings, x.embeddings))
    one, _ = world(seed, "l1", axes=axes)
    assert recompute.aligned(one, turned, x) is turned  # absolute values see every turn


def test_a_number_that_is_none_never_passes_for_a_small_residual():
    p, x = world(6)
    x.intercepts[0][0] = np.nan
    held = (np.arange(30) > 0, np.ones(12, bool))
    assert np.isnan(recompute.residual(p, x))
    assert np.isnan(recompute.residual(p, x, held))


def test_blocks_are_counted():
    two = Problem(
        np.array([0, 1, 1, 2, 3]),
        np.array([0, 0, 1, 2, 2]),
        *(np.ones(5), (4, 3), 0.15, 0.03, "l1", "rating"),
    )
    assert recompute.blocks(two) == 2
    assert recompute.blocks(world(7)[0]) == 1
