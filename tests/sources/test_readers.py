"""Files as rows: what is there is read, what is broken is named."""

import csv
import datetime
import io
import os
import signal
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings, strategies as st
from worlds import assert_says, attempt, rows_to

from aggregation import InputError
from aggregation.sources.readers import MAX_ROWS, need, read_csv, read_table, read_text, times

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A path to write to again and again."""
    return tmp_path_factory.mktemp("files") / "it.csv"


# text


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_is_no_part_of_the_text(tmp_path, mark):
    path = tmp_path / "a.csv"
    path.write_bytes(mark + "größe,x\n1,2\n".encode())
    assert read_text(path) == "größe,x\n1,2\n"
    assert list(read_csv(path).columns) == ["größe", "x"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\nü,1\n".encode("latin-1"), ["line 2", "no UTF-8 text", "save it as UTF-8"]),
        ("a,b\nü,1\n".encode("utf-16"), ["byte 3 is zero", "save it as UTF-8"]),
        ("a,b\nü,1\n".encode("utf-16-be"), ["byte 0 is zero", "save it as UTF-8"]),
        (b"PK\x03\x04\x00\x00", ["byte 4 is zero", "unpack it"]),
    ],
)
def test_other_encodings_and_binaries_are_named(tmp_path, content, says):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_text(path)
    assert_says(error, path, *says)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_missing_file_is_named(tmp_path, suffix):
    path = tmp_path / f"away{suffix}"
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "no such file", "check source.path")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_folder_is_no_file(tmp_path, suffix):
    path = tmp_path / f"folder{suffix}"
    path.mkdir()
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "cannot be read", "check source.path")


@pytest.mark.parametrize("name", ["a\0b.csv", "a\0b.parquet", "x" * 5000 + ".csv"])
def test_path_that_no_file_can_have_is_named(tmp_path, name):
    with pytest.raises(InputError) as error:
        read_table(tmp_path / name)
    assert_says(error, "cannot be read", "check source.path")


@pytest.fixture
def fail_rather_than_hang():
    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("fail_rather_than_hang")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipe_or_device_is_refused_and_not_waited_for(tmp_path, suffix, kind):
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/null")
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "is a device or a pipe", "give a regular file")


def test_other_kinds_of_file_are_refused(tmp_path):
    with pytest.raises(InputError) as error:
        read_table(tmp_path / "a.docx")
    assert_says(error, tmp_path / "a.docx", ".csv, .tsv, .xlsx nor .parquet", "save it as CSV")


# CSV


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), max_size=6)
    ),
    st.sampled_from([",", "\t"]),
)
@example([["a\r\nb", "\u2028\x85", '"', " x "]], ",")
def test_csv_cells_come_back_as_written(file, rows, delimiter):
    width = len(rows[0]) if rows else 2
    names = [f"c{k}" for k in range(width)]
    rows_to(file, names, rows, delimiter)
    got = read_table(file, delimiter)
    assert list(got.columns) == names
    assert got.to_numpy().tolist() == rows


def test_nothing_is_taken_for_missing(tmp_path):
    words = ["None", "NA", "nan", "null", "", "#N/A", "-inf", "1e5", "007", "true"]
    got = read_csv(rows_to(tmp_path / "a.csv", ["a", "b"], [[w, "x"] for w in words]))
    assert list(got["a"]) == words


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_read(tmp_path, end):
    path = tmp_path / "a.csv"
    path.write_bytes(end.join([" a ,b", "1,2", "", "3,4", ""]).encode())
    got = read_csv(path)
    assert list(got.columns) == ["a", "b"]
    assert got.to_numpy().tolist() == [["1", "2"], ["3", "4"]]


def test_tsv_is_split_at_tabs_only(tmp_path):
    path = rows_to(tmp_path / "a.TSV", ["a", "b"], [["1,5", "2"]], "\t")
    assert read_table(path).to_numpy().tolist() == [["1,5", "2"]]


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_row_of_another_length_is_named(tmp_path, row):
    path = tmp_path / "a.csv"
    path.write_text(f'a,b\n"one\nand more",2\n{row}\n')
    with pytest.raises(InputError) as error:
        read_csv(path)
    cells = row.count(",") + 1
    assert_says(error, path, f"Row #3: Expected 2 columns, got {cells}", "mend the row")


def test_quote_that_is_not_closed_names_its_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"never closed\n2,3\n')
    with pytest.raises(InputError) as error:
        read_csv(path)
    assert_says(error, path, "line ", "mend the quotes")


def test_column_twice_is_named(tmp_path):
    path = rows_to(tmp_path / "a.csv", ["a", "b", " a "], [["1", "2", "3"]])
    with pytest.raises(InputError) as error:
        read_csv(path)
    assert_says(error, path, "'a' occurs twice", "rename one")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", "  \n"])
def test_empty_file_is_named(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_csv(path)
    assert_says(error, path, "is empty", "needs a header and rows")


def test_long_text_is_read_whole(tmp_path):
    limit = csv.field_size_limit(131_072)
    try:
        text = "ä" * 1_000_000
        got = read_csv(rows_to(tmp_path / "a.csv", ["a", "b"], [[text, "1"]]))
        assert got["a"][0] == text
    finally:
        csv.field_size_limit(limit)


# Parquet


def parquet(path, table):
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 2**60, None], ["1", str(2**60), None]),
        ([1.0, 0.0, -0.0, 0.5, None, float("nan")], ["1", "0", "0", "0.5", None, None]),
        ([True, False, None], ["true", "false", None]),
        (["None", "", "ü", None], ["None", "", "ü", None]),
        ([b"abc", "ü".encode()], ["abc", "ü"]),
        ([Decimal("1.00"), Decimal("0.50")], ["1", "0.5"]),
        ([datetime.date(2024, 5, 31)], ["2024-05-31"]),
        (
            [datetime.datetime(2024, 5, 31, 12, tzinfo=datetime.UTC)],
            ["2024-05-31 12:00:00.000000Z"],
        ),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
    ],
)
def test_parquet_cells_are_what_a_csv_would_hold(tmp_path, values, texts):
    got = read_table(parquet(tmp_path / "a.parquet", {"c": values}))
    assert [None if pd.isna(cell) else cell for cell in got["c"]] == texts


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([1], pa.timestamp("us", tz="Nowhere/Town")),
        pa.array([b"\xff\xfe"]),
        pa.Array.from_buffers(  # a text column that holds no text
            pa.string(),
            1,
            [None, pa.py_buffer(bytes([0] * 4 + [1, 0, 0, 0])), pa.py_buffer(b"\xff")],
        ),
    ],
)
def test_parquet_cells_that_are_no_text_name_the_column(tmp_path, column):
    path = parquet(tmp_path / "a.parquet", {"odd": column})
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "column 'odd'", "write the column as text")


def test_parquet_file_with_too_many_rows_is_refused_before_it_is_read(tmp_path):
    path, rows = tmp_path / "a.parquet", pa.table({"user_id": pa.nulls(10**6, pa.string())})
    with pq.ParquetWriter(path, rows.schema) as file:
        for _ in range(MAX_ROWS // 10**6 + 1):
            file.write_table(rows)
    assert path.stat().st_size < 10**5
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "has 51,000,000 rows", "50,000,000", "leave some out")


def test_parquet_column_twice_is_named(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    path = parquet(tmp_path / "a.parquet", table)
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "'a' occurs twice", "rename one")


@pytest.mark.parametrize("cut", [0, 3, 40, -1])
def test_broken_parquet_is_named(tmp_path, cut):
    path = parquet(tmp_path / "a.parquet", {"a": ["x"] * 100})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError) as error:
        read_table(path)
    assert_says(error, path, "no whole Parquet file", "write it again")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_parquet_is_read_or_named(file, damage):
    path = parquet(
        file.with_suffix(".parquet"),
        {"s": ["u1", None, "ü"], "i": [1, 2, 3], "f": [0.5, None, 1.0]},
    )
    content = bytearray(path.read_bytes())
    for at, byte in damage:
        content[at % len(content)] = byte
    path.write_bytes(content)
    got, message = attempt(read_table, path)
    if message:
        assert str(path) in message
    else:
        assert all(pd.isna(cell) or isinstance(cell, str) for cell in got.to_numpy().ravel())


# columns


def test_wrong_column_names_the_file_and_those_found(tmp_path):
    table = pd.DataFrame({"who": ["u"], "what": ["g"]}, dtype=object)
    with pytest.raises(InputError) as error:
        need(table, {"user_id": "who", "guideline_id": "item"}, tmp_path / "a.csv")
    assert_says(
        error, tmp_path / "a.csv", "'item' (for guideline_id)", "who, what", "in the parameters"
    )


def test_columns_get_our_names_and_absent_ones_are_empty(tmp_path):
    table = pd.DataFrame({"who": ["u"], "what": ["g"]}, dtype=object)
    got = need(table, {"user_id": "who", "rated_at": None}, tmp_path)
    assert got["user_id"].tolist() == ["u"]
    assert got["rated_at"].isna().all()


def test_column_without_a_name_can_be_asked_for(tmp_path):
    table = pd.DataFrame({"": ["u"]}, dtype=object)
    assert need(table, {"user_id": ""}, tmp_path)["user_id"].tolist() == ["u"]


# times

NOON = pd.Timestamp("2024-05-31T12:00:00Z")
SPAN = [datetime.datetime.fromisoformat(day) for day in ("1975-01-01", "5000-01-01")]


@pytest.mark.parametrize(
    "word",
    [
        "2024-05-31T12:00:00Z",
        "2024-05-31 12:00:00",
        "2024-05-31T14:00+02:00",
        " 1717156800 ",
        "1717156800000",
        "1717156800.0",
        "1.7171568e9",
    ],
)
def test_every_way_to_write_a_time_is_the_same_time(word):
    got = times(pd.Series([word, "", None, "2024-05-31"]), "a.csv")
    assert got[0] == NOON
    assert got[1:2].isna().all()
    assert got[3] == pd.Timestamp("2024-05-31T00:00:00Z")


@given(st.datetimes(*SPAN))
def test_seconds_milliseconds_and_iso_agree(moment):
    moment = moment.replace(microsecond=0, tzinfo=datetime.UTC)
    seconds = int(moment.timestamp())
    words = [str(seconds), str(seconds * 1000), moment.isoformat()]
    got = times(pd.Series(words), "a.csv")
    assert list(got) == [pd.Timestamp(moment)] * 3


@pytest.mark.parametrize(
    "word",
    [
        "now",  # pandas would take it for the time of reading
        "today",
        "yesterday",
        "Sat Oct 1 12:00:00 WIB 2024",
        "31/05/2024",
        "nan",
        "inf",
        "1e400",
        "-1e15",
        "2024-13-01",
        "99999-01-01",
        "0001-01-01T00:00:00+12:00",
        "9999-12-31T23:59:59-23:59",
        "٢٠٢٤-٠٥-٣١",
    ],
)
def test_what_is_no_time_names_its_row(word):
    with pytest.raises(InputError) as error:
        times(pd.Series(["2024-05-31", "", word]), "a.csv")
    assert_says(error, "a.csv, row 3", "is no time", "write ISO 8601")


@settings(max_examples=60)
@example(["1.797693134862316e+305"])  # more milliseconds than a float can hold
@given(st.lists(CELL | st.floats().map(str) | st.integers().map(str), max_size=4))
def test_times_are_read_or_named(words):
    got, message = attempt(times, pd.Series(words, dtype="str"), "a.csv")
    if message:
        assert "a.csv, row" in message
    else:
        assert [bool(t) for t in got.isna()] == [not w.strip() for w in words]
        assert str(got.dtype) == "datetime64[ms, UTC]"
        got.to_csv(io.StringIO())  # all of them can be written


def test_the_nearest_name_of_a_missing_file_is_offered(tmp_path):
    (tmp_path / "ratings.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"check source\.path, perhaps 'ratings\.csv' is meant"):
        read_table(tmp_path / "rating.csv")
