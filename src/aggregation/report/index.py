"""Index: the report that everybody reads.

What was decided, how sure it is, and who disagrees; nothing here computes evidence, it shows the
columns of the scores and the summary.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from markupsafe import Markup

from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED, Rule
from aggregation.decisions.table import table
from aggregation.evidence.confidence import CLEAR, CLOSE, FEW_RATERS, THIN
from aggregation.evidence.sides import SIDES, perspectives, side_of_users
from aggregation.evidence.two_sides import EACH_SIDE
from aggregation.evidence.warnings import warnings
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids, Ratings
from aggregation.report import charts, sentences
from aggregation.report.demographics import demographics_section
from aggregation.report.environment import conditions_on, score_text, sorting, templates
from aggregation.report.language import Language
from aggregation.report.texts import brief, markdown, marked, split_condition

LONGEST_TEXT, LONGEST_CELL = 20_000, 2_000
"""Characters of a guideline that a card and a row of the table show."""

LONG_TEXT, LONG_CELL, LINES = 600, 180, 10
"""Characters and lines from which a text is shown in part, until it is opened."""

MOST_SHOWN = 2_000
"""Guidelines of each part of the bar that are shown, and marks of a chart; the table for download
has all. A browser takes seconds to sort ten thousand."""

LARGE = 500
"""Guidelines from which a browser draws cards only when they come into sight."""

LEAST_GAP = 0.25
"""A guideline divides the sides from this difference of their helpful rates on."""

MOST_DIVIDING = 5
"""Guidelines that each side finds helpful and the other does not, shown where sides are told."""

Cards = list[dict[str, Any]]


@dataclass
class Topic:
    """A topic as the report shows it."""

    title: str = ""
    description: str = ""
    n_guidelines: int = 0
    accepted: Cards = field(default_factory=list)
    children: list[Topic] = field(default_factory=list)
    anchor: str = ""

    @property
    def filled(self) -> bool:
        """Whether it, or a topic within it, has an accepted guideline."""
        return bool(self.accepted) or any(child.filled for child in self.children)


@dataclass(frozen=True)
class Group:
    """Guidelines that were not accepted for one kind of reason."""

    anchor: str
    title: str
    about: str
    cards: Cards


def index_page(
    dataset: Dataset,
    ratings: Ratings,
    ids: Ids,
    fit: Fit,
    constitution: Constitution,
    minima: pd.DataFrame | Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    *,
    run: str,
    title: str = "",
    question: str = "",
    participants: str = "",
    attribution: str = "",
    near_misses: int = 12,
    demographics: Sequence[Mapping[str, Any]] | None = None,
    stages: Sequence[str] = (),
    version: str = "",
    language: str = "en",
    markdown_texts: bool = False,
) -> str:
    """The report of a run: one HTML file that needs nothing else, and names no participant.

    `ratings` and `ids` are those of `fit`; `constitution` and `summary` those of
    `evidence.collect`; `minima` is the table of `evidence.minima`. Empty texts fall back to the
    source's own. `near_misses`: how many of a group that was not accepted are shown in full.
    `demographics`: the records of `services.demographics.counts`. `stages` have pages, to which
    this one links. `version`: of this package. `markdown_texts`: guidelines are Markdown.
    """
    t, sides, rule = Language(language), summary["sides"], constitution.rule
    near_misses, minima = max(near_misses, 0), pd.DataFrame(minima)
    every = _cards(constitution, dataset)
    by_id = {card["guideline_id"]: card for card in every}
    groups = _groups(t, every, two=sides["two"])
    dividing = _dividing(every) if sides["two"] else []
    one_in = max(-(-len(every) // MOST_SHOWN), 1)  # evenly from the list
    marks = every[::one_in]
    near = [c for g in groups for c in g.cards[:near_misses]]
    cards = _shown(every, near, [*marks, *(c for _, of in dividing for c in of)])
    _add_texts(t, cards, rule, dataset, markdown if markdown_texts else marked)
    _add_perspectives(cards, ratings, ids, fit)
    _add_otherwise(t, cards, summary, minima)
    topics, anchors = _topics(dataset, every)
    tick = _tick(rule)
    warned = warnings(dataset, fit.n_blocks, summary["division"], t, summary.get("left_out", ()))
    doubts = sentences.doubts(t, fit, constitution, minima, summary)
    headline = sentences.no_sides(t, sides, rule, summary["division"])
    segments = _segments(t, every)
    page = templates(language).get_template("index.html")
    return page.render(
        run=run,
        title=title or dataset.about.title or run,
        question=markdown(question or dataset.about.description),
        participants=participants,
        attribution=attribution,
        dataset=dataset,
        simulated=dataset.about.simulated,
        period=sentences.period(t, dataset.ratings["rated_at"]),
        given=sentences.ratings_given(t, len(ratings), ratings.n_users),
        fit=fit,
        rule=rule,
        say=sentences,
        sides=sides,
        answer=sentences.answer(t, constitution, sides),
        headline="" if sides["two"] else headline,
        warnings=warned,
        segments=segments,
        segment_bar=charts.segment_bar(segments),
        cut=sentences.cut(t, len(cards), len(every), MOST_SHOWN),
        bar=partial(_bar, tick=tick),
        tick=tick,
        topics=topics,
        in_table={anchors.get(card["topic_id"], "topic-0") for card in cards},
        flat_topics=_flat(topics),
        anchors=anchors,
        dividing=dividing,
        one_in=one_in,
        maps=_maps(t, marks, fit, sides) if sides["two"] else (),
        both=_both_sides(t, _rated_by_both(marks), tick) if sides["two"] else None,
        n_both=len(_rated_by_both(every)),
        n_all=len(every),
        groups=groups,
        shown=near_misses,
        cards=cards,
        large=len(cards) > LARGE,
        chances=f"p_accept_{rule.name}" in constitution.scores,
        doubts=[
            *((text, []) for text in warned),
            *((text, [by_id[g] for g in of]) for text, of in doubts),
        ],
        others=[
            {**other, **{way: [by_id[g] for g in other[way]] for way in ("gained", "lost")}}
            for other in (*summary.get("other_rules", ()), *summary.get("yardsticks", ()))
        ],
        csv=base64.b64encode(table(constitution, dataset).encode("utf-8-sig")).decode("ascii"),
        demographics=demographics and demographics_section(demographics),
        stages=stages,
        version=version,
        **sorting(),
    )


# guidelines


def _cards(constitution: Constitution, dataset: Dataset) -> Cards:
    """One per guideline, in the order of the constitution: its scores, number, topic, and which
    part of the bar it belongs to.
    """
    scores = constitution.scores
    topics = dataset.guidelines.set_index("guideline_id")["topic_id"].loc[scores["guideline_id"]]
    rows = zip(cast("Cards", scores.to_dict("records")), topics, strict=True)
    return [
        score
        | {"number": k, "topic_id": topic, "kind": score["confidence"] or score["verdict"]}
        | {"shown": False, "whole": False}
        for k, (score, topic) in enumerate(rows, start=1)
    ]


def _shown(cards: Cards, near: Cards, others: Cards) -> Cards:
    """The cards that the page shows: the first ones of each kind, those `near`, and `others`.

    The first accepted ones and those `near` are shown `whole`, the others in the table alone.
    """
    seen: Counter[str] = Counter()
    for card in cards:
        seen[card["kind"]] += 1
        card["shown"] = seen[card["kind"]] <= MOST_SHOWN
        card["whole"] = card["shown"] and card["verdict"] == ACCEPTED
    for card in near:
        card["whole"] = True
    for card in (*near, *others):
        card["shown"] = True
    return [card for card in cards if card["shown"]]


def _add_texts(t: Language, cards: Cards, rule: Rule, dataset: Dataset, written: Any) -> None:
    """What each guideline says, in full and in brief, and what was decided and why, in words."""
    texts = dataset.guidelines.set_index("guideline_id")["text"]
    texts = texts.loc[[card["guideline_id"] for card in cards]]
    by_name = {c.name: c for c in rule.conditions}
    for card, whole in zip(cards, texts, strict=True):
        condition, text = split_condition(whole)
        failed = card["failed"]
        card |= {
            "condition": marked(condition),
            "brief": brief(text, 70),
            "text": written(text[:LONGEST_TEXT]),
            "long": len(text) > LONG_TEXT or text.count("\n") >= LINES,
            "cell": written(text[:LONGEST_CELL]),
            "long_cell": len(text) > LONG_CELL or text.count("\n") > 2,
            "length": len(text),
            "reasons": [sentences.reason(t, by_name[f["name"]], f["value"]) for f in failed],
            "chance": card.get(f"p_accept_{rule.name}", np.nan),
            "shown_intercept": score_text(rule, "intercept", card["intercept"]),
        }


def _add_perspectives(cards: Cards, ratings: Ratings, ids: Ids, fit: Fit) -> None:
    """The paths of each guideline's histogram along the axis, the larger side to the right."""
    embedding = np.asarray(fit.parameters.user_embedding)
    larger = side_of_users(embedding)
    turned = bool((larger * np.sign(embedding[:, 0]) < 0).any())
    found = perspectives(ratings, -embedding if turned else embedding)
    rows = ids.guidelines.get_indexer(pd.Index([card["guideline_id"] for card in cards]))
    for card, row in zip(cards, rows, strict=True):
        given = found.helpful[row] + found.not_helpful[row]
        card["bars"] = charts.perspective_paths(found.helpful[row], given) if row >= 0 else None


