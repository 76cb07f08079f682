"""Sparse layout: how the ratings of one side lie in memory, so that a pass over its rows is fast.

SELL-C-sigma (Kreutzer et al. 2014, doi:10.1137/130930352): the rows of a side (its users, or its
guidelines) are sorted by number of ratings and cut into blocks of as many rows as there are lanes.
A block is a rectangle, one row a lane, one rating a line, padded to its longest row. A pass walks
down the lines of a block and adds to per-lane sums. Rows of more than twice the mean length are
dealt out to several lanes, else few long rows would be most of the padding. The order of every
addition is fixed, so the result has the same bits on any number of threads.

A rating is one integer: the row on the other side, and in the last bits which of the few values
that ratings have.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from aggregation.model.parameters import Array, Parameters
from aggregation.model.ratings import Ratings, counts

CHUNK = 1 << 18
"""Ratings that are laid out at a time: bounds the memory that it takes."""

ONE_THREAD = 400_000
"""Bytes of a table from which its rows are fetched into a buffer of two lines. XLA takes a fetch
from a larger one for so much work that it wakes a second thread for every line, which costs twice
the fetch; an update in place it leaves to one. Measured: 2.5 instead of 6.6 ns a rating."""

jax.tree_util.register_dataclass(Parameters)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Side:
    """All rows of one side: L lanes, W weightings (1, or as many as replicates)."""

    entries: Array
    """int32 (int64 if it must) [lines, L]: row on the other side << bits | code of the value. The
    padding's row is one after the last."""
    weight: Array | None
    """float64 [lines, L, W], or None: every rating counts once."""
    start: Array
    """int32 [blocks + 1]: first line of each block, and the end."""
    place: Array
    """int32 [rows]: block * L + lane of each row, or of its first piece."""
    more_place: Array
    """int32 [further pieces]: the same of all but the first pieces."""
    more_row: Array
    """int32 [further pieces]: whose they are."""
    count: Array
    """float64 [rows, W]: (weighted) number of ratings."""
    given: Array
    """float64 [rows, W]: (weighted) sum of ratings."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layout:
    """The same ratings twice: by user and by guideline."""

    users: Side
    guidelines: Side
    values: Array
    """float64 [2 ** bits]: the value of each code."""
    squares: Array
    """float64 [W]: (weighted) sum of squared ratings."""
    bits: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """What a row needs to know of its ratings, for S starts at once and D axes.

    Over the row's ratings: r = rating - mu - intercept of the other side, h the other side's
    embedding, each term times its weight.
    """

    r: Array
    """[rows, S]: sum r"""
    h: Array
    """[rows, D, S]: sum h"""
    hr: Array
    """[rows, D, S]: sum h r"""
    hh: Array
    """[rows, D, D, S]: sum h h'"""


def layout(
    ratings: Ratings,
    weights: np.ndarray | None = None,
    values: np.ndarray | None = None,
    lanes: tuple[int, int] | None = None,
) -> Layout:
    """Lay ratings out by user and by guideline (NumPy arrays).

    `weights` [n, W] weigh every replicate by itself; without them `ratings.weight` does. `values`:
    the different values of ratings, sorted, where there are others than these ratings have;
    `lanes` for users and for guidelines: as many as would do, unless they are given.
    """
    if weights is None and ratings.weight is not None:
        weights = ratings.weight[:, None]
    found, squares = np.zeros(0), np.zeros(1)
    for chunk in _chunks(len(ratings)):
        helpful = ratings.helpful[chunk].astype(np.float64)
        found = np.union1d(found, helpful)
        squares = squares + _weighted(helpful**2, weights, chunk).sum(axis=0)
    values = found if values is None else values
    bits = max(int(len(values) - 1).bit_length(), 1)
    of_users, of_guidelines = lanes or (None, None)
    with ThreadPoolExecutor(1) as threads:  # NumPy lets go of the interpreter while it sorts
        users = threads.submit(_side, ratings, weights, values, bits, of_users, by_user=True)
        guidelines = _side(ratings, weights, values, bits, of_guidelines, by_user=False)
    return Layout(
        users.result(),
        guidelines,
        np.concatenate([values, np.zeros((1 << bits) - len(values))]),
        squares,
        bits,
    )


def _chunks(n: int) -> list[slice]:
    return [slice(at, at + CHUNK) for at in range(0, n, CHUNK)]


def _weighted(x: np.ndarray, weights: np.ndarray | None, chunk: slice) -> np.ndarray:
    """[chunk, W]"""
    return x[:, None] if weights is None else x[:, None] * weights[chunk]


