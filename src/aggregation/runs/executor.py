"""Executor: executes notebooks by papermill, each in a kernel of its own, whole or not at all."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync

from aggregation import errors
from aggregation.errors import RunError, unwritable
from aggregation.files import write
from aggregation.runs.kernel import FORKS, Kernel, Server

# jsonschema, which nbformat loads, builds the grammar of internationalised addresses at import:
# two seconds, for a check that no notebook needs. It does without where the module is missing.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# A socket that closes while a kernel shuts down is logged with a traceback now and then, and a
# kernel that dies or is stopped is too. What fails comes as an exception as well.
for quiet in ("tornado", "papermill", "asyncio", "traitlets"):
    logging.getLogger(quiet).setLevel(logging.CRITICAL)

MAX_ERROR_LINES = 5
"""Lines of an error that are shown, the last ones among them, since they hold the remedy."""

MAX_ERROR_WIDTH = 500

HEARTBEAT = 30.0
"""Seconds between two lines of a notebook that is still at work."""

REMEDIES = {
    "No space left": "free some room, or choose another folder with --out",
    "MemoryError": "run it again, where there is more memory, or with less data",
    "": "mend that cell: `make lab` opens the notebooks",
}
"""What to do about errors that are not the package's own, by what their text holds."""


class Executor:
    """Executes notebooks, each in a kernel of its own. While one works, the next kernel starts."""

    def __init__(self, stages: Sequence[str]) -> None:
        """`stages`: those that may be executed, in order."""
        self.stages, self.server = stages, Server() if FORKS else None
        self.next = Kernel(self.server, stages)

    def close(self) -> None:
        """End the kernel that no notebook took, and what forks them."""
        self.next.close()
        if self.server:
            self.server.close()

    def __call__(
        self,
        stage: str,
        source: bytes,
        path: Path,
        given: dict[str, Any],
        *,
        timeout: float,
        say: Callable[[str], None],
    ) -> list[float]:
        """Execute a notebook into `path`/notebooks/<stage>.ipynb; return the seconds of each cell.

        `source` is the notebook itself, so that what was hashed is what runs; `given` its
        parameters; `path` the run's folder. `say` hears of cells that took more than a second.
        Raises RunError with the cell, its error and a remedy, in at most seven lines; what was
        executed of the notebook is then notebooks/<stage>.failed.ipynb.
        """
        run_sync(self.next.start)()
        import nbformat  # while the kernel gets ready
        import papermill

        notebook = nbformat.reads(source.decode("utf-8"), as_version=4)
        kept = path / "notebooks" / f"{stage}.failed.ipynb"
        later = self.stages[self.stages.index(stage) + 1 :]
        kernel, self.next = self.next, Kernel(self.server, later)
        begun, seconds, at = time.monotonic(), [], ""
        running: list[Any] = []

        async def keep(notebook: Any) -> None:
            running.append(notebook)

        async def begin(cell: Any, cell_index: int) -> None:
            nonlocal begun, at
            begun, at = time.monotonic(), f"cell {cell_index + 1}, {_first_line(cell.source)!r}"
            if cell.source.startswith("%%capture"):
                raise _StoppedError("it hides its errors: take out %%capture")
            if cell_index == 0 and later:
                await self.next.start()  # now, since this kernel is ready

        def end(cell: Any, cell_index: int, execute_reply: Any) -> None:  # noqa: ARG001
            told = execute_reply["content"]
            if told.get("ename") == "SystemExit" or "ask_exit" in str(told.get("payload")):
                raise _StoppedError("it exits: take out what does, or cells after it do not run")
            seconds.append(round(time.monotonic() - begun, 3))
            if seconds[-1] >= 1:
                say(f"cell {cell_index + 1} done in {seconds[-1]:.1f} s")

        deadline, terminal = begun + timeout, sys.stderr.isatty()
        stop = threading.Event()
        beating = threading.Thread(target=_heartbeat, args=(stop, say), daemon=True)
        bar: Any = {"desc": stage, "leave": False} if terminal else False
        try:
            beating.start()
            done = papermill.execute_notebook(
                notebook,
                None,  # else it is written twice a cell, figures and all
                parameters=given,
                kernel_name="python3",
                kernel_manager_class=kernel.manager_class,
                timeout_func=lambda _: max(deadline - time.monotonic(), 0.01),
                on_notebook_start=keep,
                on_cell_start=begin,
                on_cell_executed=end,
                progress_bar=bar,
                stderr_file=sys.stderr if terminal else None,  # a fit's own progress
                shutdown_kernel="immediate",  # what it made is on disk; asking it takes 0.2 s
                coalesce_streams=True,  # else a bar and what wipes it away are two outputs
            )
            executed = nbformat.writes(_without_traces(done)) + "\n"
            write(path / "notebooks" / f"{stage}.ipynb", executed)
        except Exception as error:  # of a cell, of nbclient, of a socket, of the disk
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise unwritable(path, error) from None
            where = f"the {stage} notebook stopped in {at or 'its kernel, which did not start'}"
            with suppress(OSError):  # the disk may be full
                if running:
                    write(kept, nbformat.writes(running[0]))
                    where += f"; it is kept as {kept}"
            raise RunError(f"{_problem(error, timeout)}\n({where})") from None
        finally:
            stop.set()
            kernel.close()
        return seconds


def _heartbeat(stop: threading.Event, say: Callable[[str], None]) -> None:
    """Say every now and then that a notebook is still at work, until `stop` is set."""
    begun = time.monotonic()
    with suppress(KeyboardInterrupt):  # the run ends: whoever waits for the notebook says so
        while not stop.wait(HEARTBEAT):
            say(f"still at work after {time.monotonic() - begun:,.0f} s")


class _StoppedError(Exception):
    """A notebook that must not go on: why, and what to do about it."""


def _first_line(source: str) -> str:
    return next((line[:80] for line in source.splitlines() if line.strip()), "")


def _problem(error: Exception, timeout: float) -> str:
    """What went wrong and what to do, in few lines. The package's own errors say both."""
    if isinstance(error, TimeoutError):
        return f"it took more than {timeout:g} seconds.\nIf it needs them, raise --timeout"
    if isinstance(error, _StoppedError):
        return str(error)
    name, value = getattr(error, "ename", ""), getattr(error, "evalue", "")
    if not name:  # it is no error of a cell
        told = _first_line(str(error)) or type(error).__name__
        return f"its kernel died ({told}).\n{REMEDIES['MemoryError'].capitalize()}"
    lines = [line for line in value.splitlines() if line.strip()] or [""]
    own = getattr(errors, name, None)
    if not (isinstance(own, type) and issubclass(own, errors.AggregationError)):
        lines[0] = f"{name}: {lines[0]}"
        lines.append(next(remedy for word, remedy in REMEDIES.items() if word in lines[0]))
    if len(lines) > MAX_ERROR_LINES:
        lines[2:-2] = [f"... and {len(lines) - 4} lines more"]
    return "\n".join(f"{x[:MAX_ERROR_WIDTH]} ..." if len(x) > MAX_ERROR_WIDTH else x for x in lines)


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
