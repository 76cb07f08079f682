"""The constitution as a table for people, safe to open in a spreadsheet."""

from __future__ import annotations

import re

import pandas as pd

from aggregation.data.dataset import Dataset
from aggregation.data.topics import topic_paths
from aggregation.decisions.constitution import Constitution

FORMULA = re.compile(r"[\t\r\n]|[\s\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")
"""What a spreadsheet may run: blanks, and marks that nobody sees, may come before it."""


def overview(constitution: Constitution, dataset: Dataset) -> pd.DataFrame:
    """All guidelines in the order of the constitution, with text, topic, verdict and reasons."""
    scores = constitution.scores
    about = dataset.guidelines.set_index("guideline_id").loc[scores["guideline_id"]]
    paths = topic_paths(dataset.topics)
    judged = (condition.column for condition in constitution.rule.conditions)
    evidence = (
        *("lowest_side_rate", f"p_accept_{constitution.rule.name}", "intercept_low"),
        *("intercept_high", "accounts_needed", "lowest_answer_rate"),
    )
    known = [name for name in evidence if name in scores and scores[name].notna().any()]
    first = ["consensus_score", "helpful_rate", "n_ratings", "intercept"]
    numbers = dict.fromkeys([*first, *judged, *known])
    return pd.DataFrame(
        {
            "number": range(1, len(scores) + 1),
            "verdict": scores["verdict"],
            "reasons": ["; ".join(f["reason"] for f in failed) for failed in scores["failed"]],
            "topic": pd.Series([paths.get(t, "") for t in about["topic_id"]], dtype="str"),
            "text": about["text"].to_numpy(),
            **scores[[*numbers, "guideline_id"]],
        }
    )


def table(constitution: Constitution, dataset: Dataset) -> str:
    """The overview as CSV, safe to open in a spreadsheet. Numbers have six significant digits."""
    rows = overview(constitution, dataset)
    for name in ("topic", "text", "guideline_id"):
        rows[name] = rows[name].map(neutral)
    return rows.to_csv(index=False, float_format="%.6g", lineterminator="\r\n")


def neutral(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would run it as a formula.

    See OWASP, "CSV Injection": a cell that begins with = + - @, their full-width forms, a tab, a
    carriage return or a line feed. Spreadsheets skip blanks before a formula.
    """
    return "'" + text if FORMULA.match(text) else text
