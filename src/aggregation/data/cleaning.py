"""Cleaning: raw tables become a Dataset, and every row left out or merged is counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from aggregation.data.cards import many
from aggregation.data.categories import categories, taken, used, with_texts
from aggregation.data.choices import Choices
from aggregation.data.dataset import (
    CODED,
    TABLES,
    UNPRINTABLE,
    About,
    Action,
    Count,
    Dataset,
    clean_text,
    frame,
)
from aggregation.data.topics import check_depth
from aggregation.errors import InputError


def build(
    tables: dict[str, pd.DataFrame],
    choices: Choices,
    *,
    where: str,
    files: Mapping[str, str] | None = None,
    mu: float | None = None,
    about: About | None = None,
    counts: Iterable[Count] = (),
) -> Dataset:
    """A Dataset from raw tables, which it takes over: a hundred million ratings are held once.

    Of `tables`, `ratings` has the columns user_id, guideline_id, value (the source's own word; null
    or blank: none given), rated_at, in the order of the source; the first three are text, as such
    or as `data.categories` makes them. The others have any of the columns in `TABLES`, and may be
    missing. The index of each is the place of a row in its file, counted from 0. `counts` say what
    the source read and what it has left out already. `where` names the source in messages, `files`
    those tables that have a file of their own.

    Raises InputError, naming the file, the place and the remedy.
    """
    raw = {name: tables.pop(name, pd.DataFrame()) for name in TABLES}
    book = Book(list(counts), dict.fromkeys(TABLES, where) | dict(files or {}))
    ratings = raw.pop("ratings")
    ratings = ratings.assign(**{key: categories(ratings[key]) for key in (*CODED, "value")})
    for key in CODED:
        book.check_ids("ratings", ratings[key])
    topics = _topics(raw["topics"], book)
    guidelines = _guidelines(raw["guidelines"], topics, book)
    ratings = _known(ratings.reset_index(drop=True), guidelines, book)
    ratings = _one_per_pair(ratings, choices.duplicates, book)
    ratings = _valued(ratings, choices.values, book)
    if choices.self_ratings == "drop":
        own = _own(ratings, guidelines)
        ratings = book.take("dropped", "ratings", ratings, own, "the user wrote the guideline")
    ratings = _active(ratings, choices, book)
    if ratings.empty:
        told = [c for c in book.counts if c.table == "ratings"]
        told = "\n".join(f"  {c.n} ratings {c.action}: {c.reason}".removesuffix(": ") for c in told)
        raise InputError(f"{where}: no rating is left to learn from. What became of them:\n{told}")
    if ratings["helpful"].eq(ratings["helpful"].iloc[0]).all():
        book.add("note", "ratings", "all have the same value: nothing can be learned", len(ratings))
    ratings = ratings.assign(**{key: used(ratings[key]) for key in CODED})
    ratings = ratings.reset_index(drop=True)
    users = _users(raw["users"], ratings, book)
    kept = {"ratings": ratings, "guidelines": guidelines, "users": users, "topics": topics}
    kept["answers"] = _answers(raw["answers"], ratings, book)
    book.counts += [Count(name, "kept", "", len(table)) for name, table in kept.items()]
    return Dataset(**kept, mu=mu, about=about or About(), counts=tuple(book.counts))


MANY = 3_000_000
"""Ratings from which it pays to load polars for their sort."""

PASSED = "is left out"
"""How the reason of a rating ends that the parameters leave out, such as a pass."""


class Book:
    """Counts as they are made, and the file of each table."""

    def __init__(self, counts: list[Count], files: dict[str, str]) -> None:
        self.counts, self.files = counts, files

    def add(self, action: Action, table: str, reason: str, n: float) -> None:
        """Count rows, unless there are none."""
        self.counts += [Count(table, action, reason, int(n))] if n else []

    def take(
        self,
        action: Action,
        table: str,
        rows: pd.DataFrame,
        gone: pd.Series | np.ndarray,
        reason: str,
    ) -> pd.DataFrame:
        """`rows` without the `gone` ones, counted."""
        n = int(gone.sum())
        self.add(action, table, reason, n)
        return rows[~np.asarray(gone, dtype=bool)] if n else rows

    def check_ids(self, table: str, ids: pd.Series) -> None:
        """Raise InputError where an id holds what nobody can see; note blanks around ids."""
        different = pd.Series(ids.dropna().unique(), dtype="str")
        if UNPRINTABLE.search("\n".join(different.to_numpy())):
            unseen = next(one for one in different if clean_text(one) != one)
            row = ids.index[int(np.argmax(ids.eq(unseen)))] + 1
            what = f"row {row} of {table}: {ids.name} {unseen!r:.80} holds control characters"
            raise InputError(f"{self.files[table]}, {what}: remove them")
        around = ids.isin(different[different.ne(different.str.strip())])
        reason = f"{ids.name} with blanks around it: another one than without"
        self.add("note", table, reason, around.sum())


def _one_per_id(raw: pd.DataFrame, key: str, table: str, book: Book) -> pd.DataFrame:
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


def _topics(raw: pd.DataFrame, book: Book) -> pd.DataFrame:
    topics = _one_per_id(raw, "topic_id", "topics", book)
    parent = topics["parent_id"]
    lost = parent.notna() & ~parent.isin(topics["topic_id"])
    book.add("note", "topics", "parent_id unknown, set to none", lost.sum())
    topics = topics.assign(parent_id=parent.mask(lost))
    check_depth(topics, book.files["topics"])
    return topics


def _guidelines(raw: pd.DataFrame, topics: pd.DataFrame, book: Book) -> pd.DataFrame:
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


def _known(raw: pd.DataFrame, guidelines: pd.DataFrame, book: Book) -> pd.DataFrame:
    ratings = raw.assign(value=with_texts(raw["value"], lambda words: words.str.strip()))
    for key in (*CODED, "value"):
        reason = "no value given" if key == "value" else f"no {key}"
        empty = "" in ratings[key].cat.categories  # sorted: the first of them
        blank = ratings[key].cat.codes.to_numpy() < int(empty)
        ratings = book.take("dropped", "ratings", ratings, blank, reason)
    known = pd.Index(guidelines["guideline_id"])
    unknown = known.get_indexer(ratings["guideline_id"].cat.categories) < 0
    if unknown.any():
        gone = unknown[ratings["guideline_id"].cat.codes]
        reason = "the guideline is not among the guidelines"
        ratings = book.take("dropped", "ratings", ratings, gone, reason)
    return ratings


def _one_per_pair(ratings: pd.DataFrame, duplicates: str, book: Book) -> pd.DataFrame:
    """Sorted by user and guideline, with one rating of each pair."""
    order, again = _by_pair(ratings)
    if again.any():
        if duplicates == "error":
            user, guideline = ratings.iloc[order[int(np.argmax(again))]][list(CODED)]
            n = int((ratings["user_id"].eq(user) & ratings["guideline_id"].eq(guideline)).sum())
            what = f"guideline {guideline!r:.80} has {n} ratings by user {user!r:.80}"
            remedy = "keep one with ratings.duplicates: last"
            raise InputError(f"{book.files['ratings']}: {what}: {remedy}")
        gone = np.append(again[1:], False) if duplicates == "last" else again
        order = order[~gone]
        reason = f"rated again: the {duplicates} rating of each pair counts"
        book.add("merged", "ratings", reason, gone.sum())
    return ratings.take(order)


def _by_pair(ratings: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The order of the rows by user and guideline, the ratings of one pair by time (unknown times
    first, the source's own order among equal ones), and which rows are of the pair before.

    User, guideline and place of a row are packed into one integer where they fit: a plain sort is
    quicker than one of places, and stable so.
    """
    n, keys = len(ratings), [ratings[key].cat.codes.to_numpy() for key in CODED]
    widths = [len(ratings[key].cat.categories).bit_length() for key in CODED] + [n.bit_length()]
    again = np.zeros(n, bool)
    if sum(widths) <= 64:
        packed = keys[0].astype(np.uint64)
        for key, width in zip((keys[1], np.arange(n, dtype=np.uint32)), widths[1:], strict=True):
            packed <<= np.uint64(width)
            packed |= key.view(f"u{key.itemsize}")
        packed = _sorted(packed)
        pair = packed >> np.uint64(widths[2])
        np.equal(pair[1:], pair[:-1], out=again[1:])
        del pair  # of many ratings each such array is large
        order = (packed & np.uint64((1 << widths[2]) - 1)).view(np.int64)
        del packed
    else:
        order = np.lexsort(keys[::-1])
        again[1:] = np.all([np.diff(key[order]) == 0 for key in keys], axis=0)
    if again.any():  # only these need their times
        of_pair = np.flatnonzero(again | np.append(again[1:], False))
        pair, rows = np.cumsum(~again[of_pair]), order[of_pair]
        at = pd.to_datetime(ratings["rated_at"].iloc[rows], utc=True)
        at = at.dt.tz_localize(None).to_numpy("datetime64[ms]").view(np.int64)  # null: the least
        order[of_pair] = rows[np.lexsort((at, pair))]
    return order, again


