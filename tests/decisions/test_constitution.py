"""The rule judges as the original did, and says why."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from aggregation import (
    ALIGNED_2023,
    Condition,
    Parameters,
    Rule,
    encode,
    score,
    select,
    with_unrated,
)
from aggregation.decisions.rules import apart


def scores(*rows):
    table = pd.DataFrame(rows, columns=["guideline_id", "n_ratings", "helpful_rate", "intercept"])
    rate, intercept = table["helpful_rate"], table["intercept"]
    return table.assign(consensus_score=(1.1 - rate) * intercept + rate - 0.1)


@pytest.mark.parametrize(
    ("n", "rate", "intercept", "verdict", "failed"),
    [
        (5, 0.8, 0.3751, "accepted", []),
        (5, 0.8, 0.375, "rejected", ["min_intercept"]),  # must be greater
        (5, 0.79, 0.5, "rejected", ["min_helpful_rate"]),
        (4, 1.0, 0.5, "undecided", ["min_ratings"]),
        (4, 0.1, 0.1, "undecided", ["min_ratings", "min_intercept", "min_helpful_rate"]),
        (0, np.nan, np.nan, "undecided", ["min_ratings", "min_intercept", "min_helpful_rate"]),
    ],
)
def test_each_condition_is_judged_and_named(n, rate, intercept, verdict, failed):
    row = judged(n, rate, intercept)
    assert row["verdict"] == verdict
    assert [f["name"] for f in row["failed"]] == failed


def judged(n, rate, intercept, rule=ALIGNED_2023):
    return select(scores(("g", n, rate, intercept)), rule).scores.iloc[0]


def test_every_number_of_the_rule_is_a_parameter():
    lenient = ALIGNED_2023.with_bounds(min_intercept=0.2, min_ratings=4, min_helpful_rate=0.7)
    assert judged(4, 0.7, 0.3)["verdict"] == "undecided"
    assert judged(4, 0.7, 0.3, lenient)["verdict"] == "accepted"


def test_the_first_failed_condition_decides_between_undecided_and_rejected():
    sure = Condition("min_intercept", "intercept", ">", 0.2, otherwise="undecided")
    hated = Condition("least_rate", "helpful_rate", ">", 0.1, otherwise="rejected")
    table = scores(("both", 9, 0.05, 0.1), ("one", 9, 0.5, 0.1), ("in", 9, 0.5, 0.3))
    for rule, word in (((hated, sure), "rejected"), ((sure, hated), "undecided")):
        found = select(table, Rule("mine", rule)).scores.set_index("guideline_id")["verdict"]
        assert found.to_dict() == {"in": "accepted", "one": "undecided", "both": word}


@given(st.floats(-1, 1), st.integers(1, 99), st.floats(0, 1))
def test_a_rule_survives_json(intercept, n, rate):
    bounds = {"min_intercept": intercept, "min_ratings": n, "min_helpful_rate": rate}
    rule = replace(ALIGNED_2023.with_bounds(**bounds), slack=0.1, accepted_before=("a",))
    assert Rule.from_json(json.loads(json.dumps(rule.as_json()))) == rule


def test_reasons_give_the_value_and_the_limit():
    found = select(scores(("g", 3, 0.5, 0.2)), ALIGNED_2023).scores["failed"][0]
    assert [f["reason"] for f in found] == [
        "3 ratings, needs at least 5",
        "intercept 0.200, needs more than 0.375",
        "helpful rate 0.50, needs at least 0.8",
    ]
    assert [f["value"] for f in found] == [3.0, 0.2, 0.5]


@given(st.floats(0, 1), st.sampled_from([0.375, 0.8]))
def test_a_shown_number_lies_on_the_side_of_the_limit_where_the_number_lies(value, limit):
    shown = float(apart(value, limit, 2))
    assert np.sign(shown - limit) == np.sign(value - limit)


def test_scores_are_those_of_the_original():
    ratings, ids = encode(
        pd.DataFrame(
            [("u", "x", 1.0), ("v", "x", 0.0), ("u", "y", 1.0)],
            columns=["user_id", "guideline_id", "helpful"],
        )
    )
    p = Parameters(0.1, np.zeros(2), np.zeros((2, 1)), np.array([0.4, 0.6]), np.ones((2, 1)))
    table = score(ratings, ids, p).set_index("guideline_id")
    assert table["n_ratings"].to_dict() == {"x": 2, "y": 1}
    assert table["helpful_rate"].to_dict() == {"x": 0.5, "y": 1.0}
    assert table.loc["x", "consensus_score"] == pytest.approx(0.6 * 0.4 + 0.5 - 0.1)
    assert table.loc["y", "consensus_score"] == pytest.approx(0.1 * 0.6 + 1 - 0.1)


def test_order_is_by_verdict_then_consensus_then_id():
    table = scores(
        ("d", 9, 0.9, 0.2),
        ("c", 9, 0.9, 0.5),
        ("a", 9, 0.9, 0.5),
        ("b", 2, 0.9, 0.5),
        ("e", 9, 1.0, 0.6),
    )
    for rows in (table, table[::-1], table.sample(frac=1, random_state=3)):
        assert list(select(rows, ALIGNED_2023).scores["guideline_id"]) == ["e", "a", "c", "b", "d"]


def test_near_misses_failed_exactly_one_condition():
    table = scores(
        ("in", 9, 0.9, 0.5), ("one", 9, 0.9, 0.3), ("two", 9, 0.5, 0.3), ("few", 4, 0.95, 0.5)
    )
    assert list(select(table, ALIGNED_2023).near_misses()["guideline_id"]) == ["few", "one"]


def test_unrated_guidelines_get_a_verdict_too():
    full = with_unrated(scores(("b", 9, 0.9, 0.5)), pd.Series(["b", "a"]))
    constitution = select(full, ALIGNED_2023)
    row = constitution.scores.set_index("guideline_id").loc["a"]
    assert row["verdict"] == "undecided"
    assert "no ratings" in row["failed"][1]["reason"]
    assert full["n_ratings"].tolist() == [0, 9]


def test_selecting_leaves_its_argument_alone():
    table = scores(("b", 9, 0.9, 0.5), ("a", 9, 0.9, 0.6))
    before = table.copy()
    select(table, ALIGNED_2023)
    pd.testing.assert_frame_equal(table, before)


def test_slack_keeps_what_was_accepted_before_and_nothing_else():
    rows = scores(
        ("held", 5, 0.79, 0.36),
        ("new", 5, 0.79, 0.36),
        ("far", 5, 0.79, 0.3),
        ("few", 4, 0.9, 0.5),
        ("good", 9, 0.9, 0.5),
    )
    rule = replace(ALIGNED_2023, slack=0.1, accepted_before=("held", "far", "few", "gone"))
    found = select(rows, rule)
    assert set(found.accepted["guideline_id"]) == {"held", "good"}
    assert list(found.kept()["guideline_id"]) == ["held"]
    (kept,) = found.kept()["failed"]
    assert [f["name"] for f in kept] == ["min_intercept", "min_helpful_rate"]
    assert "held" not in set(found.near_misses()["guideline_id"])
    assert set(select(rows, replace(rule, slack=0.0)).accepted["guideline_id"]) == {"good"}
    assert set(select(rows, replace(rule, slack=0.25)).accepted["guideline_id"]) == {
        *("held", "good", "far", "few")
    }


def test_slack_eases_an_upper_bound_upwards():
    rule = Rule("low", (Condition("most", "helpful_rate", "<=", 0.5),), 0.1, ("a",))
    rows = scores(("a", 5, 0.54, 0.1), ("b", 5, 0.54, 0.1))
    assert list(select(rows, rule).accepted["guideline_id"]) == ["a"]
