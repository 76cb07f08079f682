"""Batches: many runs side by side, by the real command; and Snakemake over the same command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aggregation import ParameterError, RunFolder, encode, fit, load_params, read
from aggregation.runs.batch import plan
from aggregation.runs.pages import write_run_list as write_listing

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("aggregation")

PARAMS = """\
run: {run}
seed: 7
source: {{kind: simulated, n_users: 60}}
train: {{starts: 1, max_starts: 1, moves: false}}
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
        (['title="a b","a_b"'], "a.yaml has the run 'a-title_a_b' more than once"),
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
    text = broken.read_text().replace("kind: simulated, n_users: 60", "kind: polis, path: nowhere")
    broken.write_text(text)
    one = load_params(cwd / "one.yaml")  # compiled here, for all runs below
    ratings, _ = encode(read(one.source, one.ratings, one.seed).ratings)
    fit(ratings, settings=one.train.settings(one.seed))
    return cwd, batch(cwd, "one.yaml", "broken.yaml", "two.yaml", "-j", 2)


def test_one_failure_does_not_stop_the_rest(done):
    cwd, said = done
    assert said.returncode == 1
    assert said.stderr == ""
    found = rows(said)
    assert list(found) == ["one", "broken", "two"]
    assert found["broken"][:2] == ("ingest", "failed")
    for run in ("one", "two"):
        stage, state, (accepted, loss) = found[run]
        assert (stage, state) == ("publish", "done")
        assert int(accepted) > 0
        assert re.fullmatch(r"0\.\d{8}", loss)
        assert (cwd / "outputs" / run / "manifest.json").exists()
    assert "broken: nowhere" in said.stdout.partition("\n\n")[2]
    assert all(
        line.startswith(("one: ", "two: ", "broken: "))
        for line in said.stdout.partition("\n\n")[0].splitlines()
    )


def test_a_batch_goes_on_where_it_stopped(done):
    cwd, _ = done
    again = batch(cwd, "one.yaml", "two.yaml")
    assert again.returncode == 0
    assert {run: row[1] for run, row in rows(again).items()} == {
        "one": "unchanged",
        "two": "unchanged",
    }
    again = batch(cwd, "one.yaml", "two.yaml", "--set", "rule.min_ratings=6", "--until", "train")
    assert {run: row[:2] for run, row in rows(again).items()} == {
        "one": ("train", "done"),
        "two": ("train", "done"),
    }
    page = (cwd / "outputs" / "index.html").read_text("utf-8")
    assert page.count("done up to train") == 2


def test_the_index_page_lists_the_runs_of_a_batch(done):
    cwd, said = done
    assert said.stdout.splitlines()[-1] == "Runs: outputs/index.html"
    page = (cwd / "outputs" / "index.html").read_text("utf-8")
    assert page.count("<tr>") == 4
    assert re.search(
        r"broken.*?</th>\s*<td[^>]*>failed at <a [^>]*>ingest</a></td>", page, re.DOTALL
    )


def processes_of(cwd):
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        if process.info["cwd"] == str(cwd) and "aggregation" in words + str(cwd):
            found.append(words)
    return [w for w in found if "aggregation.cli" in w or "ipykernel" in w]


