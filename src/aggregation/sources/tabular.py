"""Table: any CSV, TSV or Parquet file with one rating a row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aggregation.data.cleaning import Choices, build
from aggregation.data.dataset import About, Count, Dataset, clean_text, frame
from aggregation.errors import InputError
from aggregation.params import TableSource
from aggregation.sources.readers import need, read_table, times


def read(source: TableSource, choices: Choices) -> Dataset:
    """Read ratings, and guidelines where a file of them is given. Raises InputError."""
    path = Path(source.path).expanduser()
    names = source.columns.model_dump()
    raw = read_table(path)
    ratings = need(raw, names, path)
    if ratings.empty:
        raise InputError(f"{path}: has a header but no rows: there is nothing to learn from")
    ratings["rated_at"] = times(ratings["rated_at"], str(path))
    counts = [Count("ratings", "read", path.name, len(ratings))]
    for key in ("user_id", "guideline_id"):
        counts += _plain(ratings, key, path, "ratings")
    if source.guidelines is None:
        ids = sorted({i for i in ratings["guideline_id"] if i})
        guidelines = pd.DataFrame({"guideline_id": ids, "text": ids, "topic": None}, dtype=object)
        counts.append(Count("guidelines", "added", "named only by their ratings", len(ids)))
    else:
        file = Path(source.guidelines).expanduser()
        guidelines = need(read_table(file), source.guideline_columns.model_dump(), file)
        counts.append(Count("guidelines", "read", file.name, len(guidelines)))
        counts += _plain(guidelines, "guideline_id", file, "guidelines")
    guidelines["topic_id"] = guidelines["topic"].where(guidelines["topic"].notna(), "")
    guidelines["topic_id"] = guidelines["topic_id"].map(str.strip).replace("", None)
    titles = sorted({clean_text(t) for t in guidelines["topic_id"].dropna()})
    if titles:
        counts.append(Count("topics", "added", "named by the guidelines", len(titles)))
    return build(
        ratings,
        frame("guidelines", guidelines.to_dict("records")),  # pyright: ignore[reportArgumentType]
        frame("users", []),
        frame("topics", [{"topic_id": t, "title": t} for t in titles]),
        choices,
        where=str(path),
        files={} if source.guidelines is None else {"guidelines": source.guidelines},
        about=About(origin=f"table {path.name}"),
        counts=counts,
    )


def _plain(rows: pd.DataFrame, key: str, path: Path, table: str) -> list[Count]:
    """Refuse ids that nobody can see; note how many have blanks around them, if some have."""
    for row, value in enumerate(rows[key], start=1):
        if value is not None and clean_text(value) != value:
            raise InputError(
                f"{path}, row {row}: {key} {value!r:.80} holds control characters: remove them"
            )
    n = sum(value is not None and value != value.strip() for value in rows[key])
    told = f"{key} with blanks around it: another one than without"
    return [Count(table, "note", told, n)] if n else []
