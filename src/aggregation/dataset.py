"""Dataset: a deliberation's tables as read, and how raw tables become one.

Every step that leaves something out or joins rows together is counted; for each table,
read + added - dropped - merged = kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from aggregation.cards import Card, Shown, many
from aggregation.errors import InputError
from aggregation.topics import check_depth

TABLES = {
    "ratings": {"user_id": "str", "guideline_id": "str", "helpful": "float64", "rated_at": "time"},
    "guidelines": {
        "guideline_id": "str",
        "text": "str",
        "topic_id": "str",
        "author_id": "str",
        "intercept": "float64",
        "embedding": "list",
    },
    "users": {"user_id": "str", "intercept": "float64", "embedding": "list"},
    "topics": {"topic_id": "str", "title": "str", "description": "str", "parent_id": "str"},
}
"""Columns of each table and what they hold; all but ids, text and helpful may be missing."""

HELPFUL = {"helpful": 1.0, "not_helpful": 0.0}
"""The two words of the platform and their numbers."""


@dataclass(frozen=True)
class Count:
    """How many rows of a table met one fate, and why."""

    table: str
    action: Literal["read", "added", "dropped", "merged", "kept", "note"]
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


TOLD, MOST_TOLD = ("dropped", "merged", "note", "added"), 6
"""What a card tells of the counts, in this order, and how many of them at most."""


@dataclass(frozen=True, repr=False)
class Dataset(Shown):
    """A deliberation. Frames hold the columns of `TABLES`; nothing changes them."""

    ratings: pd.DataFrame
    guidelines: pd.DataFrame
    users: pd.DataFrame
    topics: pd.DataFrame
    mu: float | None = None
    """Global intercept of the last published model, where one is known."""
    about: About = field(default_factory=About)
    counts: tuple[Count, ...] = ()

    def counts_table(self) -> pd.DataFrame:
        """The counts as a frame: table, action, reason, n."""
        return pd.DataFrame([vars(c) for c in self.counts], columns=list(Count.__annotations__))

    def _card(self) -> Card:
        ratings, about = self.ratings, self.about
        raters, rated = ratings["user_id"].nunique(), ratings["guideline_id"].nunique()
        facts = [("title", about.title), ("source", about.origin)]
        if len(ratings):
            facts.append(("helpful", f"{ratings['helpful'].mean():.0%} of the ratings"))
        for name, table, active in (
            ("users", self.users, raters),
            ("guidelines", self.guidelines, rated),
        ):
            idle = f"{len(table) - active:,} of them without ratings"
            facts.append((name, f"{len(table):,}, {idle}"))
        facts += [
            ("topics", f"{len(self.topics):,}"),
            ("rated", _period(ratings["rated_at"])),
            ("earlier model", "" if self.mu is None else f"there is one, mu {self.mu:.3f}"),
            *self._fates(),
        ]
        return Card(
            f"Dataset: {many(len(ratings), 'rating')} by {many(raters, 'user')} of "
            f"{many(rated, 'guideline')}",
            tuple((name, value) for name, value in facts if value),
            ("simulated: nobody said any of this",) if about.simulated else (),
            (".ratings", ".guidelines", ".users", ".topics", ".counts_table()"),
        )

    def _fates(self) -> list[tuple[str, str]]:
        """What became of rows that are not here as they were read, for the card."""
        told = [c for action in TOLD for c in self.counts if c.action == action and c.n]
        fates = [(c.action, f"{c.n:,} {c.table}: {c.reason}") for c in told[:MOST_TOLD]]
        if len(told) > MOST_TOLD:
            fates.append(("and", f"{len(told) - MOST_TOLD} more, see counts_table()"))
        lost = any(c.action in ("dropped", "merged") for c in told)
        return fates if lost else [("dropped", "nothing" if self.counts else "unknown"), *fates]


@dataclass(frozen=True)
class Choices:
    """What to do with raw ratings. `values` maps the source's words to a number or None (drop)."""

    values: Mapping[str, float | None]
    duplicates: Literal["last", "first", "error"] = "last"
    self_ratings: Literal["keep", "drop"] = "keep"
    min_per_user: int = 1
    min_per_guideline: int = 1


def frame(table: str, rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """A frame with exactly the columns of `table`; missing cells are null. Texts are cleaned."""
    columns = TABLES[table]
    cells = {name: [] for name in columns}
    for row in rows:
        for name in columns:
            cells[name].append(row.get(name))
    return pd.DataFrame({name: column(values, columns[name]) for name, values in cells.items()})


def column(values: Iterable[object], kind: str) -> pd.Series:
    """One column of the given kind of `TABLES`; None is null."""
    if kind == "str":
        return pd.Series([None if v is None else clean_text(str(v)) for v in values], dtype="str")
    if kind == "time":
        return pd.to_datetime(pd.Series(list(values), dtype=object), utc=True).astype(
            "datetime64[ms, UTC]"
        )
    return pd.Series(list(values), dtype="float64" if kind == "float64" else object)


UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Controls without meaning in a text, and halves of surrogate pairs, which no file can hold."""


def clean_text(text: str) -> str:
    """The text with characters that cannot be shown or stored replaced by U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)


