"""Execute: one notebook, by papermill in a kernel of its own, whole or not at all."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

# jsonschema, which papermill loads, builds the grammar of internationalised addresses at import:
# two seconds, for a check that no notebook needs. It does without where the module is missing.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat
import papermill
import zmq
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError

from aggregation import errors
from aggregation.errors import RunError, unwritable
from aggregation.runs.folder import RunFolder
from aggregation.runs.kernels import OPTIONS, kernel_manager

# A socket that closes while a kernel shuts down is logged with a traceback now and then, and a
# kernel that dies or is stopped is too. What fails comes as an exception as well.
for quiet in ("tornado", "papermill", "asyncio"):
    logging.getLogger(quiet).setLevel(logging.CRITICAL)

LONGEST_OUTPUT = 10_000_000
"""Characters that a notebook may print or show. A page of more opens in no browser."""

LONGEST_MESSAGE = 5
"""Lines of an error that are shown, the last ones among them, since they hold the remedy."""

ROOM = "free some room, or choose another folder with --out"

MEND = (
    "mend that cell: `make lab` opens the notebooks, and the one that is kept shows how far it came"
)

REMEDIES = {
    "Errno 28": ROOM,
    "Errno 122": ROOM,
    "Errno 27": ROOM,
    "Errno 30": "choose another folder with --out",
    "Errno 13": "choose another folder with --out",
    "MemoryError": "run it where there is more memory, or with less data",
}
"""What to do about errors that are not the package's own, by what their message or name holds."""


def execute(
    stage: str,
    source: bytes,
    folder: RunFolder,
    given: dict[str, Any],
    *,
    timeout: float,
    say: Callable[[str], None],
) -> list[float]:
    """Execute a notebook into notebooks/<stage>.ipynb; return the seconds of each code cell.

    `source` is the notebook itself, so that what was hashed is what runs, and `given` its
    parameters. Raises RunError with the cell, its error and a remedy, in at most six lines; what
    was executed of the notebook is then notebooks/<stage>.failed.ipynb. `say` hears of cells that
    took more than a second.
    """
    notebooks = folder.path / "notebooks"
    partial = notebooks / f"{stage}.partial.ipynb"
    notebook = nbformat.reads(source.decode("utf-8"), as_version=4)
    watch = _Watch(len(notebook.cells) + 1, timeout, say)
    try:
        notebooks.mkdir(exist_ok=True)
        _papermill(stage, notebook, partial, given, watch)
        done = nbformat.read(partial, as_version=4)
        text = nbformat.writes(_without_traces(done)) + "\n"
        folder.write_text(f"notebooks/{stage}.ipynb", text)
    except PapermillExecutionError as error:
        raise RunError(_failure(stage, error, watch, _kept(partial))) from None
    except CellTimeoutError:
        raise RunError(
            f"the {stage} notebook was stopped in cell {watch.cell}, {watch.source!r}: it took "
            f"more than {timeout:g} seconds.\nIf it needs them, raise --timeout ({_kept(partial)})"
        ) from None
    except _StoppedError as error:
        raise RunError(
            f"the {stage} notebook was stopped in cell {watch.cell}, {watch.source!r}: {error} "
            f"({_kept(partial)})"
        ) from None
    except (RuntimeError, zmq.ZMQError) as error:
        # nbclient's DeadKernelError, a kernel that never answered, a socket that cannot be opened
        told = (str(error).splitlines() or [type(error).__name__])[0]
        if watch.cell:
            raise RunError(
                f"the kernel of the {stage} notebook died in cell {watch.cell}, {watch.source!r} "
                f"({told}).\nMost likely memory ran out: run it again, or with less data"
            ) from None
        raise RunError(
            f"the kernel of the {stage} notebook did not start ({told}).\n"
            "Run it again; if that does not help, see what `python -m ipykernel_launcher` says"
        ) from None
    except OSError as error:
        raise unwritable(folder.path, error) from None
    finally:
        partial.unlink(missing_ok=True)
    return watch.seconds


def _papermill(
    stage: str, notebook: Any, partial: Path, given: dict[str, Any], watch: _Watch
) -> None:
    terminal = sys.stderr.isatty()
    bar: Any = {"desc": stage, "leave": False} if terminal else False
    with kernel_manager() as manager:
        papermill.execute_notebook(
            notebook,
            str(partial.absolute())
            .replace("{", "{{")
            .replace("}", "}}"),  # papermill fills in parameters
            parameters=given,
            kernel_name="python3",
            kernel_manager_class=manager,
            timeout_func=watch.left,
            on_cell_start=watch.begin,
            on_cell_executed=watch.end,
            progress_bar=bar,
            stdout_file=_Meter(watch),
            stderr_file=_Meter(watch, sys.stderr if terminal else None),  # a fit's own progress
            shutdown_kernel="immediate",  # what it made is on disk; asking it takes 0.2 s
            coalesce_streams=True,  # else a bar and what wipes it away are two outputs
            extra_arguments=OPTIONS,
        )


