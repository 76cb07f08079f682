"""Whole runs, by papermill in real kernels: what they leave, and what they say when they fail."""

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from kills import killed_at

from aggregation import InputError, RunError, RunFolder, __version__, load_params, simulate
from aggregation.files import checksum_holds, sha256, with_checksum
from aggregation.runs import runner as runs
from aggregation.runs.notebook_source import notebook_source
from aggregation.runs.provenance import package

ROOT = Path(__file__).resolve().parents[2]
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
    *(f"model/{t}.parquet" for t in ("guidelines", "users", "history", "minima")),
    *("notebooks/ingest.ipynb", "notebooks/train.ipynb"),
    *("report/ingest.html", "report/train.html"),
}
AFTER_PUBLISH = AFTER_TRAIN | {
    *("evidence/guidelines.parquet", "evidence/minima.json", "evidence/summary.json"),
    *("constitution.json", "constitution.csv", "report/index.html"),
    *("notebooks/diagnostics.ipynb", "notebooks/publish.ipynb"),
    *("report/diagnostics.html", "report/publish.html"),
}


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


UNHASHED = {"manifest.json", "timing.json"}


def outputs(manifest):
    """Every file that a stage made, with its hash."""
    return {n: h for record in manifest["stages"].values() for n, h in record["outputs"].items()}


def command(cwd, *words, before=(), env=None):
    words = [*before, COMMAND, "run", *map(str, words)]
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)


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
    """The same run as a command, on one processor, compiled anew, elsewhere, into a relative
    folder with an unusual name, where the run's folder is a link to a folder with the leftovers of
    another."""
    cwd = tmp_path_factory.mktemp("second")
    real = cwd / "disk"
    for name in AFTER_PUBLISH | {"notebooks/train.failed.ipynb", "notebooks/train.partial.ipynb"}:
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).write_text("of an earlier run")
    told = {"about": "of an earlier run", "tables": {}}
    (real / "data" / "ingest.json").write_text(json.dumps(told))
    out = cwd / "a folder 🎉" / "outputs"
    out.mkdir(parents=True)
    (out / "small").symlink_to(real)
    alone = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = command(cwd, params, "--out", "a folder 🎉/outputs", before=alone, env=env)
    return out / "small", done


def test_a_run_leaves_exactly_the_files_of_the_layout(first):
    folder, _ = first
    assert files(folder) == AFTER_PUBLISH
    assert {p.name for p in folder.parent.iterdir()} == {"small"}


def test_a_run_says_which_stage_it_is_at(first):
    _, said = first
    assert all(re.match(r"\d\d:\d\d:\d\d \[\d/4\] ", line) for line in said)
    told = [line[9:] for line in said]
    assert [line for line in told if line.endswith(" ...")] == [
        f"[{k}/4] {stage} ..." for k, stage in enumerate(STAGES, start=1)
    ]
    done = [line for line in told if re.search(r"\w done in [\d.]+ s$", line) and ":" not in line]
    assert [line.split(" done")[0] for line in done] == [
        f"[{k}/4] {stage}" for k, stage in enumerate(STAGES, start=1)
    ]
    assert any(re.search(r"train: cell \d+ of \d+ done in [\d.]+ s$", line) for line in told)


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
    assert fit["minima"][0]["objective"] == fit["objective"]
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
    assert set(outputs(manifest)) == AFTER_PUBLISH - {*UNHASHED, "params.yaml"}
    for name, digest in outputs(manifest).items():
        assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest(), name
    assert manifest["parameters"] == sha256(folder / "params.yaml")
    assert manifest["lock"] == sha256(ROOT / "requirements.lock")
    assert manifest["package"] == {"version": __version__, "sha256": package()}
    assert list(manifest["stages"]) == list(STAGES)
    for stage, record in manifest["stages"].items():
        assert record["notebook"] == hashlib.sha256(notebook_source(stage)).hexdigest()
    assert (manifest["run"], manifest["seed"]) == ("small", 7)
    assert checksum_holds(manifest)
    ingested = json.loads((folder / "data" / "ingest.json").read_text())
    assert manifest["tables"] == ingested["tables"]
    assert set(manifest["tables"]) == {"ratings", "guidelines", "users", "topics"}


