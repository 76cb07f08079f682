"""Storage: a fit as tables and plain values, and the same fit again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from aggregation.model.fit import Fit
from aggregation.model.multistart import Minimum, Start
from aggregation.model.parameters import Parameters, Penalty
from aggregation.model.ratings import Ids

SIDES = {"users": "user_id", "guidelines": "guideline_id"}
"""The tables of rows, and the column of their ids."""

KINDS = {
    "intercept": "float64",
    "embedding": "list",
    "other_intercepts": "list",
    "other_embeddings": "list",
}
"""Columns of both beside the id, by kind of `dataset.TABLES`."""

FIELDS = (
    "method",
    "balance",
    "sweeps",
    "settled",
    "n_minima",
    "moves",
    "n_blocks",
    "sample",
    "continued",
)
OF_A_MINIMUM = ("objective", "kkt_residual", "converged", "starts")
"""Fields of a fit, and of each minimum, that are plain values."""


def tables(fit: Fit, ids: Ids) -> dict[str, pd.DataFrame]:
    """users, guidelines and history, each a frame.

    users, guidelines: id, intercept, embedding, and those of the other minima one after the other:
    other_intercepts (list of M - 1 floats), other_embeddings (of (M - 1) D). history: sweep, start
    (both from 1), loss.
    """
    n, found = len(fit.minima), {}
    minima = zip(*(m.parameters.sides() for m in fit.minima), strict=True)
    for (name, key), side in zip(SIDES.items(), minima, strict=True):
        intercepts, embeddings = (np.stack(x, axis=1) for x in zip(*side, strict=True))
        rows, _, axes = embeddings.shape
        found[name] = pd.DataFrame(
            {
                key: getattr(ids, name),
                "intercept": intercepts[:, 0],
                "embedding": embeddings[:, 0].tolist(),
                "other_intercepts": intercepts[:, 1:].tolist(),
                "other_embeddings": embeddings[:, 1:].reshape(rows, (n - 1) * axes).tolist(),
            }
        )
    sweeps, starts = np.indices(fit.history.shape) + 1
    history = {"sweep": sweeps.ravel(), "start": starts.ravel(), "loss": fit.history.ravel()}
    return found | {"history": pd.DataFrame(history)}


def values(fit: Fit, ratings: Sized) -> dict[str, Any]:
    """What is no table: fit.json. Of `ratings` only the number counts."""
    (users, _), (guidelines, _) = fit.parameters.sides()
    return {
        "objective": fit.objective,
        "mu": float(fit.parameters.mu),
        "converged": fit.converged,
        "kkt_residual": fit.kkt_residual,
        **{name: getattr(fit, name) for name in FIELDS},
        "n_ratings": len(ratings),
        "n_users": len(users),
        "n_guidelines": len(guidelines),
        "dimensions": int(fit.parameters.user_embedding.shape[1]),
        "penalty": asdict(fit.penalty),
        "starts": [start.objective for start in fit.starts],
        "start_kinds": [start.kind for start in fit.starts],
        "start_continuation": [start.continuation for start in fit.starts],
        "minima": [
            {name: getattr(m, name) for name in OF_A_MINIMUM} | {"mu": float(m.parameters.mu)}
            for m in fit.minima
        ],
        "warm_start": fit.warm_start,
    }


def restored(values: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Fit:
    """The fit of which these are `values` and `tables`.

    Its rows are sorted by id, as those of every fit. Raises KeyError where something is missing.
    """
    minima, axes, sides = values["minima"], values["dimensions"], []
    for name, key in SIDES.items():
        table = tables[name].sort_values(key)
        for column, others, shape in (
            ("intercept", "other_intercepts", ()),
            ("embedding", "other_embeddings", (axes,)),
        ):
            lowest = np.array(table[column].tolist(), np.float64).reshape(len(table), 1, *shape)
            other = np.array(table[others].tolist(), np.float64)
            other = other.reshape(len(table), len(minima) - 1, *shape)
            both = np.moveaxis(np.concatenate([lowest, other], axis=1), 1, 0)
            sides.append(np.ascontiguousarray(both))
    kinds = values["start_kinds"]
    history = tables["history"].sort_values(["sweep", "start"])["loss"].to_numpy(np.float64)
    return Fit(
        **{name: values[name] for name in FIELDS},
        penalty=Penalty(**values["penalty"]),
        starts=tuple(map(Start, kinds, values["start_continuation"], values["starts"])),
        minima=tuple(
            Minimum(
                **{name: minimum[name] for name in OF_A_MINIMUM},
                parameters=Parameters(np.float64(minimum["mu"]), *(side[k] for side in sides)),
            )
            for k, minimum in enumerate(minima)
        ),
        history=history.reshape(-1, len(kinds)),
    )
