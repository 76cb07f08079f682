"""Whole runs, by papermill in real kernels: what they leave, and what they say when they fail."""

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest

from aggregation import RunError, load_params, runs
from aggregation.manifest import sha256

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(sys.executable).with_name("aggregation")
STAGES = ("ingest", "train", "diagnostics", "publish")

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 80}
train: {starts: 2, max_starts: 2, moves: false}
"""

AFTER_TRAIN = {
    *("params.yaml", "manifest.json", "timing.json", "data/ingest.json", "model/fit.json"),
    *(f"data/{t}.parquet" for t in ("ratings", "guidelines", "users", "topics")),
    *(f"model/{t}.parquet" for t in ("guidelines", "users", "history", "basins")),
    *("notebooks/ingest.ipynb", "notebooks/train.ipynb"),
    *("report/ingest.html", "report/train.html"),
}
AFTER_PUBLISH = AFTER_TRAIN | {
    *("evidence/guidelines.parquet", "evidence/basins.json", "evidence/summary.json"),
    *("constitution.json", "constitution.csv", "report/index.html"),
    *("notebooks/diagnostics.ipynb", "notebooks/publish.ipynb"),
    *("report/diagnostics.html", "report/publish.html"),
}


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def command(cwd, *words):
    return subprocess.run(
        [COMMAND, "run", *map(str, words)], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    path = tmp_path_factory.mktemp("params") / "p.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory, params):
    """A run in this process, into an absolute folder: the folder and the lines it said."""
    said = []
    folder = runs.run(params, out=tmp_path_factory.mktemp("first"), say=said.append)
    return folder, said


@pytest.fixture(scope="module")
def second(tmp_path_factory, params):
    """The same run as a command, elsewhere, into a relative folder with an unusual name, where
    the run's folder is a link to a folder with the leftovers of another run."""
    cwd = tmp_path_factory.mktemp("second")
    real = cwd / "disk"
    for name in AFTER_PUBLISH | {
        *("notebooks/train.failed.ipynb", "notebooks/train.partial.ipynb"),
        *("data/old.parquet", "evidence/old.json", "report/old.html", "model/deep/old.json"),
    }:
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).write_text("of an earlier run")
    out = cwd / "a folder 🎉" / "outputs"
    out.mkdir(parents=True)
    (out / "small").symlink_to(real)
    done = command(cwd, params, "--out", "a folder 🎉/outputs")
    return out / "small", done


def test_a_run_leaves_exactly_the_files_of_the_layout(first):
    folder, _ = first
    assert files(folder) == AFTER_PUBLISH
    assert {p.name for p in folder.parent.iterdir()} == {"small"}


def test_a_run_says_which_stage_it_is_at(first):
    _, said = first
    assert [line.split(" done")[0] for line in said[1::2]] == [
        f"[{k}/4] {stage}" for k, stage in enumerate(STAGES, start=1)
    ]


def test_the_fit_tells_how_it_ended(first):
    folder, _ = first
    fit = json.loads((folder / "model" / "fit.json").read_text())
    ratings = pd.read_parquet(folder / "data" / "ratings.parquet")
    assert fit["converged"] is True
    assert 0 <= fit["kkt_residual"] <= 1e-6
    assert len(fit["starts"]) == 2
    assert fit["objective"] == pytest.approx(min(fit["starts"]), rel=1e-12)
    assert fit["penalty"] == {
        "intercept": 0.15,
        "embedding": 0.03,
        "norm": "l1",
        "per": "rating",
    }
    assert fit["method"] == "alternating"
    assert fit["settled"] is False
    assert fit["balance"] < 1e-6
    assert fit["basins"][0]["objective"] == fit["objective"]
    assert fit["n_blocks"] == 1
    assert fit["sweeps"] >= 1
    assert isinstance(fit["mu"], float)
    counts = (len(ratings), ratings["user_id"].nunique(), ratings["guideline_id"].nunique())
    assert (fit["n_ratings"], fit["n_users"], fit["n_guidelines"]) == counts


