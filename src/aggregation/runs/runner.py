"""Runner: one parameter file through the notebooks, into a run's folder.

A run is built in `<out>/.<run>.partial/<run>/` and replaces `<out>/<run>/` by a rename when it is
whole. Stages that still hold are taken over from either folder by their hashes.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aggregation.errors import AggregationError, RunError, unwritable
from aggregation.files import read_json, sha256, write_json
from aggregation.params import Params, dump, load_params
from aggregation.runs.lock import lock
from aggregation.runs.notebook import notebook_source
from aggregation.runs.pages import write_page
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
    OUTLIVE,
    STAGES,
    asks,
    begun,
    made_by,
    missing,
    named,
    own,
    page,
    source_files,
    stale,
    wanted,
)

TIMEOUT, MAX_TIMEOUT = 6 * 3600.0, 366 * 24 * 3600.0
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
    made is kept. All parameters are checked before anything runs. `say` hears a line when a stage
    begins, with the reason, and when it ends.

    Where only demographics failed, the others are done before that error is raised. Raises
    ParameterError; or RunError with the cell and its error. The folder of an earlier run is then
    as it was, and what is done so far waits in the partial folder for the next try.
    """
    params = load_params(params_path, changes)
    if not 0 < timeout <= MAX_TIMEOUT:
        raise RunError(f"--timeout {timeout:g}: give seconds, up to {MAX_TIMEOUT:g}")
    if first is not None and STAGES.index(first) > STAGES.index(until):
        raise RunError(f"--from {first} comes after --until {until}: there is nothing to run")
    out = Path(out).expanduser()
    path = named_path = out / params.run
    if path.is_symlink():  # the folder lies on another disk
        path = path.resolve()
    _check(path, params, first)
    with lock(path.with_name(f".{path.name}.lock")):
        try:
            work = _Work(params, path, timeout, say, execute)
            work.go(STAGES[0] if force else first, until)
        except OSError as error:
            raise unwritable(path, error) from None
    return named_path


