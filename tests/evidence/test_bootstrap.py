"""The bootstrap: by hand on small tables, and lower minima are found where the fit missed them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from aggregation import ALIGNED_2023, ROBUST, Condition, InputError, Rule
from aggregation.evidence import bootstrap as module
from aggregation.evidence.bootstrap import (
    Bootstrap,
    best_refits,
    bootstrap,
    user_weights,
    with_intervals,
)

LEVEL = Rule("level", (Condition("min_intercept", "intercept", ">", 0.4),))


def drawn(full, sd, replicates=4000):
    noise = np.random.default_rng(0).normal(0, sd, (1, replicates))
    columns = {"intercept": np.array(full)[:, None] + 0.05 + noise}  # resamples are biased
    return Bootstrap(columns, {"intercept": np.array(full)}, 1, 0.0)


def test_intervals_and_ranks_are_percentiles_of_the_resamples():
    values = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.3, 0.1, 0.1, 0.1]])
    found = Bootstrap({"intercept": values}, {}, 1, 0.0)
    low, high = found.interval("intercept", level=0.5)
    assert (low.tolist(), high.tolist()) == ([0.2, 0.1], [0.4, 0.3])
    low, high = found.ranks(level=0.9999)
    assert (low.round().tolist(), high.round().tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize("at", [0.3, 0.4, 0.43, 0.6])
def test_the_probability_is_that_of_another_sample_around_this_one(at):
    p = drawn([at], 0.05).p_accept(LEVEL)
    assert p[0] == pytest.approx(norm.cdf((at - 0.4) / 0.05), abs=0.03)


def test_a_probability_is_recentred_on_the_probit_scale():
    sure = Rule("sure", (Condition("min_probability", "p_both_sides", ">=", 0.93),))
    scale = norm.ppf(0.93) + np.random.default_rng(1).normal(0, 0.4, (1, 4000)) - 0.3
    found = Bootstrap({"p_both_sides": norm.cdf(scale)}, {"p_both_sides": np.array([0.93])}, 1, 0.0)
    assert found.p_accept(sure)[0] == pytest.approx(0.5, abs=0.03)


def test_every_resample_has_as_many_users():
    weights = user_weights(50, 8, seed=3)
    assert (weights.sum(axis=0) == 50).all()
    assert (weights != weights[:, :1]).any()
    np.testing.assert_array_equal(weights, user_weights(50, 8, seed=3))


def test_cold_starts_find_what_a_fit_in_a_bad_minimum_misses(small):
    ratings, fit = small.ratings, small.fit
    weights = np.ones((ratings.n_users, 8))
    nothing = replace(
        fit.parameters,
        user_embedding=np.zeros_like(fit.parameters.user_embedding),
        guideline_embedding=np.zeros_like(fit.parameters.guideline_embedding),
    )
    stuck = replace(fit, minima=(replace(fit.minima[0], parameters=nothing),))
    intercept, starts, missed = best_refits(ratings, weights, stuck)
    assert starts > 1
    assert missed < 0.01
    np.testing.assert_allclose(intercept[:, 0], fit.parameters.guideline_intercept, atol=2e-3)


def test_of_many_ratings_refits_begin_at_minima_close_to_the_fit_alone(small, monkeypatch):
    weights = user_weights(small.ratings.n_users, 8, seed=0)
    (lowest,) = small.fit.minima[:1]
    far = replace(lowest, objective=lowest.objective * (1 + 2 * module.CLOSE_LOSS))
    warm = replace(small.fit, minima=(lowest, lowest, far))
    expected, starts, _ = best_refits(small.ratings, weights, warm)
    assert starts > 2
    monkeypatch.setattr(module, "SAMPLE", len(small.ratings) // 2)
    found, starts, missed = best_refits(small.ratings, weights, warm)
    assert (starts, missed) == (2, 0)
    one = replace(warm, minima=(lowest, far))
    assert best_refits(small.ratings, weights, one)[1:] == (1, None)
    assert np.mean(np.abs(found - expected) < 1e-3) > 0.9


def test_weights_of_users_are_those_of_their_ratings(small):
    given = (small.fit, small.sides, [ALIGNED_2023])
    plain = bootstrap(small.ratings, *given, replicates=8)
    once = replace(small.ratings, weight=np.ones(len(small.ratings)))
    expanded = bootstrap(once, *given, replicates=8)
    for name, columns in plain.columns.items():
        np.testing.assert_allclose(columns, expanded.columns[name], atol=1e-9)


def test_shared_guidelines_would_win_again_and_disliked_ones_would_not(small):
    said = []
    found = bootstrap(
        *(small.ratings, small.fit, small.sides, [ALIGNED_2023, ROBUST]),
        replicates=24,
        callback=said.append,
    )
    table = with_intervals(small.scores, small.ids, found, [ALIGNED_2023, ROBUST])
    kind = table["guideline_id"].map(small.kind)
    for rule in ("aligned-2023", "robust"):
        p = table[f"p_accept_{rule}"]
        assert p[kind == "shared"].mean() > 0.3 > 0.02 > p[kind == "disliked"].mean()
        assert p[kind == "shared"].mean() > 3 * p[kind == "divisive"].mean()
        assert p.between(0, 1).all()
    inside = table["intercept"].between(table["intercept_low"], table["intercept_high"])
    assert inside.mean() > 0.8
    assert (table["rank_low"] <= table["rank_high"]).all()
    assert said[0] == "refits from start 1"


def test_a_rule_on_what_is_not_resampled_is_refused(small):
    odd = Rule("odd", (Condition("x", "wilson_lower", ">", 0.5),))
    with pytest.raises(InputError, match="wilson_lower cannot be resampled"):
        bootstrap(small.ratings, small.fit, small.sides, [odd], replicates=8)
