"""Files as rows: CSV, Excel and Parquet, with errors that name the place.

`read_csv` reads what a format prescribes: UTF-8 and commas. `read_table` reads what people have:
it finds encoding and delimiter. Cells are text in pandas' own string type, which keeps no Python
object for each.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from aggregation.errors import InputError

DELIMITERS = ",;\t|"
"""Those that are looked for, in this order."""
TEXT_FILES, EXCEL_FILES = (".csv", ".tsv", ".tab", ".txt"), (".xlsx", ".xlsm", ".xls", ".ods")
ENCODINGS = ("cp1252", "cp1250", "cp1251", "shift_jis", "gb18030", "big5", "euc_kr")
"""Looked for where a file is neither UTF-8 nor UTF-16; that of the most natural text is taken."""
SAMPLE = 1 << 20
"""Characters or bytes by which encoding and delimiter are found, and rows that are handled at a
time."""
EVEN = 0.9
"""Share of the first rows that have as many cells as the header, if the delimiter is right."""
MAX_UNPACKED = 4 << 30
"""Bytes of a packed file."""
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
        near = difflib.get_close_matches(path.name, [p.name for p in _beside(path)], 1, 0.75)
        perhaps = f", perhaps {near[0]!r:.80} is meant" if near else ""
        raise InputError(f"{path}: there is no such file: check source.path{perhaps}") from None
    except (OSError, ValueError) as error:  # a path that no file can have is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}): check source.path") from None


def _beside(path: Path) -> list[Path]:
    """What lies in the folder of a file, or nothing if that is not there."""
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []


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


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file in UTF-8 with commas. See `_parsed`."""
    return _parsed(read_text(path), ",", path)


def read_table(
    path: Path, delimiter: str | None = None, encoding: str | None = None
) -> pd.DataFrame:
    """Any CSV, Excel or Parquet file, a CSV also packed (.gz); cells are text, or null where
    Parquet or Excel has none.

    A number or a time is what a CSV would hold: 1.0 is `1`. Of a workbook the first sheet is read.
    Delimiter and encoding are found unless they are given. Raises InputError.
    """
    kinds = [kind.lower() for kind in path.suffixes]
    packed = kinds[-1:] == [".gz"]
    kind = next(iter(kinds[-2 if packed else -1 :]), "")
    if kind == ".parquet":
        return _parquet(path)
    if kind in EXCEL_FILES:
        return _workbook(path)
    if kind not in TEXT_FILES:
        raise InputError(
            f"{path}: is neither .csv, .tsv, .xlsx nor .parquet (a CSV may be packed, .csv.gz): "
            "save it as CSV"
        )
    data = read_bytes(path)
    text = _decoded(
        _unpacked(data, path) if packed or data[:2] == b"\x1f\x8b" else data, path, encoding
    )
    return _parsed(
        text, delimiter or _delimiter(text, first="\t" if kind in (".tsv", ".tab") else ""), path
    )


def _unpacked(data: bytes, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            out = file.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: is no whole .gz file ({first_line(error)}): pack it anew"
        ) from None
    if len(out) > MAX_UNPACKED:
        raise InputError(f"{path}: holds more than {MAX_UNPACKED >> 30} GB: leave some out")
    return out


def _decoded(data: bytes, path: Path, encoding: str | None) -> str:
    """The text of a file: by its byte-order mark, as UTF-8, or as it looks most natural."""
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if encoding is None and b"\0" in data and not wide:
        zero = data.find(b"\0")
        raise InputError(
            f"{path}: is no text (byte {zero:,} is zero): unpack it, or save it as CSV"
        )
    tried = encoding or ("utf-16" if wide else "utf-8-sig")
    try:
        return data.decode(tried)
    except LookupError:
        raise InputError(f"{path}: {encoding!r:.40} is no encoding: try utf-8 or cp1252") from None
    except UnicodeDecodeError as error:
        if encoding or wide:
            line = data[: error.start].count(b"\n") + 1
            raise InputError(f"{path}, line {line}: is no {tried}: save it as UTF-8") from None
    from charset_normalizer import from_bytes

    found = from_bytes(data[:SAMPLE], cp_isolation=list(ENCODINGS)).best()
    try:
        return data.decode(found.encoding if found else "utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: is neither UTF-8 nor an encoding that shows: save it as UTF-8, or name it in "
            "source.encoding"
        ) from None


