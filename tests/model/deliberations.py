"""Small deliberations and short settings for the tests of the model.

Each shape of the data is compiled anew, about three seconds, so tests share few shapes.
"""

import signal
from contextlib import contextmanager

import numpy as np
import pandas as pd

from aggregation import Ratings, Settings, World, encode, loss, simulate


def one_descent(**changes):
    return Settings(**({"starts": 1, "max_starts": 1, "moves": False} | changes))


def simulated_table(seed, users):
    """Simulated ratings as a table."""
    table = pd.DataFrame(simulate(seed, World(users)).export["ratings"])
    helpful = (table["rating"] == "helpful").astype(float)
    return pd.DataFrame(
        {"user_id": table["authorId"], "guideline_id": table["guidelineId"], "helpful": helpful}
    )


def simulated(seed=3, users=150):
    """Simulated ratings, and their ids."""
    return encode(simulated_table(seed, users))


def dense(helpful):
    """Every user rates every guideline: [users, guidelines]."""
    helpful = np.asarray(helpful, float)
    user, guideline = (x.ravel().astype(np.int32) for x in np.indices(helpful.shape))
    return Ratings(user, guideline, helpful.ravel(), *helpful.shape)


def lowest_nearby(p, ratings, penalty, tries=40, step=1e-3):
    """The lowest loss when one number of the parameters moves by `step`."""
    random, losses = np.random.default_rng(0), []
    fields = vars(p)
    for name in list(fields)[1:]:
        for _ in range(tries):
            at = tuple(random.integers(0, size) for size in fields[name].shape)
            for sign in (1, -1):
                moved = fields[name].copy()
                moved[at] += sign * step
                losses.append(float(loss(type(p)(**(fields | {name: moved})), ratings, penalty)))
    return min(losses)


@contextmanager
def at_most(seconds):
    """Ends what runs inside with TimeoutError if it does not end by itself."""

    def late(*_):
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
