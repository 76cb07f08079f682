"""Runner: one parameter file through the notebooks, into a run's folder.

A run is built in a folder beside it, outputs/.<run>.partial/<run>/, and takes the old one's place
when it is whole. It begins with a copy of the old one, or with what a run that failed has left, and
keeps what still holds. So a finished folder is never changed, and the same command goes on from
where it stopped. `source/` and `published/` outlive runs: they stay in the run's folder, and the
folder that is built has links to them.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from aggregation.errors import InputError, RunError, unwritable
from aggregation.files import read_if_any, read_json, remove_partial, sha256, write_json
from aggregation.params.loading import dump, load_params
from aggregation.params.schema import Params
from aggregation.runs.lock import lock
from aggregation.runs.notebook import notebook_source
from aggregation.runs.provenance import (
    MANIFEST,
    PARTIAL,
    Record,
    circumstances,
    read_manifest,
    surroundings,
    write_manifest,
)
from aggregation.runs.stages import (
    LAST,
    MAKES,
    OUTLIVE,
    STAGES,
    asks,
    begun,
    made_by,
    named,
    own,
    page,
    read_by,
    stale,
    wanted,
)
from aggregation.runs.summary import parameters

DEFAULT_TIMEOUT, MAX_TIMEOUT = 6 * 3600.0, 366 * 24 * 3600.0
"""Seconds that a stage may take, unless told otherwise, and at most."""

READ_IN_A_MOMENT = 10_000_000
"""Bytes."""

TIMING = "timing.json"
"""The only file of a run with times and host."""

CHECKPOINT = "model/checkpoint"
"""Where `runs.distributed` keeps a fit that is at work."""

PAGES = "aggregation.report.notebook_pages"
"""The module that writes the pages of notebooks."""

OWN = {"params.yaml", MANIFEST, PARTIAL, TIMING}.union(*map(own, STAGES))
"""Names of all files that runs make."""

Say = Callable[[str], None]

Execute = Callable[..., list[float]]
"""Executes one notebook, as `executor.Executor` does in a kernel of its own (the default)."""


def run(
    params_path: str | Path,
    *,
    changes: Sequence[str] = (),
    first: str | None = None,
    until: str = STAGES[-1],
    force: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    out: str | Path = "outputs",
    say: Say = print,
    execute: Execute | None = None,
) -> Path:
    """Run the notebooks up to `until`; return the run's folder.

    A stage runs again if what it depends on has changed (see `stages.stale`), if it asks over the
    network, or if that is wanted: `first` and all after it, or all with `force`. Otherwise what it
    made is kept. All parameters are checked before anything runs. `say` hears a line when a stage
    begins, with the reason, and when it ends.

    Raises ParameterError; or RunError with the cell and its error. Then the run's folder is as it
    was, and the failed notebook is kept beside it. Where only demographics failed, the other stages
    are done before that error is raised.
    """
    params = load_params(params_path, changes)
    if not 0 < timeout <= MAX_TIMEOUT:
        raise RunError(f"--timeout {timeout:g}: give seconds, up to {MAX_TIMEOUT:g}")
    if first is not None and STAGES.index(first) > STAGES.index(until):
        raise RunError(f"--from {first} comes after --until {until}: there is nothing to run")
    path = Path(out).expanduser() / params.run
    home = path.resolve() if path.is_symlink() else path  # it may lie on another disk
    _check(home, params, first, force=force)
    try:
        with lock(home.with_name(f".{home.name}.lock")):
            build = _Build(params, home, timeout, say, execute)
            try:
                build.go(STAGES[0] if force else first, until)
            finally:
                build.close()
    except OSError as error:
        raise unwritable(path, error) from None
    return path


def _check(home: Path, params: Params, first: str | None, *, force: bool) -> None:
    """Raise RunError where a run cannot be made, or would replace what no run has made."""
    try:
        str(home.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"{str(home)!a}: is no UTF-8: choose another folder with --out") from None
    for at in named(params.source):
        if not at.exists() and first in (None, STAGES[0]):
            raise RunError(
                f"{at}: there is no such file or folder, seen from {Path.cwd()}: check source.path"
            )
    earlier = parameters(home).get("source")
    earlier = earlier if isinstance(earlier, dict) else {}
    now = params.source.model_dump(mode="json")
    real = earlier.get("kind", "simulated") != "simulated"  # what was planted can be made again
    if not force and real and any(earlier.get(k) != now.get(k) for k in ("kind", "path")):
        was, is_ = (s.get("path") or s.get("kind") for s in (earlier, now))
        raise RunError(
            f"{home}: holds a run of other data ({was}, now {is_}): choose another name with "
            "--set run=..., or replace it with --force"
        )
    if home.exists() and not home.is_dir():
        raise RunError(f"{home}: is a file: choose another name with --set run=...")
    others = {p.name for p in home.glob("[!.]*")} - {*OUTLIVE}
    if others and not read_manifest(home) and not (home / "data" / "ingest.json").is_file():
        raise RunError(
            f"{home}: is no run's folder, it holds {min(others)}: choose another name with "
            "--set run=..., or another folder with --out"
        )


class _Build:
    """A run under way: the folder `built` takes the place of `home`, if anything has to run."""

    def __init__(
        self, params: Params, home: Path, timeout: float, say: Say, execute: Execute | None
    ) -> None:
        self.params, self.home, self.timeout, self.execute = params, home, timeout, execute
        self.say: Say = lambda text: say(f"{datetime.now():%H:%M:%S} {text}")  # noqa: DTZ005
        self.out = home.with_name(f".{home.name}.partial")
        self.built, self.replaced = self.out / params.run, self.out / ".replaced"
        if (self.built / MANIFEST).is_file():
            self._replace()  # it was whole when its process was killed
        shutil.rmtree(self.replaced, ignore_errors=True)
        self.around, self.started = surroundings(), datetime.now(UTC).isoformat()
        self.done: dict[str, Record] = {}
        """Stages whose results hold."""
        self.late: RunError | None = None
        self.at, self.before = home, read_manifest(home)
        """The folder with earlier results, and its manifest."""
        partial, done = read_manifest(self.built), self.before.get("stages", {})
        if partial and any(self._stale(s, self._now(s, done)) for s in wanted(params)):
            self.at, self.before = self.built, partial
        times = read_if_any(self.at / TIMING)
        self.times = {name: times.get(name, {}) for name in ("seconds", "cells")}

    def go(self, first: str | None, until: str) -> None:
        """Run what has to run up to `until`; keep what holds, beyond it too."""
        stages = wanted(self.params)
        todo = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
        for stage in stages:
            at = f"[{todo.index(stage) + 1}/{len(todo)}] {stage}" if stage in todo else stage
            known = stage in self.before.get("stages", {})
            now = self._now(stage, self.done)
            stale = self._stale(stage, now)
            if stage in todo and (why := self._why(stage, stale, first)):
                self.say(f"{at}: {why} ..." if known else f"{at} ...")
                self._run(stage, at, now, todo)
            elif not stale:
                self.done[stage] = self.before["stages"][stage]
                if stage in todo:
                    self.say(f"{at} skipped: nothing that it depends on has changed")
            elif known:
                self.say(f"{at}: what it made does not hold any more, and is left out")
        if self.at == self.built or not self._is_current():
            self._finish()
        shutil.rmtree(self.out, ignore_errors=True)

    def close(self) -> None:
        """End what executes notebooks."""
        getattr(self.execute, "close", lambda: None)()

    def _now(self, stage: str, done: dict[str, Record]) -> Record:
        """The record of a stage as it would run now, after those of `done`."""
        here = self.built / OUTLIVE[0]
        raw = here if here.exists() else self.home / OUTLIVE[0]
        return begun(stage, notebook_source(stage), self.params, raw, done)

    def _stale(self, stage: str, now: Record) -> str:
        """Why earlier results of a stage do not hold; empty: they do."""
        if stage not in self.before.get("stages", {}):
            return "it is not done yet"
        for name, value in self.around.items():
            if self.before.get(name) != value:
                words = {"lock": "requirements.lock", "python": "Python"}
                return f"{words.get(name, f'the {name}')} has changed"
        return stale(stage, now, self.before["stages"][stage], self.at)

    def _why(self, stage: str, stale: str, first: str | None) -> str:
        """Why a stage has to run; empty: it does not."""
        if first is None:
            return stale or asks(stage, self.params)
        if STAGES.index(stage) >= STAGES.index(first):
            return stale or "it was asked for"
        if stale:
            raise RunError(
                f"to begin at {first}, {stage} must be as it was left, but {stale}: "
                "run it without --from"
            )
        return ""

    def _begin(self) -> None:
        """Begin to build, with a copy of the finished run or with what an earlier build left."""
        if self.at == self.home:
            for name in (n for s in self.before.get("stages", {}) for n in own(s)):
                if (self.home / name).is_file():
                    (self.built / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(self.home / name, self.built / name)
        self.at = self.built
        self.built.mkdir(parents=True, exist_ok=True)
        (self.built / "params.yaml").write_text(dump(self.params), encoding="utf-8")
        needed = (self.params.source.kind, self.params.publish.target)
        for name, kind in zip(OUTLIVE, needed, strict=True):
            if kind == "platform" and self.home.is_dir():
                (self.home / name).mkdir(exist_ok=True)
                if not os.path.lexists(self.built / name):
                    (self.built / name).symlink_to(f"../../{self.home.name}/{name}")

    def _run(self, stage: str, at: str, record: Record, todo: list[str]) -> None:
        """Execute a notebook, and note what it made."""
        if stage == "ingest":
            self._check_data()
        self._begin()
        if self.execute is None:
            from aggregation.runs.executor import Executor  # nothing may have to run

            self.execute = Executor(todo)
        begin = time.monotonic()
        self._remove(stage)
        try:
            cells = self.execute(
                stage,
                notebook_source(stage),
                self.built,
                {**record["parameters"], "out": str(self.out)},
                timeout=self.timeout,
                say=lambda text: self.say(f"{at}: {text}"),
            )
        except RunError as error:
            if stage != "demographics":
                raise
            self.late = error  # who took part changes no verdict: the constitution goes on
            self.say(f"{at} failed, the others go on")
            return
        # What writes pages takes long to load: it may do so while the next notebook is at work, but
        # for train, which uses all cores. No daemon: one that is stopped within an import would
        # leave its lock behind.
        if stage not in ("ingest", todo[-1]):
            threading.Thread(target=lambda: import_module(PAGES).warm_up()).start()
        outputs, now = made_by(stage, self.built), self._now(stage, self.done)
        if lost := [name for name in MAKES[stage] if name not in outputs]:
            raise RunError(
                f"the {stage} notebook did not write {lost[0]}: put back the cell that does, or "
                "get the notebook back with git"
            )
        changed = [n for n, digest in now["input"].items() if record["input"].get(n) != digest]
        if changed and self.params.source.kind != "platform":
            raise RunError(f"{changed[0]} was changed while it was read: run it again")
        self.done[stage] = record | {"input": now["input"], "outputs": outputs}
        self.times["seconds"][stage] = seconds = round(time.monotonic() - begin, 3)
        self.times["cells"][stage] = cells
        self._note(self.around)
        self.say(f"{at} done in {seconds:.1f} s")
        if stage == "publish" and (self.built / LAST).is_file():
            self.say((self.built / LAST).read_text("utf-8").strip())

    def _check_data(self) -> None:
        """Raise RunError where the data cannot be read, before a kernel starts or a folder is made.

        Only for files that are read in a moment: others are read once, by the notebook.
        """
        source = self.params.source
        files = read_by(source)
        if files and sum(f.stat().st_size for f in files if f.is_file()) <= READ_IN_A_MOMENT:
            from aggregation.sources import read  # loads pandas

            try:
                read(source, self.params.ratings, self.params.seed)
            except InputError as error:
                raise RunError(str(error)) from None

    def _remove(self, stage: str) -> None:
        """Remove what a stage made in the folder that is built, whole or not."""
        failed = f"notebooks/{stage}.failed.ipynb"
        for name in (*own(stage), failed, *([LAST] if stage == "publish" else [])):
            (self.built / name).unlink(missing_ok=True)

    def _note(self, made_with: dict[str, Any]) -> None:
        """Note what is done and what it took, for the next run or for this one's end."""
        times = {name: {s: of[s] for s in self.done if s in of} for name, of in self.times.items()}
        timing = {"started": self.started, "host": platform.node(), **times}
        write_json(self.built / TIMING, timing)
        values = {"run": self.params.run, "seed": self.params.seed, **made_with}
        values["parameters"] = sha256(self.built / "params.yaml")
        values["tables"] = read_json(self.built / "data" / "ingest.json")["tables"]
        write_manifest(self.built, PARTIAL, values | {"stages": self.done})

    def _is_current(self) -> bool:
        """Whether the finished folder is that of just these parameters and stages, pages too."""
        pages = {page(s): r["outputs"].get(page(s), "") for s, r in self.done.items()}
        hashes = pages | {"params.yaml": self.before.get("parameters")}
        return (
            list(self.done) == list(self.before.get("stages", {}))
            and (self.home / MANIFEST).is_file()
            and (self.home / TIMING).is_file()
            and (self.home / "params.yaml").read_bytes() == dump(self.params).encode("utf-8")
            and all(sha256(self.home / name) == digest for name, digest in hashes.items())
        )

    def _finish(self) -> None:
        """Complete the folder that was built, and let it take the old one's place."""
        from aggregation.runs.pages import write_page  # loads the templates of pages

        self._begin()
        if self.late is not None:
            raise self.late
        if surroundings() != self.around:
            raise RunError("the package was changed while the run was at work: run it again")
        for stage in set(STAGES) - self.done.keys():
            self._remove(stage)
        # training by several processes (`runs.distributed`) has no notebook
        shown = [s for s in self.done if (self.built / "notebooks" / f"{s}.ipynb").is_file()]
        for stage, record in self.done.items():
            outputs = {n: h for n, h in record["outputs"].items() if n != page(stage)}
            if changed := [n for n, digest in outputs.items() if sha256(self.built / n) != digest]:
                raise RunError(
                    f"{self.built}: {changed[0]} was changed or taken away while the run was at "
                    "work: run it again"
                )
            if stage in shown:
                write_page(self.built, stage, shown)
                outputs[page(stage)] = sha256(self.built / page(stage))
            self.done[stage] = record | {"outputs": outputs}
        remove_partial(self.built)
        shutil.rmtree(self.built / CHECKPOINT, ignore_errors=True)
        self._note(self.around | circumstances())
        (self.built / PARTIAL).replace(self.built / MANIFEST)
        self._replace()

    def _replace(self) -> None:
        """Let the folder that was built, which is whole, take the finished one's place.

        Files there that no run made move over first. Each step can be repeated, so the next run
        goes on with it if the process is killed.
        """
        for name in OUTLIVE:
            if (self.built / name).is_symlink():
                (self.built / name).unlink()
        for file in sorted(self.home.rglob("*")) if self.home.is_dir() else ():
            name = file.relative_to(self.home).as_posix()
            folder = file.is_dir() and not file.is_symlink()
            if not folder and name not in OWN and not os.path.lexists(self.built / name):
                (self.built / name).parent.mkdir(parents=True, exist_ok=True)
                file.rename(self.built / name)
        if self.home.is_dir():
            self.home.rename(self.replaced)
        self.built.rename(self.home)
        shutil.rmtree(self.out, ignore_errors=True)
