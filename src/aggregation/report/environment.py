"""Environment: the templates of all pages, and how they show numbers."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from aggregation.data.cards import many
from aggregation.data.dataset import clean_text
from aggregation.decisions.rules import Condition, Rule
from aggregation.report.language import Language
from aggregation.report.texts import marked


def _cleaned(value: object) -> object:
    return clean_text(value) if type(value) is str else value


@cache
def templates(code: str = "en") -> Environment:
    """The templates in a language.

    Everything put into a page is escaped, and control characters are replaced: strangers write
    the guidelines.
    """
    language = Language(code)
    made = Environment(
        loader=PackageLoader("aggregation.report", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_cleaned,
        extensions=["jinja2.ext.i18n"],
    )
    words = language.catalogue
    made.install_gettext_translations(words, newstyle=True)  # type: ignore[attr-defined]
    made.policies["ext.i18n.trimmed"] = True
    made.globals |= {"t": language, "many": many, "score_text": score_text}
    made.filters |= {
        "percent": language.percent,
        "points": language.points,
        "marked": marked,
        "thousands": language.number,
        "decimal": language.decimal,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
    }
    return made


@cache
def sorting() -> dict[str, str]:
    """The script that sorts tables, and the hash by which a page allows it alone."""
    script = files("aggregation.report").joinpath("templates/tables.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {"script": Markup(script), "script_hash": digest}  # noqa: S704  # our own


def conditions_on(rule: Rule, column: str) -> list[Condition]:
    """The conditions of `rule` on one column of the scores."""
    return [c for c in rule.conditions if c.column == column]


def score_text(rule: Rule, column: str, value: float) -> str:
    """A number of the scores, on the right side of the rule's bound; – where there is none."""
    if pd.isna(value):
        return "–"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    bounds = conditions_on(rule, column)
    return bounds[0].shown(value) if bounds else f"{value:.3f}"
