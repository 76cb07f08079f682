"""The report's main page: its numbers are true, and its words follow from the rule."""

import re
from dataclasses import replace
from html import escape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from aggregation.decisions.constitution import select
from aggregation.decisions.rules import ALIGNED_2023, Rule
from aggregation.decisions.table import overview
from aggregation.evidence.sides import perspectives
from aggregation.report.index import doubts, doubts_of_evidence, index_page

RATINGS, INTERCEPT, RATE = ALIGNED_2023.conditions

MAX_DEPTH = 50
"""Of topics within topics; readers refuse more."""


def text_of(page):
    """The words of a page."""
    body = re.sub("<(style|math).*?</\\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]*>", " ", body).replace("\u00a0", " ").split())


def doubts_of(values, **changes):
    values = values | changes
    minima = pd.DataFrame(values["minima"])
    return doubts(values["fit"], values["constitution"], minima)


def fit_like(fit, **changes):
    """What the page reads of a fit, with some of it changed."""
    names = ("method", "parameters", "starts", "warm_start", "objective", "kkt_residual")
    names += ("converged", "settled", "penalty")
    return SimpleNamespace(**{name: getattr(fit, name) for name in names} | changes)


def judged(values, rule, **columns):
    """The constitution by another rule, or by other numbers."""
    return select(values["constitution"].scores.assign(**columns), rule)


@pytest.fixture(scope="module")
def page(values):
    return index_page(**values)


def card(page, number):
    return re.search(rf'<li class="card" id="guideline-{number}">.*?</li>', page, re.DOTALL)[0]


def test_the_page_holds_the_constitution_with_its_numbers(values, page):
    constitution = values["constitution"]
    accepted, near = constitution.accepted, constitution.near_misses()
    assert len(accepted) == 8
    assert page.count('<li class="card"') == len(accepted) + min(len(near), 12)
    row = accepted.iloc[0]
    first = text_of(card(page, 1))
    assert f"{100 * row['helpful_rate']:.0f} % helpful of {row['n_ratings']} ratings" in first
    assert f"Consensus {100 * row['consensus_score']:.0f} %" in first
    for side in ("negative", "positive"):
        rate, n = row[f"helpful_rate_{side}"], row[f"n_ratings_{side}"]
        assert f"{side} side {100 * rate:.0f} % of {n}" in first
    assert "No guideline accepted yet, of 8 guidelines." in text_of(page)
    liked = values["constitution"].rule.liked(constitution.scores).sum()
    told = f"of {liked} guidelines with at least 5 ratings that at least 80 % of the raters found"
    assert f"{told} helpful, 8 are accepted" in text_of(page)
    assert "40 people have spoken" in text_of(page)


def test_histograms_are_drawn_to_the_numbers(values, page):
    found = perspectives(values["ratings"], values["fit"].parameters.user_embedding)
    row = values["ids"].guidelines.get_loc(values["constitution"].accepted["guideline_id"].iloc[0])
    drawn = re.findall(r'class="h".*?height="([\d.]+)"', card(page, 1))
    tallest = (found.helpful[row] + found.not_helpful[row]).max()
    np.testing.assert_allclose(
        list(map(float, drawn)), 44 * found.helpful[row] / tallest, atol=0.01
    )


def test_only_the_given_stages_are_linked_and_all_links_lead_somewhere(values, page, hostile):
    links = re.findall(r'<a href="(\w+)\.html">', page)
    assert set(links) == set(values["stages"])
    assert all((hostile / "report" / f"{name}.html").exists() for name in links)
    assert set(re.findall(r'href="(?!data:)([^"]+)"', page)) == {f"{name}.html" for name in links}
    assert not re.search(r"\.html", index_page(**values | {"stages": ()}))


def test_a_simulated_deliberation_says_so(values, page):
    about = replace(values["dataset"].about, simulated=True)
    simulated = index_page(**values | {"dataset": replace(values["dataset"], about=about)})
    assert "Nobody said any of this" in simulated
    assert "Nobody said any of this" not in page


