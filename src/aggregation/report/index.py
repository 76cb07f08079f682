"""Index: the report that everybody reads."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from aggregation import __version__
from aggregation.data.cards import many
from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import UNDECIDED, apart
from aggregation.decisions.table import table
from aggregation.evidence.sides import SIDES, Perspectives, perspectives
from aggregation.report import figures
from aggregation.report.demographics import demographics_section
from aggregation.report.environment import TEMPLATES
from aggregation.runs.folder import RunFolder
from aggregation.runs.stages import STAGES

CONDITION = re.compile(r"\[([^\[\]\n]{1,200})\]:\s*")
"""`[condition]:` before a guideline, set off as on the platform's page."""

PEOPLE, MINIMA = "demographics/counts.json", "evidence/minima.json"

LONGEST = 2000
"""Characters of a text that the report shows; the table for download has all."""

CLOSE = 0.02
"""An intercept this near the rule's bound is called close to it, in the list of doubts."""


@dataclass
class Topic:
    """A topic as the report shows it."""

    title: str
    description: str
    n_guidelines: int = 0
    accepted: list[dict[str, Any]] = field(default_factory=list)
    children: list[Topic] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Guidelines here and below."""
        return self.n_guidelines + sum(child.total for child in self.children)

    @property
    def n_accepted(self) -> int:
        """Accepted guidelines here and below."""
        return len(self.accepted) + sum(child.n_accepted for child in self.children)


def index_page(
    folder: RunFolder,
    *,
    run: str = "",
    title: str = "",
    question: str = "",
    participants: str = "",
    attribution: str = "",
    near_misses: int = 12,
) -> str:
    """report/index.html, from the run's other files. Empty words fall back to the source's own.

    `run` is its name, if the folder's is another one by now.
    """
    run = run or folder.path.name
    dataset, constitution = folder.dataset(), folder.constitution()
    ratings, ids, parameters = folder.model()
    fit = folder.read_json("model/fit.json")
    found = perspectives(ratings, parameters.user_embedding)
    row = {g: k for k, g in enumerate(ids.guidelines)}
    cards = _cards(constitution, dataset, found, row)
    number = {card["id"]: card for card in cards}
    near = [number[g] for g in constitution.near_misses()["guideline_id"]]
    accepted = [card for card in cards if card["verdict"] == "accepted"]
    side = np.sign(parameters.user_embedding[:, 0])
    people = folder.path / PEOPLE
    return TEMPLATES.get_template("index.html").render(
        title=title or dataset.about.title or run,
        question=question or dataset.about.description,
        participants=participants,
        attribution=attribution,
        about=dataset.about,
        period=_period(dataset.ratings["rated_at"]),
        fit=fit,
        rule=constitution.rule,
        sides={name: int((side == sign).sum()) for name, sign in SIDES.items()},
        no_side=int((side == 0).sum()),
        accepted=accepted,
        mean_consensus=constitution.accepted["consensus_score"].mean() if accepted else None,
        topics=_topics(dataset, accepted),
        near=near[:near_misses],
        more_near=max(len(near) - near_misses, 0),
        cards=cards,
        majority=_majority(constitution),
        doubts=_doubts(dataset, constitution, fit, folder.read_json(MINIMA)),
        counts=[c for c in dataset.counts if c.n],
        embedding=figures.embedding(constitution.scores, folder.read_table("model/users.parquet")),
        bridging=figures.bridging(constitution.scores, constitution.rule),
        csv=base64.b64encode(table(constitution, dataset).encode("utf-8-sig")).decode("ascii"),
        stages=[s for s in STAGES if s == "publish" or _is_done(folder, s)],
        demographics=demographics_section(folder.read_json(PEOPLE)) if people.exists() else None,
        run=run,
        version=__version__,
    )


def _is_done(folder: RunFolder, stage: str) -> bool:
    """Whether the stage has a notebook, and so a page; publish itself is under way."""
    return (folder.path / "notebooks" / f"{stage}.ipynb").is_file()


def _cards(
    constitution: Constitution, dataset: Dataset, found: Perspectives, row: dict[str, int]
) -> list[dict[str, Any]]:
    """One per guideline, in the order of the constitution."""
    texts = dataset.guidelines.set_index("guideline_id")[["text", "topic_id"]]
    cards = []
    for number, score in enumerate(constitution.scores.to_dict("records"), start=1):
        text = str(texts.loc[score["guideline_id"], "text"])
        match = CONDITION.match(text)
        start = match.end() if match and match.end() < len(text) else 0
        k = row.get(score["guideline_id"])
        cards.append(
            {
                **score,
                "number": number,
                "id": score["guideline_id"],
                "topic_id": texts.loc[score["guideline_id"], "topic_id"],
                "condition": match[1] if match and start else "",
                "text": text[start : start + LONGEST] or "(no text)",
                "cut": len(text) if len(text) - start > LONGEST else 0,
                "intercept": apart(
                    score["intercept"], constitution.rule.bound("min_intercept"), least=3
                ),
                "reasons": [f["reason"] for f in score["failed"]],
                "bars": [] if k is None else _bars(found.helpful[k], found.not_helpful[k]),
                "sides": [
                    (name, score[f"helpful_rate_{name}"], score[f"n_ratings_{name}"])
                    for name in SIDES
                ],
            }
        )
    return cards


def _bars(helpful: np.ndarray, not_helpful: np.ndarray) -> list[dict[str, float]]:
    """Heights, 0 to 1, of the stacked histogram; the tallest bar fills it."""
    tallest = (helpful + not_helpful).max()
    return [
        {"helpful": float(h / tallest), "not_helpful": float(n / tallest)}
        for h, n in zip(helpful, not_helpful, strict=True)
    ]


def _topics(dataset: Dataset, accepted: list[dict[str, Any]]) -> list[Topic]:
    """The topic tree, in the order of titles; guidelines without a topic come last."""
    topics = {
        t["topic_id"]: Topic(t["title"], "" if pd.isna(t["description"]) else t["description"])
        for t in dataset.topics.to_dict("records")
    }
    loose = Topic("Without a topic" if topics else "", "")
    for topic_id in dataset.guidelines["topic_id"]:
        topics.get(topic_id, loose).n_guidelines += 1
    for card in accepted:
        topics.get(card["topic_id"], loose).accepted.append(card)
    roots = []
    for t in dataset.topics.sort_values(["title", "topic_id"]).to_dict("records"):
        parent = t["parent_id"]
        (roots if pd.isna(parent) else topics[parent].children).append(topics[t["topic_id"]])
    return roots + ([loose] if loose.n_guidelines else [])


def _majority(constitution: Constitution) -> dict[str, int]:
    """How many guidelines the helpful rate alone would accept, and how many are accepted."""
    liked = constitution.rule.liked(constitution.scores)
    return {"liked": int(liked.sum()), "accepted": len(constitution.accepted)}


def _period(rated_at: pd.Series) -> str:
    known = rated_at.dropna()
    if known.empty:
        return ""
    first, last = known.min(), known.max()
    words = [f"{day.day} {day:%B %Y}" for day in (first, last)]
    return words[0] if words[0] == words[1] else " to ".join(words)


def _doubts(
    dataset: Dataset,
    constitution: Constitution,
    fit: dict[str, Any],
    minima: list[dict[str, Any]],
) -> list[str]:
    """What a reader should hold against these results, in sentences."""
    scores, rule, doubts = constitution.scores, constitution.rule, []
    least = rule.bound("min_ratings")
    if dataset.ratings["helpful"].nunique() == 1:
        doubts.append(
            "Every rating is the same: nothing tells users or guidelines apart, so these verdicts "
            "say nothing of what bridges."
        )
    close = scores["intercept"].sub(rule.bound("min_intercept")).abs() < CLOSE
    names = [{condition["name"] for condition in failed} for failed in scores["failed"]]
    alone = np.array([name <= {"min_intercept"} for name in names])
    n = int((close & alone).sum())
    if n:
        doubts.append(
            f"{many(n, 'decision')} would turn on a change of the intercept by less than {CLOSE}: "
            "treat them as close calls."
        )
    if not fit["settled"]:
        doubts.append(
            f"Fewer than three of {many(len(fit['starts']), 'start')} of the fit reached the "
            "lowest loss: a lower one, perhaps with another constitution, may exist."
        )
    other = [b for b in minima if b["gained"] or b["lost"]]
    if other:
        near, number = other[0], many(len(other), "other minimum", "other minima")
        doubts.append(
            f"The fit has {number} that would decide otherwise. The lowest of them, at a loss of "
            f"{near['loss']:.6f} instead of {minima[0]['loss']:.6f}, would accept "
            f"{many(near['accepted'], 'guideline')}: {len(near['gained'])} that are not accepted "
            f"here, without {len(near['lost'])} of those that are. The lowest minimum was taken."
        )
    if fit["n_blocks"] > 1:
        doubts.append(
            f"The ratings fall into {fit['n_blocks']} blocks of users and guidelines that share no "
            "rating: nothing relates the sides of one block to those of another."
        )
    accepted = constitution.accepted
    thin = [int((accepted[f"n_ratings_{name}"] < least).sum()) for name in SIDES]
    if any(thin):
        doubts.append(
            f"{many(max(thin), 'accepted guideline')} had fewer than {least} ratings "
            "from one of the two sides: what that side thinks of them is hardly known."
        )
    undecided = int((scores["verdict"] == UNDECIDED).sum())
    if undecided:
        doubts.append(
            f"{many(undecided, 'guideline')} got fewer than {least} ratings and "
            f"{'is' if undecided == 1 else 'are'} undecided, neither accepted nor rejected."
        )
    return doubts
