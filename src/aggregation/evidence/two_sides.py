"""Two sides: how sure it is that people on both sides of the main dividing lines find it helpful.

The fit's own embedding leaves many people at exactly 0 and moves with junk. Here the sides come
from the residuals of a model of means, and whose side a rating counts for is judged from that
user's other ratings alone. docs/method.md, "Two sides", says what each part adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import betainc, betaincinv, ndtr

from aggregation.decisions.scores import with_columns
from aggregation.model.ratings import SAMPLE, Ids, Ratings, drawn

AXES = 2
"""Dividing lines. With one, planted divisive guidelines of a second line are accepted."""

NOISE = 0.13
"""Variance of a rating around its expectation, measured on six deliberations (0.11 to 0.14)."""

MEAN_SHRINKAGE, AXIS_SHRINKAGE, POSITION_SHRINKAGE = 2.0, 5.0, 1.15
"""Ratings' worth of shrinkage: of means, of an axis, of the mean of a user's residuals."""

FULL_WEIGHT = 20
"""Other ratings after which an account counts fully: each new account costs an attacker as many."""

MOST_POOLING = 30.0
"""Ratings' worth of prior from the other side at most, where the sides do not differ."""

QUORUM = 18.0
"""Fully counted raters that a decision needs; in small deliberations, half of the most that any
guideline has."""

EACH_SIDE, BOTH_SIDES = 0.65, 0.70
"""Helpful rates that each side, and both sides counted equally, should reach."""

ALTERNATIONS, FEW_ALTERNATIONS = 60, 12
"""Between users and guidelines, for each axis; few of them near a known axis."""

COLUMNS = ("p_both_sides", "relative_raters", "n_smaller_side")
"""Of the scores, see `TwoSides.columns`."""

PART = 1 << 16
"""Ratings that are worked on at a time."""

GRID = 120
"""Intervals of [0, 1] on which the posterior of one side is integrated."""


