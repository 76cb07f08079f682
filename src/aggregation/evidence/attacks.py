"""Attacks: how many new accounts it takes to have a guideline accepted, or taken out.

Accounts are appended once, as many as an attacker may have at most, and switched on by weights. So
every attack has the same shape, and nothing compiles anew. An attacker here knows everything: the
rule, all ratings, both sides. A cost is what the cheapest of some known ways needs, not a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED, REJECTED, Rule
from aggregation.evidence.bootstrap import levels, rule_columns
from aggregation.evidence.two_sides import TwoSides
from aggregation.model.fit import Fit
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings

COARSE, STEP = (5, 20, 40, 70, 100), 5
"""Numbers of accounts that are tried, upwards; between the first that works and the one before it,
every `STEP`. Not by bisection: more accounts do not always reach more."""

MOST_ACCOUNTS = COARSE[-1]

ATTACKS = (
    *(("single votes", 1), ("cover votes", 5), ("both sides", 5)),
    *(("both sides", 11), ("junk", 11), ("both sides", 21)),
)
"""Attacks, and the ratings that each account gives, upwards: only the target; the target and what
most people say of the less liked half, which makes an account look strict; the target and what one
side says of others, a quarter of the accounts for each pair of sides of both axes; the target and
others by the toss of a coin, which blurs the sides."""

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
    only_cheapest: bool = False,
    seed: int = 0,
    callback: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """What it costs to have guidelines accepted, and accepted ones removed.

    To be accepted: a new guideline, and the `nearest` of those not accepted, by consensus score.
    `aims`: that of attacks on these, and on the accepted ones. accept; remove: accepted no longer;
    reject: rejected. Columns: guideline_id, aim, attack and ratings_each (see `ATTACKS`),
    accounts (the fewest, see `COARSE`; NaN: none of them), ratings. `only_cheapest`: attacks that
    cannot be cheaper than one before them are not tried, and have NaN as well.
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
        if callback is not None and number % 10 == 1:
            callback(f"attack {number} of {len(targets)}")
        at = ids.guidelines.get_indexer(pd.Index([target]))[0]
        at = ratings.n_guidelines if target == NEW else int(at)
        best = np.inf
        for attack, each in ATTACKS:
            n = world.cheapest(at, aim, attack, each, best)
            best = min(best, n) if only_cheapest and n == n else best
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
    """The ratings, with room for the accounts of an attack and for a new guideline.

    Every account has room for a rating of every guideline; those that it does not give weigh 0.
    """

    def __init__(self, rule: Rule, ratings: Ratings, fit: Fit, sides: TwoSides, seed: int) -> None:
        self.rule, self.ratings, self.sides, self.penalty = rule, ratings, sides, fit.penalty
        self.shape = (MOST_ACCOUNTS, ratings.n_guidelines + 1)
        random = np.random.default_rng(seed)
        self.random_order, self.coins = random.random(self.shape), random.random(self.shape)
        liked = np.bincount(ratings.guideline, ratings.helpful, self.shape[1])
        self.mean = liked / np.maximum(np.append(ratings.per_guideline(), 0), 1)
        account, guideline = np.indices(self.shape, dtype=np.int32)
        self.user = np.concatenate([ratings.user, ratings.n_users + account.ravel()])
        self.guideline = np.concatenate([ratings.guideline, guideline.ravel()])
        self.near = with_room(fit.parameters, MOST_ACCOUNTS, 1)

    def cheapest(
        self, target: int, aim: str, attack: str, each: int, below: float = np.inf
    ) -> float:
        """The fewest accounts that reach the aim, of those below `below`; NaN: none that were tried
        do.
        """
        last = () if np.isinf(below) else (int(below) - STEP,)
        coarse = sorted({n for n in (*COARSE, *last) if 0 < n < below})
        helpful, weight = self._attack(target, aim, attack, each)
        reached = {
            "accept": ACCEPTED.__eq__,
            "remove": ACCEPTED.__ne__,
            "reject": REJECTED.__eq__,
        }[aim]

        def first(sizes: Sequence[int]) -> int | None:
            verdicts = self._verdicts(helpful, weight, target, sizes)
            return next((n for n, verdict in verdicts if reached(verdict)), None)

        found = first(coarse)
        if found is None:
            return np.nan
        before = max((n for n in coarse if n < found), default=0)
        return float(first(range(before + STEP, found, STEP)) or found)

    def _attack(
        self, target: int, aim: str, attack: str, each: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """All ratings [n], those of the accounts last, and their weights with all accounts on."""
        said = np.broadcast_to(self.mean, self.shape)
        rank = self.random_order.copy()
        rank[:, [target, -1]] = np.inf  # the target is rated anyway, nobody rates the new one
        if attack == "cover votes":
            rank += self.mean >= np.median(self.mean)
        if attack == "both sides":
            spread = self.sides.user_axis.std(axis=1)[:, None] * self.sides.guideline_axis
            account = np.arange(MOST_ACCOUNTS)[:, None]
            signs = 1 - 2 * (account // 2 ** np.arange(len(spread)) % 2)
            said = said + np.pad(signs @ spread, ((0, 0), (0, 1)))
        if attack == "junk":
            said = self.coins
        given, helpful = np.zeros(self.shape), (said >= 0.5).astype(np.float64)
        np.put_along_axis(given, np.argsort(rank, axis=1)[:, : each - 1], 1.0, axis=1)
        given[:, target], helpful[:, target] = 1.0, float(aim == "accept")
        r = self.ratings
        old = np.ones(len(r)) if r.weight is None else r.weight
        return np.append(r.helpful, helpful.ravel()), np.append(old, given.ravel())

    def _verdicts(
        self, helpful: np.ndarray, weight: np.ndarray, target: int, sizes: Sequence[int]
    ) -> Iterator[tuple[int, str]]:
        """The verdict on the target with each number of accounts."""
        size = (self.ratings.n_users + MOST_ACCOUNTS, self.shape[1])
        ratings = Ratings(self.user, self.guideline, helpful, *size)
        on = self.user[:, None] < self.ratings.n_users + np.array(sizes, int)
        weights = on * weight[:, None]
        intercept = levels(ratings, weights, self.near, self.penalty, self.rule)
        for k, accounts in enumerate(sizes):
            kept, of = weights[:, k] > 0, np.array([target])
            rows = (x[kept] for x in (self.user, self.guideline, helpful))
            here = Ratings(*rows, *size, weights[kept, k])  # type: ignore[call-arg]
            columns = rule_columns(here, intercept[:, k], [self.rule], self.sides, of)
            yield accounts, str(self.rule.verdicts(columns)[0])


def with_room(p: Parameters, users: int, guidelines: int) -> Parameters:
    """The parameters with more users and guidelines, all zeros."""
    more = (0, users, users, guidelines, guidelines)
    arrays = (
        x if n == 0 else np.concatenate([x, np.zeros((n, *np.shape(x)[1:]))])
        for x, n in zip(p.arrays(), more, strict=True)
    )
    return Parameters(*arrays)
