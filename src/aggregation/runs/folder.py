"""Folder: a run's files, written atomically and read back as values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from aggregation.data.categories import used
from aggregation.data.dataset import CODED, TABLES, About, Count, Dataset
from aggregation.data.fingerprint import fingerprints
from aggregation.decisions.constitution import Constitution, select
from aggregation.decisions.rules import Rule
from aggregation.errors import RunError
from aggregation.evidence.collect import Evidence
from aggregation.files import atomic_write, read_if_any, read_json, write, write_json
from aggregation.model import storage
from aggregation.model.fit import Fit
from aggregation.model.parameters import loss
from aggregation.model.ratings import Ids, Ratings, encode
from aggregation.runs import summary
from aggregation.runs.provenance import MANIFEST, PARTIAL

PARQUET_TYPES = {
    "str": pyarrow.string(),
    "float64": pyarrow.float64(),
    "time": pyarrow.timestamp("ms", tz="UTC"),
    "list": pyarrow.list_(pyarrow.float64()),
}
"""Of the kinds of `dataset.TABLES`."""

ROWS = 1 << 20
"""Of a row group."""

MAX_DICTIONARY = 1 << 30
"""Bytes of the different texts of a column up to which Parquet keeps them apart from the rows."""

LOSS_TOLERANCE = 1e-9
"""Relative difference of a fit's loss from that of its parameters on data/, rounding alone."""

MAX_RUNS_NAMED = 8
"""Runs that an error names, so that one of them can be opened instead."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder holds, read once; evidence and minima only after diagnostics."""

    dataset: Dataset
    ratings: Ratings
    ids: Ids
    fit: Fit
    evidence: Evidence | None = None
    minima: pd.DataFrame | None = None

    @property
    def constitution(self) -> Constitution | None:
        """That of `evidence`."""
        return self.evidence and self.evidence.constitution