def test_a_stage_is_noted_with_what_it_was_told_and_what_it_read(first):
    manifest = json.loads((first[0] / "manifest.json").read_text())
    stages = manifest["stages"]
    assert stages["train"]["parameters"]["train"]["starts"] == 2
    assert set(stages["diagnostics"]["parameters"]) == {"run", "diagnostics", "rule"}
    read = {name.partition("/")[0] for name in stages["diagnostics"]["input"]}
    assert read == {"data", "model"}
    assert all(outputs(manifest)[n] == h for n, h in stages["publish"]["input"].items())
    assert stages["ingest"]["input"] == {}


def test_the_manifest_knows_no_time_and_no_host(first):
    folder, _ = first
    text = (folder / "manifest.json").read_text()
    assert not re.search(r"\d\d:\d\d|\d{4}-\d\d-\d\d", text)
    assert f'"{platform.node()}"' not in text
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["host"] == platform.node()
    assert list(timing["seconds"]) == list(timing["cells"]) == list(STAGES)
    assert checksum_holds(timing)
    for stage, seconds in timing["seconds"].items():
        assert 0 < sum(timing["cells"][stage]) < seconds


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
    assert done.stderr == ""


def test_the_same_run_elsewhere_and_with_one_thread_gives_the_same_bytes(first, second):
    """All of a run's folder but timing.json."""
    one, other = first[0], second[0]
    same = {n for n in AFTER_PUBLISH if (one / n).read_bytes() == (other / n).read_bytes()}
    assert AFTER_PUBLISH - same == {"timing.json"}


def test_until_stops_there_and_clears_away_later_results_that_do_not_hold(first, params, tmp_path):
    shutil.copytree(first[0], tmp_path / "small")
    changes = ["rule.min_ratings=6"]
    folder = runs.run(params, changes=changes, until="train", out=tmp_path, say=lambda _: None)
    assert files(folder) == AFTER_TRAIN
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(outputs(manifest)) == AFTER_TRAIN - {*UNHASHED, "params.yaml"}
    for name in ("model/users.parquet", "model/fit.json", "notebooks/train.ipynb"):
        assert (folder / name).read_bytes() == (first[0] / name).read_bytes(), name


def failed(done, folder, stage, told):
    """What every failed run has in common."""
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert f"(the {stage} notebook stopped in cell " in done.stderr
    assert len(done.stderr.splitlines()) <= 6
    assert len(done.stdout.splitlines()) <= 6
    at = STAGES.index(stage)
    kept = f"notebooks/{stage}.failed.ipynb"
    assert str(folder / kept) in done.stderr
    notebook = nbformat.read(folder / kept, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert any(o.output_type == "error" for o in outputs)
    noted = json.loads((folder / "manifest.partial.json").read_text())
    assert list(noted["stages"]) == list(STAGES[:at])
    stages_left = {f"notebooks/{s}.ipynb" for s in STAGES[:at]} | {kept}
    assert {n for n in files(folder) if n.startswith("notebooks/")} == stages_left
    folders = ("data", "model", "evidence", "constitution", "report/index")[at:]
    beyond = ("manifest.json", "timing", *folders)
    assert not [n for n in files(folder) if n.startswith(beyond)]


@pytest.mark.parametrize("name", ["export.json", "Export.JSON"])
def test_a_change_of_a_source_that_is_a_folder_is_seen(tmp_path, name):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / name).write_text(json.dumps(simulate(3, 40).export))
    (tmp_path / "p.yaml").write_text(
        f"run: small\nsource: {{kind: platform-file, path: '{tmp_path}/from'}}\n"
        "train: {starts: 2, max_starts: 2, moves: false}\n"
    )

    def again():
        said = []
        runs.run(tmp_path / "p.yaml", until="ingest", out=tmp_path / "out", say=said.append)
        return " ".join(said)

    again()
    assert "skipped" in again()
    (tmp_path / "from" / name).write_text(json.dumps(simulate(4, 40).export))
    assert f"{name} has changed" in again()
    (tmp_path / "from" / ".hidden.json").write_text("{}")  # nobody reads it
    assert "skipped" in again()