def _side(
    ratings: Ratings,
    weights: np.ndarray | None,
    values: np.ndarray,
    bits: int,
    lanes: int | None,
    *,
    by_user: bool,
) -> Side:
    """A counting sort, chunk by chunk, straight to where each rating goes."""
    row, rows = ratings.user, ratings.n_users
    other, others = ratings.guideline, ratings.n_guidelines
    if not by_user:
        row, rows, other, others = other, others, row, rows
    length = counts(row, rows).astype(np.int32)
    pieces = np.maximum(-(-length // max(2 * len(row) // rows, 1)), 1)
    first = np.cumsum(pieces, dtype=np.int32) - pieces  # first piece of each row
    owner = np.repeat(np.arange(rows, dtype=np.int32), pieces)
    number = np.arange(len(owner), dtype=np.int32) - first[owner]
    lines = -((number - length[owner]) // pieces[owner])  # ceil: ratings of each piece
    order = np.argsort(-lines, kind="stable")
    place = np.empty(len(owner), dtype=np.int32)
    place[order] = np.arange(len(owner), dtype=np.int32)
    lanes = lanes or lanes_for(len(owner))
    start = np.concatenate([[0], np.cumsum(np.maximum(lines[order[::lanes]], 1))])
    corner = start[place // lanes] * lanes + place % lanes  # where each piece's first rating goes
    kind = np.int32 if (others + 1) << bits <= np.iinfo(np.int32).max else np.int64
    entries = aligned((int(start[-1]), lanes), kind)
    entries[:] = others << bits
    weight = None if weights is None else np.zeros((start[-1], lanes, weights.shape[1]))
    count = np.zeros((rows, 1 if weights is None else weights.shape[1]))
    given = np.zeros_like(count)
    done = np.zeros(rows, dtype=np.int32)  # ratings of each row that are in their places
    for chunk in _chunks(len(ratings)):
        by_row = _order(row[chunk])
        mine, theirs = row[chunk][by_row], other[chunk][by_row]
        helpful = ratings.helpful[chunk].astype(np.float64)[by_row]
        begin = np.flatnonzero(np.diff(mine, prepend=-1))
        run = np.diff(begin, append=len(mine))
        rank = done[mine] + np.arange(len(mine)) - np.repeat(begin, run)
        done[mine[begin]] += run
        line, piece = np.divmod(rank, pieces[mine])
        at = corner[first[mine] + piece] + line * lanes
        entries.reshape(-1)[at] = (theirs.astype(kind) << bits) | np.searchsorted(values, helpful)
        ones = _weighted(np.ones(len(mine)), weights, chunk)
        w = ones if weights is None else ones[by_row]
        if weight is not None:
            weight.reshape(-1, w.shape[1])[at] = w
        count[mine[begin]] += np.add.reduceat(w, begin, axis=0)
        given[mine[begin]] += np.add.reduceat(w * helpful[:, None], begin, axis=0)
    more = number > 0
    return Side(
        entries,
        weight,
        start.astype(np.int32),
        place[first],
        place[more],
        owner[more],
        count,
        given,
    )


def _order(row: np.ndarray) -> np.ndarray | slice:
    """A stable argsort of a chunk: a plain sort of row and place as one number is quicker."""
    if (row[1:] >= row[:-1]).all():
        return slice(None)
    width = len(row).bit_length()
    packed = (row.astype(np.int64) << width) | np.arange(len(row))
    packed.sort()
    return packed & ((1 << width) - 1)


def aligned(shape: tuple[int, int], kind: type) -> np.ndarray:
    """An array that JAX takes over without a copy: it begins at a multiple of 64 bytes."""
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    raw = np.empty(size + 64, dtype=np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size].view(kind).reshape(shape)


def lanes_for(pieces: int) -> int:
    """Power of two: many enough for vectors, and few enough for 16 blocks, since rows of unlike
    lengths in one block are padding. Many rows take more lanes: each block walks over the other
    side's whole table, and that may not fit the cache.
    """
    return 1 << int(np.clip(pieces // 16, 32, 4096)).bit_length() - 1


def row_sums(lay: Layout, side: Side, mu: Array, intercept: Array, embedding: Array) -> Sums:
    """One pass over the ratings: the Sums of every row of `side`.

    `mu` [S], `intercept` [others, S] and `embedding` [others, D, S] are those of the other side.
    """
    table = jnp.concatenate([(mu + intercept)[:, None, :], embedding], axis=1)
    table = jnp.concatenate([table, jnp.zeros((1, *table.shape[1:]))])  # the padding's row
    lanes, (_, d, s) = side.entries.shape[1], embedding.shape
    blocks = side.start.shape[0] - 1

    buffer = jnp.zeros((2 if table.nbytes > ONE_THREAD else 0, lanes, *table.shape[1:]))

    def add(line: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        buffer, *sums = state
        entry = jax.lax.dynamic_index_in_dim(side.entries, line, axis=0, keepdims=False)
        v = _rows(table, entry >> lay.bits)
        if len(buffer):
            buffer = jax.lax.dynamic_update_index_in_dim(buffer, v, line & 1, axis=0)
            v = jax.lax.dynamic_index_in_dim(buffer, line & 1, axis=0, keepdims=False)
        h = v[:, 1:]
        r = _rows(lay.values, entry & ((1 << lay.bits) - 1))[:, None] - v[:, 0]
        w = 1.0 if side.weight is None else side.weight[line]
        wh = h if side.weight is None else h * side.weight[line][:, None]
        terms = (w * v[:, 0], wh, wh * r[:, None], wh[:, :, None] * h[:, None])
        return buffer, *(total + term for total, term in zip(sums, terms, strict=True))

    shapes = ((s,), (d, s), (d, s), (d, d, s))

    def walk(block: Array, sums: Array) -> Array:
        none = (jnp.zeros((lanes, *shape)) for shape in shapes)
        begin, end = side.start[block], side.start[block + 1]
        _, *here = jax.lax.fori_loop(begin, end, add, (buffer, *none))
        here = jnp.concatenate([part.reshape(lanes, -1, s) for part in here], axis=1)
        return jax.lax.dynamic_update_slice_in_dim(sums, here, block * lanes, axis=0)

    sums = jnp.zeros((blocks * lanes, 1 + 2 * d + d * d, s))
    sums = jax.lax.fori_loop(jnp.int32(0), jnp.int32(blocks), walk, sums)
    sums = _rows(sums, side.place).at[side.more_row].add(_rows(sums, side.more_place))
    h, hr, hh = sums[:, 1 : 1 + d], sums[:, 1 + d : 1 + 2 * d], sums[:, 1 + 2 * d :]
    return Sums(side.given - sums[:, 0], h, hr, hh.reshape(len(hh), d, d, s))


def _rows(x: Array, at: Array) -> Array:
    """`x[at]` of places that are there: what is asked of others takes time to compile."""
    return x.at[at].get(mode="promise_in_bounds", wrap_negative_indices=False)
