"""What the report says in words: each sentence where it holds, and not where it does not."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
from report_values import fit_like, judged

import aggregation as ag
from aggregation.decisions.rules import ALIGNED_2023, ROBUST
from aggregation.evidence.collect import WITHOUT_FLAGGED
from aggregation.report import sentences
from aggregation.report.language import Language

T = Language()
TWO = {"smaller": 48, "larger": 245, "neither": 33, "two": True}
ACCEPTED = {"intercept": [0.9] * 24, "helpful_rate": [0.9] * 24}


def answer(values, sides=TWO, **columns):
    return " ".join(sentences.answer(T, judged(values, ALIGNED_2023, **columns), sides))


def doubts(values, summary=None, minima=(), **changes):
    constitution = changes.get("constitution", values["constitution"])
    fit = changes.get("fit", fit_like(values["fit"], settled=True))
    found = sentences.doubts(T, fit, constitution, pd.DataFrame(minima), summary or {})
    return dict(found)


def confident(values, *words):
    """The constitution whose accepted guidelines are so confident."""
    return judged(values, ALIGNED_2023, confidence=[*words, *[""] * (24 - len(words))])


# the answer


def test_the_answer_says_what_was_decided_and_how_far_each_side_agrees(values):
    rates = {"helpful_rate_smaller": [0.679] + [0.9] * 23, "helpful_rate_larger": [0.95] * 24}
    sure = ["clear"] * 3 + ["close"] * 4 + ["thin"] + [""] * 16
    assert answer(values, **rates, confidence=sure) == (
        "8 of 24 guidelines are accepted. Each was found helpful by at least 67% of each side. "
        "245 people stand on one side, 48 on the other, 33 on neither. "
        "Of those accepted: 3 decisions are clear, 4 are close calls, "
        "1 rests on fewer than 5 people of one side."
    )


def test_the_answer_does_not_speak_for_a_side_that_did_not_rate(values):
    rates = {"helpful_rate_smaller": [np.nan] + [0.9] * 23, "helpful_rate_larger": [0.95] * 24}
    told = answer(values, **rates)
    assert "Each was found helpful" not in told
    assert "Those that both sides rated were found helpful by at least 90% of each side." in told
    told = answer(values, helpful_rate_smaller=[np.nan] * 24)
    assert "of each side" not in told


def test_without_two_sides_the_answer_names_none(values):
    assert "side" not in answer(values, TWO | {"two": False}, confidence=["clear"] * 24)


def test_one_accepted_guideline_is_not_each(values):
    told = answer(values, intercept=[0.9] + [0.1] * 23, helpful_rate_smaller=[0.9] * 24)
    assert told.startswith("1 of 24 guidelines is accepted.")
    assert "of each side found it helpful." in told


def test_everybody_on_a_side_leaves_nobody_on_neither():
    told = sentences.standing(T, TWO | {"neither": 0})
    assert told == "245 people stand on one side, 48 on the other."


FEW = {"smaller": 1, "larger": 3, "neither": 119}
LIKED = "This list shows what is liked, not what bridges."


@pytest.mark.parametrize(
    ("sides", "rule", "division", "why", "what"),
    [
        (FEW, ALIGNED_2023, "none", "3 people stand on one side, 1 on the other", LIKED),
        (FEW, ALIGNED_2023, "more", "3 people stand on one side, 1 on the other", LIKED),
        (FEW | {"smaller": 0}, ALIGNED_2023, "none", "nobody stands against the others", LIKED),
        (TWO, ALIGNED_2023, "none", "the sides that the model finds do not hold", LIKED),
        (TWO, ROBUST, "none", "the sides that the model finds do not hold", LIKED),
        (FEW, ROBUST, "more", "3 people stand on one side", "The rule judges by both sides of"),
    ],
)
def test_a_page_without_sides_says_why(sides, rule, division, why, what):
    said = sentences.no_sides(T, sides, rule, division)
    assert why in said
    assert what in said
    assert said.endswith("No sides are shown.")
    assert ("no two sides" in said) == (sides != TWO)


def test_one_guideline_and_one_person_are_spoken_of_as_one():
    votes = pd.DataFrame({"who": ["a"] * 2, "what": ["x", "x"], "vote": ["yes", "no"]})[:1]
    quick = ag.Settings(starts=2, max_starts=2, moves=False)
    found = ag.deliberate(votes, user="who", guideline="what", rating="vote", settings=quick)
    sides = found.evidence.summary["sides"]
    assert not sides["two"]
    (told,) = sentences.answer(T, found.constitution, sides)
    assert told == "The only guideline is not accepted."
    assert sentences.ratings_given(T, 1, 1) == "1 rating by 1 person."
    accepted = replace(
        found.constitution, scores=found.constitution.scores.assign(verdict="accepted")
    )
    told = sentences.answer(T, accepted, sides)
    assert told[0] == "The only guideline is accepted."


# what to doubt


def test_good_evidence_is_no_doubt(values):
    summary = {
        "new_guideline": {"accounts_needed": 40.0},
        "flagged_users": {"clone": 0},
        "most_active_share": 0.04,
        "reach": {"left_out": 0.0},
    }
    minima = [{"loss": 0.1, "accepted": 8, "gained": [], "lost": []}] * 2
    assert doubts(values, summary, minima, constitution=confident(values, *["clear"] * 8)) == {}


def test_thin_and_close_decisions_are_named(values):
    ids = list(values["constitution"].scores["guideline_id"])
    told = doubts(values, constitution=confident(values, "thin", "thin", "close", *["clear"] * 5))
    (thin,) = [d for d in told if "of one side" in d]
    (close,) = [d for d in told if "tenth stricter" in d]
    assert thin.startswith("2 accepted guidelines were rated by fewer than 5 people")
    assert told[thin] == ids[:2]
    assert close.startswith("1 accepted guideline would not be accepted")
    assert told[close] == ids[2:3]
    known = judged(
        values, ALIGNED_2023, confidence=["close"] * 24, **{"p_accept_aligned-2023": 0.5}
    )
    told = doubts(values, constitution=known)
    assert any(d.startswith("8 accepted guidelines would have a chance below 75%") for d in told)
    assert not any("tenth stricter" in d for d in told)


def test_the_fit_gives_its_doubts(values):
    minima = [
        {"loss": 0.1, "accepted": 8, "gained": [], "lost": []},
        {"loss": 0.2, "accepted": 34, "gained": ["a"], "lost": ["b", "c"]},
    ]
    told = doubts(values, minima=minima, fit=fit_like(values["fit"], settled=False))
    (starts,) = [d for d in told if d.startswith("Fewer than three of 2 starts")]
    (other,) = [d for d in told if "would accept 34 guidelines instead of 8" in d]
    assert told[starts] == []
    assert told[other] == ["a", "b", "c"]
    assert "at a loss of 0.200000 instead of 0.100000" in other
    assert not any("starts" in d for d in doubts(values))


def test_a_replayed_descent_is_not_said_to_be_certified(values):
    replayed = fit_like(values["fit"], method="gradient-descent", settled=False)
    told = doubts(values, fit=replayed)
    assert any("nothing certifies that it has ended" in d for d in told)
    assert not any("starts" in d for d in told)
    assert "which nothing certifies" in sentences.fitted(T, replayed)
    assert "certified by a residual" not in sentences.fitted(T, replayed)


def test_a_fit_that_has_not_converged_is_not_called_certified(values):
    assert "certified by a residual" in sentences.fitted(T, values["fit"])
    open_ = sentences.fitted(T, fit_like(values["fit"], converged=False))
    assert "not certified, with a residual" in open_


def test_undecided_guidelines_are_counted_with_the_condition_that_they_lack(values):
    told = doubts(values, constitution=judged(values, ALIGNED_2023, n_ratings=[30] * 20 + [3] * 4))
    (text,) = [d for d in told if "undecided" in d]
    assert text.startswith("4 guidelines are undecided, neither accepted nor rejected.")
    assert text.endswith("Condition not met: ratings at least 5.")
    assert len(told[text]) == 4


def test_a_guideline_that_slack_keeps_is_a_doubt(values):
    accepted = values["constitution"].accepted
    held = accepted.loc[accepted["intercept"].idxmin(), "guideline_id"]
    rule = ALIGNED_2023.with_bounds(min_intercept=accepted["intercept"].min() + 1e-9)
    kept = judged(values, replace(rule, slack=0.1, accepted_before=(held,)))
    told = doubts(values, constitution=kept)
    (text,) = [d for d in told if "anew" in d]
    assert text == (
        "1 accepted guideline would not be accepted anew: it was accepted before, and no number is "
        "more than 10% beyond its bound."
    )
    assert told[text] == [held]


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"new_guideline": {"accounts_needed": 5.0}}, "5 new accounts that work together"),
        ({"flagged_users": {"clone": 2, "burst": 0}}, "2 people rated everything just as"),
        ({"flagged_users": {"burst": 1}}, "1 person rated faster than anybody reads"),
        ({"most_active_share": 0.31}, "most active 1% of the people gave 31%"),
        ({"reach": {"left_out": 0.22}}, "opinion group of 22% of the people agrees"),
    ],
)
def test_what_the_evidence_holds_against_the_results_is_a_doubt(values, summary, told):
    clear = confident(values, *["clear"] * 8)
    (doubt,) = doubts(values, summary, constitution=clear)
    assert told in doubt


def test_what_flagged_users_changed_is_told_where_it_is_known(values):
    clear = confident(values, *["clear"] * 8)
    (doubt,) = doubts(values, {"flagged_users": {"burst": 2}}, constitution=clear)
    assert doubt.endswith("They count like all others.")
    without = {"rule": WITHOUT_FLAGGED, "gained": ["x"], "lost": ["y", "z"]}
    summary = {"flagged_users": {"burst": 2}, "other_rules": [without]}
    ((doubt, named),) = doubts(values, summary, constitution=clear).items()
    assert doubt.endswith(
        "Without them, 1 more would be accepted, and 2 of the accepted would not."
    )
    assert named == ["x", "y", "z"]


# a guideline


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("n_ratings", 4, "ratings 4, needs at least 5"),
        ("intercept", 0.3749999, "intercept 0.3749999, needs more than 0.375"),
        ("helpful_rate", 0.739, "helpful rate 74%, needs at least 80%"),
        ("helpful_rate", 0.7999, "helpful rate 79.99%, needs at least 80%"),
        ("helpful_rate", None, "no ratings, so no helpful rate"),
    ],
)
def test_a_reason_shows_on_which_side_of_the_bound_a_number_lies(column, value, told):
    (condition,) = [c for c in ALIGNED_2023.conditions if c.column == column]
    assert sentences.reason(T, condition, value) == told


@pytest.mark.parametrize(
    ("verdict", "attack", "n", "told"),
    [
        ("accepted", "both sides", 35, "35 new accounts would be enough to remove it"),
        ("rejected", "both sides", 1, "1 new account would be enough to add it"),
        ("accepted", "", np.nan, "100 new accounts would not be enough to remove it"),
        ("rejected", "", np.nan, ""),
        ("accepted", None, np.nan, ""),
    ],
)
def test_what_it_costs_to_turn_a_decision_is_told_where_it_is_known(verdict, attack, n, told):
    card = {"verdict": verdict, "cheapest_attack": attack, "accounts_needed": n}
    assert sentences.cost(T, card) == told


def test_a_side_that_did_not_rate_is_not_said_to_find_anything():
    rates = {"helpful_rate_smaller": 0.46, "helpful_rate_larger": 0.99}
    told = "helpful to 46% of the smaller side, 99% of the larger"
    assert sentences.of_sides(T, rates) == told
    assert sentences.of_sides(T, rates | {"helpful_rate_smaller": np.nan}) == ""


def test_resamples_are_not_said_to_make_anything_certain():
    assert sentences.chance(T, 1.0) == "over 99% likely to be accepted again"
    assert sentences.chance(T, 0.831) == "83% likely to be accepted again"


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ([date(2022, 7, 27)] * 2, "Rated on July 27, 2022."),
        (
            [date(2022, 7, 27), date(2022, 8, 1)],
            "Rated from July 27, 2022 to August 1, 2022.",
        ),
        ([None], ""),
    ],
)
def test_a_single_day_is_one_day(days, told):
    rated_at = pd.Series(pd.to_datetime(days, utc=True))
    assert sentences.period(T, rated_at) == told