@dataclass(frozen=True)
class TwoSides:
    """What both sides of each axis said, for G guidelines, U users and A axes."""

    n: np.ndarray
    """[A, 2, G]: weighted raters on the left and on the right side."""
    helpful: np.ndarray
    """[A, 2, G]: weighted helpful ratings of these."""
    pooling: np.ndarray
    """[A]: ratings' worth of prior that each side takes from both together."""
    beta: np.ndarray
    """[A], in [0, 1]: how much of what the axis says of a rating holds when neither its user nor
    its guideline was told. 0: there is no such division."""
    explained: np.ndarray
    """[A]: share of the variance of e that beta times the axis explains, told the same way."""
    mean: float
    """Of all ratings."""
    lenience: np.ndarray
    """[U]: how much each user is above the mean."""
    liking: np.ndarray
    """[G]: how much each guideline is."""
    guideline_axis: np.ndarray
    """[A, G]: where guidelines lie, root mean square 1."""
    user_axis: np.ndarray
    """[A, U]: where users lie; positive is the right side."""

    def predict(
        self, user: np.ndarray, guideline: np.ndarray, n_axes: int | None = None
    ) -> np.ndarray:
        """The expected rating of each pair of rows, from means and the first axes; not clipped."""
        f, h = self.user_axis[:n_axes, user], self.guideline_axis[:n_axes, guideline]
        axes = (f * h).sum(axis=0)
        return self.mean + self.lenience[user] + self.liking[guideline] + axes

    def raters(self) -> np.ndarray:
        """[G]: fully counted raters of each guideline."""
        return self.n[0].sum(axis=0)

    def relative_raters(self) -> np.ndarray:
        """[G]: raters scaled so that `QUORUM` is what a decision needs in this deliberation."""
        raters = self.raters()
        needed = min(QUORUM, raters.max(initial=0.0) / 2)
        return raters * QUORUM / needed if needed > 0 else raters

    def smaller_side(self) -> np.ndarray:
        """[G]: weighted raters on the smaller side, over the axes."""
        return self.n.min(axis=(0, 1))

    def columns(self, of: slice | np.ndarray = slice(None)) -> dict[str, np.ndarray]:
        """The columns of scores that the rule `robust` reads, for the guidelines `of` (rows)."""
        return {
            "p_both_sides": self.probability(of),
            "relative_raters": self.relative_raters()[of],
            "n_smaller_side": self.smaller_side()[of],
        }

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters a, b [A, 2, G] of the Beta posterior of each side's helpful rate.

            a = 1 + helpful + k m,   b = 1 + not helpful + k (1 - m)

        with m the rate of both sides together and k the axis's `pooling` (empirical Bayes).
        """
        total = self.n.sum(axis=1, keepdims=True)
        m = (self.helpful.sum(axis=1, keepdims=True) + 0.5) / (total + 1)
        k = self.pooling[:, None, None]
        return 1 + self.helpful + k * m, 1 + self.n - self.helpful + k * (1 - m)

    def probability(self, of: slice | np.ndarray = slice(None)) -> np.ndarray:
        """For the guidelines `of` (rows), the lowest, over the axes, of

        Pr(p_left >= EACH_SIDE, p_right >= EACH_SIDE, (p_left + p_right) / 2 >= BOTH_SIDES).
        """
        a, b = (x[:, :, of] for x in self.posterior())
        edges = np.linspace(0, 1, GRID + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        first = int(np.searchsorted(centres, EACH_SIDE))  # below it, the left side is not enough
        edges, centres = edges[first:], centres[first:]
        needed = np.clip(np.maximum(EACH_SIDE, 2 * BOTH_SIDES - centres), 0, 1)
        lowest = np.ones(a.shape[2])
        for axis in range(len(self.n)):
            left = np.diff(betainc(a[axis, 0][:, None], b[axis, 0][:, None], edges), axis=1)
            right = 1 - betainc(a[axis, 1][:, None], b[axis, 1][:, None], needed)
            lowest = np.minimum(lowest, (left * right).sum(axis=1))
        return lowest


def two_sides(ratings: Ratings, axes: int = AXES, near: TwoSides | None = None) -> TwoSides:
    """What both sides of the `axes` strongest dividing lines said of each guideline.

    Deterministic. `ratings.weight`, where given, says how often each rating counts; ratings of
    weight 0 tell nothing of anybody. `near`: the sides of much the same ratings, from whose axes
    the search begins, which spares most of it; guidelines that it does not have come last. Of two
    million ratings and more, the sides of a sample are near.

    1. mu, user and guideline effects by alternating shrunken means; e: what they leave.
    2. An axis: f_u = sum e h / (sum h^2 + 5 mean h^2) and the same for h_g, alternating; the next
       axis from e - f h.
    3. A user's place without the guideline judged, x: ridge regression of the other residuals on
       h, with a mean of their own; the strength of the ridge by moments over all users.
       P(right side) = Phi(beta x / sd), beta the slope of e on x_u(-g) h_g(-u).
    4. A rating counts min(1, (n_u - 1) / 20), shared between the sides by P(right side).
    """
    if near is None and len(ratings) >= 4 * SAMPLE:
        near = two_sides(ratings.of_users(drawn(ratings.per_user(), SAMPLE, 0)), axes)
    u, g, size = ratings.user, ratings.guideline, (ratings.n_users, ratings.n_guidelines)
    w = np.ones(len(u)) if ratings.weight is None else np.asarray(ratings.weight, np.float64)
    # What is known of each rating is worked out for a part of them at a time: that takes less
    # memory and, since a part fits a processor's cache, less time.
    parts = [slice(at, at + PART) for at in range(0, len(u), PART)]

    def y(part: slice) -> np.ndarray:
        return ratings.helpful[part].astype(np.float64)

    # Not w @ y, whose bits depend on the threads of BLAS.
    mu = sum(float((w[part] * y(part)).sum()) for part in parts) / w.sum()
    (n_u, by_u), (n_g, by_g) = np.zeros((2, size[0])), np.zeros((2, size[1]))
    for part in parts:
        values = w[part], w[part] * (y(part) - mu)
        _add((n_u, by_u), u[part], values)
        _add((n_g, by_g), g[part], values)
    weights = ratings.matrix(w)
    user, guideline = np.zeros(size[0]), np.zeros(size[1])
    for _ in range(10):
        guideline = (by_g - weights.T @ user) / (n_g + MEAN_SHRINKAGE)
        user = (by_u - weights @ guideline) / (n_u + MEAN_SHRINKAGE)
    e, accounts = np.empty(len(u)), np.zeros((1, size[0]))
    for part in parts:
        e[part] = y(part) - mu - user[u[part]] - guideline[g[part]]
        _add(accounts, u[part], [(w[part] > 0).astype(np.float64)])
    full = np.clip((accounts[0] - 1) / FULL_WEIGHT, 0, 1)
    n, helpful = np.zeros((axes, 2, size[1])), np.zeros((axes, 2, size[1]))
    pooling, beta, explained = np.empty(axes), np.empty(axes), np.empty(axes)
    guideline_axis, user_axis = np.empty((axes, size[1])), np.empty((axes, size[0]))
    for axis in range(axes):
        errors = ratings.matrix(e if ratings.weight is None else w * e)
        h, f, told, weighed = _axis(errors, weights, *_begin(near, axis, size[1]))

        def seen(part: slice, h: np.ndarray = h) -> list[np.ndarray]:
            """What a rating adds to its user's sums of h^2, h, h r and r, r but for the user."""
            of_g = h[g[part]]
            r = y(part) - mu - guideline[g[part]]
            return [w[part] * v for v in (of_g * of_g, of_g, of_g * r, r)]

        sums = np.zeros((4, size[0]))
        for part in parts:
            _add(sums, u[part], seen(part))
        ridge = _ridge(sums, n_u)
        sure, squares = np.empty(len(u)), np.zeros(3)
        for part in parts:
            whose, which, error = u[part], g[part], e[part]
            others = [total[whose] - v for total, v in zip(sums, seen(part), strict=True)]
            a, b = _moments(others, n_u[whose] - w[part])
            place = b / (a + ridge)
            sure[part] = place / np.sqrt(NOISE / (a + ridge))
            # h of the guideline without this user's own rating
            own = w[part] * f[whose]
            without = (told[which] - own * error) / (weighed[which] - own * f[whose])
            guess = place * without
            pairs = (error, guess), (guess, guess), (error, error)
            squares += [(w[part] * v * x).sum() for v, x in pairs]
        beta[axis] = np.clip(squares[0] / max(squares[1], 1e-12), 0, 1)
        left = squares @ [-2 * beta[axis], beta[axis] ** 2, 1]
        explained[axis] = 1 - left / max(squares[2], 1e-12)
        for part in parts:
            right = ndtr(beta[axis] * sure[part])
            counted, rated = w[part] * full[u[part]], y(part)
            for side, share in enumerate((1 - right, right)):
                values = counted * share, counted * share * rated
                _add((n[axis, side], helpful[axis, side]), g[part], values)
            e[part] -= f[u[part]] * h[g[part]]
        pooling[axis] = _pooling(n[axis], helpful[axis])
        guideline_axis[axis], user_axis[axis] = h, f
    return TwoSides(
        *(n, helpful, pooling, beta, explained, float(mu), user, guideline),
        guideline_axis=guideline_axis,
        user_axis=user_axis,
    )


