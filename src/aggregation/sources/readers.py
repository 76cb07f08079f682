"""Files as rows: strict reading of text, CSV, TSV and Parquet, with errors that name the place."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from aggregation.data.dataset import clean_text
from aggregation.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
FIRST, LAST = -6.2e13, 2.5e14
"""Milliseconds since 1970 of the years 5 and 9892: every time zone can write what lies between."""


def read_bytes(path: Path) -> bytes:
    """The whole file, or an InputError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check source.path") from None
    except (OSError, ValueError) as error:  # a path that no file can have is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}): check source.path") from None


def read_text(path: Path) -> str:
    """The file as text. UTF-8, with or without a byte-order mark, or an InputError."""
    data = read_bytes(path)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: is UTF-16 text: save it as UTF-8")
    if b"\0" in data:
        raise InputError(
            f"{path}: is no text file (byte {data.index(0):,} is zero): "
            "give the exported file itself"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: is not UTF-8 (byte {data[error.start]:#04x}): save it as UTF-8"
        ) from None


def read_csv(path: Path, delimiter: str = ",") -> pd.DataFrame:
    """All cells as text (`str`), blank lines left out. Columns are the header's names.

    Raises InputError with the line for a broken quote, a row of another length, or a name twice.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be long; the default stops at 128 KiB
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    header: list[str] | None = None
    try:
        for row in lines:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if header is None:
                header = [name.strip() for name in row]
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{path}, line {lines.line_num}: has {len(row)} cells, the header has "
                    f"{len(header)}: mend the row (is a quote missing?)"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {lines.line_num}: {error}: mend the quotes, or export the file again"
        ) from None
    if header is None:
        raise InputError(f"{path}: is empty: it needs a header and rows")
    _once(header, f"{path}, line 1")
    return pd.DataFrame(rows, columns=header, dtype=object)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file; cells are text, or None where Parquet has none."""
    kind = path.suffix.lower()
    if kind in DELIMITERS:
        return read_csv(path, DELIMITERS[kind])
    if kind != ".parquet":
        raise InputError(
            f"{path}: is neither .csv, .tsv nor .parquet: save it as CSV from the program that "
            "wrote it"
        )
    data = read_bytes(path)
    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)).read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no whole Parquet file ({_first_line(error)}): write it again"
        ) from None
    _once(table.column_names, str(path))
    return pd.DataFrame({name: _cells(table[name], name, path) for name in table.column_names})


def _cells(column: pyarrow.ChunkedArray, name: str, path: Path) -> pd.Series:
    try:
        return pd.Series([as_text(value) for value in column.to_pylist()], dtype=object)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}, column {name!r:.80}: holds what is no text, number or time "
            f"({_first_line(error)}): write the column as text"
        ) from None


def _once(header: list[str], where: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{where}: the column {twice[0]!r:.80} occurs twice: rename one")


def as_text(value: object) -> str | None:
    """A cell of a typed file as a CSV would write it: 1.0 is `1`, missing is None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode()  # writers that know no text type store it so
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return str(value)


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
    empty = [None] * len(table)
    cells = {ours: empty if theirs is None else table[theirs] for ours, theirs in columns.items()}
    return pd.DataFrame(cells, index=table.index, dtype=object)


def times(
    values: Iterable[object], where: str, place: Callable[[int], str] = lambda at: f"row {at + 1}"
) -> pd.Series:
    """ISO 8601 texts, or seconds or milliseconds since 1970, as UTC times; None or blank is null.

    Numbers above 1e11 are milliseconds (as seconds they would lie beyond the year 5138). `place`
    names the place of a value, counted from 0, in the message of the InputError.
    """
    cells = ["" if value is None else clean_text(str(value)).strip() for value in values]
    text = pd.Series(cells, dtype="str")
    blank = text.eq("").to_numpy()
    number = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
    numeric = np.isfinite(number)
    milliseconds = number * np.where(np.abs(number) > 1e11, 1, 1000)
    out = pd.Series(pd.NaT, index=text.index, dtype="datetime64[ms, UTC]")
    # 2024 and 20240531 are dates to people: as seconds they would silently lie in 1970.
    date = ((number > 1900) & (number < 2100)) | ((number > 1.9e7) & (number < 2.1e7))
    within = numeric & ~date & (milliseconds > FIRST) & (milliseconds < LAST)
    stamps = np.where(within, milliseconds, 0).astype("int64")
    out = out.mask(within, pd.Series(pd.to_datetime(stamps, unit="ms", utc=True)))
    # Digits first: pandas would take `now` and `today` for the time of reading.
    word = ~numeric & text.str.match(r"[0-9]{4}").to_numpy(dtype=bool)
    if word.any():
        parsed = pd.to_datetime(text[word], errors="coerce", utc=True, format="ISO8601")
        parsed = parsed.astype("datetime64[ms, UTC]").reindex(text.index)
        out = out.mask(word & parsed.between(_at(FIRST), _at(LAST)).to_numpy(dtype=bool), parsed)
    bad = out.isna().to_numpy() & ~blank
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{where}, {place(at)}: {text[at]!r:.60} is no time: write ISO 8601 "
            "(2024-05-31T12:00:00Z), or seconds or milliseconds since 1970"
        )
    return out


def _at(milliseconds: float) -> pd.Timestamp:
    return pd.Timestamp(int(milliseconds), unit="ms", tz="UTC")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
