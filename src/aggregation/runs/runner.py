"""Runs: one parameter file through the notebooks, into a run's folder; what still holds is kept."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from aggregation.errors import RunError, unwritable
from aggregation.files import checksum_holds, remove_partial, sha256, with_checksum
from aggregation.params import Params, dump, load_params
from aggregation.runs.folder import MANIFEST, PARTIAL, RunFolder
from aggregation.runs.lock import alone
from aggregation.runs.notebook_source import notebook_source
from aggregation.runs.provenance import circumstances, manifest, read_manifest, surroundings
from aggregation.runs.stages import (
    ASIDE,
    RECEIPTS,
    STAGES,
    Record,
    asks,
    begun,
    clear,
    made_by,
    missing,
    named,
    own,
    page,
    put_aside,
    source_files,
    stale,
    take_back,
    wanted,
)

TIMEOUT, LONGEST = 6 * 3600.0, 366 * 24 * 3600.0
"""Seconds that a stage may take, unless told otherwise, and at most."""

TIMING = "timing.json"
"""The only file of a run with times and host."""

Say = Callable[[str], None]

Execute = Callable[..., list[float]]
"""Executes one notebook, as `notebook.execute` does in a kernel of its own (the default)."""


def run(
    params_path: str | Path,
    *,
    changes: Sequence[str] = (),
    first: str | None = None,
    until: str = STAGES[-1],
    force: bool = False,
    timeout: float = TIMEOUT,
    out: str | Path = "outputs",
    say: Say = print,
    execute: Execute | None = None,
) -> Path:
    """Run the notebooks up to `until`; return the run's folder.

    A stage runs again if what it depends on has changed (see `stages.stale`), if it asks over the
    network, or if that is wanted: `first` and all after it, or all with `force`. Otherwise what it
    made is kept. All parameters are checked before anything runs. A folder without manifest.json
    is of a run that did not finish. `say` hears a line when a stage begins, with the reason, and
    when it ends.

    Where only demographics failed, the others are done before that error is raised. Raises
    ParameterError; or RunError with the cell and its error, and the failed notebook is kept as
    notebooks/<stage>.failed.ipynb. What was made before and may hold again is then kept aside.
    """
    params = load_params(params_path, changes)
    if not 0 < timeout <= LONGEST:
        raise RunError(f"--timeout {timeout:g}: give seconds, more than 0 and at most {LONGEST:g}")
    if first is not None and STAGES.index(first) > STAGES.index(until):
        raise RunError(f"--from {first} comes after --until {until}: there is nothing to run")
    out = Path(out).expanduser()
    folder = RunFolder.of(params.run, out)
    _check(folder, params)
    with alone(folder.path) as ours:
        try:
            work = _Work(params, folder, str(out), timeout, say, execute)
            work.go(STAGES[0] if force else first, until)
            work.finish(ours)
        except OSError as error:
            raise unwritable(folder.path, error) from None
    return folder.path


def _check(folder: RunFolder, params: Params) -> None:
    """Raise RunError where a run would write over, or remove, what no run has made."""
    path = folder.path
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"{str(path)!a}: is no UTF-8: choose another folder with --out") from None
    try:
        others = [p.name for p in sorted(path.iterdir()) if not p.name.startswith(".")]
    except OSError:  # it is not there; or it cannot be used, and that is said when it is
        return
    by_hand = {"about", "tables"} <= folder.read_if_any("data/ingest.json").keys()
    strange = [name for name in others if name not in ("source", "published")]
    if strange and not by_hand and not read_manifest(folder):
        raise RunError(
            f"{path}: is no run's folder, it holds {strange[0]}: choose another name with "
            "--set run=..., or another folder with --out"
        )
    here = os.path.realpath(path)
    for at in named(params.source):
        inside = Path(os.path.realpath(at))  # which bears links that lead in a circle
        if inside.is_relative_to(here) and inside.relative_to(here).parts[:1] != ("source",):
            raise RunError(
                f"the source {at} lies in the run's own folder {path}, which is cleared: "
                "move it, or choose another name with --set run=..."
            )


def _check_there(params: Params) -> None:
    """Raise RunError, before an earlier run is taken apart, where a source is not there."""
    for at in named(params.source):
        if not at.exists():
            raise RunError(
                f"{at}: there is no such file or folder, seen from {Path.cwd()}: check the "
                "source's path"
            )


class _Work:
    """A run under way. `done` holds the stages whose results hold, made now or kept."""

    def __init__(
        self,
        params: Params,
        folder: RunFolder,
        out: str,
        timeout: float,
        say: Say,
        execute: Execute | None,
    ) -> None:
        self.execute = execute
        self.params, self.folder, self.out, self.timeout = params, folder, out, timeout
        self.path = folder.path
        self.say: Say = lambda text: say(f"{datetime.now():%H:%M:%S} {text}")  # noqa: DTZ005
        self.around = surroundings()
        self.made_with: dict[str, Any] = {}
        self.before = read_manifest(folder)
        self.kept: dict[str, Record] = self.before.get("aside", {}) | self.before.get("stages", {})
        self.done: dict[str, Record] = {}
        self.timing = self._timing()
        self.changing = False
        self.late: RunError | None = None
        others = ("params.yaml", MANIFEST, PARTIAL, TIMING, *RECEIPTS, *RECEIPTS.values())
        for name in (*others, *(name for stage in STAGES for name in own(stage))):
            remove_partial(self.path / name)

    def go(self, first: str | None, until: str) -> None:
        """Run what has to run up to `until`; keep what holds, beyond it too."""
        stages = wanted(self.params)
        todo = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
        with ThreadPoolExecutor(1) as beside:  # a page is rendered while the next kernel works
            pages: dict[str, Future[None]] = {}
            for stage in stages:
                source = notebook_source(stage)
                now = begun(stage, source, self.params, self.path, self.done)
                if stage not in todo:
                    if not self._stale(stage, now):
                        self._keep(stage)
                    elif stage in self.kept:
                        self.say(f"{stage}: what it made does not hold any more, and is removed")
                    continue
                why = self._why(stage, now, first)
                at = f"[{todo.index(stage) + 1}/{len(todo)}] {stage}"
                if not why:
                    self._keep(stage)
                    self.say(f"{at} skipped: nothing that it depends on has changed")
                    continue
                if stage == "ingest" and self.kept:
                    _check_there(self.params)
                self.say(f"{at}: {why} ..." if stage in self.kept else f"{at} ...")
                self._begin()
                if self._stage(stage, at, source, now):
                    self.done[stage]["pages"] = todo
                    pages[stage] = beside.submit(write_page, self.folder, stage, todo)
            for stage, made in pages.items():
                made.result()
                self.done[stage]["outputs"][page(stage)] = sha256(self.path / page(stage))
        self._pages()

    def _why(self, stage: str, now: Record, first: str | None) -> str:
        """Why a stage has to run; empty: what it made holds."""
        why = self._stale(stage, now)
        if first is None:
            return why or asks(stage, self.params)
        if STAGES.index(stage) >= STAGES.index(first):
            return why or "it was asked for"
        if why:
            raise RunError(
                f"to begin at {first}, {stage} must be as it was left, but {why}: "
                "run it without --from"
            )
        return ""

    def _stale(self, stage: str, now: Record) -> str:
        if stage not in self.kept:
            return "it is not done yet"
        for name, value in self.around.items():
            if self.before.get(name) != value:
                word = {"lock": "requirements.lock", "python": "Python"}.get(name, f"the {name}")
                return f"{word} has changed"
        return stale(stage, now, self.kept[stage], self.path)

    def _begin(self) -> None:
        """Begin to change the folder: from here on it is of a run that did not finish.

        What is not known to hold is put aside, so that results of two runs never lie together.
        """
        if self.changing:
            return
        self.changing = True
        # Before there is a second thread: Ctrl-C while both import can leave both waiting.
        import_module("aggregation.report.notebook_pages")
        self.made_with = self.around | circumstances()
        for stage, record in self.done.items():
            take_back(stage, record, self.path)  # a run that was stopped may have left it aside
        self._save()
        (self.path / MANIFEST).unlink(missing_ok=True)
        (self.path / TIMING).unlink(missing_ok=True)
        for stage in STAGES:
            if stage not in self.done:
                put_aside(stage, self.kept.get(stage), self.path)
        self.folder.write_text("params.yaml", dump(self.params))
        self._save()

    def _keep(self, stage: str) -> None:
        if self.changing:
            take_back(stage, self.kept[stage], self.path)
        self.done[stage] = self.kept[stage]

    def _stage(self, stage: str, at: str, source: bytes, record: Record) -> bool:
        """Execute a notebook; whether it worked. Only demographics may fail without an error."""
        if self.execute is None:
            from aggregation.runs import notebook  # loads papermill; nothing may have to run

            self.execute = notebook.execute
        begin = time.monotonic()
        try:
            cells = self.execute(
                stage,
                source,
                self.folder,
                {**record["parameters"], "out": self.out},
                timeout=self.timeout,
                say=lambda text: self.say(f"{at}: {text}"),
            )
        except RunError as error:
            if stage != "demographics":
                raise
            self.late = error  # who took part changes no verdict: the constitution goes on
            self.say(f"{at} failed, the others go on")
            return False
        if lost := missing(stage, self.path):
            raise RunError(
                f"the {stage} notebook did not write {lost[0]}: put back the cell that does, or "
                "get the notebook back with git"
            )
        if stage == "ingest":
            record = record | {"input": self._as_read(record["input"])}
        self.done[stage] = record | {"outputs": made_by(stage, self.path)}
        self.timing["seconds"][stage] = round(time.monotonic() - begin, 3)
        self.timing["cells"][stage] = cells
        self._save()
        self.say(f"{at} done in {self.timing['seconds'][stage]:.1f} s")
        return True

    def _as_read(self, before: dict[str, str]) -> dict[str, str]:
        """The hashes of the source's files, which nobody may change while they are read."""
        after = source_files(self.params, self.path)
        changed = [n for n in sorted(before | after) if before.get(n) != after.get(n)]
        if changed and self.params.source.kind != "platform":
            raise RunError(f"{changed[0]} was changed while it was read: run it again")
        return after

    def _pages(self) -> None:
        """Make pages anew that are gone, were changed, or link to other stages than there are."""
        shown = list(self.done)
        for stage, record in self.done.items():
            name, outputs = page(stage), record["outputs"]
            if record.get("pages") != shown or outputs.get(name) != sha256(self.path / name):
                self._begin()
                write_page(self.folder, stage, shown)
                made = {name: sha256(self.path / name)}
                self.done[stage] = record | {"outputs": outputs | made, "pages": shown}

    def finish(self, ours: Callable[[], bool]) -> None:
        """Write timing.json and manifest.json, if anything has changed and everything is there.

        Where demographics failed the run is not finished, and ends with that error.
        """
        if not self.changing and self._whole():
            (self.path / PARTIAL).unlink(missing_ok=True)  # of a run that was killed as it began
            shutil.rmtree(self.path / ASIDE, ignore_errors=True)
            return
        self._begin()
        if self.late is not None:
            raise self.late
        if surroundings() != self.around:
            raise RunError("the package was changed while the run was at work: run it again")
        for stage in STAGES:
            if stage not in self.done:
                clear(stage, self.path)
            (self.path / "notebooks" / f"{stage}.failed.ipynb").unlink(missing_ok=True)
        for stage, record in self.done.items():
            found = made_by(stage, self.path)
            other = [
                name for name, digest in record["outputs"].items() if found.get(name) != digest
            ]
            if other or not ours():
                raise RunError(
                    f"{self.path}: {(other or ['the folder'])[0]} was changed or taken away while "
                    "the run was at work: run it again"
                )
        self.folder.write_json(TIMING, with_checksum(self.timing))
        shutil.rmtree(self.path / ASIDE, ignore_errors=True)
        self.kept = {}
        self._save()
        (self.path / PARTIAL).replace(self.path / MANIFEST)

    def _whole(self) -> bool:
        """Whether the folder is of a finished run already, and one of just these parameters."""
        written = sha256(self.path / "params.yaml")
        return (
            (self.path / MANIFEST).is_file()
            and (self.path / TIMING).is_file()
            and list(self.done) == list(self.before.get("stages", {}))
            and written == self.before["parameters"]
            and written == hashlib.sha256(dump(self.params).encode("utf-8")).hexdigest()
        )

    def _save(self) -> None:
        """Note what is done, for this run's end or for the next one."""
        found = manifest(self.params, self.folder, self.made_with, self.done)
        aside = {s: r for s, r in self.kept.items() if s not in self.done}
        self.folder.write_json(PARTIAL, with_checksum(found | ({"aside": aside} if aside else {})))

    def _timing(self) -> dict[str, Any]:
        """When and where, and how long each stage took when it ran last."""
        then = self.folder.read_if_any(TIMING)
        then = then if checksum_holds(then) else {"seconds": {}, "cells": {}}
        seconds, cells = dict(then["seconds"]), dict(then["cells"])
        started = datetime.now(UTC).isoformat()
        return {"started": started, "host": platform.node(), "seconds": seconds, "cells": cells}


def write_page(folder: RunFolder, stage: str, stages: list[str]) -> None:
    """Render a stage's page, which links to those of `stages`."""
    import nbformat

    from aggregation.report.notebook_pages import notebook_page  # loads nbconvert

    notebook = nbformat.read(folder.path / "notebooks" / f"{stage}.ipynb", as_version=4)
    simulated = folder.read_json("data/ingest.json")["about"]["simulated"]
    html = notebook_page(notebook, stage, stages, run=folder.path.name, simulated=simulated)
    folder.write_text(page(stage), html)
