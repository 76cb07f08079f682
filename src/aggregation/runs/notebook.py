"""Notebook: the notebook of a stage, without what JupyterLab and kernels write into it."""

from __future__ import annotations

import ast
import json
from typing import Any

from aggregation.errors import RunError
from aggregation.runs.provenance import project_file

TAG = "parameters"
"""Of the cell that a run's parameters are put behind."""


def notebook_source(stage: str) -> bytes:
    """The notebook of a stage as JSON: kind, id, tags and text of its cells, and nothing else.

    Outputs, counts and other metadata are left out, so to open a notebook is no change. Raises
    RunError if it cannot be read.
    """
    path = project_file(f"notebooks/{stage}.ipynb")
    try:
        cells = [_source(cell) for cell in json.loads(path.read_bytes())["cells"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no notebook"
        raise RunError(f"{path}: cannot be read ({reason}): get it back with git") from None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, ensure_ascii=False, indent=1).encode("utf-8")


def _source(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell without metadata, and without the tag that lets a run go on after its error."""
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
    targets = [t for s in statements for t in getattr(s, "targets", [getattr(s, "target", None)])]
    return [target.id for target in targets if isinstance(target, ast.Name)]
