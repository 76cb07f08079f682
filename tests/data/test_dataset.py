"""Dataset: raw tables become one deliberation, and every row that goes is accounted for."""

import dataclasses

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from worlds import assert_conserved, assert_says, attempt, cells, counted

from aggregation import InputError
from aggregation.data.choices import Choices
from aggregation.data.cleaning import build
from aggregation.data.dataset import TABLES, Count, clean_text, column, frame
from aggregation.data.topics import DEEPEST

WORDS = {"yes": 1.0, "no": 0.0, "skip": None}
GUIDELINES = [{"guideline_id": "g1", "text": "x", "author_id": "u1"}, {"guideline_id": "g2"}]
ROWS = [("u1", "g1", "yes"), ("u2", "g1", "no"), ("u2", "g2", "yes")]


def raw(rows):
    table = pd.DataFrame(rows, columns=["user_id", "guideline_id", "value"], dtype=object)
    return table.assign(rated_at=column([None] * len(rows), "time"))


def built(rows=ROWS, guidelines=GUIDELINES, users=(), topics=(), **choices):
    counts = [
        Count("ratings", "read", "", len(rows)),
        Count("guidelines", "read", "", len(guidelines)),
        Count("users", "read", "", len(users)),
        Count("topics", "read", "", len(topics)),
    ]
    return build(
        {
            "ratings": raw(rows),
            "guidelines": frame("guidelines", guidelines),
            "users": frame("users", users),
            "topics": frame("topics", topics),
        },
        Choices(WORDS, **choices),
        where="here",
        files={"guidelines": "there"},
        counts=counts,
    )


@pytest.mark.parametrize("table", list(TABLES))
def test_frame_has_its_columns_even_without_rows(table):
    assert list(frame(table, []).columns) == list(TABLES[table])
    assert list(getattr(built(), table).columns) == list(TABLES[table])


def test_building_changes_none_of_its_arguments():
    tables = {"ratings": raw(ROWS * 2), "guidelines": frame("guidelines", GUIDELINES)}
    before = {name: table.copy(deep=True) for name, table in tables.items()}
    build(tables, Choices(WORDS, self_ratings="drop"), where="here")
    for name, table in tables.items():
        pd.testing.assert_frame_equal(table, before[name])


def test_dataset_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        built().mu = 1.0


def test_ratings_are_sorted_and_typed():
    got = built(ROWS[::-1])
    pairs = list(zip(got.ratings["user_id"], got.ratings["guideline_id"], strict=True))
    assert pairs == sorted(pairs)
    assert got.ratings["helpful"].dtype == float
    assert str(got.ratings["rated_at"].dtype) == "datetime64[ms, UTC]"
    assert got.ratings.index.tolist() == [0, 1, 2]


def test_counts_tell_each_fate():
    rows = [*ROWS, ("u3", "g9", "yes"), ("", "g1", "yes"), ("u3", "g1", None), ("u3", "g2", "skip")]
    got = built([*rows, ROWS[0]])
    assert cells(got) == {("u1", "g1"): 1.0, ("u2", "g1"): 0.0, ("u2", "g2"): 1.0}
    told = got.counts_table().query("table == 'ratings'").set_index(["action", "reason"])["n"]
    assert told.to_dict() == {
        ("read", ""): 8,
        ("dropped", "no user_id"): 1,
        ("dropped", "the guideline is not among the guidelines"): 1,
        ("merged", "rated again: the last rating of each pair counts"): 1,
        ("dropped", "no value given"): 1,
        ("dropped", "value 'skip' is left out"): 1,
        ("kept", ""): 3,
    }
    assert_conserved(got)


def test_counts_are_plain_numbers():
    got = built(topics=[{"topic_id": "t", "title": "T", "parent_id": "gone"}])
    assert counted(got, "topics", "note", "parent_id unknown") == 1
    assert {type(c.n) for c in got.counts} == {int}


