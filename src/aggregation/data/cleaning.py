"""Cleaning: raw tables become a Dataset, and every row left out or merged is counted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from aggregation.data.cards import many
from aggregation.data.dataset import TABLES, About, Count, Dataset, frame
from aggregation.data.topics import check_depth
from aggregation.errors import InputError


@dataclass(frozen=True)
class Choices:
    """What to do with raw ratings. `values` maps the source's words to a number or None (drop)."""

    values: Mapping[str, float | None]
    duplicates: Literal["last", "first", "error"] = "last"
    self_ratings: Literal["keep", "drop"] = "keep"
    min_per_user: int = 1
    min_per_guideline: int = 1


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