def gone(cwd, seconds):
    """Wait until all have ended: a kernel sees within a second that its run has."""
    deadline = time.monotonic() + seconds
    while left := processes_of(cwd):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_the_runs_of_a_batch_that_is_killed_end_too(write, tmp_path):
    process = subprocess.Popen(
        [COMMAND, "batch", write("a"), write("b"), "-j", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    begun = set()
    while begun < {"a", "b"}:
        line = process.stdout.readline()
        assert line, "it ended"
        begun |= {line[:1]} if "[1/4] ingest ..." in line else set()
    process.kill()
    process.communicate()
    gone(tmp_path, 60)
    assert not any(RunFolder(tmp_path / "outputs" / run).finished for run in "ab")
    again = batch(tmp_path, "a.yaml", "b.yaml", "--until", "ingest")
    assert {run: row[1] for run, row in rows(again).items()} == {"a": "done", "b": "done"}


def test_an_interrupted_batch_stops_cleanly_and_goes_on(write, tmp_path):
    files = [write(run) for run in ("a", "b", "c")]
    process = subprocess.Popen(
        [COMMAND, "batch", *files, "-j", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},  # training takes a while
    )
    for line in process.stdout:
        if "a: " in line and "[2/4] train ..." in line:
            break
    page = tmp_path / "outputs" / "a" / "report" / "ingest.html"
    while not (page.exists() and any("ipykernel" in words for words in processes_of(tmp_path))):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert "stopping ..." in out
    last = out.partition("\n\n")[2]
    assert re.search(r"^ *a +ingest +stopped", last, re.MULTILINE)
    assert re.search(r"^ *c +none +stopped", last, re.MULTILINE)
    gone(tmp_path, 10)
    assert not list((tmp_path / "outputs").glob("*/manifest.json"))
    again = batch(tmp_path, *files, "--until", "ingest")
    found = rows(again)
    assert again.returncode == 0, again.stdout
    assert {run: row[0] for run, row in found.items()} == dict.fromkeys("abc", "ingest")
    assert "a: " in again.stdout
    assert re.search(r"a: [\d:]+ \[1/1\] ingest skipped", again.stdout)


def test_a_batch_stops_its_runs_even_where_they_hear_no_ctrl_c(write, tmp_path):
    process = subprocess.Popen(
        [COMMAND, "batch", write("a"), "-j", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as begun with `&`
    )
    for line in process.stdout:
        if "[1/4] ingest ..." in line:
            break
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"^ *a +none +stopped", out, re.MULTILINE)
    gone(tmp_path, 10)


def test_a_run_that_is_killed_does_not_stop_the_rest(write, tmp_path):
    process = subprocess.Popen(
        [COMMAND, "batch", write("a"), write("b"), "-j", "2", "--until", "ingest"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    killed = False
    while not killed and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            words = child.cmdline()  # just forked, it has those of the batch, with both files
            if "aggregation.cli" in words and any(word.endswith("a.yaml") for word in words):
                child.kill()
                killed = True
        time.sleep(0.01)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"^ *a +ingest +failed", out, re.MULTILINE)
    assert re.search(r"^ *b +ingest +done", out, re.MULTILINE)
    assert "a: it ended with -9" in out


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
    page = write_listing(tmp_path).read_text("utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "no run" not in page
    links = re.findall('href="([^"]*)"', page)
    assert len(links) == len(names)
    from urllib.parse import unquote

    assert all((tmp_path / unquote(link)).is_file() for link in links)


def test_the_index_page_takes_the_place_of_nothing_else(done, tmp_path):
    cwd, _ = done
    mine = {"index.html": "<h1>mine</h1>", "manifest.json": "{}"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    for said in (batch(cwd, "one.yaml", "--out", tmp_path), index(cwd, tmp_path)):
        assert said.returncode == 1
        assert f"{tmp_path}/index.html: lists no runs: move it" in said.stderr
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == mine
    said = index(cwd, "outputs/one")
    assert "outputs/one is a run's folder: give the one that holds it" in said.stderr
    assert (cwd / "outputs" / "one" / "manifest.json").is_file()
    (tmp_path / "index.html").unlink()
    assert index(cwd, tmp_path).returncode == index(cwd, tmp_path).returncode == 0
    assert (tmp_path / "manifest.json").read_text() == "{}"


def index(cwd, out):
    return subprocess.run([COMMAND, "index", out], cwd=cwd, capture_output=True, text=True)


def test_the_index_command_makes_the_page_of_a_folder_without_runs(tmp_path):
    (tmp_path / "outputs").mkdir()
    words = [COMMAND, "index", "outputs"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert said.stdout == "Runs: outputs/index.html\n"
    assert "There is no run" in (tmp_path / "outputs" / "index.html").read_text("utf-8")


# a cluster's scheduler


def test_snakemake_runs_what_is_left_and_keeps_going(tmp_path):
    (tmp_path / "params").mkdir()
    shutil.copy(ROOT / "Snakefile", tmp_path)
    for run in ("one", "two", "broken"):
        (tmp_path / "params" / f"{run}.yaml").write_text(PARAMS.format(run=run))
    broken = tmp_path / "params" / "broken.yaml"
    whole = broken.read_text()
    broken.write_text(whole + "sede: 1\n")
    env = os.environ | {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}
    env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def snakemake():
        words = ["snakemake", "--cores", "2", "--keep-going", "--config", "options=--until ingest"]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    code, said = snakemake()
    assert code != 0
    assert "sede: unknown key" in said
    outputs = tmp_path / "outputs"
    assert {p.parent.name for p in outputs.glob("*/manifest.json")} == {"one", "two"}
    made = (outputs / "one" / "manifest.json").stat().st_mtime_ns
    broken.write_text(whole)
    code, said = snakemake()
    assert code == 0, said
    assert {p.parent.name for p in outputs.glob("*/manifest.json")} == {"one", "two", "broken"}
    assert (outputs / "one" / "manifest.json").stat().st_mtime_ns == made
    assert "broken" in (outputs / "index.html").read_text("utf-8")
