"""Runner: one parameter file through the notebooks, into a run's folder.

A run is built in a folder beside it, outputs/.<run>.partial/<run>/, and takes the old one's place
when it is whole. Results that still hold are copied from the old folder, or are there already after
a failure. So a finished folder is never changed, and the same command goes on from where a run
stopped. `source/` and `published/` outlive runs: they stay in the run's folder, and the folder that
is built has links to them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from aggregation.errors import RunError, unwritable
from aggregation.files import checksum_holds, remove_partial, sha256, with_checksum, write_json
from aggregation.params import Params, dump, load_params
from aggregation.runs.folder import MANIFEST, RunFolder
from aggregation.runs.lock import locked
from aggregation.runs.notebook_source import notebook_source
from aggregation.runs.provenance import circumstances, manifest, read_manifest, surroundings
from aggregation.runs.stages import (
    MAKES,
    STAGES,
    Record,
    asks,
    begun,
    made_by,
    own,
    page,
    stale,
    wanted,
)
from aggregation.services.delivery import LAST

DEFAULT_TIMEOUT, MAX_TIMEOUT = 6 * 3600.0, 366 * 24 * 3600.0
"""Seconds that a stage may take, unless told otherwise, and at most."""

TIMING = "timing.json"
"""The only file of a run with times and host."""

PROGRESS, REPLACED = ".progress.json", ".replaced"
"""Beside the folder that is built: which stages are done in it, and the folder that it replaced."""

OWN = {"params.yaml", MANIFEST, TIMING}.union(*map(own, STAGES))
"""Names of all files that runs make."""

Say = Callable[[str], None]

Execute = Callable[..., list[float]]
"""Executes one notebook, as `notebook.Executor` does in a kernel of its own (the default)."""


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
        raise RunError(
            f"--timeout {timeout:g}: give seconds, more than 0 and at most {MAX_TIMEOUT:g}"
        )
    if first is not None and STAGES.index(first) > STAGES.index(until):
        raise RunError(f"--from {first} comes after --until {until}: there is nothing to run")
    folder = RunFolder.of(params.run, Path(out).expanduser())
    try:
        home = folder.path.resolve() if folder.path.is_symlink() else folder.path
        _check(home)
        with locked(home.parent / f".{home.name}.lock"):
            build = _Build(params, home, timeout, say, execute)
            try:
                build.go(STAGES[0] if force else first, until)
            finally:
                build.close()
    except OSError as error:
        raise unwritable(folder.path, error) from None
    return folder.path


def _check(home: Path) -> None:
    """Raise RunError where a run would take the place of what no run has made."""
    try:
        str(home.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"{str(home)!a}: is no UTF-8: choose another folder with --out") from None
    kept = ("params.yaml", MANIFEST, "data/ingest.json", "source", "published")
    if home.is_dir() and any(home.iterdir()) and not any((home / name).exists() for name in kept):
        raise RunError(
            f"{home}: is no run's folder, it holds {min(home.iterdir()).name}: choose another name "
            "with --set run=..., or another folder with --out"
        )


class _Build:
    """A run under way: `folder` is built, and takes the place of `finished`."""

    def __init__(
        self, params: Params, home: Path, timeout: float, say: Say, execute: Execute | None
    ) -> None:
        self.params, self.timeout, self.execute = params, timeout, execute
        self.say: Say = lambda text: say(f"{datetime.now():%H:%M:%S} {text}")  # noqa: DTZ005
        self.area = home.parent / f".{home.name}.partial"
        self.folder, self.finished = RunFolder.of(params.run, self.area), RunFolder(home)
        if (self.folder.path / MANIFEST).is_file():
            self._swap()  # a run was killed while it did this
        shutil.rmtree(self.area / REPLACED, ignore_errors=True)
        self.around, self.started = surroundings(), datetime.now(UTC).isoformat()
        self.building = False
        self.done: dict[str, Record] = {}
        """Stages whose results hold."""
        self.late: RunError | None = None
        times = self.finished.read_if_any(TIMING)
        self.timing = times if checksum_holds(times) else {"seconds": {}, "cells": {}}
        self.at, self.noted = self.finished, read_manifest(self.finished)
        """The folder with earlier results, and what is noted of them."""
        progress = RunFolder(self.area).read_if_any(PROGRESS)
        if checksum_holds(progress) and not self._holds():
            self.at, self.noted, self.building = self.folder, progress, True
            self.timing = progress["timing"]

    def go(self, first: str | None, until: str) -> None:
        """Run what has to run up to `until`; keep what holds, beyond it too."""
        stages = wanted(self.params)
        todo = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
        for stage in stages:
            at = f"[{todo.index(stage) + 1}/{len(todo)}] {stage}" if stage in todo else stage
            now = self._now(stage, self.done)
            stale = self._stale(stage, now)
            known = stage in self.noted.get("stages", {})
            why = self._why(stage, stale, first) if stage in todo else ""
            if why:
                self.say(f"{at}: {why} ..." if known else f"{at} ...")
                self._run(stage, at, now)
            elif not stale:
                self.done[stage] = self.noted["stages"][stage]
                if stage in todo:
                    self.say(f"{at} skipped: nothing that it depends on has changed")
            elif known:
                self.say(f"{at}: what it made does not hold any more, and is left out")
        self._finish()

    def close(self) -> None:
        """End what executes notebooks."""
        getattr(self.execute, "close", lambda: None)()

    def _now(self, stage: str, done: dict[str, Record]) -> Record:
        built = self.folder.path
        with_source = built if (built / "source").exists() else self.finished.path
        return begun(stage, notebook_source(stage), self.params, with_source, done)

    def _holds(self) -> bool:
        """Whether the finished folder has all that these parameters want."""
        done = self.noted.get("stages", {})
        return not any(self._stale(s, self._now(s, done)) for s in wanted(self.params))

    def _stale(self, stage: str, now: Record) -> str:
        """Why earlier results of a stage do not hold; empty: they do."""
        if stage not in self.noted.get("stages", {}):
            return "it is not done yet"
        for name, value in self.around.items():
            if self.noted.get(name) != value:
                words = {"lock": "requirements.lock", "python": "Python"}
                return f"{words.get(name, f'the {name}')} has changed"
        return stale(stage, now, self.noted["stages"][stage], self.at.path)

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
        """Begin to build: with a copy of the finished run, or with what an earlier build left."""
        built, home = self.folder.path, self.finished.path
        if not self.building:
            for name in (n for s in self.noted.get("stages", {}) for n in own(s)):
                if (home / name).is_file():
                    (built / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(home / name, built / name)
        self.building, self.at = True, self.folder
        self.folder.write_text("params.yaml", dump(self.params))
        needed = {"source": self.params.source.kind, "published": self.params.publish.target}
        for name in (n for n, kind in needed.items() if kind == "platform" and home.is_dir()):
            (home / name).mkdir(exist_ok=True)
            if not os.path.lexists(built / name):
                (built / name).symlink_to(f"../../{home.name}/{name}")

    def _run(self, stage: str, at: str, record: Record) -> None:
        """Execute a notebook, and note what it made."""
        self._begin()
        if self.execute is None:
            from aggregation.runs.notebook import Executor  # loads papermill; maybe nothing runs

            self.execute = Executor()
        self._remove(stage)
        begin = time.monotonic()
        try:
            cells = self.execute(
                stage,
                notebook_source(stage),
                self.folder,
                {**record["parameters"], "out": str(self.area)},
                timeout=self.timeout,
                say=lambda text: self.say(f"{at}: {text}"),
            )
        except RunError as error:
            if stage != "demographics":
                raise
            self.late = error  # who took part changes no verdict: the constitution goes on
            self.say(f"{at} failed, the others go on")
            return
        outputs = made_by(stage, self.folder.path)
        if lost := [name for name in MAKES[stage] if name not in outputs]:
            raise RunError(
                f"the {stage} notebook did not write {lost[0]}: put back the cell that does, or "
                "get the notebook back with git"
            )
        now = self._now(stage, self.done)
        changed = [n for n, digest in now["input"].items() if record["input"].get(n) != digest]
        if changed and self.params.source.kind != "platform":
            raise RunError(f"{changed[0]} was changed while it was read: run it again")
        self.done[stage] = record | {"input": now["input"], "outputs": outputs}
        seconds = round(time.monotonic() - begin, 3)
        self.timing["seconds"][stage], self.timing["cells"][stage] = seconds, cells
        noted = self.around | {"stages": self.done, "timing": self.timing}
        write_json(self.area / PROGRESS, with_checksum(noted))
        self.say(f"{at} done in {seconds:.1f} s")
        if stage == "publish" and (told := self.folder.path / LAST).is_file():
            self.say(told.read_text("utf-8").strip())

    def _remove(self, stage: str) -> None:
        """Remove what a stage made in the folder that is built, whole or not."""
        left = [f"notebooks/{stage}.{kind}.ipynb" for kind in ("partial", "failed")]
        for name in (*own(stage), *left, *([LAST] if stage == "publish" else [])):
            (self.folder.path / name).unlink(missing_ok=True)

    def _finish(self) -> None:
        """Complete the folder that was built, and let it take the old one's place.

        Where nothing was built and the old one is that of these parameters, it stays.
        """
        if not self.building and self._is_finished():
            shutil.rmtree(self.area, ignore_errors=True)  # of a run that failed since then
            return
        self._begin()
        if self.late is not None:
            raise self.late
        if surroundings() != self.around:
            raise RunError("the package was changed while the run was at work: run it again")
        built = self.folder.path
        for stage in set(STAGES) - self.done.keys():
            self._remove(stage)
        for stage, record in self.done.items():
            outputs = {n: h for n, h in record["outputs"].items() if n != page(stage)}
            if changed := [n for n, digest in outputs.items() if sha256(built / n) != digest]:
                raise RunError(
                    f"{built}: {changed[0]} was changed or taken away while the run was at work: "
                    "run it again"
                )
            self._page(stage)
            outputs[page(stage)] = sha256(built / page(stage))
            self.done[stage] = record | {"outputs": outputs}
        remove_partial(built)
        times = {name: {s: self.timing[name].get(s) for s in self.done} for name in self.timing}
        timing = {"started": self.started, "host": platform.node()} | times
        self.folder.write_json(TIMING, with_checksum(timing))
        made_with = self.around | circumstances()
        found = manifest(self.params, self.folder, made_with, self.done)
        self.folder.write_json(MANIFEST, with_checksum(found))
        self._swap()

    def _page(self, stage: str) -> None:
        """Render a stage's page."""
        import nbformat

        from aggregation.report.notebook_pages import notebook_page  # loads nbconvert

        notebook = nbformat.read(self.folder.path / "notebooks" / f"{stage}.ipynb", as_version=4)
        simulated = self.folder.read_json("data/ingest.json")["about"]["simulated"]
        stages, run = list(self.done), self.params.run
        html = notebook_page(notebook, stage, stages, run=run, simulated=simulated)
        self.folder.write_text(page(stage), html)

    def _is_finished(self) -> bool:
        """Whether the finished folder is that of just these parameters and stages."""
        home, written = self.finished.path, hashlib.sha256(dump(self.params).encode()).hexdigest()
        pages = {page(s): r["outputs"].get(page(s)) for s, r in self.done.items()}
        return (
            list(self.done) == list(self.noted.get("stages", {}))
            and written == self.noted["parameters"] == sha256(home / "params.yaml")
            and all(digest == sha256(home / name) for name, digest in pages.items())
            and (home / TIMING).is_file()
        )

    def _swap(self) -> None:
        """Let the folder that was built take the finished one's place.

        Files in that one which no run made move over first. Each step can be repeated, so that the
        next run goes on with it if the process is killed.
        """
        built, home = self.folder.path, self.finished.path
        for name in ("source", "published"):
            if (built / name).is_symlink():
                (built / name).unlink()
        if home.exists():
            records = read_manifest(self.finished).get("stages", {}).values()
            made = OWN.union(*(record["outputs"] for record in records))
            for file in sorted(home.rglob("*")):
                name = file.relative_to(home).as_posix()
                folder = file.is_dir() and not file.is_symlink()
                if not folder and name not in made and not os.path.lexists(built / name):
                    (built / name).parent.mkdir(parents=True, exist_ok=True)
                    file.rename(built / name)
            home.rename(self.area / REPLACED)
        built.rename(home)
        shutil.rmtree(self.area, ignore_errors=True)
