"""Batch: many runs side by side, each by the command `aggregation run` in a process of its own."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from aggregation.errors import ParameterError
from aggregation.params import load_params, parse_values
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import read_manifest
from aggregation.runs.stages import wanted

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
    state: Literal["done", "unchanged", "failed", "stopped"]
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


class Batch:
    """Tasks under way. `go` gives what became of each, in the order of the tasks."""

    def __init__(
        self, tasks: Sequence[Task], out: str, options: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self.tasks, self.out, self.options, self.say = tasks, out, options, say
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()
        self.stopped = False

    def go(self, jobs: int) -> list[Outcome]:
        """Run all tasks, `jobs` side by side.

        One that fails does not stop the others. KeyboardInterrupt stops them all: those under way
        stop their kernels first, and the outcomes say so. A second one kills them.
        """
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._one, task) for task in self.tasks]
            waiting: Iterable[Future[Outcome]] = futures
            while waiting:
                try:
                    _, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                except KeyboardInterrupt:
                    self.say("stopping ...")
                    self._stop()
        return [future.result() for future in futures]

    def _stop(self) -> None:
        with self.lock:
            again, self.stopped = self.stopped, True
            for process in self.running:
                process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

    def _one(self, task: Task) -> Outcome:
        begin = time.monotonic()
        folder = RunFolder.of(task.run, Path(self.out).expanduser())
        before = _bytes(folder.path / "timing.json")
        try:
            process = self._start(task)
        except OSError as error:
            told = f"it could not be started ({error.strerror or error})"
            return _outcome(task, folder, "failed", 0.0, told)
        if process is None:
            return _outcome(task, folder, "stopped", 0.0, "")
        lines = []
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            self.say(f"{task.run}: {lines[-1]}")
        code = process.wait()
        with self.lock:
            self.running.discard(process)
        seconds = time.monotonic() - begin
        if code == 0:
            same = before == _bytes(folder.path / "timing.json") != b""
            return _outcome(task, folder, "unchanged" if same else "done", seconds, "")
        told = next((k for k, line in enumerate(lines) if line.startswith("Error: ")), None)
        error = f"it ended with {code}"
        if told is not None:
            error = "\n  ".join(lines[told:]).removeprefix("Error: ")
        return _outcome(task, folder, "stopped" if self.stopped else "failed", seconds, error)

    def _start(self, task: Task) -> subprocess.Popen[str] | None:
        """Start the run, in a session of its own, so that Ctrl-C comes once and from here."""
        words = [word for change in task.changes for word in ("--set", change)]
        command = [sys.executable, "-P", "-m", "aggregation.cli"]
        command += ["run", task.path, "--out", self.out]
        with self.lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                [*command, *words, *self.options],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=os.environ
                | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", BATCH: str(os.getpid())},
                start_new_session=True,
            )
            self.running.add(process)
        return process


def _outcome(task: Task, folder: RunFolder, state: str, seconds: float, error: str) -> Outcome:
    done = list(read_manifest(folder).get("stages", {}))
    left = [stage for stage in task.stages if stage not in done]
    stage = (left or done)[0] if state == "failed" else (done or ["none"])[-1]
    return Outcome(
        task.run,
        state,  # type: ignore[arg-type]
        stage,
        seconds,
        folder.read_if_any("evidence/summary.json").get("verdicts", {}).get("accepted"),
        folder.read_if_any("model/fit.json").get("objective"),
        error,
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


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