def _sorted(x: np.ndarray) -> np.ndarray:
    if len(x) < MANY:
        return np.sort(x)
    import polars as pl  # four times as quick, but takes a while to load

    return pl.Series(x).sort().to_numpy()


def _own(ratings: pd.DataFrame, guidelines: pd.DataFrame) -> np.ndarray:
    """Which ratings are by the guideline's own author."""
    author = guidelines.set_index("guideline_id")["author_id"]
    authors = author.reindex(ratings["guideline_id"].cat.categories)
    code = ratings["user_id"].cat.categories.get_indexer(pd.Index(authors))
    code[authors.isna().to_numpy()] = -1
    own = code[ratings["guideline_id"].cat.codes]
    return (own >= 0) & (own == ratings["user_id"].cat.codes)


def plain_word(word: str) -> str:
    """A word of the ratings for comparison: in lower case, `1.0` as `1`."""
    return re.sub(r"(?<=[0-9])\.0+$", "", word.strip().casefold())


def _valued(ratings: pd.DataFrame, values: Mapping[str, float | None], book: Book) -> pd.DataFrame:
    """With the number of each word in `helpful`, without those that are left out."""
    said = used(ratings["value"])
    ratings, words = ratings.assign(value=said), said.cat.categories
    plain = {plain_word(word): number for word, number in values.items()}
    values = {word: plain[plain_word(word)] for word in words if plain_word(word) in plain} | {
        word: values[word] for word in words if word in values
    }
    unknown = [word for word in words if word not in values]
    if unknown:
        found = said.value_counts()[unknown].sort_values(ascending=False, kind="stable")
        listed = "".join(f"\n  {v!r:.80}: {many(n, 'rating')}" for v, n in found[:10].items())
        word = str(found.index[0])
        example = json.dumps(word, ensure_ascii=not word.isprintable())  # which YAML reads too
        raise InputError(
            f"{book.files['ratings']}: the parameters do not say what these values mean:{listed}\n"
            "Add each under ratings.values as helpful, not_helpful, a number from 0 to 1, or null "
            f"(leave out), such as\n  {example}: helpful"
        )
    for value in (word for word, number in values.items() if number is None):
        left_out = ratings["value"].eq(value)
        ratings = book.take("dropped", "ratings", ratings, left_out, f"value {value!r} {PASSED}")
    number = np.array([values[word] for word in words], np.float64)
    helpful = taken(number, ratings["value"].cat.codes.to_numpy())
    return ratings.assign(helpful=helpful)[list(TABLES["ratings"])]


