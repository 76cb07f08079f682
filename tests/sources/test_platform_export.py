"""Platform export: what it says is read, what it lacks is named by record."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from worlds import assert_conserved, assert_says, attempt, cells, counted, export_to, reading

from aggregation import InputError, World, read, sections, simulate

G1 = {"id": "g1", "value": "Be brief."}
R1 = {"id": "r1", "authorId": "u1", "guidelineId": "g1", "rating": "helpful"}
LISTS = ("topics", "guidelines", "ratings", "users")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A path to write to again and again."""
    return tmp_path_factory.mktemp("platform") / "export.json"


def platform(path, choices=None, /, **changes):
    """Write the small export of `worlds` with these changes, and read it."""
    return reading("platform-file", export_to(path, **changes), choices)


def raised(path, content=None, **changes):
    """The InputError that the file raises."""
    if content is None:
        export_to(path, **changes)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        reading("platform-file", path)
    return error


def test_simulated_export_makes_the_round_trip(file):
    export = simulate(7, World(40)).export
    file.write_text(json.dumps(export), encoding="utf-8")
    got = reading("platform-file", file)
    assert cells(got) == {
        (r["authorId"], r["guidelineId"]): float(r["rating"] == "helpful")
        for r in export["ratings"]
    }
    for table, pairs in {
        "guidelines": {"guideline_id": "id", "text": "value", "topic_id": "topicId"},
        "topics": {"topic_id": "id", "title": "title", "description": "description"},
        "users": {"user_id": "id"},
    }.items():
        rows = sorted(export[table], key=lambda row: row["id"])
        for ours, theirs in pairs.items():
            assert list(getattr(got, table)[ours]) == [r[theirs] for r in rows], (table, ours)
    at = {
        (r["authorId"], r["guidelineId"]): pd.Timestamp(r["createdAt"]) for r in export["ratings"]
    }
    pairs = zip(got.ratings["user_id"], got.ratings["guideline_id"], strict=True)
    assert list(got.ratings["rated_at"]) == [at[pair] for pair in pairs]
    assert not got.about.simulated
    assert_conserved(got)


def test_simulated_source_is_the_simulated_export_and_says_so(file):
    file.write_text(json.dumps(simulate(3, World(25)).export), encoding="utf-8")
    from_file = reading("platform-file", file)
    given = sections(source={"kind": "simulated", "n_users": 25}, ratings={})
    got = read(given.source, given.ratings, seed=3)
    assert cells(got) == cells(from_file)
    assert got.about.simulated
    assert "nobody said" in got.about.origin
    assert_conserved(got)


@pytest.mark.parametrize("table", LISTS)
def test_nulls_in_lists_are_dropped_and_counted(file, table):
    plain = platform(file)
    whole = json.loads(file.read_text())
    got = platform(file, **{table: [None, *whole[table], None]})
    assert counted(got, table, "dropped", "null") == 2
    assert counted(got, table, "read") == len(whole[table]) + 2
    assert cells(got) == cells(plain)
    pd.testing.assert_frame_equal(got.guidelines, plain.guidelines)
    assert_conserved(got)


def test_unknown_fields_are_ignored(file):
    plain = platform(file)
    whole = json.loads(file.read_text())
    more = {
        name: [row | {"sparkline": [1, {"a": None}], "text": "x"} for row in whole[name]]
        for name in LISTS
    }
    got = platform(file, version=3, deleted=[{}], **more)
    for name in LISTS:
        pd.testing.assert_frame_equal(getattr(got, name), getattr(plain, name))
    assert got.counts == plain.counts


def test_lists_that_are_absent_or_null_are_empty(file):
    got = platform(file, topics=None, users=None, guidelines=[G1, {"id": "g2", "value": "x"}])
    assert got.topics.empty
    assert list(got.users["user_id"]) == ["u1", "u2"]
    assert counted(got, "users", "added", "named only by their ratings") == 2
    assert_conserved(got)


