"""Planning: how many people and ratings a deliberation needs, rehearsed on simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from aggregation.data.simulation import World, simulate
from aggregation.decisions.constitution import select
from aggregation.decisions.rules import ACCEPTED, ROBUST, UNDECIDED, Rule
from aggregation.evidence.trust import world_scores

WORLDS = 5
"""Simulated deliberations of each size."""

WORLD = World(n_guidelines=60)


def plan(
    n_users: Sequence[int],
    ratings_each: Sequence[int],
    world: World = WORLD,
    rule: Rule = ROBUST,
    *,
    worlds: int = WORLDS,
    seed: int = 0,
    callback: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """What a rule would decide with so many users who rate so many guidelines each (the median).

    `world`: all else of the deliberation, such as its camps, or attackers among the users.
    Columns: users, ratings_each, guidelines, per_guideline (ratings, their median), decided (share
    of the guidelines), shared_accepted (share of those planted as shared), divisive_accepted (how
    many of the others). Means over `worlds` simulated deliberations.
    """
    rows = []
    for users, each in product(n_users, ratings_each):
        if callback is not None:
            callback(f"{users:,} users with {each:,} ratings each")
        for number in range(seed, seed + worlds):
            made = simulate(number, replace(world, n_users=users, median_ratings=each))
            scores, kind = world_scores(made, [rule])
            verdict = select(scores, rule).scores.set_index("guideline_id")["verdict"]
            accepted = verdict == ACCEPTED
            shared = kind.reindex(verdict.index) == "shared"
            rows.append(
                {
                    "users": users,
                    "ratings_each": each,
                    "guidelines": world.n_guidelines,
                    "per_guideline": scores["n_ratings"].median(),
                    "decided": (verdict != UNDECIDED).sum() / world.n_guidelines,
                    "shared_accepted": (accepted & shared).sum() / max((kind == "shared").sum(), 1),
                    "divisive_accepted": (accepted & ~shared).sum(),
                }
            )
    sizes = ["users", "ratings_each", "guidelines"]
    return pd.DataFrame(rows).groupby(sizes, sort=False).mean().reset_index()
