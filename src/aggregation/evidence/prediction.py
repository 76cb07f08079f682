"""Prediction: how well held-out ratings are foretold, and whether there are sides at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from aggregation.evidence.bootstrap import ROUGH
from aggregation.evidence.two_sides import AXES, TwoSides, two_sides
from aggregation.model.fit import Fit
from aggregation.model.parameters import COMMUNITY_NOTES, Parameters, Penalty, predict
from aggregation.model.ratings import Ratings
from aggregation.model.refit import refit

FOLDS = 5

CERTAIN = 1e-3
"""Predictions are kept this far from 0 and 1: else one surprise makes the log loss infinite."""

PART = 0.03
"""Share of the variance of what means leave, from which an axis counts as a division. Of noise, an
axis explains up to 0.02; of six real deliberations the first explains 0.02 to 0.28."""

MOST_AXES = 3
"""Axes that are tried at most."""

NO_AXIS = 1e6
"""A penalty on embeddings under which no axis is worth having."""


def division(sides: TwoSides) -> str:
    """`none`, `two sides` or `more`: how many axes explain at least `PART`, with neither the user
    nor the guideline of a rating told (`TwoSides.explained`).
    """
    found = int((np.cumprod(sides.explained >= PART)).sum())
    return ("none", "two sides", "more")[min(found, 2)]


def prediction(
    ratings: Ratings, found: Fit, *, seed: int = 0, callback: Callable[[str], None] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, Parameters]:
    """How well each predictor foretells held-out ratings, and the calibration of `sides`.

    5 folds, by `rating` (a fifth of all) and by `user` (all of a fifth of the users: each is
    taken for the mean of the others). The first table: held_out, predictor, brier (mean squared
    error), log_loss, auc (NaN where all ratings are alike). Predictors: the global mean; the
    guideline's mean; intercepts alone; the model of `found`; the same with 2 and 3 axes; with
    Community Notes' penalty; `sides`, the means and axes of `TwoSides`. The second: bin, predicted,
    observed and n of what `sides` says by rating. Last, the model with Community Notes' penalty of
    all ratings.
    """
    say = callback or (lambda _: None)
    random, rows, tables = np.random.default_rng(seed), [], []
    by_rating = random.permutation(len(ratings)) % FOLDS
    by_user = (random.permutation(ratings.n_users) % FOLDS)[ratings.user]
    models, pairs = _models(ratings, found), (ratings.user, ratings.guideline)
    notes = _refitted(ratings, found.parameters, COMMUNITY_NOTES)
    for held_out, fold in (("rating", by_rating), ("user", by_user)):
        weights = (fold[:, None] != np.arange(FOLDS)).astype(np.float64)
        if ratings.weight is not None:
            weights *= ratings.weight[:, None]
        told: dict[str, np.ndarray] = {}
        sides = [two_sides(replace(ratings, weight=w), MOST_AXES) for w in weights.T]
        for name, (penalty, axes) in models.items():
            say(f"held out by {held_out}: {name}")
            near = [_start(found.parameters, of, axes) for of in sides]
            ends = refit(ratings, weights, near, penalty, ROUGH).parameters
            each = [
                _known_or_mean(
                    Parameters(*(x[..., k] for x in ends.arrays())),
                    np.bincount(ratings.user, weights[:, k], ratings.n_users) > 0,
                )
                for k in range(FOLDS)
            ]
            told[name] = _each_fold(fold, [predict(p, *pairs) for p in each])
        told["sides"] = _each_fold(fold, [s.predict(*pairs, AXES) for s in sides])
        liking = [(s.mean + s.liking)[ratings.guideline] for s in sides]
        told["guideline mean"] = _each_fold(fold, liking)
        told["global mean"] = _each_fold(fold, [np.full(len(ratings), s.mean) for s in sides])
        rows += [(held_out, name, *_measured(ratings, p)) for name, p in told.items()]
        tables += [_calibration(ratings, told["sides"])] if held_out == "rating" else []
    columns = ["held_out", "predictor", "brier", "log_loss", "auc"]
    return pd.DataFrame(rows, columns=columns), tables[0], notes


def _models(ratings: Ratings, found: Fit) -> dict[str, tuple[Penalty, int | None]]:
    """Penalties of the fits to the folds, and their numbers of axes; None: as `found`."""
    most = min(ratings.n_users, ratings.n_guidelines)
    return {
        "intercepts": (replace(found.penalty, embedding=NO_AXIS), None),
        "model": (found.penalty, None),
        "Community Notes": (COMMUNITY_NOTES, None),
        **{f"{k} axes": (found.penalty, k) for k in range(2, MOST_AXES + 1) if k <= most},
    }


def _start(p: Parameters, sides: TwoSides, axes: int | None) -> Parameters:
    """Where the fit to a fold starts. A fit with one axis ends at the same place from anywhere
    near; one with more would keep what its start knows of held-out ratings, so its axes are those
    of the fold's own `sides`.
    """
    if axes is None:
        return p
    of_users, of_guidelines = sides.user_axis[:axes].T, sides.guideline_axis[:axes].T
    return replace(p, user_embedding=of_users, guideline_embedding=of_guidelines)


def _refitted(ratings: Ratings, near: Parameters, penalty: Penalty) -> Parameters:
    """The fit to all ratings."""
    weight = np.ones(len(ratings)) if ratings.weight is None else ratings.weight
    ends = refit(ratings, weight[:, None], near, penalty).parameters
    return Parameters(*(x[..., 0] for x in ends.arrays()))


def _known_or_mean(p: Parameters, known: np.ndarray) -> Parameters:
    """The parameters with the mean user in place of those that are not `known`, bool [U]."""
    i, f = p.user_intercept, p.user_embedding
    i = np.where(known, i, i[known].mean())
    return replace(
        p, user_intercept=i, user_embedding=np.where(known[:, None], f, f[known].mean(0))
    )


def _each_fold(fold: np.ndarray, predicted: list[np.ndarray]) -> np.ndarray:
    """[n]: of each rating the prediction that did not know its fold, between 0 and 1."""
    return np.clip(np.stack(predicted)[fold, np.arange(len(fold))], CERTAIN, 1 - CERTAIN)


def _measured(ratings: Ratings, p: np.ndarray) -> tuple[float, float, float]:
    """Brier score, log loss and AUC of predictions."""
    from sklearn.metrics import roc_auc_score

    y = ratings.helpful
    w = np.ones(len(y)) if ratings.weight is None else ratings.weight
    brier = np.average((y - p) ** 2, weights=w)
    loss = np.average(-(y * np.log(p) + (1 - y) * np.log(1 - p)), weights=w)
    liked = y > 0.5
    alike = liked.all() or not liked.any()
    auc = np.nan if alike else roc_auc_score(liked, p, sample_weight=w)
    return float(brier), float(loss), float(auc)


def _calibration(ratings: Ratings, p: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(
        {"bin": np.floor(10 * p) / 10, "predicted": p, "observed": ratings.helpful}
    )
    by_bin = table.groupby("bin")
    return by_bin.mean().assign(n=by_bin.size()).rename_axis("bin").reset_index()
