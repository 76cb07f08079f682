"""Index: the report that everybody reads.

What it says of the rule follows from the rule's conditions: a sentence on a condition that the
rule does not have is left out.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from aggregation.data.cards import many
from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED, UNDECIDED, Rule
from aggregation.decisions.table import table
from aggregation.evidence.collect import WITHOUT_FLAGGED
from aggregation.evidence.sides import SIDES, perspectives
from aggregation.model.fit import Fit
from aggregation.model.ratings import Ids, Ratings
from aggregation.report import figures
from aggregation.report.demographics import demographics_section
from aggregation.report.environment import TEMPLATES, conditions_on

PREFIX = re.compile(r"\[([^\[\]\n]{1,200})\]:\s*(?=\S)")
"""`[condition]:` before a guideline, set off as on the platform's page."""

CLOSE_INTERCEPT = 0.02
"""An intercept this near the rule's bound is called close to it, in the list of doubts."""


LIKELY, FEW_ACCOUNTS, MUCH = 0.75, 10, 0.1
"""Where the list of doubts begins: below this chance to be accepted again, up to so many accounts,
from this share of the ratings."""


@dataclass
class Topic:
    """A topic as the report shows it."""

    title: str = ""
    description: str = ""
    n_guidelines: int = 0
    accepted: list[dict[str, Any]] = field(default_factory=list)
    children: list[Topic] = field(default_factory=list)


def index_page(
    dataset: Dataset,
    ratings: Ratings,
    ids: Ids,
    fit: Fit,
    constitution: Constitution,
    minima: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    run: str,
    title: str = "",
    question: str = "",
    participants: str = "",
    attribution: str = "",
    near_misses: int = 12,
    summary: Mapping[str, Any] | None = None,
    demographics: Sequence[Mapping[str, Any]] | None = None,
    stages: Sequence[str] = (),
    version: str = "",
) -> str:
    """The report of a run: one HTML file that needs nothing else, and names no participant.

    `ratings` and `ids` are those of `fit`; the scores of `constitution` have the columns of
    `evidence.sides`; `minima` is the table of `evidence.minima`. Empty texts fall back to the
    source's own. `near_misses`: how many of them are shown.
    `summary`: of `evidence.collect`. `demographics`: the records of
    `services.demographics.counts`. `stages` have pages, to which this one links. `version`: of this
    package.
    """
    cards, summary = _cards(constitution, dataset, ratings, ids, fit), summary or {}
    by_id = {card["guideline_id"]: card for card in cards}
    side = np.sign(fit.parameters.user_embedding[:, 0])
    return TEMPLATES.get_template("index.html").render(
        run=run,
        title=title or dataset.about.title or run,
        question=question or dataset.about.description,
        participants=participants,
        attribution=attribution,
        dataset=dataset,
        period=_period(dataset.ratings["rated_at"]),
        ratings=ratings,
        fit=fit,
        constitution=constitution,
        rule=constitution.rule,
        least_ratings=_least_ratings(constitution.rule),
        sides={name: int((side == sign).sum()) for name, sign in (SIDES | {"neither": 0}).items()},
        topics=_topics(dataset, cards),
        near=[by_id[g] for g in constitution.near_misses()["guideline_id"]],
        near_misses=near_misses,
        cards=cards,
        warnings=summary.get("warnings", ()),
        more=[pair for pair in _more_columns(constitution.rule) if pair[0] in constitution.scores],
        divided=summary.get("division") != "none",
        doubts=[
            *summary.get("warnings", ()),
            *doubts(fit, constitution, pd.DataFrame(minima)),
            *doubts_of_evidence(constitution, summary),
        ],
        others=[
            {**other, **{way: [by_id[g] for g in other[way]] for way in ("gained", "lost")}}
            for other in (*summary.get("other_rules", ()), *summary.get("yardsticks", ()))
        ],
        embedding=figures.embedding(constitution.scores, fit.parameters),
        bridging=figures.bridging(constitution.scores, constitution.rule),
        csv=base64.b64encode(table(constitution, dataset).encode("utf-8-sig")).decode("ascii"),
        demographics=demographics and demographics_section(demographics),
        stages=stages,
        version=version,
    )


