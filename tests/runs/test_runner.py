"""What a run leaves in its folder, what it takes over from an earlier run, and what it refuses."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import notes_files
import pandas as pd
import psutil
import pytest
from inprocess import quietly
from worlds import polis_folder

from aggregation import RunError, RunFolder, World, __version__, load_params, simulate
from aggregation.files import checksum_holds, sha256
from aggregation.runs import runner
from aggregation.runs.lock import lock
from aggregation.runs.notebook import notebook_source
from aggregation.runs.provenance import package_hash, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("aggregation")
STAGES = ("ingest", "train", "diagnostics", "publish")

AFTER_TRAIN = {
    *("params.yaml", "manifest.json", "timing.json", "data/ingest.json", "model/fit.json"),
    *(f"data/{t}.parquet" for t in ("ratings", "guidelines", "users", "topics", "answers")),
    *(f"model/{t}.parquet" for t in ("guidelines", "users", "history")),
    *("notebooks/ingest.ipynb", "notebooks/train.ipynb"),
    *("report/ingest.html", "report/train.html"),
}
AFTER_PUBLISH = AFTER_TRAIN | {
    *("evidence/guidelines.parquet", "evidence/minima.json", "evidence/summary.json"),
    *("constitution.json", "constitution.csv", "constitution.md", "report/index.html"),
    *("notebooks/diagnostics.ipynb", "notebooks/publish.ipynb"),
    *("report/diagnostics.html", "report/publish.html"),
}
UNHASHED = {"manifest.json", "timing.json"}


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def content(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def outputs(folder):
    """Every file that a stage made, with its hash, as the manifest has it."""
    stages = read_manifest(folder)["stages"].values()
    return {n: h for record in stages for n, h in record["outputs"].items()}


# a run with real kernels, and half of it again


@pytest.fixture(scope="module")
def first(tmp_path_factory, params):
    """A run by the command, into a relative folder with an unusual name, where the run's folder is
    a link to the folder of another run: the folder, and what the command said.
    """
    cwd = tmp_path_factory.mktemp("first")
    real, out = cwd / "disk" / "real", cwd / "a folder 🎉" / "outputs"
    (real / "data").mkdir(parents=True)
    (real / "data" / "ingest.json").write_text("{}")
    out.mkdir(parents=True)
    (out / "small").symlink_to(real)
    words = [COMMAND, "run", params, "--out", "a folder 🎉/outputs"]
    return out / "small", subprocess.run(words, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def second(tmp_path_factory, params):
    """The same run up to train, elsewhere, on one processor, compiled anew."""
    out = tmp_path_factory.mktemp("second")
    alone = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    words = [*alone, COMMAND, "run", params, "--until", "train", "--out", out]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "small"


def test_a_run_leaves_exactly_the_files_of_the_layout(first):
    folder, done = first
    assert done.returncode == 0, done.stderr
    assert files(folder) == AFTER_PUBLISH
    assert folder.is_symlink()
    assert {p.name for p in folder.resolve().parent.iterdir()} == {"real", ".real.lock"}


def test_the_command_says_where_the_report_is_and_nothing_on_stderr(first):
    _, done = first
    assert done.stdout.splitlines()[-1] == "Report: a folder 🎉/outputs/small/report/index.html"
    assert done.stderr == ""


@pytest.mark.slow
def test_the_same_run_elsewhere_and_with_one_thread_gives_the_same_bytes(first, second):
    assert files(second) == AFTER_TRAIN
    one, other = content(first[0]), content(second)
    names = {n for n in AFTER_TRAIN if n.startswith(("data/", "model/", "notebooks/"))}
    assert {name for name in names if one[name] != other[name]} == set()


def test_a_run_says_which_stage_it_is_at(first):
    *said, read, decided, report = first[1].stdout.splitlines()
    assert re.fullmatch(r"Read:    [\d,]+ ratings", read)
    sure = r"(; of those accepted: (\d+ (clear|close|thin)(, )?)+)?"
    assert re.fullmatch(rf"Decided: \d+ accepted, \d+ undecided, \d+ rejected{sure}", decided)
    assert report.startswith("Report: ")
    assert all(re.match(r"\d\d:\d\d:\d\d \[\d/4\] ", line) for line in said)
    told = [line[9:] for line in said]
    for k, stage in enumerate(STAGES, start=1):
        assert f"[{k}/4] {stage} ..." in told
        assert any(re.fullmatch(rf"\[{k}/4\] {stage} done in [\d.]+ s", line) for line in told)


def test_the_manifest_knows_no_time_and_no_host(first):
    folder, _ = first
    text = (folder / "manifest.json").read_text()
    assert not re.search(r"\d\d:\d\d|\d{4}-\d\d-\d\d", text)
    assert f'"{platform.node()}"' not in text
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["host"] == platform.node()
    assert list(timing["seconds"]) == list(timing["cells"]) == list(STAGES)
    for stage, seconds in timing["seconds"].items():
        assert 0 < sum(timing["cells"][stage]) < seconds


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
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        shown = [output for cell in code for output in cell.outputs]
        assert shown
        assert {o.output_type for o in shown} <= {"display_data", "execute_result", "stream"}
        assert not [o for o in shown if o.get("name") == "stderr"]  # bars have gone
        (given,) = (
            c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])
        )
        assert 'run = "small"' in given.source
        assert not re.search(r"^out\b", given.source, re.MULTILINE)


# what is in the files


def test_the_fit_tells_how_it_ended(finished):
    fit = json.loads((finished / "model" / "fit.json").read_text())
    ratings = pd.read_parquet(finished / "data" / "ratings.parquet")
    assert fit["converged"] is True
    assert 0 <= fit["kkt_residual"] <= 1e-6
    assert len(fit["starts"]) == 2
    assert fit["objective"] == pytest.approx(min(fit["starts"]), rel=1e-12)
    assert fit["penalty"] == {"intercept": 0.15, "embedding": 0.03, "norm": "l1", "per": "rating"}
    assert (fit["method"], fit["settled"], fit["n_blocks"]) == ("alternating", False, 1)
    assert fit["minima"][0]["objective"] == fit["objective"]
    assert fit["sweeps"] >= 1
    counts = (len(ratings), ratings["user_id"].nunique(), ratings["guideline_id"].nunique())
    assert (fit["n_ratings"], fit["n_users"], fit["n_guidelines"]) == counts


def test_the_evidence_has_a_row_for_each_guideline_and_agrees_with_what_is_published(finished):
    evidence = pd.read_parquet(finished / "evidence" / "guidelines.parquet")
    guidelines = pd.read_parquet(finished / "data" / "guidelines.parquet")
    needed = "guideline_id, n_ratings, helpful_rate, intercept, consensus_score, verdict"
    assert set(needed.split(", ")) <= set(evidence.columns)
    assert sorted(evidence["guideline_id"]) == sorted(guidelines["guideline_id"])
    accepted = set(evidence.loc[evidence["verdict"] == "accepted", "guideline_id"])
    payload = json.loads((finished / "constitution.json").read_text("utf-8"))
    assert set(payload["accepted_guideline_ids"]) == accepted != set()
    summary = json.loads((finished / "evidence" / "summary.json").read_text())
    assert summary["verdicts"]["accepted"] == len(accepted)
    assert sum(summary["verdicts"].values()) == len(guidelines)


def test_the_hashes_of_the_manifest_are_true_and_complete(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert set(outputs(finished)) == AFTER_PUBLISH - {*UNHASHED, "params.yaml"}
    for name, digest in outputs(finished).items():
        assert digest == hashlib.sha256((finished / name).read_bytes()).hexdigest(), name
    assert manifest["parameters"] == sha256(finished / "params.yaml")
    assert manifest["lock"] == sha256(ROOT / "requirements.lock")
    assert manifest["package"] == {"version": __version__, "sha256": package_hash()}
    assert list(manifest["stages"]) == list(STAGES)
    for stage, record in manifest["stages"].items():
        assert record["notebook"] == hashlib.sha256(notebook_source(stage)).hexdigest()
    assert (manifest["run"], manifest["seed"]) == ("small", 7)
    assert checksum_holds(manifest)
    ingested = json.loads((finished / "data" / "ingest.json").read_text())
    assert manifest["tables"] == ingested["tables"]


def test_a_stage_is_noted_with_its_parameters_and_what_it_read(finished):
    stages = read_manifest(finished)["stages"]
    assert stages["train"]["parameters"]["train"]["starts"] == 2
    assert set(stages["diagnostics"]["parameters"]) == {"run", "seed", "diagnostics", "rule"}
    read = {name.partition("/")[0] for name in stages["diagnostics"]["input"]}
    assert read == {"data", "model"}
    assert all(outputs(finished)[n] == h for n, h in stages["publish"]["input"].items())
    assert stages["ingest"]["input"] == {}


def test_the_parameters_of_a_run_are_complete_and_run_again(finished, params):
    assert load_params(finished / "params.yaml") == load_params(params)
    assert "min_helpful_rate: 0.8" in (finished / "params.yaml").read_text()


def test_ratings_are_read_once_by_each_notebook(made):
    assert made[1] == ["train", "diagnostics", "publish"]


# what is refused


def test_a_source_that_is_not_there_is_told_before_anything_is_changed(finished, params, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "small")
    before = content(folder)
    source = "source={kind: platform-file, path: no/such.json}"
    with pytest.raises(RunError, match=r"no/such.json: there is no such file or folder, seen from"):
        quietly(params, tmp_path, changes=[source])
    assert content(folder) == before


@pytest.mark.parametrize("name", ["data/votes.csv", "params.yaml", "notes.txt"])
def test_a_folder_that_no_run_made_is_left_alone(params, tmp_path, name):
    (tmp_path / "small" / name).parent.mkdir(parents=True)
    (tmp_path / "small" / name).write_text("{}")
    first = name.partition("/")[0]
    with pytest.raises(RunError, match=f"small: is no run's folder, it holds {first}: choose"):
        quietly(params, tmp_path)
    assert content(tmp_path / "small") == {name: b"{}"}


@pytest.mark.parametrize("name", ["source/export.json", "mine/export.json"])
def test_a_file_in_the_folder_of_its_own_run_may_be_its_source(finished, params, tmp_path, name):
    kept = shutil.copytree(finished, tmp_path / "small") / name
    kept.parent.mkdir()
    kept.write_text(json.dumps(simulate(3, World(30)).export))
    change = f"source={{kind: platform-file, path: '{kept}'}}"
    _, folder = quietly(params, tmp_path, changes=[change], until="ingest")
    assert RunFolder(folder).dataset().users["user_id"].size == 30
    assert kept.is_file()


def test_a_path_that_is_no_utf_8_is_refused_before_anything_runs(params, tmp_path):
    with pytest.raises(RunError, match="is no UTF-8: choose another folder"):
        quietly(params, os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_clear_error(params, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError, match=r"taken.* cannot be written .*another folder with --out"):
        quietly(params, tmp_path / "taken")
    (tmp_path / "small").write_text("a file")
    with pytest.raises(RunError, match=r"small: is a file: choose another name"):
        quietly(params, tmp_path)
    assert (tmp_path / "small").read_text() == "a file"


def test_a_lock_that_is_a_link_is_not_written_through(params, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".small.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="cannot be written"):
        quietly(params, tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_second_run_in_the_same_folder_is_refused_with_who_holds_it(params, tmp_path):
    code = (
        "import sys; from pathlib import Path; from aggregation.runs.lock import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, tmp_path / ".small.lock"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        told = rf"another run of this name is at work \(process {holder.pid} since 20"
        with pytest.raises(RunError, match=told):
            quietly(params, tmp_path)
        holder.kill()
    with lock(tmp_path / ".small.lock"):  # who dies lets go
        pass


# what still holds is not done again


@pytest.fixture
def again(finished, params, tmp_path):
    """Runs the parameters again, over a copy of the finished run: the reasons, by stage."""
    shutil.copytree(finished, tmp_path / "small")

    def again(*changes, **options):
        said, _ = quietly(params, tmp_path, changes=changes, **options)
        told = (re.match(r"[\d:]+ \[\d/\d\] (\w+):? ?(.*) \.\.\.$", line) for line in said)
        skipped = (re.search(r"\] (\w+) skipped: nothing that it depends on", s) for s in said)
        ran = {m[1]: m[2] for m in told if m}
        assert not ran.keys() & {m[1] for m in skipped if m}
        return ran

    again.folder = tmp_path / "small"
    return again


def test_a_second_run_with_nothing_changed_does_nothing_at_all(again):
    before = content(again.folder)
    times = {n: (again.folder / n).stat().st_mtime_ns for n in before}
    assert again() == {}
    assert content(again.folder) == before
    assert {n: (again.folder / n).stat().st_mtime_ns for n in before} == times


def test_a_second_run_does_not_even_load_what_runs_notebooks(again, params):
    code = (
        "import sys; from aggregation.runs.runner import run; "
        f"run({str(params)!r}, out={str(again.folder.parent)!r}); "
        "assert not {'papermill', 'jax', 'nbconvert', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped: nothing that it depends on has changed") == 4


def test_a_changed_parameter_reruns_its_stage_and_what_depends_on_it(again, finished):
    assert again("rule.min_ratings=6") == {
        "diagnostics": "rule.min_ratings is 6, was 5",
        "publish": "evidence/guidelines.parquet has changed",
    }
    assert files(again.folder) == AFTER_PUBLISH
    for name, digest in outputs(again.folder).items():
        assert digest == sha256(again.folder / name), name
    timing = json.loads((again.folder / "timing.json").read_text())
    before = json.loads((finished / "timing.json").read_text())
    assert timing["seconds"]["train"] == before["seconds"]["train"]
    train = "notebooks/train.ipynb"
    assert (again.folder / train).stat().st_mtime_ns == (finished / train).stat().st_mtime_ns


def test_a_stage_that_ran_again_to_the_same_end_reruns_no_other(again):
    (again.folder / "notebooks" / "ingest.ipynb").unlink()
    assert again() == {"ingest": "notebooks/ingest.ipynb is gone"}
    assert files(again.folder) == AFTER_PUBLISH


@pytest.mark.parametrize(
    ("name", "stage"), [("model/users.parquet", "train"), ("constitution.json", "publish")]
)
def test_an_edited_result_is_made_again(again, finished, name, stage):
    path = again.folder / name
    path.write_bytes(path.read_bytes().replace(b"e", b"3", 1))
    assert again()[stage] == f"{name} was changed"
    assert path.read_bytes() == (finished / name).read_bytes()


def test_until_stops_there_and_leaves_out_later_results_that_do_not_hold(again, finished):
    assert again("rule.min_ratings=6", until="train") == {}
    assert files(again.folder) == AFTER_TRAIN
    assert set(outputs(again.folder)) == AFTER_TRAIN - {*UNHASHED, "params.yaml"}
    for name in ("model/users.parquet", "model/fit.json", "notebooks/train.ipynb"):
        assert (again.folder / name).read_bytes() == (finished / name).read_bytes(), name
    for page in ("report/ingest.html", "report/train.html"):
        links = re.findall(r'href="([\w.]+\.html)"', (again.folder / page).read_text("utf-8"))
        assert "diagnostics.html" not in links


def test_force_and_from_run_stages_that_would_be_skipped(again):
    assert again(first="publish") == {"publish": "it was asked for"}
    assert again(force=True, until="ingest") == {"ingest": "it was asked for"}
    assert files(again.folder) == AFTER_PUBLISH  # what follows still holds


def test_from_refuses_to_stand_on_what_does_not_hold(again):
    before = content(again.folder)
    with pytest.raises(RunError, match=r"ingest must be as it was left, but ratings.min_per_user"):
        again("ratings.min_per_user=2", first="train")
    with pytest.raises(RunError, match="--from train comes after --until ingest"):
        again(first="train", until="ingest")
    assert content(again.folder) == before


def test_another_package_reruns_everything(again, monkeypatch):
    monkeypatch.setattr(runner, "surroundings", lambda: {"package": {"version": "0"}})
    assert set(again(until="ingest").values()) == {"the package has changed"}


def test_a_manifest_that_was_edited_is_not_believed(again):
    path = again.folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8', 1))
    assert list(again(until="ingest")) == ["ingest"]


def test_a_word_that_no_longer_means_nothing_is_a_change(again):
    """null leaves ratings out, a word that is not there is an error: they are not the same."""
    words = "helpful: helpful, not_helpful: not_helpful"
    again(f"ratings.values={{{words}, skip: null}}", until="ingest")
    reasons = again(f"ratings.values={{{words}}}", until="ingest")
    assert reasons == {"ingest": "ratings.values.skip is not set, was null"}


def test_parameters_that_touch_no_stage_are_written_all_the_same(again):
    assert again("title=New", until="ingest") == {}
    assert load_params(again.folder / "params.yaml").title == "New"
    noted = json.loads((again.folder / "manifest.json").read_text())["parameters"]
    assert noted == sha256(again.folder / "params.yaml")


def test_what_is_written_by_hand_ends_that_a_run_is_finished(again):
    folder = RunFolder(again.folder)
    assert folder.finished
    folder.write_json("evidence/minima.json", [])
    assert not folder.finished
    assert again() == {"diagnostics": "evidence/minima.json was changed"}
    assert folder.finished


def test_pages_and_times_are_made_again_without_a_notebook(again, finished):
    for name in ("report/train.html", "timing.json"):
        (again.folder / name).unlink()
    assert again() == {}
    assert files(again.folder) == AFTER_PUBLISH
    page = "report/train.html"
    assert (again.folder / page).read_bytes() == (finished / page).read_bytes()


def test_a_change_of_a_source_that_is_a_folder_is_seen(tmp_path):
    events = [(k, k % 3, k // 3, 1) for k in range(12)]
    comments = [(k, 0, 4, 1) for k in range(3)]
    source = polis_folder(tmp_path / "from", events, comments)
    values = "{agree: helpful, disagree: not_helpful, pass: null}"
    (tmp_path / "p.yaml").write_text(
        f"run: small\nsource: {{kind: polis, path: '{source}'}}\nratings: {{values: {values}}}\n"
    )

    def again():
        return " ".join(quietly(tmp_path / "p.yaml", tmp_path / "out", until="ingest")[0])

    again()
    assert "skipped" in again()
    polis_folder(source, events[:-1], comments)
    assert "votes.csv has changed" in again()
    (source / ".hidden.csv").write_text("")  # nobody reads it
    assert "skipped" in again()


@pytest.mark.parametrize("kind", ["table", "community-notes"])
def test_a_new_part_among_the_files_of_a_source_is_seen(tmp_path, kind):
    source = tmp_path / "from"
    if kind == "table":
        source.mkdir()
        rows = pd.DataFrame({"user_id": list("aabb"), "guideline_id": list("xyxy")})
        rows.assign(rating=["helpful", "not_helpful"] * 2).to_parquet(source / "0.parquet")
    else:
        notes_files.write(source, parts=2)
    (tmp_path / "p.yaml").write_text(f"run: small\nsource: {{kind: {kind}, path: '{source}'}}\n")

    def again():
        return " ".join(quietly(tmp_path / "p.yaml", tmp_path / "out", until="ingest")[0])

    again()
    assert "skipped" in again()
    old = next(p for p in sorted(source.rglob("*")) if p.suffix in (".parquet", ".tsv", ".zip"))
    new = old.with_stem(old.stem + "-new")
    shutil.copy(old, new)
    assert f"{new.relative_to(source)} has changed" in again()
    assert "skipped" in again()


# what fails, and what is killed


def failing(stage):
    """An executor that fails at a stage."""
    import inprocess

    def execute(at, *args, **options):
        if at == stage:
            raise RunError(f"the {stage} notebook stopped")
        return inprocess.execute(at, *args, **options)

    return execute


def test_a_failure_leaves_the_earlier_run_as_it_was_and_the_next_goes_on_from_there(again):
    before = content(again.folder)
    with pytest.raises(RunError, match="publish notebook stopped"):
        again("rule.min_ratings=6", execute=failing("publish"))
    assert content(again.folder) == before
    assert list(again("rule.min_ratings=6")) == ["publish"]
    assert files(again.folder) == AFTER_PUBLISH
    assert {p.name for p in again.folder.parent.iterdir()} == {"small", ".small.lock"}


def test_after_a_failure_the_old_parameters_find_the_old_results(again, finished):
    with pytest.raises(RunError):
        again("seed=8", execute=failing("train"))
    assert again() == {}
    assert content(again.folder) == content(finished)
    assert {p.name for p in again.folder.parent.iterdir()} == {"small", ".small.lock"}


ONLINE = ("source={kind: platform}", "publish.target=platform")


@pytest.mark.parametrize("changes", [("seed=8",), ONLINE], ids=["offline", "online"])
def test_what_the_platform_sent_and_was_sent_stays_whatever_happens(again, changes):
    def execute(stage, source, path, given, **options):
        if changes == ONLINE:  # the notebook finds them, and what it writes is not lost
            assert (path / "source" / "export.json").read_text() == "source/export.json"
            (path / "published" / "receipt.json").write_text("sent")
            raise RunError("and then it fails")
        return failing("ingest")(stage, source, path, given, **options)

    kept = {name: name for name in ("source/export.json", "published/receipt.json")}
    for name in kept:
        (again.folder / name).parent.mkdir()
        (again.folder / name).write_text(name)
    with pytest.raises(RunError):
        again(*changes, execute=execute)
    kept["published/receipt.json"] = "sent" if changes == ONLINE else "published/receipt.json"
    assert {n: (again.folder / n).read_text() for n in kept} == kept
    again("seed=9", until="ingest")
    assert {n: (again.folder / n).read_text() for n in kept} == kept
    assert not (again.folder / "source").is_symlink()


def test_files_of_somebody_beside_those_of_a_run_stay(again):
    own = ("report/notes.md", "notebooks/my.failed.ipynb", "notes.txt", "data/.DS_Store")
    for name in own:
        (again.folder / name).write_text("mine")
    assert again("seed=8", until="ingest")["ingest"]
    assert {n: (again.folder / n).read_text() for n in own} == dict.fromkeys(own, "mine")
    assert RunFolder(again.folder).dataset()


@pytest.mark.parametrize("moved", ["nothing", "data", "everything"])
def test_a_run_that_was_killed_while_it_took_its_place_takes_it(again, params, tmp_path, moved):
    """The folder that is built is whole once it has a manifest.json."""
    (again.folder / "notes.txt").write_text("mine")
    _, other = quietly(params, tmp_path / "other", changes=["seed=8"], until="ingest")
    expected = content(other) | {"notes.txt": b"mine"}
    partial = tmp_path / ".small.partial" / "small"
    partial.parent.mkdir()
    shutil.move(other, partial)
    if moved == "data":
        shutil.move(again.folder / "data", tmp_path / "gone")
    elif moved == "everything":
        shutil.move(again.folder / "notes.txt", partial)
        shutil.move(again.folder, partial.parent / ".replaced")
    assert again("seed=8", until="ingest") == {}
    assert content(again.folder) == expected
    assert not partial.parent.exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import inprocess
from aggregation.runs.runner import run
def execute(stage, source, path, *args, **options):
    if stage == "train":
        (path / "notebooks" / "train.failed.ipynb").write_text("half")
        (path / "data" / ".ratings.parquet.k1ll3d__.partial").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    return inprocess.execute(stage, source, path, *args, **options)
run({params!r}, out={out!r}, execute=execute)
"""


