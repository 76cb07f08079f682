"""Batches: many runs side by side, by the real command; and Snakemake over the same command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from aggregation import ParameterError, RunError, RunFolder
from aggregation.runs import batch as runs_batch
from aggregation.runs.batch import Task, plan, table
from aggregation.runs.pages import write_run_list

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("aggregation")

PARAMS = """\
run: {run}
seed: 7
source: {{kind: simulated, n_users: 40}}
train: {{starts: 2, max_starts: 2, moves: false}}
"""


@pytest.fixture
def write(tmp_path):
    def write(run, more=""):
        (tmp_path / f"{run}.yaml").write_text(PARAMS.format(run=run) + more)
        return str(tmp_path / f"{run}.yaml")

    return write


def batch(cwd, *words):
    words = [COMMAND, "batch", *map(str, words)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True)


def rows(done):
    """The table at the end, by run: stage, state, time, and what else there is."""
    lines = done.stdout.partition("\n\n")[2].splitlines()
    assert lines[0].split() == ["run", "stage", "state", "time", "accepted", "loss"]
    found = (re.match(r" *(\S+) +(\w+) +(\w+) +([\d.]+) s *(.*)$", line) for line in lines[1:])
    return {m[1]: (m[2], m[3], m[5].split()) for m in found if m}


# what is to be run


def test_a_grid_makes_a_run_for_every_combination(write):
    tasks = plan([write("a"), write("b")], ["train.starts=1,2", "seed=3,4"], ["rule.min_ratings=4"])
    assert [task.run for task in tasks] == [
        f"{run}-starts_{starts}-seed_{seed}" for run in "ab" for starts in (1, 2) for seed in (3, 4)
    ]
    assert plan([write("c")])[0].changes == ("run=c",)  # whatever its file says by then
    assert tasks[3].changes == (
        "rule.min_ratings=4",
        "train.starts=2",
        "seed=4",
        "run=a-starts_2-seed_4",
    )


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ("train.embedding_penalty=0.01,1e-3", ["0.01", "0.001"]),
        ("ratings.duplicates=first,last", ["first", "last"]),
        ('title="a, b",c', ["a_b", "c"]),
        ("title=../../polls/a.csv,./polls/b/", ["polls_a.csv", "polls_b"]),
        ("title=/x/a/it,/x/b/it", ["x_a_it", "x_b_it"]),
        ("train.hold=null,users", ["null", "users"]),
        ("train.moves=true", ["true"]),
        ("rule.min_intercept=-0.1,0.1", ["-0.1", "0.1"]),
    ],
)
def test_values_of_a_grid_are_read_as_in_a_parameter_file(write, grid, names):
    key = grid.partition("=")[0].rpartition(".")[2]
    assert [task.run for task in plan([write("a")], [grid])] == [f"a-{key}_{n}" for n in names]


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (["train.starts"], "write it as key=value,value"),
        (["train.starts="], "write it as key=value,value"),
        (["run=a,b"], "named after its other values"),
        (["seed=1", "seed=2"], "--grid seed is there twice"),
        (["train.startz=1,2"], "train.startz: unknown key: did you mean 'starts'?"),
        (["train.starts=1,0"], "train.starts: must be greater than or equal to 1, not 0"),
        (['title="a b","a_b"'], "the run 'a-title_a_b' is there more than once"),
        (["seed=[1"], "--grid seed"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(write, grid, told):
    with pytest.raises(ParameterError, match=re.escape(told)):
        plan([write("a")], grid)


def test_everything_wrong_in_any_file_is_told_before_anything_runs(write, tmp_path):
    files = [write("a", "sede: 1\n"), write("b"), write("c", "title: 1\n"), "none.yaml"]
    shutil.copy(files[1], tmp_path / "d.yaml")
    done = batch(tmp_path, *files, tmp_path / "d.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    for told in ("a.yaml, line 5: sede", "c.yaml, line 5: title", "none.yaml", "the run 'b'"):
        assert told in done.stderr
    assert not (tmp_path / "outputs").exists()


# runs


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A batch of three files, one of them without its source; the folder and what was said."""
    cwd = tmp_path_factory.mktemp("batch")
    for run in ("one", "two", "broken"):
        (cwd / f"{run}.yaml").write_text(PARAMS.format(run=run))
    broken = cwd / "broken.yaml"
    text = broken.read_text().replace("kind: simulated, n_users: 40", "kind: polis, path: nowhere")
    broken.write_text(text)
    words = ("one.yaml", "broken.yaml", "two.yaml", "-j", 2, "--until", "ingest")
    return cwd, batch(cwd, *words)


