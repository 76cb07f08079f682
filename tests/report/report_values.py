"""Values of a report with some of them changed, and the words of a page."""

import re
from html import unescape
from types import SimpleNamespace

from aggregation.decisions.constitution import select


def text_of(page):
    """The words of a page, as they are read."""
    body = re.sub("<(style|math|script|title).*?</\\1>", "", page, flags=re.DOTALL)
    words = re.sub("<[^>]*>", " ", body).replace("\u00a0", " ").split()
    return unescape(" ".join(words)).replace(" .", ".").replace(" ,", ",")


def fit_like(fit, **changes):
    """What the page reads of a fit, with some of it changed."""
    names = ("method", "parameters", "starts", "warm_start", "objective", "kkt_residual")
    names += ("converged", "settled", "penalty", "n_blocks")
    return SimpleNamespace(**{name: getattr(fit, name) for name in names} | changes)


def judged(values, rule, **columns):
    """The constitution by another rule, or by other numbers."""
    return select(values["constitution"].scores.assign(**columns), rule)