@dataclasses.dataclass(frozen=True, repr=False)
class RunFolder:
    """The folder of one run, `<out>/<run>`. See the layout in docs/architecture.md."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: it writes manifest.json last."""
        return summary.state(self.path) == "finished"

    def _repr_html_(self) -> str:
        return summary.card(self.path).html()

    def __repr__(self) -> str:
        return summary.headline(self.path)

    @classmethod
    def of(cls, run: str, out: str | Path = "outputs") -> RunFolder:
        """The folder of the run called `run`."""
        return cls(Path(out) / run)

    # files

    def _place(self, name: str) -> Path:
        """Whoever writes into the folder of a finished run makes it one that is not finished."""
        if name != MANIFEST and (self.path / MANIFEST).exists():
            (self.path / MANIFEST).replace(self.path / PARTIAL)
        return self.path / name

    def write_text(self, name: str, text: str) -> None:
        """Write a UTF-8 file."""
        write(self._place(name), text)

    def write_json(self, name: str, value: object) -> None:
        """Write JSON for people: indented, in the order given. NaN is refused."""
        write_json(self._place(name), value)

    def write_table(
        self, name: str, table: pd.DataFrame, kinds: dict[str, str] | None = None
    ) -> None:
        """Write Parquet; `kinds` fixes the types of the columns."""
        coded = [c for c in table.columns if isinstance(table[c].dtype, pd.CategoricalDtype)]
        types = {c: PARQUET_TYPES[kinds[c]] for c in table.columns} if kinds else {}
        types |= {c: pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) for c in coded}
        schema = pyarrow.schema(types.items()) if kinds else None
        times = table.select_dtypes("datetimetz").columns  # these hardly repeat
        repeated: Any = [c for c in table.columns if c not in times]

        def part(at: int) -> pyarrow.Table:
            """Some rows, with only the texts that they use: every row group holds its own."""
            rows = table.iloc[at : at + ROWS]
            rows = rows.assign(**{c: used(rows[c]) for c in coded})
            data = pyarrow.Table.from_pandas(rows, schema=schema, preserve_index=False)
            return data.replace_schema_metadata(None)

        first = part(0)
        with (
            atomic_write(self._place(name)) as path,
            pyarrow.parquet.ParquetWriter(
                path,
                first.schema,
                use_dictionary=repeated,
                dictionary_pagesize_limit=MAX_DICTIONARY,
                store_schema=False,
            ) as writer,
        ):
            writer.write_table(first)
            for at in range(ROWS, len(table), ROWS):
                writer.write_table(part(at))

    def read_json(self, name: str) -> Any:
        """Read JSON that an earlier stage wrote."""
        return read_json(self._there(name))

    def read_if_any(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where it is not there or is damaged."""
        return read_if_any(self.path / name)

    def read_table(self, name: str, coded: Sequence[str] = ()) -> pd.DataFrame:
        """Read Parquet that an earlier stage wrote; texts are `str`, or categories if `coded`."""
        table = pyarrow.parquet.read_table(self._there(name), read_dictionary=list(coded))
        table = table.to_pandas()
        plain = [c for c in table.columns if c not in coded]
        texts = {c: "str" for c in plain if pd.api.types.is_string_dtype(table[c])}
        return table.astype(texts).assign(**{c: used(table[c]) for c in coded})

    def _there(self, name: str) -> Path:
        path = self.path / name
        if not path.exists():
            stages = {"data": "ingest", "model": "train", "evidence": "diagnostics"}
            stage = stages.get(name.partition("/")[0], "publish")
            raise RunError(f"{path} is not there: run the {stage} notebook of this run first")
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
                "tables": fingerprints(dataset),
                "counts": [dataclasses.asdict(c) | {"n": int(c.n)} for c in dataset.counts],
            },
        )

    def dataset(self) -> Dataset:
        """Read data/."""
        told = self.read_json("data/ingest.json")
        return Dataset(
            **{
                name: self.read_table(f"data/{name}.parquet", CODED if name == "ratings" else ())
                for name in TABLES
            },
            mu=told["mu"],
            about=About(**told["about"]),
            counts=tuple(Count(**c) for c in told["counts"]),
        )

    def save_fit(self, fit: Fit, ratings: Sized, ids: Ids) -> None:
        """Write model/; of `ratings` only the number counts.

        Raises RunError, and writes nothing, if the fit has not converged.
        """
        if not fit.converged:
            raise RunError(
                f"the fit has not converged: its residual is {fit.kkt_residual:.1e} after "
                f"{fit.sweeps} sweeps. Raise train.max_sweeps, or accept less with train.tolerance"
                if fit.method == "alternating"
                else f"gradient descent still moves after {fit.sweeps} steps, where the original "
                "gives up: use train.method: alternating"
            )
        kinds = {name: {key: "str"} | storage.KINDS for name, key in storage.SIDES.items()}
        for name, table in storage.tables(fit, ids).items():
            self.write_table(f"model/{name}.parquet", table, kinds.get(name))
        self.write_json("model/fit.json", storage.values(fit, ratings))

    def fit(self) -> Fit:
        """The fit as it was saved, every bit; its rows are sorted by id, as those of `load()`.

        Raises RunError if there is none, or another version of this package saved it.
        """
        return self._fit()[0]

    def _fit(self) -> tuple[Fit, list[list[str]]]:
        """The fit, and the ids of its users and guidelines."""
        values, names = self.read_json("model/fit.json"), (*storage.SIDES, "history")
        tables = {name: self.read_table(f"model/{name}.parquet") for name in names}
        try:
            fit = storage.restored(values, tables)
        except KeyError as error:
            raise RunError(
                f"{self.path}: model/ holds no {error}, since another version of this package "
                "wrote it: run the train notebook again"
            ) from None
        ids = [sorted(tables[side][key]) for side, key in storage.SIDES.items()]
        return fit, ids

    def load(self) -> Run:
        """Read data/, model/ and, if it is there, evidence/, each file once.

        Raises RunError if model/ was trained on other data than data/ holds.
        """
        dataset, (fit, known) = self.dataset(), self._fit()
        ratings, ids = encode(dataset.ratings)
        if known != [list(ids.users), list(ids.guidelines)] or not math.isclose(
            float(loss(fit.parameters, ratings, fit.penalty)), fit.objective, rel_tol=LOSS_TOLERANCE
        ):
            raise RunError(
                f"{self.path}: model/ was trained on other data than data/ holds: "
                "run the train notebook again"
            )
        run = Run(dataset, ratings, ids, fit)
        if not (self.path / "evidence" / "summary.json").exists():
            return run
        minima = pd.DataFrame(self.read_json("evidence/minima.json"))
        return dataclasses.replace(run, evidence=self.evidence(), minima=minima)

    def save_evidence(self, found: Evidence, minima: pd.DataFrame) -> None:
        """Write evidence/."""
        constitution = found.constitution
        self.write_table("evidence/guidelines.parquet", constitution.scores)
        self.write_json("evidence/minima.json", minima.to_dict("records"))
        verdicts = {"rule": constitution.rule.as_json(), "verdicts": constitution.verdicts()}
        self.write_json("evidence/summary.json", verdicts | found.summary)

    def evidence(self) -> Evidence:
        """The evidence that diagnostics found."""
        summary = self.read_json("evidence/summary.json")
        scores = self.read_table("evidence/guidelines.parquet").drop(columns=["verdict", "failed"])
        return Evidence(select(scores, Rule.from_json(summary["rule"])), summary)

    def constitution(self) -> Constitution:
        """The constitution that diagnostics found."""
        return self.evidence().constitution


def open_run(path: str | Path) -> RunFolder:
    """The folder of an earlier run, such as `outputs/demo`, finished or not.

    Raises RunError, naming the runs that are nearest, if there is no run in it.
    """
    path = Path(path).expanduser()
    try:
        if (path / "params.yaml").is_file():
            return RunFolder(path)
        near = [p for at in (path, path.parent, Path("outputs")) for p in at.glob("*/params.yaml")]
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror or error})") from None
    runs = list(dict.fromkeys(str(p.parent) for p in sorted(near)))
    named = ", ".join(runs[:MAX_RUNS_NAMED]) + (", ..." if len(runs) > MAX_RUNS_NAMED else "")
    remedy = f"open one of {named}" if runs else "make one with: aggregation run params/demo.yaml"
    raise RunError(f"{path}: there is no params.yaml, so it is no run's folder; {remedy}")
