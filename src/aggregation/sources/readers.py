"""Files as rows: strict reading of text, CSV, TSV and Parquet, with errors that name the place.

Cells are text in pandas' own string type, which keeps no Python object for each.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from aggregation.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_ROWS = 50_000_000
"""Rows of a Parquet file: one of 2 MB can hold a column that fills any memory."""
EARLIEST, LATEST = -6.2e13, 2.5e14
"""Milliseconds since 1970 of the years 5 and 9892: every time zone can write what lies between."""
TEXT = pyarrow.large_string()


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises InputError if it is not there, or is a device or a pipe."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(f"{path}: is a device or a pipe: give a regular file")
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check source.path") from None
    except (OSError, ValueError) as error:  # a path that no file can have is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}): check source.path") from None


def read_text(path: Path) -> str:
    """The file as text. UTF-8, with or without a byte-order mark, or an InputError."""
    data = read_bytes(path)
    zero = data.find(b"\0")
    if zero >= 0:
        raise InputError(
            f"{path}: is no UTF-8 text (byte {zero:,} is zero): unpack it, or save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: is no UTF-8 text: save it as UTF-8") from None


def read_csv(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """All cells as text, empty lines left out. Columns are the header's names.

    Raises InputError with the place for a row of another length, a quote that is not closed and a
    name that occurs twice.
    """
    text = read_text(path).lstrip("\r\n")
    if not text.strip():
        raise InputError(f"{path}: is empty: it needs a header and rows")
    csv.field_size_limit(2**31 - 1)  # a text may be long; the default stops at 128 KiB
    odd = text.count('"') % 2  # perhaps one is not closed: pyarrow would read on to the end
    head = io.StringIO(text if odd else text[: 1 << 20], newline="")
    lines = csv.reader(head, delimiter=delimiter, strict=True)
    try:
        width = len(next(lines))
        deque(lines if odd else (), maxlen=0)
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num}: {error}: mend the quotes") from None
    data = text.encode()
    # One block, in one thread: a row may have any length, and errors name their row.
    options = {"use_threads": False, "block_size": min(len(data) + 1, 2**31 - 1)}
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            pyarrow.csv.ReadOptions(autogenerate_column_names=True, **options),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(column_types={f"f{k}": TEXT for k in range(width)}),
        )
    except pyarrow.ArrowInvalid as error:
        problem = _first_line(error).removeprefix("CSV parse error: ")
        raise InputError(f"{path}: {problem} (the header is row 1): mend the row") from None
    names = [str(column[0]).strip() for column in table.columns]
    return _frame(table.slice(1).columns, names, path)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file; cells are text, or null where Parquet has none.

    A number or a time is what a CSV would hold: 1.0 is `1`. Raises InputError.
    """
    kind = path.suffix.lower()
    if kind in DELIMITERS:
        return read_csv(path, DELIMITERS[kind])
    if kind != ".parquet":
        raise InputError(f"{path}: is neither .csv, .tsv nor .parquet: save it as CSV")
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(read_bytes(path)))
        n = file.metadata.num_rows
        if n > MAX_ROWS:
            raise InputError(
                f"{path}: has {n:,} rows, at most {MAX_ROWS:,} are read: leave some out"
            )
        table = file.read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = _first_line(error)
        raise InputError(f"{path}: is no whole Parquet file ({problem}): write it again") from None
    names = table.column_names
    cells = [_as_text(c, name, path) for c, name in zip(table.columns, names, strict=True)]
    return _frame(cells, names, path)


def _as_text(column: Any, name: str, path: Path) -> Any:
    try:
        if pyarrow.types.is_floating(column.type) or pyarrow.types.is_decimal(column.type):
            numbers = column.cast(pyarrow.float64()).to_numpy() + 0.0  # -0.0 is 0
            column = pyarrow.array(numbers, from_pandas=True)
            with suppress(pyarrow.ArrowInvalid):  # not all of them are whole numbers
                column = column.cast(pyarrow.int64())
        column = column.cast(TEXT)
        column.validate(full=True)
    except (pyarrow.ArrowException, ValueError) as error:
        raise InputError(
            f"{path}, column {name!r:.80}: holds what is no text, number or time "
            f"({_first_line(error)}): write the column as text"
        ) from None
    return column


def _frame(cells: list[Any], names: list[str], path: Path) -> pd.DataFrame:
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise InputError(f"{path}: the column {again[0]!r:.80} occurs twice: rename one")
    return pd.DataFrame({n: pd.Series(c, dtype="str") for n, c in zip(names, cells, strict=True)})


def need(table: pd.DataFrame, columns: Mapping[str, str | None], path: Path) -> pd.DataFrame:
    """The `columns` (new name -> name in the file, None: not there) under their new names."""
    for ours, theirs in columns.items():
        if theirs is not None and theirs not in table.columns:
            found = ", ".join(f"{name!s:.80}" for name in table.columns[:20]) or "none"
            remedy = "Name the right one in the parameters"
            other = [mark for mark in ";|\t" if mark in found]
            if len(table.columns) == 1 and other:
                remedy = f"It seems to be separated by {other[0]!r}: save it with commas"
            raise InputError(
                f"{path}: has no column {theirs!r} (for {ours}). It has: {found}. {remedy}"
            )
    empty = pd.Series(None, index=table.index, dtype="str")
    cells = {ours: empty if theirs is None else table[theirs] for ours, theirs in columns.items()}
    return pd.DataFrame(cells, index=table.index)


def times(values: pd.Series, where: str) -> pd.Series:
    """ISO 8601 texts, or seconds or milliseconds since 1970, as UTC times; null or blank is null.

    Numbers above 1e11 are milliseconds (as seconds they would lie beyond the year 5138). Raises
    InputError naming the row, which is the index of `values` counted from 1.
    """
    text: Any = values.astype("str").str.strip().fillna("")
    digits = text.str.match("[0-9]{4}")
    iso = digits & text.str.contains("-")  # spares most of them the slow attempt to read a number
    number: Any = pd.to_numeric(text.mask(iso), errors="coerce").astype(float)
    # 2024 and 20240531 are dates to people: as seconds they would silently lie in 1970.
    date = number.between(1900, 2100) | number.between(1.9e7, 2.1e7)
    milliseconds = number.where(number.abs() > 1e11, number * 1000)
    within = milliseconds.between(EARLIEST, LATEST) & ~date
    stamps = np.trunc(milliseconds.where(within)).astype("Int64")
    out: Any = pd.to_datetime(stamps, unit="ms", utc=True).astype("datetime64[ms, UTC]")
    # Digits first: pandas would take `now` and `today` for the time of reading.
    word = text.where(digits & number.isna())
    parsed: Any = pd.to_datetime(word, errors="coerce", utc=True, format="ISO8601")
    limits: Any = pd.to_datetime([EARLIEST, LATEST], unit="ms", utc=True)
    parsed = parsed.astype("datetime64[ms, UTC]")
    out = out.fillna(parsed.where(parsed.between(*limits)))
    bad = out.isna() & text.ne("")
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{where}, row {text.index[at] + 1}: {text.iloc[at]!r:.60} is no time: write ISO 8601 "
            "(2024-05-31T12:00:00Z), or seconds or milliseconds since 1970"
        )
    return out


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