def test_topics_as_deep_as_they_may_be_are_shown(values):
    dataset = values["dataset"]
    chain = pd.DataFrame(
        {
            "topic_id": [f"d{k}" for k in range(MAX_DEPTH - 1)],
            "title": [f"level {k}" for k in range(MAX_DEPTH - 1)],
            "description": None,
            "parent_id": [None, *(f"d{k}" for k in range(MAX_DEPTH - 2))],
        }
    )
    topics = pd.concat([chain, dataset.topics.assign(parent_id=f"d{MAX_DEPTH - 2}")])
    deep = replace(dataset, topics=topics)
    assert f">level {MAX_DEPTH - 2}</h6>" in index_page(**values | {"dataset": deep})
    paths = overview(values["constitution"], deep)["topic"]
    assert paths.str.count(" > ").max() == MAX_DEPTH - 1


# what to doubt


def test_the_table_of_all_guidelines_shows_the_lowest_side_and_chances_where_known(values, page):
    table = page[page.index('class="all"') :]
    assert '<th class="num">lowest side</th>' in table
    assert "accepted again" not in table
    first = values["constitution"].scores.iloc[0]
    assert f">{100 * first['lowest_side_rate']:.0f}\u00a0%</td>" in table
    full = {"intercept_low": 0.1, "intercept_high": 0.2, "rank_low": 1.0, "rank_high": 2.0}
    full["p_accept_aligned-2023"] = 0.37
    known = judged(values, values["constitution"].rule, **full)
    table = index_page(**values | {"constitution": known}).partition('class="all"')[2]
    assert '<th class="num">accepted again</th>' in table
    assert table.count(">37\u00a0%</td>") >= len(known.scores)


def test_without_sides_nobody_is_said_to_disagree(values, page):
    assert "people who otherwise disagree" in text_of(page)
    told = values["summary"] | {"division": "none"}
    alone = text_of(index_page(**values | {"summary": told}))
    assert "people who otherwise disagree" not in alone
    assert "this list shows what is liked, not what bridges: of" in alone


def test_warnings_stand_at_the_top_and_first_among_the_doubts(values, page):
    assert "Read this first" not in page
    told = {"warnings": ["Every rating is <the same>."]}
    warned = index_page(**values | {"summary": values["summary"] | told})
    assert warned.index("Every rating is &lt;the same&gt;.") < warned.index('class="facts"')
    doubts = text_of(warned).partition("What to doubt")[2]
    assert doubts.index("Every rating is") < doubts.index("The axis is what divides")


def test_few_ratings_from_either_side_are_counted_once_a_guideline(values):
    """Three guidelines lack the negative side, three the positive, one of them both: five."""
    sides = {
        "n_ratings_negative": [4, 4, 0, 9, 9, 9, 9, 9] + [9] * 16,
        "n_ratings_positive": [9, 9, 0, 4, 4, 9, 9, 9] + [9] * 16,
    }
    constitution = judged(values, ALIGNED_2023, **sides)
    assert len(constitution.accepted) == 8
    found = [d for d in doubts_of(values, constitution=constitution) if "two sides" in d]
    assert len(found) == 1
    assert "5 accepted guidelines had fewer than 5 ratings from one of the two sides" in found[0]
    more_than_four = Rule("r", (replace(RATINGS, comparison=">", bound=4), INTERCEPT, RATE))
    constitution = judged(values, more_than_four, **sides)
    assert found[0] in doubts_of(values, constitution=constitution)
    four = ALIGNED_2023.with_bounds(min_ratings=4)
    constitution = judged(values, four, **sides)
    assert "1 accepted guideline had fewer than 4 ratings" in " ".join(
        doubts_of(values, constitution=constitution)
    )


def test_intercepts_near_the_bound_are_close_calls(values):
    intercept = [0.376] * 2 + [0.9] * 6 + [0.37] + [0.1] * 15
    rate = [0.9] * 24
    constitution = judged(values, ALIGNED_2023, intercept=intercept, helpful_rate=rate)
    told = " ".join(doubts_of(values, constitution=constitution))
    assert "3 decisions would turn on a change of the intercept by less than 0.02" in told


def test_the_fit_gives_its_doubts(values):
    fit = values["fit"]
    settled = fit_like(fit, settled=True)
    told = " ".join(doubts_of(values, fit=settled, minima=values["minima"][:1]))
    assert "Fewer than three" not in told
    assert "other minimum" not in told
    minima = [
        {"loss": 0.1, "accepted": 8, "gained": [], "lost": []},
        {"loss": 0.2, "accepted": 7, "gained": ["a"], "lost": ["b", "c"]},
    ]
    told = " ".join(doubts_of(values, fit=fit_like(fit, settled=False), minima=minima))
    assert "Fewer than three of 2 starts" in told
    assert "1 other minimum that would decide otherwise" in told
    assert "at a loss of 0.200000 instead of 0.100000, would accept 7 guidelines: 1 that" in told
    assert "without 2 of those" in told