def _add_otherwise(
    t: Language, cards: Cards, summary: Mapping[str, Any], minima: pd.DataFrame
) -> None:
    """Who would decide otherwise on each guideline: rules, measures, other minima of the fit."""
    other_ways = [
        *((sentences.rule_name(t, o["rule"]), o) for o in summary.get("other_rules", ())),
        *((sentences.yardstick(t, o["yardstick"]), o) for o in summary.get("yardsticks", ())),
    ]
    turned: defaultdict[str, list[str]] = defaultdict(list)
    fits = Counter(g for m in minima.to_dict("records") for g in (*m["gained"], *m["lost"]))
    for name, other in other_ways:
        for g in (*other["gained"], *other["lost"]):
            turned[g].append(name)
    for card in cards:
        card |= {"otherwise": turned[card["guideline_id"]], "fits": fits[card["guideline_id"]]}
        card["groups"] = [
            (card[f"helpful_rate_group_{k}"], n)
            for k in range(1, len(summary.get("groups", ())) + 1)
            if (n := card.get(f"n_ratings_group_{k}"))
        ]


def _tick(rule: Rule) -> float | None:
    """The helpful rate that the rule asks of a side, or else of all."""
    if conditions_on(rule, "p_both_sides"):
        return EACH_SIDE
    rates = [c.bound for c in conditions_on(rule, "helpful_rate") if ">" in c.comparison]
    return max(rates, default=None)