class _StoppedError(Exception):
    """A notebook that is to go no further: why, and what to do about it."""


EXITS = "it exits.\nTake out what does, or cells after it would not run"
# IPython's %%capture lets a cell seem to work whatever it raises.
HIDES = "it hides its errors.\nTake out %%capture"
TOO_MUCH = f"it showed more than {LONGEST_OUTPUT / 1e6:g} million characters.\nShow less"


class _Watch:
    """What is known of a notebook while it runs."""

    def __init__(self, cells: int, timeout: float, say: Callable[[str], None]) -> None:
        self.cells, self.say = cells, say
        self.deadline = time.monotonic() + timeout
        self.printed = 0
        self.cell, self.source = 0, ""
        self.begun = time.monotonic()
        self.seconds: list[float] = []

    def left(self, _: Any) -> float:
        """Seconds until the stage has to be done."""
        return max(self.deadline - time.monotonic(), 0.01)

    def begin(self, cell: Any, cell_index: int) -> None:
        """A cell begins."""
        self.cell, self.begun = cell_index + 1, time.monotonic()
        lines = [line for line in cell.source.splitlines() if line.strip()]
        self.source = (lines or [""])[0][:80]
        if self.source.startswith("%%capture"):
            raise _StoppedError(HIDES)

    def end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        """A cell has been executed."""
        told = execute_reply["content"]  # `raise SystemExit`, which papermill lets pass; `exit()`
        asked = [payload["source"] for payload in told.get("payload", [])]
        if told.get("ename") == "SystemExit" or "ask_exit" in asked:
            raise _StoppedError(EXITS)
        shown = [o for o in cell.get("outputs", []) if o.output_type != "stream"]
        self.printed += len(
            nbformat.v4.writes_json(nbformat.v4.new_notebook(metadata={"o": shown}))
        )
        if self.printed > LONGEST_OUTPUT:
            raise _StoppedError(TOO_MUCH)
        self.seconds.append(round(time.monotonic() - self.begun, 3))
        if self.seconds[-1] >= 1:
            self.say(f"cell {cell_index + 1} of {self.cells} done in {self.seconds[-1]:.1f} s")


class _Meter:
    """Counts what a notebook prints, and passes it on."""

    def __init__(self, watch: _Watch, file: TextIO | None = None) -> None:
        self.watch, self.file = watch, file

    def write(self, text: str) -> None:
        """Raise _StoppedError where it is too much."""
        self.watch.printed += len(text)
        if self.watch.printed > LONGEST_OUTPUT:
            raise _StoppedError(TOO_MUCH)
        if self.file is not None:
            self.file.write(text)

    def flush(self) -> None:
        """Pass it on now."""
        if self.file is not None:
            self.file.flush()


def _kept(partial: Path) -> str:
    """Keep what was executed, if it could be saved; say where."""
    failed = partial.with_name(partial.name.replace(".partial.", ".failed."))
    try:
        notebook = nbformat.read(partial, as_version=4)
        for cell in notebook.cells:
            outputs = cell.get("outputs", [])
            for k, output in enumerate(outputs):
                text = output.get("text") or json.dumps(output)
                if len(text) > LONGEST_OUTPUT:
                    text = text[:LONGEST_OUTPUT] + "\n(cut here)\n"
                    outputs[k] = nbformat.v4.new_output("stream", text=text)
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        partial.replace(failed)
    except (OSError, ValueError):
        return "the notebook could not be kept"
    return f"it is kept as {failed}"


def _failure(stage: str, error: PapermillExecutionError, watch: _Watch, kept: str) -> str:
    """What went wrong, in few lines. An error that this package raises speaks for itself."""
    lines = [line for line in str(error.evalue)[:LONGEST_OUTPUT].splitlines() if line.strip()]
    raised = getattr(errors, error.ename, None)
    what = lines or [error.ename]
    if not (isinstance(raised, type) and issubclass(raised, errors.AggregationError)):
        what = [f"{error.ename}: {what[0]}", *what[1:]]
        what.append(next((r for k, r in REMEDIES.items() if k in what[0]), MEND))
    if len(what) > LONGEST_MESSAGE:
        first, last = what[: LONGEST_MESSAGE - 3], what[-2:]
        what = [*first, f"... and {len(what) - len(first) - 2} lines more", *last]
    shown = [line if len(line) <= 500 else line[:500] + " ..." for line in what]
    cell = f"cell {watch.cell}, {watch.source!r}"
    return "\n".join([*shown, f"(the {stage} notebook stopped in {cell}; {kept})"])


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
