"""Parameters: what the model learns, its penalty, its predictions and its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Interval

from aggregation.errors import InputError
from aggregation.model.ratings import Ids, Ratings

if TYPE_CHECKING:
    import pandas as pd

Array = Any  # a NumPy or a JAX array


@dataclass(frozen=True)
class Parameters:
    """What the model learns, for U users, G guidelines and D axes (`dimensions`).

    `sparse_layout` registers it as a pytree, so that this module does not load JAX.
    """

    mu: Array
    """Global intercept, a scalar."""
    user_intercept: Array
    """[U]"""
    user_embedding: Array
    """[U, D]"""
    guideline_intercept: Array
    """[G]"""
    guideline_embedding: Array
    """[G, D]"""

    def arrays(self) -> tuple[Array, ...]:
        """All of them, in the order above."""
        return tuple(vars(self).values())

    def sides(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Users' (intercept, embedding), and guidelines'."""
        return (
            (self.user_intercept, self.user_embedding),
            (self.guideline_intercept, self.guideline_embedding),
        )

    def check(self, name: str, ratings: Ratings, *, unknown: bool) -> None:
        """Raise InputError unless the arrays fit the users and guidelines of `ratings`.

        `name`: the argument, for the message. `unknown`: whether NaN is allowed, for what an
        earlier model does not know. Infinite numbers never are.
        """
        axes = max(int(np.prod(np.shape(self.user_embedding)[1:])), 1)
        users, guidelines = ratings.n_users, ratings.n_guidelines
        shapes = ((), (users,), (users, axes), (guidelines,), (guidelines, axes))
        for (field, x), shape in zip(vars(self).items(), shapes, strict=True):
            if np.shape(x) != shape:
                raise InputError(
                    f"{name}.{field} has shape {np.shape(x)}: these ratings are by "
                    f"{ratings.n_users} users of {ratings.n_guidelines} guidelines"
                )
            if np.isinf(x).any() or (np.isnan(x).any() and not unknown):
                raise InputError(f"{name}.{field} holds a number that is not finite")


@dataclass(frozen=True)
class Penalty:
    """The regularisation. Defaults: `aligned`, the original's `cn_loss`."""

    intercept: Annotated[float, Interval(gt=0, lt=math.inf)] = 0.15
    """lambda_i, on the squares of mu and of all intercepts. Original: 0.15."""
    embedding: Annotated[float, Interval(gt=0, lt=math.inf)] = 0.03
    """lambda_f, on the embeddings. Original: 0.03."""
    norm: Literal["l1", "l2"] = "l1"
    """Of an embedding: the sum of absolute values, or of squares."""
    per: Literal["rating", "parameter"] = "rating"
    """What counts alike: every rating, so that a row is penalised as often as it was rated; or
    every parameter, so that the penalty is a mean over rows (and axes)."""

    def shares(self, count: Array, mean: Array, dimensions: int) -> tuple[Array, Array]:
        """Weights of the rows' intercepts and embeddings in n times the loss.

        `count` [rows, ...]: (weighted) number of ratings of each row; both results are like it.
        `mean` [...]: its mean over all rows of the side.
        """
        if self.per == "rating":
            return count, count
        even = 0 * count + mean
        return even, even / dimensions

    def size(self, embedding: Array) -> Array:
        """abs(f) or f^2, elementwise."""
        return abs(embedding) if self.norm == "l1" else embedding**2


ALIGNED = Penalty()
"""The original notebook's `cn_loss`."""
COMMUNITY_NOTES = Penalty(norm="l2", per="parameter")
"""Community Notes: mean(err^2) + .15 (mean i_u^2 + mean i_g^2 + mu^2)
+ .03 (mean f_u^2 + mean f_g^2); numbers as in the original, theirs change over time."""


def filled(parameters: Parameters, other: Parameters) -> Parameters:
    """`parameters`, with the values of `other` where they are NaN."""
    pairs = zip(parameters.arrays(), other.arrays(), strict=True)
    return Parameters(*(np.where(np.isnan(x), y, x) for x, y in pairs))


