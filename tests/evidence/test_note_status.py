"""The numbers of Community Notes' rule, against the definitions of their published scorer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import aggregation as ag
from aggregation.decisions.constitution import select
from aggregation.decisions.rules import COMMUNITY_NOTES_STATUS as RULE
from aggregation.decisions.scores import score, with_columns
from aggregation.evidence import note_status as module
from aggregation.evidence.bootstrap import resampled, rule_columns
from aggregation.evidence.note_status import most_active, status_columns

NEVER = pd.Series(pd.NaT, range(1), "datetime64[ms, UTC]")
QUICK = replace(RULE, conditions=RULE.conditions[:-1])
"""Without the intercept of the refit."""


@pytest.fixture(scope="module")
def three_valued(small):
    """The ratings, a fifth of them somewhat helpful."""
    half = np.arange(len(small.ratings)) % 5 == 0
    return replace(small.ratings, helpful=np.where(half, 0.5, small.ratings.helpful))


def test_the_numbers_are_those_of_counts_by_the_sign_of_the_raters(
    small, three_valued, monkeypatch
):
    monkeypatch.setattr(module, "ENOUGH", 5)
    r, p = three_valued, small.fit.parameters
    found = status_columns(r, p, small.fit.penalty, NEVER, QUICK)
    table = pd.DataFrame({"note": r.guideline, "rating": r.helpful})
    table["side"] = np.where(p.user_embedding[r.user, 0] < 0, "negative", "positive")
    for note, rows in table.groupby("note"):
        sides = [rows.loc[rows["side"] == side, "rating"] for side in ("negative", "positive")]
        net = max(min((s == 1).sum() - (s == 0).sum() for s in sides), 0)
        assert found["net_helpful"][note] == net
        assert found["net_helpful_share"][note] == pytest.approx(1 if net >= 5 else net / len(rows))
        means = [s.mean() for s in sides]
        disliked = min(len(s) for s in sides) >= 3 and max(means) <= 0.4
        assert found["both_sides_rate"][note] == pytest.approx(np.mean(means) if disliked else 1)
    size = np.abs(p.guideline_embedding[:, 0])
    np.testing.assert_allclose(found["embedding_size"], size)
    np.testing.assert_allclose(
        found["above_rejection"], p.guideline_intercept - (-0.05 - 0.8 * size)
    )
    assert (found["net_helpful"] >= 5).any()
    assert (found["net_helpful"] == 0).any()
    assert (found["both_sides_rate"] < 1).any()


def note(**changes):
    """Scores of one note that the rule accepts, but for the `changes`."""
    good = {
        "guideline_id": "g",
        "n_ratings": 5,
        "above_rejection": 0.6,
        "both_sides_rate": 1.0,
        "intercept": 0.4,
        "embedding_size": 0.5,
        "net_helpful": 4,
        "net_helpful_share": 0.05,
        "intercept_without_most_active": 0.37,
    }
    return pd.DataFrame([good | changes])


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "accepted"),
        ({"n_ratings": 4}, "undecided"),
        ({"intercept": 0.399}, "undecided"),
        ({"embedding_size": 0.501}, "undecided"),
        ({"net_helpful": 3}, "undecided"),
        ({"net_helpful_share": 0.049}, "undecided"),
        ({"intercept_without_most_active": 0.369}, "undecided"),
        ({"above_rejection": 0.0, "intercept": -0.05}, "rejected"),
        ({"both_sides_rate": 0.3}, "rejected"),
        ({"n_ratings": 4, "above_rejection": -1.0}, "undecided"),
    ],
)
def test_the_rule_gives_the_status_of_the_published_bounds(changes, verdict):
    assert RULE.verdicts(note(**changes)) == [verdict]


@pytest.fixture
def busy(small, monkeypatch):
    """Times with one user who rated most in the last week, and few notes enough."""
    monkeypatch.setattr(module, "LEAST_NOTES", 10)
    monkeypatch.setattr(module, "MOST_ACTIVE", 0.98)
    r, last = small.ratings, pd.Timestamp("2026-01-31", tz="UTC")
    user = int(np.argmax(r.per_user()))
    early = pd.Series(last - pd.Timedelta(days=90), range(len(r)))
    at = early.mask(r.user == user, last)
    rare = np.flatnonzero(r.user != user)[::7]  # others rate, now and then
    at.iloc[rare] = last - pd.Timedelta(days=3)
    return user, at


def test_raters_above_the_quantile_of_the_last_days_are_the_most_active(small, busy):
    user, at = busy
    assert most_active(small.ratings, at)[user]
    assert most_active(small.ratings, at).sum() < 5
    old = at.mask(small.ratings.user == user, at.max() - pd.Timedelta(days=60))
    assert not most_active(small.ratings, old)[user]


def test_with_few_notes_or_without_times_nobody_is_most_active(small, busy, monkeypatch):
    _, at = busy
    assert not most_active(small.ratings, at.mask(at.notna())).any()
    monkeypatch.setattr(module, "LEAST_NOTES", 10_000)
    assert not most_active(small.ratings, at).any()


def test_the_intercept_without_the_most_active_is_that_of_a_fit_without_them(small, busy):
    _, at = busy
    found = status_columns(small.ratings, small.fit.parameters, small.fit.penalty, at, RULE)
    without = (~most_active(small.ratings, at))[small.ratings.user]
    fitted = ag.fit(
        replace(small.ratings, weight=without.astype(float)),
        settings=ag.Settings(starts=1, max_starts=1, moves=False),
        warm_start=small.fit.parameters,
    )
    left = found["intercept_without_most_active"]
    assert np.abs(left - fitted.parameters.guideline_intercept).max() < 2e-3
    assert np.abs(left - small.fit.parameters.guideline_intercept).max() > 0.005


def test_it_is_said_that_the_rule_cannot_be_resampled(small):
    assert not resampled(RULE)
    with pytest.raises(ag.InputError, match="cannot be resampled"):
        rule_columns(small.ratings, small.fit.parameters.guideline_intercept, [RULE], small.sides)
    found = ag.collect(
        small.dataset, small.ratings, small.ids, small.fit, RULE, depth="full", replicates=20
    )
    assert found.summary["left_out"] == ["resamples"]
    assert any("not resampled" in warning for warning in found.summary["warnings"])
    assert found.summary["predictors"]
    assert "p_accept_community-notes" not in found.constitution.scores
    assert {r["rule"] for r in found.summary["other_rules"]} == {"aligned-2023", "robust"}


def test_verdicts_of_a_run_are_those_of_the_rule_on_these_numbers(small):
    found = ag.collect(small.dataset, small.ratings, small.ids, small.fit, RULE)
    at = small.dataset.ratings["rated_at"]
    columns = status_columns(small.ratings, small.fit.parameters, small.fit.penalty, at, RULE)
    scores = with_columns(score(small.ratings, small.ids, small.fit.parameters), small.ids, columns)
    expected = select(scores, RULE).scores.set_index("guideline_id")["verdict"]
    told = found.constitution.scores.set_index("guideline_id")["verdict"]
    pd.testing.assert_series_equal(told[expected.index], expected)
    assert "verdict_community-notes" not in found.constitution.scores
