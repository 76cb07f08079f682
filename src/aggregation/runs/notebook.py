"""Notebook: a stage's notebook as it counts, and its execution by papermill in a kernel."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aggregation import errors
from aggregation.errors import RunError, unwritable
from aggregation.runs.provenance import project_file

TAG = "parameters"
"""Of the cell behind which papermill puts a run's parameters."""

MAX_MESSAGE_LINES = 6
"""Lines of an error that are shown; the last ones hold the remedy."""

MAX_SOCKET_FOLDER = 60
"""Characters of the folder for a kernel's sockets: a socket's whole path may have about 100."""

KERNEL_OPTIONS = [
    "--log-level=CRITICAL",  # else it says that it is being shut down
    "--InteractiveShellApp.ignore_cwd=True",  # no module of the folder where the run was started
]

DISK = "free some room, or choose another folder with --out"
REMEDIES = {
    "Errno 28": DISK,
    "Errno 122": DISK,
    "Errno 30": "choose another folder with --out",
    "Errno 13": "choose another folder with --out",
    "MemoryError": "run it where there is more memory, or with less data",
}
"""Remedies of errors that are not the package's own, by what their message or name holds."""


def notebook_source(stage: str) -> bytes:
    """The notebook of a stage as JSON: kind, id, tags and text of its cells, and nothing else.

    Outputs and counts are left out, so to open a notebook in JupyterLab changes nothing. Raises
    RunError if it cannot be read.
    """
    path = project_file(f"notebooks/{stage}.ipynb")
    try:
        cells = [_source(cell) for cell in json.loads(path.read_bytes())["cells"]]
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror or error}): get it back with git, or install "
            "the package again"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{path}: is no notebook any more: get it back with git") from None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8")


def _source(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell without what does not count; its errors always stop the notebook."""
    tags = [tag for tag in cell["metadata"].get("tags", []) if tag != "raises-exception"]
    kept = {
        "cell_type": cell["cell_type"],
        "id": cell["id"],
        "metadata": {"tags": tags} if tags else {},
        "source": "".join(cell["source"]),
    }
    code = {"execution_count": None, "outputs": []}
    return kept | (code if cell["cell_type"] == "code" else {})


def declared(stage: str, source: bytes) -> list[str]:
    """Names that the notebook's `parameters` cell assigns. Raises RunError if there is none."""
    tagged = [c for c in json.loads(source)["cells"] if TAG in c["metadata"].get("tags", [])]
    if not tagged:
        raise RunError(f"the {stage} notebook has no cell tagged `{TAG}`: tag the first code cell")
    try:
        statements = ast.parse(tagged[0]["source"]).body
    except SyntaxError as error:
        raise RunError(
            f"the {stage} notebook's cell tagged `{TAG}` is no Python (line {error.lineno})"
        ) from None
    targets = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]


def execute(
    stage: str,
    source: bytes,
    path: Path,
    given: dict[str, Any],
    *,
    timeout: float,
    say: Callable[[str], None],
) -> list[float]:
    """Execute a notebook into `path`/notebooks/<stage>.ipynb; return the seconds of each code cell.

    `source` is the notebook itself, so that what was hashed is what runs; `given` its parameters;
    `path` the run's folder. `say` hears of cells that took more than a second. Raises RunError
    with the cell, its error and a remedy; what was executed is kept as
    notebooks/<stage>.failed.ipynb.
    """
    # jsonschema, which papermill loads, builds a grammar of addresses at import: two seconds for a
    # check that no notebook needs. It does without where the module is missing.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    import papermill
    import zmq
    from nbclient.exceptions import CellTimeoutError
    from papermill.exceptions import PapermillExecutionError

    # Sockets that close with their kernel are logged with tracebacks now and then. What fails comes
    # as an exception as well.
    for quiet in ("tornado", "papermill", "asyncio"):
        logging.getLogger(quiet).setLevel(logging.CRITICAL)
    partial = path / "notebooks" / f"{stage}.partial.ipynb"
    failed = partial.with_name(f"{stage}.failed.ipynb")
    notebook = nbformat.reads(source.decode("utf-8"), as_version=4)
    cells = _Cells(len(notebook.cells) + 1, timeout, say)
    bar: Any = {"desc": stage, "leave": False} if sys.stderr.isatty() else False
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with kernel_manager() as manager:
            papermill.execute_notebook(
                notebook,
                # papermill fills in parameters where a path has braces
                str(partial.absolute()).replace("{", "{{").replace("}", "}}"),
                parameters=given,
                kernel_name="python3",
                kernel_manager_class=manager,
                timeout_func=cells.left,
                on_cell_start=cells.begin,
                on_cell_executed=cells.end,
                progress_bar=bar,
                stderr_file=sys.stderr if sys.stderr.isatty() else None,  # a fit's own progress
                shutdown_kernel="immediate",  # what it made is on disk
                coalesce_streams=True,  # else a bar and what wipes it away are two outputs
                extra_arguments=KERNEL_OPTIONS,
            )
        done = _without_traces(nbformat.read(partial, as_version=4))
        partial.write_text(nbformat.writes(done) + "\n", encoding="utf-8")
        partial.replace(path / "notebooks" / f"{stage}.ipynb")
        return cells.seconds
    except PapermillExecutionError as error:
        what = _failure(error)
    except CellTimeoutError:
        what = [f"it took more than {timeout:g} seconds.", "If it needs them, raise --timeout"]
    except _StoppedError as error:
        what = [str(error)]
    except (RuntimeError, zmq.ZMQError) as error:
        # nbclient's DeadKernelError, a kernel that never answered, a socket that cannot be opened
        told = (str(error).splitlines() or [type(error).__name__])[0]
        what = [f"its kernel died ({told}).", "Most likely memory ran out: run it with less data"]
        if not cells.source:
            remedy = "run it again, or see what `python -m ipykernel_launcher` says"
            what = [f"the kernel did not start ({told}): {remedy}"]
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        if partial.exists():
            partial.replace(failed)
    kept = f"; it is kept as {failed}" if failed.exists() else ""
    where = f"cell {cells.number}, {cells.source!r}" if cells.source else "its start"
    raise RunError("\n".join([*what, f"(the {stage} notebook stopped in {where}{kept})"]))


