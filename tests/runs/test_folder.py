"""The run's folder: files whole or not at all, and what it says when a stage is missing."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

import aggregation as ag
from aggregation.data.dataset import TABLES
from aggregation.data.fingerprint import fingerprints
from aggregation.files import atomic_write
from aggregation.params.schema import RatingsSection, SimulatedSource


@pytest.fixture
def folder(tmp_path):
    return ag.RunFolder.of("a", tmp_path)


@pytest.fixture(scope="module")
def dataset():
    return ag.read(SimulatedSource(kind="simulated", n_users=25), RatingsSection(), 3)


@pytest.fixture(scope="module")
def trained(dataset):
    """A fit, and the ratings and ids it is of."""
    ratings, ids = ag.encode(dataset.ratings)
    return ag.fit(ratings, settings=ag.Settings(starts=1, max_starts=1, moves=False)), ratings, ids


def everything(folder):
    return sorted(p.name for p in folder.path.rglob("*") if p.is_file())


def write_half(folder, name):
    with atomic_write(folder.path / name) as path:
        path.write_text("half")
        raise ZeroDivisionError


def test_writing_leaves_nothing_behind_when_it_fails(folder):
    with pytest.raises(ZeroDivisionError):
        write_half(folder, "x/y.txt")
    assert everything(folder) == []


def test_writing_keeps_the_old_file_when_it_fails(folder):
    folder.write_text("y.txt", "old")
    with pytest.raises(ZeroDivisionError):
        write_half(folder, "y.txt")
    assert (folder.path / "y.txt").read_text() == "old"
    assert everything(folder) == ["y.txt"]


def test_writing_never_shows_a_half_written_file(folder):
    folder.write_text("y.txt", "old")
    with atomic_write(folder.path / "y.txt") as path, path.open("w") as file:
        file.write("half")
        file.flush()
        assert (folder.path / "y.txt").read_text() == "old"
        file.write(" and half")
    assert (folder.path / "y.txt").read_text() == "half and half"
    assert everything(folder) == ["y.txt"]


def test_json_that_others_could_not_read_is_refused(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("x.json", {"a": float("nan")})
    assert not folder.path.exists() or everything(folder) == []


def test_json_keeps_order_and_other_scripts(folder):
    folder.write_json("x.json", {"b": "台灣 🎉", "a": [1, None]})
    text = (folder.path / "x.json").read_bytes().decode("utf-8")
    assert "台灣 🎉" in text
    assert list(json.loads(text)) == ["b", "a"]


@pytest.mark.parametrize(
    ("reading", "stage"),
    [
        (lambda f: f.dataset(), "ingest"),
        (lambda f: f.read_table("data/ratings.parquet"), "ingest"),
        (lambda f: f.load(), "ingest"),
        (lambda f: f.read_json("model/fit.json"), "train"),
        (lambda f: f.constitution(), "diagnostics"),
        (lambda f: f.read_json("constitution.json"), "publish"),
    ],
)
def test_reading_a_missing_stage_says_which_notebook_to_run(folder, reading, stage):
    with pytest.raises(ag.RunError, match=f"run the {stage} notebook of this run first") as caught:
        reading(folder)
    assert str(folder.path) in str(caught.value)


def test_a_dataset_is_read_back_as_it_was_saved(folder, dataset):
    folder.save_dataset(dataset)
    again = folder.dataset()
    for name in ("ratings", "guidelines", "users", "topics", "answers"):
        saved = getattr(dataset, name)
        pd.testing.assert_frame_equal(getattr(again, name)[saved.columns], saved, check_dtype=False)
    assert (again.about, again.counts, again.mu) == (dataset.about, dataset.counts, dataset.mu)


def test_a_run_is_loaded_with_all_that_was_saved(folder, dataset, trained):
    fit, ratings, ids = trained
    folder.save_dataset(dataset)
    folder.save_fit(*trained)
    run = folder.load()
    assert list(run.ids.users) == list(ids.users)
    np.testing.assert_array_equal(run.ratings.helpful, ratings.helpful)
    for saved, again in zip(fit.parameters.arrays(), run.fit.parameters.arrays(), strict=True):
        np.testing.assert_array_equal(again, saved)
    assert run.fit.penalty == fit.penalty == ag.Penalty()
    assert (run.constitution, run.minima) == (None, None)
    scores = ag.score(ratings, ids, fit.parameters)
    judged = ag.select(scores, ag.ALIGNED_2023)
    folder.save_evidence(
        ag.Evidence(judged, {"beta": [0.5]}), pd.DataFrame([{"minimum": 1, "gained": ["a"]}])
    )
    run = folder.load()
    assert run.constitution.verdicts() == judged.verdicts()
    assert run.evidence.summary["beta"] == [0.5]
    assert run.minima.to_dict("records") == [{"minimum": 1, "gained": ["a"]}]


def other_users(ratings):
    return ratings.assign(user_id=ratings["user_id"].replace("u0001", "somebody"))


def other_ratings(ratings):
    return ratings.assign(helpful=1 - ratings["helpful"])


def test_each_row_group_holds_only_the_texts_it_uses(folder, dataset, monkeypatch):
    monkeypatch.setattr("aggregation.runs.folder.ROWS", 100)
    folder.save_dataset(dataset)
    file = pyarrow.parquet.ParquetFile(
        folder.path / "data" / "ratings.parquet", read_dictionary=["user_id", "guideline_id"]
    )
    assert file.num_row_groups == -(-len(dataset.ratings) // 100) > 2
    for k in range(file.num_row_groups):
        for name in ("user_id", "guideline_id"):
            column = file.read_row_group(k, [name]).column(0).combine_chunks()
            assert len(column.dictionary) == len(column.unique().dictionary_decode())
    again = folder.dataset()
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(dataset, name))
    assert fingerprints(again) == fingerprints(dataset)


@pytest.mark.parametrize("change", [other_users, other_ratings])
def test_a_model_of_other_data_is_refused(folder, dataset, trained, change):
    folder.save_dataset(dataset)
    folder.save_fit(*trained)
    path = folder.path / "data" / "ratings.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(ag.RunError, match="other data than data/ holds: run the train notebook"):
        folder.load()


def test_a_fit_that_has_not_converged_is_not_saved(folder, dataset):
    ratings, ids = ag.encode(dataset.ratings)
    short = ag.Settings(starts=1, max_starts=1, moves=False, max_sweeps=1, tolerance=1e-300)
    fit = ag.fit(ratings, settings=short)
    with pytest.raises(ag.RunError, match=r"not converged.*train\.max_sweeps.*train\.tolerance"):
        folder.save_fit(fit, ratings, ids)
    assert not folder.path.exists() or everything(folder) == []
