"""The model: its parameters, its penalty, what it predicts, and the loss that a fit minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from aggregation.errors import InputError
from aggregation.ratings import Ids, Ratings

Array = Any  # a NumPy or a JAX array


@dataclass(frozen=True)
class Parameters:
    """What the model learns, for U users, G guidelines and D axes (`dimensions`).

    `layout`, the first to need JAX, registers it as a pytree.
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


@dataclass(frozen=True)
class Penalty:
    """Strength of the regularisation, per rating. Defaults: the original's `cn_loss`."""

    intercept: float = 0.15
    """lambda_i, on the squares of mu and of all intercepts."""
    embedding: float = 0.03
    """lambda_f, on the absolute values of all embeddings."""


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
    """The loss of the original notebook (`cn_loss`), a scalar:

        [ sum (r - y)^2 + l_i (sum n_u i_u^2 + n mu^2 + sum n_g i_g^2)
                        + l_f (sum n_u |f_u|_1 + sum n_g |f_g|_1) ] / n

    n_u and n_g count the ratings of a user and of a guideline, n all ratings; |.|_1 is the sum of
    absolute values. NumPy arrays give NumPy float64; JAX arrays give JAX, differentiable in
    `parameters` (for float64 under `jax.enable_x64(True)`).
    """
    p, n = parameters, len(ratings)
    n_u, n_g = ratings.per_user(), ratings.per_guideline()
    error = ratings.helpful - predict(p, ratings.user, ratings.guideline)
    intercepts = (
        (n_u * p.user_intercept**2).sum() + n * p.mu**2 + (n_g * p.guideline_intercept**2).sum()
    )
    embeddings = (n_u[:, None] * abs(p.user_embedding)).sum() + (
        n_g[:, None] * abs(p.guideline_embedding)
    ).sum()
    squares = (error**2).sum()
    return (squares + penalty.intercept * intercepts + penalty.embedding * embeddings) / n


def to_tables(parameters: Parameters, ids: Ids) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users and guidelines as tables: id, intercept, embedding (list of D floats)."""
    p = parameters
    sides = (
        ("user_id", ids.users, p.user_intercept, p.user_embedding),
        ("guideline_id", ids.guidelines, p.guideline_intercept, p.guideline_embedding),
    )
    users, guidelines = (
        pd.DataFrame(
            {key: index, "intercept": intercept, "embedding": [row.tolist() for row in embedding]}
        )
        for key, index, intercept, embedding in sides
    )
    return users, guidelines


def from_tables(
    users: pd.DataFrame, guidelines: pd.DataFrame, mu: float | None, ids: Ids, dimensions: int
) -> Parameters | None:
    """Parameters in the order of `ids`, from tables as `to_tables` writes them.

    NaN where an id, its intercept or its embedding is unknown; None if nothing is known at all.
    Raises InputError where an embedding has another length than `dimensions`.
    """
    user = _from_table(users, "user_id", ids.users, dimensions)
    guideline = _from_table(guidelines, "guideline_id", ids.guidelines, dimensions)
    if np.isnan(user).all() and np.isnan(guideline).all():
        return None
    mu = np.nan if mu is None else mu
    return Parameters(np.float64(mu), user[:, 0], user[:, 1:], guideline[:, 0], guideline[:, 1:])


def _from_table(table: pd.DataFrame, key: str, index: pd.Index, dimensions: int) -> np.ndarray:
    """[rows, 1 + D]: intercept and embedding."""
    out = np.full((len(index), 1 + dimensions), np.nan)
    known = table[table["intercept"].notna() & table["embedding"].notna()]
    at = index.get_indexer(pd.Index(known[key]))
    for row, intercept, embedding in zip(at, known["intercept"], known["embedding"], strict=True):
        if len(embedding) != dimensions:
            raise InputError(
                f"the earlier model has embeddings of length {len(embedding)}, but "
                f"train.dimensions is {dimensions}: set it to {len(embedding)}, or set "
                "train.warm_start: false"
            )
        if row >= 0:
            out[row] = [intercept, *embedding]
    return out