def test_undecided_guidelines_are_counted_with_the_condition_that_they_lack(values):
    n = [30] * 20 + [3] * 4
    told = " ".join(doubts_of(values, constitution=judged(values, ALIGNED_2023, n_ratings=n)))
    assert "4 guidelines are undecided, neither accepted nor rejected" in told
    assert "Condition not met: ratings at least 5." in told


# the words follow from the rule


def test_a_rule_without_an_intercept_is_not_said_to_bridge(values):
    rule = Rule("plain", (replace(RATINGS, bound=7), replace(RATE, bound=0.9)))
    page = text_of(index_page(**values | {"constitution": judged(values, rule)}))
    assert "by the rule plain : ratings at least 7, helpful rate at least 0.9." in page
    assert "ratings at least 7, else undecided" in page
    assert "helpful rate at least 0.9, else rejected" in page
    for false in (
        "more than 0.375",
        "majority",
        "otherwise disagree",
        "bridging changed",
        "Orange",
    ):
        assert false not in page
    assert "Dashed lines are bounds of the rule: helpful rate at least 0.9." in page


def test_a_rule_of_one_condition_names_no_other(values):
    rule = Rule("one", (replace(INTERCEPT, comparison="<", bound=0.25),))
    constitution = judged(values, rule)
    page = text_of(index_page(**values | {"constitution": constitution}))
    assert "by the rule one : intercept less than 0.25." in page
    assert "intercept less than 0.25, else rejected" in page
    assert "Dashed lines are bounds of the rule: intercept less than 0.25." in page
    for false in ("0.375", "at least 80", "fewer than 0", "majority"):
        assert false not in page
    assert not any("two sides" in doubt for doubt in doubts_of(values, constitution=constitution))


def test_a_guideline_that_nobody_rated_has_no_numbers(values):
    scores = values["constitution"].scores
    unrated = scores.assign(
        n_ratings=scores["n_ratings"].where(scores.index < 23, 0),
        **{
            name: scores[name].where(scores.index < 23)
            for name in ("helpful_rate", "intercept", "consensus_score")
        },
    )
    constitution = select(unrated, Rule("one", (RATE,)))
    page = text_of(index_page(**values | {"constitution": constitution, "near_misses": 99}))
    assert "nan" not in page
    assert "Consensus – · – helpful of 0 ratings · intercept –" in page


def test_an_intercept_is_shown_on_its_side_of_the_bound(values):
    intercept = [0.3750001] + [0.9] * 7 + [0.37499999] + [0.1] * 15
    constitution = judged(values, ALIGNED_2023, intercept=intercept, helpful_rate=[0.9] * 24)
    page = text_of(index_page(**values | {"constitution": constitution}))
    assert "intercept 0.3750001" in page
    assert "intercept 0.37499999" in page


def test_a_fit_that_has_not_converged_is_not_called_certified(values, page):
    fit = fit_like(values["fit"], converged=False)
    assert "certified by a residual" in text_of(page)
    assert "not certified, with a residual" in text_of(index_page(**values | {"fit": fit}))
    replayed = fit_like(values["fit"], method="gradient-descent")
    assert "which nothing certifies" in text_of(index_page(**values | {"fit": replayed}))


def test_intervals_and_costs_stand_on_the_cards_where_they_are_known(values):
    first = values["constitution"].scores.index == 0
    constitution = judged(
        values,
        values["constitution"].rule,
        **{"p_accept_aligned-2023": np.where(first, 0.83, 0.5)},
        intercept_low=0.41,
        intercept_high=0.52,
        rank_low=1.0,
        rank_high=4.0,
        accounts_needed=np.where(first, 35.0, np.nan),
        cheapest_attack=np.where(first, "both sides", ""),
    )
    one, other = (card(index_page(**values | {"constitution": constitution}), n) for n in (1, 2))
    told = text_of(one)
    assert "Accepted if other people had come: 83 % · intercept 0.41 to 0.52 · rank 1 to 4" in told
    assert "35 new accounts would be enough to remove it" in told
    assert "100 new accounts would not be enough to remove it" in text_of(other)
    without = text_of(card(index_page(**values), 1))
    assert "probability that both sides do" in without
    assert "other people" not in without
    assert "accounts" not in without


