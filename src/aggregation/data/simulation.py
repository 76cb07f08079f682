"""Simulate: a planted deliberation with known truth, in the shape of the platform's export.

Nobody said any of this. It is there to try the package on, and to test it against the truth.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import pandas as pd

KINDS = {
    "+": "shared",
    ">": "divisive",
    "<": "divisive",
    "^": "divisive",
    "-": "disliked",
}

CAMPS = {
    # share, position on the two axes, leniency (log-odds)
    "large": (0.55, (0.9, 0.1), 0.35),
    "middle": (0.30, (-1.1, 0.4), -0.15),
    "small": (0.15, (-0.4, -1.3), 0.1),
}

LIKING = {
    # mark: mean log-odds of helpful, slope along each axis
    "+": (2.2, (0.0, 0.0)),
    ">": (0.9, (2.3, 0.0)),
    "<": (-0.2, (-2.2, 0.0)),
    "^": (-0.4, (0.2, -1.7)),
    "-": (-2.3, (0.0, 0.0)),
}
"""The large camp meets its own favourites more often, so that some divisive guidelines reach a
helpful rate that a majority vote would call agreement."""

MEDIAN_RATINGS = 20
FIRST_DAY = pd.Timestamp("2025-03-03", tz="UTC")
DAYS = 21


@dataclass(frozen=True)
class Simulation:
    """The export, and what was planted."""

    export: dict[str, list[dict[str, object]] | None]
    """As `GET /exports` would answer: topics, guidelines, ratings, users, mu."""
    guidelines: pd.DataFrame
    """guideline_id, kind (shared, divisive, disliked), mark"""
    users: pd.DataFrame
    """user_id, camp"""


def simulate(seed: int = 0, n_users: int = 600) -> Simulation:
    """Plant a deliberation: the same seed and size give the same export, byte for byte.

    P(helpful) = 1 / (1 + exp(-(liking_g + leniency_u + position_u . slope_g))), with camps of
    unequal size, leniency and exposure; numbers of ratings are log-normal with a median of
    `MEDIAN_RATINGS`. See CAMPS and LIKING for the numbers.
    """
    if n_users < 1:
        raise ValueError(f"n_users is {n_users}: a deliberation needs at least one user")
    random = np.random.default_rng(seed)
    planted = planted_rows("texts")
    marks, texts, topic_ids = (
        [row[name] for row in planted] for name in ("mark", "text", "topic_id")
    )
    g = len(texts)
    liking = np.array([LIKING[m][0] for m in marks]) + random.uniform(-0.75, 0.75, g)
    slope = np.array([LIKING[m][1] for m in marks]) * random.uniform(0.75, 1.25, (g, 1))

    names = list(CAMPS)
    camp = random.choice(len(names), n_users, p=[CAMPS[c][0] for c in names])
    position = np.array([CAMPS[c][1] for c in names])[camp] + random.normal(0, 0.3, (n_users, 2))
    leniency = np.array([CAMPS[c][2] for c in names])[camp] + random.normal(0, 0.5, n_users)

    odds = liking + leniency[:, None] + position @ slope.T
    helpful = random.random((n_users, g)) < 1 / (1 + np.exp(-odds))
    # Who meets what: people are shown more of what their camp likes (Gumbel top-k draws
    # without replacement, weights exp(0.45 * alignment)).
    pull = 0.45 * np.clip(position @ slope.T, -2, 2)
    key = pull + random.gumbel(size=(n_users, g))
    activity = np.exp(random.normal(np.log(MEDIAN_RATINGS), 0.75, n_users))
    n_rated = np.clip(np.round(activity), 1, g).astype(int)
    minute = np.sort(random.integers(0, DAYS * 24 * 60, n_users))

    user_ids = [f"u{k:04d}" for k in range(1, n_users + 1)]
    guideline_ids = [f"g{k:03d}" for k in range(1, g + 1)]
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
    export = {
        "topics": [
            {"id": row["topic_id"], "title": row["title"], "description": row["description"]}
            | ({"parentId": row["parent_id"]} if row["parent_id"] else {})
            for row in planted_rows("topics")
        ],
        "guidelines": [
            {
                "id": i,
                "value": text,
                "topicId": topic,
                "createdAt": _time(FIRST_DAY),
                "embeddings": [],
                "intercept": None,
            }
            for i, text, topic in zip(guideline_ids, texts, topic_ids, strict=True)
        ],
        "ratings": ratings,
        "users": [{"id": u, "embeddings": [], "intercept": None} for u in user_ids],
        "mu": None,
    }
    kinds = [KINDS[m] for m in marks]
    return Simulation(
        export,
        pd.DataFrame({"guideline_id": guideline_ids, "kind": kinds, "mark": marks}),
        pd.DataFrame({"user_id": user_ids, "camp": [names[c] for c in camp]}),
    )


def planted_rows(table: Literal["texts", "topics"]) -> list[dict[str, str]]:
    """The rows of simulation_<table>.csv, which comes with the package; `mark` as in KINDS."""
    file = files("aggregation.data").joinpath(f"simulation_{table}.csv")
    return list(csv.DictReader(file.read_text("utf-8").splitlines()))


def _time(at: pd.Timestamp) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
