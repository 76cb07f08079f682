"""Encoding: ids of any frame become the same codes; what is no id is refused."""

import numpy as np
import pandas as pd
import pytest

from aggregation import InputError, encode

ROWS = [("b", "g10", 1.0), ("\xe9", "g9", 0.0), ("a", "g10", 0.5), ("b", "g9", 1.0)]


def table(rows=ROWS):
    return pd.DataFrame(rows, columns=["user_id", "guideline_id", "helpful"])


def in_two_pieces(ids):
    return pd.concat([ids[:2], ids[2:]])


@pytest.mark.parametrize(
    "stored",
    [
        lambda ids: ids.astype(object),
        lambda ids: ids.astype("str"),
        lambda ids: ids.astype("string"),
        lambda ids: ids.astype("category"),
        in_two_pieces,
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_codes_depend_on_neither_order_nor_type(stored, turned):
    rows = table(ROWS[::-1] if turned else ROWS)
    rows = rows.assign(user_id=stored(rows["user_id"]), guideline_id=stored(rows["guideline_id"]))
    ratings, ids = encode(rows)
    assert (list(ids.users), list(ids.guidelines)) == (["a", "b", "\xe9"], ["g10", "g9"])
    assert (ids.users.dtype, ids.users.name) == ("str", "user_id")
    np.testing.assert_array_equal(ratings.user, np.array([0, 1, 1, 2]), strict=False)
    assert (ratings.user.dtype, ratings.guideline.dtype) == (np.int32, np.int32)
    assert ratings.guideline.tolist() == [0, 0, 1, 1]
    assert ratings.helpful.tolist() == [0.5, 1.0, 1.0, 0.0]
    assert (ratings.n_users, ratings.n_guidelines) == (3, 2)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([1, 2], "user_id holds 1, which is no text: convert the ids with astype"),
        ([1.5, 2.5], "user_id holds 1.5, which is no text"),
        (["a", 2], "user_id holds 2, which is no text"),
        (["a", None], "row 1 .* has no user_id: leave it out"),
        ([float("nan"), "a"], "row 0 .* has no user_id: leave it out"),
    ],
)
def test_ids_that_are_missing_or_no_text_are_refused(ids, says):
    rows = pd.DataFrame({"user_id": ids, "guideline_id": ["g", "g"], "helpful": [1.0, 0.0]})
    with pytest.raises(InputError, match=says):
        encode(rows)
