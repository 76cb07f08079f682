"""Notebook source: the notebook of a stage, as far as it counts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from aggregation.errors import RunError

ROOT = Path(__file__).resolve().parents[3]
"""The project: its notebooks, lock and history."""

TAG = "parameters"
"""Of the cell that a run's parameters are put behind."""


def notebook_source(stage: str) -> bytes:
    """The notebook of a stage as JSON: kind, id, tags and text of its cells, and nothing else.

    What JupyterLab and kernels write, outputs and counts among it, is left out: to open a notebook
    changes nothing. Raises RunError if it cannot be read.
    """
    path = ROOT / "notebooks" / f"{stage}.ipynb"
    try:
        cells = [_source(cell) for cell in json.loads(path.read_bytes())["cells"]]
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror or error}): get it back with git"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{path}: is no notebook any more: get it back with git") from None
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8")


def _source(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell without what does not count, and without the tag that lets others go on after its
    error.
    """
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
