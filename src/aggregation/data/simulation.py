"""Simulate: a planted deliberation with known truth, in the shape of the platform's export.

Nobody said any of this. It is there to try the package on, and to test it against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import pandas as pd

from aggregation.errors import InputError

CAMPS = {
    # share, position on the two axes, leniency (log-odds)
    "large": (0.55, (0.9, 0.1), 0.35),
    "middle": (0.30, (-1.1, 0.4), -0.15),
    "small": (0.15, (-0.4, -1.3), 0.1),
}
MARKS = {
    # what the mark of a text means: kind, mean log-odds of helpful, slope along each axis
    "+": ("shared", 2.2, (0.0, 0.0)),
    ">": ("divisive", 0.9, (2.3, 0.0)),
    "<": ("divisive", -0.2, (-2.2, 0.0)),
    "^": ("divisive", -0.4, (0.2, -1.7)),
    "-": ("disliked", -2.3, (0.0, 0.0)),
}
"""The large camp meets its own favourites more often, so that some divisive guidelines reach a
helpful rate that a majority vote would call agreement."""

MEDIAN_RATINGS = 20
FIRST_DAY = pd.Timestamp("2025-03-03", tz="UTC")
DAYS = 21


@dataclass(frozen=True)
class Simulation:
    """The export, and what was planted."""

    export: dict[str, Any]
    """As `GET /exports` would answer: topics, guidelines, ratings, users, mu."""
    guidelines: pd.DataFrame
    """guideline_id, kind (shared, divisive, disliked), mark"""
    users: pd.DataFrame
    """user_id, camp"""


def simulate(
    seed: int = 0,
    n_users: int = 600,
    *,
    n_guidelines: int | None = None,
    median_ratings: float = MEDIAN_RATINGS,
) -> Simulation:
    """Plant a deliberation: the same arguments give the same export, byte for byte.

    P(helpful) = 1 / (1 + exp(-(liking_g + leniency_u + position_u . slope_g))), with camps of
    unequal size, leniency and exposure; numbers of ratings are log-normal with a median of
    `median_ratings`. See CAMPS and MARKS for the numbers. `n_guidelines`: so many of the texts,
    taken evenly; all of them by default. Raises InputError for more than there are.
    """
    random = np.random.default_rng(seed)
    texts = planted("texts")
    if n_guidelines is not None:
        if not 1 <= n_guidelines <= len(texts):
            raise InputError(f"n_guidelines is {n_guidelines}: there are {len(texts)} texts")
        texts = texts.iloc[np.linspace(0, len(texts) - 1, n_guidelines).round().astype(int)]
    n_texts = len(texts)
    kinds, means, slopes = zip(*(MARKS[mark] for mark in texts["mark"]), strict=True)
    liking = np.array(means) + random.uniform(-0.75, 0.75, n_texts)
    slope = np.array(slopes) * random.uniform(0.75, 1.25, (n_texts, 1))

    shares, positions, lenient = zip(*CAMPS.values(), strict=True)
    camp = random.choice(len(CAMPS), n_users, p=shares)
    position = np.array(positions)[camp] + random.normal(0, 0.3, (n_users, 2))
    leniency = np.array(lenient)[camp] + random.normal(0, 0.5, n_users)

    odds = liking + leniency[:, None] + position @ slope.T
    helpful = random.random((n_users, n_texts)) < 1 / (1 + np.exp(-odds))
    # Who meets what: people are shown more of what their camp likes (Gumbel top-k draws
    # without replacement, weights exp(0.45 * alignment)).
    pull = 0.45 * np.clip(position @ slope.T, -2, 2)
    key = pull + random.gumbel(size=(n_users, n_texts))
    activity = np.exp(random.normal(np.log(median_ratings), 0.75, n_users))
    n_rated = np.clip(np.round(activity), 1, n_texts).astype(int)
    minute = np.sort(random.integers(0, DAYS * 24 * 60, n_users))

    user_ids = [f"u{k:04d}" for k in range(1, n_users + 1)]
    guideline_ids = [f"g{k:03d}" for k in range(1, n_texts + 1)]
    ratings = [
        {
            "id": f"r{u:04d}-{k:03d}",
            "authorId": user_ids[u],
            "guidelineId": guideline_ids[j],
            "rating": "helpful" if helpful[u, j] else "not_helpful",
            "createdAt": _time(FIRST_DAY + pd.Timedelta(minutes=int(minute[u]), seconds=9 * k)),
        }
        for u in range(n_users)
        for k, j in enumerate(np.argsort(-key[u], kind="stable")[: n_rated[u]])
    ]
    guidelines = [
        {"id": i, "value": text, "topicId": topic, "createdAt": _time(FIRST_DAY)} | _untrained()
        for i, text, topic in zip(guideline_ids, texts["text"], texts["topic_id"], strict=True)
    ]
    topics = [
        {"id": t.topic_id, "title": t.title, "description": t.description}
        | ({"parentId": t.parent_id} if t.parent_id else {})
        for t in planted("topics").itertuples()
    ]
    users = [{"id": user} | _untrained() for user in user_ids]
    tables = {"topics": topics, "guidelines": guidelines, "ratings": ratings, "users": users}
    return Simulation(
        tables | {"mu": None},
        pd.DataFrame({"guideline_id": guideline_ids, "kind": kinds, "mark": texts["mark"]}),
        pd.DataFrame({"user_id": user_ids, "camp": np.array(list(CAMPS))[camp]}),
    )


def planted(table: Literal["texts", "topics"]) -> pd.DataFrame:
    """The table simulation_<table>.csv, which comes with the package; `mark` as in MARKS."""
    with files("aggregation.data").joinpath(f"simulation_{table}.csv").open(encoding="utf-8") as f:
        return pd.read_csv(f, keep_default_na=False)


def _untrained() -> dict[str, object]:
    return {"embeddings": [], "intercept": None}


def _time(at: pd.Timestamp) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
