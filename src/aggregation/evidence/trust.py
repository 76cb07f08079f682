"""Trust: how a rule holds up when people, pools and accounts are not as they were.

Every measure asks the same of any rule, the user's own included: would it decide so again, can its
decisions be bought, does junk move them, whom do they leave behind; and, on simulated worlds, are
they right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from aggregation.data.dataset import HELPFUL
from aggregation.data.simulation import Simulation, simulate
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.rules import ACCEPTED, REJECTED, UNDECIDED, Rule
from aggregation.decisions.scores import score
from aggregation.evidence.attacks import NEW, costs, smallest_unanimous, with_room
from aggregation.evidence.bootstrap import best_refits, rule_columns, user_weights
from aggregation.evidence.groups import group_counts, opinion_groups
from aggregation.evidence.two_sides import two_sides, with_two_sides
from aggregation.model.fit import Fit, fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import Parameters
from aggregation.model.ratings import Ids, Ratings, encode
from aggregation.model.refit import refit

RESAMPLES = 24
"""Resamples of the users."""

JUNK = {"junk": 0.1, "half_junk": 0.5}
"""Junk guidelines, as a share of all: each has as many ratings as the median, all by chance."""

RANDOM_RATERS = 0.1
"""Raters who toss a coin, as a share of all: each rates as many guidelines as the median user."""

LEAST_RATINGS = 5
"""Of guidelines that the helpful rate alone may choose: with fewer, no group has said anything."""

POOLS = 3
"""Pools of junk, or of such raters; their mean counts."""

Say = Callable[[str], None]


def trust(
    ratings: Ratings,
    ids: Ids,
    fit: Fit,
    rules: Sequence[Rule],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    callback: Say | None = None,
) -> pd.DataFrame:
    """How each rule holds up on these ratings: one column a rule, one row a measure.

    accepted, undecided: how many. same_set: mean Jaccard index of the accepted set with that of
    resampled users. turned: share of the decided that resampled users turn from accepted to
    rejected or back. accounts_5, accounts_11, accounts_21: new accounts with so many ratings each
    that have a new guideline accepted (NaN: none up to 100); accounts_bound: what no rule that
    treats accounts alike can exceed. accounts_to_reject: median over the accepted of the cheapest
    that has one rejected (above 100 counts as 101). moved_by_junk, moved_by_half_junk: share of the
    verdicts that 10 % or 50 % of junk guidelines change; moved_by_random_raters: that 10 % of
    raters who toss a coin change. worst_group: the lowest mean rate, over opinion groups, of the
    accepted guidelines; worst_group_gain: how much that is above as many guidelines with 5 ratings
    or more by helpful rate.
    """
    say = callback or (lambda _: None)
    sides, groups = two_sides(ratings), opinion_groups(ratings, seed)
    say("resampled users")
    weights = user_weights(ratings.n_users, resamples, seed)[ratings.user]
    intercepts = fit.parameters.guideline_intercept[:, None]
    if any(map(_reads_intercept, rules)):
        intercepts, _, _ = best_refits(ratings, weights, fit, seed, callback)
    intercepts = np.broadcast_to(intercepts, (ratings.n_guidelines, resamples))
    drawn = [
        rule_columns(replace(ratings, weight=weights[:, r]), intercepts[:, r], rules, sides)
        for r in range(resamples)
    ]
    say("junk and random raters")
    pools = {
        "random_raters": lambda k: _random_raters(ratings, seed, k),
        **{name: lambda k, of=of: _junk(ratings, of, seed, k) for name, of in JUNK.items()},
    }
    changed = {
        name: [_columns_with(ratings, made(k), fit, rules) for k in range(POOLS)]
        for name, made in pools.items()
    }
    scores = with_two_sides(score(ratings, ids, fit.parameters), sides, ids)
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        constitution = select(scores, rule)
        verdict = rule.verdicts(scores)
        again = np.stack([rule.verdicts(columns) for columns in drawn], axis=1)
        say(f"accounts against {rule.name}")
        against = (constitution, ratings, ids, fit, sides)
        table = costs(*against, aims=("accept", "reject"), nearest=0, seed=seed)
        is_new = table["guideline_id"] == NEW
        new = table[is_new & (table["attack"] != "single votes")]
        fewest = new.groupby("ratings_each")["accounts"].min()
        of_accepted = table[~is_new].groupby("guideline_id")["accounts"].min()
        found[rule.name] = {
            **{word: int((verdict == word).sum()) for word in (ACCEPTED, UNDECIDED)},
            "same_set": _jaccard(verdict == ACCEPTED, again == ACCEPTED),
            "turned": _turned(verdict, again),
            **{f"accounts_{each}": fewest[each] for each in (5, 11, 21)},
            "accounts_bound": smallest_unanimous(constitution),
            "accounts_to_reject": of_accepted.fillna(101).median(),
            **{
                f"moved_by_{name}": float(np.mean([rule.verdicts(x) != verdict for x in pools]))
                for name, pools in changed.items()
            },
            **_worst_group(constitution, ratings, ids, groups.member),
        }
    return pd.DataFrame(found)


def on_worlds(
    rules: Sequence[Rule], seeds: Sequence[int], callback: Say | None = None
) -> pd.DataFrame:
    """How right each rule is on simulated deliberations: one column a rule.

    Rows: f1 and f1_decided, means over the worlds, and divisive_accepted, their sum. See `right`.
    """
    rows: dict[str, list[dict[str, float]]] = {rule.name: [] for rule in rules}
    for seed in seeds:
        if callback is not None:
            callback(f"simulated world {seed}")
        scores, kind = world_scores(simulate(seed), rules)
        for rule in rules:
            rows[rule.name].append(right(select(scores, rule), kind))
    every = {"f1": "mean", "f1_decided": "mean", "divisive_accepted": "sum"}
    return pd.DataFrame({name: pd.DataFrame(of).agg(every) for name, of in rows.items()})


def world_scores(made: Simulation, rules: Sequence[Rule]) -> tuple[pd.DataFrame, pd.Series]:
    """The scores of a simulated deliberation that the rules read, and guideline_id -> its kind."""
    told = pd.DataFrame(made.export["ratings"])
    names = {"authorId": "user_id", "guidelineId": "guideline_id"}
    table = told.rename(columns=names).assign(helpful=told["rating"].map(HELPFUL))
    ratings, ids = encode(table)
    flat = np.zeros(ratings.n_guidelines)
    empty = np.zeros((ratings.n_users, 1))
    p = Parameters(0.0, empty[:, 0], empty, flat, flat[:, None])  # if no rule reads the intercept
    if any(map(_reads_intercept, rules)):
        p = fit(ratings, settings=Settings(max_starts=8)).parameters
    scores = with_two_sides(score(ratings, ids, p), two_sides(ratings), ids)
    return scores, made.guidelines.set_index("guideline_id")["kind"]


def right(constitution: Constitution, kind: pd.Series) -> dict[str, float]:
    """How right a constitution is on a simulated world; `kind`: guideline_id -> what was planted.

    f1 of the accepted against the guidelines planted as shared; f1_decided: the same of those that
    are not undecided; divisive_accepted: how many planted as divisive are accepted.
    """
    scores = constitution.scores
    shared = scores["guideline_id"].map(kind) == "shared"
    accepted, decided = scores["verdict"] == ACCEPTED, scores["verdict"] != UNDECIDED
    divisive = scores["guideline_id"].map(kind) == "divisive"
    return {
        "f1": _f1(accepted, shared),
        "f1_decided": _f1(accepted[decided], shared[decided]),
        "divisive_accepted": float((accepted & divisive).sum()),
    }


def _f1(found: pd.Series, true: pd.Series) -> float:
    both = (found & true).sum()
    return float(2 * both / max(found.sum() + true.sum(), 1))


def _reads_intercept(rule: Rule) -> bool:
    return "intercept" in (c.column for c in rule.conditions)


def _jaccard(one: np.ndarray, many: np.ndarray) -> float:
    """Mean over the columns of `many` [G, R]; two empty sets are the same."""
    both, either = (one[:, None] & many).sum(axis=0), (one[:, None] | many).sum(axis=0)
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def _turned(verdict: np.ndarray, again: np.ndarray) -> float:
    """Share of the decided, mean over the columns of `again` [G, R]."""
    decided = np.isin(verdict, (ACCEPTED, REJECTED))
    opposite = np.where(verdict == ACCEPTED, REJECTED, ACCEPTED)
    return float((again[decided] == opposite[decided, None]).mean()) if decided.any() else 0.0


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Users, guidelines and values of ratings."""


