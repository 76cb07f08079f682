"""Comparison: what differs between two runs, as a page."""

from __future__ import annotations

from typing import Any

from aggregation.report.environment import templates


def comparison_page(comparison: Any, version: str = "") -> str:
    """The page: one HTML file that needs nothing else, and names no participant.

    `comparison`: a `verify.compare.Comparison`. `version`: of this package.
    """
    return (
        templates()
        .get_template("comparison.html")
        .render(
            title=f"What changed from {comparison.before} to {comparison.after}",
            comparison=comparison,
            guidelines=comparison.guidelines.to_dict("records"),
            version=version,
        )
    )