def test_a_source_that_is_not_there_is_told_before_anything_is_changed(first, params, tmp_path):
    folder = shutil.copytree(first[0], tmp_path / "small")
    before = files(folder)
    source = "source={kind: platform-file, path: no/such.json}"
    done = command(tmp_path, params, "--out", tmp_path, "--set", source)
    assert done.returncode == 1
    told = f"no/such.json: there is no such file or folder, seen from {tmp_path}"
    assert told in done.stderr
    assert files(folder) == before
    assert RunFolder(folder).finished


def test_a_folder_that_no_run_made_is_left_alone(params, tmp_path):
    others = ("notebooks/explore.ipynb", "report/thesis.tex")
    for own in (("data/votes.csv", "data/ingest.json", *others), ("params.yaml",)):
        place = tmp_path / own[0]
        for name in own:
            (place / "small" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "small" / name).write_text("{}")
        first = own[0].partition("/")[0]
        with pytest.raises(RunError, match=f"small: is no run's folder, it holds {first}: choose"):
            runs.run(params, out=place)
        assert {n: (place / "small" / n).read_text() for n in own} == dict.fromkeys(own, "{}")
        assert not (place / "small" / ".lock").exists()


@pytest.mark.parametrize(
    "stages", [5, [], {"ingest": 5}, {"ingest": {"notebook": "", "parameters": {}, "input": {}}}]
)
def test_a_manifest_of_another_shape_is_none(params, tmp_path, stages):
    RunFolder(tmp_path / "small").write_json("manifest.json", with_checksum({"stages": stages}))
    with pytest.raises(RunError, match=r"is no run's folder, it holds manifest\.json"):
        runs.run(params, out=tmp_path)


def test_names_in_a_manifest_do_not_lead_out_of_the_folder(again, tmp_path):
    (tmp_path / "victim").write_text("mine")
    manifest = RunFolder(again.folder).read_json("manifest.json")
    manifest["stages"]["ingest"]["outputs"]["../victim"] = sha256(tmp_path / "victim")
    RunFolder(again.folder).write_json("manifest.json", with_checksum(manifest))
    assert again("seed=2", until="ingest")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_source_within_the_folder_of_its_own_run_is_refused(first, params, tmp_path):
    folder = shutil.copytree(first[0], tmp_path / "small")
    (folder / "data" / "export.json").write_text("{}")
    change = f"source={{kind: platform-file, path: '{folder}/data/export.json'}}"
    with pytest.raises(RunError, match="lies in the run's own folder"):
        runs.run(params, changes=[change], out=tmp_path)
    assert (folder / "data" / "export.json").exists()
    assert RunFolder(folder).finished


def test_an_export_that_the_folder_keeps_may_be_the_source_of_its_own_run(first, params, tmp_path):
    kept = shutil.copytree(first[0], tmp_path / "small") / "source" / "export.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps(simulate(3, 30).export))
    change = f"source={{kind: platform-file, path: '{kept}'}}"
    folder = RunFolder(runs.run(params, changes=[change], until="ingest", out=tmp_path))
    assert folder.dataset().users["user_id"].size == 30
    assert kept.is_file()


def test_a_source_whose_links_lead_in_a_circle_is_an_error_in_words(again, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="cannot be read"):
        again(f"source={{kind: polis, path: '{tmp_path}/a'}}")
    assert RunFolder(again.folder).finished


