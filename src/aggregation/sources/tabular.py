"""Table: any CSV, TSV or Parquet file with one rating a row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aggregation.data.choices import Choices
from aggregation.data.cleaning import build
from aggregation.data.dataset import About, Count, Dataset, clean_text
from aggregation.errors import InputError
from aggregation.params.schema import TableSource
from aggregation.sources.readers import need, read_table, times


def read(source: TableSource, choices: Choices) -> Dataset:
    """Read ratings, and guidelines where a file of them is given. Raises InputError."""
    path = Path(source.path).expanduser()
    ratings = need(read_table(path), source.columns.model_dump(), path)
    if ratings.empty:
        raise InputError(f"{path}: has a header but no rows: there is nothing to learn from")
    ratings["rated_at"] = times(ratings["rated_at"], str(path))
    counts = [Count("ratings", "read", path.name, len(ratings))]
    if source.guidelines is None:
        ids = ratings["guideline_id"][ratings["guideline_id"].fillna("").ne("")].unique()
        guidelines = pd.DataFrame({"guideline_id": ids, "text": ids})
        topics = pd.DataFrame()
        counts.append(Count("guidelines", "added", "named only by their ratings", len(guidelines)))
    else:
        file = Path(source.guidelines).expanduser()
        guidelines = need(read_table(file), source.guideline_columns.model_dump(), file)
        counts.append(Count("guidelines", "read", file.name, len(guidelines)))
        title = guidelines["topic"].str.strip().map(clean_text, na_action="ignore")
        guidelines["topic_id"] = title.where(title.ne(""))
        titles = guidelines["topic_id"].dropna().unique()
        topics = pd.DataFrame({"topic_id": titles, "title": titles})
        if len(topics):
            counts.append(Count("topics", "added", "named by the guidelines", len(topics)))
    answers = _answers(source)
    if source.users is not None:
        counts.append(Count("answers", "read", Path(source.users).name, len(answers)))
    files = {"guidelines": source.guidelines, "answers": source.users}
    return build(
        {"ratings": ratings, "guidelines": guidelines, "topics": topics, "answers": answers},
        choices,
        where=str(path),
        files={table: file for table, file in files.items() if file is not None},
        about=About(origin=f"table {path.name}"),
        counts=counts,
    )


def _answers(source: TableSource) -> pd.DataFrame:
    """What users declared: user_id, question, answer."""
    if source.users is None:
        return pd.DataFrame()
    path, columns = Path(source.users).expanduser(), source.user_columns
    table = read_table(path)
    if not columns.answers:
        found = ", ".join(f"{name!s:.80}" for name in table.columns[:20])
        raise InputError(f"{path}: name columns in source.user_columns.answers. It has: {found}")
    wanted = {"user_id": columns.user_id, **{name: name for name in columns.answers}}
    return need(table, wanted, path).melt("user_id", var_name="question", value_name="answer")
