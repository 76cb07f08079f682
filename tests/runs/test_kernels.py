"""Notebooks in real kernels: what misbehaves is named, and nothing of a kernel is left."""

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
from inprocess import quietly
from jupyter_core.utils import run_sync

from aggregation import RunError
from aggregation.runs import executor, kernel, notebook, provenance

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("aggregation")


def start(params, *words, **options):
    return subprocess.Popen(
        [COMMAND, "run", params, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def is_kernel(process):
    """Whether it is a kernel, or the server that forks them."""
    return any(name in " ".join(process.cmdline()) for name in ("ipykernel", "kernel_server"))


def kernels_of(process):
    """The kernels of a run, as soon as there are any."""
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):  # git and others come and go
            children = psutil.Process(process.pid).children(recursive=True)
            if kernels := [c for c in children if is_kernel(c)]:
                return kernels
        time.sleep(0.02)
    pytest.fail(f"it ended before there was a kernel: {process.stderr.read()}")


def is_clear(error, folder):
    """A failed run says so in few lines, and leaves nothing that looks like a finished one."""
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 8
    assert not folder.exists()


# the machine


SMALL_DISK = """\
mount -t tmpfs -o "$OPTIONS" none "$DISK" || exit 77
"$@"; code=$?
ls -A "$DISK" >&2
exit $code
"""


def on_a_disk(tmp_path, options, *words):
    """The command, with a disk at disk/ that only it sees."""
    disk = tmp_path / "disk"
    disk.mkdir()
    root = ["--map-root-user"] if os.geteuid() else []
    done = subprocess.run(
        ["unshare", "--mount", *root, "sh", "-c", SMALL_DISK, "sh", *map(str, words)],
        env=os.environ | {"OPTIONS": options, "DISK": str(disk)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    return done


@pytest.mark.parametrize("size", ["size=4k", pytest.param("size=120k", marks=pytest.mark.slow)])
def test_a_full_disk_is_a_clear_error_wherever_it_fills_up(params, tmp_path, size):
    done = on_a_disk(tmp_path, size, COMMAND, "run", params, "--out", tmp_path / "disk")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "free some room, or choose another folder with --out" in done.stderr
    assert "small" not in done.stderr.splitlines()  # no finished run


def test_a_disk_that_cannot_be_written_is_a_clear_error(params, tmp_path):
    done = on_a_disk(tmp_path, "ro", COMMAND, "run", params, "--out", tmp_path / "disk")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "choose another folder with --out" in done.stderr


def test_a_kernel_that_is_killed_is_a_clear_error(params, tmp_path):
    process = start(params, "--out", tmp_path)
    for child in kernels_of(process):
        child.kill()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    is_clear(error, tmp_path / "small")
    assert re.search(r"kernel (died|did not start)|its kernel died", error)
    assert "Run it again" in error


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_run_that_ends_leaves_no_kernel(params, tmp_path, number):
    process = start(params, "--out", tmp_path)
    process.stdout.readline()
    kernels = kernels_of(process)
    process.send_signal(number)
    assert process.wait(60) == (130 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert "Stopped. What was done is kept" in process.stderr.read()
    psutil.wait_procs(kernels, timeout=30)
    assert not [k for k in kernels if k.is_running()]


def test_kernels_are_forks_of_one_process_where_that_is_possible(project, params, tmp_path):
    """And are started anew elsewhere, with the same results."""
    project("ingest", "import os\nprint('parent', os.getppid())")
    project("train", "import os\nprint('parent', os.getppid())")
    tables = []
    for forks in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(executor, "FORKS", forks and kernel.FORKS)
            _, folder = quietly(params, tmp_path / str(forks), until="train", execute=None)
        executed = [(folder / "notebooks" / f"{s}.ipynb").read_text() for s in ("ingest", "train")]
        parents = {re.search(r"parent (\d+)", text)[1] for text in executed}
        assert len(parents) == 1
        assert (parents == {str(os.getpid())}) is not (forks and kernel.FORKS)
        tables.append(json.loads((folder / "manifest.json").read_text())["tables"])
    assert tables[0] == tables[1]


DEAF = """
import os, signal, sys, time
from aggregation.runs.executor import Executor
call = Executor.__call__
def deaf(self, *words, **options):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except KeyboardInterrupt:
        pass
    return call(self, *words, **options)
Executor.__call__ = deaf
from aggregation.cli import main
main(["run", *sys.argv[1:]])
"""


def test_an_interrupt_that_a_library_swallows_ends_the_run_all_the_same(params, tmp_path):
    words = [sys.executable, "-c", DEAF, params, "--out", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130
    assert done.stderr.startswith("Stopped.")
    assert "train" not in done.stdout


def test_odd_surroundings_give_the_same_run(params, tmp_path):
    """A clock that runs backwards, a locale without the letters, a working directory with modules
    of famous names, a long TMPDIR, a path with braces.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nnow = time.time\nbegun = now()\n"
        "time.time = lambda: begun - 50 * (now() - begun)\n"
    )
    (tmp_path / "here").mkdir()
    for name in ("aggregation", "numpy", "json"):
        (tmp_path / "here" / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    deep = tmp_path / ("t" * 90)
    deep.mkdir()
    env = os.environ | {"LC_ALL": "C", "LANG": "C", "TMPDIR": str(deep)}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split()])
    out = tmp_path / "Ergebnisse 🎉 {run} {0}"
    words = ("--until", "ingest", "--out", out, "--set", "title=Förderung 🎉 税金")
    process = start(params, *words, env=env, cwd=tmp_path / "here")
    said, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, ""), said
    assert (out / "small" / "manifest.json").exists()
    assert "Förderung 🎉 税金" in (out / "small" / "params.yaml").read_text("utf-8")
    seconds = json.loads((out / "small" / "timing.json").read_text())["seconds"]
    assert all(0 < s < 60 for s in seconds.values())
    assert not list(deep.iterdir())  # nothing of a kernel is left


def test_a_reader_who_leaves_does_not_stop_a_run(params, tmp_path):
    process = start(params, "--until", "ingest", "--out", tmp_path)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    assert (tmp_path / "small" / "manifest.json").exists()


def test_settings_of_the_environment_that_change_results_do_not_reach_a_kernel(monkeypatch):
    for name in ("JAX_ENABLE_X64", "XLA_FLAGS", "PYTHONWARNINGS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("HOME", "/proc/nohome")
    seen = kernel.environment("place")
    assert not {"JAX_ENABLE_X64", "XLA_FLAGS", "PYTHONWARNINGS"} & seen.keys()
    assert seen["JAX_COMPILATION_CACHE_DIR"] == "1"  # where, not what
    assert seen["JAX_PLATFORMS"] == "cpu"
    assert seen["MPLCONFIGDIR"] == "place"


def test_a_kernel_computes_on_what_was_asked_for_and_the_manifest_says_so(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".5")
    seen = kernel.environment("place")
    assert (seen["JAX_PLATFORMS"], seen["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == ("cuda", ".5")
    assert provenance.circumstances()["jax_platforms"] == "cuda"


def test_the_manifest_does_not_say_what_git_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # of another project
    assert provenance.circumstances()["commit"] == provenance._git("rev-parse", "HEAD")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    told = provenance.circumstances()
    assert (told["commit"], told["dirty"]) == (None, None)


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), 0, -1])
def test_a_timeout_that_is_none_is_refused(params, tmp_path, timeout):
    with pytest.raises(RunError, match="--timeout"):
        quietly(params, tmp_path, timeout=timeout)


# notebooks that misbehave


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own; gives a function that puts a cell into a stage's notebook."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr(provenance, "CHECKOUT", root)
    monkeypatch.chdir(tmp_path)  # else the notebooks of the working folder are taken

    def add(stage, code, tags=()):
        path = root / "notebooks" / f"{stage}.ipynb"
        whole = json.loads(path.read_text("utf-8"))
        cell = {"cell_type": "code", "id": f"fault-{len(whole['cells'])}", "outputs": []}
        cell |= {"metadata": {"tags": list(tags)}, "execution_count": None}
        whole["cells"].insert(3, cell | {"source": textwrap.dedent(code)})
        path.write_text(json.dumps(whole), "utf-8")

    add.root = root
    return add


def fails(params, tmp_path, **options):
    with pytest.raises(RunError) as caught:
        quietly(params, tmp_path, until="ingest", **options)
    is_clear(str(caught.value), tmp_path / "small")
    return str(caught.value)


def test_an_error_in_a_cell_is_named_with_its_place_and_kept(project, params, tmp_path):
    code = "raise ValueError('\\n'.join(f'line {k}' for k in range(50)))"
    project("ingest", code, tags=["raises-exception"])  # a tag does not let it pass
    told = fails(params, tmp_path, execute=None)
    assert told.startswith("ValueError: line 0\nline 1\n")
    assert "line 49\nmend that cell: `make lab` opens the notebooks" in told
    assert 'ingest notebook stopped in cell 5, "raise ValueError(' in told
    kept = tmp_path / ".small.partial" / "small" / "notebooks" / "ingest.failed.ipynb"
    assert str(kept) in told
    assert "line 49" in kept.read_text()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "while True:\n    pass",
            "it took more than 4 seconds.\nIf it needs them, raise --timeout",
        ),
        ("%%capture\n1 / 0", "it hides its errors: take out %%capture"),
        ("raise SystemExit(0)", "it exits: take out what does"),
        ("exit()", "it exits: take out what does"),
    ],
    ids=["hangs", "captures", "raises SystemExit", "exits"],
)
def test_a_cell_that_would_never_end_or_look_done_is_named(project, params, tmp_path, code, told):
    project("ingest", code)
    timeout = 4 if "while" in code else 600
    said = fails(params, tmp_path, execute=None, timeout=timeout)
    assert told in said
    assert f"ingest notebook stopped in cell 5, {code.splitlines()[0]!r}" in said
    kept = json.loads(Path(said.rpartition("kept as ")[2].rstrip(")")).read_text("utf-8"))
    assert kept["cells"][3]["execution_count"]  # what ran before it is kept
    assert not [c for c in psutil.Process().children(recursive=True) if is_kernel(c)]


def test_a_kernel_can_be_closed_before_it_is_forked():
    server = kernel.Server()
    try:
        first, second = (kernel.Kernel(server, ["diagnostics"]) for _ in range(2))
        for one in (first, second):
            run_sync(one.start)()
        begun = time.monotonic()
        first.close()
        first.close()
        assert time.monotonic() - begun < 1  # it does not wait for what is being loaded
        process = second.manager.provisioner.process
        while not process.pid:
            assert process.poll() is None
            time.sleep(0.02)
        second.close()
        while any(
            child.status() != psutil.STATUS_ZOMBIE
            for child in psutil.Process(server.process.pid).children()
        ):
            assert time.monotonic() - begun < 60
            time.sleep(0.02)
    finally:
        server.close()


def test_a_cell_may_start_programs_that_read_their_input_or_outlive_it(project, params, tmp_path):
    project("ingest", "import os\nassert os.system('cat; setsid sleep 300 &') == 0")
    begun = time.monotonic()
    quietly(params, tmp_path, until="ingest", execute=None)
    assert time.monotonic() - begun < 200
    left = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "300"]]
    assert left
    for process in left:
        process.kill()


def test_a_kernel_that_dies_is_noticed_while_its_children_live(project, params, tmp_path):
    child = tmp_path / "child"
    code = f"""
    import multiprocessing, os, pathlib, signal, time
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
    child.start()
    pathlib.Path({str(child)!r}).write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
    """
    project("ingest", code)
    begun = time.monotonic()
    assert "its kernel died" in fails(params, tmp_path, execute=None)
    assert time.monotonic() - begun < 200
    while psutil.pid_exists(int(child.read_text())):
        assert time.monotonic() - begun < 250
        time.sleep(0.02)


def test_what_a_notebook_lets_other_programs_print_does_not_reach_the_terminal(
    project, params, tmp_path, capfd
):
    project("ingest", "import os\nos.system('echo from outside; echo as well >&2')")
    _, folder = quietly(params, tmp_path, until="ingest", execute=None)
    assert "from outside" in (folder / "notebooks" / "ingest.ipynb").read_text("utf-8")
    assert capfd.readouterr() == ("", "")


def test_a_notebook_that_does_not_write_what_it_should_ends_the_run(project, params, tmp_path):
    path = project.root / "notebooks" / "ingest.ipynb"
    path.write_text(path.read_text("utf-8").replace("folder.save_dataset(dataset)", "dataset"))
    told = fails(params, tmp_path)
    assert "the ingest notebook did not write data/ratings.parquet: put back the cell" in told


def test_what_jupyterlab_writes_into_a_notebook_is_no_change(project, params, tmp_path):
    project("ingest", "print('x')")
    quietly(params, tmp_path, until="ingest")
    path = project.root / "notebooks" / "ingest.ipynb"
    whole = json.loads(path.read_text("utf-8"))
    whole["metadata"]["language_info"] = {"name": "python", "version": "3.0"}
    for cell in whole["cells"]:
        cell["metadata"]["scrolled"] = True
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 7, "outputs": []}
    path.write_text(json.dumps(whole), "utf-8")
    said, _ = quietly(params, tmp_path, until="ingest")
    assert [line[-7:] for line in said] == ["changed"]
    project("ingest", "print('y')")
    said, _ = quietly(params, tmp_path, until="ingest")
    assert "ingest: its notebook has changed" in said[0]


SYNTAX_ERROR = {
    "cell_type": "code",
    "id": "a",
    "metadata": {"tags": ["parameters"]},
    "source": "seed =",
}


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("<<<<<<< HEAD\n{", "cannot be read (it is no notebook): get it back with git"),
        (None, "cannot be read (No such file or directory): get it back with git"),
        ('{"cells": []}', "the ingest notebook has no cell tagged `parameters`"),
        (json.dumps({"cells": [SYNTAX_ERROR]}), "tagged `parameters` is no Python (line 1)"),
    ],
)
def test_a_notebook_that_is_none_is_a_clear_error(project, params, tmp_path, broken, told):
    path = project.root / "notebooks" / "ingest.ipynb"
    path.unlink() if broken is None else path.write_text(broken)
    assert told in fails(params, tmp_path)


def test_a_parameters_cell_may_name_types():
    cell = {"metadata": {"tags": ["parameters"]}, "source": "seed: int = 1\nout = 'x'\nrun: str"}
    assert notebook.declared("x", json.dumps({"cells": [cell]})) == ["seed", "out", "run"]


def test_data_that_change_while_they_are_read_are_refused(project, tmp_path):
    (tmp_path / "r.csv").write_text("user_id,guideline_id,rating\nu,g,helpful\nv,g,helpful\n")
    params = tmp_path / "p.yaml"
    params.write_text(f"run: small\nsource: {{kind: table, path: {tmp_path / 'r.csv'}}}\n")
    project("ingest", f"open({str(tmp_path / 'r.csv')!r}, 'a').write('w,g,helpful\\n')")
    assert "r.csv was changed while it was read: run it again" in fails(params, tmp_path)


def test_a_package_that_changes_under_way_is_noticed(params, tmp_path, monkeypatch):
    from aggregation.runs import runner

    versions = iter("12")
    monkeypatch.setattr(runner, "surroundings", lambda: {"package": next(versions)})
    assert "the package was changed while the run was at work" in fails(params, tmp_path)
