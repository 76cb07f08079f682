"""Topics: the tree they form."""

from __future__ import annotations

import pandas as pd

from aggregation.errors import InputError

DEEPEST = 50
"""Topics within topics: a page shows no more, and no deliberation needs them."""


def check_depth(topics: pd.DataFrame, where: str) -> None:
    """Raise InputError where a topic lies within itself or too deep."""
    above = _parents(topics)
    for topic in above:
        depth, at = 0, topic
        while at is not None and depth <= DEEPEST:
            depth, at = depth + 1, above[at]
        if depth > DEEPEST:
            problem = f"lies within itself, or more than {DEEPEST} deep within others"
            raise InputError(f"{where}: topic {topic!r:.80} {problem}: mend its parent")


def topic_paths(topics: pd.DataFrame) -> dict[str, str]:
    """topic_id -> titles from the root down, joined by ` > `."""
    above, title = _parents(topics), dict(zip(topics["topic_id"], topics["title"], strict=True))

    def path(topic: str) -> str:
        parent = above[topic]
        return title[topic] if parent is None else f"{path(parent)} > {title[topic]}"

    return {topic: path(topic) for topic in above}


def _parents(topics: pd.DataFrame) -> dict[str, str | None]:
    pairs = zip(topics["topic_id"], topics["parent_id"], strict=True)
    return {topic: None if pd.isna(parent) else parent for topic, parent in pairs}
