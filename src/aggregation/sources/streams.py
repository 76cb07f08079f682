"""Streams: files of any size as columns of codes, read once and in pieces.

Polars' streaming engine parses, picks the columns and gives every different text a number as the
rows go by, so that of a text in a hundred million rows one copy is kept. benchmarks/README.md
compares it with DuckDB and pyarrow on this work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow

from aggregation.data.categories import from_codes, taken
from aggregation.errors import InputError
from aggregation.sources.readers import check_names, first_line, parquet_parts, times

ROWS = 1_000_000
"""Of a piece."""

NULL = 2**32 - 1
"""The code of a missing text, while it streams."""


def coded(rows: pl.LazyFrame, texts: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """The columns `texts` as categories (see `data.categories`) and `numbers` as they are.

    Row k is the k-th of `rows`, whatever the number of threads. Raises polars' errors.
    """
    kinds = {name: pl.Categorical(pl.Categories.random()) for name in texts}
    query = rows.select(
        *(pl.col(n).cast(k).to_physical().fill_null(NULL) for n, k in kinds.items()), *numbers
    )
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in (*texts, *numbers)}
    for piece in query.collect_batches(chunk_size=ROWS, maintain_order=True, engine="streaming"):
        for name, column in pieces.items():
            column.append(piece[name].to_numpy())
    found: dict[str, Any] = {}
    for name in (*texts, *numbers):
        column = pieces.pop(name)
        values = np.concatenate(column) if column else np.zeros(0, np.uint32)
        found[name] = _sorted(values, kinds[name]) if name in kinds else values
    return pd.DataFrame(found, copy=False)


def _sorted(codes: np.ndarray, kind: pl.Categorical) -> pd.Series:
    """The column of these codes, which are not in the order of their texts yet."""
    codes = codes.view(np.int32)  # null becomes -1
    every = pl.Series(np.arange(codes.max(initial=-1) + 1, dtype=np.uint32))
    texts = every.cat.to(kind).cast(pl.String)
    order = texts.arg_sort().to_numpy()
    place = np.append(np.empty(len(order), np.int32), np.int32(-1))  # code -1: the last
    place[order] = np.arange(len(order), dtype=np.int32)
    index = pd.Index(texts.gather(order).to_arrow().cast(pyarrow.large_string()), dtype="str")
    return from_codes(taken(place, codes), index)


MAX_RATINGS = 200_000_000
"""Rows of Parquet files: one of 2 MB can hold columns that fill any memory."""


def parquet_ratings(path: Path, columns: Mapping[str, str | None]) -> pd.DataFrame:
    """`columns` (new name -> name in the file, None: not there) of a Parquet file, or of all those
    in a folder, in the order of their names; `rated_at` as times, the others as categories.

    Raises InputError.
    """
    named = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    try:
        rows = pl.scan_parquet(parquet_parts(path) or path)
        schema = rows.collect_schema()
        check_names(columns, schema.names(), path)
        n = rows.select(pl.len()).collect().item()
        if n > MAX_RATINGS:
            raise InputError(
                f"{path}: has {n:,} rows, at most {MAX_RATINGS:,} are read: leave some out"
            )
        at = named.pop("rated_at", None)
        asked = [_text(pl.col(name), schema[name], path).alias(k) for k, name in named.items()]
        texts, numbers = list(named), []
        if at is not None:
            asked.append(_time(pl.col(at), schema[at]).alias("rated_at"))
            (texts if schema[at] == pl.String else numbers).append("rated_at")
        found = coded(rows.select(asked), texts, numbers)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check source.path") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        problem = first_line(error)
        raise InputError(f"{path}: is no whole Parquet file ({problem}): write it again") from None
    if at is None:
        return found.assign(rated_at=pd.Series(pd.NaT, found.index, "datetime64[ms, UTC]"))
    return found.assign(rated_at=times(found["rated_at"], str(path)))


def _text(column: pl.Expr, kind: pl.DataType, path: Path) -> pl.Expr:
    """The column as a CSV would hold it: 1.0 is `1`."""
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise InputError(
            f"{path}, column {column.meta.output_name()!r:.80}: holds what is no text, number or "
            "time: write the column as text"
        )
    if kind.is_float() or kind.is_decimal():
        number = column.cast(pl.Float64).fill_nan(None)
        whole = pl.when(number == number.round()).then(number.cast(pl.Int64, strict=False))
        return pl.coalesce(whole.cast(pl.String), number.cast(pl.String))
    return column.cast(pl.String)


def _time(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """The column as milliseconds since 1970, or as the text or number that it is."""
    if kind.is_temporal():
        return column.cast(pl.Datetime("ms")).cast(pl.Int64).cast(pl.Float64)
    return column.cast(pl.Float64) if kind.is_numeric() else column