def test_the_evidence_has_one_row_per_guideline_and_agrees_with_what_is_published(first):
    folder, _ = first
    evidence = pd.read_parquet(folder / "evidence" / "guidelines.parquet")
    guidelines = pd.read_parquet(folder / "data" / "guidelines.parquet")
    needed = "guideline_id, n_ratings, helpful_rate, intercept, consensus_score, verdict"
    assert set(needed.split(", ")) <= set(evidence.columns)
    assert sorted(evidence["guideline_id"]) == sorted(guidelines["guideline_id"])
    assert set(evidence["verdict"]) <= {"accepted", "undecided", "rejected"}
    accepted = set(evidence.loc[evidence["verdict"] == "accepted", "guideline_id"])
    payload = json.loads((folder / "constitution.json").read_text("utf-8"))
    assert set(payload["accepted_guideline_ids"]) == accepted
    assert accepted
    summary = json.loads((folder / "evidence" / "summary.json").read_text())
    assert summary["verdicts"]["accepted"] == len(accepted)
    assert sum(summary["verdicts"].values()) == len(guidelines)


def test_the_hashes_of_the_manifest_are_true_and_complete(first):
    folder, _ = first
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["outputs"]) == AFTER_PUBLISH - {"manifest.json", "timing.json"}
    for name, digest in manifest["outputs"].items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest(), name
    assert manifest["parameters"] == sha256(folder / "params.yaml")
    assert manifest["lock"] == sha256(ROOT / "requirements.lock")
    for stage in STAGES:
        assert manifest["notebooks"][f"{stage}.ipynb"] == sha256(
            ROOT / "notebooks" / f"{stage}.ipynb"
        )
    assert (manifest["run"], manifest["seed"]) == ("small", 7)


def test_the_manifest_knows_no_time_and_no_host(first):
    folder, _ = first
    text = (folder / "manifest.json").read_text()
    assert not re.search(r"\d\d:\d\d|\d{4}-\d\d-\d\d", text)
    assert f'"{platform.node()}"' not in text
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["host"] == platform.node()
    assert list(timing["seconds"]) == list(STAGES)


def test_the_parameters_of_a_run_are_complete_and_run_again(first, params):
    folder, _ = first
    assert load_params(folder / "params.yaml") == load_params(params)
    assert "min_helpful_rate: 0.8" in (folder / "params.yaml").read_text()


def test_nothing_in_the_folder_tells_where_it_was_made(first):
    folder, _ = first
    places = [str(folder.parent), str(ROOT), str(Path(sys.prefix))]
    for name in files(folder) - {"timing.json"}:
        data = (folder / name).read_bytes()
        assert not any(place.encode() in data for place in places), name


def test_executed_notebooks_are_valid_and_carry_no_traces(first):
    folder, _ = first
    for stage in STAGES:
        notebook = nbformat.read(folder / "notebooks" / f"{stage}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert "papermill" not in notebook.metadata
        assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
        assert all(c.execution_count for c in notebook.cells if c.cell_type == "code")
        (given,) = (
            c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])
        )
        assert 'run = "small"' in given.source
        assert not re.search(r"^out\b", given.source, re.MULTILINE)


def test_a_run_elsewhere_replaces_what_was_in_its_folder_even_behind_a_link(second):
    folder, done = second
    assert done.returncode == 0, done.stderr
    assert folder.is_symlink()
    assert files(folder) == AFTER_PUBLISH
    for name in AFTER_PUBLISH:
        assert b"of an earlier run" not in (folder / name).read_bytes(), name
    assert {p.name for p in folder.parents[2].iterdir()} == {"disk", "a folder 🎉"}


def test_the_command_says_where_the_report_is_and_nothing_else_is_on_stderr(second):
    _, done = second
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "Report: a folder 🎉/outputs/small/report/index.html"
    assert len(done.stdout.splitlines()) == 9
    assert done.stderr == ""


def test_the_same_run_elsewhere_gives_the_same_bytes(first, second):
    one, other = first[0], second[0]
    same = {n for n in AFTER_PUBLISH if (one / n).read_bytes() == (other / n).read_bytes()}
    assert AFTER_PUBLISH - same == {"timing.json"}


