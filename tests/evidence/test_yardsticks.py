"""Other measures of agreement: by hand, and as Polis computed them."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from worlds import reading

from aggregation import ALIGNED_2023, Ratings, encode, select
from aggregation.decisions.scores import wilson
from aggregation.evidence.yardsticks import overlap, pairwise_bridging, with_yardsticks


def test_the_bounds_are_those_of_wilson():
    low, high = wilson(np.array([8.0, 0.0, 5.0]), np.array([10.0, 4.0, 5.0]))
    # by R: prop.test(8, 10, correct = FALSE), and so on
    assert low == pytest.approx([0.4901625, 0.0, 0.5655175], abs=1e-6)
    assert high == pytest.approx([0.9433178, 0.4898908, 1.0], abs=1e-6)
    assert np.isnan(wilson(np.zeros(1), np.zeros(1))[0]).all()


def by_definition(ratings):
    """The share of pairs, one pair after the other."""
    given = {(u, g): r for u, g, r in zip(ratings.user, ratings.guideline, ratings.helpful)}
    out = []
    for g in range(ratings.n_guidelines):
        top = total = 0.0
        raters = [u for u in range(ratings.n_users) if (u, g) in given]
        for u, v in combinations(raters, 2):
            shared = [
                h
                for h in range(ratings.n_guidelines)
                if h != g and (u, h) in given and (v, h) in given
            ]
            if not shared:
                continue
            # two ratings between 0 and 1 disagree as often as draws with these chances would
            apart = [
                given[u, h] * (1 - given[v, h]) + given[v, h] * (1 - given[u, h]) for h in shared
            ]
            d = sum(apart) / len(shared)
            total += d
            top += d * given[u, g] * given[v, g]
        out.append(top / total if total > 1e-9 else np.nan)
    return np.array(out)


@given(st.integers(0, 50))
def test_pairwise_bridging_is_that_of_its_definition(seed):
    random = np.random.default_rng(seed)
    user, guideline = np.nonzero(random.random((7, 5)) < 0.7)
    helpful = random.choice([0.0, 0.5, 1.0], len(user))
    ratings = Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, 7, 5)
    np.testing.assert_allclose(pairwise_bridging(ratings), by_definition(ratings), atol=1e-5)


def test_group_informed_consensus_is_that_of_polis(data):
    """bg2050-volunteers brings it: a pass counts as seen, so it is a rating that is not helpful."""
    folder = data / "polis" / "bg2050-volunteers"
    dataset = reading(
        "polis", folder, {"values": {"agree": 1.0, "disagree": 0.0, "pass": 0.0}},
        moderation="all", meta="keep", votes="matrix",
    )  # fmt: skip
    ratings, ids = encode(dataset.ratings)
    votes = pd.read_csv(folder / "participants-votes.csv", dtype={"participant": "str"})
    group = votes.set_index("participant")["group-id"].reindex(ids.users)
    member = group.fillna(-1).to_numpy().astype(int)
    scores = pd.DataFrame({"guideline_id": ids.guidelines})
    found = with_yardsticks(scores, ratings, ids, member).set_index("guideline_id")
    comments = pd.read_csv(folder / "comments.csv", dtype={"comment-id": "str"})
    told = comments.set_index("comment-id")["group-informed-consensus"]
    assert len(told) == 371
    both = found["group_informed_consensus"].reindex(told.index)
    # a statement that nobody voted on has 1/2 from each group
    np.testing.assert_allclose(both.fillna(0.5 ** group.nunique()), told, rtol=1e-12)


def test_without_groups_there_is_no_rate_of_a_group():
    rows = [("a", "x", 1.0), ("b", "x", 0.0)]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    found = with_yardsticks(pd.DataFrame({"guideline_id": ["x"]}), ratings, ids, np.full(2, -1))
    assert found[["lowest_group_rate", "group_informed_consensus"]].isna().all(axis=None)
    assert found["wilson_lower"].notna().all()


def test_the_overlap_names_what_the_rule_and_a_yardstick_take_alone():
    scores = pd.DataFrame(
        {
            "guideline_id": ["a", "b", "c", "d"],
            "n_ratings": [9, 9, 9, 0],
            "helpful_rate": [0.9, 0.95, 0.99, np.nan],
            "intercept": [0.5, 0.4, 0.1, np.nan],
            "consensus_score": [0.9, 0.8, 0.7, np.nan],
            "wilson_lower": [0.8, 0.7, 0.1, np.nan],
            "pairwise_bridging": np.nan,
        }
    )
    found = overlap(select(scores, ALIGNED_2023)).set_index("yardstick")
    assert found.loc["helpful_rate"].to_list() == [1, ["a"], ["c"]]
    assert "pairwise_bridging" not in found.index  # known of none
    assert found.loc["wilson_lower"].to_list() == [2, [], []]
    assert list(found.index) == ["helpful_rate", "wilson_lower"]
