"""Environment: the templates of all pages, and how they show numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from aggregation.data.cards import many
from aggregation.decisions.rules import Condition, Rule

TEMPLATES = Environment(
    loader=PackageLoader("aggregation.report", "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Everything put into a page is escaped: strangers write the guidelines."""
TEMPLATES.globals["many"] = many
TEMPLATES.filters["percent"] = lambda share: f"{100 * share:.0f} %"
TEMPLATES.filters["thousands"] = "{:,}".format


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