def test_updated_time_counts_before_the_created_one(file):
    old = R1 | {"createdAt": "2024-01-02T00:00:00Z"}
    new = R1 | {"rating": "not_helpful", "createdAt": "2024-01-01", "updatedAt": "2024-01-03"}
    got = platform(file, ratings=[new, old], guidelines=[G1])
    assert cells(got) == {("u1", "g1"): 0.0}
    assert list(got.ratings["rated_at"]) == [pd.Timestamp("2024-01-03T00:00:00Z")]


def test_numbers_serve_as_ids(file):
    got = platform(
        file,
        topics=[{"id": 5, "title": "T"}],
        guidelines=[{"id": 1, "value": "x", "topicId": 5}],
        ratings=[{"authorId": 7, "guidelineId": 1, "rating": "helpful"}],
        users=[{"id": 7}],
    )
    assert cells(got) == {("7", "1"): 1.0}
    assert list(got.guidelines["topic_id"]) == ["5"]


def test_user_without_ratings_stays(file):
    got = platform(file, users=[{"id": "u1"}, {"id": "u2"}, {"id": "silent"}])
    assert list(got.users["user_id"]) == ["silent", "u1", "u2"]


def test_earlier_model_is_read_and_an_empty_list_is_none(file):
    guidelines = [
        G1 | {"embeddings": [0.5, -1], "intercept": 0.25},
        {"id": "g2", "value": "x", "embeddings": [], "intercept": None},
    ]
    got = platform(
        file,
        mu=0.125,
        guidelines=guidelines,
        users=[{"id": "u1", "embeddings": [2], "intercept": 3}],
    )
    assert got.mu == 0.125
    assert list(got.guidelines["embedding"]) == [[0.5, -1.0], None]
    assert got.guidelines["intercept"][0] == 0.25
    assert got.guidelines["intercept"].isna().tolist() == [False, True]
    assert got.users.set_index("user_id").loc["u1", ["intercept", "embedding"]].tolist() == [3, [2]]
    assert got.users["embedding"].isna().tolist() == [False, True]  # u2: named by ratings only


def test_topics_form_a_tree_and_lost_parents_are_noted(file):
    topics = [
        {"id": "leaf", "title": "C", "parentId": "branch"},
        {"id": "branch", "title": "B", "parentId": "root"},
        {"id": "root", "title": "A", "parentId": None},
        {"id": "orphan", "title": "D", "parentId": "gone"},
    ]
    got = platform(file, topics=topics)
    above = dict(zip(got.topics["topic_id"], got.topics["parent_id"], strict=True))
    assert (above["leaf"], above["branch"]) == ("branch", "root")
    assert pd.isna(above["root"])
    assert pd.isna(above["orphan"])
    assert counted(got, "topics", "note", "parent_id unknown") == 1
    assert counted(got, "guidelines", "note", "topic_id unknown") == 2  # t1 is not there
    assert got.guidelines["topic_id"].isna().all()


@pytest.mark.parametrize("ring", ["a", "abc"])
def test_topic_within_itself_is_named(file, ring):
    topics = [{"id": i, "title": i, "parentId": ring[k - 1]} for k, i in enumerate(ring)]
    error = raised(file, topics=[{"id": "fine", "title": "x"}, *topics])
    assert_says(error, file, "topic 'a' lies within itself", "mend its parent")


def test_blank_fields_are_counted_like_blank_cells_of_a_table(file):
    ratings = [R1, R1 | {"authorId": ""}, R1 | {"guidelineId": ""}, R1 | {"rating": ""}]
    got = platform(file, guidelines=[G1 | {"value": ""}], ratings=ratings)
    assert cells(got) == {("u1", "g1"): 1.0}
    assert counted(got, "ratings", "dropped") == 3
    assert counted(got, "guidelines", "note", "no text") == 1
    assert_conserved(got)


# broken records

REQUIRED = [
    ("ratings", {"authorId": "u1", "guidelineId": "g1", "rating": "helpful"}),
    ("guidelines", {"id": "g1", "value": "x"}),
    ("users", {"id": "u1"}),
    ("topics", {"id": "t1", "title": "x"}),
]