def test_until_stops_there_and_clears_away_later_stages(first, params, tmp_path):
    shutil.copytree(first[0], tmp_path / "small")
    folder = runs.run(params, until="train", out=tmp_path, say=lambda _: None)
    assert files(folder) == AFTER_TRAIN
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["outputs"]) == AFTER_TRAIN - {"manifest.json", "timing.json"}
    for name in ("model/users.parquet", "model/fit.json", "notebooks/train.ipynb"):
        assert (folder / name).read_bytes() == (first[0] / name).read_bytes(), name


def failed(done, folder, stage, told):
    """What every failed run has in common."""
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert f"(the {stage} notebook stopped in cell " in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 6
    at = STAGES.index(stage)
    kept = f"notebooks/{stage}.failed.ipynb"
    assert str(folder / kept) in done.stderr
    notebook = nbformat.read(folder / kept, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert any(o.output_type == "error" for o in outputs)
    stages_left = {f"notebooks/{s}.ipynb" for s in STAGES[:at]} | {kept}
    assert {n for n in files(folder) if n.startswith("notebooks/")} == stages_left
    folders = ("data", "model", "evidence", "constitution", "report/index")[at:]
    beyond = ("manifest", "timing", *folders)
    assert not [n for n in files(folder) if n.startswith(beyond)]


def test_a_run_without_its_source_fails_at_ingest_and_leaves_nothing_else(first, params, tmp_path):
    shutil.copytree(first[0], tmp_path / "small")
    source = "source={kind: platform-file, path: no/such.json}"
    done = command(tmp_path, params, "--out", tmp_path, "--set", source)
    failed(done, tmp_path / "small", "ingest", "no/such.json")


def test_a_fit_that_does_not_converge_fails_at_train_and_leaves_nothing_after(
    first, params, tmp_path
):
    shutil.copytree(first[0], tmp_path / "small")
    changes = ("--set", "train.max_sweeps=1", "--set", "train.tolerance=1e-12")
    done = command(tmp_path, params, "--out", tmp_path, *changes, "--set", "train.starts=1")
    failed(done, tmp_path / "small", "train", "the fit has not converged: its residual is ")
    assert "train.max_sweeps" in done.stderr


def test_a_folder_that_cannot_be_written_is_a_clear_error(params, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError, match=r"taken.* cannot be written .*another folder with --out"):
        runs.run(params, out=tmp_path / "taken")
    (tmp_path / "small").write_text("a file")
    with pytest.raises(RunError, match=r"small.* cannot be written .*another folder with --out"):
        runs.run(params, out=tmp_path)
    assert (tmp_path / "small").read_text() == "a file"


def test_parameters_are_checked_before_anything_of_an_earlier_run_is_cleared(params, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "manifest.json").write_text("earlier")
    done = command(tmp_path, params, "--out", tmp_path, "--set", "train.starts=0")
    assert done.returncode == 1
    assert "train.starts" in done.stderr
    assert (tmp_path / "small" / "manifest.json").read_text() == "earlier"


def test_a_kernel_that_is_killed_is_a_clear_error(params, tmp_path):
    process = subprocess.Popen(
        [Path(sys.executable).with_name("aggregation"), "run", params, "--out", "killed"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    kernels = []
    while not kernels and process.poll() is None:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        kernels = [c for c in children if "ipykernel_launcher" in " ".join(c.cmdline())]
    for kernel in kernels:
        kernel.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "[1/4] ingest ..." in out
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 6
    assert re.search(r"kernel of the ingest notebook died.*run it again", err)
    assert not list((tmp_path / "killed").glob("*/manifest.json"))


def test_a_second_run_in_the_same_folder_is_refused_with_who_holds_it(params, tmp_path):
    first = subprocess.Popen(
        [COMMAND, "run", params, "--out", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "[1/4] ingest ...\n"
    done = command(tmp_path, params, "--out", tmp_path)
    assert done.returncode != 0
    assert f"another run is at work there (process {first.pid} since 20" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    first.kill()
    first.communicate()
    folder = runs.run(params, until="ingest", out=tmp_path, say=lambda _: None)  # it let go
    assert (folder / "manifest.json").exists()
    assert not (folder / ".lock").exists()
