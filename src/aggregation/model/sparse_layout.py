"""Sparse layout: how the ratings of one side lie in memory, so that a pass over its rows is fast.

SELL-C-sigma (Kreutzer et al. 2014, doi:10.1137/130930352): the rows of a side (its users, or its
guidelines) are sorted by number of ratings and cut into blocks of as many rows as there are lanes.
A block is a rectangle, one row a lane, one rating a line, padded to its longest row. A pass walks
down the lines of a block and adds to per-lane sums. Rows of more than twice the mean length are
cut up for several lanes, else few long rows would be most of the padding. The order of every
addition is fixed, so the result has the same bits on any number of threads.

A rating is one integer: the row on the other side, and in the last bits which of the few values
that ratings have.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from aggregation.model.parameters import Array, Parameters
from aggregation.model.ratings import Ratings

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
    lanes: tuple[int | None, int | None] = (None, None),
) -> Layout:
    """Lay ratings, sorted by user, out by user and by guideline (NumPy arrays).

    `weights` [n, W] weigh every replicate by itself; without them `ratings.weight` does. `values`:
    the different values of ratings, sorted, where there are others than these ratings have;
    `lanes` for users and for guidelines: as many as would do, unless they are given.
    """
    if weights is None and ratings.weight is not None:
        weights = ratings.weight[:, None]
    chunks = _chunks(len(ratings))
    with ThreadPoolExecutor(2) as threads:  # NumPy lets go of the interpreter while it works
        if values is None:
            values = different(ratings.helpful)
        code = np.empty(len(ratings), np.min_scalar_type(len(values)))
        squares = sum(threads.map(partial(_code, ratings.helpful, weights, values, code), chunks))
        given = ratings, code, weights, values
        users = threads.submit(_side, *given, lanes[0], by_user=True)
        guidelines = _side(*given, lanes[1], by_user=False)
    bits = _bits(values)
    values = np.concatenate([values, np.zeros((1 << bits) - len(values))])
    return Layout(users.result(), guidelines, values, squares, bits)


def _chunks(n: int) -> list[slice]:
    return [slice(at, at + CHUNK) for at in range(0, max(n, 1), CHUNK)]


def different(helpful: np.ndarray) -> np.ndarray:
    """The different values, sorted, float64."""
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(lambda chunk: np.unique(helpful[chunk]), _chunks(len(helpful)))
        return reduce(np.union1d, found).astype(np.float64)


def _bits(values: np.ndarray) -> int:
    """Bits of a code."""
    return max(int(len(values) - 1).bit_length(), 1)


def _code(
    helpful: np.ndarray,
    weights: np.ndarray | None,
    values: np.ndarray,
    code: np.ndarray,
    chunk: slice,
) -> np.ndarray:
    """Write the codes of a chunk's ratings; return its (weighted) sum of squares [W]."""
    here = helpful[chunk].astype(np.float64)
    code[chunk] = np.searchsorted(values, here)
    squares = here[:, None] ** 2 if weights is None else here[:, None] ** 2 * weights[chunk]
    return squares.sum(axis=0)


def _side(
    ratings: Ratings,
    code: np.ndarray,
    weights: np.ndarray | None,
    values: np.ndarray,
    lanes: int | None,
    *,
    by_user: bool,
) -> Side:
    """Each piece of a row is a run of the ratings sorted by row, and becomes one lane of a block.
    Some lines of a block are fetched at a time, in the order in which they lie there.
    """
    bits = _bits(values)
    (row, rows), (other, others) = ratings.sides()
    starts, which = np.searchsorted(row, np.arange(rows + 1, dtype=row.dtype)), None
    if not by_user:
        row, rows, other, others = other, others, row, rows
        numbered = weights is not None
        starts, other, code, which = _by_guideline(ratings, starts, code, numbered=numbered)
    length = np.diff(starts)
    pieces = np.maximum(-(-length // max(2 * len(row) // rows, 1)), 1)
    first = np.cumsum(pieces) - pieces  # first piece of each row
    owner = np.repeat(np.arange(rows, dtype=np.int32), pieces)
    number = np.arange(len(owner)) - first[owner]
    size = -((number - length[owner]) // pieces[owner])  # ceil: ratings of each piece
    begin = np.cumsum(size) - size
    order = np.argsort(-size, kind="stable")
    place = np.empty(len(owner), dtype=np.int32)
    place[order] = np.arange(len(owner), dtype=np.int32)
    lanes = lanes or lanes_for(len(owner))
    start = np.concatenate([[0], np.cumsum(np.maximum(size[order[::lanes]], 1))])
    kind = np.int32 if (others + 1) << bits <= np.iinfo(np.int32).max else np.int64
    entries = aligned((int(start[-1]), lanes), kind)
    entries[:] = others << bits
    weight = None if weights is None else np.zeros((*entries.shape, weights.shape[1]))
    count = np.zeros((len(owner), 1 if weights is None else weights.shape[1]))
    given = np.zeros_like(count)
    step = max(CHUNK // lanes, 1)
    for block, top in enumerate(start[:-1].tolist()):
        here = order[block * lanes : (block + 1) * lanes]
        longest = int(size[here[0]])
        for line in range(0, longest, step):
            lines = np.arange(line, min(line + step, longest))[:, None]
            at = np.minimum(begin[here] + lines, len(row) - 1)
            there = lines < size[here]
            box = slice(top + line, top + line + len(lines)), slice(len(here))
            coded = code[at]
            np.copyto(entries[box], (other[at].astype(kind) << bits) | coded, where=there)
            w = there[..., None]
            if weight is not None and weights is not None:
                w = weight[box] = w * weights[at if which is None else which[at]]
            count[here] += w.sum(axis=0)
            given[here] += (w * values[coded][..., None]).sum(axis=0)
    count, given = (np.add.reduceat(x, first) for x in (count, given))
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


def _by_guideline(
    ratings: Ratings, starts: np.ndarray, code: np.ndarray, *, numbered: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The ratings sorted by guideline: where those of each start, [guidelines + 1]; their users and
    codes; if `numbered`, which of the ratings each is.
    """
    kind = np.int32 if len(code) < 1 << 31 else np.int64
    data = np.arange(len(code), dtype=kind) if numbered else code
    shape = (ratings.n_users, ratings.n_guidelines)
    turned = csr_array((data, ratings.guideline, starts.astype(kind)), shape=shape).tocsc()
    if not numbered:
        return turned.indptr, turned.indices, turned.data, None
    which: np.ndarray = turned.data
    return turned.indptr, turned.indices, code[which], which


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
