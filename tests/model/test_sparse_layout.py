"""A pass over the rows adds up what a dense computation does, in little room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aggregation import Ratings
from aggregation.model import sparse_layout as module
from aggregation.model.sparse_layout import layout, row_sums


def some_ratings(random, users, guidelines, values):
    dense = random.random((users, guidelines)) < random.uniform(0.1, 0.9)
    dense[0] = dense[:, 0] = True  # one row of each side is far longer than the others
    user, guideline = np.nonzero(dense)
    helpful = random.choice(values, len(user))
    return Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, users, guidelines)


@pytest.mark.parametrize("by_user", [True, False])
@pytest.mark.parametrize(
    ("axes", "n_values", "weighted"), [(1, 2, False), (2, 9, True), (3, 3, False)]
)
def test_row_sums_are_those_of_a_dense_computation(axes, n_values, weighted, by_user):
    random = np.random.default_rng(axes)
    s = 2
    ratings = some_ratings(random, 40, 23, np.linspace(0, 1, n_values))
    weights = random.random((len(ratings), s)) if weighted else None
    w = np.ones((len(ratings), 1)) if weights is None else weights
    (row, rows), (other, others) = ratings.sides() if by_user else reversed(ratings.sides())
    mu = random.normal(size=s)
    level, h = random.normal(size=(others, s)), random.normal(size=(others, axes, s))
    with jax.enable_x64(True):
        lay = jax.tree.map(jnp.asarray, layout(ratings, weights))
        side = lay.users if by_user else lay.guidelines
        sums = row_sums(lay, side, mu, level, h)
    r = ratings.helpful[:, None] - mu - level[other]
    hs = h[other]

    def by_row(x):
        out = np.zeros((rows, *x.shape[1:]))
        np.add.at(out, row, x)
        return out

    wide = w[:, None]
    np.testing.assert_allclose(sums.r, by_row(w * r), atol=1e-12)
    np.testing.assert_allclose(sums.h, by_row(wide * hs), atol=1e-12)
    np.testing.assert_allclose(sums.hr, by_row(wide * hs * r[:, None]), atol=1e-12)
    np.testing.assert_allclose(
        sums.hh, by_row(wide[..., None, :] * hs[:, :, None] * hs[:, None]), atol=1e-12
    )
    np.testing.assert_allclose(side.count, by_row(w), atol=1e-12)
    np.testing.assert_allclose(side.given, by_row(w * ratings.helpful[:, None]), atol=1e-12)
    np.testing.assert_allclose(lay.squares, (w * ratings.helpful[:, None] ** 2).sum(axis=0))


def test_the_layout_does_not_depend_on_the_chunks_it_is_made_in(monkeypatch):
    ratings = some_ratings(np.random.default_rng(1), 60, 40, [0.0, 1.0])
    whole = layout(ratings)
    monkeypatch.setattr(module, "CHUNK", 7)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(layout(ratings)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_little_is_padding_though_few_guidelines_have_most_ratings():
    random = np.random.default_rng(2)
    user = np.repeat(np.arange(2000), 30)
    guideline = (500 * random.random(len(user)) ** 4).astype(np.int64)
    key = np.unique(user * 500 + guideline)
    user, guideline = (key // 500).astype(np.int32), (key % 500).astype(np.int32)
    ratings = Ratings(user, guideline, np.ones(len(key)), 2000, 500)
    assert ratings.per_guideline().max() > 10 * ratings.per_guideline().mean()
    lay = layout(ratings)
    for side in (lay.users, lay.guidelines):
        assert side.entries.dtype == np.int32
        assert len(key) <= side.entries.size < 1.3 * len(key)


def test_a_rating_takes_four_bytes_on_each_side_unless_it_must_take_eight():
    n, users = 70_000, 20_000
    user, guideline = (x.astype(np.int32) for x in np.divmod(np.arange(n), 4))

    def kind(values):
        ratings = Ratings(user, guideline, np.resize(values, n), users, 4)
        return layout(ratings).guidelines.entries.dtype

    assert kind([0.0, 1.0]) == np.int32
    assert kind(np.linspace(0, 1, n)) == np.int64  # 17 bits of value, 15 of user


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 300, 100_000])
def test_lanes_are_a_power_of_two(rows):
    lanes = module.lanes_for(rows)
    assert lanes & (lanes - 1) == 0
    assert 16 <= lanes <= 4096
