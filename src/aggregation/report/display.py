"""Display: what notebooks show beside figures, tables and the progress of a fit."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

import pandas as pd
from pandas.api.types import is_string_dtype
from tqdm import tqdm

MAX_CELL_LENGTH = 400
"""Characters of a cell that a table shows."""


@dataclass(frozen=True)
class Table:
    """A frame that shows itself escaped, with three decimals and without row numbers.

    Columns that are blank throughout are left out, long texts are cut.
    """

    frame: pd.DataFrame

    def _repr_html_(self) -> str:
        shown = self._short()
        texts = cycle([is_string_dtype(shown[name]) for name in shown.columns])
        # Names may break after an underscore (U+200B), so that texts keep the width.
        html = shown.rename(columns=lambda name: str(name).replace("_", "_\u200b")).to_html(
            index=False,
            escape=True,
            border=0,
            na_rep="",
            float_format="{:.3f}".format,
            justify="left",
        )
        # JupyterLab aligns every cell to the right, texts too. All texts are escaped, so whatever
        # looks like a cell is one.
        left = ' style="text-align: left;">'
        return re.sub("<t[hd]>", lambda cell: cell[0][:-1] + left if next(texts) else cell[0], html)

    def __repr__(self) -> str:
        if self.frame.empty:
            return "(no rows)"
        return self._short().to_string(index=False, na_rep="", float_format="%.3f")

    def _short(self) -> pd.DataFrame:
        shown = self.frame.copy()
        for name in shown.columns:
            if not shown.empty and all(isinstance(cell, list) for cell in shown[name]):
                shown[name] = shown[name].map(_list_text).astype("str")
            if is_string_dtype(shown[name]):
                text = shown[name].astype("str")
                cut = text.str.len() > MAX_CELL_LENGTH
                shown[name] = text.mask(
                    cut.fillna(value=False), text.str[:MAX_CELL_LENGTH] + " ..."
                )
        blank = (shown.isna() | (shown == "")).all()
        return shown if shown.empty else shown.loc[:, ~blank]


def _list_text(cells: list[object]) -> str:
    return ", ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in cells)


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A callback for `collect`: a line with its step, while that takes longer than a second."""
    form = "{desc} ({elapsed})"
    with tqdm(delay=1, bar_format=form, leave=False, file=sys.stderr, mininterval=0.1) as bar:

        def show(step: str) -> None:
            bar.set_description_str(step, refresh=False)
            bar.update()

        yield show


@contextmanager
def progress() -> Iterator[Callable[[str, int, float, float], None]]:
    """A callback for `fit`: a bar for a fit that takes longer than a second.

    It shows sweeps, loss and residual, in notebooks and on terminals, and is removed at the end.
    """
    with tqdm(delay=1, unit=" sweeps", leave=False, file=sys.stderr, mininterval=0.5) as bar:

        def show(doing: str, sweeps: int, loss: float, residual: float) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.set_postfix_str(f"loss {loss:.7f}, residual {residual:.1e}", refresh=False)
            bar.update(sweeps - bar.n)

        yield show