def _bar(card: Mapping[str, Any], side: str, tick: float | None) -> Markup:
    """What one side says of a guideline, as a bar."""
    name = f"helpful_rate_{side}"
    return charts.rate_bar(side, card[name], card[f"{name}_low"], card[f"{name}_high"], tick)


def _segments(t: Language, cards: Cards) -> list[charts.Segment]:
    """The parts of the bar of all guidelines: how sure acceptance is, then what is not accepted."""
    kinds = [
        (CLEAR, t.gettext("clear")),
        (CLOSE, t.gettext("close")),
        (THIN, t.gettext("thin")),
        (UNDECIDED, t.gettext("undecided")),
        (REJECTED, t.gettext("turned down")),
    ]
    found = []
    for name, label in kinds:
        of = [c for c in cards if c["kind"] == name]
        if of:
            found.append(charts.Segment(name, label, len(of), f"#guideline-{of[0]['number']}"))
    return found


def _rated_by_both(cards: Cards) -> Cards:
    """Guidelines with enough ratings of either side to say what it thinks."""
    return [c for c in cards if min(c[f"n_ratings_{side}"] for side in SIDES) >= FEW_RATERS]


def _dividing(cards: Cards) -> list[tuple[str, Cards]]:
    """Of each side, the guidelines that it finds helpful much more often than the other."""
    by_gap = sorted(_rated_by_both(cards), key=lambda c: (c["gap"], c["number"]))
    ways = {
        "larger": [c for c in by_gap[::-1] if c["gap"] >= LEAST_GAP],
        "smaller": [c for c in by_gap if c["gap"] <= -LEAST_GAP],
    }
    return [(side, of[:MOST_DIVIDING]) for side, of in ways.items() if of]


