"""Bootstrap: would the same guidelines win if other people had come?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtri

from aggregation.decisions.rules import ACCEPTED, Rule
from aggregation.decisions.scores import rate, with_columns
from aggregation.errors import InputError
from aggregation.evidence.two_sides import COLUMNS as TWO_SIDES, TwoSides, two_sides
from aggregation.model.fit import Fit
from aggregation.model.initialization import starting_points
from aggregation.model.multistart import CLOSE_LOSS, Settings
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import SAMPLE, Ids, Ratings
from aggregation.model.refit import BATCHES_AT_ONCE, refit

REPLICATES = 200
LOWER_LOSS, ENOUGH, MOST_STARTS = 1e-4, 0.01, 8
"""A start helped a replicate if it lowered the loss by more than this, relative; starts are added
until one helps fewer than this share of the replicates, and at most so many."""

ROUGH = Settings(tolerance=1e-4)
"""Of refits: resamples differ by far more than this."""

RESAMPLED = {"n_ratings", "helpful_rate", "intercept"} | set(TWO_SIDES)
"""Columns of the scores that are known for resampled users."""

Callback = Callable[[str], None]
"""Called with the name of each step."""


@dataclass(frozen=True)
class Bootstrap:
    """Scores of R resamples of the users, for G guidelines."""

    columns: dict[str, np.ndarray]
    """Column of the scores -> [G, R]."""
    full: dict[str, np.ndarray]
    """The same columns for all users as they are, [G]."""
    starts: int
    """Starts of each refit."""
    missed: float | None
    """Share of the replicates that the last start still lowered: how many others may be above their
    lowest minimum. None where there was one start."""

    def interval(self, column: str, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper percentile [G] of a column."""
        tail = (1 - level) / 2
        low, high = np.nanquantile(self.columns[column], [tail, 1 - tail], axis=1)
        return low, high

    def ranks(self, column: str = "intercept", level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Percentiles [G] of the rank by a column, 1 the highest."""
        order = np.argsort(np.argsort(-self.columns[column], axis=0, kind="stable"), axis=0) + 1
        tail = (1 - level) / 2
        low, high = np.quantile(order, [tail, 1 - tail], axis=1)
        return low, high

    def p_accept(self, rule: Rule) -> np.ndarray:
        """[G]: probability that the rule accepts if as many other people come.

        Resamples are noisier than the sample, which biases them. So each column is recentred,
        x + x* - mean x*, probabilities on the probit scale, before the rule judges.
        benchmarks/calibration.py measures how well that foretells what other people decide.
        """
        moved = {}
        for condition in rule.conditions:
            name = condition.column
            x, drawn = self.full[name][:, None], self.columns[name]
            if name.startswith("p_"):
                x, drawn = _probit(x), _probit(drawn)
            moved[name] = x + drawn - np.nanmean(drawn, axis=1, keepdims=True)
        scaled = replace(
            rule,
            conditions=tuple(
                replace(c, bound=float(_probit(c.bound))) if c.column.startswith("p_") else c
                for c in rule.conditions
            ),
        )
        return (scaled.verdicts(moved) == ACCEPTED).mean(axis=1)


def _probit(p: np.ndarray | float) -> np.ndarray:
    return ndtri(np.clip(p, 1e-9, 1 - 1e-9))


def user_weights(n_users: int, replicates: int, seed: int) -> np.ndarray:
    """How often each user was drawn, float64 [U, R]."""
    random = np.random.default_rng(seed)
    even = np.full(n_users, 1 / n_users)
    return random.multinomial(n_users, even, size=replicates).T.astype(np.float64)


def many(ratings: Ratings) -> bool:
    """Whether cold refits would take minutes: there are a million ratings and more."""
    return len(ratings) >= 2 * SAMPLE


def best_refits(
    ratings: Ratings,
    weights: np.ndarray,
    fit: Fit,
    seed: int = 0,
    callback: Callback | None = None,
) -> tuple[np.ndarray, int, float | None]:
    """Guideline intercepts [G, R] of the lowest of several refits, how many starts, and `missed`.

    Starts: the fit, its other minima, then cold starts as a search makes them; of `many` ratings
    the fit and what is close to it. A refit from the fit alone can stay in a minimum that is not
    the lowest.
    """
    dimensions = fit.parameters.user_embedding.shape[1]
    cold = starting_points(ratings, dimensions, seed, None)
    highest = fit.objective * (1 + CLOSE_LOSS) if many(ratings) else np.inf
    warm = [m.parameters for m in fit.minima[:3] if m.objective <= highest]
    best, intercept, number = np.inf, np.zeros(()), 0
    missed: float | None = None
    for number in range(len(warm) if many(ratings) else MOST_STARTS):
        if callback is not None:
            callback(f"refits from start {number + 1}")
        start = warm[number] if number < len(warm) else next(cold).parameters
        found = refit(ratings, weights, start, fit.penalty, ROUGH)
        new = np.asarray(found.parameters.guideline_intercept)
        lower = found.objective < best * (1 - LOWER_LOSS)
        intercept = np.where(found.objective < best, new, intercept)
        best = np.minimum(best, found.objective)
        if number > 0:
            missed = float(lower.mean())
            if number >= len(warm) and missed < ENOUGH:
                break
    return intercept, number + 1, missed


def resampled(rule: Rule) -> bool:
    """Whether it is known what a rule decides with other users."""
    return all(c.column in RESAMPLED for c in rule.conditions)


def levels(
    ratings: Ratings, weights: np.ndarray, near: Parameters, penalty: Penalty, rule: Rule
) -> np.ndarray:
    """Guideline intercepts [G, R] with each of R weightings [n, R]: those of refits, or of `near`
    where the rule does not read them.
    """
    if weights.shape[1] and "intercept" in (c.column for c in rule.conditions):
        return refit(ratings, weights, near, penalty, ROUGH).parameters.guideline_intercept
    size = ratings.n_guidelines, weights.shape[1]
    return np.broadcast_to(near.guideline_intercept[:, None], size)


def rule_columns(
    ratings: Ratings,
    intercept: np.ndarray,
    rules: Sequence[Rule],
    near: TwoSides,
    of: slice | np.ndarray = slice(None),
) -> dict[str, np.ndarray]:
    """The columns that the rules read, of these (weighted) ratings and this intercept [G].

    `near`: the sides of all ratings. Only for the guidelines `of` (rows).
    """
    w = np.ones(len(ratings)) if ratings.weight is None else ratings.weight
    n = np.bincount(ratings.guideline, w, ratings.n_guidelines)
    liked = np.bincount(ratings.guideline, w * ratings.helpful, ratings.n_guidelines)
    columns = {"n_ratings": n, "helpful_rate": rate(liked, n), "intercept": np.asarray(intercept)}
    wanted = {c.column for rule in rules for c in rule.conditions}
    columns = {name: values[of] for name, values in columns.items()}
    if unknown := sorted(wanted - RESAMPLED):
        raise InputError(f"{unknown[0]} cannot be resampled: a rule that reads it has no P(accept)")
    if wanted - columns.keys():
        columns |= two_sides(ratings, near=near).columns(of)
    return columns


def bootstrap(
    ratings: Ratings,
    fit: Fit,
    sides: TwoSides,
    rules: Sequence[Rule],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    callback: Callback | None = None,
) -> Bootstrap:
    """Resample the users `replicates` times; refit and score each resample.

    Every rating of a user counts as often as the user was drawn. Deterministic in `seed`.
    """
    weights = user_weights(ratings.n_users, replicates, seed)
    if ratings.weight is not None:
        weights = weights[ratings.user] * ratings.weight[:, None]
    of_rating = ratings.user if ratings.weight is None else slice(None)
    intercepts, starts, missed = best_refits(ratings, weights, fit, seed, callback)
    full = rule_columns(ratings, fit.parameters.guideline_intercept, rules, sides)
    drawn = []

    def scored(r: int) -> dict[str, np.ndarray]:
        here = replace(ratings, weight=weights[:, r][of_rating])
        return rule_columns(here, intercepts[:, r], rules, sides)

    with ThreadPoolExecutor(BATCHES_AT_ONCE) as pool:  # NumPy lets go of the interpreter
        for r, columns in enumerate(pool.map(scored, range(replicates))):
            if callback is not None and r % 50 == 0:
                callback(f"resample {r + 1} of {replicates}")
            drawn.append(columns)
    columns = {name: np.stack([d[name] for d in drawn], axis=1) for name in full}
    return Bootstrap(columns, full, starts, missed)


def with_intervals(
    scores: pd.DataFrame, ids: Ids, found: Bootstrap, rules: Sequence[Rule]
) -> pd.DataFrame:
    """Scores with intercept_low, intercept_high, helpful_rate_low, helpful_rate_high, rank_low,
    rank_high (90 % intervals) and p_accept_<rule> of each rule; NaN for unrated guidelines.
    """
    new = {}
    for name in ("intercept", "helpful_rate"):
        new[f"{name}_low"], new[f"{name}_high"] = found.interval(name)
    new["rank_low"], new["rank_high"] = found.ranks()
    for rule in rules:
        new[f"p_accept_{rule.name}"] = found.p_accept(rule)
    return with_columns(scores, ids, new)
