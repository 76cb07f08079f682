"""Notebook pages: an executed notebook as one self-contained HTML file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from aggregation.report.environment import templates
from aggregation.report.language import Language
from aggregation.report.sentences import page_name

LAB_TAG = "lab"
"""Tag of cells for those who work in JupyterLab, which pages leave out."""


HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>')
"""The headings of a page's contents: id, and words that are HTML already."""


class _MathRenderer(IPythonRenderer):
    """Markdown whose TeX becomes MathML here, so that the page needs no script, and whose headings
    can be linked to.
    """

    def heading(self, text: str, level: int, **_: Any) -> str:
        place = re.sub(r"\W+", "-", re.sub(r"<[^>]*>", "", text)).strip("-").lower()
        return f'<h{level} id="{place}">{text}</h{level}>\n'

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def block_math(self, body: str) -> str:
        formula = mathml(body, "block")
        return f'<div class="wide" role="group" aria-label="Formula" tabindex="0">{formula}</div>'


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
    name = page_name(Language(), stage)
    page = templates().get_template("notebook.html")
    return page.render(
        title=f"{name}: {run}",
        body=body,
        contents=HEADING.findall(body),
        stages=[(each, page_name(Language(), each)) for each in stages],
        stage=stage,
        simulated=simulated,
    )


def warm_up() -> None:
    """Load what the first page would wait for: nbconvert's templates and the lexer of code."""
    notebook_page(new_notebook(cells=[new_code_cell("0"), new_markdown_cell("0")]), "ingest", [])
