"""The loss is the original's; the tables hold the parameters."""

from dataclasses import replace
from unittest import mock

import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import (
    InputError,
    Parameters,
    Penalty,
    Ratings,
    append,
    encode,
    from_tables,
    loss,
    predict,
    reindex,
)
from aggregation.model import sparse_layout  # noqa: F401  # registers Parameters with JAX


def planted(seed: int, users: int = 7, guidelines: int = 5, d: int = 2, share: float = 0.6):
    """Ratings and parameters without structure, and the dense matrix of the same ratings."""
    random = np.random.default_rng(seed)
    dense = np.where(
        random.random((users, guidelines)) < share,
        random.choice([0.0, 0.5, 1.0], (users, guidelines)),
        np.nan,
    )
    dense[np.arange(users), random.integers(0, guidelines, users)] = 1.0
    dense[random.integers(0, users, guidelines), np.arange(guidelines)] = 0.0
    user, guideline = np.nonzero(~np.isnan(dense))
    ratings = Ratings(
        user.astype(np.int32),
        guideline.astype(np.int32),
        dense[user, guideline],
        users,
        guidelines,
    )
    parameters = Parameters(
        np.float64(random.normal()),
        random.normal(size=users),
        random.normal(size=(users, d)),
        random.normal(size=guidelines),
        random.normal(size=(guidelines, d)),
    )
    return ratings, parameters, dense


def dense_loss(p: Parameters, dense: np.ndarray, li: float, lf: float) -> float:
    """The original's cn_loss, cell by cell, with nothing of the package's."""
    total, n = 0.0, 0
    for u in range(dense.shape[0]):
        for g in range(dense.shape[1]):
            if np.isnan(dense[u, g]):
                continue
            n += 1
            dot = sum(a * b for a, b in zip(p.user_embedding[u], p.guideline_embedding[g]))
            y = p.mu + p.user_intercept[u] + p.guideline_intercept[g] + dot
            total += (dense[u, g] - y) ** 2
            total += li * (p.user_intercept[u] ** 2 + p.mu**2 + p.guideline_intercept[g] ** 2)
            total += lf * (
                sum(map(abs, p.user_embedding[u])) + sum(map(abs, p.guideline_embedding[g]))
            )
    return total / n


@pytest.mark.parametrize("seed", range(5))
def test_loss_agrees_with_a_dense_oracle(seed):
    ratings, p, dense = planted(seed)
    ours = float(loss(p, ratings, Penalty(0.15, 0.03)))
    assert ours == pytest.approx(dense_loss(p, dense, 0.15, 0.03), rel=1e-10)


def test_gradient_agrees_with_finite_differences():
    ratings, p, dense = planted(11)
    with jax.enable_x64(True):
        gradient = jax.grad(loss)(jax.tree.map(jax.numpy.asarray, p), ratings, Penalty())
    step = 1e-6
    for name in (
        "mu",
        "user_intercept",
        "user_embedding",
        "guideline_intercept",
        "guideline_embedding",
    ):
        value = np.array(getattr(p, name))
        for at in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = value.copy()
                moved[at] += sign * step
                ends.append(dense_loss(replace(p, **{name: moved}), dense, 0.15, 0.03))
            slope = (ends[0] - ends[1]) / (2 * step)
            assert np.asarray(getattr(gradient, name))[at] == pytest.approx(slope, abs=1e-7)


@given(st.floats(0.01, 1), st.floats(0.001, 1), st.integers(0, 2**32 - 1))
def test_loss_grows_with_either_penalty(li, lf, seed):
    ratings, p, _ = planted(seed)
    base = float(loss(p, ratings, Penalty(li, lf)))
    assert float(loss(p, ratings, Penalty(2 * li, lf))) > base
    assert float(loss(p, ratings, Penalty(li, 2 * lf))) > base


def test_prediction_adds_intercepts_and_the_product_of_embeddings():
    _, p, _ = planted(3)
    expected = p.mu + p.user_intercept[2] + p.guideline_intercept[4]
    expected += p.user_embedding[2] @ p.guideline_embedding[4]
    assert predict(p, np.array([2]), np.array([4]))[0] == pytest.approx(expected)


def table(rows):
    return pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])


def test_encoding_forgets_the_order_of_the_rows():
    rows = [("b", "y", 1.0), ("a", "x", 0.0), ("b", "x", 0.5), ("a", "z", 1.0)]
    one, ids = encode(table(rows))
    other, other_ids = encode(table(rows[::-1]))
    assert list(ids.users) == ["a", "b"]
    assert list(ids.guidelines) == ["x", "y", "z"]
    assert list(ids.users) == list(other_ids.users)
    for name in ("user", "guideline", "helpful"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.helpful.tolist() == [0.0, 1.0, 0.5, 1.0]
    assert one.per_user().tolist() == [2, 2]
    assert one.per_guideline().tolist() == [2, 1, 1]


def test_encoding_refuses_a_repeated_pair_by_name():
    with pytest.raises(InputError, match=r"'u4'.*'g17'.*keep one rating of each pair"):
        encode(table([("u4", "g17", 1.0), ("u4", "g17", 0.0)]))


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan])
def test_encoding_refuses_ratings_outside_0_to_1(bad):
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        encode(table([("u", "g", bad)]))