@pytest.mark.parametrize(("table", "key"), [(t, key) for t, row in REQUIRED for key in row])
def test_missing_required_field_names_its_record(file, table, key):
    row = dict(REQUIRED)[table]
    error = raised(file, **{table: [None, row, {k: v for k, v in row.items() if k != key}]})
    assert_says(error, file, f"{table}.2.{key}: Field required", "mend the record, or download")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("ratings", "authorId"),
        ("ratings", "createdAt"),
        ("guidelines", "value"),
        ("guidelines", "topicId"),
        ("topics", "parentId"),
    ],
)
@pytest.mark.parametrize("bad", [True, [], {"a": 1}])
def test_field_that_is_no_text_names_its_record(file, table, key, bad):
    error = raised(file, **{table: [dict(REQUIRED)[table] | {key: bad}]})
    assert_says(error, file, f"{table}.0.{key}: ", f"found {bad}", "mend the record")


@pytest.mark.parametrize("table", ["guidelines", "users"])
@pytest.mark.parametrize(
    ("key", "bad", "place"),
    [
        ("intercept", "0.5", ""),
        ("intercept", True, ""),
        ("intercept", 1e160, ""),
        ("intercept", -1.5e6, ""),
        ("intercept", 10**400, ""),
        ("intercept", float("inf"), ""),
        ("intercept", float("nan"), ""),
        ("embeddings", 0.5, ""),
        ("embeddings", {"0": 1}, ""),
        ("embeddings", [0.5, "x"], ".1"),
        ("embeddings", [None], ".0"),
        ("embeddings", [[0.5]], ".0"),
        ("embeddings", [0.5, 1e160], ".1"),
        ("embeddings", [float("-inf")], ".0"),
        ("embeddings", [float("nan")], ".0"),
    ],
)
def test_earlier_model_that_no_fit_can_start_from_names_its_record(file, table, key, bad, place):
    error = raised(file, **{table: [None, dict(REQUIRED)[table] | {key: bad}]})
    assert_says(error, file, f"{table}.1.{key}{place}: Input should be", "mend the record")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("bad", ["0.1", [], False, -(10**400), 1e160, float("nan"), float("inf")])
def test_mu_that_no_fit_can_start_from_is_named(file, bad):
    assert_says(raised(file, mu=bad), file, "mu: Input should be", "mend the record")


def test_earlier_model_as_large_as_allowed_is_read(file):
    got = platform(file, mu=-1e6, users=[{"id": "u1", "intercept": 1e6, "embeddings": [-1e6]}])
    assert (got.mu, got.users["intercept"][0], got.users["embedding"][0]) == (-1e6, 1e6, [-1e6])


@pytest.mark.parametrize("table", LISTS)
@pytest.mark.parametrize("bad", [3, "x", [1]])
def test_record_of_another_type_is_named(file, table, bad):
    error = raised(file, **{table: [None, bad]})
    assert_says(error, file, f"{table}.1: ", "mend the record, or download the export again")


@pytest.mark.parametrize("table", ["topics", "guidelines", "users"])
@pytest.mark.parametrize("bad", [{"a": 1}, "x", 0, False])
def test_list_of_another_type_is_named(file, table, bad):
    error = raised(file, **{table: bad})
    assert_says(error, file, f"{table}: Input should be a valid", "download the export again")


def test_bad_time_names_its_place_in_the_list(file):
    error = raised(file, ratings=[None, R1, None, R1 | {"createdAt": "yesterday"}])
    assert_says(error, file, "row 4", "'yesterday' is no time", "write ISO 8601")


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("users", [{"id": "x", "intercept": 1}, {"id": "x", "intercept": 2}]),
        ("guidelines", [{"id": "x", "value": "a"}, {"id": "x", "value": "b"}]),
        ("topics", [{"id": "x", "title": "a"}, {"id": "x", "title": "b"}]),
    ],
)
def test_id_with_two_meanings_is_named(file, table, rows):
    assert_says(raised(file, **{table: rows}), file, table, "'x' more than once", "keep one")


