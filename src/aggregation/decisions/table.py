"""The constitution as a table for people, safe to open in a spreadsheet."""

from __future__ import annotations

import pandas as pd

from aggregation.data.dataset import Dataset
from aggregation.data.topics import topic_paths
from aggregation.decisions.constitution import Constitution


def overview(constitution: Constitution, dataset: Dataset) -> pd.DataFrame:
    """All guidelines in the order of the constitution, with text, topic, verdict and reasons."""
    scores = constitution.scores
    about = dataset.guidelines.set_index("guideline_id").loc[scores["guideline_id"]]
    topics = about["topic_id"].map(topic_paths(dataset.topics)).fillna("")
    return pd.DataFrame(
        {
            "number": range(1, len(scores) + 1),
            "verdict": scores["verdict"],
            "reasons": ["; ".join(f["reason"] for f in failed) for failed in scores["failed"]],
            "topic": topics.to_numpy(),
            "text": about["text"].to_numpy(),
            "consensus_score": scores["consensus_score"],
            "helpful_rate": scores["helpful_rate"],
            "n_ratings": scores["n_ratings"],
            "intercept": scores["intercept"],
            "guideline_id": scores["guideline_id"],
        }
    )


def table(constitution: Constitution, dataset: Dataset) -> str:
    """The overview as CSV, safe to open in a spreadsheet. Numbers have six significant digits."""
    rows = overview(constitution, dataset)
    for name in ("topic", "text", "guideline_id"):
        rows[name] = rows[name].map(neutral)
    return rows.to_csv(index=False, float_format="%.6g", lineterminator="\r\n")


FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
"""With these a cell begins that a spreadsheet may run (OWASP, "CSV Injection"), full width too."""


def neutral(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would run it as a formula.

    Blanks before the first sign do not hide it.
    """
    risky = text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS)
    return "'" + text if risky else text
