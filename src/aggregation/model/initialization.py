"""Starts: where a search begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ratings

if TYPE_CHECKING:
    from aggregation.model.alternating import Fixed


@dataclass(frozen=True)
class Point:
    """Where to start from: its guideline side; the users' only where they are fixed."""

    kind: str
    continuation: bool
    parameters: Parameters


def plan(
    ratings: Ratings, dimensions: int, seed: int, warm_start: Parameters | None
) -> Iterator[Point]:
    """Endless starts. Uniform draws are the original's; singular vectors find what they miss."""
    g, u, d = ratings.n_guidelines, ratings.n_users, dimensions
    random = np.random.default_rng(seed)
    if ratings.weight is None:
        mean = ratings.helpful.mean(dtype=np.float64)
    else:
        mean = np.average(ratings.helpful.astype(np.float64), weights=ratings.weight)
    cold = Parameters(mean, np.zeros(u), np.zeros((u, d)), np.zeros(g), np.zeros((g, d)))

    def uniform(*, continuation: bool) -> Point:
        draw = random.random((g, 1 + d))
        drawn = replace(cold, guideline_intercept=draw[:, 0], guideline_embedding=draw[:, 1:])
        return Point("uniform", continuation, drawn)

    if warm_start is not None:
        drawn = uniform(continuation=False).parameters
        known = (
            np.where(np.isnan(a), b, a)
            for a, b in zip(warm_start.arrays(), drawn.arrays(), strict=True)
        )
        yield Point("earlier model", False, Parameters(*known))
    yield uniform(continuation=True)
    level, of_ratings, of_residuals = _singular_vectors(ratings, d + 1)
    raw = replace(cold, mu=np.float64(0.0), guideline_embedding=of_ratings[:, :d])
    yield Point("ratings 1", False, raw)
    centred = replace(cold, guideline_intercept=level, guideline_embedding=of_residuals[:, :d])
    yield Point("residuals 1", False, centred)
    yield uniform(continuation=True)
    yield Point(
        "residuals 2", False, replace(centred, guideline_embedding=of_residuals[:, 1 : 1 + d])
    )
    while True:
        yield uniform(continuation=True)
        yield uniform(continuation=False)


def holding(point: Point, warm_start: Parameters, fixed: Fixed) -> Point:
    """The point with the rows that are fixed, and mu, as the earlier model has them."""
    p = point.parameters
    users, guidelines = fixed.users, fixed.guidelines
    return replace(
        point,
        parameters=Parameters(
            warm_start.mu,
            np.where(users, warm_start.user_intercept, p.user_intercept),
            np.where(users[:, None], warm_start.user_embedding, p.user_embedding),
            np.where(guidelines, warm_start.guideline_intercept, p.guideline_intercept),
            np.where(guidelines[:, None], warm_start.guideline_embedding, p.guideline_embedding),
        ),
    )


def _singular_vectors(ratings: Ratings, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Guidelines' mean errors [G], and their first k singular vectors [G, k], largest entry 1, of
    the ratings and of what users' and guidelines' means leave.

    The first of the ratings themselves has one sign: an axis that everybody shares.
    """
    from scipy.sparse import csr_array

    r, w = ratings, np.ones(len(ratings)) if ratings.weight is None else ratings.weight
    n_u = np.maximum(np.bincount(r.user, w, r.n_users), 1e-9)
    n_g = np.maximum(np.bincount(r.guideline, w, r.n_guidelines), 1e-9)
    helpful = r.helpful.astype(np.float64)
    error = helpful - np.average(helpful, weights=w)
    level = np.zeros(r.n_guidelines)
    for _ in range(20):
        by_user = np.bincount(r.user, w * error, r.n_users) / n_u
        error = error - by_user[r.user]
        by_guideline = np.bincount(r.guideline, w * error, r.n_guidelines) / n_g
        error = error - by_guideline[r.guideline]
        level += by_guideline
    shape = (r.n_users, r.n_guidelines)
    found = []
    for values in (helpful, error):
        matrix = csr_array((w * values, (r.user, r.guideline)), shape=shape)
        other = matrix.T.tocsr()
        vectors = np.random.default_rng(0).random((r.n_guidelines, k))
        for _ in range(30):
            vectors = _orthonormal(other @ (matrix @ vectors))
        top = np.abs(vectors).max(axis=0)
        found.append(vectors / np.where(top > 0, top, 1))
    return level, found[0], found[1]


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """Gram and Schmidt's, with NumPy's own sums: those of BLAS may depend on threads."""
    out = np.zeros_like(vectors)
    for k in range(vectors.shape[1]):
        v = vectors[:, k].copy()
        for j in range(k):
            v -= (out[:, j] * v).sum() * out[:, j]
        size = np.sqrt((v * v).sum())
        out[:, k] = v / size if size > 0 else 0
    return out
