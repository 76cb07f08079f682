"""Table: any file with one rating a row, whatever its ids and words look like."""

import csv
import io
from itertools import product

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings, strategies as st
from worlds import RATINGS, assert_conserved, assert_says, attempt, cells, counted, reading, rows_to

from aggregation import InputError, read, sections

YES, NO = "helpful", "not_helpful"
ROWS = [("u1", "g1", YES), ("u1", "g2", NO), ("u2", "g1", NO)]
READ = {("u1", "g1"): 1.0, ("u1", "g2"): 0.0, ("u2", "g1"): 0.0}
NUMBERS = {"values": {"1": "helpful", "0": "not_helpful"}}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A path to write to again and again."""
    return tmp_path_factory.mktemp("table") / "ratings.csv"


def table(path, rows, ratings=None, *, header=RATINGS, **source):
    """Write the rows and read them."""
    return reading("table", rows_to(path, header, rows), ratings, **source)


def raised(path, ratings=None, **source):
    with pytest.raises(InputError) as error:
        reading("table", path, ratings, **source)
    return error


# kinds of file


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".CSV", ","), (".tsv", "\t")])
def test_text_files_are_read(tmp_path, suffix, delimiter):
    path = rows_to(tmp_path / f"r{suffix}", RATINGS, ROWS, delimiter)
    got = reading("table", path)
    assert cells(got) == READ
    assert counted(got, "ratings", "read", path.name) == 3
    assert_conserved(got)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 0, 0], NUMBERS),
        ([1.0, 0.0, -0.0], NUMBERS),
        ([True, False, False], {"values": {"true": "helpful", "false": "not_helpful"}}),
        ([YES, NO, NO], {}),
        (pa.array([YES, NO, NO]).dictionary_encode(), {}),
    ],
)
@pytest.mark.parametrize("ids", [[7, 7, 8], [7.0, 7.0, 8.0], ["7", "7", "8"]])
def test_parquet_of_any_type_is_read(tmp_path, values, words, ids):
    path = tmp_path / "r.parquet"
    pq.write_table(
        pa.table({"user_id": ids, "guideline_id": ["g1", "g2", "g1"], "rating": values}), path
    )
    got = reading("table", path, words)
    assert cells(got) == {("7", "g1"): 1.0, ("7", "g2"): 0.0, ("8", "g1"): 0.0}
    assert_conserved(got)


def test_parquet_nulls_are_dropped_by_reason(tmp_path):
    rows = [*ROWS, (None, "g1", YES), ("u3", None, YES), ("u3", "g3", None), ("u4", "g1", "")]
    columns = dict(zip(RATINGS, map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    got = reading("table", tmp_path / "r.parquet")
    assert cells(got) == READ
    assert counted(got, "ratings", "dropped", "no user_id") == 1
    assert counted(got, "ratings", "dropped", "no guideline_id") == 1
    assert counted(got, "ratings", "dropped", "no value given") == 2
    assert_conserved(got)


def test_parquet_times_order_the_ratings(tmp_path):
    at = pa.array([1_700_000_000_000_001, 1_600_000_000_000_000], pa.timestamp("us", tz="UTC"))
    columns = {"user_id": ["u", "u"], "guideline_id": ["g", "g"], "rating": [YES, NO], "at": at}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    got = reading("table", tmp_path / "r.parquet", columns={"rated_at": "at"})
    assert cells(got) == {("u", "g"): 1.0}
    assert got.ratings["rated_at"][0] == pd.Timestamp("2023-11-14T22:13:20Z")


# columns


def test_columns_are_mapped(tmp_path):
    header = ["what", "spare", "who", "vote", "when"]
    rows = [("g1", "", "u1", "up", "2024-05-02"), ("g1", "", "u1", "down", "2024-05-01")]
    got = table(
        tmp_path / "r.csv",
        rows,
        {"values": {"up": "helpful", "down": "not_helpful"}},
        header=header,
        columns={"user_id": "who", "guideline_id": "what", "value": "vote", "rated_at": "when"},
    )
    assert cells(got) == {("u1", "g1"): 1.0}
    assert list(got.ratings["rated_at"]) == [pd.Timestamp("2024-05-02T00:00:00Z")]


@pytest.mark.parametrize("ours", ["user_id", "guideline_id", "value", "rated_at"])
def test_wrong_column_names_the_file_and_those_found(tmp_path, ours):
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    error = raised(path, columns={ours: "ratign"})
    assert_says(error, path, f"'ratign' (for {ours})", "user_id, guideline_id, rating", "Name the")


def test_guidelines_file_brings_texts_topics_and_authors(tmp_path):
    about = rows_to(
        tmp_path / "g.csv",
        ["id", "wording", "theme", "by"],
        [("g1", "Be\nbrief.", " Tone ", "u1"), ("g2", "Be kind.", "", ""), ("g3", "", "Tone", "x")],
    )
    names = {"guideline_id": "id", "text": "wording", "topic": "theme", "author_id": "by"}
    source = {"guidelines": str(about), "guideline_columns": names}
    got = table(tmp_path / "r.csv", ROWS, **source)
    assert cells(got) == READ
    assert list(got.guidelines["text"]) == ["Be\nbrief.", "Be kind.", ""]
    assert got.guidelines["topic_id"].fillna("none").tolist() == ["Tone", "none", "Tone"]
    assert list(got.topics["title"]) == ["Tone"]
    assert counted(got, "guidelines", "note", "no text") == 1
    assert_conserved(got)
    own = table(tmp_path / "r.csv", ROWS, {"self_ratings": "drop"}, **source)
    assert cells(own) == {k: v for k, v in READ.items() if k != ("u1", "g1")}
    assert_conserved(own)


def test_rating_of_a_guideline_not_in_their_file_is_dropped_and_counted(tmp_path):
    about = rows_to(tmp_path / "g.csv", ["guideline_id", "text"], [("g1", "Be brief.")])
    got = table(tmp_path / "r.csv", ROWS, guidelines=str(about), unmatched="drop")
    assert set(got.ratings["guideline_id"]) == {"g1"}
    assert counted(got, "ratings", "dropped", "not among the guidelines") == 1
    assert_conserved(got)


def test_more_than_a_few_unknown_guidelines_are_an_error_with_examples(tmp_path):
    about = rows_to(tmp_path / "g.csv", ["guideline_id", "text"], [("g-1", "x"), ("g-2", "y")])
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    says = ["3 of 3 ratings", "g.csv does not have", "'g1', 'g2'", "'g-1', 'g-2'"]
    assert_says(raised(path, guidelines=str(about)), path, *says, "source.unmatched: drop")


def test_one_unknown_guideline_in_a_hundred_is_dropped_and_counted(tmp_path):
    about = rows_to(tmp_path / "g.csv", ["guideline_id", "text"], [("g0", "x"), ("g1", "y")])
    rows = [(f"u{u}", f"g{g}", YES) for u in range(60) for g in range(2)] + [("u1", "away", NO)]
    got = table(tmp_path / "r.csv", rows, guidelines=str(about))
    assert counted(got, "ratings", "dropped", "not among the guidelines") == 1
    assert_conserved(got)


def test_without_a_guidelines_file_an_id_is_its_own_text(tmp_path):
    got = table(tmp_path / "r.csv", ROWS)
    assert list(got.guidelines["text"]) == ["g1", "g2"]
    assert got.topics.empty


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("g1", "a"), ("", "b")], ["row 2 of guidelines has no guideline_id", "give it one"]),
        ([("g1", "a"), ("g1", "b")], ["'g1' more than once", "keep one of them"]),
        ([("g1", "a"), ("g\x07", "b")], ["row 2", "'g\\x07'", "remove them"]),
    ],
)
def test_bad_guideline_names_the_guidelines_file(tmp_path, rows, says):
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    about = rows_to(tmp_path / "about.csv", ["guideline_id", "text"], rows)
    assert_says(raised(path, guidelines=str(about), unmatched="drop"), about, *says)


def test_missing_guidelines_file_is_named(tmp_path):
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    error = raised(path, guidelines=str(tmp_path / "away.csv"))
    assert_says(error, tmp_path / "away.csv", "no such file", "check source.")


# duplicates

AGAIN = [("u1", "g1", YES), ("u2", "g1", YES), ("u1", "g1", NO), ("u1", "g1", NO)]


@pytest.mark.parametrize(("duplicates", "helpful"), [("last", 0.0), ("first", 1.0)])
@pytest.mark.parametrize("many", [1, 10**9])  # ratings from which polars sorts them
def test_one_rating_of_each_pair_counts(tmp_path, monkeypatch, duplicates, helpful, many):
    monkeypatch.setattr("aggregation.data.cleaning.MANY", many)
    got = table(tmp_path / "r.csv", AGAIN, {"duplicates": duplicates})
    assert cells(got) == {("u1", "g1"): helpful, ("u2", "g1"): 1.0}
    assert counted(got, "ratings", "merged", duplicates) == 2
    assert_conserved(got)


def test_pair_rated_again_is_an_error_where_asked(tmp_path):
    path = rows_to(tmp_path / "r.csv", RATINGS, AGAIN)
    error = raised(path, {"duplicates": "error"})
    assert_says(
        error, path, "guideline 'g1' has 3 ratings by user 'u1'", "with ratings.duplicates: last"
    )
    assert cells(table(path, ROWS, {"duplicates": "error"})) == READ


def test_unknown_time_is_earlier_than_any_known(tmp_path):
    rows = [("u", "g", YES, "1970-01-02"), ("u", "g", NO, "")]
    got = table(tmp_path / "r.csv", rows, header=[*RATINGS, "at"], columns={"rated_at": "at"})
    assert cells(got) == {("u", "g"): 1.0}


# values


def test_unknown_values_are_listed_with_the_line_to_add(tmp_path):
    rows = [*ROWS, ("u3", "g1", "meh"), ("u4", "g1", "meh"), ("u5", "g1", "so so")]
    path = rows_to(tmp_path / "r.csv", RATINGS, rows)
    assert_says(
        raised(path),
        path,
        "'meh': 2 ratings",
        "'so so': 1 rating\n",
        "ratings.values",
        '"meh": helpful',
    )


@pytest.mark.parametrize(
    "word", ["0.5", "yes: no", "null", "~", "- x", "a#b", 'say "x"', "\\", "🙂", "a\u200bb", "нет"]
)
def test_line_to_add_can_be_pasted(tmp_path, word):
    from ruamel.yaml import YAML

    path = rows_to(tmp_path / "r.csv", RATINGS, [*ROWS, ("u3", "g1", word)])
    line = str(raised(path).value).splitlines()[-1]
    values = YAML(typ="safe", pure=True).load(io.StringIO(line))
    assert values == {word: "helpful"}
    values[word] = None
    got = reading("table", path, {"values": {YES: "helpful", NO: "not_helpful", **values}})
    assert cells(got) == READ
    assert counted(got, "ratings", "dropped", "left out") == 1


def test_long_unknown_value_makes_no_long_list(tmp_path):
    rows = [(f"u{k}", "g1", f"{k}" * 3000) for k in range(30)]
    path = rows_to(tmp_path / "r.csv", RATINGS, rows)
    error = raised(path)
    assert_says(error, path, "ratings.values")
    assert len(str(error.value)) < 10_000


def test_words_can_be_numbers_and_mean_numbers(tmp_path):
    rows = [("u1", "g1", "0.5"), ("u2", "g1", " 5 "), ("u3", "g1", "1"), ("u4", "g1", "skip")]
    values = {0.5: 0.5, 5: 0.25, "1": "helpful", "skip": None}
    got = table(tmp_path / "r.csv", rows, {"values": values})
    assert cells(got) == {("u1", "g1"): 0.5, ("u2", "g1"): 0.25, ("u3", "g1"): 1.0}
    assert counted(got, "ratings", "dropped", "'skip' is left out") == 1
    assert_conserved(got)


def test_ratings_all_alike_are_handled_and_noted(tmp_path):
    got = table(tmp_path / "r.csv", [("u1", "g1", YES), ("u2", "g1", YES)])
    assert cells(got) == {("u1", "g1"): 1.0, ("u2", "g1"): 1.0}
    assert counted(got, "ratings", "note", "same value") == 2
    assert counted(table(tmp_path / "r.csv", ROWS), "ratings", "note", "same value") == 0


# minima


def test_minima_are_applied_until_neither_takes_more(tmp_path):
    # a chain: without u1 g1 is too few, then u2, g2, u3; the block that it hangs on stays
    rows = [("u1", "g1", YES), ("u2", "g1", NO), ("u2", "g2", YES), ("u3", "g2", NO)]
    rows += [("u3", "h1", YES)]
    block = [(u, g, YES if u == "x" else NO) for u, g in product("xyz", ["h1", "h2"])]
    minima = {"min_per_user": 2, "min_per_guideline": 2}
    got = table(tmp_path / "r.csv", rows + block, minima)
    assert set(cells(got)) == {(u, g) for u, g, _ in block}
    assert counted(got, "ratings", "dropped", "fewer than 2") == 5
    assert_conserved(got)


def test_minima_that_leave_nothing_say_so(tmp_path):
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    error = raised(path, {"min_per_user": 3})
    assert_says(error, path, "no rating is left", "the user has fewer than 3 ratings")


# odd contents


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file_is_named(tmp_path, content):
    path = tmp_path / "r.csv"
    path.write_text(content)
    assert_says(raised(path), path, "is empty", "needs a header and rows")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_header_without_rows_is_named(tmp_path, suffix):
    path = tmp_path / f"r{suffix}"
    if suffix == ".csv":
        rows_to(path, RATINGS, [])
    else:
        pq.write_table(pa.table({name: pa.array([], "string") for name in RATINGS}), path)
    assert_says(raised(path), path, "has a header but no rows")


ODD = [
    " leading and trailing ",
    'says "yes"',
    "two\nlines",
    "two\r\nlines",
    "🙂👩‍👩‍👧‍👦",
    "שלום עולם",
    "العربية",
    "e\u0301",
    "é",
    "a,b;c\td",
    "'",
    "None",
    "nan",
    "007",
    "7",
    "1e5",
    "=1+1",
    "<b>",
    "\u2028",
]


def test_odd_ids_stay_apart_and_as_they_are(tmp_path):
    rows = [
        (u, g, YES if (i + j) % 2 else NO) for i, u in enumerate(ODD) for j, g in enumerate(ODD)
    ]
    got = table(tmp_path / "r.csv", rows)
    plain = {u.strip(" ") for u in ODD}
    told = {(u.strip(" "), g.strip(" ")): float(word == YES) for u, g, word in rows}
    assert cells(got) == told
    assert set(got.guidelines["text"]) == plain
    assert_conserved(got)
    notes = [c for c in got.counts if c.table == "ratings"]
    blank = {c.reason: c.n for c in notes if "blanks around" in c.reason}
    n = sum(odd.strip(" ") != odd.strip() for odd in ODD) * len(ODD)
    told = "{} with blanks around it: another one than without"
    assert blank == {told.format("user_id"): n, told.format("guideline_id"): n}


@pytest.mark.parametrize("key", ["user_id", "guideline_id"])
@pytest.mark.parametrize("bad", ["u\x07", "u\x85", "u\x1b[0m"])
def test_id_with_control_characters_names_its_row(tmp_path, key, bad):
    row = dict(zip(RATINGS, ROWS[0], strict=True)) | {key: bad}
    path = rows_to(tmp_path / "r.csv", RATINGS, [*ROWS, tuple(row.values())])
    assert_says(raised(path), path, "row 4", key, repr(bad), "remove them")


def test_long_text_is_kept_whole_and_noted(tmp_path):
    text = "long " * 200_000
    about = rows_to(tmp_path / "g.csv", ["guideline_id", "text"], [("g1", text), ("g2", "x")])
    got = table(tmp_path / "r.csv", ROWS, guidelines=str(about))
    assert got.guidelines["text"][0] == text
    assert counted(got, "guidelines", "note", "longer than 2,000") == 1


def test_long_id_makes_no_long_message(tmp_path):
    rows = [("u" * 1_000_000, "g" * 1_000_000, YES)] * 2
    path = rows_to(tmp_path / "r.csv", RATINGS, rows)
    error = raised(path, {"duplicates": "error"})
    assert_says(error, path, "has 2 ratings", "ratings.duplicates: last")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "user_id,guideline_id,rating\nu,g\n",
            ["Row #2: Expected 3 columns, got 2", "mend the row"],
        ),
        ('user_id,guideline_id,rating\nu,"g,helpful\n', ["line ", "mend the quotes"]),
        ("user_id,guideline_id,rating,rating\nu,g,1,1\n", ["'rating'", "rename one"]),
        ("user;guideline_id;rating\nu;g;1\n", ["no column 'user_id'", "perhaps 'user'"]),
    ],
)
def test_broken_rows_are_named(tmp_path, content, says):
    path = tmp_path / "r.csv"
    path.write_text(content)
    assert_says(raised(path), path, *says)


def test_bad_time_names_its_row(tmp_path):
    path = rows_to(tmp_path / "r.csv", [*RATINGS, "at"], [(*ROWS[0], ""), (*ROWS[1], "today")])
    error = raised(path, columns={"rated_at": "at"})
    assert_says(error, path, "row 2", "'today'", "write ISO 8601")


# properties

# every id that can be stored: no controls and no halves of surrogate pairs, but \t, \n and \r
ID = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\n\r"),
    min_size=1,
    max_size=5,
).filter(lambda text: text.strip(" "))


def plain_pair(row):
    """User and guideline as they are read."""
    return row[0].strip(" "), row[1].strip(" ")


FEW = st.sampled_from(["a", "A", "á", "a ", "\u200b", "🙂"])
RATING = st.tuples(ID | FEW, ID | FEW, st.sampled_from([YES, NO]))


@settings(max_examples=25)
@given(st.lists(RATING, min_size=1, max_size=25))
@example([("a", "\r", YES), ("a", "\r", NO), ("a", "\n", YES)])
def test_last_rating_of_each_pair_is_kept_exactly(file, rows):
    got = table(file, rows)
    told = {(u.strip(" "), g.strip(" ")): float(word == YES) for u, g, word in rows}
    assert cells(got) == told
    assert set(got.users["user_id"]) == {u for u, _ in told}
    assert set(got.guidelines["guideline_id"]) == {g for _, g in told}
    assert_conserved(got)


@settings(max_examples=15)
@given(st.data())
def test_order_of_rows_is_no_matter(file, data):
    rows = data.draw(
        st.lists(
            RATING, min_size=1, max_size=15, unique_by=lambda r: (r[0].strip(" "), r[1].strip(" "))
        )
    )
    plain, turned = (table(file, r) for r in (rows, data.draw(st.permutations(rows))))
    for name in ("ratings", "guidelines", "users", "topics"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(turned, name))
    assert plain.counts == turned.counts


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u3", ""]),
            st.sampled_from(["g1", "g2", "g3", "elsewhere", ""]),
            st.sampled_from([YES, NO, "unsure", "", " "]),
            st.sampled_from(["", "2024-05-01", "2024-05-02", "1714521600"]),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from(["last", "first"]),
    st.sampled_from(["keep", "drop"]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_rows_are_conserved_whatever_is_dropped(file, rows, duplicates, own, least, most):
    about = rows_to(
        file.with_name("about.csv"),
        ["guideline_id", "text", "topic", "author"],
        [("g1", "x", "T", "u1"), ("g2", "y", "", ""), ("g3", "z", "T", "u2"), ("g2", "y", "", "")],
    )
    choices = {
        "values": {YES: "helpful", NO: "not_helpful", "unsure": None},
        "duplicates": duplicates,
        "self_ratings": own,
        "min_per_user": least,
        "min_per_guideline": most,
    }
    got, message = attempt(
        table,
        file,
        rows,
        choices,
        header=[*RATINGS, "at"],
        columns={"rated_at": "at"},
        guidelines=str(about),
        guideline_columns={"topic": "topic", "author_id": "author"},
        unmatched="drop",
    )
    if message:
        assert f"{file}: no rating is left" in message
    else:
        assert_conserved(got)
        assert counted(got, "ratings", "read") == len(rows)
        sizes = [got.ratings.groupby(k).size().min() for k in ("user_id", "guideline_id")]
        assert (sizes[0] >= least, sizes[1] >= most) == (True, True)


def read_or_named(path, **source):
    """The property of every file, whatever its bytes: it is read, or an InputError names it."""
    got, message = attempt(reading, "table", path, **source)
    if message:
        assert str(path) in message
        assert len(message.encode()) < 5000
    else:
        assert_conserved(got)


@settings(max_examples=60)
@given(
    st.sampled_from([".csv", ".tsv", ".parquet"]),
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"", b"user_id,guideline_id,rating\n", b"user_id\tguideline_id\trating\n"]),
)
@example(".csv", b"\xef\xbb\xbf", b"")
@example(".parquet", b"PAR1" * 10, b"")
def test_any_bytes_are_read_or_named(file, suffix, content, header):
    path = file.with_name(f"fuzz{suffix}")
    path.write_bytes(header + content)
    read_or_named(path)


@settings(max_examples=40)
@given(st.data())
def test_damaged_csv_is_read_or_named(file, data):
    text = io.StringIO(newline="")
    rows = [(*row, at) for row, at in zip(ROWS, ["", "2024-05-01", "1714521600"], strict=True)]
    csv.writer(text).writerows([[*RATINGS, "at"], *rows])
    content = bytearray(text.getvalue().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = file.with_name("damaged.csv")
    path.write_bytes(content)
    read_or_named(path, columns={"rated_at": "at"})


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_parquet_is_read_or_named(file, damage):
    path = file.with_name("damaged.parquet")
    pq.write_table(pa.table(dict(zip(RATINGS, zip(*ROWS, strict=True), strict=True))), path)
    content = bytearray(path.read_bytes())
    for at, byte in damage:
        content[at % len(content)] = byte
    path.write_bytes(content)
    read_or_named(path)


def test_a_blank_does_not_take_an_earlier_rating_back(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user_id,guideline_id,rating\nu,g,helpful\nu,g,\nv,g,not_helpful\n")
    s = sections(source={"kind": "table", "path": str(path)}, ratings={})
    kept = read(s.source, s.ratings).ratings
    assert kept["user_id"].tolist() == ["u", "v"]
    assert kept["helpful"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("date", ["2024", "20240531"])
def test_a_date_without_dashes_is_not_taken_for_seconds(tmp_path, date):
    path = tmp_path / "ratings.csv"
    path.write_text(f"user_id,guideline_id,rating,at\nu,g,helpful,{date}\n")
    s = sections(
        source={"kind": "table", "path": str(path), "columns": {"rated_at": "at"}}, ratings={}
    )
    with pytest.raises(InputError, match=rf"ratings.csv.*row 1: '{date}' is no time: write ISO"):
        read(s.source, s.ratings)


# what users declared


def test_answers_of_users_are_read_and_counted(tmp_path):
    said = [("u1", "20-29", "x"), ("u2", " ", "x"), ("u9", "30-39", "x")]
    path = rows_to(tmp_path / "users.csv", ["who", "age", "secret"], said)
    names = {"user_id": "who", "answers": ["age"]}
    got = table(tmp_path / "r.csv", ROWS, users=str(path), user_columns=names)
    assert got.answers.to_dict("records") == [
        {"user_id": "u1", "question": "age", "answer": "20-29"}
    ]
    assert counted(got, "answers", "read", "users.csv") == 3
    assert counted(got, "answers", "dropped", "no answer") == 1
    assert counted(got, "answers", "dropped", "of nobody who rated") == 1
    assert_conserved(got)


@pytest.mark.parametrize(
    ("rows", "answers", "says"),
    [
        ([("u1", "a")], [], ["source.user_columns.answers", "user_id, age"]),
        ([("u1", "a")], ["sex"], ["no column 'sex'"]),
        ([("u1", "a"), ("u1", "b")], ["age"], ["'u1' gives 'age' twice", "keep one row"]),
    ],
)
def test_answers_that_cannot_be_used_name_their_file(tmp_path, rows, answers, says):
    users = rows_to(tmp_path / "users.csv", ["user_id", "age"], rows)
    path = rows_to(tmp_path / "r.csv", RATINGS, ROWS)
    assert_says(raised(path, users=str(users), user_columns={"answers": answers}), users, *says)


def test_flagged_users_are_dropped_where_that_is_wanted(tmp_path):
    rows = [(f"u{u}", f"g{g}", YES if (g + u) % 3 else NO) for u in range(12) for g in range(30)]
    rows = [(u, g, NO if u == "u5" else r) for u, g, r in rows]
    kept = table(tmp_path / "r.csv", rows)
    dropped = table(tmp_path / "r.csv", rows, {"flagged": "drop"})
    assert "u5" in set(kept.ratings["user_id"]) - set(dropped.ratings["user_id"])
    assert counted(dropped, "ratings", "dropped", "flagged: straight liner") == 30
    assert_conserved(dropped)
