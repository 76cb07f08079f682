"""Files as rows: strict reading of text, CSV, TSV and Parquet, with errors that name the place."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from aggregation.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_text(path: Path) -> str:
    """The file as text. UTF-8, with or without a byte-order mark, or an InputError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check source.path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: is UTF-16 text: save it as UTF-8")
    if b"\0" in data:
        raise InputError(
            f"{path}: is no text file (byte {data.index(0):,} is zero): give the exported file itself"
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
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}, line 1: the column {twice[0]!r} occurs twice: rename one")
    return pd.DataFrame(rows, columns=header, dtype=object)


def read_table(path: Path) -> pd.DataFrame:
    """A CSV, TSV or Parquet file; cells are text, or None where Parquet has none."""
    kind = path.suffix.lower()
    if kind in DELIMITERS:
        return read_csv(path, DELIMITERS[kind])
    if kind != ".parquet":
        raise InputError(f"{path}: is neither .csv, .tsv nor .parquet: convert or rename it")
    try:
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file: check source.path") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: is no whole Parquet file ({_first_line(error)})") from None
    columns = {name: [as_text(v) for v in table[name].to_pylist()] for name in table.column_names}
    return pd.DataFrame(columns, dtype=object)


def as_text(value: object) -> str | None:
    """A cell of a typed file as a CSV would write it: 1.0 is `1`, missing is None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return str(value)


def need(table: pd.DataFrame, columns: Mapping[str, str | None], path: Path) -> pd.DataFrame:
    """The `columns` (new name -> name in the file, None: not there) under their new names."""
    for ours, theirs in columns.items():
        if theirs is not None and theirs not in table.columns:
            found = ", ".join(map(str, table.columns[:20])) or "none"
            raise InputError(
                f"{path}: has no column {theirs!r} (for {ours}). It has: {found}. "
                "Name the right one in the parameters"
            )
    empty = [None] * len(table)
    cells = {ours: empty if not theirs else table[theirs] for ours, theirs in columns.items()}
    return pd.DataFrame(cells, index=table.index, dtype=object)


def times(values: Iterable[str | None], where: str) -> pd.Series:
    """ISO 8601 texts, or seconds or milliseconds since 1970, as UTC times; blank is null.

    Numbers above 1e11 are milliseconds (as seconds they would lie beyond the year 5138).
    """
    text = pd.Series(list(values), dtype=object)
    text = text.where(text.notna(), "").astype(str).str.strip()
    blank = text.eq("").to_numpy()
    number = pd.to_numeric(text, errors="coerce").to_numpy(dtype=float)
    numeric = np.isfinite(number)
    milliseconds = np.where(np.abs(number) > 1e11, number, number * 1000)
    out = pd.Series(pd.NaT, index=text.index, dtype="datetime64[ms, UTC]")
    within = numeric & (np.abs(milliseconds) < 2.5e14)  # the year 9892
    stamps = np.where(within, milliseconds, 0).astype("int64")
    out = out.mask(within, pd.Series(pd.to_datetime(stamps, unit="ms", utc=True)))
    word = ~numeric & ~blank
    if word.any():
        parsed = pd.to_datetime(text[word], errors="coerce", utc=True, format="ISO8601")
        out = out.mask(word, parsed.astype("datetime64[ms, UTC]").reindex(text.index))
    bad = out.isna().to_numpy() & ~blank
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{where}, row {at + 1}: {text[at]!r:.60} is no time: write ISO 8601 "
            "(2024-05-31T12:00:00Z), or seconds or milliseconds since 1970"
        )
    return out


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
