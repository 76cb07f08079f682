"""Difference: the comparison of two runs as a page."""

from __future__ import annotations

from typing import Any

import pandas as pd

from aggregation import __version__
from aggregation.data.dataset import clean_text
from aggregation.decisions.rules import Rule
from aggregation.report.environment import TEMPLATES
from aggregation.verify.compare import Comparison, Pair

LONGEST = 600
"""Characters of a text that the page shows where the verdict changed."""


def difference_page(comparison: Comparison) -> str:
    """The page: one HTML file that needs nothing else, and names no participant."""
    rows = [_row(row, comparison.rules) for row in comparison.guidelines.to_dict("records")]
    groups = [
        {"title": title, "change": change, "rows": [r for r in rows if r["change"] == change]}
        for change, title in Comparison.HEADINGS.items()
        if change != "same"
    ]
    return TEMPLATES.get_template("difference.html").render(
        title=f"What changed from {comparison.before} to {comparison.after}",
        simulated_runs=comparison.simulated,
        comparison=comparison,
        result=comparison.result(),
        altered=[clean_text(file) for file in comparison.altered],
        kept=comparison.kept(),
        groups=[group for group in groups if group["rows"]],
        rows=rows,
        shown={
            name: [_pair(pair) for pair in getattr(comparison, name) or ()]
            for name in ("parameters", "versions", "fit")
        },
        version=__version__,
    )


def _pair(pair: Pair) -> dict[str, Any]:
    before, after = map(clean_text, pair.shown())
    return {"key": clean_text(pair.key), "before": before, "after": after, "same": pair.same}


def _row(row: dict[Any, Any], rules: tuple[Rule, Rule]) -> dict[str, Any]:
    """A guideline with its numbers in words: each on the right side of its limit."""
    text = clean_text(row["text"])
    told = row | {
        "id": clean_text(row["guideline_id"]),
        "text": text[:LONGEST] or "(no text)",
        "text_before": clean_text(row["text_before"])[:LONGEST],
        "cut": len(text) if len(text) > LONGEST else 0,
        "why": [
            sentence.replace("->", "→")
            for sentence in row["why"]
            if sentence not in Comparison.HEADINGS
        ],
    }
    for side, rule in zip(("before", "after"), rules, strict=True):
        for c in rule.conditions:
            value = row[f"{c.column}_{side}"]
            known = "–" if pd.isna(value) else c.shown(value) if c.decimals else f"{value:,}"
            told[f"{c.column}_{side}"] = known
        consensus = row[f"consensus_score_{side}"]
        told[f"consensus_score_{side}"] = "–" if pd.isna(consensus) else f"{consensus:.3f}"
    return told
