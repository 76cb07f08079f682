"""Parquet files of ratings, streamed through polars."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from worlds import assert_says

from aggregation.errors import InputError
from aggregation.sources import streams
from aggregation.sources.readers import read_table
from aggregation.sources.streams import parquet_ratings

NAMES = {"user_id": "who", "guideline_id": "what", "value": "vote", "rated_at": None}

COLUMNS = {
    "text": ["b", "", None, "ü"],
    "integers": [3, 1, None, 2],
    "whole numbers": [3.0, -0.0, None, 1e15],
    "numbers": [0.5, 1.0, None, 2.0],
    "booleans": [True, False, None, True],
    "decimals": [Decimal("1.50"), Decimal("2.00"), None, Decimal("1.50")],
}


def parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("cells", COLUMNS.values(), ids=COLUMNS)
def test_cells_are_those_of_the_table_reader(tmp_path, cells):
    path = parquet(tmp_path / "r.parquet", {"who": cells, "what": ["x"] * 4, "vote": ["yes"] * 4})
    found = parquet_ratings(path, NAMES)["user_id"]
    pd.testing.assert_series_equal(found.astype("str"), read_table(path)["who"], check_names=False)


@pytest.mark.parametrize(
    "cells",
    [
        [1_700_000_000, 1_700_000_000_500, None],
        [1.7e9, 1_700_000_000_500.0, None],
        ["2023-11-14T22:13:20Z", "1700000000500", ""],
        [pd.Timestamp("2023-11-14 22:13:20"), pd.Timestamp("2023-11-14 22:13:20.5"), None],
        [
            datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))),
            datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC),
            None,
        ],
    ],
)
def test_times_are_read_in_every_form(tmp_path, cells):
    columns = {"who": list("abc"), "what": list("xyz"), "vote": ["yes"] * 3, "at": cells}
    found = parquet_ratings(parquet(tmp_path / "r.parquet", columns), NAMES | {"rated_at": "at"})
    first = pd.Timestamp("2023-11-14T22:13:20Z")
    assert found["rated_at"].tolist()[:2] == [first, first + pd.Timedelta(milliseconds=500)]
    assert pd.isna(found["rated_at"].iloc[2])


def test_days_are_times(tmp_path):
    columns = {"who": ["a"], "what": ["x"], "vote": ["yes"], "at": [date(2023, 11, 14)]}
    found = parquet_ratings(parquet(tmp_path / "r.parquet", columns), NAMES | {"rated_at": "at"})
    assert found["rated_at"].tolist() == [pd.Timestamp("2023-11-14", tz="UTC")]


def test_the_files_of_a_folder_are_one_table_in_the_order_of_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "ROWS", 7)
    random = np.random.default_rng(0)
    every = {
        "who": random.integers(0, 30, 100).astype(str).tolist(),
        "what": random.integers(0, 9, 100).astype(str).tolist(),
        "vote": random.choice(["yes", "no"], 100).tolist(),
    }
    for k in (2, 0, 1):
        part = {name: cells[k * 40 : k * 40 + 40] for name, cells in every.items()}
        parquet(tmp_path / f"part-{k}.parquet", part)
    (tmp_path / "notes.txt").write_text("no part")
    found = parquet_ratings(tmp_path, NAMES)
    for ours, theirs in (("user_id", "who"), ("guideline_id", "what"), ("value", "vote")):
        assert found[ours].astype(str).tolist() == every[theirs]


def refused(path, columns=NAMES):
    with pytest.raises(InputError) as error:
        parquet_ratings(path, columns)
    return error


def test_a_damaged_file_is_named(tmp_path):
    path = parquet(tmp_path / "r.parquet", {"who": ["a"], "what": ["x"], "vote": ["yes"]})
    path.write_bytes(path.read_bytes()[:-20])
    assert_says(refused(path), path, "no whole Parquet file", "write it again")


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    path = parquet(tmp_path / "r.parquet", {"whom": ["a"], "what": ["x"], "vote": ["yes"]})
    assert_says(refused(path), path, "no column 'who'", "perhaps 'whom'")


def test_a_column_of_lists_is_no_id(tmp_path):
    path = parquet(tmp_path / "r.parquet", {"who": [["a"]], "what": ["x"], "vote": ["yes"]})
    assert_says(refused(path), path, "column 'who'", "write the column as text")


def test_a_time_that_is_none_is_named_with_its_row(tmp_path):
    columns = {"who": list("ab"), "what": list("xy"), "vote": ["yes"] * 2, "at": [1.7e9, 2024.0]}
    path = parquet(tmp_path / "r.parquet", columns)
    assert_says(refused(path, NAMES | {"rated_at": "at"}), path, "row 2", "'2024'", "is no time")


def test_too_many_rows_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_RATINGS", 2)
    path = parquet(
        tmp_path / "r.parquet", {"who": list("abc"), "what": list("xyz"), "vote": ["y"] * 3}
    )
    assert_says(refused(path), path, "has 3 rows", "at most 2")


def test_the_same_table_is_the_same_deliberation_as_csv_and_as_parquet(tmp_path):
    import aggregation as ag

    random = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "who": random.integers(0, 20, 300),
            "what": random.integers(0, 8, 300).astype(float),
            "vote": random.choice(["yes", "no", " yes", ""], 300),
            "at": random.integers(1_600_000_000, 1_700_000_000, 300),
        }
    )
    table.to_csv(tmp_path / "r.csv", index=False)
    table.to_parquet(tmp_path / "r.parquet")
    columns = {"user_id": "who", "guideline_id": "what", "value": "vote", "rated_at": "at"}
    made = []
    for name in ("r.csv", "r.parquet"):
        source = {"kind": "table", "path": str(tmp_path / name), "columns": columns}
        given = ag.sections(
            source=source, ratings={"values": {"yes": "helpful", "no": "not_helpful"}}
        )
        made.append(ag.read(given.source, given.ratings))
    pd.testing.assert_frame_equal(made[0].ratings, made[1].ratings)
    fates = [[c for c in one.counts if c.action != "read"] for one in made]
    assert fates[0] == fates[1]
    assert len(made[0].ratings) < 160  # pairs were merged
