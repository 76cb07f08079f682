"""The documentation's site, by Sphinx: docs/, the notebooks, and the docstrings. `make docs`."""

import json
import re
from pathlib import Path

from aggregation import __version__
from aggregation.report.notebook_pages import mathml
from aggregation.runs.provenance import project_file

NOTEBOOKS = ("ingest", "train", "diagnostics", "demographics", "publish")

project, release = "aggregation", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "aggregation"
html_show_sourcelink = html_copy_source = html_show_copyright = False
html_static_path, html_css_files = ["_static"], ["site.css"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
suppress_warnings = ["misc.highlighting_failure"]  # of shortened files

CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
BLOCK, INLINE = re.compile(r"\$\$(.+?)\$\$", re.DOTALL), re.compile(r"\$((?:[^$\n]|\n(?!\n))+?)\$")


def formulas(_app, _name, source):
    """Formulas between dollars become MathML, which needs no script; code is left alone."""
    parts = CODE.split(source[0])
    for k in range(0, len(parts), 2):
        text = BLOCK.sub(lambda found: formula(found[1], "block"), parts[k])
        parts[k] = INLINE.sub(lambda found: formula(found[1], "inline"), text)
    source[0] = "".join(parts)


def formula(tex, display):
    return mathml(" ".join(tex.split()), display)


def write_notebooks(app):
    """A page for each notebook, in docs/notebooks/, which git ignores."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for name in NOTEBOOKS:
        parts = []
        for cell in json.loads(project_file(f"notebooks/{name}.ipynb").read_bytes())["cells"]:
            text = "".join(cell["source"])
            parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def setup(app):
    app.connect("builder-inited", write_notebooks)
    app.connect("source-read", formulas)
