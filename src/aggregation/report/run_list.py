"""Run list: a page with all runs of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aggregation.report.environment import sorting, templates

HEADING = "<h1>Runs</h1>"
"""Part of every such page, by which it is recognised."""


def run_list_page(rows: Iterable[Mapping[str, Any]]) -> str:
    """The page: one HTML file, the runs in the order given.

    Each row: run, title, state, started (texts); link (to its report, "" where there is none);
    failed (a list of stage and link for each notebook that failed); simulated, unsettled (bool);
    n_ratings, n_users, accepted, undecided, rejected, loss (numbers, None where not known).
    """
    page = templates().get_template("run_list.html")
    return page.render(title="Runs", runs=list(rows), **sorting())
