"""Distributed training: the train stage of a run by several processes, without its notebook.

Every process reads the ratings of its own users. The first one leads: it builds the run's folder,
as `runs.runner` does, and saves the model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from aggregation.data.categories import used
from aggregation.data.dataset import CODED
from aggregation.errors import InputError, ParameterError, RunError
from aggregation.files import atomic_write, read_if_any, write_json
from aggregation.model.fit import fit
from aggregation.model.parameters import Parameters, from_tables
from aggregation.model.processes import Processes
from aggregation.model.ratings import Ids, Ratings, encode
from aggregation.model.sharding import check_devices
from aggregation.model.storage import SIDES
from aggregation.params.loading import load_params
from aggregation.params.schema import Params
from aggregation.runs.executor import HEARTBEAT
from aggregation.runs.folder import RunFolder
from aggregation.runs.provenance import surroundings
from aggregation.runs.runner import CHECKPOINT, Say, run
from aggregation.runs.stages import flat

HEARTBEAT_TIMEOUT = 30
"""Seconds after which a process that does not answer counts as dead."""

INITIALIZATION_TIMEOUT = 600
"""Seconds in which all processes have to be there."""

SHUTDOWN_TIMEOUT = 24 * 3600
"""Seconds for which the others wait while the first process saves the model."""


def join(coordinator: str | None, count: int | None, index: int | None) -> Processes:
    """Meet the other processes at `coordinator` (host:port), or where Slurm, Kubernetes or MPI say.

    Raises RunError if they do not come.
    """
    import jax

    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=INITIALIZATION_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the processes did not meet ({str(error).splitlines()[0]}): start all of them within "
            f"{INITIALIZATION_TIMEOUT // 60} minutes, with the same --coordinator and --processes"
        ) from None
    return Processes(jax.process_index(), jax.process_count())


def train(
    params_path: str | Path,
    processes: Processes,
    *,
    changes: Sequence[str] = (),
    out: str | Path = "outputs",
    say: Say = print,
) -> None:
    """Run the stages before training if they have to run, and train with all processes.

    Every process calls it. Raises as `runner.run`, and RunError if another process dies.
    """
    params = load_params(params_path, changes)
    shards = params.train.shards or 1
    if shards == 1:
        raise ParameterError(
            "this needs train.shards: set it to a multiple of the number of devices, such as "
            "--set train.shards=16. The same number gives the same model anywhere"
        )
    for name, unfit in (
        ("hold", params.train.hold is not None),
        ("method: gradient-descent", params.train.method == "gradient-descent"),
    ):
        if unfit:
            raise ParameterError(f"train.{name} needs one process: use aggregation run")
    check_devices(shards, processes)
    _check_alike(params, processes)
    if processes.index > 0:
        if folder := _told(processes, ""):
            _train(Path(folder), params, processes, say)
        return
    notebooks: list[Any] = []
    trained: list[Path] = []

    def execute(stage: str, source: bytes, path: Path, given: dict[str, Any], **how: Any) -> Any:
        if stage != "train":
            from aggregation.runs.executor import Executor

            notebooks[:] = notebooks or [Executor(["ingest"])]
            return notebooks[0](stage, source, path, given, **how)
        while notebooks:
            notebooks.pop().close()
        begun = time.monotonic()
        trained.append(path)
        _prepare(path, given)
        _train(Path(_told(processes, str(path.absolute()))), params, processes, how["say"])
        return [round(time.monotonic() - begun, 3)]

    try:
        run(params_path, changes=changes, until="train", out=out, say=say, execute=execute)
        if not trained:
            _told(processes, "")
    finally:
        for executor in notebooks:
            executor.close()


def _check_alike(params: Params, processes: Processes) -> None:
    """Raise RunError unless all processes have the same settings and the same package.

    It also has them connect: they have half a minute for that, and some will wait for data.
    """
    values = {"train": params.train.model_dump(mode="json"), "seed": params.seed, **surroundings()}
    first, *others = processes.texts([json.dumps(values, sort_keys=True)])
    for k, other in enumerate(others, 1):
        mine, theirs = flat(json.loads(first)), flat(json.loads(other))
        if differ := sorted(name for name in mine if mine[name] != theirs.get(name)):
            raise RunError(
                f"process {k} differs from process 0 in {', '.join(differ)}: start all with the "
                "same parameters and the same version of the package"
            )


def _told(processes: Processes, folder: str) -> str:
    """What the first process says: the folder to train in; empty: nothing has to be trained."""
    return processes.texts([folder] if processes.index == 0 else [])[0]


def _prepare(path: Path, given: dict[str, Any]) -> None:
    """Remove a checkpoint of other data, parameters or code."""
    tables = read_if_any(path / "data" / "ingest.json").get("tables")
    what = {"given": given | {"out": ""}, "tables": tables, "made with": surroundings()}
    text = json.dumps(what, sort_keys=True)
    key = {"key": hashlib.sha256(text.encode("utf-8")).hexdigest()}
    if read_if_any(path / CHECKPOINT / "key.json") != key:
        shutil.rmtree(path / CHECKPOINT, ignore_errors=True)
        write_json(path / CHECKPOINT / "key.json", key)


def _train(path: Path, params: Params, processes: Processes, say: Say) -> None:
    """Fit with all processes; the first one saves the model."""
    folder, given = RunFolder(path), params.train
    shards = given.shards or 1
    ratings, ids = read_part(path / "data" / "ratings.parquet", shards, processes)
    n = int(processes.total(np.array(len(ratings)))[0])
    if processes.index == 0:
        say(f"{n:,} ratings, {shards} shards, processes: {processes.count}")
    found = fit(
        ratings,
        given.weights(),
        given.settings(params.seed),
        _earlier(folder, params, ids, processes),
        given.hold,
        _teller(say) if processes.index == 0 else None,
        processes,
        FolderCheckpoint(path / CHECKPOINT, processes),
    )
    users = pd.Index(processes.texts(ids.users.tolist()), dtype="str", name="user_id")
    if processes.index == 0:
        folder.save_fit(found, range(n), Ids(users, ids.guidelines))
        shutil.rmtree(path / CHECKPOINT)


def read_part(file: Path, shards: int, processes: Processes) -> tuple[Ratings, Ids]:
    """The ratings of this process's users, and their ids with those of all guidelines.

    Reads only the row groups that hold them. Raises InputError where rows are not sorted by user,
    or there are fewer users than processes.
    """
    source = pyarrow.parquet.ParquetFile(file, read_dictionary=list(CODED))
    n, groups = source.metadata.num_rows, source.num_row_groups
    local = shards // processes.count
    # Shards begin where `model.sharding.cuts` says: at the first new user from this row on.
    low, high = (-(-k * local * n // shards) for k in (processes.index, processes.index + 1))
    ends = np.cumsum([source.metadata.row_group(k).num_rows for k in range(groups)])
    first, last = np.searchsorted(ends, [max(low - 1, 0), max(high - 1, 0)], side="right").tolist()
    begin = int(ends[first] - source.metadata.row_group(first).num_rows)
    columns = ["user_id", "guideline_id", "helpful"]
    table = source.read_row_groups([*range(first, last + 1)], columns)
    whole = table.column("user_id")[high - 1 - begin].as_py()
    while last + 1 < groups and table.column("user_id")[-1].as_py() == whole:
        last += 1
        table = pyarrow.concat_tables([table, source.read_row_group(last, columns)])
    frame = table.unify_dictionaries().to_pandas()
    del table
    user = frame["user_id"].cat.codes.to_numpy()
    start = 0 if low == 0 else _new_user(user, low - begin)
    frame = frame.iloc[start : _new_user(user, high - begin)]
    if processes.least(np.array(len(frame)))[0] == 0:
        raise InputError(
            f"{processes.count} processes are more than these ratings keep busy: start fewer"
        )
    ratings, ids = encode(frame)
    user = used(frame["user_id"]).cat.codes.to_numpy()
    del frame
    borders = processes.texts([ids.users[0], ids.users[-1]])
    apart = all(a < b for a, b in zip(borders[1:-1:2], borders[2::2], strict=True))
    ordered = apart and bool((np.diff(user) >= 0).all())
    if not processes.least(np.array(ordered, int))[0]:
        raise InputError(f"{file}: is not sorted by user_id: make it with the ingest notebook")
    guidelines = pd.Index(sorted({*processes.texts(ids.guidelines.tolist())}), dtype="str")
    place = guidelines.get_indexer(ids.guidelines).astype(np.int32)
    return (
        Ratings(
            ratings.user,
            place[ratings.guideline],
            ratings.helpful,
            ratings.n_users,
            len(guidelines),
        ),
        Ids(ids.users, guidelines.rename("guideline_id")),
    )


def _new_user(user: np.ndarray, row: int) -> int:
    """The first row from `row` on whose user is another than that of the row before."""
    other = np.flatnonzero(user[row:] != user[row - 1])
    return row + int(other[0]) if len(other) else len(user)


def _earlier(
    folder: RunFolder, params: Params, ids: Ids, processes: Processes
) -> Parameters | None:
    """The earlier model that the source brought, as far as this process needs it."""
    if not params.train.warm_start and params.train.hold is None:
        return None
    users, guidelines = (folder.read_table(f"data/{side}.parquet") for side in SIDES)
    axes, mu = params.train.dimensions, folder.read_json("data/ingest.json")["mu"]
    found = from_tables(users, guidelines, mu, ids, axes)
    if not processes.total(np.array(found is not None, int))[0]:
        return None
    n, g = len(ids.users), len(ids.guidelines)
    shapes = ((), (n,), (n, axes), (g,), (g, axes))
    return found or Parameters(*(np.full(shape, np.nan) for shape in shapes))


def _teller(say: Say) -> Callable[[str, int, float, float], None]:
    """A callback of a fit that says how far it is, now and then."""
    said = time.monotonic()

    def tell(doing: str, sweeps: int, loss: float, residual: float) -> None:
        nonlocal said
        if time.monotonic() - said >= HEARTBEAT:
            said = time.monotonic()
            say(f"{doing}, sweep {sweeps}, loss {loss:.7f}, residual {residual:.1e}")

    return tell


class FolderCheckpoint:
    """A checkpoint (see `model.sharding.Checkpoint`) in a folder that all processes share.

    A folder <descent>.<sweeps> with a file for each shard is whole once it has common.npz.
    """

    def __init__(self, path: Path, processes: Processes) -> None:
        self.path, self.processes = path, processes

    def save(
        self, descent: int, common: list[np.ndarray], shards: Mapping[int, list[np.ndarray]]
    ) -> None:
        """Write the shards of this process; when all are there, the first one completes it."""
        folder = self.path / f"{descent}.{len(common[0])}"
        for shard, arrays in shards.items():
            _write(folder / f"shard-{shard:04}.npz", arrays)
        self.processes.total(np.zeros(1))  # waits for all
        if self.processes.index == 0:
            _write(folder / "common.npz", common)
            for old in self.path.glob(f"{descent}.*"):
                if old != folder:
                    shutil.rmtree(old)

    def load(
        self, descent: int, shards: range
    ) -> tuple[list[np.ndarray], dict[int, list[np.ndarray]]] | None:
        """Read the newest that is whole; which one that is, the first process says."""
        found = [file.parent.name for file in self.path.glob(f"{descent}.*/common.npz")]
        newest = max(found, key=lambda name: int(name.partition(".")[2]), default="")
        name = _told(self.processes, newest)
        if not name:
            return None
        own = {k: _read(self.path / name / f"shard-{k:04}.npz") for k in shards}
        return _read(self.path / name / "common.npz"), own


def _write(file: Path, arrays: list[np.ndarray]) -> None:
    with atomic_write(file) as partial, partial.open("wb") as stream:
        np.savez(stream, *arrays)


def _read(file: Path) -> list[np.ndarray]:
    with np.load(file) as found:
        return [found[name] for name in found.files]