def _delimiter(text: str, first: str = "") -> str:
    """That which parts the first rows into the most columns, as many in each."""
    found = {}
    for delimiter in dict.fromkeys(first + DELIMITERS):
        try:
            rows = list(
                islice(csv.reader(io.StringIO(text[:SAMPLE], newline=""), delimiter=delimiter), 50)
            )
        except csv.Error:
            continue
        widths = [len(row) for row in rows if row][: -1 if len(text) > SAMPLE else None]
        if widths and widths[0] > 1 and widths.count(widths[0]) >= EVEN * len(widths):
            found[delimiter] = widths[0]
    return max(found, key=lambda d: found[d], default=first or ",")


def _parsed(text: str, delimiter: str, path: Path) -> pd.DataFrame:
    """All cells as text, empty lines left out. Columns are the header's names.

    Raises InputError with the place for a row of another length, a quote that is not closed and a
    name that occurs twice.
    """
    text = text.lstrip("\r\n")
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
        problem = first_line(error).removeprefix("CSV parse error: ")
        raise InputError(f"{path}: {problem} (the header is row 1): mend the row") from None
    names = [str(column[0]).strip() for column in table.columns]
    return _frame(table.slice(1).columns, names, path)


def _workbook(path: Path) -> pd.DataFrame:
    from python_calamine import CalamineError, load_workbook

    try:
        rows = load_workbook(io.BytesIO(read_bytes(path))).get_sheet_by_index(0).to_python()
    except (CalamineError, OSError, ValueError, IndexError) as error:
        problem = first_line(error)
        raise InputError(f"{path}: is no workbook ({problem}): save it as .xlsx or .csv") from None
    rows = [row for row in rows if any(cell != "" for cell in row)]
    if not rows:
        raise InputError(f"{path}: is empty: it needs a header and rows")
    cells = zip(*([_cell(v) for v in row] for row in rows[1:]), strict=True)
    names = [str(_cell(name) or "").strip() for name in rows[0]]
    columns = [pyarrow.array(column, TEXT) for column in cells]
    return _frame(columns or [pyarrow.array([], TEXT)] * len(names), names, path)


def _cell(value: Any) -> str | None:
    """A cell of a workbook as a CSV would hold it; None where it is empty."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if value != "" else None


def parquet_parts(path: Path) -> list[Path]:
    """The Parquet files of a folder, by name; of a Parquet file itself; else none."""
    parts = sorted(_beside(path / "*")) if path.is_dir() else [path]
    return [p for p in parts if p.suffix.lower() == ".parquet" and p.name[0] != "."]


def _parquet(path: Path) -> pd.DataFrame:
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(read_bytes(path)))
        n = file.metadata.num_rows
        if n > MAX_ROWS:
            raise InputError(
                f"{path}: has {n:,} rows, at most {MAX_ROWS:,} are read: leave some out"
            )
        table = file.read()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = first_line(error)
        raise InputError(f"{path}: is no whole Parquet file ({problem}): write it again") from None
    names = table.column_names
    cells = [_as_text(c, name, path) for c, name in zip(table.columns, names, strict=True)]
    return _frame(cells, names, path)


def as_texts(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A frame of any types with cells as a file would hold them: text, or null."""
    arrays = [pyarrow.chunked_array([pyarrow.array(table[n], from_pandas=True)]) for n in table]
    cells = [_as_text(a, str(n), path) for a, n in zip(arrays, table.columns, strict=True)]
    return _frame(cells, [str(name) for name in table.columns], path)


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
            f"({first_line(error)}): write the column as text"
        ) from None
    return column


def _frame(cells: list[Any], names: list[str], path: Path) -> pd.DataFrame:
    again = sorted({name for name in names if names.count(name) > 1})
    if again:
        raise InputError(f"{path}: the column {again[0]!r:.80} occurs twice: rename one")
    return pd.DataFrame({n: pd.Series(c, dtype="str") for n, c in zip(names, cells, strict=True)})


def names_of(names: Iterable[Any]) -> str:
    """The names of the first columns, for a message; what moves a terminal's cursor as code."""
    listed = ", ".join(f"{name!s:.80}" for name in islice(names, 20))
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in listed)