def doubts(fit: Fit, constitution: Constitution, minima: pd.DataFrame) -> list[str]:
    """What a reader should hold against these results, in sentences."""
    scores, rule, found = constitution.scores, constitution.rule, []
    names = scores["failed"].map(lambda failed: {f["name"] for f in failed})
    for condition in conditions_on(rule, "intercept"):
        close = (scores["intercept"] - condition.bound).abs() < CLOSE_INTERCEPT
        alone = names.map({condition.name}.issuperset).astype(bool)
        if n := int((close & alone).sum()):
            found.append(
                f"{many(n, 'decision')} would turn on a change of the intercept by less than "
                f"{CLOSE_INTERCEPT}: treat them as close calls."
            )
    if not fit.settled:
        found.append(
            f"Fewer than three of {many(len(fit.starts), 'start')} of the fit reached the "
            "lowest loss: a lower one, perhaps with another constitution, may exist."
        )
    other = [m for m in minima.to_dict("records") if m["gained"] or m["lost"]]
    if other:
        lowest, number = other[0], many(len(other), "other minimum", "other minima")
        found.append(
            f"The fit has {number} that would decide otherwise. The lowest of them, at a loss of "
            f"{lowest['loss']:.6f} instead of {minima['loss'].iloc[0]:.6f}, would accept "
            f"{many(lowest['accepted'], 'guideline')}: {len(lowest['gained'])} that are not "
            f"accepted here, without {len(lowest['lost'])} of those that are. The lowest minimum "
            "was taken."
        )
    least = _least_ratings(rule)
    by_side = constitution.accepted[[f"n_ratings_{name}" for name in SIDES]]
    if n := int((by_side < least).any(axis=1).sum()):
        found.append(
            f"{many(n, 'accepted guideline')} had fewer than {many(least, 'rating')} from one of "
            "the two sides: what that side thinks of them is hardly known."
        )
    undecided = scores.loc[scores["verdict"] == UNDECIDED, "failed"]
    if len(undecided):
        names = {failed[0]["name"] for failed in undecided}
        needs = " or ".join(str(c) for c in rule.conditions if c.name in names)
        found.append(
            f"{many(len(undecided), 'guideline')} {'is' if len(undecided) == 1 else 'are'} "
            f"undecided, neither accepted nor rejected. Condition not met: {needs}."
        )
    return found


def doubts_of_evidence(constitution: Constitution, summary: Mapping[str, Any]) -> list[str]:
    """What the evidence holds against the results, in sentences; nothing for what it lacks."""
    found, rule, accepted = [], constitution.rule.name, constitution.accepted
    if n := len(constitution.kept()):
        found.append(
            f"{many(n, 'accepted guideline')} would not be accepted anew: "
            f"{'it was' if n == 1 else 'they were'} accepted before, and no number is more than "
            f"{constitution.rule.slack:.0%} beyond its bound."
        )
    p = accepted.get(f"p_accept_{rule}", pd.Series(dtype=float))
    if n := int((p < LIKELY).sum()):
        found.append(
            f"Of the accepted guidelines, {n:,} would have a chance below {LIKELY:.0%} to be "
            "accepted again if as many other people had come."
        )
    new = summary.get("new_guideline", {}).get("accounts_needed")
    if new is not None and new <= FEW_ACCOUNTS:
        found.append(
            f"{new:.0f} new accounts that work together would be enough to have a new guideline "
            "accepted."
        )
    if flagged := {name: n for name, n in summary.get("flagged_users", {}).items() if n}:
        words = {
            "straight_liner": "gave the same rating to everything",
            "clone": "rated everything just as somebody else did",
            "burst": "rated faster than anybody reads",
        }
        told = ", ".join(f"{many(n, 'user')} {words[name]}" for name, n in flagged.items())
        without = [o for o in summary.get("other_rules", ()) if o["rule"] == WITHOUT_FLAGGED]
        changed = "".join(
            f" Without them, {many(len(o['gained']), 'other guideline')} would be accepted, and "
            f"{len(o['lost'])} of the accepted would not."
            for o in without
        )
        found.append(
            f"Some rated in ways that people rarely do: {told}. They count like all others."
            f"{changed}"
        )
    if (share := summary.get("most_active_share", 0.0)) >= MUCH:
        found.append(f"The most active 1 % of the users gave {share:.0%} of the ratings.")
    if share := summary.get("reach", {}).get("left_out"):
        found.append(
            f"An opinion group of {share:.0%} of the users agrees on guidelines, and none of these "
            "was accepted."
        )
    return found