def _active(ratings: pd.DataFrame, choices: Choices, book: Book) -> pd.DataFrame:
    """Apply both minimum counts, until neither takes anything away or as `minima` says."""
    limits = {"user": choices.min_per_user, "guideline": choices.min_per_guideline}
    order, gone = ["guideline", "user", "guideline"], dict.fromkeys(limits, 0)
    before = None
    while before != len(ratings) and order:
        before = len(ratings)
        for whose in order:
            codes, least = ratings[f"{whose}_id"].cat.codes.to_numpy(), limits[whose]
            few = np.bincount(codes)[codes] < least if least > 1 else np.zeros(len(codes), bool)
            gone[whose] += int(few.sum())
            ratings = ratings[~few] if few.any() else ratings
        order = ["user", "guideline"] if choices.minima == "repeat" else []
    for whose, n in gone.items():
        book.add("dropped", "ratings", f"the {whose} has fewer than {limits[whose]} ratings", n)
    return ratings


def _answers(raw: pd.DataFrame, ratings: pd.DataFrame, book: Book) -> pd.DataFrame:
    """What raters answered, one answer to each question."""
    answers = frame("answers", raw)
    blank = answers["answer"].fillna("").str.strip().eq("")
    answers = book.take("dropped", "answers", answers, blank, "no answer")
    idle = ~answers["user_id"].isin(ratings["user_id"].cat.categories if len(answers) else [])
    answers = book.take("dropped", "answers", answers, idle, "of nobody who rated")
    key = ["user_id", "question"]
    answers = book.take("merged", "answers", answers, answers.duplicated(), "the same row again")
    if answers.duplicated(key).any():
        first = answers[answers.duplicated(key)].iloc[0]
        where, user = book.files["answers"], f"user {first['user_id']!r:.80}"
        raise InputError(f"{where}: {user} gives {first['question']!r:.80} twice: keep one row")
    return answers.sort_values(key, ignore_index=True)


def _users(raw: pd.DataFrame, ratings: pd.DataFrame, book: Book) -> pd.DataFrame:
    users = _one_per_id(raw, "user_id", "users", book)
    raters = pd.Series(ratings["user_id"].cat.categories, name="user_id")
    new = raters[~raters.isin(users["user_id"])]
    if len(new):
        book.add("added", "users", "named only by their ratings", len(new))
        users = pd.concat([users, new.to_frame()])  # the ids were checked with the ratings
        users = users.assign(embedding=users["embedding"].where(users["embedding"].notna(), None))
    return users.sort_values("user_id", ignore_index=True)
