"""Columns of text as codes."""

import numpy as np
import pandas as pd
from hypothesis import given, strategies as st

from aggregation.data.categories import categories, from_codes, used, with_texts

TEXTS = st.lists(st.none() | st.text(max_size=3), max_size=12)


def column(cells):
    return pd.Series(cells, dtype="str", name="word")


@given(TEXTS)
def test_a_column_keeps_its_cells_and_its_categories_are_sorted(cells):
    coded = categories(column(cells))
    assert coded.astype(object).where(coded.notna(), None).tolist() == cells
    assert coded.cat.categories.tolist() == sorted({cell for cell in cells if cell is not None})
    assert coded.name == "word"


@given(TEXTS, st.data())
def test_only_the_categories_of_the_rows_that_are_left_are_kept(cells, data):
    left = data.draw(
        st.lists(st.sampled_from(range(len(cells))), unique=True) if cells else st.just([])
    )
    found = used(categories(column(cells)).iloc[left])
    pd.testing.assert_series_equal(found, categories(column(cells).iloc[left]))


@given(TEXTS)
def test_texts_that_become_one_are_one_category(cells):
    def first(texts):
        return texts.str[:1].str.lower()

    found = with_texts(categories(column(cells)), first)
    expected = [None if cell is None else cell[:1].lower() for cell in cells]
    pd.testing.assert_series_equal(found, categories(column(expected)))


def test_texts_may_be_given_unsorted_twice_and_unused():
    texts = pd.Index(["b", "a", "b", "unused"], dtype="str")
    found = from_codes(np.array([0, 1, 2, -1], np.int32), texts)
    assert found.astype(object).tolist()[:3] == ["b", "a", "b"]
    assert found.isna().tolist() == [False, False, False, True]
    assert found.cat.categories.tolist() == ["a", "b"]
