"""Notebook: executed by papermill in a kernel of its own, whole or not at all."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# jsonschema, which papermill loads, builds the grammar of internationalised addresses at import:
# two seconds, for a check that no notebook needs. It does without where the module is missing.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat
import papermill
import zmq
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError

from aggregation import errors
from aggregation.errors import RunError, unwritable
from aggregation.runs.folder import RunFolder
from aggregation.runs.kernel import Kernel

# A socket that closes while a kernel shuts down is logged with a traceback now and then, and a
# kernel that dies or is stopped is too. What fails comes as an exception as well.
for quiet in ("tornado", "papermill", "asyncio", "traitlets"):
    logging.getLogger(quiet).setLevel(logging.CRITICAL)

MAX_ERROR_LINES = 5
"""Lines of an error that are shown, the last ones among them, since they hold the remedy."""

MAX_ERROR_WIDTH = 500

REMEDIES = {
    "No space left": "free some room, or choose another folder with --out",
    "Read-only file system": "choose another folder with --out",
    "Permission denied": "choose another folder with --out",
    "MemoryError": "run it where there is more memory, or with less data",
    "": "mend that cell: `make lab` opens the notebooks",
}
"""What to do about errors that are not the package's own, by what their text holds."""


class Executor:
    """Executes notebooks, each in a kernel of its own. While one works, the next kernel starts."""

    def __init__(self, last: str) -> None:
        """`last`: the stage after which no kernel is needed."""
        self.last, self.ahead = last, Kernel()
        run_sync(self.ahead.start)()

    def close(self) -> None:
        """End the kernel that was started ahead, if none took it."""
        self.ahead.close()

    def __call__(
        self,
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
        parameters. `say` hears of cells that took more than a second. Raises RunError with the
        cell, its error and a remedy, in at most six lines; what was executed of the notebook is
        then notebooks/<stage>.failed.ipynb.
        """
        notebook = nbformat.reads(source.decode("utf-8"), as_version=4)
        partial = folder.path / "notebooks" / f"{stage}.partial.ipynb"
        kernel, self.ahead = self.ahead, Kernel()
        watch = _Watch(len(notebook.cells) + 1, timeout, say, self.ahead, stage == self.last)
        try:
            partial.parent.mkdir(exist_ok=True)
            _papermill(notebook, partial, given, watch, kernel)
            done = nbformat.writes(_without_traces(nbformat.read(partial, as_version=4))) + "\n"
            folder.write_text(f"notebooks/{stage}.ipynb", done)
        except OSError as error:
            raise unwritable(folder.path, error) from None
        except (PapermillExecutionError, CellTimeoutError, RuntimeError, zmq.ZMQError) as error:
            raise RunError(_failure(error, stage, watch, _keep(partial))) from None
        finally:
            kernel.close()
            partial.unlink(missing_ok=True)
        return watch.seconds


def _papermill(
    notebook: Any, partial: Path, given: dict[str, Any], watch: _Watch, kernel: Kernel
) -> None:
    terminal = sys.stderr.isatty()
    bar: Any = {"desc": partial.stem, "leave": False} if terminal else False
    papermill.execute_notebook(
        notebook,
        str(partial.absolute()).replace("{", "{{").replace("}", "}}"),  # it fills in parameters
        parameters=given,
        kernel_name="python3",
        kernel_manager_class=kernel.manager_class,
        timeout_func=watch.left,
        on_cell_start=watch.begin,
        on_cell_executed=watch.end,
        progress_bar=bar,
        stderr_file=sys.stderr if terminal else None,  # a fit's own progress
        shutdown_kernel="immediate",  # what it made is on disk; asking it takes 0.2 s
        coalesce_streams=True,  # else a bar and what wipes it away are two outputs
    )


class _Watch:
    """What is known of a notebook while it runs."""

    def __init__(
        self, cells: int, timeout: float, say: Callable[[str], None], ahead: Kernel, last: bool
    ) -> None:
        self.cells, self.timeout, self.say = cells, timeout, say
        self.ahead, self.last = ahead, last
        self.deadline = time.monotonic() + timeout
        self.at, self.begun = "", time.monotonic()
        """The cell at work, by number and first line; when it began."""
        self.seconds: list[float] = []

    def left(self, _: Any) -> float:
        """Seconds until the stage has to be done."""
        return max(self.deadline - time.monotonic(), 0.01)

    async def begin(self, cell: Any, cell_index: int) -> None:
        """A cell begins. The first one means that the kernel is ready: time to start the next."""
        lines = [line for line in cell.source.splitlines() if line.strip()]
        self.at, self.begun = f"cell {cell_index + 1}, {(lines or [''])[0][:80]!r}", time.monotonic()
        if cell_index == 0 and not self.last:
            await self.ahead.start()

    def end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        """A cell has been executed."""
        del cell
        if execute_reply["content"].get("ename") == "SystemExit":  # papermill takes it for success
            raise RuntimeError("it exits; take out what does, or cells after it would not run")
        self.seconds.append(round(time.monotonic() - self.begun, 3))
        if self.seconds[-1] >= 1:
            self.say(f"cell {cell_index + 1} of {self.cells} done in {self.seconds[-1]:.1f} s")


def _keep(partial: Path) -> str:
    """Keep what was executed, if it could be saved; say where."""
    failed = partial.with_name(partial.name.replace(".partial.", ".failed."))
    try:
        partial.replace(failed)
    except OSError:
        return "the notebook could not be kept"
    return f"it is kept as {failed}"


def _failure(error: Exception, stage: str, watch: _Watch, kept: str) -> str:
    """What went wrong and what to do, in few lines. The package's own errors say both."""
    end = f"(the {stage} notebook stopped in {watch.at}; {kept})"
    if isinstance(error, CellTimeoutError):
        told = f"it took more than {watch.timeout:g} seconds.\nIf it needs them, raise --timeout"
        return f"{told}\n{end}"
    if not isinstance(error, PapermillExecutionError):
        told = (str(error).splitlines() or [type(error).__name__])[0]
        if told.startswith("it exits"):
            return f"{told}\n{end}"
        if watch.at:
            return (
                f"the kernel of the {stage} notebook died ({told}).\n"
                f"Most likely memory ran out: run it again, or with less data\n{end}"
            )
        return (
            f"the kernel of the {stage} notebook did not start ({told}).\n"
            "Run it again; if that does not help, see what `python -m ipykernel_launcher` says"
        )
    lines = [line for line in str(error.evalue).splitlines() if line.strip()] or [""]
    own = getattr(errors, error.ename, None)
    if not (isinstance(own, type) and issubclass(own, errors.AggregationError)):
        lines[0] = f"{error.ename}: {lines[0]}"
        lines.append(next(remedy for word, remedy in REMEDIES.items() if word in lines[0]))
    if len(lines) > MAX_ERROR_LINES:
        cut = len(lines) - MAX_ERROR_LINES + 1
        lines[2:-2] = [f"... and {cut} lines more"]
    shown = [line if len(line) <= MAX_ERROR_WIDTH else f"{line[:MAX_ERROR_WIDTH]} ..." for line in lines]
    return "\n".join([*shown, end])


def _without_traces(notebook: Any) -> Any:
    """The notebook without what papermill writes about time, chance and machine.

    That goes for `out` too: where a run's folder lies is no part of the run.
    """
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.source = re.sub(r"^out = .*\n?", "", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "code":
            for output in (o for o in cell.outputs if o.output_type == "stream"):
                shown = (line.rsplit("\r", maxsplit=1)[-1] for line in output.text.split("\n"))
                output.text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(shown))
            # a progress bar that has gone leaves an empty one
            cell.outputs = [o for o in cell.outputs if o.get("text", "x").strip()]
    return notebook
