"""Cleaning: raw tables become a Dataset, and every row left out or merged is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from aggregation.data.cards import many
from aggregation.data.choices import Choices
from aggregation.data.dataset import TABLES, About, Action, Count, Dataset, clean_text, frame
from aggregation.data.topics import check_depth
from aggregation.errors import InputError


def build(
    tables: Mapping[str, pd.DataFrame],
    choices: Choices,
    *,
    where: str,
    files: Mapping[str, str] | None = None,
    mu: float | None = None,
    about: About | None = None,
    counts: Iterable[Count] = (),
) -> Dataset:
    """A Dataset from raw tables.

    Of `tables`, `ratings` has the columns user_id, guideline_id, value (the source's own word; null
    or blank: none given), rated_at, in the order of the source; the others have any of the columns
    in `TABLES`, and may be missing. The index of each is the place of a row in its file, counted
    from 0. `counts` say what the source read and what it has left out already. `where` names the
    source in messages, `files` those tables that have a file of their own.

    Raises InputError, naming the file, the place and the remedy.
    """
    raw = {name: tables.get(name, pd.DataFrame()) for name in TABLES}
    book = _Book(list(counts), dict.fromkeys(TABLES, where) | dict(files or {}))
    for key in ("user_id", "guideline_id"):
        book.check_ids("ratings", raw["ratings"][key])
    topics = _topics(raw["topics"], book)
    guidelines = _guidelines(raw["guidelines"], topics, book)
    ratings = _known(raw["ratings"], guidelines, book)
    ratings = _one_per_pair(ratings, choices.duplicates, book)
    ratings = _valued(ratings, choices.values, book)
    if choices.self_ratings == "drop":
        author = guidelines.set_index("guideline_id")["author_id"]
        own = ratings["guideline_id"].map(author).eq(ratings["user_id"])
        ratings = book.take("dropped", "ratings", ratings, own, "the user wrote the guideline")
    ratings = _active(ratings, choices, book)
    if ratings.empty:
        told = [c for c in book.counts if c.table == "ratings"]
        told = "\n".join(f"  {c.n} ratings {c.action}: {c.reason}".removesuffix(": ") for c in told)
        raise InputError(f"{where}: no rating is left to learn from. What became of them:\n{told}")
    if ratings["helpful"].nunique() == 1:
        book.add("note", "ratings", "all have the same value: nothing can be learned", len(ratings))
    ratings = ratings.sort_values(["user_id", "guideline_id"], ignore_index=True)
    users = _users(raw["users"], ratings, book)
    kept = {"ratings": ratings, "guidelines": guidelines, "users": users, "topics": topics}
    kept["answers"] = _answers(raw["answers"], ratings, book)
    book.counts += [Count(name, "kept", "", len(table)) for name, table in kept.items()]
    return Dataset(**kept, mu=mu, about=about or About(), counts=tuple(book.counts))


PASSED = "is left out"
"""How the reason of a rating ends that the parameters leave out, such as a pass."""


class _Book:
    """Counts as they are made, and the file of each table."""

    def __init__(self, counts: list[Count], files: dict[str, str]) -> None:
        self.counts, self.files = counts, files

    def add(self, action: Action, table: str, reason: str, n: float) -> None:
        """Count rows, unless there are none."""
        self.counts += [Count(table, action, reason, int(n))] if n else []

    def take(
        self, action: Action, table: str, rows: pd.DataFrame, gone: pd.Series, reason: str
    ) -> pd.DataFrame:
        """`rows` without the `gone` ones, counted."""
        self.add(action, table, reason, gone.sum())
        return rows[~gone.to_numpy(dtype=bool)]

    def check_ids(self, table: str, ids: pd.Series) -> None:
        """Raise InputError where an id holds what nobody can see; note blanks around ids."""
        different = pd.Series(ids.dropna().unique(), dtype="str")
        unseen = next((one for one in different if clean_text(one) != one), None)
        if unseen is not None:
            row = ids.index[int(np.argmax(ids.eq(unseen)))] + 1
            what = f"row {row} of {table}: {ids.name} {unseen!r:.80} holds control characters"
            raise InputError(f"{self.files[table]}, {what}: remove them")
        around = ids.isin(different[different.ne(different.str.strip())])
        reason = f"{ids.name} with blanks around it: another one than without"
        self.add("note", table, reason, around.sum())


def _one_per_id(raw: pd.DataFrame, key: str, table: str, book: _Book) -> pd.DataFrame:
    """The columns of the table, one row per id: equal rows are merged, unlike ones are an error."""
    where, ids = book.files[table], raw.get(key, pd.Series(dtype="str"))
    missing = ids.isna() | ids.eq("")
    if missing.any():
        row = missing.index[int(np.argmax(missing))] + 1
        raise InputError(f"{where}: row {row} of {table} has no {key}: give it one")
    book.check_ids(table, ids)
    rows = frame(table, raw)
    plain = rows.assign(embedding=rows["embedding"].map(str)) if "embedding" in rows else rows
    rows = book.take("merged", table, rows, plain.duplicated(), "the same row again")
    for again in rows[key][rows[key].duplicated()]:
        problem = f"holds {key} {again!r:.80} more than once, with different content"
        raise InputError(f"{where}: {table} {problem}: keep one of them")
    return rows.sort_values(key, ignore_index=True)


def _topics(raw: pd.DataFrame, book: _Book) -> pd.DataFrame:
    topics = _one_per_id(raw, "topic_id", "topics", book)
    parent = topics["parent_id"]
    lost = parent.notna() & ~parent.isin(topics["topic_id"])
    book.add("note", "topics", "parent_id unknown, set to none", lost.sum())
    topics = topics.assign(parent_id=parent.mask(lost))
    check_depth(topics, book.files["topics"])
    return topics


def _guidelines(raw: pd.DataFrame, topics: pd.DataFrame, book: _Book) -> pd.DataFrame:
    guidelines = _one_per_id(raw, "guideline_id", "guidelines", book)
    text, topic = guidelines["text"].fillna(""), guidelines["topic_id"]
    lost = topic.notna() & ~topic.isin(topics["topic_id"])
    for reason, rows in {
        "no text": text.str.strip().eq(""),
        "characters that cannot be shown, replaced by \ufffd": text.str.contains("\ufffd"),
        "texts longer than 2,000 characters, cut short in the report": text.str.len() > 2000,
        "topic_id unknown, set to none": lost,
    }.items():
        book.add("note", "guidelines", reason, rows.sum())
    return guidelines.assign(text=text, topic_id=topic.mask(lost))


def _known(raw: pd.DataFrame, guidelines: pd.DataFrame, book: _Book) -> pd.DataFrame:
    ratings = raw.astype({"user_id": "str", "guideline_id": "str", "value": "str"})
    ratings = ratings.assign(value=ratings["value"].str.strip())
    for key in ("user_id", "guideline_id", "value"):
        reason = "no value given" if key == "value" else f"no {key}"
        blank = ratings[key].isna() | ratings[key].eq("")
        ratings = book.take("dropped", "ratings", ratings, blank, reason)
    unknown = ~ratings["guideline_id"].isin(guidelines["guideline_id"])
    reason = "the guideline is not among the guidelines"
    return book.take("dropped", "ratings", ratings, unknown, reason)


def _one_per_pair(ratings: pd.DataFrame, duplicates: str, book: _Book) -> pd.DataFrame:
    pair = ["user_id", "guideline_id"]
    if duplicates == "error":
        sizes = ratings.groupby(pair, sort=False).size()
        if len(sizes) < len(ratings):
            user, guideline = sizes.index[int(np.argmax(sizes))]
            what = f"guideline {guideline!r:.80} has {sizes.max()} ratings by user {user!r:.80}"
            remedy = "keep one with ratings.duplicates: last"
            raise InputError(f"{book.files['ratings']}: {what}: {remedy}")
        return ratings
    # Stable, unknown times first: the source's own order decides among equal times.
    ratings = ratings.sort_values("rated_at", kind="stable", na_position="first")
    gone = ratings.duplicated(pair, keep="last" if duplicates == "last" else "first")
    reason = f"rated again: the {duplicates} rating of each pair counts"
    return book.take("merged", "ratings", ratings, gone, reason)


def plain_word(word: str) -> str:
    """A word of the ratings for comparison: in lower case, `1.0` as `1`."""
    return re.sub(r"(?<=[0-9])\.0+$", "", word.strip().casefold())


def _valued(ratings: pd.DataFrame, values: Mapping[str, float | None], book: _Book) -> pd.DataFrame:
    found = ratings["value"].value_counts()
    plain = {plain_word(word): number for word, number in values.items()}
    said = (word for word in found.index if word not in values and plain_word(word) in plain)
    values = dict(values) | {word: plain[plain_word(word)] for word in said}
    unknown = found[~found.index.isin(list(values))]
    if len(unknown):
        listed = "".join(f"\n  {v!r:.80}: {many(n, 'rating')}" for v, n in unknown[:10].items())
        word = str(unknown.index[0])
        example = json.dumps(word, ensure_ascii=not word.isprintable())  # which YAML reads too
        raise InputError(
            f"{book.files['ratings']}: the parameters do not say what these values mean:{listed}\n"
            "Add each under ratings.values as helpful, not_helpful, a number from 0 to 1, or null "
            f"(leave out), such as\n  {example}: helpful"
        )
    for value in (word for word, number in values.items() if number is None):
        left_out = ratings["value"].eq(value)
        ratings = book.take("dropped", "ratings", ratings, left_out, f"value {value!r} {PASSED}")
    helpful = ratings["value"].map(values).astype("float64")
    return ratings.assign(helpful=helpful)[list(TABLES["ratings"])]


def _active(ratings: pd.DataFrame, choices: Choices, book: _Book) -> pd.DataFrame:
    """Apply both minimum counts until neither takes anything away."""
    limits = {"user": choices.min_per_user, "guideline": choices.min_per_guideline}
    before, gone = None, dict.fromkeys(limits, 0)
    while before != len(ratings):
        before = len(ratings)
        for whose, least in limits.items():
            few = ratings.groupby(f"{whose}_id")["helpful"].transform("size") < least
            gone[whose] += int(few.sum())
            ratings = ratings[~few]
    for whose, n in gone.items():
        book.add("dropped", "ratings", f"the {whose} has fewer than {limits[whose]} ratings", n)
    return ratings


def _answers(raw: pd.DataFrame, ratings: pd.DataFrame, book: _Book) -> pd.DataFrame:
    """What raters answered, one answer to each question."""
    answers = frame("answers", raw)
    blank = answers["answer"].fillna("").str.strip().eq("")
    answers = book.take("dropped", "answers", answers, blank, "no answer")
    idle = ~answers["user_id"].isin(ratings["user_id"].unique() if len(answers) else [])
    answers = book.take("dropped", "answers", answers, idle, "of nobody who rated")
    key = ["user_id", "question"]
    answers = book.take("merged", "answers", answers, answers.duplicated(), "the same row again")
    if answers.duplicated(key).any():
        first = answers[answers.duplicated(key)].iloc[0]
        where, user = book.files["answers"], f"user {first['user_id']!r:.80}"
        raise InputError(f"{where}: {user} gives {first['question']!r:.80} twice: keep one row")
    return answers.sort_values(key, ignore_index=True)


def _users(raw: pd.DataFrame, ratings: pd.DataFrame, book: _Book) -> pd.DataFrame:
    users = _one_per_id(raw, "user_id", "users", book)
    raters = pd.Series(ratings["user_id"].unique())
    new = raters[~raters.isin(users["user_id"])]
    if len(new):
        book.add("added", "users", "named only by their ratings", len(new))
        users = pd.concat([users, frame("users", new.to_frame("user_id"))])
    return users.sort_values("user_id", ignore_index=True)
