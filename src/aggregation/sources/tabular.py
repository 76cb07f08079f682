"""Table: any CSV, Excel or Parquet file, with one rating a row, or one person a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from aggregation.data.categories import categories, with_texts
from aggregation.data.choices import Choices
from aggregation.data.cleaning import build
from aggregation.data.dataset import CODED, About, Count, Dataset, clean_text
from aggregation.errors import InputError
from aggregation.params.schema import TableSource
from aggregation.sources.readers import (
    names_of,
    need,
    parquet_parts,
    plain_ids,
    read_table,
    times,
)

UNMATCHED = 0.01
"""Share of the ratings that may be of guidelines that the guidelines file does not have: more is
most likely the wrong file, or ids written otherwise."""


def read(source: TableSource, choices: Choices) -> Dataset:
    """Read ratings, and guidelines where a file of them is given. Raises InputError."""
    path = Path(source.path).expanduser()
    tables, files = {"ratings": _ratings(source, path)}, {"ratings": path}
    if source.guidelines is not None:
        files["guidelines"] = file = Path(source.guidelines).expanduser()
        tables["guidelines"] = need(read_table(file), source.guideline_columns.model_dump(), file)
    if source.users is not None:
        files["answers"] = Path(source.users).expanduser()
        tables["answers"] = _answers(source, files["answers"])
    return cleaned(tables, choices, files, unmatched=source.unmatched)


def _ratings(source: TableSource, path: Path) -> pd.DataFrame:
    """user_id, guideline_id, value, rated_at, one rating a row."""
    if source.layout == "long" and parquet_parts(path):
        from aggregation.sources.streams import parquet_ratings  # loads polars

        table = ratings = parquet_ratings(path, _names(source, path))
    else:
        table = read_table(path, source.delimiter, source.encoding)
        long = source.layout == "long"
        ratings = need(table, _names(source, path), path) if long else _wide(table, source, path)
    if table.empty:
        raise InputError(f"{path}: has a header but no rows: there is nothing to learn from")
    return ratings


def cleaned(
    tables: dict[str, pd.DataFrame],
    choices: Choices,
    files: Mapping[str, Path],
    *,
    unmatched: Literal["error", "drop"] = "error",
) -> Dataset:
    """A Dataset of tables with ids as people write them, which it takes over (see `build`).

    `files` names each in messages.
    `ratings` has user_id, guideline_id, value, rated_at; `guidelines` guideline_id, text, topic,
    author_id; `answers` user_id, question, answer. Cells are text, ids and values perhaps as
    categories; of `rated_at` they may be times already.
    """
    raw = {name: _plain(tables.pop(name)) for name in list(tables)}
    at = raw["ratings"]["rated_at"]
    if not isinstance(at.dtype, pd.DatetimeTZDtype):
        raw["ratings"] = raw["ratings"].assign(rated_at=times(at, str(files["ratings"])))
    rated = raw["ratings"]["guideline_id"]
    counts = [Count(name, "read", files[name].name, len(table)) for name, table in raw.items()]
    if "guidelines" not in raw:
        ids = rated.cat.categories
        ids = ids[ids != ""]
        raw["guidelines"] = pd.DataFrame({"guideline_id": ids, "text": ids})
        counts.append(Count("guidelines", "added", "named only by their ratings", len(ids)))
    else:
        guidelines = raw["guidelines"]
        if unmatched == "error":
            _check_matches(rated, guidelines["guideline_id"], files)
        title = guidelines["topic"].str.strip().map(clean_text, na_action="ignore")
        guidelines["topic_id"] = title.where(title.ne(""))
        titles = guidelines["topic_id"].dropna().unique()
        raw["topics"] = pd.DataFrame({"topic_id": titles, "title": titles})
        if len(titles):
            counts.append(Count("topics", "added", "named by the guidelines", len(titles)))
    del at, rated
    return build(
        raw,
        choices,
        where=str(files["ratings"]),
        files={name: str(file) for name, file in files.items()},
        about=About(origin=f"table {files['ratings'].name}"),
        counts=counts,
    )


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """With ids as categories, as `plain_ids` writes them."""
    ids = {k: with_texts(categories(table[k]), plain_ids) for k in CODED if k in table}
    return table.assign(**ids)


def _names(source: TableSource, path: Path) -> dict[str, str | None]:
    """Columns of a table with one rating a row."""
    if source.columns.user_id is None:
        raise InputError(f"{path}: name the column of users in source.columns.user_id")
    return source.columns.model_dump()


def _wide(table: pd.DataFrame, source: TableSource, path: Path) -> pd.DataFrame:
    """One person a row, and a column for each guideline, whose name is its id. Empty cells are no
    ratings. Where no column holds the person's id, it is the number of the row.
    """
    named = {"user_id": source.columns.user_id, "rated_at": source.columns.rated_at}
    about = need(table, named, path)
    if source.columns.user_id is None:
        about["user_id"] = [f"row {k}" for k in range(1, len(table) + 1)]
    left_out = need(table, {name: name for name in source.other_columns}, path)
    cells = table.drop(columns=[*(n for n in named.values() if n), *left_out.columns])
    long = pd.concat([about, cells], axis=1).melt([*about.columns], None, "guideline_id", "value")
    long["guideline_id"] = long["guideline_id"].astype("str")
    return long[long["value"].fillna("").str.strip(" ").ne("")].reset_index(drop=True)


def _check_matches(rated: pd.Series, known: pd.Series, files: Mapping[str, Path]) -> None:
    """Raise InputError where the two files seem not to belong together."""
    rated = rated[rated.notna() & ~rated.isin([""])]
    unknown = rated[~rated.isin(known.cat.categories)]
    if len(unknown) <= UNMATCHED * len(rated):
        return
    idle = known.cat.categories.difference(pd.Index(rated.unique()))[:3]
    theirs = ", ".join(f"{name!r:.40}" for name in idle) or "none that is not rated"
    ours = ", ".join(f"{name!r:.40}" for name in unknown.unique()[:3])
    raise InputError(
        f"{files['ratings']}: {len(unknown):,} of {len(rated):,} ratings are of guidelines that "
        f"{files['guidelines'].name} "
        f"does not have, such as {ours}. It has, for example, {theirs}. If that is right, leave "
        "them out with source.unmatched: drop"
    )


def _answers(source: TableSource, path: Path) -> pd.DataFrame:
    """What users declared: user_id, question, answer."""
    table, columns = read_table(path), source.user_columns
    if not columns.answers:
        found = f"It has: {names_of(table.columns)}"
        raise InputError(f"{path}: name columns in source.user_columns.answers. {found}")
    wanted = {"user_id": columns.user_id, **{name: name for name in columns.answers}}
    said = need(table, wanted, path)
    return said.melt("user_id", var_name="question", value_name="answer")
