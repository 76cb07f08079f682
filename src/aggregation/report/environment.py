"""Environment: the templates of all pages, and how they show numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from aggregation.data.cards import many
from aggregation.data.dataset import clean_text
from aggregation.decisions.rules import COMPARISONS, Condition, Rule


def _cleaned(value: object) -> object:
    return clean_text(value) if type(value) is str else value


TEMPLATES = Environment(
    loader=PackageLoader("aggregation.report", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_cleaned,
)
"""Everything put into a page is escaped, and control characters are replaced: strangers write the
guidelines."""


def conditions_on(rule: Rule, column: str) -> list[Condition]:
    """The conditions of `rule` on one column of the scores."""
    return [c for c in rule.conditions if c.column == column]


def score_text(rule: Rule, column: str, value: float) -> str:
    """A number of the scores, on the right side of the rule's bound; – where there is none."""
    if pd.isna(value):
        return "–"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    bounds = conditions_on(rule, column)
    return bounds[0].shown(value) if bounds else f"{value:.3f}"


TEMPLATES.globals |= {"many": many, "conditions_on": conditions_on, "score_text": score_text}
TEMPLATES.filters |= {
    "needs": lambda condition: COMPARISONS[condition.comparison][1],
    "percent": lambda share: "–" if pd.isna(share) else f"{100 * share:.0f}\u00a0%",
    "thousands": "{:,}".format,
}