def test_other_rules_and_measures_say_what_they_would_change(values):
    ids = list(values["constitution"].scores["guideline_id"])
    summary = {
        "other_rules": [{"rule": "robust", "gained": [ids[9]], "lost": [ids[1], ids[0]]}],
        "yardsticks": [{"yardstick": "wilson_lower", "gained": [ids[2]], "lost": [ids[8]]}],
    }
    page = text_of(index_page(**values | {"summary": summary}))
    assert "the rule robust 10 1, 2 wilson lower 9 3" in page
    assert "Other ways to decide" not in index_page(**values | {"summary": {}})


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ({"new_guideline": {"accounts_needed": 5.0}}, "5 new accounts that work together"),
        ({"flagged_users": {"clone": 2, "burst": 0}}, "2 users rated everything just as somebody"),
        ({"most_active_share": 0.31}, "most active 1 % of the users gave 31%"),
        ({"reach": {"left_out": 0.22}}, "opinion group of 22% of the users agrees"),
    ],
)
def test_what_the_evidence_holds_against_the_results_is_a_doubt(values, summary, told):
    (doubt,) = doubts_of_evidence(values["constitution"], summary)
    assert told in doubt
    assert doubt in text_of(index_page(**values | {"summary": summary}))


def test_what_flagged_users_changed_is_told_where_it_is_known(values):
    summary = {"flagged_users": {"burst": 2}, "other_rules": []}
    (doubt,) = doubts_of_evidence(values["constitution"], summary)
    assert doubt.endswith("They count like all others.")
    ids = list(values["constitution"].scores["guideline_id"])
    without = {"rule": "without flagged users", "gained": ids[-1:], "lost": ids[:2]}
    (doubt,) = doubts_of_evidence(values["constitution"], summary | {"other_rules": [without]})
    told = "Without them, 1 other guideline would be accepted, and 2 of the accepted would not."
    assert doubt.endswith(told)
    changed = values | {"summary": summary | {"other_rules": [without]}}
    assert "this rule, without flagged users" in text_of(index_page(**changed))


def test_a_guideline_that_slack_keeps_says_so_on_its_card_and_among_the_doubts(values):
    constitution = values["constitution"]
    lowest = constitution.accepted["intercept"].idxmin()
    held = constitution.accepted.loc[lowest, "guideline_id"]
    bound = constitution.accepted["intercept"].min() + 1e-9
    rule = ALIGNED_2023.with_bounds(min_intercept=bound)
    rule = replace(rule, slack=0.1, accepted_before=(held,))
    kept = judged(values, rule)
    assert list(kept.kept()["guideline_id"]) == [held]
    (doubt,) = doubts_of_evidence(kept, {})
    assert doubt == (
        "1 accepted guideline would not be accepted anew: it was accepted before, and no number is "
        "more than 10% beyond its bound."
    )
    page = index_page(**values | {"constitution": kept})
    number = kept.scores["guideline_id"].tolist().index(held) + 1
    assert "Accepted before, so kept: intercept" in text_of(card(page, number))


def test_support_by_declared_answers_stands_on_the_card(values, page):
    first = text_of(card(page, 1))
    cells = values["constitution"].accepted.iloc[0]["by_answer"]
    assert [(c["question"], c["n"]) for c in cells] == [("age", 20), ("age", 20)]
    for c in cells:
        assert f"{escape(c['answer'])} {100 * c['helpful_rate']:.0f} % of 20" in first


def test_good_evidence_is_no_doubt(values):
    summary = {
        "new_guideline": {"accounts_needed": None},
        "flagged_users": {"clone": 0},
        "most_active_share": 0.04,
        "reach": {"left_out": 0.0},
    }
    assert doubts_of_evidence(values["constitution"], summary) == []
    unsure = judged(values, values["constitution"].rule, **{"p_accept_aligned-2023": 0.5})
    (doubt,) = doubts_of_evidence(unsure, {})
    assert doubt.startswith(f"Of the accepted guidelines, {len(unsure.accepted)} would have")
