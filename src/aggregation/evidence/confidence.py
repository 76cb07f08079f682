"""Confidence: how far the acceptance of a guideline can be trusted, in a word."""

from __future__ import annotations

import numpy as np
import pandas as pd

from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED

CLEAR, CLOSE, THIN = "clear", "close", "thin"

FEW_RATERS = 5
"""With fewer people of a side, what that side thinks is hardly known."""

LIKELY = 0.75
"""From this chance to be accepted again on, a decision is not close."""


def confidence(constitution: Constitution, *, two: bool) -> pd.Series:
    """For each row of the scores: thin, close or clear; empty where it is not accepted.

    thin: fewer than 5 people of one side rated it (`two`: there are two sides).
    close: the chance that it is accepted again is below 75 %; where that is not known, a variant
    of the rule would not accept it (`accepted_in` below 1). clear: neither.
    """
    scores = constitution.scores
    p = scores.get(f"p_accept_{constitution.rule.name}")
    close = scores["accepted_in"] < 1 if p is None else p < LIKELY
    raters = scores[["n_ratings_smaller", "n_ratings_larger"]].min(axis=1)
    thin = (raters < FEW_RATERS) & two
    words = np.select([scores["verdict"] != ACCEPTED, thin, close], ["", THIN, CLOSE], CLEAR)
    return pd.Series(words, scores.index, dtype="str")