def _more_columns(rule: Rule) -> list[tuple[str, str]]:
    """Columns of the table of all guidelines beside the scores, and what they are called."""
    return [("lowest_side_rate", "lowest side"), (f"p_accept_{rule.name}", "accepted again")]


def _least_ratings(rule: Rule) -> int:
    """The fewest ratings that the rule asks of a guideline; 0 if it has no such condition."""
    bounds = {">=": math.ceil, ">": lambda bound: math.floor(bound) + 1}
    conditions = [c for c in conditions_on(rule, "n_ratings") if c.comparison in bounds]
    return max((bounds[c.comparison](c.bound) for c in conditions), default=0)


def _cards(
    constitution: Constitution, dataset: Dataset, ratings: Ratings, ids: Ids, fit: Fit
) -> list[dict[str, Any]]:
    """One per guideline, in the order of the constitution: its scores, and how they are shown."""
    about = dataset.guidelines.set_index("guideline_id")
    found = perspectives(ratings, fit.parameters.user_embedding)
    # Stacked bars of helpful and all ratings; the tallest one has the height 1.
    tops = np.stack([found.helpful, found.helpful + found.not_helpful], axis=-1)
    tops /= tops.max(axis=(1, 2), keepdims=True)
    bars = dict(zip(ids.guidelines, tops.tolist(), strict=True))
    cards = []
    for number, score in enumerate(constitution.scores.to_dict("records"), start=1):
        guideline = about.loc[score["guideline_id"]]
        prefix = PREFIX.match(guideline["text"])
        shown = {
            "number": number,
            "topic_id": guideline["topic_id"],
            "prefix": prefix[1] if prefix else "",
            "text": guideline["text"][prefix.end() if prefix else 0 :],
            "bars": bars.get(score["guideline_id"]),
        }
        cards.append(score | shown)
    return cards


def _topics(dataset: Dataset, cards: list[dict[str, Any]]) -> list[Topic]:
    """The topic tree, in the order of titles; guidelines without a topic come last."""
    rows = dataset.topics.sort_values(["title", "topic_id"]).fillna("").to_dict("records")
    topics = {row["topic_id"]: Topic(row["title"], row["description"]) for row in rows}
    loose = Topic("Without a topic" if topics else "")
    for card in cards:
        topic = topics.get(card["topic_id"], loose)
        topic.n_guidelines += 1
        topic.accepted += [card] if card["verdict"] == ACCEPTED else []
    roots = []
    for row in rows:
        siblings = topics[row["parent_id"]].children if row["parent_id"] else roots
        siblings.append(topics[row["topic_id"]])
    return [*roots, loose] if loose.n_guidelines else roots


def _period(rated_at: pd.Series) -> str:
    """First and last day of rating; empty where no time is known."""
    known = rated_at.dropna()
    days = [] if known.empty else [known.min(), known.max()]
    return " to ".join(dict.fromkeys(f"{day.day} {day:%B %Y}" for day in days))