ROWS = st.lists(
    st.tuples(
        st.text("ab\u00e9\U0001f44b", min_size=1, max_size=2),
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    max_size=20,
)


@given(ROWS, ROWS)
def test_appended_ratings_are_those_of_all_rows_and_the_last_of_a_pair_counts(old, new):
    def last(rows):
        return table(rows).drop_duplicates(["user_id", "guideline_id"], keep="last")

    whole, ids = encode(last(old + new))
    with mock.patch("aggregation.model.ratings.CHUNK", 3):  # as where there are many
        added, of_added = append(*encode(last(old)), last(new))
    assert list(of_added.users) == list(ids.users)
    assert list(of_added.guidelines) == list(ids.guidelines)
    assert vars(added).keys() == vars(whole).keys()
    for x, y in zip(vars(added).values(), vars(whole).values()):
        np.testing.assert_array_equal(x, y)
        assert getattr(x, "dtype", None) == getattr(y, "dtype", None)


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 7)), min_size=1))
def test_blocks_are_the_connected_components_of_who_rated_what(pairs):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    user, guideline = np.array(sorted(pairs), np.int32).T
    with mock.patch("aggregation.model.ratings.CHUNK", 3):
        users, guidelines = Ratings(user, guideline, np.ones(len(user)), 10, 8).blocks()
    edges = coo_array((np.ones(len(user)), (user, 10 + guideline)), shape=(18, 18))
    component = connected_components(edges, directed=False)[1]
    block = np.append(users, guidelines)
    rated = np.isin(np.arange(18), np.append(user, 10 + guideline))
    assert (block[~rated] == -1).all()
    of = dict(zip(component[rated], block[rated], strict=True))
    assert [of[c] for c in component[rated]] == block[rated].tolist()
    size = np.bincount(users[user])
    assert len(set(of.values())) == len(of) == len(size)
    assert (np.diff(size) <= 0).all()


def test_appending_keeps_ratings_as_narrow_as_their_values_allow():
    ratings, ids = encode(table([("a", "x", 1.0), ("b", "x", 0.0)]))
    narrow = replace(ratings, helpful=ratings.helpful.astype(np.float16))
    assert append(narrow, ids, table([("c", "x", 0.5)]))[0].helpful.dtype == np.float16
    wide = append(narrow, ids, table([("c", "x", 0.3)]))[0].helpful
    assert wide.tolist() == [1.0, 0.0, 0.3]


def test_ratings_with_weights_take_none_more():
    ratings, ids = encode(table([("a", "x", 1.0)]))
    with pytest.raises(InputError, match="have weights: append to them first"):
        append(replace(ratings, weight=np.ones(1)), ids, table([("b", "x", 0.0)]))
    two, ids = encode(table([("a", "x", 1.0), ("b", "x", 0.0)]))
    with pytest.raises(InputError, match="not sorted"):
        append(two, replace(ids, users=ids.users[::-1]), table([("b", "x", 0.0)]))


def test_parameters_move_with_their_ids_and_new_ids_are_unknown():
    old, ids = encode(table([("b", "x", 1.0), ("d", "z", 0.0)]))
    p = Parameters(
        np.float64(0.5),
        np.array([1.0, 2.0]),
        np.array([[3.0, 4.0], [5.0, 6.0]]),
        np.array([7.0, 8.0]),
        np.array([[9.0, 10.0], [11.0, 12.0]]),
    )
    _, more = append(old, ids, table([("a", "y", 1.0), ("c", "z", 1.0)]))
    moved = reindex(p, ids, more)
    nan = np.nan
    assert moved.mu == 0.5
    np.testing.assert_array_equal(moved.user_intercept, [nan, 1, nan, 2])
    np.testing.assert_array_equal(moved.guideline_embedding, [[9, 10], [nan, nan], [11, 12]])
    assert p.user_intercept.tolist() == [1.0, 2.0]  # as it was


def to_tables(p, ids):
    """Users and guidelines of `p` as tables."""
    return [
        pd.DataFrame({key: index, "intercept": i, "embedding": f.tolist()})
        for (key, index), (i, f) in zip(ids.sides(), p.sides())
    ]


def test_tables_hold_the_parameters_and_unknown_ids_come_back_as_nan():
    ratings, p, _ = planted(5)
    rows = table(
        [(f"u{u}", f"g{g}", h) for u, g, h in zip(ratings.user, ratings.guideline, ratings.helpful)]
    )
    _, ids = encode(rows)
    users, guidelines = to_tables(p, ids)
    back = from_tables(users, guidelines, float(p.mu), ids, 2)
    np.testing.assert_array_equal(back.user_embedding, p.user_embedding)
    np.testing.assert_array_equal(back.guideline_intercept, p.guideline_intercept)
    fewer = from_tables(users[1:], guidelines, None, ids, 2)
    assert np.isnan(fewer.user_intercept[0])
    assert np.isnan(fewer.mu)
    np.testing.assert_array_equal(fewer.user_intercept[1:], p.user_intercept[1:])
    assert from_tables(users[:0], guidelines[:0], None, ids, 2) is None


def test_an_earlier_model_of_another_dimension_is_an_error_with_its_remedy():
    ratings, p, _ = planted(5)
    rows = table([(f"u{u}", f"g{g}", 1.0) for u, g in zip(ratings.user, ratings.guideline)])
    _, ids = encode(rows)
    users, guidelines = to_tables(p, ids)
    with pytest.raises(
        InputError, match="length 2, but dimensions is 1: set it to 2, or fit without a warm start"
    ):
        from_tables(users, guidelines, 0.0, ids, 1)
