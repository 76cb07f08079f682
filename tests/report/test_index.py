"""The report's main page: its numbers are true, and it shows only what holds."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_values import fit_like, judged, text_of

from aggregation.decisions.rules import ALIGNED_2023, ROBUST, Rule
from aggregation.decisions.table import overview
from aggregation.evidence.sides import perspectives
from aggregation.report.index import index_page

RATINGS, INTERCEPT, RATE = ALIGNED_2023.conditions

MAX_DEPTH = 50
"""Of topics within topics; readers refuse more."""


@pytest.fixture(scope="module")
def page(values):
    return index_page(**values)


def card(page, number):
    return re.search(rf'<li class="card" id="guideline-{number}">.*?</li>', page, re.DOTALL)[0]


def section(page, name):
    """The part of a page from a heading to the next of its kind."""
    return re.search(rf'<h2 id="{name}">.*?(?=<h2|</main>)', page, re.DOTALL)[0]


def with_sides(values, **changes):
    sides = values["summary"]["sides"] | changes
    return values | {"summary": values["summary"] | {"sides": sides}}


def test_a_card_holds_the_numbers_of_its_guideline(values, page):
    row = values["constitution"].accepted.iloc[0]
    first = text_of(card(page, 1))
    for side in ("smaller", "larger"):
        rate, n = row[f"helpful_rate_{side}"], row[f"n_ratings_{side}"]
        assert f"{side.capitalize()} side {100 * rate:.0f}% of {n}" in first
    assert f"Helpful rate {100 * row['helpful_rate']:.0f}% of {row['n_ratings']} ratings" in first
    assert f"Intercept {row['intercept']:.3f}" in first
    assert {"clear": "Clear", "close": "Close call"}[row["confidence"]] in first


def test_bars_are_drawn_to_the_numbers(values, page):
    row = values["constitution"].accepted.iloc[1]
    second = card(page, 2)
    for side in ("smaller", "larger"):
        name = f"helpful_rate_{side}"
        (width,) = re.findall(rf'<rect class="{side}" y="3" width="([\d.]+)%"', second)
        assert float(width) == pytest.approx(100 * row[name], abs=0.05)
        ends = (100 * row[f"{name}_low"], 100 * row[f"{name}_high"])
        assert f'class="whisker" x1="{ends[0]:.1f}%" x2="{ends[1]:.1f}%"' in second
    assert second.count('<line class="tick" x1="80%" x2="80%"') == 2


def test_histograms_are_drawn_to_the_numbers(values, page):
    found = perspectives(values["ratings"], values["fit"].parameters.user_embedding)
    row = values["ids"].guidelines.get_loc(values["constitution"].accepted["guideline_id"].iloc[0])
    (path,) = re.findall(r'<path class="larger" d="([^"]*)"', card(page, 1))
    drawn = [float(height) for height in re.findall(r"v-([\d.]+)h8", path)]
    tallest = (found.helpful[row] + found.not_helpful[row]).max()
    heights = 44 * found.helpful[row] / tallest
    heights = heights[heights > 0]
    turned = heights[::-1]
    assert np.allclose(drawn, heights, atol=0.06) or np.allclose(drawn, turned, atol=0.06)


def test_every_guideline_has_one_place_that_its_links_lead_to(values, page):
    places = re.findall(r'id="guideline-(\d+)"', page)
    assert sorted(map(int, places)) == list(range(1, len(values["constitution"].scores) + 1))
    assert set(re.findall(r'href="#guideline-(\d+)"', page)) <= set(places)
    anchors = set(re.findall(r'href="#([\w-]+)"', page))
    assert anchors <= set(re.findall(r'id="([\w-]+)"', page))


def test_only_the_given_stages_are_linked_and_all_links_lead_somewhere(values, page, hostile):
    links = re.findall(r'<a href="(\w+)\.html">', page)
    assert links == list(values["stages"])
    assert all((hostile / "report" / f"{name}.html").exists() for name in links)
    outside = set(re.findall(r'href="(?!data:|#)([^"]+)"', page))
    assert outside == {f"{name}.html" for name in links}
    assert not re.search(r"\.html\"", index_page(**values | {"stages": ()}))


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


def test_topics_say_how_many_of_them_are_accepted_and_empty_ones_come_last(page):
    words = text_of(section(page, "constitution"))
    assert "<i>topic</i> 0 4 of 8" in words
    assert words.endswith("Topics without an accepted guideline: <i>topic</i> 2 (8).")


# sides


def test_where_there_are_no_two_sides_none_is_shown_and_the_page_begins_with_that(values, page):
    for whole in ('id="divides"', 'id="map"', 'id="both"', "smaller side", "Smaller side"):
        assert whole in page
    alone = index_page(**with_sides(values, smaller=3, larger=1, neither=36, two=False))
    for part in ('id="divides"', 'id="map"', 'id="both"', "smaller side", "Smaller side"):
        assert part not in alone
    told = "The model finds no two sides here: 1 person stands on one side, 3 on the other, 36 on"
    assert alone.index(told) < alone.index('class="answer"')
    assert "otherwise disagree" not in text_of(alone)


def test_what_divides_the_sides_are_the_largest_gaps_either_way(values, page):
    scores = values["constitution"].scores
    told = section(page, "divides")
    larger, smaller = re.findall(r'<ol class="pairs">.*?</ol>', told, re.DOTALL)
    for part, gaps in ((larger, scores["gap"]), (smaller, -scores["gap"])):
        numbers = re.findall(r'href="#guideline-(\d+)"', part)
        assert len(numbers) == 5
        shown = gaps.iloc[[int(n) - 1 for n in numbers]]
        assert shown.is_monotonic_decreasing
        assert shown.min() >= gaps.drop(shown.index).max()
        assert shown.min() >= 0.25


def test_what_both_sides_rate_alike_is_not_said_to_divide_them(values):
    alike = judged(values, ALIGNED_2023, gap=[0.24] * 12 + [-0.24] * 12)
    page = index_page(**values | {"constitution": alike})
    assert 'id="divides"' not in page
    assert 'href="#divides"' not in page


def test_guidelines_that_hardly_anybody_rated_on_a_side_divide_nobody(values):
    few = judged(values, ALIGNED_2023, n_ratings_smaller=[4] * 24)
    page = index_page(**values | {"constitution": few})
    assert 'id="divides"' not in page
    assert "0 of 24 guidelines: those with at least 5 ratings of either side" in text_of(page)


def test_the_map_has_a_mark_for_every_guideline_and_counts_every_user(values, page):
    told = section(page, "map")
    svg = re.search("<svg class=.chart.*?</svg>", told, re.DOTALL)[0]
    assert sorted(map(int, re.findall(r'href="#guideline-(\d+)"', svg))) == list(range(1, 25))
    assert svg.count('<rect class="accepted"') == len(values["constitution"].accepted)
    assert svg.count('<circle class="rejected"') == 16
    table = re.search(r"<tbody>.*?</tbody>", told, re.DOTALL)[0]
    assert sum(map(int, re.findall(r'class="num">(\d+)<', table))) == values["ratings"].n_users
    assert told.count("<figure") == 1


def test_a_fit_of_two_axes_has_two_maps(values):
    p = values["fit"].parameters
    wide = replace(p, user_embedding=np.repeat(p.user_embedding, 2, axis=1))
    scores = values["constitution"].scores
    constitution = judged(values, ALIGNED_2023, embedding=[[*e, *e] for e in scores["embedding"]])
    fit = fit_like(values["fit"], parameters=wide)
    page = index_page(**values | {"fit": fit, "constitution": constitution})
    assert section(page, "map").count("<figure") == 2
    assert "The same on the second axis" in page
    first, second = re.findall('<svg class="chart".*?</svg>', section(page, "map"), re.DOTALL)
    for side in ("smaller", "larger"):  # of the first axis only
        assert f'<rect class="{side}"' in first
        assert f'<rect class="{side}"' not in second
    assert "2 axes, from" in page


# what was not accepted


def test_those_not_accepted_are_grouped_by_the_reason(values):
    """One guideline of each kind; the other rejected ones are found helpful by few."""
    left = 15
    rate = [0.9] * 8 + [0.79, 0.7, 0.75, 0.9] + [0.3] * 12
    larger = [0.9] * 8 + [0.9, 0.9, 0.8, 0.9] + [0.3] * 12
    smaller = [0.9] * 8 + [0.8, 0.4, 0.7, 0.9] + [0.3] * 12
    constitution = judged(
        values,
        ALIGNED_2023,
        intercept=[0.9] * 24,
        helpful_rate=rate,
        helpful_rate_larger=larger,
        helpful_rate_smaller=smaller,
        gap=np.subtract(larger, smaller),
        n_ratings=[30] * 11 + [3] + [30] * 12,
        accepted_in=[1.0] * 8 + [0.5] + [0.0] * left,
    )
    page = index_page(**values | {"constitution": constitution, "near_misses": 1})
    told = section(page, "not-accepted")
    groups = dict(re.findall(r'<h3 id="([\w-]+)">.*?\((\d+)\)', told, re.DOTALL))
    assert groups == {
        "within-reach": "1",
        "one-side": "1",
        "liked": "1",
        "unclear": "1",
        "disliked": "12",
    }
    assert told.count('class="card"') == 5
    assert "11 more are in the table of all guidelines." in told
    assert "Helpful rate 79%, needs at least 80%." in text_of(told)
    assert "3 ratings, needs" not in text_of(told)
    assert "Ratings 3, needs at least 5." in text_of(told)
    assert "Helpful to 40% of the smaller side, 90% of the larger." in text_of(told)


def test_where_everything_is_accepted_nothing_is_said_to_be_turned_down(values):
    constitution = judged(values, ALIGNED_2023, intercept=[0.9] * 24, helpful_rate=[0.9] * 24)
    page = index_page(**values | {"constitution": constitution})
    words = text_of(page)
    assert "All 24 guidelines are accepted." in words
    assert "Every guideline was accepted." in words
    for false in ("turned down</a>", "Topics without an accepted guideline"):
        assert false not in page


def test_where_nothing_is_accepted_no_side_is_said_to_agree(values):
    constitution = judged(values, ALIGNED_2023, intercept=[0.1] * 24, confidence=[""] * 24)
    words = text_of(index_page(**values | {"constitution": constitution}))
    assert "None of 24 guidelines is accepted." in words
    assert "No guideline was accepted." in words
    assert "Each was found helpful" not in words
    assert "Of those accepted" not in words


# more guidelines than a page can hold


def test_of_very_many_guidelines_the_first_of_each_kind_are_shown(values, page, monkeypatch):
    monkeypatch.setattr("aggregation.report.index.MOST_SHOWN", 2)
    constitution, most = values["constitution"], 1
    cut = index_page(**values | {"near_misses": most})
    kinds = constitution.scores["confidence"].where(
        constitution.scores["confidence"] != "", constitution.scores["verdict"]
    )
    first = kinds.groupby(kinds).cumcount() < 2
    places = [int(n) for n in re.findall(r'id="guideline-(\d+)"', cut)]
    shown = set(places)
    assert len(places) == len(shown)
    assert set(np.flatnonzero(first) + 1) <= shown
    divide = re.findall(r"guideline-(\d+)", section(cut, "divides"))
    assert divide == re.findall(r"guideline-(\d+)", section(page, "divides")) != []
    assert set(map(int, divide)) <= shown
    both = text_of(section(cut, "both")).partition(" One guideline in")[0]
    assert both in text_of(section(page, "both"))
    assert len(shown) < len(first)
    assert f"This page shows {len(shown)} of {len(first)} guidelines" in text_of(cut)
    assert set(map(int, re.findall(r'href="#guideline-(\d+)"', cut))) <= shown
    one_in = -(-len(first) // 2)
    assert f"One guideline in {one_in} is drawn" in text_of(section(cut, "map"))
    drawn = re.findall(r'<a href="#guideline-(\d+)" tabindex', section(cut, "map"))
    assert set(map(int, drawn)) == {1, 1 + one_in}
    # numbers of guidelines, and the table for download, are those of all
    for part in (r'<ul class="legend">.*?</ul>', r'<ul class="topics">.*?</ul>', 'base64,[^"]+'):
        there, here = (re.search(part, p, re.DOTALL)[0] for p in (page, cut))
        assert text_of(there) == text_of(here)
    more = re.findall(r"(\d+) more (?:is|are) in the table for download", text_of(cut))
    cards = len(re.findall('<li class="card"', cut))
    assert sum(map(int, more)) == len(first) - cards > 0
    assert "This page shows" not in text_of(page)


# the table of all guidelines


def test_the_table_holds_every_guideline_with_its_numbers(values, page):
    scores = values["constitution"].scores
    rows = re.findall(r"<tr data-verdict.*?</tr>", page, re.DOTALL)
    assert len(rows) == len(scores)
    for row, score in zip(rows, scores.to_dict("records"), strict=True):
        cells = [text_of(cell) for cell in re.findall(r'class="num"[^>]*>(.*?)</t[dh]>', row)]
        rates = [f"{100 * score[f'helpful_rate_{s}']:.0f}%" for s in ("larger", "smaller")]
        assert cells[1:3] == rates
        assert cells[3].strip("+−") == f"{abs(100 * score['gap']):.0f}"
        assert str(score["n_ratings"]) in cells


def test_chances_stand_in_the_table_and_on_the_badge_where_they_are_known(values, page):
    assert "accepted again" not in text_of(page)
    full = {"intercept_low": 0.1, "intercept_high": 0.2, "rank_low": 1.0, "rank_high": 2.0}
    known = judged(values, ALIGNED_2023, **full, **{"p_accept_aligned-2023": 0.83})
    told = index_page(**values | {"constitution": known})
    assert "83% likely to be accepted again" in text_of(card(told, 1))
    assert "(0.10 – 0.20)" in text_of(card(told, 1))
    assert "Rank 1 – 2" in text_of(card(told, 1))
    assert told.count('<td class="num">83%</td>') == len(known.scores)


def test_the_text_of_a_guideline_is_whole_or_said_to_be_cut(page):
    assert "Cut here, of 1,000,000 characters" in text_of(page)
    assert len(page) < 400_000 + len(re.search(r'href="data:[^"]*"', page)[0])


# words that follow from the rule


def test_a_rule_without_rates_has_no_mark_on_its_bars(values):
    rule = Rule("one", (replace(INTERCEPT, comparison="<", bound=0.25),))
    page = index_page(**values | {"constitution": judged(values, rule)})
    words = text_of(page)
    assert "intercept less than 0.25, else rejected" in words
    assert 'class="tick"' not in page
    for false in ("0.375", "at least 80", "Dashed lines"):
        assert false not in words


def test_the_robust_rule_marks_what_it_asks_of_a_side(values):
    page = index_page(**values | {"constitution": judged(values, ROBUST)})
    assert 'class="tick" x1="65%"' in page
    assert "otherwise disagree" not in text_of(page)


def test_a_guideline_that_nobody_rated_has_no_numbers(values):
    scores = values["constitution"].scores
    names = ("helpful_rate", "intercept", "consensus_score", "gap")
    sides = [f"helpful_rate_{s}{e}" for s in ("smaller", "larger") for e in ("", "_low", "_high")]
    columns = {name: scores[name].where(scores.index < 23) for name in (*names, *sides)}
    counts = ("n_ratings", "n_ratings_smaller", "n_ratings_larger")
    columns |= {name: scores[name].where(scores.index < 23, 0) for name in counts}
    columns["embedding"] = [*scores["embedding"][:23], None]
    constitution = judged(values, Rule("one", (RATE,)), **columns)
    words = text_of(index_page(**values | {"constitution": constitution, "near_misses": 99}))
    assert "nan" not in words
    assert "no ratings, so no helpful rate" in words.lower()
    assert "Smaller side no ratings" in words


def test_an_intercept_is_shown_on_its_side_of_the_bound(values):
    intercept = [0.3750001] + [0.9] * 7 + [0.37499999] + [0.1] * 15
    constitution = judged(values, ALIGNED_2023, intercept=intercept, helpful_rate=[0.9] * 24)
    page = text_of(index_page(**values | {"constitution": constitution}))
    assert "Intercept 0.3750001" in page
    assert "intercept 0.37499999, needs more than 0.375" in page


def test_a_guideline_that_slack_keeps_says_so_on_its_card(values):
    constitution = values["constitution"]
    lowest = constitution.accepted["intercept"].idxmin()
    held = constitution.accepted.loc[lowest, "guideline_id"]
    bound = constitution.accepted["intercept"].min() + 1e-9
    rule = replace(
        ALIGNED_2023.with_bounds(min_intercept=bound), slack=0.1, accepted_before=(held,)
    )
    kept = judged(values, rule)
    assert list(kept.kept()["guideline_id"]) == [held]
    page = index_page(**values | {"constitution": kept})
    number = kept.scores["guideline_id"].tolist().index(held) + 1
    assert "Accepted before, so kept: intercept" in text_of(card(page, number))


def test_support_by_declared_answers_stands_on_the_card(values, page):
    first = text_of(card(page, 1))
    cells = values["constitution"].accepted.iloc[0]["by_answer"]
    assert [(c["question"], c["n"]) for c in cells] == [("age", 20), ("age", 20)]
    for c in cells:
        assert f"{c['answer']} {100 * c['helpful_rate']:.0f}% of 20" in first


def test_other_rules_and_measures_say_what_they_would_change(values):
    ids = list(values["constitution"].scores["guideline_id"])
    summary = values["summary"] | {
        "other_rules": [{"rule": "robust", "gained": [ids[9]], "lost": [ids[1], ids[0]]}],
        "yardsticks": [{"yardstick": "wilson_lower", "gained": [ids[2]], "lost": [ids[8]]}],
    }
    page = index_page(**values | {"summary": summary})
    words = text_of(page)
    assert "the rule robust 10 1, 2" in words
    assert "lower bound of the helpful rate (Wilson) 9 3" in words
    first = text_of(card(page, 1))
    assert "Other rules and measures would decide otherwise: the rule robust." in first
    none = values["summary"] | {"other_rules": [], "yardsticks": []}
    assert "Other ways to decide" not in index_page(**values | {"summary": none})


def test_a_card_tells_of_opinion_groups_and_of_other_fits(values):
    first = values["constitution"].scores["guideline_id"].iloc[0]
    minima = [
        {"loss": 0.1, "accepted": 8, "gained": [], "lost": []},
        {"loss": 0.2, "accepted": 7, "gained": [], "lost": [first]},
    ]
    columns = {"helpful_rate_group_1": 0.9, "n_ratings_group_1": 12}
    columns |= {"helpful_rate_group_2": 0.5, "n_ratings_group_2": 0}
    known = judged(values, ALIGNED_2023, **columns)
    summary = values["summary"] | {"groups": [20, 20]}
    page = index_page(**values | {"constitution": known, "summary": summary, "minima": minima})
    told = text_of(card(page, 1))
    assert "Opinion groups 90% of 12. Groups of people who rate alike" in told
    assert "1 other minimum of the fit, at a higher loss, would decide otherwise." in told
    assert "Other fits" not in text_of(card(page, 2))


def test_doubts_link_the_guidelines_that_they_are_about(values):
    thin = judged(values, ALIGNED_2023, confidence=["clear", "thin"] + ["clear"] * 6 + [""] * 16)
    told = section(index_page(**values | {"constitution": thin}), "doubts")
    doubt = next(d for d in re.findall(r"<li>.*?</li>", told, re.DOTALL) if "of one side" in d)
    assert re.findall(r'href="#guideline-(\d+)"', doubt) == ["2"]


def test_warnings_stand_at_the_top_and_among_the_doubts(values, page):
    assert "Read this first" not in page
    dataset = values["dataset"]
    alike = replace(dataset, ratings=dataset.ratings.assign(helpful=1.0))
    warned = index_page(**values | {"dataset": alike})
    assert warned.index("Every rating is the same") < warned.index('class="answer"')
    assert "Every rating is the same" in text_of(section(warned, "doubts"))


def test_markdown_is_shown_as_such_only_where_it_is_asked_for(values):
    dataset = values["dataset"]
    text = "Be **kind** <b>x</b> [a](javascript:alert(1)) ![b](https://x.invalid/y.png)"
    changed = replace(dataset, guidelines=dataset.guidelines.assign(text=text))
    plain = index_page(**values | {"dataset": changed})
    assert "Be **kind** &lt;b&gt;x&lt;/b&gt;" in plain
    assert "<strong>kind</strong>" not in plain
    rendered = index_page(**values | {"dataset": changed, "markdown_texts": True})
    assert "Be <strong>kind</strong> &lt;b&gt;x&lt;/b&gt; a" in rendered
    assert not re.search(r'(?:href|src)="(?!data:|#|\w+\.html")', rendered)
