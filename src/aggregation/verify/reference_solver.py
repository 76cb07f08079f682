"""Reference solver: the loss, its KKT residual and its local minima, in NumPy alone.

A run is checked against this second implementation. It uses another algorithm (cyclic coordinate
descent) and imports nothing of this package, so the two share no mistake. Formulas: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

CONTINUATION = (1 / 3, 2 / 3)
"""Strengths of the embedding penalty that a start goes through before its full strength."""

CONTINUATION_SWEEPS = 40
"""Sweeps at each of them."""


@dataclass(frozen=True)
class Problem:
    """n ratings by U users of G guidelines, the penalty, and rows that may not move."""

    user: np.ndarray
    """int [n]"""
    guideline: np.ndarray
    """int [n]"""
    rating: np.ndarray
    """float64 [n], in [0, 1]"""
    size: tuple[int, int]
    """U, G"""
    intercept: float
    embedding: float
    norm: Literal["l1", "l2"]
    per: Literal["rating", "parameter"]
    fixed: tuple[np.ndarray, np.ndarray] | None = None
    """Rows that may not move, bool [U] and [G]; then mu may not move either."""

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ratings on either side."""
        return self.user, self.guideline

    def shares(self, side: int, axes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Number of ratings of each row, and the weights of its intercept and embedding."""
        n, rows = len(self.rating), self.size[side]
        count = np.bincount(self.sides()[side], minlength=rows).astype(float)
        if self.per == "rating":
            return count, count, count
        even = np.full(rows, n / rows)
        return count, even, even / axes

    def free(self, side: int) -> np.ndarray:
        """Rows of a side that may move, bool."""
        return np.ones(self.size[side], bool) if self.fixed is None else ~self.fixed[side]


@dataclass(frozen=True)
class Point:
    """mu, intercepts ([U], [G]) and embeddings ([U, D], [G, D])."""

    mu: float
    intercepts: tuple[np.ndarray, np.ndarray]
    embeddings: tuple[np.ndarray, np.ndarray]

    def arrays(self) -> tuple[float | np.ndarray, ...]:
        """All numbers."""
        return (self.mu, *self.intercepts, *self.embeddings)


def errors(p: Problem, x: Point) -> np.ndarray:
    """Rating less prediction, [n]."""
    (i, j), (f, h) = x.intercepts, x.embeddings
    product = np.einsum("nd,nd->n", f[p.user], h[p.guideline])
    return p.rating - x.mu - i[p.user] - j[p.guideline] - product


def loss(p: Problem, x: Point) -> float:
    """The loss of docs/method.md."""
    n = len(p.rating)
    total = float(np.sum(errors(p, x) ** 2)) + p.intercept * n * x.mu**2
    for side in (0, 1):
        i, f = x.intercepts[side], x.embeddings[side]
        _, a, b = p.shares(side, f.shape[1])
        size = np.abs(f) if p.norm == "l1" else f**2
        total += p.intercept * float(a @ i**2) + p.embedding * float(b @ size.sum(axis=1))
    return total / n


def residual(p: Problem, x: Point) -> float:
    """The KKT residual of docs/method.md: how far zero is from the subgradient, per rating."""
    e = errors(p, x)
    worst = abs(2 * (e.mean() - p.intercept * x.mu)) if p.fixed is None else 0.0
    for side, row in enumerate(p.sides()):
        i, f, h = x.intercepts[side], x.embeddings[side], x.embeddings[1 - side]
        other = p.sides()[1 - side]
        count, a, b = p.shares(side, f.shape[1])
        at = np.abs(2 * (p.intercept * a * i - np.bincount(row, e, len(i))) / count)
        for k in range(f.shape[1]):
            slope = -2 * np.bincount(row, e * h[other, k], len(i)) / count
            bound, here = p.embedding * b / count, f[:, k]
            if p.norm == "l2":
                away = np.abs(slope + 2 * bound * here)
            else:
                on = np.abs(slope + bound * np.sign(here))
                away = np.where(here != 0, on, np.maximum(np.abs(slope) - bound, 0))
            at = np.maximum(at, away)
        worst = np.max([worst, *at[p.free(side)]])  # NaN stays NaN
    return float(worst)


def descend(p: Problem, x: Point, tolerance: float, sweeps: int) -> Point:
    """Cyclic coordinate descent from `x`: every number in turn moves to its own exact minimum.

    Numbers of one kind (mu, intercepts of a side, one axis of a side) share no rating, so they move
    at once. Ends at a KKT residual of at most `tolerance`, checked every 20 sweeps, or after
    `sweeps`.
    """
    n, e = len(p.rating), errors(p, x)
    mu, i, f = x.mu, [a.copy() for a in x.intercepts], [a.copy() for a in x.embeddings]
    axes = f[0].shape[1]
    shares = [p.shares(side, axes) for side in (0, 1)]
    for sweep in range(1, sweeps + 1):
        new = (e.sum() + n * mu) / (n * (1 + p.intercept)) if p.fixed is None else mu
        e -= new - mu
        mu = new
        for side, row in enumerate(p.sides()):
            other, (count, a, b) = p.sides()[1 - side], shares[side]
            rows, free = len(count), p.free(side)
            move = (np.bincount(row, e, rows) + count * i[side]) / (count + p.intercept * a)
            move = np.where(free, move, i[side])
            e -= (move - i[side])[row]
            i[side] = move
            for k in range(axes):
                h = f[1 - side][other, k]
                curve = np.bincount(row, h * h, rows)
                pull = np.bincount(row, e * h, rows) + curve * f[side][:, k]
                if p.norm == "l1":
                    pull = np.sign(pull) * np.maximum(np.abs(pull) - p.embedding * b / 2, 0)
                else:
                    curve = curve + p.embedding * b
                move = np.divide(pull, curve, out=np.zeros(rows), where=curve > 0)
                move = np.where(free, move, f[side][:, k])
                e -= (move - f[side][:, k])[row] * h
                f[side][:, k] = move
        if sweep % 20 == 0 or sweep == sweeps:
            x = Point(float(mu), (i[0], i[1]), (f[0], f[1]))
            if residual(p, x) <= tolerance:
                break
            e = errors(p, x)
    return x


def search(p: Problem, near: Point, seed: int, starts: int, sweeps: int) -> Iterator[Point]:
    """End of a descent from each of so many random starts; fixed rows stay as in `near`.

    Embeddings begin uniform, of one sign and of both in turn, under a weaker penalty.
    """
    random = np.random.default_rng(seed)
    for number in range(starts):
        f = [random.uniform(-(number % 2), 1, a.shape) for a in near.embeddings]
        i = [random.uniform(0, 1, rows) for rows in p.size]
        for side in (0, 1) if p.fixed is not None else ():
            free = p.free(side)
            i[side] = np.where(free, i[side], near.intercepts[side])
            f[side] = np.where(free[:, None], f[side], near.embeddings[side])
        x = Point(0.0 if p.fixed is None else near.mu, (i[0], i[1]), (f[0], f[1]))
        for strength in CONTINUATION:
            weaker = replace(p, embedding=strength * p.embedding)
            x = descend(weaker, x, 0.0, CONTINUATION_SWEEPS)
        yield descend(p, x, 1e-6, sweeps)
