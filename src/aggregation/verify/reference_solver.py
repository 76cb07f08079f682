"""Recompute: the model a second time, in NumPy alone and by another algorithm.

`verify` holds a run against this. Nothing here comes from the rest of the package: where both
agree, neither has the other's mistakes. Formulas: docs/method.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Problem:
    """n ratings by U users of G guidelines, and the penalty."""

    user: np.ndarray
    """int [n]"""
    guideline: np.ndarray
    rating: np.ndarray
    """float64 [n], in [0, 1]"""
    size: tuple[int, int]
    """U, G"""
    intercept: float
    embedding: float
    norm: Literal["l1", "l2"]
    per: Literal["rating", "parameter"]

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ratings on either side."""
        return self.user, self.guideline

    def shares(self, side: int, axes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Number of ratings of each row, and what its intercept and embedding weigh."""
        n, rows = len(self.rating), self.size[side]
        count = np.bincount(self.sides()[side], minlength=rows).astype(float)
        if self.per == "rating":
            return count, count, count
        even = np.full(rows, n / rows)
        return count, even, even / axes


@dataclass(frozen=True)
class Point:
    """mu, intercepts ([U], [G]) and embeddings ([U, D], [G, D])."""

    mu: float
    intercepts: tuple[np.ndarray, np.ndarray]
    embeddings: tuple[np.ndarray, np.ndarray]


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


Held = tuple[np.ndarray, np.ndarray] | None
"""Rows, bool [U] and [G], that were not to move; then mu was not either."""


def residual(p: Problem, x: Point, held: Held = None) -> float:
    """The KKT residual of docs/method.md: how far zero is from the subgradient, per rating."""
    e = errors(p, x)
    worst = 0.0 if held else abs(2 * (e.mean() - p.intercept * x.mu))
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
        free = at if held is None else at[~held[side]]
        worst = np.max([worst, free.max(initial=0)])  # a number that is none stays one
    return float(worst)


def balance(p: Problem, x: Point) -> float:
    """Largest difference of the two sides' embedding penalties, by their sum, over the axes."""
    carried = []
    for side in (0, 1):
        f = x.embeddings[side]
        _, _, b = p.shares(side, f.shape[1])
        carried.append(b @ (np.abs(f) if p.norm == "l1" else f**2))
    both, apart = carried[0] + carried[1], np.abs(carried[0] - carried[1])
    return float(np.max(np.divide(apart, both, out=np.zeros_like(apart), where=both > 0)))


def descend(p: Problem, x: Point, tolerance: float, sweeps: int, held: Held = None) -> Point:
    """Cyclic coordinate descent from `x`: every number in turn goes to its own exact minimum.

    One kind of number at a time (mu, intercepts of a side, one axis of a side): those of a kind
    share no rating, so they move at once. Ends at a KKT residual of at most `tolerance`, looked
    at every 20 sweeps, or after `sweeps`.
    """
    n, e = len(p.rating), errors(p, x)
    mu, i, f = x.mu, [a.copy() for a in x.intercepts], [a.copy() for a in x.embeddings]
    axes = f[0].shape[1]
    shares = [p.shares(side, axes) for side in (0, 1)]
    for sweep in range(1, sweeps + 1):
        new = mu if held else (e.sum() + n * mu) / (n * (1 + p.intercept))
        e -= new - mu
        mu = new
        for side, row in enumerate(p.sides()):
            other, (count, a, b) = p.sides()[1 - side], shares[side]
            rows = len(count)
            move = (np.bincount(row, e, rows) + count * i[side]) / (count + p.intercept * a)
            move = move if held is None else np.where(held[side], i[side], move)
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
                move = move if held is None else np.where(held[side], f[side][:, k], move)
                e -= (move - f[side][:, k])[row] * h
                f[side][:, k] = move
        if sweep % 20 == 0 or sweep == sweeps:
            x = Point(float(mu), (i[0], i[1]), (f[0], f[1]))
            if residual(p, x, held) <= tolerance:
                break
            e = errors(p, x)
    return x


def aligned(p: Problem, end: Point, x: Point) -> Point:
    """`end` turned as `x` is, where the loss is blind to rotation: squares on several axes.

    Orthogonal Procrustes (Schoenemann 1966) over the embeddings of both sides.
    """
    if p.norm == "l1" or x.embeddings[0].shape[1] == 1:
        return end
    f, h = end.embeddings
    u, _, v = np.linalg.svd(np.concatenate([f, h]).T @ np.concatenate(x.embeddings))
    return replace(end, embeddings=(f @ u @ v, h @ u @ v))


def blocks(p: Problem) -> int:
    """How many groups of users and guidelines share no rating: the least label spreads in each."""
    label = np.arange(p.size[1])
    while True:
        users = np.full(p.size[0], p.size[1])
        np.minimum.at(users, p.user, label[p.guideline])
        before, label = label, label.copy()
        np.minimum.at(label, p.guideline, users[p.user])
        if (label == before).all():
            return len(np.unique(label))


def search(
    p: Problem, near: Point, seed: int, sweeps: int, held: Held = None
) -> Iterator[tuple[Point, float]]:
    """Ends of descents, on and on, each with its loss; rows that are held stay as in `near`.

    Each round of 32 begins with six starts at uniform numbers, in turn of one sign and of both,
    led in by a weaker penalty. The others begin at the lowest end of the round with some rows of a
    side drawn anew: where few rows carry an axis, minima lie close together.
    """
    random, best, low = np.random.default_rng(seed), near, np.inf
    for number in itertools.count():
        if number % 32 < 6:
            low = np.inf if number % 32 == 0 else low
            draw = [random.uniform(-(number % 2), 1, a.shape) for a in near.embeddings]
            even = [random.uniform(0, 1, rows) for rows in p.size]
            x = kept(Point(0.0, (even[0], even[1]), (draw[0], draw[1])), near, held)
            for strength in (1 / 3, 2 / 3):
                x = descend(replace(p, embedding=strength * p.embedding), x, 0.0, 40, held)
        else:
            f = [a.copy() for a in best.embeddings]
            one = f[random.integers(2)]
            some = random.random(len(one)) < random.choice([0.05, 0.2, 0.5])
            size = 1.5 * np.abs(one).mean() + 0.1
            one[some] = random.normal(0, size, (some.sum(), one.shape[1]))
            x = kept(replace(best, embeddings=(f[0], f[1])), near, held)
        end = descend(p, x, 1e-6, sweeps, held)
        found = loss(p, end)
        if found < low:
            best, low = end, found
        yield end, found


def kept(x: Point, near: Point, held: Held) -> Point:
    """`x` with what is held as it is in `near`."""
    if held is None:
        return x
    i = [np.where(h, b, a) for h, a, b in zip(held, x.intercepts, near.intercepts, strict=True)]
    pairs = zip(held, x.embeddings, near.embeddings, strict=True)
    f = [np.where(h[:, None], b, a) for h, a, b in pairs]
    return Point(near.mu, (i[0], i[1]), (f[0], f[1]))
