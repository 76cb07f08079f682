"""Initialization: the points where descents start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from aggregation.model.parameters import Parameters, filled
from aggregation.model.ratings import Ratings


@dataclass(frozen=True)
class Point:
    """A start. Descents use its mu and guidelines, and its users only where they are fixed."""

    kind: str
    """earlier model, uniform, or the k-th singular vectors of the ratings or of the residuals."""
    continuation: bool
    """Whether the embedding penalty grows to its full strength."""
    parameters: Parameters


def starting_points(
    ratings: Ratings, dimensions: int, seed: int, warm_start: Parameters | None
) -> Iterator[Point]:
    """Starts without end: first the warm start, if there is one.

    Then uniform draws, as the original's, and singular vectors, which find minima that the draws
    miss.
    """
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
        yield Point("earlier model", False, filled(warm_start, drawn))
    yield uniform(continuation=True)
    level, of_ratings, of_residuals = _singular_vectors(ratings, d + 1)
    raw = replace(cold, mu=np.float64(0.0), guideline_embedding=of_ratings[:, :d])
    yield Point("ratings 1", False, raw)
    centred = replace(cold, guideline_intercept=level, guideline_embedding=of_residuals[:, :d])
    yield Point("residuals 1", False, centred)
    yield uniform(continuation=True)
    second = replace(centred, guideline_embedding=of_residuals[:, 1 : 1 + d])
    yield Point("residuals 2", False, second)
    while True:
        yield uniform(continuation=True)
        yield uniform(continuation=False)


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
    """Gram-Schmidt with NumPy's own sums: sums by BLAS may depend on the number of threads."""
    out = np.zeros_like(vectors)
    for k in range(vectors.shape[1]):
        v = vectors[:, k].copy()
        for j in range(k):
            v -= (out[:, j] * v).sum() * out[:, j]
        size = np.sqrt((v * v).sum())
        out[:, k] = v / size if size > 0 else 0
    return out