def need(table: pd.DataFrame, columns: Mapping[str, str | None], path: Path) -> pd.DataFrame:
    """The `columns` (new name -> name in the file, None: not there) under their new names."""
    check_names(columns, table.columns, path)
    empty = pd.Series(None, index=table.index, dtype="str")
    cells = {ours: empty if theirs is None else table[theirs] for ours, theirs in columns.items()}
    return pd.DataFrame(cells, index=table.index)


def check_names(columns: Mapping[str, str | None], names: Iterable[Any], path: Path) -> None:
    """Raise InputError unless the file, with columns of these `names`, has all `columns`."""
    names = [str(name) for name in names]
    for ours, theirs in columns.items():
        if theirs is not None and theirs not in names:
            close = difflib.get_close_matches(theirs, names, n=1)
            perhaps = f": perhaps {close[0]!r:.80}" if close else ""
            found = names_of(names) or "none"
            raise InputError(
                f"{path}: has no column {theirs!r} (for {ours}). It has: {found}. Name the right "
                f"one in the parameters{perhaps}"
            )


def times(values: pd.Series, where: str) -> pd.Series:
    """ISO 8601 texts, or seconds or milliseconds since 1970, as UTC times; null or blank is null.

    Numbers above 1e11 are milliseconds (as seconds they would lie beyond the year 5138). Raises
    InputError naming the row, which is the index of `values` counted from 1.
    """
    if pd.api.types.is_numeric_dtype(values):
        out = _since_1970(values.astype("float64"))
        bad = out.isna() & values.notna()
    else:
        text: Any = values.astype("str").str.strip().fillna("")
        digits = text.str.match("[0-9]{4}")
        iso = digits & text.str.contains("-")  # spares most the slow attempt to read a number
        number: Any = pd.to_numeric(text.mask(iso), errors="coerce").astype("float64")
        out = _since_1970(number)
        # Digits first: pandas would take `now` and `today` for the time of reading.
        word = text.where(digits & number.isna())
        parsed: Any = pd.to_datetime(word, errors="coerce", utc=True, format="ISO8601")
        limits: Any = pd.to_datetime([EARLIEST, LATEST], unit="ms", utc=True)
        parsed = parsed.astype("datetime64[ms, UTC]")
        out = out.fillna(parsed.where(parsed.between(*limits)))
        bad = out.isna() & text.ne("")
    if bad.any():
        at = int(np.argmax(bad))
        shown = str(values.iloc[at]).strip().removesuffix(".0")
        raise InputError(
            f"{where}, row {values.index[at] + 1}: {shown!r:.60} is no time: write ISO 8601 "
            "(2024-05-31T12:00:00Z), or seconds or milliseconds since 1970"
        )
    return out


def _since_1970(number: pd.Series) -> pd.Series:
    """UTC times of seconds or milliseconds since 1970; null where a number means neither."""
    out = np.full(len(number), np.datetime64("NaT"), "datetime64[ms]")
    for at in range(0, len(number), SAMPLE):  # a piece at a time: there may be many
        here = slice(at, at + SAMPLE)
        x = number.iloc[here].to_numpy()
        if (x > 1e11).all() and (x <= LATEST).all():  # the common case, in a third of the time
            out[here] = x.astype("int64").view("datetime64[ms]")
            continue
        # 2024 and 20240531 are dates to people: as seconds they would silently lie in 1970.
        date = ((x >= 1900) & (x <= 2100)) | ((x >= 1.9e7) & (x <= 2.1e7))
        with np.errstate(over="ignore"):
            x = np.where(np.abs(x) > 1e11, x, x * 1000)
        known = (x >= EARLIEST) & (x <= LATEST) & ~date
        out[here][known] = x[known].astype("int64").astype("datetime64[ms]")
    found: Any = pd.Series(out, number.index, copy=False)
    return found.dt.tz_localize("UTC")


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def plain_ids(ids: pd.Index) -> pd.Index:
    """Ids as text, without spaces around them; where all are whole numbers, 1.0 is `1`, as pandas
    writes a column of numbers in which one is missing.
    """
    text: Any = ids.str.strip(" ")
    if text.str.endswith(".0").any() and text.str.fullmatch(r"-?[0-9]+(\.0)?|").all():
        return text.str.removesuffix(".0")
    return text