def test_one_failure_does_not_stop_the_rest(done):
    cwd, said = done
    assert said.returncode == 1
    assert said.stderr == ""
    found = rows(said)
    assert list(found) == ["one", "broken", "two"]
    assert found["broken"][:2] == ("none", "failed")
    for run in ("one", "two"):
        assert found[run] == ("ingest", "done", [])
        assert (cwd / "outputs" / run / "manifest.json").exists()
    assert "broken: nowhere" in said.stdout.partition("\n\n")[2]
    assert all(
        line.startswith(("one: ", "two: ", "broken: "))
        for line in said.stdout.partition("\n\n")[0].splitlines()
    )
    assert said.stdout.splitlines()[-1] == "Runs: outputs/index.html"
    page = (cwd / "outputs" / "index.html").read_text("utf-8")
    assert page.count("done up to ingest") == 2


CHILD = r"""
import json, os, signal, sys, time
from pathlib import Path
name = sys.argv[1]
print("12:00:00 [1/4] ingest skipped: nothing that it depends on has changed", flush=True)
if name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "late":
    signal.signal(signal.SIGTERM, lambda *_: None)
    while True:
        time.sleep(1)
if name != "same":
    print("12:00:01 [2/4] train: train.starts is 2, was 1 ...", flush=True)
if name == "failed":
    sys.exit("Error: the fit has not converged\nRaise train.max_sweeps")
"""


@pytest.fixture
def children(tmp_path, monkeypatch):
    """Batches whose runs are processes of a few lines instead of kernels."""
    start = subprocess.Popen

    def popen(command, **options):
        run = next(word for word in command if word.startswith("run=")).removeprefix("run=")
        return start([sys.executable, "-c", CHILD, run], **options)

    monkeypatch.setattr(runs_batch.subprocess, "Popen", popen)

    def outcomes(*runs, say=lambda _: None):
        for run in runs:  # an earlier run left its numbers
            RunFolder.of(run, tmp_path).write_json("model/fit.json", {"objective": 0.25})
            verdicts = {"verdicts": {"accepted": 7}}
            RunFolder.of(run, tmp_path).write_json("evidence/summary.json", verdicts)
        tasks = [Task(run, f"{run}.yaml", (f"run={run}",)) for run in runs]
        return {o.run: o for o in runs_batch.run_all(tasks, len(runs), str(tmp_path), [], say)}

    return outcomes


def test_only_a_run_that_is_done_shows_numbers(children):
    found = children("new", "same", "failed", "killed")
    assert {run: o.state for run, o in found.items()} == {
        "new": "done",
        "same": "unchanged",
        "failed": "failed",
        "killed": "failed",
    }
    assert {run: o.stage for run, o in found.items()} == {
        "new": "train",
        "same": "ingest",
        "failed": "train",
        "killed": "ingest",
    }
    for run in ("new", "same"):
        assert (found[run].accepted, found[run].loss) == ("7", "0.25000000")
    for run in ("failed", "killed"):
        assert (found[run].accepted, found[run].loss) == ("", "")
    assert found["killed"].error == "it ended with -9"
    told = table(list(found.values()))
    assert "failed: the fit has not converged\n  Raise train.max_sweeps" in told


def test_runs_that_do_not_stop_are_killed(children, monkeypatch):
    import polars  # noqa: F401  # its handler of SIGINT has the system go on with a wait

    monkeypatch.setattr(runs_batch, "SECONDS_TO_STOP", 0.2)

    def say(line):
        if "ingest" in line:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    found = children("late", say=say)
    assert (found["late"].state, found["late"].stage) == ("stopped", "ingest")


def processes_of(cwd):
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["cwd"] == str(cwd) and ("aggregation.cli" in words or "ipyk" in words):
            found.append(process)
    return found


