"""Attacks: how many new accounts it takes to have a guideline accepted, or taken out.

Accounts are appended once, as many as an attacker may have at most, and switched on by weights. So
every attack has the same shape, and nothing compiles anew. An attacker here knows everything: the
rule, all ratings, both sides. A cost is what the cheapest of some known ways needs, not a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED, REJECTED, Rule
from aggregation.evidence.bootstrap import rule_columns
from aggregation.evidence.two_sides import TwoSides
from aggregation.model.fit import Fit
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings
from aggregation.model.refit import refit

COARSE, STEP = (5, 20, 40, 70, 100), 5
"""Numbers of accounts that are tried, upwards; between the first that works and the one before it,
every `STEP`. Not by bisection: more accounts do not always reach more."""

MOST_ACCOUNTS, MOST_RATINGS = COARSE[-1], 21
"""Accounts of an attack, and ratings of each, at most."""

RATINGS_EACH = {"single votes": (1,), "cover votes": (5,), "both sides": (5, 11, 21)}
"""How many ratings each account of an attack gives: only the target; the target and what most
people say of the less liked half, which makes an account look strict; the target and what one side
says of others, a quarter of the accounts for each pair of sides of both axes."""

NEW = "a new guideline"
"""The guideline_id of a target that nobody has rated yet."""


def costs(
    constitution: Constitution,
    ratings: Ratings,
    ids: Ids,
    fit: Fit,
    sides: TwoSides,
    *,
    aims: tuple[str, str] = ("accept", "remove"),
    nearest: int = 20,
    seed: int = 0,
    callback: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """What it costs to have guidelines accepted, and accepted ones removed.

    To be accepted: a new guideline, and the `nearest` of those not accepted, by consensus score.
    `aims`: that of attacks on these, and on the accepted ones. accept; remove: accepted no longer;
    reject: rejected. Columns: guideline_id, aim, attack and ratings_each (see `RATINGS_EACH`),
    accounts (the fewest, see `COARSE`; NaN: none of them), ratings.
    """
    world = _World(constitution.rule, ratings, fit, sides, seed)
    scores = constitution.scores
    accepted = scores["verdict"] == ACCEPTED
    near = scores[~accepted & scores["intercept"].notna()]
    near = near.sort_values("consensus_score", ascending=False, kind="stable").head(nearest)
    targets = [(g, aims[1]) for g in scores.loc[accepted, "guideline_id"]]
    targets += [(g, aims[0]) for g in (NEW, *near["guideline_id"])]
    rows = []
    for number, (target, aim) in enumerate(targets, start=1):
        if callback is not None:
            callback(f"attack {number} of {len(targets)}")
        at = ratings.n_guidelines if target == NEW else ids.guidelines.get_indexer([target])[0]
        for attack, sizes in RATINGS_EACH.items():
            for each in sizes:
                n = world.cheapest(int(at), aim, attack, each)
                rows.append((target, aim, attack, each, n, n * each))
    return pd.DataFrame(
        rows, columns=["guideline_id", "aim", "attack", "ratings_each", "accounts", "ratings"]
    )


def smallest_unanimous(constitution: Constitution) -> float:
    """Raters of the smallest accepted guideline that all raters found helpful; NaN without one.

    No rule that treats all accounts alike can make a new guideline cost more accounts: they could
    do just what these raters did.
    """
    accepted = constitution.accepted
    return float(accepted.loc[accepted["helpful_rate"] == 1, "n_ratings"].min())


def cheapest(table: pd.DataFrame) -> pd.DataFrame:
    """The cheapest attack on each guideline: guideline_id, accounts_needed, and cheapest_attack.

    NaN and "" where no attack succeeds.
    """
    order = table.sort_values(["accounts", "ratings"], kind="stable").groupby("guideline_id")
    first = order.first(skipna=False).reset_index()
    return pd.DataFrame(
        {
            "guideline_id": first["guideline_id"],
            "accounts_needed": first["accounts"],
            "cheapest_attack": first["attack"].where(first["accounts"].notna(), ""),
        }
    )


class _World:
    """The ratings, with room for the accounts of an attack and for a new guideline."""

    def __init__(self, rule: Rule, ratings: Ratings, fit: Fit, sides: TwoSides, seed: int) -> None:
        self.rule, self.ratings, self.sides = rule, ratings, sides
        self.random_order = np.random.default_rng(seed).random(
            (MOST_ACCOUNTS, ratings.n_guidelines)
        )
        n, helpful = ratings.per_guideline(), ratings.helpful
        liked = np.bincount(ratings.guideline, helpful, ratings.n_guidelines)
        self.mean = liked / np.maximum(n, 1)
        self.near, self.penalty = _with_room(fit.parameters, MOST_ACCOUNTS, 1), fit.penalty

    def cheapest(self, target: int, aim: str, attack: str, each: int) -> float:
        """The fewest accounts that reach the aim; NaN: none that were tried do."""
        ratings, weight = self._attacked(target, aim, attack, each)

        reached = {
            "accept": ACCEPTED.__eq__,
            "remove": ACCEPTED.__ne__,
            "reject": REJECTED.__eq__,
        }[aim]

        def first(sizes: Sequence[int]) -> int | None:
            for accounts, verdict in self._verdicts(ratings, weight, target, sizes):
                if reached(verdict):
                    return accounts
            return None

        found = first(COARSE)
        if found is None:
            return np.nan
        below = max((n for n in COARSE if n < found), default=0)
        return float(first(range(below + STEP, found, STEP)) or found)

    def _verdicts(
        self, ratings: Ratings, weight: np.ndarray, target: int, sizes: Sequence[int]
    ) -> Iterator[tuple[int, str]]:
        """The verdict on the target with each number of accounts."""
        if not len(sizes):
            return
        on = ratings.user[:, None] < self.ratings.n_users + np.array(sizes)
        weights, of = on * weight[:, None], np.array([target])
        intercept = np.broadcast_to(
            self.near.guideline_intercept[:, None], (ratings.n_guidelines, len(sizes))
        )
        if "intercept" in (c.column for c in self.rule.conditions):
            found = refit(ratings, weights, self.near, self.penalty)
            intercept = found.parameters.guideline_intercept
        for k, accounts in enumerate(sizes):
            here = replace(ratings, weight=weights[:, k])
            columns = rule_columns(here, intercept[:, k], [self.rule], self.sides, of)
            yield accounts, str(self.rule.verdicts(columns)[0])

    def _attacked(
        self, target: int, aim: str, attack: str, each: int
    ) -> tuple[Ratings, np.ndarray]:
        """All ratings with those of `MOST_ACCOUNTS` accounts, and weights: 0 for unused room."""
        r, g = self.ratings, self.ratings.n_guidelines
        account = np.arange(MOST_ACCOUNTS)
        rank = self.random_order + 9.0 * (np.arange(g) == target)
        if attack == "cover votes":
            rank = rank + (self.mean >= np.median(self.mean))
        order = np.argsort(rank, axis=1)
        others = order[:, : MOST_RATINGS - 1]
        said = np.broadcast_to(self.mean, (MOST_ACCOUNTS, g))
        if attack == "both sides":
            spread = self.sides.user_axis.std(axis=1)[:, None] * self.sides.guideline_axis
            signs = np.stack([1 - 2 * (account // 2**k % 2) for k in range(len(spread))], axis=1)
            said = said + signs @ spread
        room = others.shape[1]
        guideline = np.concatenate([np.full((MOST_ACCOUNTS, 1), target), others], axis=1)
        vote = np.full((MOST_ACCOUNTS, 1), 1.0 if aim == "accept" else 0.0)
        helpful = np.concatenate([vote, np.take_along_axis(said, others, 1) >= 0.5], axis=1)
        weight = np.broadcast_to(np.arange(1 + room) < each, guideline.shape)
        old = np.ones(len(r)) if r.weight is None else r.weight
        attacked = Ratings(
            np.concatenate([r.user, np.repeat(r.n_users + account, 1 + room).astype(np.int32)]),
            np.concatenate([r.guideline, guideline.ravel().astype(np.int32)]),
            np.concatenate([r.helpful, helpful.ravel()]),
            r.n_users + MOST_ACCOUNTS,
            g + 1,
        )
        return attacked, np.concatenate([old, weight.ravel().astype(float)])


def _with_room(p: Parameters, users: int, guidelines: int) -> Parameters:
    """The parameters with more users and guidelines, all zeros."""
    more = (0, users, users, guidelines, guidelines)
    arrays = (
        x if n == 0 else np.concatenate([x, np.zeros((n, *np.shape(x)[1:]))])
        for x, n in zip(p.arrays(), more, strict=True)
    )
    return Parameters(*arrays)
