"""How far an acceptance can be trusted, in a word."""

import pandas as pd
import pytest

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ALIGNED_2023
from aggregation.evidence.confidence import confidence


def words(two=True, **columns):
    rows = {"verdict": ["accepted"], "n_ratings_smaller": [5], "accepted_in": [1.0]}
    rows["n_ratings_larger"] = [5]
    table = pd.DataFrame(rows | {name: [value] for name, value in columns.items()})
    return confidence(Constitution(ALIGNED_2023, table), two=two).tolist()


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({}, "clear"),
        ({"accepted_in": 0.99}, "close"),
        ({"accepted_in": 0.99, "p_accept_aligned-2023": 0.75}, "clear"),  # the chance counts more
        ({"p_accept_aligned-2023": 0.74}, "close"),
        ({"p_accept_robust": 0.1}, "clear"),  # of another rule
        ({"n_ratings_smaller": 4}, "thin"),
        ({"n_ratings_larger": 4}, "thin"),
        ({"n_ratings_smaller": 4, "accepted_in": 0.5}, "thin"),
        ({"verdict": "undecided", "accepted_in": 0.5}, ""),
        ({"verdict": "rejected"}, ""),
    ],
)
def test_each_word_has_its_bounds(columns, word):
    assert words(**columns) == [word]


def test_nothing_is_thin_where_there_are_no_two_sides():
    assert words(two=False, n_ratings_smaller=0) == ["clear"]
