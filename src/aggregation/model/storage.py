"""Stored fit: a fit as tables and plain values, and the same fit again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from aggregation.model.fit import Fit
from aggregation.model.multistart import Minimum, Start
from aggregation.model.parameters import Parameters, Penalty, to_tables
from aggregation.model.ratings import Ids, Ratings

SIDES = {"users": "user_id", "guidelines": "guideline_id"}
"""The tables of rows, and the column of their ids."""

KINDS = {
    "intercept": "float64",
    "embedding": "list",
    "other_intercepts": "list",
    "other_embeddings": "list",
}
"""Columns of both beside the id, by kind of `dataset.TABLES`."""


def tables(fit: Fit, ids: Ids) -> dict[str, pd.DataFrame]:
    """users, guidelines, history and minima, each a frame.

    users, guidelines: id, intercept, embedding, and those of the other minima one after the other:
    other_intercepts (list of B - 1 floats), other_embeddings (of (B - 1) D). history: sweep, start
    (both from 1), loss. minima: minimum (from 1), guideline_id, intercept.
    """
    sides = dict(zip(SIDES, to_tables(fit.parameters, ids), strict=True))
    for name, side in sides.items():
        none = np.empty((len(side), 0))
        others = [_side(minimum.parameters, name) for minimum in fit.minima[1:]]
        intercepts = np.concatenate([none, *(i[:, None] for i, _ in others)], axis=1)
        embeddings = np.concatenate([none, *(f for _, f in others)], axis=1)
        sides[name] = side.assign(
            other_intercepts=intercepts.tolist(), other_embeddings=embeddings.tolist()
        )
    sweeps, starts = fit.history.shape
    history = {
        "sweep": np.repeat(np.arange(1, sweeps + 1), starts),
        "start": np.tile(np.arange(1, starts + 1), sweeps),
        "loss": fit.history.ravel(),
    }
    minima = {
        "minimum": np.repeat(np.arange(1, len(fit.minima) + 1), len(ids.guidelines)),
        "guideline_id": np.tile(ids.guidelines.to_numpy(), len(fit.minima)),
        "intercept": np.concatenate([b.parameters.guideline_intercept for b in fit.minima]),
    }
    return sides | {
        "history": pd.DataFrame(history),
        "minima": pd.DataFrame(minima).astype({"guideline_id": "str"}),
    }


def values(fit: Fit, ratings: Ratings, penalty: Penalty) -> dict[str, Any]:
    """What is no table: fit.json."""
    return {
        "objective": fit.objective,
        "mu": float(fit.parameters.mu),
        "converged": fit.converged,
        "kkt_residual": fit.kkt_residual,
        "balance": fit.balance,
        "sweeps": fit.sweeps,
        "n_ratings": len(ratings),
        "n_users": ratings.n_users,
        "n_guidelines": ratings.n_guidelines,
        "dimensions": int(fit.parameters.user_embedding.shape[1]),
        "penalty": asdict(penalty),
        "method": fit.method,
        "starts": [start.objective for start in fit.starts],
        "start_kinds": [start.kind for start in fit.starts],
        "start_continuation": [start.continuation for start in fit.starts],
        "settled": fit.settled,
        "minima": [
            {name: getattr(b, name) for name in ("objective", "kkt_residual", "starts")}
            | {"converged": b.converged, "mu": float(b.parameters.mu)}
            for b in fit.minima
        ],
        "n_minima": fit.n_minima,
        "moves": fit.moves,
        "n_blocks": fit.n_blocks,
        "warm_start": fit.warm_start,
    }


def restored(values: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Fit:
    """The fit of which these are `values` and `tables` (without minima).

    Its rows are sorted by id, as those of every fit. Raises KeyError where something is missing.
    """
    sides = [_sorted(tables[name], key) for name, key in SIDES.items()]
    d, ends = values["dimensions"], values["minima"]
    minima = tuple(
        Minimum(
            end["objective"],
            end["kkt_residual"],
            end["converged"],
            end["starts"],
            _parameters(end["mu"], sides, number, len(ends), d),
        )
        for number, end in enumerate(ends)
    )
    kinds, continuation = values["start_kinds"], values["start_continuation"]
    names = ("method", "objective", "converged", "kkt_residual", "balance", "sweeps", "settled")
    return Fit(
        **{name: values[name] for name in (*names, "n_minima", "moves", "n_blocks")},
        parameters=minima[0].parameters,
        starts=tuple(map(Start, kinds, continuation, values["starts"])),
        minima=minima,
        history=tables["history"]
        .sort_values(["sweep", "start"])["loss"]
        .to_numpy(np.float64)
        .reshape(-1, len(kinds)),
    )


def _sorted(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """By id, as `encode` sorts: texts as Python compares them."""
    ids = table[key].tolist()
    return table.iloc[sorted(range(len(ids)), key=ids.__getitem__)]


def _side(p: Parameters, name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "users":
        return p.user_intercept, p.user_embedding
    return p.guideline_intercept, p.guideline_embedding


def _parameters(
    mu: float, sides: list[pd.DataFrame], number: int, minima: int, dimensions: int
) -> Parameters:
    """Of the minimum `number`, from 0: the fit itself."""
    arrays = []
    for side in sides:
        if number == 0:
            intercept = side["intercept"].to_numpy(np.float64)
            embedding = _matrix(side["embedding"], (len(side), dimensions))
        else:
            intercept = _matrix(side["other_intercepts"], (len(side), minima - 1))[:, number - 1]
            shape = (len(side), minima - 1, dimensions)
            embedding = _matrix(side["other_embeddings"], shape)[:, number - 1]
        arrays += [intercept, embedding]
    return Parameters(np.float64(mu), *arrays)


def _matrix(lists: pd.Series, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(lists.tolist(), dtype=np.float64).reshape(shape)
