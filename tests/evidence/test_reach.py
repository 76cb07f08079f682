"""Reach: by hand."""

import numpy as np
import pandas as pd
import pytest

from aggregation import ALIGNED_2023, encode, select
from aggregation.evidence.groups import Groups
from aggregation.evidence.reach import accepted_in, reach


def judged(rows):
    names = ["guideline_id", "n_ratings", "helpful_rate", "intercept"]
    return select(pd.DataFrame(rows, columns=names).assign(consensus_score=0.5), ALIGNED_2023)


def test_shares_are_of_those_who_rated_an_accepted_one():
    rows = [("a", "x", 1), ("a", "y", 1), ("a", "z", 1), ("b", "x", 1), ("b", "y", 0)]
    rows += [("b", "z", 0), ("c", "x", 0), ("d", "w", 1)]
    table = pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]).astype(
        {"helpful": float}
    )
    ratings, ids = encode(table)
    constitution = judged([(g, 9, 0.9, 0.5) for g in "xyz"] + [("w", 9, 0.5, 0.1)])
    found = reach(constitution, ratings, ids, Groups(np.full(4, -1), (), 0.0))
    assert found["n_users"] == 3
    assert found["at_least_one"] == pytest.approx(2 / 3)
    assert found["at_least_three"] == found["at_least_half"] == pytest.approx(1 / 3)
    assert found["left_out"] == 0


@pytest.mark.parametrize(("accepted", "share"), [("x", 0.25), ("y", 0.0)])
def test_a_group_is_left_out_if_nothing_that_it_agrees_on_is_accepted(accepted, share):
    users = [f"u{k:02d}" for k in range(40)]
    rows = [(u, "x", float(k < 30)) for k, u in enumerate(users)]
    rows += [(u, "y", float(k >= 30)) for k, u in enumerate(users)]
    ratings, ids = encode(pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"]))
    groups = Groups((np.arange(40) >= 30).astype(int), (30, 10), 0.9)
    constitution = judged([(g, 40, 0.9, 0.5 if g == accepted else 0.1) for g in "xy"])
    found = reach(constitution, ratings, ids, groups)
    assert found["left_out"] == pytest.approx(share if accepted == "x" else 0.75)


def test_what_every_variant_accepts_is_never_in_doubt():
    constitution = judged([("1", 9, 0.95, 0.6), ("2", 9, 0.95, 0.38), ("3", 9, 0.2, 0.0)])
    assert accepted_in(constitution).tolist() == [1.0, pytest.approx(2 / 3), 0.0]
    scores = constitution.scores.assign(community_notes_intercept=[0.6, 0.1, 0.0])
    both = accepted_in(type(constitution)(constitution.rule, scores))
    assert both.tolist() == [1.0, pytest.approx(1 / 3), 0.0]