def _add(
    totals: Sequence[np.ndarray] | np.ndarray, rows: np.ndarray, values: Sequence[np.ndarray]
) -> None:
    """Add each of the values of ratings to a total of its own, at the rows of the ratings."""
    for total, value in zip(totals, values, strict=True):
        np.add.at(total, rows, value)


def _begin(near: TwoSides | None, axis: int, n_guidelines: int) -> tuple[np.ndarray, int]:
    """Where to begin an axis, [G], and how many alternations it takes from there."""
    if near is None:
        return np.random.default_rng(axis).standard_normal(n_guidelines), ALTERNATIONS
    known = near.guideline_axis[axis]
    return np.pad(known, (0, n_guidelines - len(known))), FEW_ALTERNATIONS


def _axis(
    errors: csr_array, weights: csr_array, h: np.ndarray, times: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An axis by alternation from `h`: h [G], f [U], and what h is the quotient of, [G] and [G].

    `errors` (weighted) and `weights` are [U, G].
    """
    errors_by_guideline, weights_by_guideline = errors.T, weights.T
    f, told, weighed = np.zeros(0), h, np.ones_like(h)
    for _ in range(times):
        h = h / max(np.sqrt((h**2).mean()), 1e-15)
        f = (errors @ h) / np.maximum(weights @ h**2 + AXIS_SHRINKAGE * (h**2).mean(), 1e-15)
        told = errors_by_guideline @ f
        weighed = weights_by_guideline @ f**2 + max(AXIS_SHRINKAGE * (f**2).mean(), 1e-15)
        h = told / weighed
    return h / max(np.sqrt((h**2).mean()), 1e-15), f, told, weighed


def _ridge(sums: np.ndarray, n: np.ndarray) -> float:
    """What places are shrunk by: noise / tau^2, tau^2 = sum(B^2 - noise A) / sum A^2 of users."""
    a, b = _moments(sums, n)
    return NOISE / max((b**2 - NOISE * a).sum() / max((a**2).sum(), 1e-12), 1e-4)


def _moments(
    sums: Sequence[np.ndarray] | np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of a user's ratings, A = sum h^2 - (sum h)^2 / m and B = sum h r - sum h sum r / m, with
    m = 1.15 n. The user's place is B / (A + ridge), its variance noise / (A + ridge).
    """
    hh, h, hr, r = sums
    m = np.maximum(POSITION_SHRINKAGE * n, 1e-9)
    return np.maximum(hh - h**2 / m, 0.0), hr - h * r / m


def _pooling(n: np.ndarray, helpful: np.ndarray) -> float:
    """Ratings' worth of prior from both sides together, by moments; n, helpful [2, G].

    With v = m (1 - m) and t^2 the variance of a side's rate around m beyond chance,
    k = v / t^2 - 1: few prior ratings where the sides truly differ, up to `MOST_POOLING` where they
    do not. A guideline counts (2 m - 1)^2: junk, which nobody can agree on, tells nothing of how
    alike the sides are.
    """
    rate = helpful / np.maximum(n, 1)
    m = (helpful.sum(axis=0) + 0.5) / (n.sum(axis=0) + 1)
    weight = (n > 3).all(axis=0) * (2 * m - 1) ** 2
    if not weight.any():
        return 3.0
    chance = m * (1 - m) * (1 / np.maximum(n, 1)).sum(axis=0)
    apart = np.average((rate[0] - rate[1]) ** 2 - chance, weights=weight) / 4
    v = np.average(m * (1 - m), weights=weight)
    return float(np.clip(v / max(apart, 5e-5) - 1, 0, MOST_POOLING))


def with_two_sides(scores: pd.DataFrame, sides: TwoSides, ids: Ids) -> pd.DataFrame:
    """Scores with `TwoSides.columns`; NaN for guidelines without ratings."""
    return with_columns(scores, ids, sides.columns())


def by_axis(scores: pd.DataFrame, sides: TwoSides, ids: Ids) -> pd.DataFrame:
    """Scores with what each side of each axis said, and lowest_side_rate, the lowest of them.

    For axis 1, 2, ... and side left, right: raters_axis_1_left (weighted), and of the posterior of
    the helpful rate rate_axis_1_left, its mean, and rate_axis_1_left_low and _high, its 5 % and
    95 % quantiles.
    """
    a, b = sides.posterior()
    rate, columns = a / (a + b), {}
    low, high = (betaincinv(a, b, q) for q in (0.05, 0.95))
    for axis in range(len(rate)):
        for side, word in enumerate(("left", "right")):
            name = f"rate_axis_{axis + 1}_{word}"
            columns[name.replace("rate", "raters", 1)] = sides.n[axis, side]
            columns[name] = rate[axis, side]
            columns[f"{name}_low"], columns[f"{name}_high"] = low[axis, side], high[axis, side]
    columns["lowest_side_rate"] = rate.min(axis=(0, 1))
    return with_columns(scores, ids, columns)