@pytest.mark.parametrize("table", ["users", "guidelines", "topics"])
def test_same_record_again_is_merged(file, table):
    plain = platform(file)
    whole = json.loads(file.read_text())
    got = platform(file, **{table: whole[table] * 2})
    pd.testing.assert_frame_equal(getattr(got, table), getattr(plain, table))
    assert counted(got, table, "merged", "the same row again") == len(whole[table])
    assert_conserved(got)


def test_unknown_rating_word_is_named_with_the_line_to_add(file):
    error = raised(file, ratings=[R1, R1 | {"rating": "somewhat"}, R1 | {"guidelineId": "away"}])
    # of a pair only its last rating counts
    assert_says(error, file, "'somewhat': 1 rating\n", "ratings.values", '"somewhat": helpful')


# lone surrogates


def test_lone_surrogates_in_texts_are_replaced_and_counted(file):
    content = json.dumps(
        {
            "topics": [{"id": "t", "title": "a\ud800", "description": "b\udfff"}],
            "guidelines": [{"id": "g1", "value": "x \ud800 \ud83d\ude00 y", "topicId": "t"}],
            "ratings": [R1],
        }
    )
    assert "\\ud800" in content
    file.write_text(content)
    got = reading("platform-file", file)
    assert list(got.guidelines["text"]) == ["x \ufffd \U0001f600 y"]
    assert got.topics.loc[0, ["title", "description"]].tolist() == ["a\ufffd", "b\ufffd"]
    assert counted(got, "guidelines", "note", "cannot be shown") == 1
    got.guidelines.to_csv(file.with_suffix(".csv"))  # it can be written


def test_half_of_a_pair_is_told_from_a_whole_pair_and_from_a_backslash(file):
    text = r"\\ud800 \ud83d\ude00 \ude00\ud83d \\\ud800 \u00e9"
    file.write_text(export_to(file).read_text().replace("Be brief.", text))
    got = reading("platform-file", file)
    assert got.guidelines["text"][0] == "\\ud800 \U0001f600 \ufffd\ufffd \\\ufffd \xe9"


@pytest.mark.parametrize(
    ("table", "key"), [("ratings", "authorId"), ("guidelines", "id"), ("topics", "id")]
)
@pytest.mark.parametrize("bad", ["u\0", "u\x1b[31m"])
def test_id_with_control_characters_names_its_record(file, table, key, bad):
    error = raised(file, **{table: [None, dict(REQUIRED)[table] | {key: bad}]})
    assert_says(error, file, f"row 2 of {table}", "holds control characters", "remove them")
    assert str(error.value).isprintable()


# broken files


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_is_no_matter(file, mark):
    export_to(file)
    file.write_bytes(mark + file.read_bytes())
    assert len(cells(reading("platform-file", file))) == 3


WHOLE = json.dumps({"guidelines": [G1 | {"value": "größer"}], "ratings": [R1]}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["line 1 column", "is no JSON", "download the export again"]),
        (WHOLE.encode()[:-9], ["line 1 column", "is no JSON", "download the export again"]),
        (b'{\n"ratings": [],,}', ["line 2 column", "is no JSON", "download the export again"]),
        (b'{"mu": ' + b"9" * 5000 + b"}", ["is no JSON", "download the export again"]),
        (b"[" * 100_000 + b"]" * 100_000, ["is no JSON", "recursion limit"]),
        (b'{"a":' * 100_000, ["is no JSON", "recursion limit"]),
        (WHOLE.encode("latin-1"), ["line 1", "no UTF-8 text", "save it as UTF-8"]),
        (WHOLE.encode("utf-16"), ["byte 3 is zero", "save it as UTF-8"]),
        (b"\x1f\x8b\x08\x00\x00", ["byte 3 is zero", "unpack it"]),
        (b"[]", ["Input should be an object", "give the answer of GET /exports"]),
        (b"null", ["Input should be an object", "give the answer of GET /exports"]),
        (b'{"ratings": {"r1": {}}}', ["ratings: Input should be a valid array", "GET /exports"]),
        (b'{"error": "forbidden"}', ["ratings: Field required", "GET /exports"]),
        (b'{"guidelines": []}', ["ratings: Field required", "GET /exports"]),
        (b'{"ratings": []}', ["no rating is left"]),
    ],
)
def test_file_that_is_no_export_is_named(file, content, says):
    error = raised(file, content)
    assert_says(error, file, *says)
    assert len(str(error.value)) < 1000


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as error:
        reading("platform-file", tmp_path / "away.json")
    assert_says(error, tmp_path / "away.json", "no such file", "check source.path")


