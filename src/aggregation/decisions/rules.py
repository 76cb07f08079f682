"""Rules: the conditions under which a guideline is accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

CONDITIONS = {
    "min_intercept": ("intercept", "more than", 3),
    "min_ratings": ("n_ratings", "at least", 0),
    "min_helpful_rate": ("helpful_rate", "at least", 2),
}
"""Condition of a rule: the column it reads, how that is to lie, decimals to show at least."""


@dataclass(frozen=True)
class Rule:
    """When a guideline is accepted: all three conditions hold.

    Defaults: `produce_constitution` of the original notebook.
    """

    name: Literal["aligned-2023"] = "aligned-2023"
    min_intercept: float = 0.375
    """The intercept must be greater."""
    min_ratings: int = 5
    """The number of ratings must be at least this."""
    min_helpful_rate: float = 0.8
    """The helpful rate must be at least this."""

    def liked(self, scores: pd.DataFrame) -> pd.Series:
        """Which rows the number of ratings and the helpful rate alone would accept."""
        return (scores["n_ratings"] >= self.min_ratings) & (
            scores["helpful_rate"] >= self.min_helpful_rate
        )

    def __str__(self) -> str:
        return (
            f"{self.name}: intercept more than {self.min_intercept:g}, at least "
            f"{self.min_ratings} ratings, helpful rate at least {self.min_helpful_rate:g}"
        )


@dataclass(frozen=True)
class Condition:
    """One condition of a rule, as one guideline met it or not."""

    name: Literal["min_intercept", "min_ratings", "min_helpful_rate"]
    value: float
    """The guideline's own number."""
    limit: float
    holds: bool

    def __str__(self) -> str:
        column, needs, decimals = CONDITIONS[self.name]
        what = column.replace("_", " ")
        if math.isnan(self.value):
            return f"no ratings, so no {what}"
        if self.name == "min_ratings":
            plural = "" if self.value == 1 else "s"
            return f"{self.value:.0f} rating{plural}, needs at least {self.limit:.0f}"
        value = apart(self.value, self.limit, decimals)
        return f"{what} {value}, needs {needs} {self.limit:g}"


def apart(value: float, limit: float, least: int) -> str:
    """The value with as few decimals, `least` of them at least, as show on which side it lies."""
    for digits in range(least, 16):
        text = f"{value:.{digits}f}"
        if np.sign(float(text) - limit) == np.sign(value - limit):
            return text
    return repr(value)
