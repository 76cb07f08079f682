"""Faults under a run: a clear error or a right result, never a run that only looks finished."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from aggregation import RunError, RunFolder
from aggregation.runs import kernels, notebook_source
from aggregation.runs import provenance as manifest
from aggregation.runs import runner as runs
from aggregation.verify.claims import files

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("aggregation")

PARAMS = """\
run: small
seed: 7
source: {kind: simulated, n_users: 60}
train: {starts: 1, max_starts: 1, moves: false}
"""


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PARAMS)
    return path


def start(params, *words, **options):
    return subprocess.Popen(
        [COMMAND, "run", params, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def until(process, told):
    """Wait for a line that ends with these words."""
    for line in process.stdout:
        if line.rstrip("\n").endswith(told):
            return
    pytest.fail(f"no {told!r}: {process.stderr.read()}")


def kernels_of(process):
    """The kernels of a run, as soon as there are any."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):  # git and others come and go
            children = psutil.Process(process.pid).children(recursive=True)
            if kernels := [c for c in children if "ipykernel_launcher" in " ".join(c.cmdline())]:
                return kernels
        time.sleep(0.02)
    pytest.fail(f"it ended before there was a kernel: {process.stderr.read()}")


def is_left(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_clear(code, error, folder):
    """A failed run says so in few lines, and its folder does not look like a finished one."""
    assert code == 1, error
    assert error.startswith("Error: ")
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 6
    assert not (folder / "manifest.json").exists()
    assert not (folder / "timing.json").exists()


def is_whole(folder):
    assert [str(c) for c in files(RunFolder(folder)) if c.holds is not True] == []


# the disk

SMALL_DISK = """\
mount -t tmpfs -o "${OPTIONS#full,}" none "$DISK" || exit 77
case "$OPTIONS" in full,*) cat /dev/zero > "$DISK/all" 2>&-; esac
"$@"; code=$?
cp -r "$DISK/." "$KEPT"
exit $code
"""


def on_a_disk(tmp_path, options, *words):
    """The command with a disk that only it sees, mounted at disk/; a copy of what it leaves."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    root = ["--map-root-user"] if os.geteuid() else []
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            *root,
            "sh",
            "-c",
            SMALL_DISK,
            "sh",
            *map(str, words),
        ],
        env=os.environ | {"OPTIONS": options, "DISK": str(disk), "KEPT": str(kept)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    return done, kept


@pytest.mark.parametrize("size", ["full,size=40", "size=120", "size=600"])
def test_a_full_disk_is_a_clear_error_wherever_it_fills_up(params, tmp_path, size):
    run = (COMMAND, "run", params, "--out", tmp_path / "disk")
    done, kept = on_a_disk(tmp_path, f"{size}k", *run)
    is_clear(done.returncode, done.stderr, kept / "small")
    assert "No space left on device" in done.stderr
    assert "free some room, or choose another folder with --out" in done.stderr


def test_a_disk_that_is_just_large_enough_gives_a_whole_run(params, tmp_path):
    run = (COMMAND, "run", params, "--out", tmp_path / "disk")
    done, kept = on_a_disk(tmp_path, "size=8m", *run)
    assert done.returncode == 0, done.stderr
    is_whole(kept / "small")


def test_a_disk_that_cannot_be_written_is_a_clear_error(params, tmp_path):
    run = (COMMAND, "run", params, "--out", tmp_path / "disk")
    done, kept = on_a_disk(tmp_path, "ro", *run)
    is_clear(done.returncode, done.stderr, kept / "small")
    assert "Read-only file system" in done.stderr
    assert "choose another folder with --out" in done.stderr


def test_outputs_behind_links(params, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    runs.run(params, until="ingest", out=tmp_path / "link", say=print)
    assert (tmp_path / "real" / "small" / "manifest.json").exists()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone" / "for good")
    with pytest.raises(RunError, match=r"nowhere.* cannot be written .*another folder with --out"):
        runs.run(params, out=tmp_path / "nowhere", say=print)


# under way


def test_a_kernel_that_is_killed_in_a_cell_is_a_clear_error(params, tmp_path):
    process = start(params, "--out", tmp_path)
    until(process, "[2/4] train ...")
    kernels = kernels_of(process)
    time.sleep(0.5)
    for kernel in kernels:
        kernel.kill()
    _, error = process.communicate(timeout=60)
    is_clear(process.returncode, error, tmp_path / "small")
    assert re.search(r"kernel of the train notebook died (in cell \d+, '|as it began)", error)
    assert "run it again, or with less data" in error


def test_parameters_that_change_under_way_change_nothing(params, tmp_path):
    process = start(params, "--out", tmp_path)
    until(process, "[1/4] ingest ...")
    params.write_text(PARAMS.replace("seed: 7", "seed: 8").replace("starts: 1", "starts: 2"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    is_whole(tmp_path / "small")
    assert "seed: 7" in (tmp_path / "small" / "params.yaml").read_text()
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["seed"] == 7


def test_outputs_that_are_deleted_under_way_are_a_clear_error(params, tmp_path):
    process = start(params, "--out", tmp_path / "out")
    until(process, "[3/4] diagnostics ...")
    time.sleep(2)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    _, error = process.communicate(timeout=60)
    is_clear(process.returncode, error, tmp_path / "out" / "small")


def test_a_clock_that_runs_backwards_disturbs_nothing(params, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nnow = time.time\nbegun = now()\n"
        "time.time = lambda: begun - 50 * (now() - begun)\n"
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = start(params, "--out", tmp_path, env=env)
    out, error = process.communicate(timeout=90)
    assert (process.returncode, error) == (0, ""), out
    is_whole(tmp_path / "small")
    seconds = json.loads((tmp_path / "small" / "timing.json").read_text())["seconds"]
    assert all(0 < s < 60 for s in seconds.values())
    for path in (tmp_path / "small").rglob("*"):
        os.utime(path, (4e9, 4e9))  # made in the year 2096
    said = []
    runs.run(params, out=tmp_path, say=said.append)
    assert [line[-7:] for line in said] == ["changed"] * 4


def test_a_locale_without_the_letters_gives_the_same_run(tmp_path):
    params = tmp_path / "p.yaml"
    params.write_text(PARAMS + 'title: "Förderung 🎉 税金"\n', encoding="utf-8")
    here = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out = tmp_path / "Ergebnisse 🎉"
    process = start(params, "--out", out, env=os.environ | here)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert said.splitlines()[-1].startswith("Report: ")
    is_whole(out / "small")
    page = (out / "small" / "report" / "index.html").read_text("utf-8")
    assert "Förderung 🎉 税金" in page


# where it is begun, and what with


def test_modules_of_the_working_directory_are_not_taken(params, tmp_path):
    for name in ("aggregation", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    process = start(params, "--until", "ingest", cwd=tmp_path)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    words = [COMMAND, "batch", params, "--until", "ingest", "--force"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_long_and_odd_paths_are_paths(params, tmp_path):
    deep = tmp_path / ("t" * 90)
    deep.mkdir()
    out = tmp_path / "o {run} {y} {0}"
    env = os.environ | {"TMPDIR": str(deep)}
    process = start(params, "--until", "ingest", "--out", out, env=env)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert (out / "small" / "notebooks" / "ingest.ipynb").exists()
    assert not list(deep.iterdir())


def test_a_reader_who_leaves_does_not_stop_a_run(params, tmp_path):
    process = start(params, "--until", "ingest", "--out", tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    is_whole_until(tmp_path / "small", "ingest")


def test_closed_streams_are_no_streams_and_no_error(params, tmp_path):
    words = f"exec '{COMMAND}' run '{params}' --until ingest --out '{tmp_path}' <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", words]).returncode == 0
    is_whole_until(tmp_path / "small", "ingest")


def is_whole_until(folder, stage):
    noted = json.loads((folder / "manifest.json").read_text())
    assert list(noted["stages"]) == [stage]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_no_kernel(params, tmp_path, number):
    process = start(params, "--out", tmp_path)
    until(process, "[1/4] ingest ...")
    kernels = kernels_of(process)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert "Stopped. What was done is kept" in process.stderr.read()
    deadline = time.monotonic() + 10
    while any(map(is_left, kernels)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_the_environment_says_of_results_is_not_heard(monkeypatch):
    for name in ("JAX_ENABLE_X64", "XLA_FLAGS", "PYTHONWARNINGS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/proc/nohome")
    seen = kernels.environment("place")
    assert not {"JAX_ENABLE_X64", "XLA_FLAGS", "PYTHONWARNINGS"} & seen.keys()
    assert seen["JAX_COMPILATION_CACHE_DIR"] == "1"  # where, not what
    assert seen["JAX_PLATFORMS"] == "cpu"
    assert seen["MPLCONFIGDIR"] == "place"


def test_the_manifest_does_not_say_what_git_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # of another project
    assert manifest.circumstances()["commit"] == manifest._git("rev-parse", "HEAD")
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    told = manifest.circumstances()
    assert (told["commit"], told["dirty"]) == (None, None)


@pytest.mark.parametrize("timeout", ["nan", "inf", "0", "-1"])
def test_a_timeout_that_is_none_is_refused(params, tmp_path, timeout):
    process = start(params, "--out", tmp_path, "--timeout", timeout)
    assert process.wait(60) != 0
    assert "timeout" in process.stderr.read()


# notebooks that misbehave


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Puts a cell into a stage's notebook, in a project of its own."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    shutil.copy(ROOT / "requirements.lock", project)
    monkeypatch.setattr(notebook_source, "ROOT", project)
    monkeypatch.setattr(manifest, "ROOT", project)

    def add(stage, code):
        path = project / "notebooks" / f"{stage}.ipynb"
        whole = json.loads(path.read_text("utf-8"))
        whole["cells"].insert(
            3,
            {
                "cell_type": "code",
                "id": f"fault-{len(whole['cells'])}",
                "metadata": {},
                "outputs": [],
                "execution_count": None,
                "source": textwrap.dedent(code),
            },
        )
        path.write_text(json.dumps(whole), "utf-8")

    return add


def fails(params, tmp_path, **options):
    with pytest.raises(RunError) as caught:
        runs.run(params, out=tmp_path, say=print, **options)
    text = str(caught.value)
    is_clear(1, "Error: " + text, tmp_path / "small")
    return text


@pytest.mark.parametrize(
    ("stage", "line", "lost"),
    [
        ("train", "folder.save_fit(", "model/guidelines.parquet"),
        ("publish", 'folder.write_text("constitution.csv"', "constitution.csv"),
    ],
)
@pytest.mark.usefixtures("notebook")
def test_a_notebook_that_does_not_write_what_it_should_ends_the_run(
    params, tmp_path, stage, line, lost
):
    path = tmp_path / "project" / "notebooks" / f"{stage}.ipynb"
    whole = json.loads(path.read_text("utf-8"))
    lines = [line for cell in whole["cells"] for line in cell["source"] if cell["source"]]
    assert sum(one.startswith(line) for one in lines) == 1
    for cell in whole["cells"]:
        cell["source"] = [one for one in cell["source"] if not one.startswith(line)]
    path.write_text(json.dumps(whole), "utf-8")
    assert f"the {stage} notebook did not write {lost}: put back" in fails(params, tmp_path)


def test_an_error_that_a_tag_lets_pass_ends_the_run_all_the_same(notebook, params, tmp_path):
    notebook("ingest", "1 / 0")
    path = tmp_path / "project" / "notebooks" / "ingest.ipynb"
    whole = json.loads(path.read_text("utf-8"))
    whole["cells"][3]["metadata"]["tags"] = ["raises-exception"]
    path.write_text(json.dumps(whole), "utf-8")
    told = fails(params, tmp_path)
    assert "ZeroDivisionError: division by zero" in told
    assert "make lab" in told
    assert "in cell 5, '1 / 0'" in told


def test_what_a_notebook_lets_other_programs_print_does_not_reach_the_terminal(
    notebook, params, tmp_path, capfd
):
    notebook("ingest", "import os\nos.system('echo from outside; echo as well >&2')")
    runs.run(params, until="ingest", out=tmp_path, say=lambda _: None)
    assert "from outside" in (tmp_path / "small" / "notebooks" / "ingest.ipynb").read_text("utf-8")
    assert capfd.readouterr() == ("", "")


def test_a_notebook_that_prints_100_megabytes_is_stopped(notebook, params, tmp_path):
    notebook("ingest", "for _ in range(100_000):\n    print('x' * 1000)")
    begin = time.monotonic()
    told = fails(params, tmp_path)
    assert "it showed more than 10 million characters" in told
    assert "in cell 5, 'for _ in range(100_000):'" in told
    assert time.monotonic() - begin < 60
    kept = tmp_path / "small" / "notebooks" / "ingest.failed.ipynb"
    assert kept.stat().st_size < 12_000_000
    assert "(cut here)" in kept.read_text()


def test_a_notebook_that_prints_much_but_not_too_much_loses_nothing(notebook, params, tmp_path):
    notebook("ingest", "for k in range(20_000):\n    print(k, 'x' * 100)")
    folder = runs.run(params, until="ingest", out=tmp_path, say=print)
    cells = json.loads((folder / "notebooks" / "ingest.ipynb").read_text())["cells"]
    (printed,) = next(cell["outputs"] for cell in cells if cell["id"].startswith("fault"))
    assert "".join(printed["text"]) == "".join(f"{k} {'x' * 100}\n" for k in range(20_000))


def test_a_notebook_that_shows_too_much_is_stopped_before_its_page_is_made(
    notebook, params, tmp_path
):
    code = "from IPython.display import HTML, display\ndisplay(HTML('<p>x</p>' * 2_000_000))"
    notebook("ingest", code)
    told = fails(params, tmp_path)
    assert "it showed more than 10 million characters" in told
    assert (tmp_path / "small" / "notebooks" / "ingest.failed.ipynb").stat().st_size < 12_000_000


def test_a_stage_that_writes_into_the_folder_of_another_is_found(notebook, params, tmp_path):
    notebook("train", f"open({str(tmp_path / 'small/data/ingest.json')!r}, 'a').write(' ')")
    told = fails(params, tmp_path, until="train")
    assert "data/ingest.json was changed or taken away while the run was at work" in told


def test_what_jupyterlab_writes_into_a_notebook_is_no_change(notebook, params, tmp_path):
    notebook("ingest", "print('x')")
    runs.run(params, until="ingest", out=tmp_path, say=print)
    path = tmp_path / "project" / "notebooks" / "ingest.ipynb"
    whole = json.loads(path.read_text("utf-8"))
    whole["metadata"]["language_info"] = {"name": "python", "version": "3.0"}
    for cell in whole["cells"]:
        cell["metadata"]["scrolled"] = True
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 7, "outputs": []}
    path.write_text(json.dumps(whole), "utf-8")
    said = []
    runs.run(params, until="ingest", out=tmp_path, say=said.append)
    assert [line[-7:] for line in said] == ["changed"]
    notebook("ingest", "print('y')")
    runs.run(params, until="ingest", out=tmp_path, say=said.append)
    assert "ingest: its notebook has changed" in said[1]


SYNTAX_ERROR = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {"tags": ["parameters"]},
                "source": "seed =",
            }
        ]
    }
)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("<<<<<<< HEAD\n{", "is no notebook any more: get it back with git"),
        (None, "cannot be read (No such file or directory): get it back with git"),
        ('{"cells": []}', "the ingest notebook has no cell tagged `parameters`"),
        (SYNTAX_ERROR, "cell tagged `parameters` is no Python (line 1)"),
    ],
)
@pytest.mark.usefixtures("notebook")
def test_a_notebook_that_is_none_is_a_clear_error(params, tmp_path, broken, told):
    path = tmp_path / "project" / "notebooks" / "ingest.ipynb"
    path.unlink() if broken is None else path.write_text(broken)
    assert told in fails(params, tmp_path)


def test_a_parameters_cell_may_name_types():
    cell = {"metadata": {"tags": ["parameters"]}, "source": "seed: int = 1\nout = 'x'\nrun: str"}
    assert notebook_source.declared("x", json.dumps({"cells": [cell]})) == ["seed", "out", "run"]


@pytest.mark.parametrize(
    "code", ["import time\ntime.sleep(1000)", "while True:\n    pass"], ids=["sleep", "spin"]
)
def test_a_notebook_that_hangs_is_stopped(notebook, params, tmp_path, code):
    notebook("ingest", code)
    told = fails(params, tmp_path, timeout=4)
    assert f"the ingest notebook was stopped in cell 5, {code.splitlines()[0]!r}" in told
    assert "it took more than 4 seconds" in told
    assert "raise --timeout" in told
    assert (tmp_path / "small" / "notebooks" / "ingest.failed.ipynb").exists()
    assert not psutil.Process().children()


def test_the_timeout_is_for_the_whole_stage(notebook, params, tmp_path):
    notebook("ingest", "import time\ntime.sleep(3)")
    notebook("ingest", "import time\ntime.sleep(3)")
    assert "it took more than 4 seconds" in fails(params, tmp_path, timeout=4)


def test_a_cell_that_hides_its_errors_is_refused(notebook, params, tmp_path):
    notebook("ingest", "%%capture\n1 / 0")
    told = fails(params, tmp_path)
    assert "was stopped in cell 5, '%%capture': it hides its errors.\nTake out %%capture" in told


@pytest.mark.parametrize("exits", ["raise SystemExit(0)", "import sys; sys.exit(3)", "exit()"])
def test_a_notebook_that_exits_early_is_not_taken_for_done(notebook, params, tmp_path, exits):
    notebook("ingest", exits)
    told = fails(params, tmp_path)
    assert f"the ingest notebook was stopped in cell 5, '{exits}': it exits" in told
    assert "or cells after it would not run (it is kept as" in told
    assert (tmp_path / "small" / "notebooks" / "ingest.failed.ipynb").is_file()


def test_an_error_of_many_lines_is_cut_and_kept(notebook, params, tmp_path):
    notebook("ingest", "raise ValueError('\\n'.join(f'line {k}' for k in range(50)))")
    told = fails(params, tmp_path)
    assert told.startswith("ValueError: line 0\nline 1\n")
    assert told.splitlines()[3] == "line 49"
    assert told.splitlines()[4].startswith("mend that cell")
    assert 'stopped in cell 5, "raise ValueError(' in told
    kept = tmp_path / "small" / "notebooks" / "ingest.failed.ipynb"
    assert "line 49" in kept.read_text()


def test_data_that_change_while_they_are_read_are_refused(notebook, tmp_path):
    (tmp_path / "r.csv").write_text("user_id,guideline_id,rating\nu,g,helpful\nv,g,helpful\n")
    params = tmp_path / "p.yaml"
    params.write_text(f"run: small\nsource: {{kind: table, path: {tmp_path / 'r.csv'}}}\n")
    runs.run(params, until="ingest", out=tmp_path, say=print)
    notebook("ingest", f"open({str(tmp_path / 'r.csv')!r}, 'a').write('w,g,helpful\\n')")
    assert "r.csv was changed while it was read: run it again" in fails(params, tmp_path)


def test_a_package_that_changes_under_way_is_noticed(params, tmp_path, monkeypatch):
    versions = iter("12")
    monkeypatch.setattr(runs, "surroundings", lambda: {"package": next(versions)})
    assert "the package was changed while the run was at work" in fails(
        params, tmp_path, until="ingest"
    )


def test_nothing_of_a_kernel_is_left_when_it_is_done(params, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr(kernels.tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    runs.run(params, until="ingest", out=tmp_path, say=print)
    assert list((tmp_path / "t").iterdir()) == []
