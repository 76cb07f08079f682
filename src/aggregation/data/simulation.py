"""Simulate: a planted deliberation with known truth, in the shape of the platform's export.

Nobody said any of this. It is there to try the package on, and to test it against the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from annotated_types import Ge, Le

from aggregation.data.settings import check_fields

CAMPS = {
    # share, position on the three axes, leniency (log-odds)
    "large": (0.55, (0.9, 0.1, 0.3), 0.35),
    "middle": (0.30, (-1.1, 0.4, -0.9), -0.15),
    "small": (0.15, (-0.4, -1.3, 0.6), 0.1),
    "fourth": (0.15, (0.2, 1.2, -0.4), 0.0),
    "fifth": (0.10, (0.0, -0.2, 1.2), 0.2),
}
"""A world has the first few of them, and of the axes as well."""
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

FIRST_DAY = pd.Timestamp("2025-03-03", tz="UTC")
DAYS = 21

COVER = 10
"""Ratings by which an attacker looks like everybody, besides the one that counts."""


@dataclass(frozen=True)
class World:
    """A deliberation to be simulated. With the same seed it is the same, byte for byte."""

    n_users: Annotated[int, Ge(1), Le(100_000)] = 600
    """Number of simulated users; attackers come on top. The seed is the run's."""
    n_guidelines: Annotated[int, Ge(1), Le(10_000)] = 121
    """Guidelines: of the 121 texts so many, taken evenly. Beyond, texts come again, numbered."""
    median_ratings: Annotated[float, Ge(1), Le(10_000)] = 20.0
    """Median number of ratings of a user; the numbers are log-normal."""
    camps: Annotated[int, Ge(1), Le(len(CAMPS))] = 3
    """Groups of users who think alike, the largest first."""
    axes: Annotated[int, Ge(0), Le(3)] = 2
    """Lines that divide the camps. 0: none, so that all differences are chance."""
    exposure: Annotated[float, Ge(0), Le(5)] = 0.45
    """How much more people are shown of what their camp likes. 0: everybody is shown anything."""
    coin_tossers: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the users whose ratings are chance."""
    straight_liners: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the users who give the same rating to everything."""
    attackers: Annotated[int, Ge(0), Le(100_000)] = 0
    """Accounts that want one disliked guideline accepted: each finds it helpful, and rates ten
    others as most people do."""


@dataclass(frozen=True)
class Simulation:
    """The export, and what was planted."""

    export: dict[str, Any]
    """As `GET /exports` would answer: topics, guidelines, ratings, users, mu."""
    guidelines: pd.DataFrame
    """guideline_id, kind (shared, divisive, disliked), mark, attacked (bool)"""
    users: pd.DataFrame
    """user_id, camp, behaviour (sincere, coin_tosser, straight_liner, attacker)"""