# anything

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["g1", "u1", "helpful", "not_helpful", "t1", "2024-05-31", "now"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def record(**good):
    """Mostly the good values, sometimes anything, sometimes nothing."""
    fields = {k: st.one_of(v, v, v, ANY) for k, v in good.items()}
    more = dict.fromkeys(("embeddings", "intercept", "createdAt", "description"), ANY)
    return st.one_of(
        st.fixed_dictionaries(good),
        st.fixed_dictionaries(good),
        st.fixed_dictionaries({}, optional=fields | more),
        ANY,
    )


ID = st.sampled_from(["1", "2", "3"])
EXPORT = st.fixed_dictionaries(
    {
        "ratings": st.lists(
            record(authorId=ID, guidelineId=ID, rating=st.sampled_from(["helpful", "not_helpful"])),
            max_size=6,
        ),
        "guidelines": st.lists(record(id=ID, value=st.just("x"), topicId=ID), max_size=4),
    },
    optional={
        "users": st.lists(record(id=ID), max_size=3) | ANY,
        "topics": st.lists(record(id=ID, title=st.just("x"), parentId=ID), max_size=3) | ANY,
        "mu": ANY,
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(EXPORT)
def test_any_export_is_read_and_conserved_or_named(file, export):
    file.write_text(json.dumps(export), encoding="utf-8")
    got, message = attempt(reading, "platform-file", file)
    if message:
        assert str(file) in message
        assert len(message.encode()) < 5000
    else:
        assert_conserved(got)
        for name in LISTS:
            getattr(got, name).to_csv()


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u3"]),
            st.sampled_from(["g1", "g2", "elsewhere"]),
            st.sampled_from(["helpful", "not_helpful", "unsure"]),
            st.sampled_from([None, "2024-05-01", "2024-05-02", 1714521600]),
        )
        | st.none(),
        max_size=20,
    ),
    st.sampled_from(["last", "first"]),
    st.sampled_from(["keep", "drop"]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_ratings_are_conserved_whatever_is_dropped(file, rows, duplicates, own, least, most):
    keys = ("authorId", "guidelineId", "rating", "createdAt")
    ratings = [None if row is None else dict(zip(keys, row, strict=True)) for row in rows]
    choices = {
        "values": {"helpful": "helpful", "not_helpful": "not_helpful", "unsure": None},
        "duplicates": duplicates,
        "self_ratings": own,
        "min_per_user": least,
        "min_per_guideline": most,
    }
    guidelines = [G1 | {"authorId": "u1"}, None, G1 | {"id": "g2"}, G1 | {"id": "g2"}]
    got, message = attempt(
        platform, file, choices, ratings=ratings, guidelines=guidelines, topics=[]
    )
    if message:
        assert f"{file}: no rating is left" in message
    else:
        assert_conserved(got)
        assert got.ratings["helpful"].isin([0, 1]).all()


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_any_bytes_are_named(file, content):
    assert_says(raised(file, content), file)


@settings(max_examples=40)
@given(st.data())
def test_damaged_export_is_read_or_named(file, data):
    content = bytearray(WHOLE.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    got, message = attempt(reading, "platform-file", file)
    if message:
        assert str(file) in message
    else:
        assert_conserved(got)
