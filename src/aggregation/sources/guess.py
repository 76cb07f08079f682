"""Guess: how to read a table that nobody has described, for `aggregation init`.

A guess is shown to the analyst as a commented parameter file, never used unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from aggregation.data.cleaning import plain_word
from aggregation.errors import InputError
from aggregation.sources.readers import names_of, plain_ids, read_table, times

Words = dict[str, float | None]

YES = (
    "helpful yes y agree true like liked up upvote thumbs_up support for approve good pro useful "
    "ja oui si sí sim да 同意 贊成 是"
)
NO = (
    "not_helpful unhelpful no n disagree false dislike disliked down downvote thumbs_down oppose "
    "against disapprove reject bad con contra useless not_useful nein non não нет 不同意 反對 否"
)
NEITHER = (
    "pass skip skipped unsure neutral abstain undecided unknown none na n/a not_sure don't_know "
    "dont_know no_opinion no_answer neither_agree_nor_disagree neither ? - enthaltung weiß_nicht"
)
MEANINGS: Words = {
    **dict.fromkeys(YES.split(), 1.0),
    **dict.fromkeys(NO.split(), 0.0),
    **dict.fromkeys(NEITHER.split(), None),
    **{f"{much}_agree": 1.0 for much in ("strongly", "totally", "somewhat", "rather", "slightly")},
    **{
        f"{much}_disagree": 0.0
        for much in ("strongly", "totally", "somewhat", "rather", "slightly")
    },
    "somewhat_helpful": 0.5,
    "very_helpful": 1.0,
}
"""Words that mean the same everywhere, in lower case, with `_` for blanks."""

NUMBERS: tuple[tuple[frozenset[str], Words], ...] = (
    (frozenset({"0", "1"}), {"1": 1.0, "0": 0.0}),
    (frozenset({"-1", "1"}), {"1": 1.0, "-1": 0.0}),
    (frozenset({"-1", "0", "1"}), {"1": 1.0, "-1": 0.0, "0": None}),
)
"""Numbers that need no threshold; the first set that holds all found, and more than one, counts."""

USER, GUIDELINE, VALUE, TIME = (
    "user participant person people voter respondent author who worker rater member email pid id",
    "guideline comment statement item proposal question what note idea policy option topic content",
    "rating vote value answer response score helpful opinion stance choice reaction",
    "time date created timestamp when at submitted",
)
"""Parts of the names of columns."""

TEXT_NAMES = "text body content value wording statement comment proposal guideline title"
TOPIC_NAMES = "topic category theme"

MOST_WORDS = 40
"""Different words of a column of ratings at most."""

STARS = range(3, 12)
"""How many different whole numbers make a scale that needs a threshold."""

WIDE_SHARE = 0.4
"""Share of the columns that hold ratings, from which a table is taken to be wide."""


@dataclass(frozen=True)
class Guess:
    """How a table would be read."""

    source: dict[str, Any]
    """The section `source` of the parameter file."""
    words: dict[str, str | float | None]
    """`ratings.values`."""
    notes: list[str] = field(default_factory=list)
    """What the analyst should look at."""


def guess(
    ratings: Path,
    texts: Path | None = None,
    *,
    named: Mapping[str, str] | None = None,
    threshold: float | None = None,
) -> Guess:
    """How to read the table of `ratings`, and that of the guidelines' `texts`.

    `named`: columns that are known already, by user, guideline, rating, time. `threshold`: of a
    scale such as stars, from which number on a rating is helpful. Raises InputError where that
    cannot be found, with what to give.
    """
    named, table = dict(named or {}), read_table(ratings)
    for column in named.values():
        _need(table, column, ratings)
    if table.empty:
        raise InputError(f"{ratings}: has a header but no rows: there is nothing to learn from")
    words = {str(name): _words(table[name]) for name in table.columns}
    rated = [name for name, found in words.items() if found and _meanings(found, threshold, [])]
    notes: list[str] = []
    wide = "rating" not in named and len(rated) >= 3 and len(rated) >= WIDE_SHARE * len(words)
    source: dict[str, Any] = {"kind": "table", "path": str(ratings)}
    if wide:
        source |= _wide(table, rated, named, notes)
        found = set().union(*(words[name] for name in rated))
    else:
        source["columns"] = columns = _long(table, words, named, threshold, ratings)
        found = words.get(columns["value"]) or set(table[columns["value"]].dropna().str.strip())
    values = _meanings(found, threshold, notes)
    if values is None:
        raise InputError(_unclear(found, ratings))
    if texts is not None:
        ids = pd.Series(rated if wide else table[source["columns"]["guideline_id"]], dtype="str")
        columns, note = text_columns(read_table(texts), ids, texts)
        source |= {"guidelines": str(texts), "guideline_columns": columns}
        notes.append(note)
    shown = {1.0: "helpful", 0.0: "not_helpful", None: None}
    return Guess(source, {word: shown.get(n, n) for word, n in values.items()}, notes)


def _need(table: pd.DataFrame, column: str, path: Path) -> None:
    if column not in table.columns:
        found = names_of(table.columns)
        raise InputError(f"{path}: has no column {column!r:.80}. It has: {found}")


def _words(cells: pd.Series) -> set[str]:
    """The different words of a column; empty where there are too many, or none."""
    found = cells.dropna().str.strip().unique()
    found = {word for word in found if word}
    return found if len(found) <= MOST_WORDS else set()


def _meanings(found: set[str], threshold: float | None, notes: list[str]) -> Words | None:
    """What each word means; None if that is not clear. Words keep the spelling found."""
    plain = {word: plain_word(word).replace(" ", "_") for word in found}
    distinct = frozenset(plain.values())
    for numbers, meaning in NUMBERS:
        if distinct <= numbers and len(distinct) > 1:
            if None in meaning.values():
                notes.append("0 is taken for a pass, as 1 and -1 are there too")
            return {word: meaning[plain[word]] for word in _ordered(found)}
    if all(_number(word) is not None for word in distinct):
        if threshold is None or len(distinct) not in STARS:
            return None
        notes.append(f"numbers from {threshold:g} on are helpful, lower ones not helpful")
        numbers_of = {word: _number(plain[word]) or 0.0 for word in found}
        return {word: float(numbers_of[word] >= threshold) for word in _ordered(found)}
    if not distinct <= MEANINGS.keys():
        return None
    meanings = {word: MEANINGS[plain[word]] for word in _ordered(found)}
    return meanings if {1.0, 0.0} & set(meanings.values()) else None


def _ordered(found: set[str]) -> list[str]:
    return sorted(found, key=lambda word: (_number(word) is None, _number(word) or 0.0, word))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _unclear(
    found: set[str],
    path: Path,
    threshold: str = "--threshold 4",
    remedy: str = "--rating COLUMN, or write the parameter file yourself, see docs/data.md",
) -> str:
    numbers = found and all(_number(plain_word(word)) is not None for word in found)
    shown = (
        ", ".join(f"{word!r:.40}" for word in _ordered(found)[:12]) or "too many different words"
    )
    if numbers and len(found) > 1:
        return (
            f"{path}: the ratings are numbers ({shown}): say from which one on a rating is "
            f"helpful, such as {threshold}"
        )
    return f"{path}: it is not clear what the ratings mean ({shown}): say it with {remedy}"


def _named_like(name: str, parts: str) -> bool:
    words = "".join(c if c.isalnum() else " " for c in name.casefold()).split()
    return any(
        part in words or f"{part}s" in words or f"{part}id" in words for part in parts.split()
    )


def _wide(
    table: pd.DataFrame, rated: list[str], named: dict[str, str], notes: list[str]
) -> dict[str, Any]:
    """The keys of a wide table: one person a row."""
    rest = [str(name) for name in table.columns if name not in rated]
    times = [name for name in rest if _named_like(name, TIME)]
    unique = [
        n
        for n in rest
        if n not in times and table[n].fillna("").ne("").all() and table[n].is_unique
    ]
    like = [name for name in unique if _named_like(name, USER)]
    user = named.get("user") or next(iter([*like, *unique]), None)
    columns: dict[str, str | None] = {"user_id": user}
    if time := named.get("time"):
        columns["rated_at"] = time
    notes.append(f"one person a row, {len(rated)} columns of ratings")
    if user is None:
        notes.append("no column holds an id: every row is another person")
    other = [name for name in rest if name not in columns.values()]
    return {"layout": "wide", "columns": columns} | ({"other_columns": other} if other else {})


def _long(
    table: pd.DataFrame,
    words: dict[str, set[str]],
    named: dict[str, str],
    threshold: float | None,
    path: Path,
) -> dict[str, str]:
    """The columns of a long table: one rating a row."""
    taken = {}
    names = [str(name) for name in table.columns]

    def free() -> list[str]:
        return [name for name in names if name not in taken.values()]

    taken |= {key: named[key] for key in ("user", "guideline", "rating", "time") if key in named}
    if "rating" not in taken:
        clear = [n for n in free() if words[n] and _meanings(words[n], threshold, [])]
        scales = [n for n in free() if words[n] and _named_like(n, VALUE)]
        by_name = [n for n in clear if _named_like(n, VALUE)]
        taken["rating"] = next(iter([*by_name, *clear, *scales]), "")
    if "time" not in taken and (
        at := [n for n in free() if _named_like(n, TIME) and _dated(table[n])]
    ):
        taken["time"] = at[0]
    for key, parts in (("user", USER), ("guideline", GUIDELINE)):
        if key not in taken:
            like = [n for n in free() if _named_like(n, parts) and table[n].nunique() > 1]
            # an id names more of them than a text or a title would
            taken[key] = max(like, key=lambda n: table[n].nunique(), default="")
    left = [n for n in free() if table[n].nunique() > 1]
    for key in ("user", "guideline"):
        if not taken[key] and len(left) == 1:
            taken[key] = left.pop()
    missing = [key for key in ("user", "guideline", "rating") if not taken.get(key)]
    if missing or taken["user"] == taken["guideline"]:
        found = names_of(table.columns)
        wanted = " ".join(f"--{key} COLUMN" for key in missing or ["guideline"])
        raise InputError(f"{path}: name the columns with {wanted}. It has: {found}")
    columns = {"user_id": taken["user"], "guideline_id": taken["guideline"]}
    columns["value"] = taken["rating"]
    return columns | ({"rated_at": taken["time"]} if "time" in taken else {})


def _dated(cells: pd.Series) -> bool:
    try:
        return bool(times(cells.head(1000), "").notna().any())
    except InputError:
        return False


def text_columns(table: pd.DataFrame, rated: pd.Series, path: Path) -> tuple[dict[str, str], str]:
    """Which column of a table of texts holds the ids of `rated` guidelines, which the text, and if
    there is one, which the topic; and how many of them it has, in words. Raises InputError.
    """
    wanted = set(plain_ids(pd.Index(rated.dropna())))
    known = {str(n): set(plain_ids(pd.Index(table[n].dropna()))) for n in table.columns}
    share = {name: len(wanted & ids) for name, ids in known.items()}
    key = max(share, key=lambda n: share[n], default="")
    if not key or not share[key]:
        here = ", ".join(f"{one!r:.40}" for one in sorted(wanted)[:3])
        raise InputError(f"{path}: no column holds ids of rated guidelines, such as {here}")
    rest = [str(n) for n in table.columns if n != key] or [key]
    length = {n: float(table[n].fillna("").str.len().mean()) for n in rest}
    like = [n for n in rest if _named_like(n, TEXT_NAMES)] or rest
    columns = {"guideline_id": key, "text": max(like, key=lambda n: length[n])}
    topics = [n for n in rest if n not in columns.values() and _named_like(n, TOPIC_NAMES)]
    columns |= {"topic": topics[0]} if topics else {}
    return columns, f"{path.name} has {share[key]:,} of the {len(wanted):,} rated guidelines"


def meanings(cells: pd.Series, threshold: float | None, path: Path) -> Words:
    """What each word of a column of ratings means. Raises InputError where that is not clear."""
    found = _words(cells)
    words = _meanings(found, threshold, [])
    if words is None:
        raise InputError(_unclear(found, path, "threshold=4", "values={...}"))
    return words


def parameter_file(found: Guess, run: str, command: str) -> str:
    """The text of a parameter file with what was found, and comments."""
    values = [
        f"    {_yaml(word)}: {_yaml(meaning) if not isinstance(meaning, str) else meaning}"
        for word, meaning in found.words.items()
    ]
    comments = [f"Written by: {command}", *(f"Found: {note}" for note in found.notes)]
    return "\n".join(
        [
            *(f"# {' '.join(comment.split())}" for comment in comments),
            "# Paths are relative to the folder in which `aggregation run` is called.",
            f"run: {_yaml(run)}          # the folder under outputs/",
            'title: ""          # the headline of the report',
            'question: ""       # what people were asked',
            'participants: ""   # who took part, and how they were found',
            'attribution: ""    # who gathered the data, and its licence',
            "source:",
            *(f"  {key}: {_yaml(value)}" for key, value in found.source.items()),
            "ratings:",
            "  # What a word means: helpful, not_helpful, null (leave out), a number from 0 to 1",
            "  values:",
            *values,
            "rule: {name: aligned-2023}     # or robust, which is harder to buy",
            "diagnostics: {depth: quick}    # full: also intervals and the cost of manipulation",
            "",
        ]
    )


def _yaml(value: Any) -> str:
    """A value as JSON, which YAML reads too."""
    return json.dumps(value, ensure_ascii=False)
