"""Held-out prediction: nothing leaks, and planted sides are worth knowing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss
from test_two_sides import planted

from aggregation import Ratings
from aggregation.evidence import prediction as module
from aggregation.evidence.prediction import FOLDS, division, prediction
from aggregation.evidence.two_sides import two_sides


def foretold(ratings, found):
    table, calibration, _ = prediction(ratings, found)
    return table.set_index(["held_out", "predictor"]), calibration


@pytest.fixture(scope="module")
def divided(small):
    return small.ratings, *foretold(small.ratings, small.fit)


@pytest.fixture(scope="module")
def coins(small):
    """As many ratings, by nothing but chance."""
    tossed = np.random.default_rng(1).integers(0, 2, len(small.ratings)).astype(float)
    return foretold(replace(small.ratings, helpful=tossed), small.fit)


def test_sides_that_are_there_foretell_ratings(divided):
    _, table, _ = divided
    of_ratings = table.loc["rating", "brier"]
    for name in ("model", "sides", "Community Notes"):
        assert of_ratings[name] < 0.95 * of_ratings["intercepts"]
        assert table.loc[("rating", name), "auc"] > table.loc[("rating", "intercepts"), "auc"]


def test_nothing_foretells_the_toss_of_a_coin(coins):
    table, *_ = coins
    assert table["brier"].min() > 0.245
    assert table.loc["user", "auc"].between(0.42, 0.58).all()


def test_no_prediction_depends_on_the_rating_that_it_foretells(small, monkeypatch):
    told = []
    monkeypatch.setattr(module, "_measured", lambda _, p: told.append(p) or (0.0, 0.0, 0.5))
    fold = np.random.default_rng(0).permutation(len(small.ratings)) % FOLDS
    held_out = fold == 2
    flipped = np.where(held_out, 1 - small.ratings.helpful, small.ratings.helpful)
    for ratings in (small.ratings, replace(small.ratings, helpful=flipped)):
        prediction(ratings, small.fit)
    n = len(told) // 4  # by rating and by user, of both
    assert n >= 8
    for one, other in zip(told[:n], told[2 * n : 3 * n], strict=True):
        # refits end within their tolerance; what a start remembers would be a hundred times that
        np.testing.assert_allclose(one[held_out], other[held_out], atol=5e-3)
        assert not np.allclose(one[~held_out], other[~held_out], atol=0.05)


def test_of_unknown_users_only_the_guideline_is_known(divided):
    _, table, _ = divided
    assert table.loc[("user", "sides")].equals(table.loc[("user", "guideline mean")])
    assert table.loc[("user", "model"), "brier"] == pytest.approx(
        table.loc[("user", "guideline mean"), "brier"], abs=0.02
    )


def test_the_global_mean_is_that_of_the_other_folds(divided):
    ratings, table, _ = divided
    fold = np.random.default_rng(0).permutation(len(ratings)) % FOLDS
    p = np.array([ratings.helpful[fold != k].mean() for k in fold])
    by_hand = brier_score_loss(ratings.helpful, p)
    assert table.loc[("rating", "global mean"), "brier"] == pytest.approx(by_hand)


def test_the_calibration_counts_every_rating_once(divided):
    ratings, _, calibration = divided
    assert calibration["n"].sum() == len(ratings)
    assert calibration["predicted"].between(calibration["bin"], calibration["bin"] + 0.1).all()
    mean = np.average(calibration["observed"], weights=calibration["n"])
    assert mean == pytest.approx(ratings.helpful.mean())


def test_one_axis_is_two_sides_and_noise_is_none():
    ratings, *_ = planted(4)
    assert division(two_sides(ratings)) == "two sides"
    noise, *_ = planted(4, slope=0.0)
    assert division(two_sides(noise)) == "none"


def test_two_planted_axes_are_more_than_two_sides():
    random = np.random.default_rng(0)
    users, guidelines = random.choice([-1.0, 1.0], (100, 2)), random.choice([-1.0, 1.0], (30, 2))
    guidelines[:15, 0] = guidelines[15:, 1] = 0.0
    helpful = random.random((100, 30)) < 1 / (1 + np.exp(-2.5 * users @ guidelines.T))
    user, guideline = np.nonzero(np.ones((100, 30)))
    rows = (user.astype(np.int32), guideline.astype(np.int32), helpful.ravel().astype(float))
    assert division(two_sides(Ratings(*rows, 100, 30))) == "more"
