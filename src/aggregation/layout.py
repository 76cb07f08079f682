"""Layout: how the ratings of one side lie in memory, so that a pass over its rows is fast.

The rows of a side (its users, or its guidelines) are sorted by number of ratings and cut into
buckets whose widths halve. Within a bucket the ratings form a rectangle, one column per rating,
one lane per row; a pass walks over the columns and adds to per-row sums. No sum crosses rows, so
the order of every addition is fixed and the result has the same bits on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.model import Array, Parameters
from aggregation.ratings import Ratings

jax.tree_util.register_dataclass(Parameters)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bucket:
    """Rows with similar numbers of ratings; W columns, R rows."""

    count: Array
    """int32 [R], ratings of each row; the columns at and after it are padding."""
    other: Array
    """int32 [W, R], row on the other side."""
    helpful: Array
    """float64 [W, R]"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Side:
    """All rows of one side, in buckets."""

    buckets: tuple[Bucket, ...]
    place: Array
    """int32 [rows]: where each row stands in the concatenation of the buckets."""
    count: Array
    """float64 [rows]: number of ratings."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """The same ratings twice: by user and by guideline."""

    users: Side
    guidelines: Side


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """What a row needs to know of its ratings, for S starts at once and D axes.

    Over the row's ratings, with v = (r, h): r = rating - mu - intercept of the other side, and h
    the other side's embedding.
    """

    first: Array
    """[rows, 1 + D, S]: sum v"""
    second: Array
    """[rows, 1 + D, 1 + D, S]: sum v v'"""

    r = property(lambda self: self.first[:, 0])  # sum r
    rr = property(lambda self: self.second[:, 0, 0])  # sum r^2
    h = property(lambda self: self.first[:, 1:])  # sum h
    hr = property(lambda self: self.second[:, 0, 1:])  # sum h r
    hh = property(lambda self: self.second[:, 1:, 1:])  # sum h h'


def layout(ratings: Ratings) -> Layout:
    """Lay ratings out by user and by guideline (host arrays)."""
    return Layout(
        users=_side(ratings.user, ratings.guideline, ratings.helpful, ratings.n_users),
        guidelines=_side(ratings.guideline, ratings.user, ratings.helpful, ratings.n_guidelines),
    )


def _side(row: np.ndarray, other: np.ndarray, helpful: np.ndarray, n_rows: int) -> Side:
    count = np.bincount(row, minlength=n_rows)
    by_row = np.lexsort((other, row))
    other, helpful = other[by_row], helpful[by_row]
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    order = np.argsort(-count, kind="stable")
    buckets, at = [], 0
    while at < n_rows:
        width = max(int(count[order[at]]), 1)
        end = at + int(np.searchsorted(-count[order[at:]], -(width // 2), side="left"))
        rows = order[at : max(end, at + 1)]
        column = np.arange(width)[:, None]
        inside = column < count[rows]
        source = np.where(inside, start[rows] + column, 0)
        buckets.append(
            Bucket(
                count=count[rows].astype(np.int32),
                other=np.where(inside, other[source], 0).astype(np.int32),
                helpful=np.where(inside, helpful[source], 0.0),
            )
        )
        at += len(rows)
    place = np.empty(n_rows, dtype=np.int32)
    place[order] = np.arange(n_rows, dtype=np.int32)
    return Side(tuple(buckets), place, count.astype(np.float64))


def row_sums(side: Side, mu: Array, intercept: Array, embedding: Array) -> Sums:
    """One pass over the ratings: the Sums of every row of `side`.

    `mu` [S], `intercept` [others, S] and `embedding` [others, D, S] are those of the other side.
    """
    table = jnp.concatenate([(mu + intercept)[:, None, :], embedding], axis=1)
    parts = [_bucket_sums(bucket, table) for bucket in side.buckets]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs)[side.place], *parts)


def _bucket_sums(bucket: Bucket, table: Array) -> Sums:
    (width, rows), (_, columns, starts) = bucket.other.shape, table.shape
    sign = jnp.ones((columns, 1)).at[0].set(-1.0)  # r = rating - (mu + intercept), but h = +h

    def add(c: Array, sums: Sums) -> Sums:
        v = (table[bucket.other[c]] * sign).at[:, 0].add(bucket.helpful[c][:, None])
        v = jnp.where((c < bucket.count)[:, None, None], v, 0.0)
        return Sums(sums.first + v, sums.second + v[:, :, None] * v[:, None])

    first = jnp.zeros((rows, columns, starts))
    second = jnp.zeros((rows, columns, columns, starts))
    return jax.lax.fori_loop(0, width, add, Sums(first, second))