def simulate(seed: int = 0, world: World | None = None) -> Simulation:
    """Plant a deliberation: the same arguments give the same export, byte for byte.

    P(helpful) = 1 / (1 + exp(-(liking_g + leniency_u + position_u . slope_g))), with camps of
    unequal size, leniency and exposure. See CAMPS and MARKS for the numbers. Raises InputError
    for settings out of range.
    """
    world = world or World()
    check_fields(world)
    random, n_users = np.random.default_rng(seed), world.n_users
    axes = world.axes if world.camps > 1 else 0
    texts = _texts(world.n_guidelines)
    marks, n_texts = texts["mark"], len(texts)
    kinds, means, slopes = zip(*(MARKS[mark] for mark in marks), strict=True)
    liking = np.array(means) + random.uniform(-0.75, 0.75, n_texts)
    slope = np.array(slopes) * random.uniform(0.75, 1.25, (n_texts, 1))
    slope = np.pad(slope, ((0, 0), (0, 1)))
    if axes == 3:  # every other guideline of the second axis goes to the third
        third = (marks == "^") & (np.cumsum(marks == "^") % 2 == 0)
        slope[third] = np.roll(slope[third], 1, axis=1) * [0, 0, 1]
    slope = slope[:, :axes]
    divisive = np.abs(slope).max(axis=1, initial=0.0) > 1
    kinds = np.where((np.array(kinds) == "divisive") & ~divisive, "disliked", kinds)
    liking[kinds == "disliked"] = np.minimum(liking[kinds == "disliked"], -1.0)

    shares, positions, lenient = zip(*[*CAMPS.values()][: world.camps], strict=True)
    camp = random.choice(world.camps, n_users, p=np.array(shares) / sum(shares))
    places = np.array(positions)[camp, :axes]
    position = places + random.normal(0, 0.3, (n_users, axes))
    leniency = np.array(lenient)[camp] + random.normal(0, 0.5, n_users)

    odds = liking + leniency[:, None] + position @ slope.T
    helpful = random.random((n_users, n_texts)) < 1 / (1 + np.exp(-odds))
    # Who meets what: people are shown more of what their camp likes (Gumbel top-k draws
    # without replacement, weights exp(exposure * alignment)).
    pull = world.exposure * np.clip(position @ slope.T, -2, 2)
    key = pull + random.gumbel(size=(n_users, n_texts))
    activity = np.exp(random.normal(np.log(world.median_ratings), 0.75, n_users))
    n_rated = np.clip(np.round(activity), 1, n_texts).astype(int)
    minute = np.sort(random.integers(0, DAYS * 24 * 60, n_users))

    # What is odd has random numbers of its own: the sincere ratings do not depend on it.
    odd, behaviour = np.random.default_rng((seed, 1)), np.full(n_users, "sincere", dtype=object)
    order = odd.permutation(n_users)
    n_coins, n_straight = (
        round(share * n_users) for share in (world.coin_tossers, world.straight_liners)
    )
    coins, straight = order[:n_coins], order[n_coins : n_coins + n_straight]
    helpful[coins] = odd.random((len(coins), n_texts)) < 0.5
    helpful[straight] = odd.random((len(straight), 1)) < 0.5
    behaviour[coins], behaviour[straight] = "coin_tosser", "straight_liner"
    target = int(np.argmin(liking)) if world.attackers else -1
    if world.attackers:
        size = (world.attackers, n_texts)
        usual = helpful.mean(axis=0) > 0.5
        usual[target] = True
        helpful = np.concatenate([helpful, np.broadcast_to(usual, size)])
        wanted = odd.gumbel(size=size)
        wanted[:, target] = np.inf
        key = np.concatenate([key, wanted])
        n_rated = np.append(n_rated, np.full(world.attackers, min(COVER + 1, n_texts)))
        minute = np.append(minute, np.full(world.attackers, DAYS * 24 * 60))
        n_users += world.attackers

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
        pd.DataFrame(
            {
                "guideline_id": guideline_ids,
                "kind": kinds,
                "mark": marks,
                "attacked": np.arange(n_texts) == target,
            }
        ),
        pd.DataFrame(
            {
                "user_id": user_ids,
                "camp": [*np.array(list(CAMPS))[camp], *["none"] * world.attackers],
                "behaviour": [*behaviour, *["attacker"] * world.attackers],
            }
        ),
    )


def _texts(n: int) -> pd.DataFrame:
    """So many of the planted texts: taken evenly, or all and then all again, numbered."""
    texts = planted("texts")
    if n <= len(texts):
        at = np.linspace(0, len(texts) - 1, n).round().astype(int)
        return texts.iloc[at].reset_index(drop=True)
    at = np.arange(n)
    again = pd.Series(at // len(texts) + 1).map(lambda k: f" ({k})" if k > 1 else "")
    repeated = texts.iloc[at % len(texts)].reset_index(drop=True)
    return repeated.assign(text=repeated["text"] + again)


def planted(table: Literal["texts", "topics"]) -> pd.DataFrame:
    """The table simulation_<table>.csv, which comes with the package; `mark` as in MARKS."""
    with files("aggregation.data").joinpath(f"simulation_{table}.csv").open(encoding="utf-8") as f:
        return pd.read_csv(f, keep_default_na=False)


def _untrained() -> dict[str, object]:
    return {"embeddings": [], "intercept": None}


def _time(at: pd.Timestamp) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
