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
from inprocess import quietly

import aggregation as ag
from aggregation.errors import InputError, ParameterError, RunError
from aggregation.files import sha256
from aggregation.model import multistart
from aggregation.model.multistart import _sample
from aggregation.model.processes import ALONE, Processes
from aggregation.model.sharding import ShardedSweeper
from aggregation.runs.distributed import (
    FolderCheckpoint,
    _check_alike,
    _prepare,
    read_part,
    train,
)
from aggregation.runs.runner import CHECKPOINT
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
    quietly(folder / "small.yaml", folder / "outputs", until="train")
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
    """Run what comes after training."""
    lines, path = quietly(folder / "small.yaml", folder / "outputs")
    assert [line[9:] for line in lines if "skipped" in line] == [
        f"[{k}/4] {stage} skipped: nothing that it depends on has changed"
        for k, stage in enumerate(("ingest", "train"), 1)
    ]
    assert not (path / "report" / "train.html").exists()
    assert "train.html" not in (path / "report" / "index.html").read_text()
    assert not (path / "model" / "checkpoint").exists()
    assert all(claim.holds is not False for claim in checks.verify(ag.RunFolder(path)))
    again, _ = quietly(folder / "small.yaml", folder / "outputs")
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


def together(count, work):
    """What each of `count` processes makes of work(process)."""
    shared, barrier = {}, threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, [Threads(k, count, shared, barrier) for k in range(count)]))


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
        found = together(count, lambda process: read_part(file, local * count, process))
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


def test_processes_search_the_sample_of_one(monkeypatch):
    random = np.random.default_rng(0)
    user, guideline = np.nonzero(random.random((90, 40)) < random.random((90, 1)))
    helpful = (random.random(len(user)) < 0.5).astype(float)
    whole = ag.Ratings(user.astype(np.int32), guideline.astype(np.int32), helpful, 90, 40)
    monkeypatch.setattr(multistart, "SAMPLE", len(whole) // 8)
    some, chosen, popular = _sample(whole, 3, ALONE)
    assert 0 < popular.sum() < 40

    def share(process):
        mine = np.arange(90) // 30 == process.index
        return _sample(whole.of_users(mine), 3, process)

    found = together(3, share)
    np.testing.assert_array_equal(np.concatenate([mine for _, mine, _ in found]), chosen)
    for ratings, _, kept in found:
        np.testing.assert_array_equal(kept, popular)
        for x, y in zip(vars(ratings).values(), vars(some).values(), strict=True):
            np.testing.assert_array_equal(x, y)


def test_each_descent_goes_on_from_its_own_checkpoint(tmp_path):
    ratings, _ = ag.encode(ag.read(*sections()).ratings)
    random = np.random.default_rng(0)
    sizes = ((1,), (ratings.n_users, 1), (ratings.n_users, 1, 1), (ratings.n_guidelines, 1))
    starts = [
        ag.Parameters(*(random.random(size) for size in (*sizes, (ratings.n_guidelines, 1, 1))))
        for _ in range(2)
    ]

    def sweeps(checkpoint, most):
        sweeper = ShardedSweeper(ratings, ag.Penalty(), 4, ALONE, checkpoint)
        return [sweeper.sweep(start, 0.0, most) for start in starts]

    checkpoint = FolderCheckpoint(tmp_path, ALONE)
    expected = sweeps(None, 6)
    sweeps(checkpoint, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.3", "1.3"]
    for found, whole in zip(sweeps(checkpoint, 6), expected, strict=True):
        np.testing.assert_array_equal(found.history, whole.history)
        for x, y in zip(found.parameters.arrays(), whole.parameters.arrays(), strict=True):
            np.testing.assert_array_equal(x, y)


def sections():
    given = ag.sections(source={"kind": "simulated", "n_users": 40, "n_guidelines": 20}, ratings={})
    return given.source, given.ratings


def test_a_checkpoint_of_other_parameters_is_removed(tmp_path):
    kept = tmp_path / CHECKPOINT / "0.3" / "common.npz"
    for values, stays in (
        ({"seed": 1}, False),
        ({"seed": 1, "out": "x"}, True),
        ({"seed": 2}, False),
    ):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(b"")
        _prepare(tmp_path, values)
        assert kept.exists() is stays


def test_a_checkpoint_that_nobody_goes_on_from_is_no_part_of_a_run(tmp_path):
    (tmp_path / "small.yaml").write_text(PARAMS)
    left = tmp_path / "outputs" / ".small.partial" / "small" / CHECKPOINT / "0.3" / "common.npz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    path = quietly(tmp_path / "small.yaml", tmp_path / "outputs", until="train")[1]
    assert (path / "model" / "fit.json").exists()
    assert not (path / CHECKPOINT).exists()


def test_processes_with_other_settings_are_told(tmp_path):
    (tmp_path / "p.yaml").write_text(PARAMS)
    changes = [[], [], ["train.embedding_penalty=0.05", "seed=6"]]

    def check(process):
        with pytest.raises(RunError, match=r"process 2 differs .* in seed, train.embedding_pen"):
            _check_alike(ag.load_params(tmp_path / "p.yaml", changes[process.index]), process)

    together(3, check)
    together(2, lambda process: _check_alike(ag.load_params(tmp_path / "p.yaml"), process))


def test_ratings_that_are_not_sorted_by_user_are_an_error(tmp_path):
    file = tmp_path / "ratings.parquet"
    rows = {"user_id": ["b", "a", "c"], "guideline_id": ["g"] * 3, "helpful": [1.0] * 3}
    pyarrow.parquet.write_table(pyarrow.table(rows), file)
    with pytest.raises(InputError, match="not sorted by user_id: make it with the ingest notebook"):
        read_part(file, 2, ALONE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("train.shards=1", "needs train.shards.*--set train.shards=16"),
        ("train.shards=null", "needs train.shards.*--set train.shards=16"),
        ("train.hold=users", "train.hold needs one process"),
        ("train.method=gradient-descent", "train.method: gradient-descent needs one process"),
    ],
)
def test_what_cannot_be_trained_in_shards_is_told_at_once(tmp_path, change, told):
    (tmp_path / "p.yaml").write_text(PARAMS)
    with pytest.raises(ParameterError, match=told):
        train(tmp_path / "p.yaml", ALONE, changes=[change], out=tmp_path)


def test_processes_that_do_not_say_who_they_are_is_a_usage_error():
    words = [sys.executable, "-m", "aggregation.cli", "train-distributed", "p.yaml"]
    done = subprocess.run([*words, "--processes", "2"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give --coordinator, --processes and --process, or --cluster" in done.stderr