def test_files_of_somebody_beside_those_of_a_run_stay(again):
    own = ("report/notes.md", "notebooks/my.failed.ipynb", "notes.txt", "data/.DS_Store")
    own += (".big.download.partial", "data/.ratings.parquet.mine.partial")
    for name in own:
        (again.folder / name).write_text("mine")
    left = again.folder / "data" / ".ratings.parquet.k1ll3d__.partial"
    left.write_text("half")
    assert again("seed=2")["ingest"]
    assert {n: (again.folder / n).read_text() for n in own} == dict.fromkeys(own, "mine")
    assert not left.exists()
    assert not again("seed=2")  # and nothing of it is in the way


def test_a_path_that_is_no_utf_8_is_refused_before_anything_runs(params, tmp_path):
    with pytest.raises(RunError, match="is no UTF-8: choose another folder"):
        runs.run(params, out=os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_a_link_is_not_written_through(params, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "small" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="cannot be written"):
        runs.run(params, out=tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_of_a_stage_that_is_a_link_to_another_disk_stays_one(again, tmp_path):
    disk = tmp_path / "disk"
    shutil.move(again.folder / "model", disk)
    (again.folder / "model").symlink_to(disk)
    assert again(force=True)
    assert (again.folder / "model").is_symlink()
    assert (disk / "fit.json").is_file()


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
    assert re.search(r"kernel of the ingest notebook (died|did not start)", err)
    assert "un it again" in err
    assert not list((tmp_path / "killed").glob("*/manifest.json"))


def test_a_second_run_in_the_same_folder_is_refused_with_who_holds_it(params, tmp_path):
    first = subprocess.Popen(
        [COMMAND, "run", params, "--out", tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline().endswith(" [1/4] ingest ...\n")
    done = command(tmp_path, params, "--out", tmp_path)
    assert done.returncode != 0
    assert f"another run is at work there (process {first.pid} since 20" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    first.kill()
    first.communicate()
    folder = runs.run(params, until="ingest", out=tmp_path, say=lambda _: None)  # it let go
    assert (folder / "manifest.json").exists()
    assert not (folder / ".lock").exists()


# what still holds is not done again


@pytest.fixture
def again(first, params, tmp_path):
    """Runs the parameters again, over a copy of the first run: the reasons, by stage."""
    shutil.copytree(first[0], tmp_path / "small")

    def again(*changes, **options):
        said = []
        runs.run(params, changes=changes, out=tmp_path, say=said.append, **options)
        told = (re.match(r"[\d:]+ \[\d/\d\] (\w+):? ?(.*) \.\.\.$", line) for line in said)
        skipped = (re.search(r"\] (\w+) skipped: nothing that it depends on", s) for s in said)
        ran = {m[1]: m[2] for m in told if m}
        assert not ran.keys() & {m[1] for m in skipped if m}
        return ran

    again.folder = tmp_path / "small"
    return again


def snapshot(folder):
    return {n: ((folder / n).read_bytes(), (folder / n).stat().st_mtime_ns) for n in files(folder)}


def test_a_word_that_no_longer_means_nothing_is_a_change(params, tmp_path):
    """null leaves ratings out, a word that is not there is an error: they are not the same."""
    said = []
    words = "helpful: helpful, not_helpful: not_helpful"
    for values in (f"{{{words}, skip: null}}", f"{{{words}}}"):
        changes = [f"ratings.values={values}"]
        runs.run(params, changes=changes, until="ingest", out=tmp_path, say=said.append)
    assert "ingest: ratings.values.skip is not set, was null ..." in said[-2]


def test_a_failure_keeps_what_may_hold_again(again, first):
    before = (again.folder / "model" / "users.parquet").stat().st_mtime_ns
    (again.folder.parent / "nothing").mkdir()
    with pytest.raises(RunError, match="nothing"):
        again(f"source={{kind: polis, path: '{again.folder.parent}/nothing'}}")
    assert not [n for n in files(again.folder) if n.startswith(("data", "model", "report/index"))]
    assert again() == {}
    assert files(again.folder) == AFTER_PUBLISH
    assert (again.folder / "model" / "users.parquet").stat().st_mtime_ns == before
    for name in AFTER_PUBLISH - UNHASHED:
        assert (again.folder / name).read_bytes() == (first[0] / name).read_bytes(), name


def test_parameters_that_touch_no_stage_are_written_all_the_same(params, tmp_path):
    for title in ("", "New"):
        folder = runs.run(
            params, changes=[f"title={title}"], until="ingest", out=tmp_path, say=lambda _: None
        )
    assert load_params(folder / "params.yaml").title == "New"
    assert json.loads((folder / "manifest.json").read_text())["parameters"] == sha256(
        folder / "params.yaml"
    )


def test_what_is_written_by_hand_ends_that_a_run_is_finished(again):
    folder = RunFolder(again.folder)
    assert folder.finished
    folder.write_json("evidence/minima.json", [])
    assert not folder.finished
    assert again() == {"diagnostics": "evidence/minima.json was changed"}
    assert folder.finished


def test_pages_and_times_are_made_again_without_a_notebook(again, first):
    for name in ("report/train.html", "timing.json"):
        (again.folder / name).unlink()
    assert again() == {}
    assert files(again.folder) == AFTER_PUBLISH
    page = "report/train.html"
    assert (again.folder / page).read_bytes() == (first[0] / page).read_bytes()


def test_pages_link_to_pages_that_are_there(again):
    RunFolder(again.folder).write_text("params.yaml", "")  # as if the run had been stopped
    again("rule.min_ratings=6", until="train")
    pages = list((again.folder / "report").iterdir())
    assert {page.name for page in pages} == {"ingest.html", "train.html"}
    for page in pages:
        links = set(re.findall(r'href="([\w.]+\.html)"', page.read_text("utf-8")))
        assert {link for link in links if (page.parent / link).exists()} >= links - {"index.html"}
        assert "diagnostics.html" not in links


def test_a_second_run_with_nothing_changed_does_nothing_at_all(again):
    before = snapshot(again.folder)
    assert again() == {}
    assert snapshot(again.folder) == before


def test_a_second_run_does_not_even_load_what_runs_notebooks(again, params):
    code = (
        "import sys; from aggregation.runs import runner as runs; "
        f"runs.run({str(params)!r}, out={str(again.folder.parent)!r}); "
        "assert not {'papermill', 'jax', 'nbconvert', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped: nothing that it depends on has changed") == 4


def test_a_changed_parameter_reruns_its_stage_and_what_depends_on_it(again, first):
    assert again("rule.min_ratings=6") == {
        "diagnostics": "rule.min_ratings is 6, was 5",
        "publish": "evidence/summary.json has changed",
    }
    assert files(again.folder) == AFTER_PUBLISH
    manifest = json.loads((again.folder / "manifest.json").read_text())
    for name, digest in outputs(manifest).items():
        assert digest == sha256(again.folder / name), name
    timing = json.loads((again.folder / "timing.json").read_text())
    before = json.loads((first[0] / "timing.json").read_text())
    assert timing["seconds"]["train"] == before["seconds"]["train"]
    assert timing["seconds"]["publish"] != before["seconds"]["publish"]


def test_a_stage_that_ran_again_to_the_same_end_reruns_no_other(again, first):
    """Of the near misses shown, publish is told as well; train and its data are not touched."""
    notes = again("title=Another")
    assert notes == {"publish": 'title is "Another", was ""'}
    train = "notebooks/train.ipynb"
    assert (again.folder / train).stat().st_mtime_ns == (first[0] / train).stat().st_mtime_ns


def test_the_same_results_after_a_rerun_skip_what_follows(again):
    (again.folder / "notebooks" / "ingest.ipynb").unlink()
    assert again() == {"ingest": "notebooks/ingest.ipynb is gone"}
    assert files(again.folder) == AFTER_PUBLISH


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/ratings.parquet", "ingest"),
        ("model/users.parquet", "train"),
        ("evidence/guidelines.parquet", "diagnostics"),
        ("constitution.json", "publish"),
    ],
)
def test_an_edited_result_is_made_again(again, first, name, stage):
    path = again.folder / name
    path.write_bytes(path.read_bytes().replace(b"e", b"3", 1))
    assert again()[stage] == f"{name} was changed"
    assert path.read_bytes() == (first[0] / name).read_bytes()


def test_force_and_from_run_stages_that_would_be_skipped(again):
    assert again(first="diagnostics") == dict.fromkeys(STAGES[2:], "it was asked for")
    assert again(force=True, until="ingest") == {"ingest": "it was asked for"}
    assert files(again.folder) == AFTER_PUBLISH  # what follows still holds


def test_from_refuses_to_stand_on_what_does_not_hold(again):
    before = snapshot(again.folder)
    with pytest.raises(RunError, match=r"ingest must be as it was left, but ratings.min_per_user"):
        again("ratings.min_per_user=2", first="train")
    with pytest.raises(RunError, match="--from train comes after --until ingest"):
        again(first="train", until="ingest")
    assert snapshot(again.folder) == before


def test_another_package_reruns_everything(again, monkeypatch):
    monkeypatch.setattr(runs, "surroundings", lambda: {"package": {"version": "0"}})
    assert set(again().values()) == {"the package has changed"}


def test_a_manifest_that_was_edited_is_not_believed(again):
    path = again.folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8', 1))
    assert list(again(until="ingest")) == ["ingest"]


def test_a_run_that_was_killed_goes_on_where_it_was(again, params, first):
    """Whenever it is killed: nothing looks finished that is not, and the end is the same."""
    for delay in (0.8, 2.5, 4.5):
        process = subprocess.Popen(
            [COMMAND, "run", params, "--out", again.folder.parent, "--set", "seed=8"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        if (again.folder / "manifest.json").exists():
            manifest = json.loads((again.folder / "manifest.json").read_text())
            for name, digest in outputs(manifest).items():
                assert digest == sha256(again.folder / name), name
    again()
    assert files(again.folder) == AFTER_PUBLISH
    for name in AFTER_PUBLISH - UNHASHED:
        assert (again.folder / name).read_bytes() == (first[0] / name).read_bytes(), name


WORK = """
from aggregation import RunFolder
from pathlib import Path
def work():
    RunFolder(Path(sys.argv[1])).write_text("params.yaml", "half")
"""


def test_what_was_being_written_when_a_run_was_killed_is_cleared_away(again):
    with killed_at(WORK, again.folder) as killed:
        for step in range(1, 9):
            assert killed(step)
            if any(name.startswith(".params.yaml.") for name in files(again.folder)):
                break
    assert "manifest.json" not in files(again.folder)
    assert again() == {}
    assert files(again.folder) == AFTER_PUBLISH


def test_interrupted_runs_leave_no_kernel_and_go_on(params, tmp_path):
    process = subprocess.Popen(
        [COMMAND, "run", params, "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "[2/4] train ..." in line:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
    kernels = [p for p in psutil.process_iter(["cmdline"]) if is_kernel_in(p, process.pid)]
    assert process.wait(30) == 130
    assert process.stderr.read() == (
        "Stopped. What was done is kept: the same command goes on from there.\n"
    )
    assert not kernels
    assert not (tmp_path / "small" / "manifest.json").exists()
    done = command(tmp_path, params, "--out", tmp_path)
    assert "[1/4] ingest skipped" in done.stdout
    assert "[2/4] train ..." in done.stdout
    assert files(tmp_path / "small") == AFTER_PUBLISH


def is_kernel_in(process, parent):
    try:
        return "ipykernel_launcher" in " ".join(process.cmdline()) and process.ppid() in (parent, 1)
    except psutil.Error:
        return False
