"""Platform file: three ways to write one deliberation are one Dataset; what is none is named."""

import json

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from worlds import assert_conserved, assert_says, cells, counted, export_to, reading, rows_to

from aggregation import InputError, World, simulate
from aggregation.data.choices import Choices
from aggregation.sources.platform_export import read_export

CHOICES = Choices({"helpful": 1.0, "not_helpful": 0.0})
TABLES = ("ratings", "guidelines", "users", "topics")
HEADERS = {
    "topics": ["id", "title", "description", "parentId"],
    "guidelines": ["id", "value", "topicId", "author_id"],
    "ratings": ["id", "rating", "guidelineId", "author_id", "created_at"],
}
SPELT = {"author_id": "authorId", "created_at": "createdAt"}


def as_tree(export):
    """The export as the download page's JSON."""
    topics = {
        t["id"]: {"title": t["title"], "description": t["description"], "space_id": "s"}
        for t in export["topics"]
    }
    ratings = {}
    for r in export["ratings"]:
        record = {"rating": r["rating"], "author_id": r["authorId"], "created_at": r["createdAt"]}
        ratings.setdefault(r["guidelineId"], {})[r["id"]] = record
    for g in export["guidelines"]:
        record = {"value": g["value"], "author_id": g.get("authorId"), "ratings": ratings[g["id"]]}
        topics[g["topicId"]].setdefault("guidelines", {})[g["id"]] = record
    for t in export["topics"]:
        if t.get("parentId"):
            topics[t["parentId"]].setdefault("children", {})[t["id"]] = topics[t["id"]]
    return {t["id"]: topics[t["id"]] for t in export["topics"] if not t.get("parentId")}


def as_tables(folder, export, names=None):
    """The export as the download page's three CSV files."""
    folder.mkdir(exist_ok=True)
    for table, header in HEADERS.items():
        rows = [[row.get(SPELT.get(c, c)) for c in header] + ["more"] for row in export[table]]
        rows_to(folder / (names or {}).get(table, f"{table}.csv"), [*header, "space"], rows)
    return folder


def tree_to(path, **changes):
    """A tree of two topics, one guideline and two ratings; `changes` to the guideline."""
    ratings = {
        "r1": {"rating": "helpful", "author_id": "u1", "created_at": "2024-05-01"},
        "r2": {"rating": "not_helpful", "author_id": "u2", "updated_at": "2024-05-02"},
    }
    guideline = {"value": "Be brief.", "ratings": ratings} | changes
    leaf = {"title": "B", "description": "b", "guidelines": {"g1": guideline}, "children": None}
    tree = {"t1": {"title": "A", "sparkline": [1], "guidelines": {}, "children": {"t2": leaf}}}
    path.write_text(json.dumps(tree))
    return path


def raised(path):
    with pytest.raises(InputError) as error:
        reading("platform-file", path)
    assert len(str(error.value).splitlines()) <= 3
    return error


# one deliberation


@settings(max_examples=5)
@given(st.integers(0, 10**6), st.integers(3, 40), st.booleans())
def test_three_forms_of_a_deliberation_are_one_dataset(tmp_path_factory, seed, users, renamed):
    export = simulate(seed, World(users)).export
    rated = {r["guidelineId"] for r in export["ratings"]}
    export["guidelines"] = [
        g | {"authorId": f"a{k % 5}", "value": f'{g["value"]}, "so"\nit is\u2028 \U0001f600'}
        for k, g in enumerate(export["guidelines"])
        if g["id"] in rated
    ]
    export["ratings"].append(export["ratings"][0] | {"id": "again", "rating": "helpful"})
    folder = tmp_path_factory.mktemp("forms")
    (folder / "a.json").write_text(json.dumps(export, ensure_ascii=False), encoding="utf-8")
    (folder / "b.json").write_text(json.dumps(as_tree(export)), encoding="utf-8")
    names = {"topics": "guidelines.csv", "guidelines": "1.CSV", "ratings": "topics.csv"}
    as_tables(folder / "c", export, names if renamed else None)
    plain = read_export(export, CHOICES, "parsed")
    assert plain.topics["parent_id"].notna().any()
    for form in ("a.json", "b.json", "c"):
        got = reading("platform-file", folder / form)
        assert_conserved(got)
        assert got.mu is None
        for table in TABLES:
            pd.testing.assert_frame_equal(getattr(got, table), getattr(plain, table), obj=form)
        assert counted(got, "ratings", "merged", "rated again") == 1


