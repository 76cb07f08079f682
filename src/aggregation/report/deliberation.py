"""Deliberation: from a data frame to a constitution in one call, with every step in reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from aggregation.data.cards import Card, Shown
from aggregation.data.choices import Choices
from aggregation.data.dataset import Dataset
from aggregation.decisions.constitution import Constitution
from aggregation.decisions.rules import ALIGNED_2023, RULES, Rule
from aggregation.decisions.table import overview
from aggregation.errors import InputError
from aggregation.evidence.collect import Depth, Evidence, collect
from aggregation.evidence.minima import minima_table
from aggregation.model.fit import Fit, fit
from aggregation.model.multistart import Settings
from aggregation.model.parameters import Penalty
from aggregation.model.ratings import Ids, Ratings, encode
from aggregation.sources.guess import meanings, text_columns
from aggregation.sources.readers import as_texts, need
from aggregation.sources.tabular import cleaned


@dataclass(frozen=True, repr=False)
class Deliberation(Shown):
    """A deliberation with its constitution, and what led to it."""

    dataset: Dataset
    ratings: Ratings
    ids: Ids
    fit: Fit
    evidence: Evidence

    @property
    def constitution(self) -> Constitution:
        """Every guideline with its verdict, reasons and evidence."""
        return self.evidence.constitution

    def to_frame(self) -> pd.DataFrame:
        """One row a guideline, accepted ones first: number, verdict, reasons, topic, text, scores,
        guideline_id.
        """
        return overview(self.constitution, self.dataset)

    def users(self) -> pd.DataFrame:
        """One row a user: user_id, intercept (leniency), and a coordinate of each axis."""
        p = self.fit.parameters
        axes = {f"axis_{k}": f for k, f in enumerate(p.user_embedding.T, start=1)}
        return pd.DataFrame({"user_id": self.ids.users, "intercept": p.user_intercept, **axes})

    @property
    def plot(self) -> Plots:
        """Figures; each method returns the axes of matplotlib, to be changed or saved."""
        return Plots(self)

    def report(self, path: str | Path, *, title: str = "", question: str = "") -> Path:
        """Write the report, one HTML file that needs nothing else; return its path."""
        from aggregation import __version__
        from aggregation.report.index import index_page

        constitution = self.constitution
        page = index_page(
            *(self.dataset, self.ratings, self.ids, self.fit, constitution),
            minima_table(constitution.scores, constitution.rule, self.ids, self.fit),
            self.evidence.summary,
            run="report",
            title=title or "Constitution",
            question=question,
            version=__version__,
        )
        path = Path(path).expanduser()
        path.write_text(page, encoding="utf-8")
        return path

    def _card(self) -> Card:
        card = self.constitution._card()  # noqa: SLF001  # of the value that this one is about
        warnings = (text.removesuffix(".") for text in self.evidence.summary["warnings"])
        more = (".to_frame()", ".report(path)", ".plot.map()", ".constitution", ".evidence", ".fit")
        return Card(card.headline, card.facts, (*card.doubts, *warnings), more)


@dataclass(frozen=True)
class Plots:
    """The figures of a deliberation."""

    of: Deliberation

    def map(self) -> Axes:
        """Users and guidelines along the axis."""
        from aggregation.report import figures

        picture = figures.embedding(self.of.constitution.scores, self.of.fit.parameters)
        return picture.figure.axes[0]

    def bridging(self) -> Axes:
        """Helpful rates against intercepts, with the bounds of the rule."""
        from aggregation.report import figures

        picture = figures.bridging(self.of.constitution.scores, self.of.constitution.rule)
        return picture.figure.axes[0]


def deliberate(
    ratings: pd.DataFrame,
    *,
    user: str = "user_id",
    guideline: str = "guideline_id",
    rating: str = "rating",
    time: str | None = None,
    texts: pd.DataFrame | Mapping[object, str] | None = None,
    values: Mapping[object, float | None] | None = None,
    threshold: float | None = None,
    rule: Rule | str = ALIGNED_2023,
    penalty: Penalty | None = None,
    settings: Settings | None = None,
    depth: Depth = "quick",
    seed: int = 0,
    callback: Callable[[str], None] | None = None,
) -> Deliberation:
    """Find the guidelines that people who otherwise disagree find helpful.

    `ratings` has one rating a row: the columns `user`, `guideline`, `rating`, and `time` if the
    last rating of a pair counts by that. Ids may be numbers. `texts`: guideline -> text, or a frame
    with a column of ids and one of texts. `values`: what a rating means, 1 helpful, 0 not, None
    no rating; by default 1/0, true/false, yes/no, agree/disagree/pass and the like are known.
    `threshold`: of a scale such as stars, from which number on a rating is helpful.

    Everything is as a run does it, and deterministic in `seed`. Raises InputError.

    >>> import aggregation as ag
    >>> votes = ag.example()
    >>> found = ag.deliberate(votes, user="who", guideline="what", rating="vote")
    >>> len(found.constitution.accepted)
    8
    """
    where = Path("ratings")
    columns = {"user_id": user, "guideline_id": guideline, "value": rating, "rated_at": time}
    tables = {"ratings": as_texts(need(ratings, columns, where), where)}
    if tables["ratings"].empty:
        raise InputError("ratings: has no rows: there is nothing to learn from")
    if isinstance(rule, str):
        if rule not in RULES:
            raise InputError(f"rule {rule!r:.80}: there is only {', '.join(RULES)}")
        rule = RULES[rule]
    if texts is not None:
        tables["guidelines"] = _texts(texts, tables["ratings"]["guideline_id"])
    said = {str(word).casefold(): number for word, number in (values or {}).items()}
    if values is None:
        said = meanings(tables["ratings"]["value"], threshold, where)
    files = {name: Path(name) for name in tables}
    dataset = cleaned(tables, Choices(said), files)
    coded, ids = encode(dataset.ratings)
    settings = settings or Settings(seed=seed)
    found = fit(coded, penalty, settings)
    evidence = collect(dataset, coded, ids, found, rule, depth=depth, seed=seed, callback=callback)
    return Deliberation(dataset, coded, ids, found, evidence)


def _texts(texts: pd.DataFrame | Mapping[object, str], rated: pd.Series) -> pd.DataFrame:
    where = Path("texts")
    if not isinstance(texts, pd.DataFrame):
        texts = pd.DataFrame({"guideline_id": list(texts), "text": list(texts.values())})
    table = as_texts(texts, where)
    columns = {"topic": None, "author_id": None} | text_columns(table, rated, where)[0]
    return need(table, columns, where)


def example() -> pd.DataFrame:
    """A small simulated deliberation, as people have it: who, what, vote (yes, no or pass).

    Forty people; guidelines 0 to 7 bridge, the others divide them.
    """
    random = np.random.default_rng(1)
    who, what = np.divmod(np.arange(40 * 24), 24)
    likes = np.where(what < 8, 0.95, np.where((what < 16) == (who < 20), 0.9, 0.1))
    votes = np.where(random.random(len(who)) < likes, "yes", "no").astype(object)
    votes[random.random(len(who)) < 0.05] = "pass"
    return pd.DataFrame({"who": who, "what": [f"guideline {k}" for k in what], "vote": votes})