def _groups(t: Language, cards: Cards, *, two: bool) -> list[Group]:
    """The guidelines that were not accepted, by the kind of reason; a group may be empty."""

    def most(card: dict[str, Any], side: str) -> bool:
        return card[f"n_ratings_{side}"] >= FEW_RATERS and card[f"helpful_rate_{side}"] > 0.5

    def kind(card: dict[str, Any]) -> str:
        if card["verdict"] == UNDECIDED or not card["n_ratings"]:
            return "unclear"
        if len(card["failed"]) == 1 and card["accepted_in"] > 0:
            return "within-reach"
        if two and _rated_by_both([card]) and most(card, "larger") != most(card, "smaller"):
            return "one-side"
        return "liked" if card["helpful_rate"] > 0.5 else "disliked"

    told = {
        "within-reach": (
            t.gettext("Within reach"),
            t.gettext("One condition failed, and a close variant of the rule would accept them."),
        ),
        "one-side": (
            t.gettext("Liked by one side only"),
            t.gettext("More than half of one side finds it helpful, and not of the other."),
        ),
        "liked": (
            t.gettext("Liked, but not by enough"),
            t.gettext("More than half find it helpful; the rule asks for more."),
        ),
        "unclear": (
            t.gettext("Unclear"),
            t.gettext("Too few ratings, or too little agreement between them, to decide."),
        ),
        "disliked": (
            t.gettext("Helpful to few"),
            t.gettext("At most half of those who rated it find it helpful."),
        ),
    }
    of: dict[str, Cards] = {name: [] for name in told}
    for card in cards:
        if card["verdict"] != ACCEPTED:
            of[kind(card)].append(card)
    of["within-reach"].sort(key=lambda c: (-c["accepted_in"], c["number"]))
    of["one-side"].sort(key=lambda c: (-abs(c["gap"]), c["number"]))
    return [Group(name, *words, of[name]) for name, words in told.items()]


# topics


def _topics(dataset: Dataset, cards: Cards) -> tuple[list[Topic], dict[str, str]]:
    """The topic tree, in the order of titles; guidelines without a topic come last. And topic_id
    -> anchor.
    """
    rows = dataset.topics.sort_values(["title", "topic_id"]).fillna("").to_dict("records")
    topics = {
        row["topic_id"]: Topic(row["title"], row["description"], anchor=f"topic-{k}")
        for k, row in enumerate(rows, start=1)
    }
    loose = Topic("", anchor="topic-0")
    for card in cards:
        topic = topics.get(card["topic_id"], loose)
        topic.n_guidelines += 1
        topic.accepted += [card] if card["verdict"] == ACCEPTED else []
    roots = []
    for row in rows:
        siblings = topics[row["parent_id"]].children if row["parent_id"] else roots
        siblings.append(topics[row["topic_id"]])
    anchors = {topic_id: topic.anchor for topic_id, topic in topics.items()}
    return [*roots, loose] if loose.n_guidelines else roots, anchors


def _flat(topics: Sequence[Topic]) -> list[Topic]:
    """The topics of a tree in the order of the page."""
    return [each for topic in topics for each in (topic, *_flat(topic.children))]


# charts


def _maps(t: Language, cards: Cards, fit: Fit, sides: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each axis, the picture, its words and the numbers of people along it."""
    embedding = np.asarray(fit.parameters.user_embedding)
    rated = [c for c in cards if c["embedding"] is not None and not pd.isna(c["intercept"])]
    found = []
    for axis in range(min(embedding.shape[1], 2)):
        users = embedding[:, axis]
        turn = 1 if np.sign(users).sum() >= 0 else -1
        guidelines = turn * np.array([c["embedding"][axis] for c in rated], float)
        if axis == 0:
            ends = (
                t.gettext("smaller side (%(n)s)", n=sides["smaller"]),
                t.gettext("larger side (%(n)s)", n=sides["larger"]),
            )
        else:
            ends = (t.gettext("one side"), t.gettext("the other side"))
        label = f"map-{axis + 1}-title map-{axis + 1}-about"
        svg = charts.position_map(rated, guidelines, turn * users, ends, label, sides=axis == 0)
        found.append({"svg": svg, "people": charts.histogram(turn * users).tolist(), "ends": ends})
    return found


def _both_sides(t: Language, shown: Cards, tick: float | None) -> Markup:
    """The scatter of both sides' rates."""
    larger = np.array([c["helpful_rate_larger"] for c in shown])
    smaller = np.array([c["helpful_rate_smaller"] for c in shown])
    words = {
        "both": t.gettext("both"),
        "larger": t.gettext("only the larger side"),
        "smaller": t.gettext("only the smaller side"),
        "neither": t.gettext("neither"),
        "across": t.gettext("helpful to the larger side"),
        "up": t.gettext("helpful to the smaller side"),
    }
    return charts.both_sides(shown, larger, smaller, tick, words, "both-title both-about")
