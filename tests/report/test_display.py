"""Tables and progress in notebooks: nothing that strangers write gets out of its cell."""

import pandas as pd
from tqdm import tqdm

from aggregation.report import display
from aggregation.report.display import Table

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def test_cells_and_names_are_escaped():
    shown = Table(pd.DataFrame({f"text{HOSTILE}": [HOSTILE]}))._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count("&lt;script&gt;") == 2


def test_long_texts_are_cut_and_say_so():
    shown = Table(pd.DataFrame({"text": ["a" * 100_000, "short"]}))._repr_html_()
    assert "a" * 400 + " ..." in shown
    assert "a" * 401 not in shown


def test_blank_columns_are_left_out_and_numbers_have_three_decimals():
    frame = pd.DataFrame(
        {"n": [1.23456, None], "topic": ["", ""], "none": [None, None], "k": [1, 2]}
    )
    table = Table(frame)
    assert "topic" not in table._repr_html_()
    assert "none" not in repr(table)
    assert "1.235" in table._repr_html_()
    assert "1.235" in repr(table)
    assert frame.columns.tolist() == ["n", "topic", "none", "k"]


def test_an_empty_table_says_so():
    assert repr(Table(pd.DataFrame({"a": []}))) == "(no rows)"
    assert "<th>" in Table(pd.DataFrame({"a": []}))._repr_html_().replace(
        ' style="text-align: left;"', ""
    )


def test_lists_are_shown_as_words():
    frame = pd.DataFrame({"minimum": [1, 2], "gained": [[], ["a", "<b>"]], "lost": [[], []]})
    shown = Table(frame)._repr_html_()
    assert ">a, &lt;b&gt;</td>" in shown
    assert "[" not in shown
    assert "lost" not in shown  # blank throughout


def test_progress_shows_sweeps_and_loss_and_is_removed(capsys, monkeypatch):
    at_once = {"delay": 0, "mininterval": 0}
    monkeypatch.setattr(display, "tqdm", lambda **given: tqdm(**given | at_once))
    with display.progress() as callback:
        callback("starts 1 to 8", 30, 0.25, 1e-4)
    shown = capsys.readouterr().err
    assert "starts 1 to 8: 30 sweeps" in shown
    assert "loss 0.2500000, residual 1.0e-04" in shown
    assert not shown.rsplit("\r", maxsplit=1)[-1].strip()