def test_a_batch_that_is_interrupted_leaves_no_process(write, tmp_path):
    with subprocess.Popen(
        [COMMAND, "batch", write("a"), write("b"), "-j", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if "[1/4] ingest ..." in line:
                break
        left = processes_of(tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "stopping ..." in out
    last = out.partition("\n\n")[2]
    assert re.search(r"^ *a +ingest +stopped", last, re.MULTILINE)
    assert re.search(r"^ *b +none +stopped", last, re.MULTILINE)
    assert left
    psutil.wait_procs(left, timeout=30)
    assert not processes_of(tmp_path)
    assert not list((tmp_path / "outputs").glob("*/manifest.json"))


# the page


def test_the_index_shows_hostile_and_damaged_runs_harmlessly(tmp_path):
    names = ["<script>alert(1)<", "a b\u202e#?%", "empty", "damaged"]
    for name in names:
        (tmp_path / name / "report").mkdir(parents=True)
        (tmp_path / name / "report" / "index.html").write_text("x")
        (tmp_path / name / "params.yaml").write_text('title: "<img src=x onerror=alert(1)>"\n')
    (tmp_path / "damaged" / "params.yaml").write_bytes(b"\xff: [")
    (tmp_path / "damaged" / "model").mkdir()
    (tmp_path / "damaged" / "model" / "fit.json").write_text('{"n_ratings": "<b>"}')
    (tmp_path / "damaged" / "timing.json").write_text("[]")
    (tmp_path / "damaged" / "manifest.json").write_text("[" * 200_000)
    (tmp_path / "empty" / "model").mkdir()
    (tmp_path / "empty" / "model" / "fit.json").write_text("[" * 200_000)
    (tmp_path / "no run").mkdir()
    page = write_run_list(tmp_path).read_text("utf-8")
    assert page.count("<script") == 1  # the one that sorts
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "no run" not in page
    links = re.findall('href="([^"#]*)"', page)
    assert len(links) == len(names)
    from urllib.parse import unquote

    assert all((tmp_path / unquote(link)).is_file() for link in links)


def test_the_index_page_takes_the_place_of_nothing_else(done, tmp_path):
    cwd, _ = done
    mine = {"index.html": "<h1>mine</h1>", "manifest.json": "{}"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match=r"index\.html: lists no runs: move it"):
        write_run_list(tmp_path)
    said = batch(cwd, "one.yaml", "--out", tmp_path)
    assert said.returncode == 1
    assert f"{tmp_path}/index.html: lists no runs: move it" in said.stderr
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == mine
    with pytest.raises(RunError, match="one is a run's folder: give the one that holds it"):
        write_run_list(cwd / "outputs" / "one")
    (tmp_path / "index.html").unlink()
    assert write_run_list(tmp_path) == write_run_list(tmp_path)  # its own page it replaces
    assert (tmp_path / "manifest.json").read_text() == "{}"


def test_a_run_that_failed_is_listed_with_its_notebook_and_without_the_numbers_before(tmp_path):
    finished, failed = RunFolder(tmp_path / "a"), RunFolder(tmp_path / ".a.partial" / "a")
    for folder in (finished, failed):
        folder.write_text("params.yaml", "run: a\ntitle: A\n")
    finished.write_json("model/fit.json", {"objective": 0.25, "n_ratings": 12})
    failed.write_text("notebooks/train.failed.ipynb", "")
    page = write_run_list(tmp_path).read_text("utf-8")
    assert page.count("0.25000000") == 1
    link = 'failed at <a href=".a.partial/a/notebooks/train.failed.ipynb">train</a>'
    assert link in page
    assert "0.25" not in page[page.index(link) :].partition("</tr>")[0]


# a cluster's scheduler


@pytest.mark.slow
def test_snakemake_keeps_going_after_a_failure(tmp_path):
    (tmp_path / "params").mkdir()
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for run in ("one", "broken"):
        (tmp_path / "params" / f"{run}.yaml").write_text(PARAMS.format(run=run))
    with (tmp_path / "params" / "broken.yaml").open("a") as file:
        file.write("sede: 1\n")
    env = os.environ | {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = ["snakemake", "--cores", "2", "--keep-going", "--config", "options=--until ingest"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "sede: unknown key" in done.stdout + done.stderr
    made = (tmp_path / "outputs").glob("*/manifest.json")
    assert [path.parent.name for path in made] == ["one"]