def test_read_from_disk_is_what_is_read_from_memory(tmp_path):
    path = export_to(tmp_path / "a.json", ratings=[None, *simulate(1, World(5)).export["ratings"]])
    whole = json.loads(path.read_text()) | {
        "mu": 0.5,
        "guidelines": [{"id": f"g{k:03}", "value": "x", "embeddings": [k]} for k in range(40)],
    }
    path.write_text(json.dumps(whole))
    got, plain = read_export(path, CHOICES, "here"), read_export(whole, CHOICES, "here")
    assert (got.mu, got.about, got.counts) == (plain.mu, plain.about, plain.counts)
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(got, table), getattr(plain, table))


@pytest.mark.parametrize("first", [{"version": {"major": 1}}, {"page": 3}, {"mu": None}])
def test_export_is_known_behind_fields_that_nobody_knows(tmp_path, first):
    whole = json.loads(export_to(tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(first | whole))
    assert len(cells(reading("platform-file", tmp_path / "a.json"))) == 3


# tree


def test_tree_is_read_with_nulls_counted_and_unknown_fields_ignored(tmp_path):
    ratings = {
        "r1": {"rating": "helpful", "author_id": 7, "guideline": "no", "created_at": 1714521600},
        "r2": None,
    }
    got = reading("platform-file", tree_to(tmp_path / "a.json", ratings=ratings, id="no"))
    assert cells(got) == {("7", "g1"): 1.0}
    assert got.ratings["rated_at"][0] == pd.Timestamp("2024-05-01T00:00:00Z")
    assert got.guidelines.loc[0, ["guideline_id", "topic_id"]].tolist() == ["g1", "t2"]
    assert got.topics["parent_id"].fillna("none").tolist() == ["none", "t1"]
    assert counted(got, "ratings", "dropped", "null") == 1
    assert counted(got, "users", "added", "named only by their ratings") == 1
    assert_conserved(got)


@pytest.mark.parametrize("gone", ["guidelines", "topics"])
def test_null_in_a_tree_is_counted(tmp_path, gone):
    tree = json.loads(tree_to(tmp_path / "a.json").read_text())
    tree["t1"]["children" if gone == "topics" else "guidelines"]["none"] = None
    (tmp_path / "a.json").write_text(json.dumps(tree))
    got = reading("platform-file", tmp_path / "a.json")
    assert counted(got, gone, "dropped", "null") == 1
    assert_conserved(got)


def chain(depth):
    """A tree of that many topics within each other."""
    opened = "".join(f'{{"d{k}": {{"title": "x", "children": ' for k in range(depth))
    return f"{opened}null{'}}' * depth}"


@pytest.mark.parametrize(
    ("depth", "says"), [(60, "more than 50 deep"), (20_000, "recursion limit")]
)
def test_tree_deeper_than_a_page_can_show_is_refused(tmp_path, depth, says):
    (tmp_path / "a.json").write_text(chain(depth))
    assert_says(raised(tmp_path / "a.json"), tmp_path / "a.json", says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": None}, ["t1.children.t2.guidelines.g1.value: Input should be a valid string"]),
        ({"author_id": []}, ["guidelines.g1.author_id: ", "found []"]),
        ({"ratings": []}, ["guidelines.g1.ratings: Input should be", "mend the record"]),
        ({"ratings": {"r1": 3}}, ["g1.ratings.r1: ", "found 3"]),
        ({"ratings": {"r1": {"rating": "helpful"}}}, ["ratings.r1.authorId: Field required"]),
        ({"ratings": {"r1": {"author_id": "u"}}}, ["ratings.r1.rating: Field required"]),
        (
            {"ratings": {"r1": {"rating": "helpful", "author_id": "u", "created_at": "now"}}},
            ["row 1", "'now' is no time"],
        ),
    ],
)
def test_broken_record_of_a_tree_is_named(tmp_path, changes, says):
    path = tree_to(tmp_path / "a.json", **changes)
    assert_says(raised(path), path, *says)