def _junk(ratings: Ratings, share: float, seed: int, pool: int) -> Rows:
    """Ratings of junk guidelines."""
    new, user, value = _by_chance(share, ratings.per_guideline(), ratings.n_users, seed, pool)
    return user, new, value


def _random_raters(ratings: Ratings, seed: int, pool: int) -> Rows:
    """Ratings of raters who toss a coin."""
    return _by_chance(RANDOM_RATERS, ratings.per_user(), ratings.n_guidelines, seed, pool)


def _by_chance(share: float, n: np.ndarray, n_others: int, seed: int, pool: int) -> Rows:
    """A `share` of new rows beside those with `n` ratings each, the others they meet, and values by
    a coin. Who meets whom is the same in every `pool`, so that one compiled fit does for all.
    """
    random, n_new, each = np.random.default_rng(seed), max(round(share * len(n)), 1), np.median(n)
    others = [random.choice(n_others, int(each), replace=False) for _ in range(n_new)]
    new = np.repeat(np.arange(len(n), len(n) + n_new), int(each))
    value = np.random.default_rng((seed, pool)).integers(0, 2, len(new)).astype(np.float64)
    return new, np.concatenate(others), value


def _columns_with(
    ratings: Ratings, more: Rows, fit: Fit, rules: Sequence[Rule]
) -> dict[str, np.ndarray]:
    """The rules' columns of the guidelines as they are, with more ratings beside theirs."""
    rows = [
        np.append(x, y)
        for x, y in zip((ratings.user, ratings.guideline, ratings.helpful), more, strict=True)
    ]
    order = np.lexsort(rows[1::-1])
    user, guideline, helpful = (x[order] for x in rows)
    g, size = ratings.n_guidelines, (int(user.max()) + 1, int(guideline.max()) + 1)
    kinds = (user.astype(np.int32), guideline.astype(np.int32), helpful)
    joined = Ratings(*kinds, max(size[0], ratings.n_users), max(size[1], g))
    near = with_room(fit.parameters, joined.n_users - ratings.n_users, joined.n_guidelines - g)
    level = near.guideline_intercept
    if any(map(_reads_intercept, rules)):
        ends = refit(joined, np.ones((len(joined), 1)), near, fit.penalty)
        level = ends.parameters.guideline_intercept[:, 0]
    return rule_columns(joined, level, rules, two_sides(joined), slice(g))


def _worst_group(
    constitution: Constitution, ratings: Ratings, ids: Ids, member: np.ndarray
) -> dict[str, float]:
    """The lowest group's mean rate of the accepted, and how far that is above the raw rate's."""
    n, helpful = group_counts(ratings, member)
    accepted = ids.guidelines.isin(constitution.accepted["guideline_id"])
    if not len(n) or not accepted.any():
        return {"worst_group": np.nan, "worst_group_gain": np.nan}
    rates = (helpful + 1) / (n + 2)
    liked = np.bincount(ratings.guideline, ratings.helpful, ratings.n_guidelines)
    raw = liked / np.maximum(ratings.per_guideline(), 1)
    enough = np.flatnonzero(ratings.per_guideline() >= LEAST_RATINGS)
    top = enough[np.argsort(-raw[enough], kind="stable")][: accepted.sum()]
    worst, of_raw = (float(rates[:, of].mean(axis=1).min()) for of in (accepted, top))
    return {"worst_group": worst, "worst_group_gain": worst - of_raw}
