"""Pages: an executed notebook as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from aggregation.report.environment import TEMPLATES
from aggregation.runs.folder import RunFolder

IN_THE_LAB = "lab"
"""Tag of cells for those who work in JupyterLab, which pages leave out."""


class _MathRenderer(IPythonRenderer):
    """Markdown whose TeX becomes MathML here and now, so that the page needs no script."""

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block").replace("<math ", '<math tabindex="0" ', 1)  # it may scroll


class _Exporter(HTMLExporter):
    """nbconvert's `basic` body, with code folded away."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        del context
        renderer = _MathRenderer(allow_harmful_protocols=False, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)


def _mathml(tex: str, display: str) -> str:
    """MathML; where the TeX cannot be read, the TeX itself."""
    try:
        return convert(tex, display=display)
    except Exception:  # the converter raises whatever it comes across
        return f"<code>{escape(tex)}</code>"


def write_page(folder: RunFolder, stage: str, stages: Sequence[str]) -> None:
    """Render the executed notebook of a stage to report/<stage>.html; `stages` have pages too."""
    exporter = _Exporter(
        template_name="page",
        extra_template_basedirs=[str(Path(__file__).parent / "templates")],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    notebook = nbformat.read(folder.path / "notebooks" / f"{stage}.ipynb", as_version=4)
    notebook.cells = [c for c in notebook.cells if IN_THE_LAB not in c.metadata.get("tags", [])]
    body, _ = exporter.from_notebook_node(notebook)
    page = TEMPLATES.get_template("notebook.html").render(
        title=f"{stage}: {folder.path.name}",
        body=body,
        stages=stages,
        stage=stage,
        simulated=folder.dataset().about.simulated,
    )
    folder.write_text(f"report/{stage}.html", page)
