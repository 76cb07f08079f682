"""Batch: many runs side by side, each by the command `aggregation run` in a process of its own."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from aggregation.errors import ParameterError
from aggregation.params import load_params, parse_values
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import read_manifest
from aggregation.runs.stages import wanted

State = Literal["done", "unchanged", "failed", "stopped"]

GRACE = 10.0
"""Seconds that runs have to stop their kernels before they are killed."""

BATCH = "AGGREGATION_BATCH"
"""Tells a run the process of its batch, so that it ends if that is killed."""


@dataclass(frozen=True)
class Task:
    """One run of a batch."""

    run: str
    path: str
    """Its parameter file."""
    changes: tuple[str, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    run: str
    state: State
    stage: str
    """The last one that is done; where the run failed, the one that is not."""
    seconds: float
    accepted: int | None
    loss: float | None
    error: str = ""


def plan(files: Sequence[str], grid: Sequence[str] = (), changes: Sequence[str] = ()) -> list[Task]:
    """The tasks: every file with every combination of the grid's values.

    A grid is a text such as `train.embedding_penalty=0.01,0.03`. Its runs are called after the
    file's run and the values. Raises ParameterError, for all files at once, where parameters are
    not valid or two runs have one name.
    """
    tasks, problems, named = [], [], {}
    for path, values in itertools.product(files, _combinations(grid)):
        try:
            base = load_params(path, changes).run
            own = [f"{key}={text}" for key, text in values]
            name = "-".join([base, *(_word(key, text) for key, text in values)])
            told = (*changes, *own, f"run={name}")  # the file may be changed until its turn comes
            task = Task(name, path, told, tuple(wanted(load_params(path, told))))
        except ParameterError as error:
            told = [  # what the command says is wrong in this file, maybe not in others
                f"{path}: {line}" if line.startswith("--set") else line
                for line in str(error).splitlines()
            ]
            problems += [line for line in told if line not in problems]
            continue
        if name in named:
            both = f"{named[name]} and {path} both have" if named[name] != path else f"{path} has"
            problems.append(f"{both} the run {name!r} more than once: leave one out")
        named[name] = path
        tasks.append(task)
    if problems:
        raise ParameterError("\n".join(problems))
    return tasks


def _combinations(grid: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Every choice of one value for each key, as (key, value) texts."""
    axes: dict[str, list[tuple[str, str]]] = {}
    for text in grid:
        key, equals, values = text.partition("=")
        key = key.strip()
        if key == "run":
            raise ParameterError("--grid run: runs of a grid are named after its other values")
        if not equals or not values.strip():
            raise ParameterError(
                f"--grid {text}: write it as key=value,value, as in train.starts=8,16"
            )
        if key in axes:
            raise ParameterError(f"--grid {key} is there twice: give all its values at once")
        axes[key] = [(key, value) for value in parse_values(values, f"--grid {key}")]
    return list(itertools.product(*axes.values()))


def _word(key: str, text: str) -> str:
    """A key and its value as a part of a run's name; of a path, its names without `..`."""
    names = [name for name in text.strip('"').split("/") if name not in ("", ".", "..")]
    return re.sub(r"[^\w.-]+", "_", f"{key.rpartition('.')[2]}={'_'.join(names)}")


def run_all(
    tasks: Sequence[Task], jobs: int, out: str, options: Sequence[str], say: Callable[[str], None]
) -> list[Outcome]:
    """Run all tasks, `jobs` side by side; what became of each, in the order of the tasks.

    One that fails does not stop the others. KeyboardInterrupt ends them all, and the outcomes say
    so. `options` are more words of the command `aggregation run`.
    """
    processes: set[subprocess.Popen[str]] = set()
    stopped = threading.Event()

    def one(task: Task) -> Outcome:
        if stopped.is_set():
            return _outcome(task, out, "stopped", 0.0)
        begin, lines = time.monotonic(), []
        try:
            process = _start(task, out, options)
        except OSError as error:
            told = f"it could not be started ({error.strerror or error})"
            return _outcome(task, out, "failed", 0.0, told)
        processes.add(process)
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            say(f"{task.run}: {lines[-1]}")
        code, seconds = process.wait(), time.monotonic() - begin
        if code == 0:
            ran = any(" done in " in line for line in lines)
            return _outcome(task, out, "done" if ran else "unchanged", seconds)
        at = next((k for k, line in enumerate(lines) if line.startswith("Error: ")), None)
        error = "\n  ".join(lines[at:]).removeprefix("Error: ") if at is not None else ""
        state = "stopped" if stopped.is_set() else "failed"
        return _outcome(task, out, state, seconds, error or f"it ended with {code}")

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, task) for task in tasks]
        try:
            wait(futures)
        except KeyboardInterrupt:
            say("stopping ...")
            stopped.set()
            for process in processes:
                process.terminate()  # the run stops its kernel
            _, late = wait(futures, timeout=GRACE)
            for process in processes if late else ():
                process.kill()
    return [future.result() for future in futures]


def _start(task: Task, out: str, options: Sequence[str]) -> subprocess.Popen[str]:
    """Start the run, in a session of its own, so that Ctrl-C comes once and from here."""
    words = [word for change in task.changes for word in ("--set", change)]
    command = [sys.executable, "-P", "-m", "aggregation.cli", "run", task.path, "--out", out]
    return subprocess.Popen(
        [*command, *words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", BATCH: str(os.getpid())},
        start_new_session=True,
    )


def _outcome(task: Task, out: str, state: State, seconds: float, error: str = "") -> Outcome:
    """With the numbers of this run; a failed one has none, whatever an earlier one left."""
    path = Path(out).expanduser() / task.run
    if state in ("failed", "stopped"):
        path = path.with_name(f".{path.name}.partial") / task.run
    done = list(read_manifest(path).get("stages", {}))
    left = [stage for stage in task.stages if stage not in done]
    stage = (left or done)[0] if state == "failed" else (done or ["none"])[-1]
    if state in ("failed", "stopped"):
        return Outcome(task.run, state, stage, seconds, None, None, error)
    folder = RunFolder(path)
    accepted = folder.read_if_any("evidence/summary.json").get("verdicts", {}).get("accepted")
    loss = folder.read_if_any("model/fit.json").get("objective")
    return Outcome(task.run, state, stage, seconds, accepted, loss)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes for a terminal, with the errors below."""
    rows = pd.DataFrame(
        {
            "run": [o.run for o in outcomes],
            "stage": [o.stage for o in outcomes],
            "state": [o.state for o in outcomes],
            "time": [f"{o.seconds:.1f} s" for o in outcomes],
            "accepted": ["" if o.accepted is None else str(o.accepted) for o in outcomes],
            "loss": ["" if o.loss is None else f"{o.loss:.8f}" for o in outcomes],
        }
    )
    errors = [f"{o.run}: {o.error}" for o in outcomes if o.state == "failed"]
    return "\n".join([rows.to_string(index=False), *errors])
