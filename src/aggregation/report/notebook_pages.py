"""Notebook pages: an executed notebook as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from aggregation.report.environment import TEMPLATES

LAB_TAG = "lab"
"""Tag of cells for those who work in JupyterLab, which pages leave out."""


class _MathRenderer(IPythonRenderer):
    """Markdown whose TeX becomes MathML here, so that the page needs no script."""

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return mathml(body, "block").replace("<math ", '<math tabindex="0" ', 1)  # it may scroll


def mathml(tex: str, display: str) -> str:
    """MathML; where the TeX cannot be read, the TeX itself. `display`: inline or block."""
    try:
        return convert(tex, display=display)
    except Exception:  # the converter has no exception of its own
        return f"<code>{escape(tex)}</code>"


def _html(markdown: str) -> str:
    renderer = _MathRenderer(allow_harmful_protocols=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer=renderer).render(markdown)


@cache
def _exporter() -> HTMLExporter:
    return HTMLExporter(
        template_name="page",  # nbconvert's `basic`, with code folded away
        filters={"markdown2html": _html},
        extra_template_basedirs=[str(Path(__file__).parent / "templates")],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )


def notebook_page(
    notebook: NotebookNode,
    stage: str,
    stages: Sequence[str],
    *,
    run: str = "",
    simulated: bool = False,
) -> str:
    """The page of a stage's executed notebook; `stages` have pages too, to which it links."""
    cells = [c for c in notebook.cells if LAB_TAG not in c.metadata.get("tags", [])]
    body, _ = _exporter().from_notebook_node(NotebookNode(notebook | {"cells": cells}))
    return TEMPLATES.get_template("notebook.html").render(
        title=f"{stage}: {run}", body=body, stages=stages, stage=stage, simulated=simulated
    )
