"""Attacks: what is said to suffice does, judged anew from the ratings and the accounts' own."""

import numpy as np
import pandas as pd
import pytest

from aggregation import ALIGNED_2023, ROBUST, encode, select
from aggregation.evidence.attacks import NEW, _World, cheapest, costs, smallest_unanimous
from aggregation.evidence.two_sides import two_sides, with_two_sides


@pytest.fixture(scope="module")
def table(small):
    """Costs under the rule robust."""
    constitution = select(small.scores, ROBUST)
    found = costs(constitution, small.ratings, small.ids, small.fit, small.sides, nearest=2)
    return constitution, found


def test_accounts_with_one_rating_never_decide_under_robust(table):
    _, found = table
    assert found.loc[found["attack"] == "single votes", "accounts"].isna().all()


def test_leaving_out_what_cannot_be_cheaper_changes_no_cheapest_attack(small, table):
    constitution, found = table
    given = (constitution, small.ratings, small.ids, small.fit, small.sides)
    quick = costs(*given, nearest=2, only_cheapest=True)
    pd.testing.assert_frame_equal(cheapest(quick), cheapest(found))
    assert quick["accounts"].notna().sum() < found["accounts"].notna().sum()


def test_more_ratings_each_need_fewer_accounts(table):
    _, found = table
    both = found[(found["attack"] == "both sides") & (found["guideline_id"] == NEW)]
    accounts = both.set_index("ratings_each")["accounts"].fillna(np.inf)
    assert accounts[21] < accounts[5]
    assert accounts[11] >= 10  # a quorum of 18 raters by activity


def test_what_is_said_to_suffice_does(small, table):
    """The accounts as rows of a table, encoded and judged from the start."""
    _, found = table
    row = found[(found["guideline_id"] == NEW) & (found["ratings_each"] == 21)].iloc[0]
    world = _World(ROBUST, small.ratings, small.fit, small.sides, 0)
    helpful, weight = world._attack(small.ratings.n_guidelines, "accept", "both sides", 21)
    names = [*small.ids.users, *(f"x{k:03d}" for k in range(100))]
    guidelines = [*small.ids.guidelines, NEW]
    verdicts = []
    for accounts in (int(row["accounts"]) - 5, int(row["accounts"])):
        on = (weight > 0) & (world.user < small.ratings.n_users + accounts)
        rows = pd.DataFrame(
            {
                "user_id": [names[u] for u in world.user[on]],
                "guideline_id": [guidelines[g] for g in world.guideline[on]],
                "helpful": helpful[on],
            }
        )
        assert (rows.groupby("user_id").size().tail(accounts) == 21).all()
        ratings, ids = encode(rows)
        scores = with_two_sides(pd.DataFrame({"guideline_id": [NEW]}), two_sides(ratings), ids)
        verdicts.append(ROBUST.verdicts(scores)[0])
    assert verdicts == ["undecided", "accepted"]


def test_five_single_votes_accept_a_new_guideline_under_the_original_rule(small):
    world = _World(ALIGNED_2023, small.ratings, small.fit, small.sides, 0)
    new = small.ratings.n_guidelines
    assert world.cheapest(new, "accept", "single votes", 1) == 5


def test_to_reject_costs_at_least_what_it_costs_to_remove(small):
    world = _World(ROBUST, small.ratings, small.fit, small.sides, 0)
    constitution = select(small.scores, ROBUST)
    target = small.ids.guidelines.get_loc(constitution.accepted["guideline_id"].iloc[0])
    remove, reject = (
        np.nan_to_num(world.cheapest(target, aim, "both sides", 21), nan=999)
        for aim in ("remove", "reject")
    )
    assert 0 < remove <= reject


def test_the_cheapest_attack_needs_the_fewest_accounts_then_ratings():
    rows = [
        ("a", "single votes", 1, np.nan, np.nan),
        ("a", "both sides", 11, 30.0, 330.0),
        ("a", "both sides", 5, 30.0, 150.0),
        ("b", "single votes", 1, np.nan, np.nan),
    ]
    names = ["guideline_id", "attack", "ratings_each", "accounts", "ratings"]
    found = cheapest(pd.DataFrame(rows, columns=names)).set_index("guideline_id")
    assert found.loc["a"].to_list() == [30.0, "both sides"]
    assert np.isnan(found.loc["b", "accounts_needed"])
    assert found.loc["b", "cheapest_attack"] == ""


def test_no_rule_can_cost_more_than_its_smallest_unanimous_guideline():
    scores = pd.DataFrame(
        {
            "guideline_id": ["a", "b", "c", "d"],
            "n_ratings": [9, 7, 6, 5],
            "helpful_rate": [1.0, 1.0, 0.9, 1.0],
            "intercept": [0.5, 0.5, 0.5, 0.1],
            "consensus_score": [0.9, 0.8, 0.7, 0.6],
        }
    )
    assert smallest_unanimous(select(scores, ALIGNED_2023)) == 7
    assert np.isnan(smallest_unanimous(select(scores.iloc[2:], ALIGNED_2023)))