def build(
    ratings: pd.DataFrame,
    guidelines: pd.DataFrame,
    users: pd.DataFrame,
    topics: pd.DataFrame,
    choices: Choices,
    *,
    where: str,
    files: Mapping[str, str] | None = None,
    mu: float | None = None,
    about: About | None = None,
    counts: Iterable[Count] = (),
) -> Dataset:
    """A Dataset from raw tables.

    `ratings` has the columns user_id, guideline_id, value (the source's own word; null or blank:
    none given), rated_at, in the order of the source; the others are as in `TABLES`. `counts` say
    what the source read and what it has left out already. `where` names the source in messages,
    `files` those tables that have a file of their own.

    Raises InputError, naming the file, the place and the remedy.
    """
    book = _Book(list(counts))
    at = {name: (files or {}).get(name, where) for name in TABLES}
    topics = _topics(topics, book, at["topics"])
    guidelines = _guidelines(guidelines, topics, book, at["guidelines"])
    ratings = _known(ratings, guidelines, book)
    ratings = _one_per_pair(ratings, choices.duplicates, book, at["ratings"])
    ratings = _valued(ratings, choices.values, book, at["ratings"])
    if choices.self_ratings == "drop":
        author = guidelines.set_index("guideline_id")["author_id"]
        own = ratings["guideline_id"].map(author).eq(ratings["user_id"])
        ratings = book.drop(ratings, "ratings", own, "the user wrote the guideline")
    ratings = _active(ratings, choices, book)
    if ratings.empty:
        raise InputError(f"{where}: no rating is left to learn from. What became of them:\n{book}")
    if ratings["helpful"].nunique() == 1:
        word = "every rating has the same value: nothing tells the users or guidelines apart"
        book.counts.append(Count("ratings", "note", word, len(ratings)))
    ratings = ratings.sort_values(["user_id", "guideline_id"], ignore_index=True).astype(
        {"user_id": "str", "guideline_id": "str"}
    )
    users = _users(users, ratings, book, at["users"])
    kept = {"ratings": ratings, "guidelines": guidelines, "users": users, "topics": topics}
    for name, table in kept.items():
        book.counts.append(Count(name, "kept", "", len(table)))
    return Dataset(**kept, mu=mu, about=about or About(), counts=tuple(book.counts))


class _Book:
    """Counts being written."""

    def __init__(self, counts: list[Count]) -> None:
        self.counts = counts

    def drop(
        self, rows: pd.DataFrame, table: str, gone: pd.Series, reason: str, action: str = "dropped"
    ) -> pd.DataFrame:
        """`rows` without the `gone` ones, counted."""
        gone = gone.astype(bool)
        if gone.any():
            self.counts.append(Count(table, action, reason, int(gone.sum())))  # type: ignore[arg-type]
        return rows[~gone.to_numpy()]

    def __str__(self) -> str:
        return "\n".join(
            f"  {c.n} {c.table} {c.action}" + (f": {c.reason}" if c.reason else "")
            for c in self.counts
            if c.table == "ratings"
        )


def _same_id(rows: pd.DataFrame, key: str, table: str, book: _Book, where: str) -> pd.DataFrame:
    """One row per id: equal rows are merged, unlike ones are an error."""
    missing = rows[key].isna() | rows[key].eq("")
    if missing.any():
        at = int(np.argmax(missing.to_numpy()))
        raise InputError(f"{where}: row {at + 1} of {table} has no {key}: give it one")
    plain = rows.drop(columns=["embedding"], errors="ignore")
    rows = book.drop(rows, table, plain.duplicated(), "the same row again", "merged")
    again = rows[key].duplicated()
    if again.any():
        name = rows[key][again].iloc[0]
        raise InputError(
            f"{where}: {table} holds {key} {name!r:.80} more than once, with different content: "
            "keep one of them"
        )
    return rows.sort_values(key, ignore_index=True)


def _topics(topics: pd.DataFrame, book: _Book, where: str) -> pd.DataFrame:
    topics = _same_id(topics, "topic_id", "topics", book, where)
    parent = topics["parent_id"]
    lost = parent.notna() & ~parent.isin(topics["topic_id"])
    if lost.any():
        book.counts.append(
            Count("topics", "note", "parent_id unknown, set to none", int(lost.sum()))
        )
        topics = topics.assign(parent_id=parent.mask(lost))
    parents = topics["parent_id"].astype(object).where(topics["parent_id"].notna(), None)
    above = dict(zip(topics["topic_id"], parents, strict=True))
    check_depth(above, where)
    return topics


