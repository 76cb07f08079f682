"""Demographics: the section of the report that says who took part, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from aggregation.data.suppression import MIN_CELL_SIZE


def demographics_section(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What templates/demographics.html shows of demographics/counts.json.

    `counts` are the records of `aggregation.demographics.counts`.
    """
    people, rest = counts[0]["n"], counts[1:]
    categories = [
        (name, list(rows)) for name, rows in groupby(rest, key=lambda row: row["category"])
    ]
    return {
        "least": MIN_CELL_SIZE,
        "people": people,
        "n_held": sum(row["suppressed"] for row in rest if row["value"]),
        "hidden": [name for name, rows in categories if not rows[0]["value"]],
        "categories": [(name, rows) for name, rows in categories if rows[0]["value"]],
    }
