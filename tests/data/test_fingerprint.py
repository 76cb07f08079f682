"""Fingerprints of tables: the order does not matter, everything else does."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from aggregation.data.dataset import TABLES, frame
from aggregation.data.fingerprint import fingerprint
from aggregation.files import checksum_holds, with_checksum

texts = st.text(alphabet="ab\u00e9\u6f22 \U0001f389,:", max_size=4)
numbers = st.floats(allow_infinity=False, allow_nan=False, width=32)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "guideline_id": texts,
            "text": texts,
            "topic_id": st.none() | texts,
            "author_id": st.none() | texts,
            "intercept": st.none() | numbers,
            "embedding": st.none() | st.lists(numbers, max_size=3),
        }
    ),
    max_size=8,
)


def guidelines(values):
    return frame("guidelines", values)


def of(values, kinds=TABLES["guidelines"]):
    return fingerprint(guidelines(values), kinds)


@settings(max_examples=40)
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_columns_does_not_matter(values, random):
    table = guidelines(values)
    shuffled = list(values)
    random.shuffle(shuffled)
    other = guidelines(shuffled)
    columns = list(other.columns)
    random.shuffle(columns)
    assert fingerprint(other[columns], TABLES["guidelines"]) == of(values)
    assert fingerprint(table, dict(reversed(TABLES["guidelines"].items()))) == of(values)


def canonical(values):
    """The content of rows as plain values; -0.0 is 0.0."""

    def plain(v):
        return (
            [x + 0.0 for x in v] if isinstance(v, list) else v + 0.0 if isinstance(v, float) else v
        )

    return sorted(repr({k: plain(v) for k, v in sorted(row.items())}) for row in values)


@settings(max_examples=40)
@given(rows, rows)
def test_different_content_has_different_fingerprints(one, other):
    assert (of(one) == of(other)) == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"text": "a", "topic_id": "b"}, {"text": "b", "topic_id": "a"}),
        ({"text": "ab", "topic_id": ""}, {"text": "a", "topic_id": "b"}),
        ({"text": "a", "topic_id": None}, {"text": "a", "topic_id": ""}),
        ({"text": "a", "intercept": None}, {"text": "a", "intercept": 0.0}),
        ({"text": "a", "embedding": None}, {"text": "a", "embedding": []}),
        ({"text": "a", "embedding": [1.0, 2.0]}, {"text": "a", "embedding": [2.0, 1.0]}),
        ({"text": "a", "intercept": 1.0}, {"text": "a", "intercept": np.nextafter(1, 2)}),
    ],
)
def test_similar_tables_have_different_fingerprints(one, other):
    assert of([{"guideline_id": "g", **one}]) != of([{"guideline_id": "g", **other}])


def test_a_cell_that_moves_to_another_row_is_another_table():
    one = [{"guideline_id": "a", "text": "x"}, {"guideline_id": "b", "text": "y"}]
    other = [{"guideline_id": "a", "text": "y"}, {"guideline_id": "b", "text": "x"}]
    assert of(one) != of(other)
    assert of([*one, one[0]]) != of(one)


def test_times_are_told_apart_and_may_be_missing():
    row = {"user_id": "u", "guideline_id": "g", "helpful": 1.0}
    times = [None, pd.Timestamp(0, tz="UTC"), pd.Timestamp("1970-01-01T00:00:00.001Z")]
    found = {
        fingerprint(frame("ratings", [row | {"rated_at": t}]), TABLES["ratings"]) for t in times
    }
    assert len(found) == 3


def test_a_table_as_it_was_written_and_read_again_has_the_same_fingerprint(tmp_path):
    values = [{"guideline_id": "g", "text": "t", "embedding": [0.5, -0.0]}, {"guideline_id": "h"}]
    table = guidelines(values)
    table.to_parquet(tmp_path / "t.parquet")
    again = pd.read_parquet(tmp_path / "t.parquet")
    assert fingerprint(again, TABLES["guidelines"]) == of(values)


@settings(max_examples=40)
@given(st.dictionaries(texts, numbers | texts | st.lists(numbers)), st.data())
def test_a_checksum_holds_until_something_changes(value, data):
    whole = with_checksum(value)
    assert checksum_holds(whole)
    assert checksum_holds(dict(reversed(whole.items())))
    key = data.draw(st.sampled_from(sorted(whole)))
    assert not checksum_holds(whole | {key: "changed"})
    assert not checksum_holds({k: v for k, v in whole.items() if k != key})
