"""Calibration of P(accept): is a guideline accepted as often as it says when other people come?

For each of some simulated worlds of 2,000 users: P(accept) from one sample of 400 users, and how
often 40 other samples of 400 accept. `python benchmarks/calibration.py [WORLDS] [REPLICATES]`.
"""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd

from aggregation import ALIGNED_2023, ROBUST, World, encode, fit, simulate
from aggregation.data.choices import Choices
from aggregation.data.dataset import HELPFUL
from aggregation.decisions.rules import ACCEPTED
from aggregation.evidence.bootstrap import best_refits, bootstrap, rule_columns
from aggregation.evidence.two_sides import two_sides
from aggregation.sources.platform_export import read_export

USERS, SAMPLE, OTHERS = 4000, 400, 40
RULES = (ALIGNED_2023, ROBUST)


def world(seed, replicates):
    """P(accept) from one sample and the share of other samples that accept: rule -> [G] each."""
    table = read_export(simulate(seed, World(USERS)).export, Choices(HELPFUL), "simulated").ratings
    random = np.random.default_rng(seed)
    ratings, ids = encode(table)
    chosen = random.choice(ids.users, SAMPLE, replace=False)
    sample, sample_ids = encode(table[table["user_id"].isin(chosen)])
    found = bootstrap(
        *(sample, fit(sample), two_sides(sample), RULES), replicates=replicates, seed=seed
    )
    weights = np.stack(
        [
            np.bincount(random.choice(len(ids.users), SAMPLE, replace=False), minlength=USERS)
            for _ in range(OTHERS)
        ],
        axis=1,
    ).astype(float)
    intercepts, _, _ = best_refits(ratings, weights, fit(ratings), seed)
    sides = two_sides(ratings)
    drawn = [
        rule_columns(
            replace(ratings, weight=weights[ratings.user, r]), intercepts[:, r], RULES, sides
        )
        for r in range(OTHERS)
    ]
    columns = {name: np.stack([d[name] for d in drawn], axis=1) for name in drawn[0]}
    rows = ids.guidelines.get_indexer(sample_ids.guidelines)
    return {
        r.name: (found.p_accept(r), (r.verdicts(columns) == ACCEPTED).mean(axis=1)[rows])
        for r in RULES
    }


def main(worlds=20, replicates=200):
    told = {rule.name: [] for rule in RULES}
    for seed in range(2000, 2000 + worlds):
        for name, (p, share) in world(seed, replicates).items():
            told[name].append(pd.DataFrame({"p": p, "share": share}))
        for name, tables in told.items():
            every = pd.concat(tables)
            unsure = every[every["p"].between(0.1, 0.9)]
            by_bin = unsure.groupby((unsure["p"] * 10).astype(int))
            gap = (by_bin["p"].mean() - by_bin["share"].mean()).abs()
            error = (gap * by_bin.size()).sum() / len(unsure)
            bias = (unsure["p"] - unsure["share"]).mean()
            print(
                f"{seed} {name}: {len(unsure)} unsure, error {error:.3f}, bias {bias:+.3f}",
                flush=True,
            )
        if seed == 1999 + worlds:
            print(by_bin[["p", "share"]].mean().assign(n=by_bin.size()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