def reindex(parameters: Parameters, ids: Ids, to: Ids) -> Parameters:
    """Parameters in the order of other ids: NaN for those that are not among `ids`."""
    sides = []
    pairs = zip(ids.sides(), to.sides(), parameters.sides(), strict=True)
    for (_, known), (_, index), side in pairs:
        at = known.get_indexer(index)
        for x in side:
            moved = x[at]
            moved[at < 0] = np.nan
            sides.append(moved)
    return Parameters(parameters.mu, *sides)


def known_rows(parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Users, bool [U], and guidelines, bool [G], of which no number is NaN."""
    users, guidelines = (~np.isnan(i + f.sum(axis=1)) for i, f in parameters.sides())
    return users, guidelines


def predict(parameters: Parameters, user: Array, guideline: Array) -> Array:
    """y_ug = mu + i_u + i_g + f_u . f_g for each pair (user[k], guideline[k]); shape [n].

    The prediction is on the scale of a rating (0 not helpful, 1 helpful) but is not clipped.
    """
    p = parameters
    return (
        p.mu
        + p.user_intercept[user]
        + p.guideline_intercept[guideline]
        + (p.user_embedding[user] * p.guideline_embedding[guideline]).sum(axis=-1)
    )


def loss(parameters: Parameters, ratings: Ratings, penalty: Penalty) -> Array:
    """The loss that a fit minimises, a scalar:

        [ sum w (r - y)^2 + l_i (sum a_u i_u^2 + n mu^2 + sum a_g i_g^2)
                          + l_f (sum b_u |f_u|   + sum b_g |f_g|) ] / n

    w are the ratings' weights (1 if there are none) and n their sum; a and b come from
    `Penalty.shares`. With `aligned` both are n_u and n_g, the (weighted) numbers of ratings of a
    user and of a guideline, and |.| is the sum of absolute values: `cn_loss` of the original
    notebook. NumPy arrays give NumPy float64; JAX arrays give JAX, differentiable in
    `parameters` (for float64 under `jax.enable_x64(True)`).
    """
    p = parameters
    w = np.ones(len(ratings)) if ratings.weight is None else ratings.weight
    n, d = w.sum(), p.user_embedding.shape[1]
    error = ratings.helpful - predict(p, ratings.user, ratings.guideline)
    total = (w * error**2).sum() + penalty.intercept * n * p.mu**2
    for (row, rows), (intercept, embedding) in zip(ratings.sides(), p.sides(), strict=True):
        count = np.bincount(row, w, rows)
        a, b = penalty.shares(count, count.mean(), d)
        total += penalty.intercept * (a * intercept**2).sum()
        total += penalty.embedding * (b[:, None] * penalty.size(embedding)).sum()
    return total / n


def from_tables(
    users: pd.DataFrame, guidelines: pd.DataFrame, mu: float | None, ids: Ids, dimensions: int
) -> Parameters | None:
    """Parameters in the order of `ids`, from tables with id, intercept, embedding (a list).

    NaN where an id, its intercept or its embedding is unknown; None if nothing is known at all.
    Raises InputError where an embedding has another length than `dimensions`.
    """
    import pandas as pd

    sides = []
    for table, (key, index) in zip((users, guidelines), ids.sides(), strict=True):
        known = table.dropna(subset=["intercept", "embedding"])
        known = known[known[key].isin(index)]
        for length in known["embedding"].map(len):
            if length != dimensions:
                raise InputError(
                    f"the earlier model has embeddings of length {length}, but dimensions is "
                    f"{dimensions}: set it to {length}, or fit without a warm start"
                )
        side = np.full((len(index), 1 + dimensions), np.nan)
        rows = index.get_indexer(pd.Index(known[key]))
        side[rows, 0] = known["intercept"]
        side[rows, 1:] = np.array(known["embedding"].tolist()).reshape(-1, dimensions)
        sides += [side[:, 0], side[:, 1:]]
    if all(np.isnan(x).all() for x in sides):
        return None
    return Parameters(np.float64(np.nan if mu is None else mu), *sides)