def _check(path: Path, params: Params, first: str | None) -> None:
    """Raise RunError where a run would replace what no run has made, or its own source."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise RunError(f"{str(path)!a}: is no UTF-8: choose another folder with --out") from None
    if path.exists() and not path.is_dir():
        raise RunError(f"{path}: is a file: choose another name with --set run=...")
    others = [p.name for p in sorted(path.iterdir())] if path.is_dir() else []
    others = [name for name in others if not name.startswith(".") and name not in OUTLIVE]
    if others and not read_manifest(path) and not (path / "data" / "ingest.json").is_file():
        raise RunError(
            f"{path}: is no run's folder, it holds {others[0]}: choose another name with "
            "--set run=..., or another folder with --out"
        )
    here = os.path.realpath(path)
    for at in named(params.source):
        if not at.exists() and first in (None, STAGES[0]):
            raise RunError(
                f"{at}: there is no such file or folder, seen from {Path.cwd()}: check source.path"
            )
        inside = Path(os.path.realpath(at))
        if inside.is_relative_to(here) and inside.relative_to(here).parts[:1] != OUTLIVE[:1]:
            raise RunError(
                f"the source {at} lies in the run's own folder {path}, which is replaced: "
                "move it, or choose another name with --set run=..."
            )


class _Work:
    """A run under way.

    `done` holds the records of stages whose results hold, `where` the folders they are in, `links`
    the stages to which their pages link, where that is known.
    """

    def __init__(
        self, params: Params, path: Path, timeout: float, say: Say, execute: Execute | None
    ) -> None:
        self.params, self.path, self.timeout, self.execute = params, path, timeout, execute
        self.out = path.with_name(f".{path.name}.partial")
        self.partial = self.out / params.run
        self.say: Say = lambda text: say(f"{datetime.now():%H:%M:%S} {text}")  # noqa: DTZ005
        if (self.partial / MANIFEST).is_file():  # it was whole when its process was killed
            self._replace()
        self.around = surroundings()
        self.before = {at: read_manifest(at) for at in (self.partial, path)}
        self.done: dict[str, Record] = {}
        self.where: dict[str, Path] = {}
        self.links: dict[str, list[str]] = {}
        self.building = False
        self.late: RunError | None = None
        self.timing = self._timing()

    def go(self, first: str | None, until: str) -> None:
        """Run what has to run up to `until`, and keep what holds beyond it."""
        try:
            self._stages(first, until)
            if self.late is not None:  # who took part changes no verdict: the others are done
                raise self.late
            self._finish()
        except BaseException:
            if self.building and self.path.is_dir():
                self._move_outliving(self.partial, self.path)
            raise

    def _stages(self, first: str | None, until: str) -> None:
        stages = wanted(self.params)
        todo = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
        with ThreadPoolExecutor(1) as beside:  # a page is rendered while the next kernel works
            pages: list[Future[None]] = []
            for stage in stages:
                source = notebook_source(stage)
                now = begun(stage, source, self.params, self._raw(), self.done)
                place, why = self._holding(stage, now)
                if stage not in todo:
                    if place is not None:
                        self._keep(stage, place)
                    elif any(stage in m.get("stages", {}) for m in self.before.values()):
                        self.say(f"{stage}: what it made does not hold any more, and is left out")
                    continue
                at = f"[{todo.index(stage) + 1}/{len(todo)}] {stage}"
                asked = self._asked(stage, first, why)
                if place is not None and not asked:
                    self._keep(stage, place)
                    self.say(f"{at} skipped: nothing that it depends on has changed")
                    continue
                known = any(stage in m.get("stages", {}) for m in self.before.values())
                self.say(f"{at}: {why or asked} ..." if known else f"{at} ...")
                self._build()
                if self._run(stage, at, source, now):
                    pages.append(beside.submit(write_page, self.partial, stage, todo))
                    self.links[stage] = todo
            for written in pages:
                written.result()

    def _holding(self, stage: str, now: Record) -> tuple[Path | None, str]:
        """The folder in which what the stage made still holds; None, and why not, if none does."""
        why = "it is not done yet"
        for place, manifest in self.before.items():
            if stage not in manifest.get("stages", {}):
                continue
            other = [name for name, value in self.around.items() if manifest.get(name) != value]
            if other:
                word = {"lock": "requirements.lock", "python": "Python"}.get(other[0])
                why = f"{word or f'the {other[0]}'} has changed"
            elif not (why := stale(stage, now, manifest["stages"][stage], place)):
                return place, ""
        return None, why

    def _asked(self, stage: str, first: str | None, why: str) -> str:
        """Why a stage runs although its results hold; empty: it does not."""
        if first is None:
            return asks(stage, self.params)
        if STAGES.index(stage) >= STAGES.index(first):
            return "it was asked for"
        if why:
            raise RunError(
                f"to begin at {first}, {stage} must be as it was left, but {why}: "
                "run it without --from"
            )
        return ""

    def _keep(self, stage: str, place: Path) -> None:
        self.done[stage] = self.before[place]["stages"][stage]
        self.where[stage] = place
        if place == self.path:
            self.links[stage] = list(self.before[place]["stages"])
        if self.building:
            self._take_over(stage)

    def _build(self) -> None:
        """Begin to build the partial folder, with what holds so far."""
        if self.building:
            return
        self.building = True
        self.partial.mkdir(parents=True, exist_ok=True)
        self._move_outliving(self.path, self.partial)
        self.made_with = self.around | circumstances()
        for stage in self.done:
            self._take_over(stage)
        (self.partial / "params.yaml").write_text(dump(self.params), encoding="utf-8")
        self._note()

    def _take_over(self, stage: str) -> None:
        """Link the files of a kept stage into the partial folder."""
        for name in self.done[stage]["outputs"]:
            source, target = self.where[stage] / name, self.partial / name
            if source != target and source.is_file() and name not in _outliving(own(stage)):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    os.link(source, target)
                except OSError:  # a file system without links
                    shutil.copyfile(source, target)
        self.where[stage] = self.partial

    def _run(self, stage: str, at: str, source: bytes, record: Record) -> bool:
        """Execute a notebook; whether it worked. Only demographics may fail without an error."""
        if self.execute is None:
            from aggregation.runs import notebook

            self.execute = notebook.execute
        begin = time.monotonic()
        for name in (*own(stage), f"notebooks/{stage}.failed.ipynb"):  # of an earlier try
            if name not in _outliving(own(stage)):
                (self.partial / name).unlink(missing_ok=True)
        self._note()
        try:
            cells = self.execute(
                stage,
                source,
                self.partial,
                {**record["parameters"], "out": str(self.out)},
                timeout=self.timeout,
                say=lambda text: self.say(f"{at}: {text}"),
            )
        except RunError as error:
            if stage != "demographics":
                raise
            self.late = error
            self.say(f"{at} failed, the others go on")
            return False
        if lost := missing(stage, self.partial):
            raise RunError(
                f"the {stage} notebook did not write {lost[0]}: put back the cell that does, or "
                "get the notebook back with git"
            )
        if stage == "ingest":
            record = record | {"input": self._as_read(record["input"])}
        self.done[stage] = record | {"outputs": made_by(stage, self.partial)}
        self.where[stage] = self.partial
        self.timing["seconds"][stage] = round(time.monotonic() - begin, 3)
        self.timing["cells"][stage] = cells
        self._note()
        self.say(f"{at} done in {self.timing['seconds'][stage]:.1f} s")
        return True

    def _as_read(self, before: dict[str, str]) -> dict[str, str]:
        """The hashes of the source's files, which nobody may change while they are read."""
        after = source_files(self.params, self._raw())
        changed = [n for n in sorted(before | after) if before.get(n) != after.get(n)]
        if changed and self.params.source.kind != "platform":
            raise RunError(f"{changed[0]} was changed while it was read: run it again")
        return after

    def _finish(self) -> None:
        """Write pages, timing.json and manifest.json, and replace the earlier run's folder."""
        stages = list(self.done)
        if not self.building:
            whole = (self.path / MANIFEST).is_file() and (self.path / TIMING).is_file()
            same = dump(self.params).encode("utf-8") == _bytes(self.path / "params.yaml")
            shown = all(
                self.links[s] == stages
                and sha256(self.path / page(s)) == self.done[s]["outputs"].get(page(s))
                for s in stages
            )
            if whole and same and shown:
                return
            self._build()
        for stage in stages:
            if self.links.get(stage) != stages or not (self.partial / page(stage)).is_file():
                write_page(self.partial, stage, stages)
            self.done[stage] = self.done[stage] | {"outputs": made_by(stage, self.partial)}
        if surroundings() != self.around:
            raise RunError("the package was changed while the run was at work: run it again")
        self._remove_others()
        write_json(self.partial / TIMING, self.timing)
        self._note()
        (self.partial / PARTIAL).replace(self.partial / MANIFEST)
        self._replace()

    def _remove_others(self) -> None:
        """Remove what earlier tries left in the partial folder."""
        names = {"params.yaml", PARTIAL, TIMING}
        names = names.union(*(record["outputs"] for record in self.done.values()))
        for at in sorted(self.partial.rglob("*"), reverse=True):
            name = at.relative_to(self.partial)
            if name.parts[0] in OUTLIVE or name.as_posix() in names:
                continue
            if at.is_dir() and not at.is_symlink():
                if not any(at.iterdir()):
                    at.rmdir()
            else:
                at.unlink()

    def _replace(self) -> None:
        """Let the partial folder, which is whole, take the place of the earlier run's folder.

        Files there that no run has made move along. After a kill in between, the next run goes on.
        """
        self._move_outliving(self.path, self.partial)
        known = {"params.yaml", MANIFEST, PARTIAL, TIMING, *(n for s in STAGES for n in own(s))}
        for at in sorted(self.path.rglob("*")) if self.path.is_dir() else ():
            name = at.relative_to(self.path)
            target = self.partial / name
            if at.is_dir() or name.as_posix() in known or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(at, target)
        shutil.rmtree(self.path, ignore_errors=True)
        self.partial.replace(self.path)
        shutil.rmtree(self.out, ignore_errors=True)

    def _move_outliving(self, source: Path, target: Path) -> None:
        """Move what the platform sent and was sent: it is always in exactly one place."""
        for name in OUTLIVE:
            if (source / name).exists() and not (target / name).exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.move(source / name, target / name)

    def _raw(self) -> Path:
        """The folder of the platform's export."""
        here = self.partial / OUTLIVE[0]
        return here if here.exists() else self.path / OUTLIVE[0]

    def _note(self) -> None:
        """Note what is done, for this run's end or for the next try."""
        tables = {}
        if "ingest" in self.done:
            tables = read_json(self.partial / "data" / "ingest.json")["tables"]
        values = {
            "run": self.params.run,
            "seed": self.params.seed,
            **self.made_with,
            "parameters": sha256(self.partial / "params.yaml"),
            "tables": tables,
            "stages": self.done,
        }
        write_manifest(self.partial, PARTIAL, values)

    def _timing(self) -> dict[str, Any]:
        """When and where, and how long each stage took when it ran last."""
        seconds, cells = {}, {}
        for at in (self.path, self.partial):
            try:
                then = read_json(at / TIMING)
                seconds |= then["seconds"]
                cells |= then["cells"]
            except (OSError, ValueError, LookupError, TypeError, AggregationError):
                continue
        started = datetime.now(UTC).isoformat()
        return {"started": started, "host": platform.node(), "seconds": seconds, "cells": cells}


def _outliving(names: Sequence[str]) -> set[str]:
    """Those of the names that lie in folders which outlive runs."""
    return {name for name in names if name.split("/")[0] in OUTLIVE}


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