def _guidelines(
    guidelines: pd.DataFrame, topics: pd.DataFrame, book: _Book, where: str
) -> pd.DataFrame:
    guidelines = _same_id(guidelines, "guideline_id", "guidelines", book, where)
    text = guidelines["text"].fillna("")
    notes = {
        "no text": text.str.strip().eq(""),
        "characters that cannot be shown, replaced by \ufffd": text.str.contains("\ufffd"),
        "texts longer than 2,000 characters, cut short in the report": text.str.len() > 2000,
    }
    topic = guidelines["topic_id"]
    lost = topic.notna() & ~topic.isin(topics["topic_id"])
    notes["topic_id unknown, set to none"] = lost
    for reason, rows in notes.items():
        if rows.any():
            book.counts.append(Count("guidelines", "note", reason, int(rows.sum())))
    return guidelines.assign(text=text, topic_id=topic.mask(lost))


def _known(ratings: pd.DataFrame, guidelines: pd.DataFrame, book: _Book) -> pd.DataFrame:
    for key in ("user_id", "guideline_id"):
        blank = ratings[key].isna() | ratings[key].eq("")
        ratings = book.drop(ratings, "ratings", blank, f"no {key}")
    word = ratings["value"].astype("str").str.strip()
    ratings = book.drop(ratings, "ratings", word.isna() | word.eq(""), "no value given")
    stranger = ~ratings["guideline_id"].isin(guidelines["guideline_id"])
    return book.drop(ratings, "ratings", stranger, "the guideline is not among the guidelines")


def _one_per_pair(ratings: pd.DataFrame, duplicates: str, book: _Book, where: str) -> pd.DataFrame:
    pair = ["user_id", "guideline_id"]
    if duplicates == "error":
        again = ratings.duplicated(pair, keep=False)
        if again.any():
            user, guideline = ratings.loc[again, pair].iloc[0]
            n = int((ratings[pair] == [user, guideline]).all(axis=1).sum())
            raise InputError(
                f"{where}: guideline {guideline!r:.80} has {n} ratings by user {user!r:.80}: "
                "keep one with ratings.duplicates: last"
            )
        return ratings
    # Stable, unknown times first: the source's own order decides among equal times.
    ratings = ratings.sort_values("rated_at", kind="stable", na_position="first")
    gone = ratings.duplicated(pair, keep="last" if duplicates == "last" else "first")
    reason = f"rated again: the {duplicates} rating of each pair counts"
    return book.drop(ratings, "ratings", gone, reason, "merged")


def _valued(
    ratings: pd.DataFrame, values: Mapping[str, float | None], book: _Book, where: str
) -> pd.DataFrame:
    word = ratings["value"].astype("str").str.strip()
    strange = word[~word.isin(list(values))]
    if len(strange):
        found = "".join(
            f"\n  {value!r:.80}: {many(n, 'rating')}"
            for value, n in strange.value_counts().head(10).items()
        )
        example = _as_key(strange.value_counts().index[0])
        raise InputError(
            f"{where}: the parameters do not say what these rating values mean:{found}\n"
            "Add each under ratings.values as helpful, not_helpful, a number from 0 to 1, or null "
            f"(leave out), such as\n  {example}: helpful"
        )
    for value, number in values.items():
        if number is None:
            left_out = word.eq(value)
            ratings = book.drop(ratings, "ratings", left_out, f"value {value!r} is left out")
            word = word[~left_out]
    helpful = word.map(values).astype("float64")
    return ratings.drop(columns="value").assign(helpful=helpful)[list(TABLES["ratings"])]


def _as_key(word: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][\w .-]*", word) and word.lower() not in {
        "null",
        "true",
        "false",
    }
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return word if plain else '"' + "".join(map(_visible, escaped)) + '"'


def _visible(c: str) -> str:
    """A character of a YAML text in double quotes; those that do not show are written as code."""
    return c if unicodedata.category(c)[0] not in "CZ" or c == " " else f"\\U{ord(c):08x}"


def _active(ratings: pd.DataFrame, choices: Choices, book: _Book) -> pd.DataFrame:
    """Apply both minimum counts until neither takes anything away."""
    limits = {"user_id": choices.min_per_user, "guideline_id": choices.min_per_guideline}
    before, gone = None, dict.fromkeys(limits, 0)
    while before != len(ratings):
        before = len(ratings)
        for key, least in limits.items():
            few = ratings.groupby(key)[key].transform("size") < least
            gone[key] += int(few.sum())
            ratings = ratings[~few]
    for key, least in limits.items():
        if gone[key]:
            whose = "user" if key == "user_id" else "guideline"
            reason = f"the {whose} has fewer than {least} ratings"
            book.counts.append(Count("ratings", "dropped", reason, gone[key]))
    return ratings


def _users(users: pd.DataFrame, ratings: pd.DataFrame, book: _Book, where: str) -> pd.DataFrame:
    users = _same_id(users, "user_id", "users", book, where)
    new = sorted(set(ratings["user_id"]) - set(users["user_id"]))
    if new:
        reason = "named only by their ratings"
        book.counts.append(Count("users", "added", reason, len(new)))
        users = pd.concat([users, frame("users", [{"user_id": u} for u in new])])
    return users.sort_values("user_id", ignore_index=True)


def _period(rated_at: pd.Series) -> str:
    """First and last day; empty where no time is known."""
    known = rated_at.dropna()
    return "" if known.empty else f"{known.min():%Y-%m-%d} to {known.max():%Y-%m-%d}"
