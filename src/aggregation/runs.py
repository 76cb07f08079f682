"""Runs: one parameter file through the notebooks, into a run's folder; what still holds is kept."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aggregation.alone import alone
from aggregation.errors import RunError, unwritable
from aggregation.folder import RunFolder
from aggregation.manifest import (
    MANIFEST,
    PARTIAL,
    manifest,
    read_manifest,
    surroundings,
)
from aggregation.params import Params, dump, load_params
from aggregation.seal import sealed
from aggregation.stages import (
    ASIDE,
    STAGES,
    Record,
    asks,
    begun,
    clear,
    made_by,
    move,
    notebook,
    sha256,
    source_files,
    stale,
    wanted,
)
from aggregation.whole import clear_partial

TIMEOUT = 6 * 3600.0
"""Seconds that a stage may take, unless told otherwise."""

Say = Callable[[str], None]


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
) -> Path:
    """Run the notebooks up to `until`; return the run's folder.

    A stage runs again if what it depends on has changed (see `stages.stale`), if it asks over the
    network, or if that is wanted: `first` and all after it, or all with `force`. Otherwise what it
    made is kept. All parameters are checked before anything runs. A folder without manifest.json
    is of a run that did not finish. `say` hears a line when a stage begins, with the reason, and
    when it ends.

    Where only demographics failed, the others are done before that error is raised. Raises
    ParameterError; or RunError with the cell and its error, and the failed notebook is kept as
    notebooks/<stage>.failed.ipynb.
    """
    params = load_params(params_path, changes)
    if first is not None and STAGES.index(first) > STAGES.index(until):
        raise RunError(f"--from {first} comes after --until {until}: there is nothing to run")
    folder = RunFolder.of(params.run, out)
    with alone(folder.path) as ours:
        try:
            work = _Work(params, folder, str(out), timeout, say)
            work.go(STAGES[0] if force else first, until)
            work.finish(ours)
        except OSError as error:
            raise unwritable(folder.path, error) from None
        finally:
            shutil.rmtree(folder.path / ASIDE, ignore_errors=True)
    return folder.path


class _Work:
    """A run under way. `done` holds the stages whose results hold, made now or kept."""

    def __init__(
        self, params: Params, folder: RunFolder, out: str, timeout: float, say: Say
    ) -> None:
        self.params, self.folder, self.out, self.timeout = params, folder, out, timeout
        self.path, self.aside = folder.path, folder.path / ASIDE
        self.say: Say = lambda text: say(f"{datetime.now():%H:%M:%S} {text}")  # noqa: DTZ005
        self.around = surroundings()
        self.before = read_manifest(folder)
        self.kept: dict[str, Record] = self.before.get("stages", {})
        self.done: dict[str, Record] = {}
        self.timing = self._timing()
        self.changing = False
        self.late: RunError | None = None
        shutil.rmtree(self.aside, ignore_errors=True)  # of a run that was killed
        clear_partial(self.path)

    def go(self, first: str | None, until: str) -> None:
        """Run what has to run up to `until`; keep what holds, beyond it too."""
        stages = wanted(self.params)
        todo = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
        with ThreadPoolExecutor(1) as beside:  # a page is rendered while the next kernel works
            pages: dict[str, Future[None]] = {}
            for stage in stages:
                source = notebook(stage).read_bytes()
                now = begun(stage, source, self.params, self.path, self.done)
                if stage not in todo:
                    if not self._stale(stage, now):
                        self._keep(stage)
                    continue
                why = self._why(stage, now, first)
                at = f"[{todo.index(stage) + 1}/{len(todo)}] {stage}"
                if not why:
                    self._keep(stage)
                    self.say(f"{at} skipped: nothing that it depends on has changed")
                    continue
                self.say(f"{at}: {why} ..." if stage in self.kept else f"{at} ...")
                self._begin()
                if self._stage(stage, at, source, now):
                    pages[stage] = beside.submit(self._page, stage, todo)
            self._pages(todo, pages)

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
        return stale(now, self.kept[stage], self.aside if self.changing else self.path)

    def _begin(self) -> None:
        """Begin to change the folder: from here on it is of a run that did not finish.

        What is not known to hold is put aside, so that results of two runs never lie together.
        """
        if self.changing:
            return
        self.changing = True
        (self.path / MANIFEST).unlink(missing_ok=True)
        (self.path / "timing.json").unlink(missing_ok=True)
        for stage in STAGES:
            if stage not in self.done:
                move(stage, self.path, self.aside)
        if not self.done:
            for name in ("data", "model", "evidence", "demographics", "notebooks", "report"):
                shutil.rmtree(self.path / name, ignore_errors=True)  # leftovers of no stage
        self.folder.write_text("params.yaml", dump(self.params))
        self._save()

    def _keep(self, stage: str) -> None:
        if self.changing:
            move(stage, self.aside, self.path)
        self.done[stage] = self.kept[stage]

    def _stage(self, stage: str, at: str, source: bytes, record: Record) -> bool:
        """Execute a notebook; whether it worked. Only demographics may fail without an error."""
        from aggregation.execute import execute  # loads papermill; nothing may have to run

        begin = time.monotonic()
        clear(stage, self.path)
        try:
            cells = execute(
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

    def _page(self, stage: str, stages: list[str]) -> None:
        from aggregation.report.pages import write_page  # loads nbconvert

        write_page(self.folder, stage, stages)

    def _pages(self, todo: list[str], pages: dict[str, Future[None]]) -> None:
        """Wait for the pages; make those anew that link to other stages than there are."""
        for page in pages.values():
            page.result()
        shown = list(self.done)
        for stage, record in self.done.items():
            name = f"report/{stage}.html"
            linked = (
                todo if stage in pages else list(self.kept) if name in record["outputs"] else []
            )
            if linked != shown:
                self._begin()
                self._page(stage, shown)
            record["outputs"][name] = sha256(self.path / name)

    def finish(self, ours: Callable[[], bool]) -> None:
        """Write timing.json and manifest.json, if anything has changed and everything is there."""
        whole = (self.path / MANIFEST).exists() and list(self.done) == list(self.kept)
        if whole and sha256(self.path / "params.yaml") == self.before["parameters"]:
            return
        self._begin()
        if surroundings() != self.around:
            raise RunError("the package was changed while the run was at work: run it again")
        names = [name for record in self.done.values() for name in record["outputs"]]
        missing = [name for name in names if not (self.path / name).is_file()]
        if missing or not ours():
            raise RunError(
                f"{self.path}: {(missing or ['the folder'])[0]} was taken away while the run was "
                "at work: run it again"
            )
        self.folder.write_json("timing.json", sealed(self.timing))
        self._save()
        (self.path / PARTIAL).replace(self.path / MANIFEST)
        if self.late is not None:
            raise self.late

    def _save(self) -> None:
        """Note what is done, for this run's end or for the next one."""
        found = manifest(self.params, self.folder, self.around, self.done)
        self.folder.write_json(PARTIAL, found)

    def _timing(self) -> dict[str, Any]:
        """When and where, and how long each stage took when it ran last."""
        try:
            then = self.folder.read_json("timing.json")
            seconds, cells = dict(then["seconds"]), dict(then["cells"])
        except (RunError, OSError, ValueError, KeyError, TypeError):
            seconds, cells = {}, {}
        started = datetime.now(UTC).isoformat()
        return {"started": started, "host": platform.node(), "seconds": seconds, "cells": cells}
