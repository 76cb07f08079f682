"""Dataset: the tables of a deliberation, and how many rows were left out or merged, and why.

For each table, read + added - dropped - merged = kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aggregation.data.cards import Card, Shown, many

if TYPE_CHECKING:  # a command that only checks files does not wait for pandas
    import pandas as pd

TABLES = {
    "ratings": {"user_id": "str", "guideline_id": "str", "helpful": "float64", "rated_at": "time"},
    "guidelines": dict.fromkeys(("guideline_id", "text", "topic_id", "author_id"), "str")
    | {"intercept": "float64", "embedding": "list"},
    "users": {"user_id": "str", "intercept": "float64", "embedding": "list"},
    "topics": {"topic_id": "str", "title": "str", "description": "str", "parent_id": "str"},
    "answers": dict.fromkeys(("user_id", "question", "answer"), "str"),
}
"""Columns of each table and what they hold; all but ids, text, helpful and answers may be missing.
`answers` are what users declared of themselves, such as their age group."""

CODED = ("user_id", "guideline_id")
"""Columns of `ratings` that are categories, those that it has, sorted as text (see `categories`):
a number for each rating, not a text."""

HELPFUL = {"helpful": 1.0, "not_helpful": 0.0}
"""The two words of the platform and their numbers."""


Action = Literal["read", "added", "dropped", "merged", "kept", "note"]
"""What became of rows: `note` counts rows that stay."""


@dataclass(frozen=True)
class Count:
    """How many rows of a table met one fate, and why."""

    table: str
    action: Action
    reason: str
    n: int


@dataclass(frozen=True)
class About:
    """What is known of a deliberation besides its tables."""

    title: str = ""
    description: str = ""
    origin: str = ""
    """Where the data comes from, in words for the report."""
    simulated: bool = False


CARD_ACTIONS, MAX_CARD_COUNTS = ("dropped", "merged", "note", "added"), 6
"""Which counts a card shows, in this order, and how many of them at most."""


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """A deliberation. Frames hold the columns of `TABLES`; nothing changes them."""

    ratings: pd.DataFrame
    guidelines: pd.DataFrame
    users: pd.DataFrame
    topics: pd.DataFrame
    answers: pd.DataFrame
    mu: float | None = None
    """Global intercept of the last published model, where one is known."""
    about: About = field(default_factory=About)
    counts: tuple[Count, ...] = ()

    def counts_table(self) -> pd.DataFrame:
        """The counts as a frame: table, action, reason, n."""
        import pandas as pd

        return pd.DataFrame([vars(c) for c in self.counts], columns=list(Count.__annotations__))

    def _card(self) -> Card:
        ratings, about = self.ratings, self.about
        raters, rated = ratings["user_id"].nunique(), ratings["guideline_id"].nunique()
        helpful = f"{ratings['helpful'].mean():.0%} of the ratings" if len(ratings) else ""
        known = ratings["rated_at"].dropna()
        idle = "{:,}, {:,} of them without ratings"
        facts = (
            ("title", about.title),
            ("source", about.origin),
            ("helpful", helpful),
            ("users", idle.format(len(self.users), len(self.users) - raters)),
            ("guidelines", idle.format(len(self.guidelines), len(self.guidelines) - rated)),
            ("topics", f"{len(self.topics):,}"),
            ("rated", f"{known.min():%Y-%m-%d} to {known.max():%Y-%m-%d}" if len(known) else ""),
            ("earlier model", "" if self.mu is None else f"there is one, mu {self.mu:.3f}"),
            *self._fates(),
        )
        return Card(
            f"Dataset: {many(len(ratings), 'rating')} by {many(raters, 'user')} of "
            f"{many(rated, 'guideline')}",
            tuple((name, value) for name, value in facts if value),
            ("simulated: nobody said any of this",) if about.simulated else (),
            (".ratings", ".guidelines", ".users", ".topics", ".answers", ".counts_table()"),
        )

    def _fates(self) -> list[tuple[str, str]]:
        """What became of rows that are not here as they were read, for the card."""
        told = [c for action in CARD_ACTIONS for c in self.counts if c.action == action and c.n]
        fates = [(c.action, f"{c.n:,} {c.table}: {c.reason}") for c in told[:MAX_CARD_COUNTS]]
        if len(told) > MAX_CARD_COUNTS:
            fates.append(("and", f"{len(told) - MAX_CARD_COUNTS} more, see counts_table()"))
        lost = any(c.action in ("dropped", "merged") for c in told)
        return fates if lost else [("dropped", "nothing" if self.counts else "unknown"), *fates]


def frame(table: str, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """A frame with exactly the columns of `table`; missing cells are null. Texts are cleaned."""
    import pandas as pd

    raw = pd.DataFrame(rows, dtype=object).reindex(columns=list(TABLES[table]))
    return pd.DataFrame({name: column(raw[name], kind) for name, kind in TABLES[table].items()})


def column(values: Iterable[object], kind: str) -> pd.Series:
    """One column of the given kind of `TABLES`; None is null."""
    import pandas as pd

    raw = pd.Series(list(values), dtype=object)
    if kind == "str":
        return raw.map(lambda value: clean_text(str(value)), na_action="ignore").astype("str")
    if kind == "list":
        return raw.where(raw.notna(), None)
    if kind == "time":
        return pd.to_datetime(raw, utc=True).astype("datetime64[ms, UTC]")
    return raw.astype("float64")


UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Controls without meaning in a text, and halves of surrogate pairs, which no file can hold."""


def clean_text(text: str) -> str:
    """The text with characters that cannot be shown or stored replaced by U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)
