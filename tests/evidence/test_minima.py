"""Every minimum says what it would accept."""

import numpy as np
import pandas as pd

from aggregation import ALIGNED_2023, Fit, Ids, Parameters, Penalty, minima_table
from aggregation.model.multistart import Found, Minimum


def test_minima_say_what_they_would_accept_besides_and_not():
    ids = Ids(pd.Index(["u"]), pd.Index(["a", "b", "c"]))
    none, some = np.zeros((3, 1)), np.zeros((1, 1))
    minima = tuple(
        Minimum(loss, 0.0, True, starts, Parameters(0.0, some[0], some, np.array(level), none))
        for loss, starts, level in ((0.1, 3, [0.5, 0.5, 0.1]), (0.2, 0, [0.5, 0.1, 0.4]))
    )
    found = Found(minima, 2, (), False, 0, 0, np.zeros((1, 1)), 0, False)
    fit = Fit(**vars(found), method="alternating", penalty=Penalty(), balance=None, n_blocks=1)
    scores = pd.DataFrame(
        {
            "guideline_id": ["d", "c", "b", "a"],
            "n_ratings": [0, 9, 9, 9],
            "helpful_rate": [np.nan, 0.9, 0.9, 0.9],
            "intercept": [np.nan, 0.1, 0.5, 0.5],
            "consensus_score": [np.nan, 0.8, 0.9, 0.9],
        }
    )
    assert minima_table(scores, ALIGNED_2023, ids, fit).to_dict("records") == [
        {"minimum": 1, "loss": 0.1, "starts": 3, "accepted": 2, "gained": [], "lost": []},
        {"minimum": 2, "loss": 0.2, "starts": 0, "accepted": 2, "gained": ["c"], "lost": ["b"]},
    ]
