"""Tables: frames as notebooks show them, safe whatever strangers have written into the cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import cycle

import pandas as pd

LONGEST = 400
"""Characters of a cell that a table shows."""


@dataclass(frozen=True)
class Table:
    """A frame that shows itself escaped, with three decimals and without row numbers.

    Columns that are blank throughout are left out, long texts are cut.
    """

    frame: pd.DataFrame

    def _repr_html_(self) -> str:
        shown = self._short()
        texts = cycle([pd.api.types.is_string_dtype(shown[name]) for name in shown.columns])
        # Names may break after an underscore (U+200B), so that texts keep the width.
        html = shown.rename(columns=lambda name: str(name).replace("_", "_\u200b")).to_html(
            index=False,
            escape=True,
            border=0,
            na_rep="",
            float_format="{:.3f}".format,
            justify="left",
        )
        # JupyterLab aligns every cell to the right, texts too. All that strangers wrote is escaped,
        # so what looks like a cell is one.
        return re.sub("<t[hd]>", lambda cell: _aligned(cell[0]) if next(texts) else cell[0], html)

    def __repr__(self) -> str:
        if self.frame.empty:
            return "(no rows)"
        return self._short().to_string(index=False, na_rep="", float_format="%.3f")

    def _short(self) -> pd.DataFrame:
        shown = self.frame.copy()
        for name in shown.columns:
            cells = list(shown[name])
            if cells and all(isinstance(cell, list) for cell in cells):
                words = [", ".join(map(_word, cell)) for cell in cells]
                shown[name] = pd.Series(words, index=shown.index, dtype="str")
            if pd.api.types.is_string_dtype(shown[name]):
                text = shown[name].astype("str")
                cut = text.str.len() > LONGEST
                shown[name] = text.where(~cut.fillna(value=False), text.str[:LONGEST] + " ...")
        blank = [
            name for name in shown.columns if shown[name].isna().all() or shown[name].eq("").all()
        ]
        return shown if self.frame.empty else shown.drop(columns=blank)


def _word(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _aligned(cell: str) -> str:
    return f'{cell[:-1]} style="text-align: left;">'
