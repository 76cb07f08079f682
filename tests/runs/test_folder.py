"""The run's folder: files whole or not at all, and what it says when a stage is missing."""

import json

import numpy as np
import pandas as pd
import pytest

import aggregation as ag
from aggregation.files import atomic_write
from aggregation.params import RatingsSection, SimulatedSource


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
    return ag.fit(ratings, settings=ag.Settings(starts=2)), ratings, ids


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
        (lambda f: f.model(), "ingest"),
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
    for name in ("ratings", "guidelines", "users", "topics"):
        saved = getattr(dataset, name)
        pd.testing.assert_frame_equal(getattr(again, name)[saved.columns], saved, check_dtype=False)
    assert (again.about, again.counts, again.mu) == (dataset.about, dataset.counts, dataset.mu)


def test_a_model_is_read_back_as_it_was_saved(folder, dataset, trained):
    fit, ratings, ids = trained
    folder.save_dataset(dataset)
    folder.save_fit(*trained, ag.Penalty())
    again, ids_again, parameters = folder.model()
    assert list(ids_again.users) == list(ids.users)
    np.testing.assert_array_equal(again.helpful, ratings.helpful)
    np.testing.assert_array_equal(parameters.user_embedding, fit.parameters.user_embedding)
    np.testing.assert_array_equal(
        parameters.guideline_intercept, fit.parameters.guideline_intercept
    )
    assert parameters.mu == fit.parameters.mu


def change_users(ratings):
    return ratings.assign(user_id=ratings["user_id"].replace("u0001", "somebody"))


def change_guidelines(ratings):
    return ratings.assign(guideline_id=ratings["guideline_id"] + "x")


def take_one_away(ratings):
    many = ratings["user_id"].duplicated(keep=False) & ratings["guideline_id"].duplicated(
        keep=False
    )
    return ratings.drop(index=ratings.index[many][0])


def turn_around(ratings):
    return ratings.assign(helpful=1 - ratings["helpful"])


@pytest.mark.parametrize("change", [change_users, change_guidelines, take_one_away, turn_around])
def test_a_model_of_other_data_is_refused(folder, dataset, trained, change):
    folder.save_dataset(dataset)
    folder.save_fit(*trained, ag.Penalty())
    path = folder.path / "data" / "ratings.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(ag.RunError, match="other data than data/ holds: run the train notebook"):
        folder.model()


def test_a_fit_that_has_not_converged_is_not_saved(folder, dataset):
    ratings, ids = ag.encode(dataset.ratings)
    short = ag.Settings(starts=2, max_starts=2, moves=False, max_sweeps=1, tolerance=1e-300)
    fit = ag.fit(ratings, settings=short)
    with pytest.raises(ag.RunError, match=r"not converged.*train\.max_sweeps.*train\.tolerance"):
        folder.save_fit(fit, ratings, ids, ag.Penalty())
    assert not folder.path.exists() or everything(folder) == []


# tables, as notebooks show them


def test_hostile_text_in_a_table_is_escaped():
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;\"'"
    html = ag.Table(pd.DataFrame({"<b>": [hostile], "n": [1.23456]}))._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "&amp;amp;" in html
    assert "1.235" in html


@pytest.mark.parametrize("show", [lambda t: t._repr_html_(), repr], ids=["html", "text"])
def test_a_cell_is_cut_at_its_limit_and_says_so(show):
    shown = show(ag.Table(pd.DataFrame({"text": ["x" * 400, "y" * 401, "z" * 100_000]})))
    assert "x" * 400 in shown
    assert "x" * 400 + " ..." not in shown
    assert "y" * 400 + " ..." in shown
    assert "y" * 401 not in shown
    assert "z" * 400 + " ..." in shown
    assert "z" * 401 not in shown


def test_a_table_leaves_its_frame_alone_and_shows_every_row():
    frame = pd.DataFrame({"text": ["y" * 500, None] * 100})
    before = frame.copy()
    html = ag.Table(frame)._repr_html_()
    pd.testing.assert_frame_equal(frame, before)
    assert html.count("<tr") == 201
    assert "None" not in html
    assert "nan" not in html


def test_an_empty_table_says_so():
    assert repr(ag.Table(pd.DataFrame({"a": []}))) == "(no rows)"
