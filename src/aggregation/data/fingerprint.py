"""Fingerprint: a hash of a table's content, independent of the order of its rows and columns."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from aggregation.data.categories import categories, used
from aggregation.data.dataset import TABLES, Dataset


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """SHA-256, in hex, of each table of a Dataset."""
    return {name: fingerprint(getattr(dataset, name), kinds) for name, kinds in TABLES.items()}


def fingerprint(table: pd.DataFrame, kinds: dict[str, str]) -> str:
    """SHA-256 of a table whose columns hold what `kinds` says (see `dataset.TABLES`).

    Columns are taken by name and rows sorted by content, so their order does not matter; every
    cell does, and how often a row occurs. A number is hashed as float64, a time as milliseconds,
    a text or list as its place among the column's different ones, which are hashed first.
    """
    digest = hashlib.sha256(f"{len(table)}".encode())
    columns = []
    # Of ratings, users and then guidelines first, the order in which a Dataset has them.
    for name in sorted(kinds, key=lambda name: (kinds[name] == "str", name), reverse=True):
        values, different = _coded(table[name], kinds[name])
        digest.update(f"\0{name}:{kinds[name]}:{len(different)}".encode())
        for one in different:
            digest.update(len(one).to_bytes(8, "little") + one)
        columns.append(values)
    order = slice(None) if _in_order(columns) else np.lexsort(columns[::-1])
    for values in columns:
        digest.update(values[order])
    return digest.hexdigest()


def _in_order(columns: list[np.ndarray]) -> bool:
    """Whether the rows are sorted by the first column, then the second, and so on."""
    before, equal = False, True
    for values in columns:
        before |= equal & (values[:-1] < values[1:])
        equal &= values[:-1] == values[1:]
    return bool(np.all(before | equal))


def _coded(column: pd.Series, kind: str) -> tuple[np.ndarray, list[bytes]]:
    """A column as numbers, and what these stand for: bytes in their order; -1 is null."""
    if kind == "time":
        column = column.astype("datetime64[ms, UTC]").astype("int64")  # null: the least of all
        return column.to_numpy("<i8"), []
    if kind == "float64":
        return _canonical(column).view("<i8"), []
    if kind == "list":
        cells = [None if v is None else _canonical(v).tobytes() for v in column]
        codes, found = pd.factorize(pd.Series(cells, index=column.index, dtype=object))
        order = sorted(range(len(found)), key=found.__getitem__)
        place = np.full(len(found) + 1, -1, dtype="<i8")  # the last is what code -1 finds
        place[order] = np.arange(len(found))
        return place[codes], [found[k] for k in order]
    column = used(categories(column))
    return column.cat.codes.to_numpy("<i8"), [text.encode() for text in column.cat.categories]


def _canonical(values: object) -> np.ndarray:
    """Little-endian float64 with one pattern of bits for NaN and one for zero."""
    numbers = np.asarray(values, dtype="<f8")
    return np.where(np.isnan(numbers), np.nan, numbers) + 0.0
