"""All evidence together: every guideline has a row, and no user is named."""

import json

import numpy as np
import pandas as pd
import pytest

from aggregation import ALIGNED_2023, ROBUST, collect, select
from aggregation.evidence import collect as module, yardsticks


@pytest.fixture(scope="module")
def found(small):
    """Evidence by depth."""
    given = (small.dataset, small.ratings, small.ids, small.fit, ALIGNED_2023)
    full = collect(*given, depth="full", replicates=20, callback=lambda _: None)
    return {"quick": collect(*given), "full": full}


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_verdicts_are_those_of_the_rules(small, found, depth):
    scores = found[depth].constitution.scores.set_index("guideline_id")
    for rule, column in ((ALIGNED_2023, "verdict"), (ROBUST, "verdict_robust")):
        alone = select(small.scores, rule).scores.set_index("guideline_id")["verdict"]
        pd.testing.assert_series_equal(
            scores[column].reindex(alone.index), alone, check_names=False, check_dtype=False
        )
    assert set(scores.index) == set(small.dataset.guidelines["guideline_id"])


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_the_summary_is_json_and_names_no_user(small, found, depth):
    text = json.dumps(found[depth].summary, allow_nan=False)
    assert not any(f'"{user}"' in text for user in small.ids.users)
    assert not any(u in small.ids.users for u in found[depth].constitution.scores["guideline_id"])


def test_other_rules_say_what_they_would_change(small, found):
    (other,) = found["quick"].summary["other_rules"]
    one, robust = (
        set(select(small.scores, rule).accepted["guideline_id"]) for rule in (ALIGNED_2023, ROBUST)
    )
    assert other["rule"] == "robust"
    assert other["accepted"] == len(robust)
    assert set(other["gained"]) == robust - one
    assert set(other["lost"]) == one - robust


def test_full_depth_adds_intervals_costs_and_prediction(found):
    scores = found["full"].constitution.scores
    assert (
        scores[["p_accept_robust", "intercept_low", "community_notes_intercept"]]
        .notna()
        .all(axis=None)
    )
    accepted = scores["verdict"] == "accepted"
    assert (scores.loc[accepted, "accounts_needed"].fillna(101) >= 5).all()
    new = found["full"].summary["new_guideline"]
    assert (new["accounts_needed"], new["cheapest_attack"]) == (5, "single votes")
    assert {row["predictor"] for row in found["full"].table("predictors").to_dict("records")} >= {
        "model",
        "sides",
        "global mean",
    }
    assert found["quick"].table("predictors").empty
    assert not set(scores) <= set(found["quick"].constitution.scores)


def test_facts_are_the_numbers_and_words_of_the_summary(found):
    facts = found["quick"].facts().set_index("what")["value"]
    summary = found["quick"].summary
    assert facts["division"] == summary["division"]
    assert facts["reach: at least one"] == f"{summary['reach']['at_least_one']:.3f}"
    assert facts["flagged users: clone"] == "0"
    assert not facts.str.contains("[", regex=False).any()  # lists are tables of their own


def test_quick_columns_do_not_depend_on_the_depth(found):
    quick, full = (found[depth].constitution.scores for depth in ("quick", "full"))
    shared = [c for c in quick if c not in ("failed", "embedding", "accepted_in", "confidence")]
    pd.testing.assert_frame_equal(quick[shared], full[shared])
    assert np.isfinite(quick["p_both_sides"]).all()


def test_what_cannot_be_had_with_so_many_users_is_said(small, monkeypatch):
    given = (small.dataset, small.ratings, small.ids, small.fit, ALIGNED_2023)
    assert collect(*given).summary["left_out"] == []
    monkeypatch.setattr(module, "MOST_USERS", small.ratings.n_users - 1)
    monkeypatch.setattr(yardsticks, "MOST_USERS", small.ratings.n_users - 1)
    summary = collect(*given).summary
    assert summary["left_out"] == ["pairs of users"]
    assert "pairwise_bridging" not in {row["yardstick"] for row in summary["yardsticks"]}
    assert any("exactly as somebody else" in warning for warning in summary["warnings"])
