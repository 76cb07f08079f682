"""The harness measures what it says: by hand, and on rules that cannot be moved or bought."""

import numpy as np
import pandas as pd
import pytest

from aggregation import ROBUST, Condition, Rule, select
from aggregation.evidence.trust import _jaccard, _turned, on_worlds, right, trust

NEVER = Rule("never", (Condition("min_ratings", "n_ratings", ">=", 1e9),))
LIKED = Rule("liked", (Condition("min_helpful_rate", "helpful_rate", ">=", 0.8),))


def test_the_same_set_is_the_mean_jaccard_index():
    one = np.array([True, True, False, False])
    many = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    assert _jaccard(one, many) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert _jaccard(np.zeros(2, bool), np.zeros((2, 5), bool)) == 1


def test_turned_counts_the_decided_that_become_the_opposite():
    verdict = np.array(["accepted", "rejected", "undecided", "accepted"])
    again = np.array([["rejected"], ["rejected"], ["accepted"], ["undecided"]])
    assert _turned(verdict, again) == pytest.approx(1 / 3)


def test_a_constitution_is_right_about_what_was_planted():
    rows = [("a", 0.9), ("b", 0.9), ("c", 0.1), ("d", 0.9)]
    scores = pd.DataFrame(rows, columns=["guideline_id", "helpful_rate"])
    constitution = select(scores.assign(consensus_score=0.5), LIKED)
    kind = pd.Series({"a": "shared", "b": "divisive", "c": "shared", "d": "shared"})
    found = right(constitution, kind)
    assert found == {
        "f1": pytest.approx(4 / 6),
        "f1_decided": pytest.approx(4 / 6),
        "divisive_accepted": 1,
    }


@pytest.fixture(scope="module")
def found(small):
    return trust(small.ratings, small.ids, small.fit, [ROBUST, NEVER, LIKED], resamples=6)


def test_a_rule_that_accepts_nothing_cannot_be_moved_or_bought(found):
    never = found["never"]
    assert (never["accepted"], never["same_set"], never["turned"], never["moved_by_junk"]) == (
        0,
        1,
        0,
        0,
    )
    assert never[["accounts_5", "accounts_11", "accounts_21", "worst_group"]].isna().all()


def test_the_helpful_rate_alone_is_bought_by_five_accounts(found):
    assert found.loc["accounts_5", "liked"] == 5
    assert found["robust"].fillna(101)["accounts_5"] > 40


def test_junk_moves_no_plain_rate(found):
    assert found.loc["moved_by_junk", "liked"] == found.loc["moved_by_half_junk", "liked"] == 0


def test_random_raters_move_a_plain_rate_and_no_rule_that_accepts_nothing(found):
    assert 0 < found.loc["moved_by_random_raters", "liked"] < 0.2
    assert (found.loc[found.index.str.startswith("moved_by"), "never"] == 0).all()


def test_more_junk_moves_more(found):
    assert found.loc["moved_by_half_junk", "robust"] >= found.loc["moved_by_junk", "robust"]


def test_the_rates_of_the_raw_rule_are_the_raw_rates(found):
    assert found.loc["worst_group_gain", "liked"] == pytest.approx(0, abs=0.02)


def test_on_simulated_worlds_robust_is_right_about_what_it_decides():
    found = on_worlds([ROBUST, LIKED], [1000, 1001])
    assert found.loc["f1_decided", "robust"] > 0.98
    assert found.loc["divisive_accepted", "robust"] == 0 < found.loc["divisive_accepted", "liked"]
    assert found.loc["f1", "robust"] > found.loc["f1", "liked"]
