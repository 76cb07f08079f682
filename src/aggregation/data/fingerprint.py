"""Fingerprint: a hash of a table's content, independent of the order of its rows and columns."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

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
    for name in sorted(kinds):
        values, different = _coded(table[name], kinds[name])
        digest.update(f"\0{name}:{kinds[name]}:{len(different)}".encode())
        for one in different:
            digest.update(len(one).to_bytes(8, "little") + one)
        columns.append(values)
    order = np.lexsort(columns)
    for values in columns:
        digest.update(values[order].tobytes())
    return digest.hexdigest()


def _coded(column: pd.Series, kind: str) -> tuple[np.ndarray, list[bytes]]:
    """A column as numbers, and what these stand for: bytes in their order; -1 is null."""
    if kind == "time":
        column = column.astype("datetime64[ms, UTC]").astype("int64")  # null: the least of all
        return column.to_numpy("<i8"), []
    if kind == "float64":
        return _canonical(column), []
    if kind == "list":
        cells = [None if v is None else _canonical(v).tobytes() for v in column]
        column = pd.Series(cells, index=column.index, dtype=object)
    codes, found = pd.factorize(column)
    different = [v if isinstance(v, bytes) else str(v).encode() for v in found]
    order = sorted(range(len(different)), key=different.__getitem__)
    place = np.full(len(different) + 1, -1, dtype="<i8")  # the last is what code -1 finds
    place[order] = np.arange(len(different))
    return place[codes], [different[k] for k in order]


def _canonical(values: object) -> np.ndarray:
    """Little-endian float64 with one pattern of bits for NaN and one for zero."""
    numbers = np.asarray(values, dtype="<f8")
    return np.where(np.isnan(numbers), np.nan, numbers) + 0.0
