"""A notebook's page: MathML instead of TeX, no cells for JupyterLab, links to the other stages."""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from aggregation.report.notebook_pages import mathml, notebook_page


def test_formulas_are_mathml_not_tex(notebook):
    page = notebook_page(notebook, "train", ["train"])
    assert page.count("<math") >= 2
    assert "\\lambda" not in re.sub(r"<details.*?</details>", "", page, flags=re.DOTALL)


def test_tex_that_cannot_be_read_is_shown_as_it_is():
    assert mathml(r"\begin{matrix} a & b", "inline") == r"<code>\begin{matrix} a &amp; b</code>"
    assert "<math" in mathml("a^2", "inline")


def test_cells_for_jupyterlab_are_left_out_and_the_notebook_is_not_changed(notebook):
    before = nbformat.writes(notebook)
    page = notebook_page(notebook, "train", ["ingest", "train"], run="a")
    assert "To work on a parameter file in JupyterLab" in before
    assert "To work on a parameter file" not in page
    assert nbformat.writes(notebook) == before
    assert "<title>Model: a</title>" in page
    assert '<a href="ingest.html">Data</a>' in page
    assert '<span aria-current="page">Model</span>' in page
    assert "Nobody said any of this" not in page
    assert "Nobody said any of this" in notebook_page(notebook, "train", [], simulated=True)


def test_hostile_cells_stay_text():
    hostile = "<script>alert(1)</script>"
    data = {"text/plain": hostile}
    cells = [
        new_markdown_cell("[x](javascript:alert(1))"),
        new_code_cell(
            hostile,
            outputs=[
                new_output("stream", text=hostile),
                new_output("execute_result", data=data, execution_count=1),
            ],
        ),
    ]
    page = notebook_page(new_notebook(cells=cells), "<i>", [], run=hostile)
    assert "<script" not in page
    assert "javascript:alert" not in page
    assert page.count("&lt;script&gt;") >= 3


def test_a_page_begins_with_its_contents(hostile):
    notebook = nbformat.read(hostile / "notebooks" / "diagnostics.ipynb", as_version=4)
    page = notebook_page(notebook, "diagnostics", ["diagnostics"])
    contents = re.search(r'<nav class="contents".*?</nav>', page, re.DOTALL)[0]
    links = dict(re.findall(r'href="#([^"]+)">([^<]+)<', contents))
    assert links == dict(re.findall(r'<h2 id="([^"]+)">([^<]+)<', page))
    assert len(links) > 5
