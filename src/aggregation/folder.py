"""Folder: a run's files, written whole or not at all, and read back as values."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from aggregation.constitution import Constitution, Rule, select
from aggregation.dataset import TABLES, About, Count, Dataset
from aggregation.errors import RunError
from aggregation.fit import Fit
from aggregation.model import Parameters, Penalty, from_tables, loss, to_tables
from aggregation.ratings import Ids, Ratings, encode

KINDS = {
    "str": pyarrow.string(),
    "float64": pyarrow.float64(),
    "time": pyarrow.timestamp("ms", tz="UTC"),
    "list": pyarrow.list_(pyarrow.float64()),
}
"""Parquet types of the kinds of `dataset.TABLES`."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of one run, `<out>/<run>`. See the layout in docs/architecture.md."""

    path: Path

    @classmethod
    def of(cls, run: str, out: str | Path = "outputs") -> RunFolder:
        """The folder of the run called `run`."""
        return cls(Path(out) / run)

    # whole files

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary path that becomes `name` when the block ends without an error."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            yield Path(temporary)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a UTF-8 file."""
        self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file as it is."""
        with self.writing(name) as path:
            path.write_bytes(content)

    def read_bytes(self, name: str) -> bytes:
        """A file as it is."""
        return self._there(name).read_bytes()

    def write_json(self, name: str, value: object) -> None:
        """Write JSON for people: indented, in the order given. NaN is refused."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_text(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """Read JSON that an earlier stage wrote."""
        return json.loads(self._there(name).read_text("utf-8"))

    def write_table(
        self, name: str, table: pd.DataFrame, kinds: dict[str, str] | None = None
    ) -> None:
        """Write Parquet; `kinds` fixes the types of the columns."""
        schema = None
        if kinds is not None:
            schema = pyarrow.schema([(c, KINDS[kinds[c]]) for c in table.columns])
        data = pyarrow.Table.from_pandas(table, schema=schema, preserve_index=False)
        with self.writing(name) as path:
            pyarrow.parquet.write_table(data.replace_schema_metadata(None), path)

    def read_table(self, name: str) -> pd.DataFrame:
        """Read Parquet that an earlier stage wrote; texts are `str`."""
        table = pyarrow.parquet.read_table(self._there(name)).to_pandas()
        texts = {c: "str" for c in table.columns if pd.api.types.is_string_dtype(table[c])}
        return table.astype(texts)

    def _there(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            stage = {"data": "ingest", "model": "train", "evidence": "diagnostics"}
            needed = stage.get(name.split("/", maxsplit=1)[0], "publish")
            raise RunError(f"{path} is not there: run the {needed} notebook of this run first")
        return path

    # what stages hand on

    def save_dataset(self, dataset: Dataset) -> None:
        """Write data/."""
        for name, kinds in TABLES.items():
            self.write_table(f"data/{name}.parquet", getattr(dataset, name)[list(kinds)], kinds)
        self.write_json(
            "data/ingest.json",
            {
                "about": dataclasses.asdict(dataset.about),
                "mu": dataset.mu,
                "counts": [dataclasses.asdict(c) | {"n": int(c.n)} for c in dataset.counts],
            },
        )

    def dataset(self) -> Dataset:
        """Read data/."""
        told = self.read_json("data/ingest.json")
        return Dataset(
            **{name: self.read_table(f"data/{name}.parquet") for name in TABLES},
            mu=told["mu"],
            about=About(**told["about"]),
            counts=tuple(Count(**c) for c in told["counts"]),
        )

    def save_fit(self, fit: Fit, ratings: Ratings, ids: Ids, penalty: Penalty) -> None:
        """Write model/. Raises RunError, and writes nothing, if the fit has not converged."""
        if not fit.converged:
            raise RunError(
                f"the fit has not converged: its residual is {fit.kkt_residual:.1e} after "
                f"{fit.sweeps} sweeps. Raise train.max_sweeps, or accept less with train.tolerance"
                if fit.method == "alternating"
                else f"gradient descent still moves after {fit.sweeps} steps, where the original "
                "gives up: use train.method: alternating"
            )
        users, guidelines = to_tables(fit.parameters, ids)
        kinds = {"intercept": "float64", "embedding": "list"}
        self.write_table("model/users.parquet", users, {"user_id": "str"} | kinds)
        self.write_table("model/guidelines.parquet", guidelines, {"guideline_id": "str"} | kinds)
        sweeps, starts = fit.history.shape
        history = pd.DataFrame(
            {
                "sweep": np.repeat(np.arange(1, sweeps + 1), starts),
                "start": np.tile(np.arange(1, starts + 1), sweeps),
                "loss": fit.history.ravel(),
            }
        )
        self.write_table("model/history.parquet", history)
        basins = {
            "basin": np.repeat(np.arange(1, len(fit.basins) + 1), len(ids.guidelines)),
            "guideline_id": np.tile(ids.guidelines.to_numpy(), len(fit.basins)),
            "intercept": np.concatenate([b.parameters.guideline_intercept for b in fit.basins]),
        }
        self.write_table(
            "model/basins.parquet", pd.DataFrame(basins).astype({"guideline_id": "str"})
        )
        self.write_json(
            "model/fit.json",
            {
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
                "penalty": dataclasses.asdict(penalty),
                "method": fit.method,
                "starts": [start.objective for start in fit.starts],
                "start_kinds": [start.kind for start in fit.starts],
                "settled": fit.settled,
                "basins": [
                    {name: getattr(b, name) for name in ("objective", "kkt_residual", "starts")}
                    for b in fit.basins
                ],
                "n_basins": fit.n_basins,
                "moves": fit.moves,
                "n_blocks": fit.n_blocks,
                "warm_start": fit.warm_start,
            },
        )

    def model(self) -> tuple[Ratings, Ids, Parameters]:
        """The ratings as they were fitted, their ids, and the parameters found."""
        ratings, ids = encode(self.read_table("data/ratings.parquet"))
        fit = self.read_json("model/fit.json")
        users = self.read_table("model/users.parquet")
        guidelines = self.read_table("model/guidelines.parquet")
        parameters = from_tables(users, guidelines, fit["mu"], ids, fit["dimensions"])
        same = (
            parameters is not None
            and set(users["user_id"]) == set(ids.users)
            and set(guidelines["guideline_id"]) == set(ids.guidelines)
            and fit["n_ratings"] == len(ratings)
        )
        if parameters is None or not same or not _explains(parameters, ratings, fit):
            raise RunError(
                f"{self.path}: model/ was trained on other data than data/ holds: "
                "run the train notebook again"
            )
        return ratings, ids, parameters

    def save_evidence(self, constitution: Constitution, basins: pd.DataFrame) -> None:
        """Write evidence/."""
        self.write_table("evidence/guidelines.parquet", constitution.scores)
        self.write_json("evidence/basins.json", basins.to_dict("records"))
        verdicts = constitution.scores["verdict"].value_counts()
        self.write_json(
            "evidence/summary.json",
            {
                "rule": dataclasses.asdict(constitution.rule),
                "verdicts": {
                    v: int(verdicts.get(v, 0)) for v in ("accepted", "undecided", "rejected")
                },
            },
        )

    def constitution(self) -> Constitution:
        """The constitution that diagnostics found."""
        rule = Rule(**self.read_json("evidence/summary.json")["rule"])
        scores = self.read_table("evidence/guidelines.parquet")
        return select(scores.drop(columns=["verdict", "failed"]), rule)


def _explains(parameters: Parameters, ratings: Ratings, fit: dict[str, Any]) -> bool:
    """Whether the loss at these ratings is the objective that the fit ended at."""
    found = float(loss(parameters, ratings, Penalty(**fit["penalty"])))
    return math.isclose(found, fit["objective"], rel_tol=1e-9)
