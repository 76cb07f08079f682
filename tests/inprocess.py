"""A notebook executed in this process, for tests of what a run does around its notebooks.

A kernel costs seconds; here the cells run in one namespace. Tests of kernels, timeouts, failing
cells and papermill use the real thing.
"""

import ast
import contextlib
import io
import json
import time

import nbformat
from IPython.core.formatters import DisplayFormatter

from aggregation.errors import RunError
from aggregation.files import atomic_write
from aggregation.runs.notebook import TAG
from aggregation.runs.runner import run


def execute(stage, source, path, given, *, timeout, say):
    """As `aggregation.runs.notebook.execute`: writes notebooks/<stage>.ipynb, gives seconds."""
    del timeout, say
    notebook = nbformat.reads(source.decode("utf-8"), as_version=4)
    names, seconds, cells = {}, [], []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        seconds.append(_run(cell, names, stage))
        if TAG in cell.metadata.get("tags", []):
            text = "".join(f"{name} = {value!r}\n" for name, value in given.items())
            injected = nbformat.v4.new_code_cell("# Parameters\n" + text, id="injected-parameters")
            injected.metadata["tags"] = ["injected-parameters"]
            seconds.append(_run(injected, names, stage))
            injected.source = "".join(
                line for line in injected.source.splitlines(True) if not line.startswith("out = ")
            )
            cells.append(injected)
    notebook.cells = cells
    with atomic_write(path / "notebooks" / f"{stage}.ipynb") as partial:
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return seconds


def _run(cell, names, stage):
    begin, printed = time.monotonic(), io.StringIO()
    body = ast.parse(cell.source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module(body, []), stage, "exec"), names)
            value = (
                None
                if last is None
                else eval(compile(ast.Expression(last.value), stage, "eval"), names)
            )
    except Exception as error:
        raise RunError(f"{error}\n(the {stage} notebook stopped)") from error
    if printed.getvalue():
        cell.outputs.append(nbformat.v4.new_output("stream", text=printed.getvalue()))
    if value is not None:
        data, metadata = DisplayFormatter().format(value)
        data = json.loads(json.dumps(data))
        cell.outputs.append(nbformat.v4.new_output("execute_result", data=data, metadata=metadata))
    return time.monotonic() - begin


def quietly(params, out, **options):
    """A run in this process; gives the lines that it said and its folder."""
    said = []
    return said, run(params, out=out, say=said.append, **{"execute": execute} | options)
