"""Worlds: the deliberations that are measured, real and simulated."""

import os
from pathlib import Path

import numpy as np

from aggregation import Ids, Ratings, encode, read, sections

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("AGGREGATION_DATA", HERE.parents[1] / "shared" / "data")).resolve()

LOWEST = {
    # deliberation (moderation all): lowest loss known before, the bar
    "scoop-hivemind.taxes": 0.165281,
    "brexit-consensus": 0.142271,
    "london.youth.policing": 0.143624,
    "bg2050-volunteers": 0.120184,
    "scoop-hivemind.ubi": 0.146675,
    "vtaiwan.uberx": 0.152672,
}


def real(name: str) -> tuple[Ratings, Ids]:
    """A real deliberation, every statement that was voted on."""
    source = {"kind": "polis", "path": str(DATA / "polis" / name), "moderation": "all"}
    given = sections(source=source | {"meta": "keep"}, ratings={})
    return encode(read(given.source, given.ratings).ratings)


def simulated(users: int, guidelines: int, ratings: int, seed: int = 0) -> Ratings:
    """A planted world: one axis, leniency, quality; activity and popularity are skewed.

    About `ratings` ratings (repeated pairs fall out), made user by user in little memory: ids are
    int32 and ratings float16.
    """
    random = np.random.default_rng(seed)
    activity = random.gamma(2.0, size=users)
    count = np.minimum(random.poisson(activity / activity.sum() * ratings), guidelines // 2)
    leniency, position = random.normal(0, 0.5, users), random.choice([-1.0, 1.0], users)
    position = position * random.gamma(4.0, 0.35, users)
    quality, slope = random.normal(0.8, 1.0, guidelines), random.normal(0, 1.2, guidelines)
    user = np.empty(int(count.sum()), np.int32)
    guideline, helpful = np.empty_like(user), np.empty(len(user), np.float16)
    filled = 0
    for at in range(0, users, 10_000):
        who = np.repeat(np.arange(at, min(at + 10_000, users)), count[at : at + 10_000])
        which = (guidelines * random.random(len(who)) ** 1.5).astype(np.int64)
        key = np.unique(who * guidelines + which)
        who, which = key // guidelines, key % guidelines
        logit = quality[which] + leniency[who] + position[who] * slope[which]
        here = slice(filled, filled + len(who))
        user[here], guideline[here] = who, which
        helpful[here] = random.random(len(who)) < 1 / (1 + np.exp(-logit))
        filled += len(who)
    return Ratings(user[:filled], guideline[:filled], helpful[:filled], users, guidelines)
