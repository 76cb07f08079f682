"""Alike: which numbers, cells and rows of two runs are the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

SAME = 1e-9
"""Numbers whose relative difference is at most this are the same."""

KEYS = {
    "ratings": ["user_id", "guideline_id"],
    "guidelines": ["guideline_id"],
    "users": ["user_id"],
    "topics": ["topic_id"],
}
"""What tells the rows of a table apart."""


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same; numbers but for rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):  # else 1 would be true
        return one is other
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=SAME) or (math.isnan(one) and math.isnan(other))
    return one == other


def rows(
    before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]
) -> dict[str, dict[str, int]]:
    """Table -> number of rows `only_before`, `only_after`, `changed`, `same`."""
    told, turn = {}, _turn(before, after)
    for table, keys in KEYS.items():
        one, other = before[table], after[table]
        if "embedding" in other:
            turned = [None if e is None else np.multiply(e, turn) for e in other["embedding"]]
            other = other.assign(embedding=pd.Series(turned, index=other.index, dtype=object))
        columns = list(dict.fromkeys([*keys, *one, *other]))
        both = one.reindex(columns=columns).merge(
            other.reindex(columns=columns),
            on=keys,
            how="outer",
            indicator="where",
            suffixes=("_before", "_after"),
        )
        common = both[both["where"] == "both"]
        alike = np.ones(len(common), dtype=bool)
        for column in columns[len(keys) :]:
            alike &= cells(common[f"{column}_before"], common[f"{column}_after"])
        again = abs(int(one.duplicated(keys).sum()) - int(other.duplicated(keys).sum()))
        told[table] = {
            "only_before": int(both["where"].eq("left_only").sum()),
            "only_after": int(both["where"].eq("right_only").sum()),
            "changed": int((~alike).sum()) + again,
            "same": int(alike.sum()),
        }
    return told


def cells(one: pd.Series, other: pd.Series) -> np.ndarray:
    """Cell by cell; null is like null."""
    alike = (one.isna() & other.isna()).to_numpy(copy=True)
    rest = np.flatnonzero((one.notna() & other.notna()).to_numpy())
    a, b = one.iloc[rest], other.iloc[rest]
    if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
        alike[rest] = np.isclose(a.to_numpy(float), b.to_numpy(float), rtol=SAME, atol=0)
    elif len(rest) and isinstance(a.iloc[0], np.ndarray):
        alike[rest] = [same(list(x), list(y)) for x, y in zip(a, b, strict=True)]
    else:
        alike[rest] = a.eq(b).to_numpy(bool)
    return alike


def _turn(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]) -> np.ndarray | float:
    """1 or -1 for each axis of the last published model: -1 if it points the other way after."""
    products = []
    for table in ("users", "guidelines"):
        one, other = (
            tables[table].reindex(columns=[*KEYS[table], "embedding"]).dropna()
            for tables in (before, after)
        )
        both = one.merge(other, on=KEYS[table])
        pairs = zip(both["embedding_x"], both["embedding_y"], strict=True)
        products += [np.multiply(x, y) for x, y in pairs if len(x) == len(y)]
    if len({len(p) for p in products}) != 1:  # no axes in common, or not the same number of them
        return 1.0
    return np.where(np.sum(products, axis=0) < 0, -1.0, 1.0)