class _StoppedError(Exception):
    """A notebook that must not go on: why, and what to do about it."""


class _Cells:
    """Which cell is running, since when, and the seconds of those that are done."""

    def __init__(self, n: int, timeout: float, say: Callable[[str], None]) -> None:
        self.n, self.say = n, say
        self.deadline = time.monotonic() + timeout
        self.number, self.source, self.begun = 0, "", time.monotonic()
        self.seconds: list[float] = []

    def left(self, _: Any) -> float:
        """Seconds until the stage has to be done."""
        return max(self.deadline - time.monotonic(), 0.01)

    def begin(self, cell: Any, cell_index: int) -> None:
        """A cell begins."""
        self.number, self.begun = cell_index + 1, time.monotonic()
        lines = [line for line in cell.source.splitlines() if line.strip()]
        self.source = (lines or [" "])[0][:80]
        if self.source.startswith("%%capture"):  # it lets a cell seem to work whatever it raises
            raise _StoppedError("it hides its errors: take out %%capture")

    def end(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        """A cell has been executed."""
        del cell
        told = execute_reply["content"]  # `raise SystemExit`, which papermill lets pass; `exit()`
        asked = [payload["source"] for payload in told.get("payload", [])]
        if told.get("ename") == "SystemExit" or "ask_exit" in asked:
            raise _StoppedError("it exits: take out what does, or cells after it would not run")
        self.seconds.append(round(time.monotonic() - self.begun, 3))
        if self.seconds[-1] >= 1:
            self.say(f"cell {cell_index + 1} of {self.n} done in {self.seconds[-1]:.1f} s")


def _failure(error: Any) -> list[str]:
    """What went wrong, in few lines. An error that this package raises speaks for itself."""
    lines = [line for line in str(error.evalue).splitlines() if line.strip()] or [error.ename]
    raised = getattr(errors, error.ename, None)
    if not (isinstance(raised, type) and issubclass(raised, errors.AggregationError)):
        lines[0] = f"{error.ename}: {lines[0]}"
        mend = "mend that cell: `make lab` opens the notebooks"
        lines.append(next((r for key, r in REMEDIES.items() if key in lines[0]), mend))
    if len(lines) > MAX_MESSAGE_LINES:
        left_out = len(lines) - MAX_MESSAGE_LINES + 1
        lines = [*lines[: MAX_MESSAGE_LINES - 3], f"... and {left_out} lines more", *lines[-2:]]
    return [line if len(line) <= 500 else line[:500] + " ..." for line in lines]


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


@contextmanager
def kernel_manager() -> Iterator[type]:
    """A manager whose kernels are of this Python, and talk over sockets in a folder of their own.

    Ports could be taken by another run between their choice and their use.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    near = tempfile.gettempdir()
    short = near if len(near) <= MAX_SOCKET_FOLDER else "/tmp"  # noqa: S108  # a folder in it
    with tempfile.TemporaryDirectory(
        prefix="aggregation-", dir=short, ignore_cleanup_errors=True
    ) as place:

        class Manager(AsyncKernelManager):
            def __init__(self, **given: Any) -> None:
                file = str(Path(place) / "k.json")
                super().__init__(**given, transport="ipc", connection_file=file)
                words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                self._kernel_spec = KernelSpec(argv=words, display_name="Python 3")

            async def start_kernel(self, **given: Any) -> None:
                silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                await super().start_kernel(**given, **silent, env=kernel_environment(place))

        yield Manager


def kernel_environment(place: str) -> dict[str, str]:
    """A kernel's environment: what would change results, or warnings beside them, is fixed.

    It sees no start-up files of the user's and no modules of the working directory; its texts are
    UTF-8 whatever the locale. `place` is its own folder.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
        or not name.startswith(("JAX_", "XLA_", "PYTHONWARNINGS", "PYTHONSTARTUP"))
    }
    own = {"IPYTHONDIR": place, "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    own |= {"PYTHONSAFEPATH": "1", "JAX_PLATFORMS": "cpu"}
    home = os.path.expanduser("~")  # noqa: PTH111  # raises nothing for a user without a home
    if not os.access(home, os.W_OK):  # else Matplotlib says where else it writes
        own["MPLCONFIGDIR"] = place
    return kept | own