def test_nothing_that_a_killed_run_left_survives_into_a_finished_folder(params, tmp_path):
    tests = str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, params=str(params), out=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert not (tmp_path / "small").exists()
    said, folder = quietly(params, tmp_path, until="train")
    assert sum("skipped" in line for line in said) == 1
    assert files(folder) == AFTER_TRAIN


def test_names_in_a_manifest_do_not_lead_out_of_the_folder(again, tmp_path):
    (tmp_path / "victim").write_text("mine")
    manifest = read_manifest(again.folder)
    manifest["stages"]["ingest"]["outputs"]["../victim"] = sha256(tmp_path / "victim")
    write_manifest(again.folder, "manifest.json", manifest)
    again("seed=8", until="ingest")
    assert (tmp_path / "victim").read_text() == "mine"


def test_an_interrupted_run_leaves_no_kernel_and_goes_on(params, tmp_path):
    import signal

    process = subprocess.Popen(
        [COMMAND, "run", params, "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "[2/4] train ..." in line:
            kernels = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == (
        "Stopped. What was done is kept: the same command goes on from there.\n"
    )
    psutil.wait_procs(kernels, timeout=30)
    assert not [k for k in kernels if k.is_running()]
    assert not (tmp_path / "small").exists()
    said, _ = quietly(params, tmp_path, until="ingest")
    assert "ingest skipped" in said[0]