def test_own_rating_without_a_known_author_stays():
    got = built(self_ratings="drop")
    assert cells(got) == {("u2", "g1"): 0.0, ("u2", "g2"): 1.0}
    assert counted(got, "ratings", "dropped", "wrote the guideline") == 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"users": [{"user_id": "u"}, {}]}, ["here: row 2 of users has no user_id", "give it one"]),
        ({"topics": [{"topic_id": ""}]}, ["here: row 1 of topics has no topic_id", "give it one"]),
        ({"guidelines": [{"text": "x"}]}, ["there: row 1 of guidelines", "give it one"]),
        (
            {"users": [{"user_id": "u", "embedding": [e]} for e in (1.0, 2.0)]},
            ["here: users holds user_id 'u' more than once", "keep one"],
        ),
        (
            {"users": [{"user_id": "u", "intercept": i} for i in (1.0, 2.0)]},
            ["here: users holds user_id 'u' more than once", "keep one"],
        ),
        (
            {"topics": [{"topic_id": "a", "parent_id": "a"}]},
            ["here: topic 'a' lies within itself", "mend its parent"],
        ),
        ({"rows": [("u", "g1", "maybe")]}, ["here: ", "'maybe': 1 rating\n", '"maybe": helpful']),
        (
            {"rows": [*ROWS, ("u\x07", "g1", "yes")]},
            ["here, row 4 of ratings: user_id 'u\\x07' holds control characters: remove them"],
        ),
        ({"rows": []}, ["here: no rating is left"]),
        (
            {"rows": ROWS + ROWS[:1], "duplicates": "error"},
            ["here: guideline 'g1' has 2 ratings by user 'u1'", "ratings.duplicates: last"],
        ),
    ],
)
def test_messages_name_the_place_and_the_remedy(parts, says):
    with pytest.raises(InputError) as error:
        built(**parts)
    assert_says(error, *says)


def test_topics_may_lie_fifty_deep_and_no_deeper():
    def chain(n):
        topics = [{"topic_id": f"{k}", "parent_id": f"{k + 1}"} for k in range(n - 1)]
        return [*topics, {"topic_id": f"{n - 1}"}]

    got = built(topics=chain(DEEPEST))
    assert got.topics["parent_id"].isna().sum() == 1
    with pytest.raises(InputError, match="topic '0' lies within itself, or more than 50 deep"):
        built(topics=chain(DEEPEST + 1))
    with pytest.raises(InputError, match=r"topic '0' .*more than 50 deep .* mend its parent"):
        built(topics=chain(20_000))


@given(st.text())
def test_clean_text_can_be_stored_and_cleaning_again_changes_nothing(text):
    clean = clean_text(text)
    assert len(clean) == len(text)
    assert clean_text(clean) == clean
    assert clean.encode().decode() == clean
    assert all(new in (old, "\ufffd") for new, old in zip(clean, text, strict=True))


@pytest.mark.parametrize("text", ["a\tb\r\nc", "שלום", "🙂", "\u2028", "\u200d", "é"])
def test_meaningful_characters_are_left_alone(text):
    assert clean_text(text) == text


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcd"), st.sampled_from(["yes", "no"])),
        max_size=16,
        unique_by=lambda row: row[:2],
    ),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_minima_leave_the_largest_table_that_meets_them(rows, per_user, per_guideline):
    kept = list(rows)
    while True:  # the definition, one row at a time: order does not matter
        few = [
            row
            for row in kept
            if sum(r[0] == row[0] for r in kept) < per_user
            or sum(r[1] == row[1] for r in kept) < per_guideline
        ]
        if not few:
            break
        kept.remove(few[0])
    guidelines = [{"guideline_id": g} for g in "abcd"]
    limits = {"min_per_user": per_user, "min_per_guideline": per_guideline}
    got, message = attempt(built, rows, guidelines, **limits)
    if message:
        assert kept == []
    else:
        assert set(cells(got)) == {row[:2] for row in kept}
        assert_conserved(got)
