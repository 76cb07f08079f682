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
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from aggregation.errors import ParameterError
from aggregation.params.loading import load_params, parse_values
from aggregation.runs.summary import summary

SECONDS_TO_STOP = 10
"""After which a run that was told to stop is killed."""

SECONDS_TO_LISTEN = 1
"""Between looks for a Ctrl-C: a wait without end never sees one where polars has been loaded."""

STAGE = re.compile(r"\[\d+/\d+\] (\w+)( skipped)?")
"""In a line of a run: its stage."""


class Task(NamedTuple):
    """One run of a batch: its name, its parameter file, and the changes to it."""

    run: str
    path: str
    changes: tuple[str, ...]


class Outcome(NamedTuple):
    """What became of a task, as the table shows it. state: done, unchanged, failed or stopped."""

    run: str
    stage: str
    state: str
    time: str
    accepted: str = ""
    loss: str = ""
    error: str = ""


def plan(files: Sequence[str], grid: Sequence[str] = (), changes: Sequence[str] = ()) -> list[Task]:
    """The tasks: every file with every combination of the grid's values.

    A grid is a text such as `train.embedding_penalty=0.01,0.03`. Its runs are called after the
    file's run and the values. Raises ParameterError, for all files at once, where parameters are
    not valid or two runs have one name.
    """
    tasks: dict[str, Task] = {}
    problems: list[str] = []
    for path, values in itertools.product(files, _combinations(grid)):
        try:
            base = load_params(path, changes).run
            name = "-".join([base, *(_word(key, text) for key, text in values)])
            own = (f"{key}={text}" for key, text in values)
            task = Task(name, path, (*changes, *own, f"run={name}"))
            load_params(path, task.changes)
        except ParameterError as error:
            problems += [
                f"{path}: {x}" if x.startswith("--") else x for x in str(error).splitlines()
            ]
            continue
        if name in tasks:
            problems.append(f"{tasks[name].path}, {path}: the run {name!r} is there more than once")
        tasks[name] = task
    if problems:
        raise ParameterError("\n".join(dict.fromkeys(problems)))
    return list(tasks.values())


def _combinations(grid: Sequence[str]) -> list[tuple[tuple[str, str], ...]]:
    """Every choice of one value for each key, as (key, value) texts."""
    axes: dict[str, list[tuple[str, str]]] = {}
    for text in grid:
        key, _, values = (part.strip() for part in text.partition("="))
        if key == "run":
            raise ParameterError("--grid run: runs of a grid are named after its other values")
        if not values:
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

    One that fails does not stop the others. KeyboardInterrupt stops them all. `options` are more
    words of the command `aggregation run`.
    """
    processes: list[subprocess.Popen[str]] = []
    lock, stopped = threading.Lock(), threading.Event()

    def one(task: Task) -> Outcome:
        begin, lines = time.monotonic(), []
        with lock:
            if stopped.is_set():
                return Outcome(task.run, "none", "stopped", "0.0 s")
            process = _start(task, out, options)
            processes.append(process)
        for line in process.stdout or ():
            lines.append(line.rstrip("\n"))
            say(f"{task.run}: {lines[-1]}")
        process.wait()
        took = f"{time.monotonic() - begin:.1f} s"
        return _outcome(task, out, process.returncode, lines, took, stopped=stopped.is_set())

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = [pool.submit(one, task) for task in tasks]
        try:
            while wait(outcomes, SECONDS_TO_LISTEN).not_done:
                pass
        except KeyboardInterrupt:
            say("stopping ...")
            with lock:
                stopped.set()
                for process in processes:
                    process.terminate()  # it ends its kernel
            if wait(outcomes, SECONDS_TO_STOP).not_done:
                for process in processes:
                    process.kill()
    return [outcome.result() for outcome in outcomes]


def _start(task: Task, out: str, options: Sequence[str]) -> subprocess.Popen[str]:
    words = [word for change in task.changes for word in ("--set", change)]
    command = [sys.executable, "-P", "-m", "aggregation.cli", "run", task.path, "--out", out]
    return subprocess.Popen(
        [*command, *options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # so that Ctrl-C comes once, from here
    )


def _outcome(
    task: Task, out: str, code: int, lines: Sequence[str], took: str, *, stopped: bool
) -> Outcome:
    """From what the run said and, if it worked, from its folder."""
    stages = [found for line in lines if (found := STAGE.search(line))]
    stage = stages[-1][1] if stages else "none"
    if code:
        error = "\n  ".join(lines).partition("Error: ")[2] or f"it ended with {code}"
        return Outcome(task.run, stage, "stopped" if stopped else "failed", took, error=error)
    found = summary(Path(out).expanduser() / task.run)
    accepted = "" if found["accepted"] is None else str(found["accepted"])
    loss = "" if found["loss"] is None else f"{found['loss']:.8f}"
    state = "unchanged" if all(found[2] for found in stages) else "done"
    return Outcome(task.run, stage, state, took, accepted, loss)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes for a terminal, with the errors below."""
    rows = pd.DataFrame(outcomes, columns=Outcome._fields).drop(columns="error")
    errors = [f"{o.run}: {o.error}" for o in outcomes if o.state == "failed"]
    return "\n".join([rows.to_string(index=False), *errors])
