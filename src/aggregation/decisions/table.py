"""The constitution as a table for people, safe to open in a spreadsheet."""

from __future__ import annotations

import re

import pandas as pd

from aggregation.data.cards import many
from aggregation.data.dataset import Dataset
from aggregation.data.topics import topic_paths
from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ACCEPTED

FORMULA = re.compile(r"[\t\r\n]|[\s\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")
"""What a spreadsheet may run: blanks, and marks that nobody sees, may come before it."""


def numbered(rows: pd.DataFrame, constitution: Constitution) -> pd.DataFrame:
    """The rows with the numbers of guidelines in place of their ids, in `gained` and `lost`."""
    numbers = {g: n for n, g in enumerate(constitution.scores["guideline_id"], start=1)}
    lists = {name: rows[name] for name in ("gained", "lost") if name in rows}
    named = {
        name: pd.Series([sorted(numbers[g] for g in of) for of in ids], rows.index, dtype=object)
        for name, ids in lists.items()
    }
    return rows.assign(**named)


MARKUP = re.compile(r"[!-/:-@\[-`{-~]")
"""All punctuation of ASCII: Markdown lets each be escaped (CommonMark 0.31, 2.4)."""


def overview(constitution: Constitution, dataset: Dataset) -> pd.DataFrame:
    """All guidelines in the order of the constitution, with text, topic, verdict and reasons."""
    scores = constitution.scores
    about = dataset.guidelines.set_index("guideline_id").loc[scores["guideline_id"]]
    paths = topic_paths(dataset.topics)
    judged = (condition.column for condition in constitution.rule.conditions)
    evidence = (
        *("confidence", "helpful_rate_larger", "helpful_rate_smaller", "gap"),
        *("helpful_rate_smaller_low", "helpful_rate_smaller_high"),
        *("n_ratings_larger", "n_ratings_smaller"),
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


def as_markdown(constitution: Constitution, dataset: Dataset, title: str = "") -> str:
    """The accepted guidelines as Markdown, by topic; nothing that a guideline holds is markup.

    `title` falls back to the source's own.
    """
    rows = overview(constitution, dataset)
    rows = rows[rows["verdict"] == ACCEPTED]
    lines = [f"# {_plain(title or dataset.about.title or 'Constitution')}", ""]
    for topic, of in rows.groupby("topic"):
        lines += [f"## {_plain(str(topic))}", ""] if topic else []
        for text, helpful, n in zip(of["text"], of["helpful_rate"], of["n_ratings"], strict=True):
            lines.append(f"- {_plain(text)} ({100 * helpful:.0f} % helpful of {many(n, 'rating')})")
        lines.append("")
    return "\n".join(lines if len(rows) else [*lines, "No guideline was accepted.", ""])


def _plain(text: str) -> str:
    """The text on one line, with all that Markdown would take for markup escaped."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def neutral(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would run it as a formula.

    See OWASP, "CSV Injection": a cell that begins with = + - @, their full-width forms, a tab, a
    carriage return or a line feed. Spreadsheets skip blanks before a formula.
    """
    return "'" + text if FORMULA.match(text) else text
