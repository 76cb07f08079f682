"""Training by several processes, real ones on loopback: the model of one, and what if one dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, strategies as st

import aggregation as ag
from aggregation.errors import InputError, ParameterError
from aggregation.files import sha256
from aggregation.model.processes import ALONE, Processes
from aggregation.runs.distributed import read_part, train
from aggregation.runs.runner import run
from aggregation.verify import checks

PARAMS = """
run: small
seed: 5
source: {kind: simulated, n_users: 80, n_guidelines: 30}
train: {shards: 8, starts: 1, max_starts: 1, moves: false}
"""

SHARED = ("guidelines.parquet", "users.parquet", "history.parquet", "fit.json")

WORKER = """
import os, sys
from aggregation.cli import main
from aggregation.model import sharding
from aggregation.runs.distributed import FolderCheckpoint

sharding.RATINGS_PER_CHECKPOINT = 1  # after every sweep
dies_at, *words = sys.argv[1:]
save, load = FolderCheckpoint.save, FolderCheckpoint.load

def saving(self, descent, common, shards):
    if len(common[0]) == int(dies_at):
        os.kill(os.getpid(), 9)
    save(self, descent, common, shards)

def loading(self, descent, shards):
    found = load(self, descent, shards)
    print("goes on after sweep", len(found[0][0]) if found else 0, flush=True)
    return found

FolderCheckpoint.save, FolderCheckpoint.load = saving, loading
main(words)
"""


def start(folder, count, dies_at=None):
    """Processes that train together; `dies_at`: the sweep at which the last one kills itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "small.yaml").write_text(PARAMS)
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    started = []
    for k in range(count):
        words = ["train-distributed", "small.yaml", "--coordinator", f"127.0.0.1:{port}"]
        words += ["--processes", str(count), "--process", str(k)]
        code = ["-m", "aggregation.cli"]
        if dies_at is not None:
            code = ["-c", WORKER, str(dies_at if k == count - 1 else -1)]
        with (folder / f"said{k}.txt").open("w") as said:
            command = [sys.executable, *code, *words]
            started.append(subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said))
    return started


def ended(started, timeout=200):
    try:
        return [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()


def model(folder):
    return {name: sha256(folder / "outputs" / "small" / "model" / name) for name in SHARED}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run by the train notebook, in one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "small.yaml").write_text(PARAMS)
    run(folder / "small.yaml", until="train", out=folder / "outputs", say=lambda _: None)
    return folder


def test_a_process_that_dies_is_told_and_all_go_on_from_the_checkpoint(tmp_path, alone):
    first, last = start(tmp_path, 2, dies_at=3)
    assert last.wait(200) == -signal.SIGKILL
    assert first.wait(60) == 1
    said = (tmp_path / "said0.txt").read_text()
    assert "Error: process 0: another process has ended" in said
    assert "start all of them again: they go on from the last checkpoint" in said
    assert ended(start(tmp_path, 2, dies_at=-1)) == [0, 0]
    for k in range(2):
        assert "goes on after sweep 2" in (tmp_path / f"said{k}.txt").read_text()
    assert model(tmp_path) == model(alone)
    other_notebooks_go_on(tmp_path)


@pytest.mark.slow
def test_four_processes_make_the_model_of_one(tmp_path, alone):
    assert ended(start(tmp_path, 4)) == [0] * 4
    assert model(tmp_path) == model(alone)
    assert "ratings, 8 shards, processes: 4" in (tmp_path / "said0.txt").read_text()


def other_notebooks_go_on(folder):
    """Run what comes after training, by the usual command."""
    lines, again = [], []
    path = run(folder / "small.yaml", out=folder / "outputs", say=lines.append)
    assert [line[9:] for line in lines if "skipped" in line] == [
        f"[{k}/4] {stage} skipped: nothing that it depends on has changed"
        for k, stage in enumerate(("ingest", "train"), 1)
    ]
    assert not (path / "report" / "train.html").exists()
    assert "train.html" not in (path / "report" / "index.html").read_text()
    assert not (path / "model" / "checkpoint").exists()
    assert all(claim.holds is not False for claim in checks.verify(ag.RunFolder(path)))
    run(folder / "small.yaml", out=folder / "outputs", say=again.append)
    assert all("skipped" in line for line in again)


class Threads(Processes):
    """Processes that are threads of one."""

    def __init__(self, index, count, shared, barrier):
        super().__init__(index, count)
        object.__setattr__(self, "meet", (shared, barrier))

    def gathered(self, x):
        shared, barrier = self.meet
        shared[self.index] = np.atleast_1d(x)
        barrier.wait(20)
        found = [shared[k] for k in range(self.count)]
        barrier.wait(20)
        return found


def parts(file, shards, count):
    """What each of `count` processes reads."""
    shared, barrier = {}, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        asked = [
            pool.submit(read_part, file, shards, Threads(k, count, shared, barrier))
            for k in range(count)
        ]
        return [one.result() for one in asked]


@given(
    per_user=st.lists(st.integers(1, 7), min_size=3, max_size=25),
    group=st.integers(1, 20),
    count=st.sampled_from([1, 2, 3]),
    local=st.integers(1, 3),
)
def test_processes_read_each_user_once_whatever_the_row_groups(
    tmp_path_factory, per_user, group, count, local
):
    file = tmp_path_factory.mktemp("parts") / "ratings.parquet"
    user = np.repeat([f"u{k:03}" for k in range(len(per_user))], per_user)
    guideline = np.concatenate([[f"g{j}" for j in range(n)] for n in per_user])
    frame = pd.DataFrame({"user_id": user, "guideline_id": guideline, "helpful": 1.0})
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), file, row_group_size=group)
    whole, ids = ag.encode(frame)
    try:
        found = parts(file, local * count, count)
    except InputError as error:  # one user has so many of the ratings that a process has none
        assert "start fewer" in str(error)  # noqa: PT017
        n, begins = len(frame), np.cumsum(per_user) - per_user
        borders = [(k * n / count, (k + 1) * n / count) for k in range(count)]
        assert any(not ((begins >= a) & (begins < b)).any() for a, b in borders)
        return
    assert [text for _, own in found for text in own.users] == list(ids.users)
    assert all(list(own.guidelines) == list(ids.guidelines) for _, own in found)
    assert np.concatenate([r.guideline for r, _ in found]).tolist() == whole.guideline.tolist()
    assert sum(r.n_users for r, _ in found) == whole.n_users


def test_ratings_that_are_not_sorted_by_user_are_an_error(tmp_path):
    file = tmp_path / "ratings.parquet"
    rows = {"user_id": ["b", "a", "c"], "guideline_id": ["g"] * 3, "helpful": [1.0] * 3}
    pyarrow.parquet.write_table(pyarrow.table(rows), file)
    with pytest.raises(InputError, match="not sorted by user_id: make it with the ingest notebook"):
        read_part(file, 2, ALONE)


def test_training_on_many_devices_needs_shards(tmp_path):
    params = tmp_path / "p.yaml"
    params.write_text(PARAMS.replace("shards: 8, ", ""))
    with pytest.raises(ParameterError, match=r"train.shards is 1.*--set train.shards=16"):
        train(params, ALONE, out=tmp_path)


def test_processes_that_do_not_say_who_they_are_is_a_usage_error():
    words = [sys.executable, "-m", "aggregation.cli", "train-distributed", "p.yaml"]
    done = subprocess.run([*words, "--processes", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give --coordinator, --processes and --process, or --cluster" in done.stderr
