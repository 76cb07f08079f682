"""Warnings: said where nothing can be found, and not elsewhere."""

from dataclasses import replace

import pandas as pd
import pytest

from aggregation.data.dataset import Count
from aggregation.evidence.warnings import warnings


def like(dataset, ratings):
    return replace(dataset, ratings=pd.DataFrame(ratings), counts=())


def rated(users, guidelines, helpful=lambda u, g: float((u + g) % 2)):
    rows = [(f"u{u}", f"g{g}", helpful(u, g)) for u in range(users) for g in range(guidelines)]
    return pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])


def test_a_deliberation_in_which_something_can_be_found_has_none(small):
    assert warnings(small.dataset, small.fit.n_blocks, "two sides") == []


@pytest.mark.parametrize(
    ("ratings", "given", "says"),
    [
        (rated(1, 1), {}, "Only 1 person has rated"),
        (rated(9, 8), {}, "Only 9 people have rated"),
        (rated(20, 8, lambda *_: 1.0), {}, "Every rating is the same"),
        (rated(20, 8), {"division": "none"}, "hardly any division"),
        (rated(20, 8), {"n_blocks": 2}, "fall into 2 blocks"),
        (rated(20, 8), {"left_out": ["resamples"]}, "What other users would decide"),
        (rated(20, 8), {"left_out": ["cold refits"]}, "began at the fit's own minima alone"),
        (rated(20, 8), {"left_out": ["pairs of users"]}, "too many users to compare each pair"),
    ],
)
def test_each_reason_is_told(small, ratings, given, says):
    assert [says in told for told in warnings(like(small.dataset, ratings), **given)].count(
        True
    ) == 1


def test_guidelines_with_few_ratings_are_counted_where_they_are_most(small):
    table = pd.concat([rated(20, 2), rated(3, 9)]).drop_duplicates(["user_id", "guideline_id"])
    (told,) = warnings(like(small.dataset, table))
    assert told.startswith("7 of 9 guidelines have fewer than 5 ratings")
    most = pd.concat([rated(20, 5), rated(3, 9)]).drop_duplicates(["user_id", "guideline_id"])
    assert warnings(like(small.dataset, most)) == []


def test_ratings_that_were_left_out_are_told_by_reason_unless_they_were_passes(small):
    counts = (
        Count("ratings", "read", "r.csv", 1000),
        Count("ratings", "dropped", "no user_id", 20),
        Count("ratings", "dropped", "the guideline is not among the guidelines", 40),
        Count("ratings", "dropped", "value 'pass' is left out", 400),
    )
    dataset = replace(like(small.dataset, rated(20, 8)), counts=counts)
    (told,) = warnings(dataset)
    assert told == (
        "60 of 1,000 ratings were left out (40: the guideline is not among the guidelines; "
        "20: no user_id)."
    )
    assert warnings(replace(dataset, counts=(*counts[:2], counts[3]))) == []
