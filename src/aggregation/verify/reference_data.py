"""World: a run's data as arrays in an order of their own, and the models that are held to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from aggregation.data.dataset import Dataset
from aggregation.decisions.payload import Payload
from aggregation.errors import InputError
from aggregation.params import Params, load_params
from aggregation.runs.folder import RunFolder
from aggregation.verify.reference_solver import Held, Point, Problem

KEYS = (("users", "user_id"), ("guidelines", "guideline_id"))
"""Tables of the two sides and their ids."""


@dataclass(frozen=True)
class World:
    """A run's parameters and data; rows are sorted by id, ratings by user and guideline."""

    params: Params
    dataset: Dataset
    ids: tuple[list[str], list[str]]
    """Users and guidelines with ratings."""
    problem: Problem
    held: Held
    earlier: tuple[np.ndarray, np.ndarray] | None
    """Where rows are held: intercept and embedding of each in the earlier model, or NaN."""


def read_world(folder: RunFolder) -> World:
    """The data of a run. Raises whatever a damaged file raises."""
    params, dataset = load_params(folder.path / "params.yaml"), folder.dataset()
    columns = [dataset.ratings[key].to_numpy(dtype=object) for _, key in KEYS]
    (users, user), (rated, guideline) = (np.unique(c, return_inverse=True) for c in columns)
    value = dataset.ratings["helpful"].to_numpy(np.float64)
    pairs, order = np.unique(user * len(rated) + guideline, return_index=True)
    if len(pairs) != len(value) or not ((value >= 0) & (value <= 1)).all():
        raise InputError("a rating is there twice, or is not between 0 and 1")
    asked = list(dataset.guidelines["guideline_id"])
    if not len(value) or not set(rated) <= set(asked) or len(set(asked)) < len(asked):
        raise InputError("the ratings are not of the guidelines in data/guidelines.parquet")
    w = params.train.weights()
    problem = Problem(
        user[order],
        guideline[order],
        value[order],
        (len(users), len(rated)),
        *(w.intercept, w.embedding, w.norm, w.per),
    )
    ids = (list(users), list(rated))
    if (hold := params.train.hold) is None:
        return World(params, dataset, ids, problem, None, None)
    axes = params.train.dimensions
    tables = (dataset.users, dataset.guidelines)
    one, other = (_earlier(t, k, i, axes) for t, (_, k), i in zip(tables, KEYS, ids, strict=True))
    masks = [
        np.isfinite(rows.sum(axis=1)) & (hold == name)
        for rows, (name, _) in zip((one, other), KEYS, strict=True)
    ]
    return World(params, dataset, ids, problem, (masks[0], masks[1]), (one, other))


def _earlier(table: pd.DataFrame, key: str, ids: list[str], axes: int) -> np.ndarray:
    """[rows, 1 + D], NaN where the earlier model does not know a row."""
    out, at = np.full((len(ids), 1 + axes), np.nan), {name: k for k, name in enumerate(ids)}
    known = table[table["intercept"].notna() & table["embedding"].notna()]
    for name, i, f in zip(known[key], known["intercept"], known["embedding"], strict=True):
        if name in at:
            out[at[name]] = [i, *f]
    return out


def read_points(world: World, folder: RunFolder, fit: dict[str, Any]) -> list[Point]:
    """The model of the run's tables, and the other minima that they hold."""
    axes, others, sides = world.params.train.dimensions, len(fit["minima"]) - 1, []
    for (name, key), ids in zip(KEYS, world.ids, strict=True):
        table = folder.read_table(f"model/{name}.parquet").set_index(key)
        if sorted(table.index) != ids:
            raise InputError(f"model/{name}.parquet does not hold exactly those who are in data/")
        rows = table.loc[ids]
        i = np.column_stack([rows["intercept"], _matrix(rows["other_intercepts"], others)])
        f = [_matrix(rows["embedding"], axes), _matrix(rows["other_embeddings"], others * axes)]
        sides.append((i, np.column_stack(f).reshape(len(ids), others + 1, axes)))
    (i, f), (j, h) = sides
    mus = [fit["mu"], *(end["mu"] for end in fit["minima"][1:])]
    return [
        _finite(Point(float(mu), (i[:, k], j[:, k]), (f[:, k], h[:, k])))
        for k, mu in enumerate(mus)
    ]


def _matrix(lists: pd.Series, length: int) -> np.ndarray:
    if not all(len(one) == length for one in lists):
        raise InputError(f"a list in model/ has not {length} numbers")
    return np.array(lists.tolist(), dtype=np.float64).reshape(len(lists), length)


def _finite(x: Point) -> Point:
    if not all(np.isfinite(a).all() for a in (x.mu, *x.intercepts, *x.embeddings)):
        raise InputError("a number of the model is not finite")
    return x


def read_body(path: Path) -> Payload:
    """A constitution's JSON, strictly: UTF-8, no key twice, the seven keys, numbers as numbers."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise InputError("a key is there twice")
        return dict(pairs)

    if not path.is_file():  # a pipe or a device may have no end
        raise InputError("it is no file")
    try:
        return Payload.model_validate(
            json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=once)
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc'])) or 'all'}: {first['msg']}") from None


def body_point(world: World, body: Payload) -> Point:
    """The model in a constitution."""
    axes, sides = world.params.train.dimensions, []
    given = (
        ("users", body.user_intercepts, body.user_embeddings),
        ("guidelines", body.guideline_intercepts, body.guideline_embeddings),
    )
    for (name, i, f), ids in zip(given, world.ids, strict=True):
        if not (sorted(i) == sorted(f) == ids):
            raise InputError(f"its {name} are not those of the ratings")
        if not all(len(row) == axes for row in f.values()):
            raise InputError(f"an embedding of its {name} has not the length {axes}")
        sides.append((np.array([i[k] for k in ids], float), np.array([f[k] for k in ids], float)))
    (i, f), (j, h) = sides
    return _finite(Point(float(body.mu), (i, j), (f, h)))
