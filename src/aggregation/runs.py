"""Runs: one parameter file through the notebooks, by papermill, into a run's folder."""

from __future__ import annotations

import ast
import fcntl
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# jsonschema, which papermill loads, builds the grammar of internationalised addresses at import:
# two seconds, for a check that no notebook needs. It does without where the module is missing.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from aggregation import errors
from aggregation.errors import RunError
from aggregation.folder import RunFolder
from aggregation.manifest import LOCK, ROOT, manifest
from aggregation.params import Params, dump, load_params
from aggregation.posting import LAST
from aggregation.report.environment import STAGES
from aggregation.report.pages import write_page

# A socket that closes while a kernel shuts down is logged with a traceback now and then. What fails
# in a notebook comes as an exception.
logging.getLogger("tornado").setLevel(logging.CRITICAL)

MADE = (
    "manifest.json",
    "timing.json",
    "params.yaml",
    "data",
    "model",
    "evidence",
    "demographics",
    "notebooks",
    "report",
    "constitution.json",
    "constitution.csv",
    LAST,
)
"""What a run makes in its folder, and what a new run of that name clears away first.

What came from the platform (`source/`) and what went there (`published/`) stays."""


def run(
    params_path: str | Path,
    *,
    changes: Sequence[str] = (),
    until: str = STAGES[-1],
    out: str | Path = "outputs",
    say: Callable[[str], None] = print,
) -> Path:
    """Run the notebooks up to `until`; return the run's folder.

    All parameters are checked before anything runs. A folder without manifest.json is of a run
    that did not finish. `say` hears one line per stage. Where only demographics failed, the others
    are done before that error is raised. Raises ParameterError, or RunError with
    the cell and its error; the failed notebook is kept as notebooks/<stage>.failed.ipynb.
    """
    params = load_params(params_path, changes)
    folder = RunFolder.of(params.run, out)
    with _alone(folder.path):
        return _run(params, folder, until, out, say)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the folder while the block runs. A process that dies lets go of it.

    Raises RunError, naming the process and when it began, if another one holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RunError(
                f"{path}: another run is at work there ({file.read().strip() or 'just begun'}): "
                "wait for it, or give this one another name with --set run=..."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} since {datetime.now(UTC).isoformat(timespec='seconds')}")
        file.flush()
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)


def _run(
    params: Params, folder: RunFolder, until: str, out: str | Path, say: Callable[[str], None]
) -> Path:
    _clear(folder.path)
    folder.write_text("params.yaml", dump(params))
    given = params.model_dump()
    stages = [s for s in STAGES if s != "demographics" or params.demographics is not None]
    stages = [s for s in stages if STAGES.index(s) <= STAGES.index(until)]
    started, durations, late = datetime.now(UTC), {}, None
    with ThreadPoolExecutor(1) as beside:  # a page is rendered while the next kernel works
        pages = []
        for number, stage in enumerate(stages, start=1):
            begin = time.perf_counter()
            say(f"[{number}/{len(stages)}] {stage} ...")
            try:
                _execute(stage, folder, given | {"out": str(out)})
                pages.append(beside.submit(write_page, folder, stage, stages))
            except RunError as error:
                if stage != "demographics":
                    raise
                late = error  # who took part changes no verdict: the constitution goes on
                say(f"[{number}/{len(stages)}] {stage} failed, the others go on")
                continue
            durations[stage] = round(time.perf_counter() - begin, 3)
            say(f"[{number}/{len(stages)}] {stage} done in {durations[stage]:.1f} s")
        for page in pages:
            page.result()
    timing = {"started": started.isoformat(), "seconds": durations, "host": platform.node()}
    folder.write_json("timing.json", timing)
    folder.write_json("manifest.json", manifest(params, folder.path))
    if late is not None:
        raise late
    return folder.path


def _clear(path: Path) -> None:
    try:
        for name in MADE:
            old = path / name
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{error.filename or path}: cannot be written ({error.strerror}): choose another folder "
        "with --out"
    )


def _execute(stage: str, folder: RunFolder, given: dict[str, Any]) -> None:
    """Execute one notebook into notebooks/<stage>.ipynb, whole or not at all."""
    source = ROOT / "notebooks" / f"{stage}.ipynb"
    notebooks = folder.path / "notebooks"
    notebooks.mkdir(exist_ok=True)
    partial = notebooks / f"{stage}.partial.ipynb"
    try:
        papermill.execute_notebook(
            str(source),
            str(partial),
            parameters={name: given[name] for name in declared(source) if name in given},
            kernel_name="python3",
            progress_bar=sys.stderr.isatty(),
            stderr_file=sys.stderr if sys.stderr.isatty() else None,  # a fit's own progress
            coalesce_streams=True,  # else a bar and what wipes it away are two outputs
            extra_arguments=["--log-level=CRITICAL"],  # else it warns that its sockets are TCP
        )
    except PapermillExecutionError as error:
        failed = notebooks / f"{stage}.failed.ipynb"
        partial.replace(failed)
        raise RunError(_failure(stage, error, failed)) from None
    except RuntimeError as error:  # nbclient's DeadKernelError, and a kernel that never answered
        raise RunError(
            f"the kernel of the {stage} notebook died ({str(error).splitlines()[0]}): most likely "
            "memory ran out; run it again, or with less data"
        ) from None
    except OSError as error:
        raise RunError(
            f"{folder.path}: cannot be written ({error.strerror or error}): free some room, or "
            "choose another folder with --out"
        ) from None
    notebook = _without_traces(nbformat.read(partial, as_version=4))
    folder.write_text(f"notebooks/{stage}.ipynb", nbformat.writes(notebook) + "\n")
    partial.unlink()


def declared(notebook: Path) -> list[str]:
    """Names that a notebook's `parameters` cell assigns."""
    cells = nbformat.read(notebook, as_version=4).cells
    cell = next(c for c in cells if "parameters" in c.metadata.get("tags", []))
    return [
        target.id
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]


def _failure(stage: str, error: PapermillExecutionError, failed: Path) -> str:
    """What went wrong, in few lines. An error that this package raises speaks for itself."""
    lines = [line for line in str(error.evalue).splitlines() if line.strip()]
    raised = getattr(errors, error.ename, None)
    ours = isinstance(raised, type) and issubclass(raised, errors.AggregationError)
    what = lines or [error.ename]
    if not ours:
        what = [f"{error.ename}: {what[0]}", *what[1:]]
    shown = [line if len(line) <= 500 else line[:500] + " ..." for line in what]
    where = f"(the {stage} notebook stopped in cell {error.exec_count}; it is kept as {failed})"
    return "\n".join([*shown, where])


def _without_traces(notebook: Any) -> Any:
    """The notebook without what papermill writes about time, chance and machine.

    That goes for `out` too: where a run's folder lies is no part of the run.
    """
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.source = re.sub(r"^out = .*\n?", "", cell.source, flags=re.MULTILINE)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                shown = [line.rsplit("\r", maxsplit=1)[-1] for line in output.text.split("\n")]
                output.text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(shown))
        if "outputs" in cell:  # a progress bar that has gone leaves an empty one
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
    return notebook
