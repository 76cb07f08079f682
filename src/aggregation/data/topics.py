"""Topics: how deep they lie within each other."""

from __future__ import annotations

import pandas as pd

from aggregation.errors import InputError

DEEPEST = 50
"""Topics within topics: a page shows no more, and no deliberation needs them."""


def check_depth(above: dict[str, str | None], where: str) -> None:
    """Raise InputError where a topic lies within itself or too deep. `above`: topic -> parent."""
    for topic in above:
        way = [topic]  # from the topic upwards
        while (parent := above[way[-1]]) is not None:
            if parent in way:
                raise InputError(
                    f"{where}: topic {parent!r} lies within itself (parent_id {above[parent]!r}): "
                    "mend its parent"
                )
            way.append(parent)
            if len(way) > DEEPEST:
                raise InputError(
                    f"{where}: topic {topic!r} lies more than {DEEPEST} deep within others, which "
                    "no page can show: mend its parent"
                )


def topic_paths(topics: pd.DataFrame) -> dict[str, str]:
    """topic_id -> titles from the root down, joined by ` > `."""
    above = dict(zip(topics["topic_id"], topics["parent_id"], strict=True))
    title = dict(zip(topics["topic_id"], topics["title"], strict=True))

    def path(topic: str) -> str:
        parent = above[topic]
        return title[topic] if pd.isna(parent) else f"{path(parent)} > {title[topic]}"

    return {topic: path(topic) for topic in above}
