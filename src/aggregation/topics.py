"""Topics: how deep they lie within each other."""

from __future__ import annotations

from aggregation.errors import InputError

DEEPEST = 50
"""Topics within topics: a page shows no more, and no deliberation needs them."""


def check_depth(above: dict[str, str | None], where: str) -> None:
    """Raise InputError where a topic lies within itself or too deep. `above`: topic -> parent."""
    depth: dict[str | None, int] = {None: 0}
    for start in above:
        below: dict[str, None] = {}  # from `start` upwards
        at = start
        while at not in depth:
            if at in below:
                raise InputError(
                    f"{where}: topic {start!r} lies within itself (parent_id {at!r}): "
                    "mend its parent"
                )
            below[at] = None
            at = above[at]
        for topic in reversed(below):
            depth[topic] = depth[above[topic]] + 1
    if (deepest := max(depth.values())) > DEEPEST:
        topic = next(topic for topic, n in depth.items() if n > DEEPEST)
        raise InputError(
            f"{where}: topics lie {deepest:,} deep within each other, {DEEPEST} at most can be "
            f"shown: mend the parent of topic {topic!r}"
        )
