"""Categories: columns of text as integer codes, so that a billion ids are no billion texts.

The categories of a column are its different texts, sorted by code point, each of them used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

CHUNK = 1 << 20
"""Codes that are handled at a time: NumPy makes int64 copies of indices."""


def taken(new: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`new[codes]`; code -1 is the last of `new`."""
    out = np.empty(len(codes), new.dtype)
    for at in range(0, len(codes), CHUNK):
        np.take(new, codes[at : at + CHUNK], out=out[at : at + CHUNK], mode="wrap")
    return out


def from_codes(codes: np.ndarray, texts: pd.Index) -> pd.Series:
    """The column in which row k holds `texts[codes[k]]`, and null where the code is -1.

    `texts` may be unsorted, hold one text twice, or one that no row has.
    """
    used = np.zeros(len(texts) + 1, bool)
    used[codes] = True  # -1 is the last
    if texts.is_monotonic_increasing and texts.is_unique:
        if not used[:-1].all():
            new = np.append(np.cumsum(used[:-1], dtype=np.int32) - 1, np.int32(-1))
            codes, texts = taken(new, codes), texts[used[:-1]]
    else:
        values = texts.to_numpy(dtype=object)
        different = sorted({values[k] for k in np.flatnonzero(used[:-1])})
        place = {text: k for k, text in enumerate(different)}
        new = np.array([*(place.get(text, -1) for text in values), -1], np.int32)
        codes = taken(new, codes)
        texts = pd.Index(different, dtype="str")
    return pd.Series(pd.Categorical.from_codes(codes, texts, validate=False), copy=False)


def categories(column: pd.Series) -> pd.Series:
    """A column of text as categories; one that is so already stays as it is."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column
    codes, texts = pd.factorize(column.astype("str"))
    return _like(column, codes, pd.Index(texts, dtype="str"))


def used(column: pd.Series) -> pd.Series:
    """The column with those of its categories that it uses, sorted."""
    return _like(column, column.cat.codes.to_numpy(), column.cat.categories)


def with_texts(column: pd.Series, change: Callable[[pd.Index], pd.Index]) -> pd.Series:
    """The column with its different texts changed; those that become one are one category."""
    texts = pd.Index(change(column.cat.categories), dtype="str")
    same = texts.equals(column.cat.categories)
    return column if same else _like(column, column.cat.codes.to_numpy(), texts)


def _like(column: pd.Series, codes: np.ndarray, texts: pd.Index) -> pd.Series:
    found = from_codes(codes, texts).set_axis(column.index)
    found.name = column.name
    return found