def test_key_that_cannot_be_shown_is_written_as_code(tmp_path):
    path = tree_to(tmp_path / "a.json", ratings={"r\x1b[31m": {"author_id": "u"}})
    assert_says(raised(path), path, "r\\x1b[31m.rating")


@pytest.mark.parametrize("table", ["guidelines", "topics"])
def test_id_at_two_places_of_a_tree_is_named(tmp_path, table):
    tree = json.loads(tree_to(tmp_path / "a.json").read_text())
    tree["t3"] = {"title": "C", "guidelines": {"g1": {"value": "x"}}}
    if table == "topics":
        tree["t3"] = {"title": "C", "children": {"t2": {"title": "x"}}}
    (tmp_path / "a.json").write_text(json.dumps(tree))
    said = "'g1'" if table == "guidelines" else "'t2'"
    assert_says(raised(tmp_path / "a.json"), table, f"{said} more than once")


# CSV

G1 = {"id": "g1", "value": "Be brief, be kind", "topicId": "t1"}
R1 = {"id": "r1", "rating": "helpful", "guidelineId": "g1", "authorId": "u1"}
T1 = {"id": "t1", "title": "Tone"}


def small(folder, **changes):
    return as_tables(folder, {"topics": [T1], "guidelines": [G1], "ratings": [R1]} | changes)


def test_csv_is_read_whatever_its_line_ends_and_mark(tmp_path):
    g2 = G1 | {"id": "g2", "value": 'two\r\nlines, "quoted"', "topicId": ""}
    small(tmp_path, guidelines=[G1, g2])
    rows_to(tmp_path / "notes.csv", ["when", "what"], [["1", "2"]])
    for file in tmp_path.iterdir():
        assert b"\r\n" in file.read_bytes()
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (tmp_path / "._ratings.csv").write_bytes(b"\0\5")  # as a Mac leaves it
    got = reading("platform-file", tmp_path)
    assert list(got.guidelines["text"]) == ["Be brief, be kind", 'two\r\nlines, "quoted"']
    assert got.guidelines["topic_id"].fillna("none").tolist() == ["t1", "none"]
    assert got.ratings["rated_at"].isna().all()
    assert_conserved(got)


@pytest.mark.parametrize(
    ("table", "row", "says"),
    [
        ("ratings", R1 | {"authorId": ""}, ["ratings.1.authorId: Field required"]),
        ("ratings", R1 | {"guidelineId": ""}, ["ratings.1.guidelineId: Field required"]),
        ("ratings", R1 | {"createdAt": "now"}, ["row 2", "'now' is no time"]),
        ("guidelines", G1 | {"id": ""}, ["guidelines.1.id: Field required"]),
        ("topics", T1 | {"title": ""}, ["topics.1.title: Field required"]),
    ],
)
def test_broken_row_of_a_csv_is_named(tmp_path, table, row, says):
    good = {"ratings": R1, "guidelines": G1, "topics": T1}[table]
    small(tmp_path, **{table: [good, row]})
    assert_says(raised(tmp_path), tmp_path / f"{table}.csv", *says)


# none of the three


def test_folder_without_the_three_tables_says_what_it_holds(tmp_path):
    assert_says(raised(tmp_path), tmp_path, "found none", "GET /exports", "three CSV files")
    small(tmp_path)
    (tmp_path / "ratings.csv").rename(tmp_path / "r.txt")
    rows_to(tmp_path / "votes.csv", ["voter", "vote"], [["1", "2"]])
    says = ["guidelines.csv (guidelines)", "topics.csv (topics)", "votes.csv (unknown columns)"]
    assert_says(raised(tmp_path), tmp_path, *says, "JSON tree", "three CSV files")


def test_folder_that_could_be_read_in_two_ways_is_refused(tmp_path):
    small(tmp_path)
    (tmp_path / "ratings (1).csv").write_bytes((tmp_path / "ratings.csv").read_bytes())
    assert_says(raised(tmp_path), "ratings (1).csv (ratings)", "ratings.csv (ratings)")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_path_that_nothing_can_have_is_named(tmp_path, name):
    assert_says(raised(tmp_path / name), "cannot be read", "check source.path")
