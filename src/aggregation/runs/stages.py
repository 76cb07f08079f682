"""Stages: what each notebook of a run reads and makes, and whether it has to run again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from aggregation.data.dataset import TABLES
from aggregation.files import sha256
from aggregation.params import Params, Source
from aggregation.runs.notebook import declared
from aggregation.runs.provenance import Record
from aggregation.services.delivery import LAST

STAGES = ("ingest", "train", "diagnostics", "demographics", "publish")
"""Notebooks of a run, in order; demographics only where the parameters have that section."""

MAKES = {
    "ingest": (*(f"data/{table}.parquet" for table in TABLES), "data/ingest.json"),
    "train": (
        *(f"model/{table}.parquet" for table in ("guidelines", "users", "history", "minima")),
        "model/fit.json",
    ),
    "diagnostics": ("evidence/guidelines.parquet", "evidence/summary.json", "evidence/minima.json"),
    "demographics": ("demographics/counts.json",),
    "publish": ("constitution.json", "constitution.csv", "report/index.html"),
}
"""Files besides its notebook and its page."""

MAY_MAKE = {"publish": (LAST,)}
"""Files that a stage makes only with some parameters."""

READS = {
    "ingest": (),
    "train": ("ingest",),
    "diagnostics": ("ingest", "train"),
    "demographics": (),
    "publish": ("ingest", "train", "diagnostics", "demographics"),
}

OUTLIVE = ("source", "published")
"""Folders with what came from the platform and went there: they are no stage's own."""


def wanted(params: Params) -> list[str]:
    """The stages of a run with these parameters."""
    return [s for s in STAGES if s != "demographics" or params.demographics is not None]


def page(stage: str) -> str:
    """Name of a stage's page."""
    return f"report/{stage}.html"


def own(stage: str) -> tuple[str, ...]:
    """Names of all files that a stage makes."""
    return (*MAKES[stage], *MAY_MAKE.get(stage, ()), f"notebooks/{stage}.ipynb", page(stage))


def begun(stage: str, source: bytes, params: Params, raw: Path, done: dict[str, Record]) -> Record:
    """The record of a stage before it runs: all but its outputs.

    `source`: its notebook. `raw`: the folder of the platform's export. `done`: earlier stages.
    """
    given = params.model_dump(mode="json")
    earlier = {
        name: digest
        for before in READS[stage]
        for name, digest in done.get(before, {"outputs": {}})["outputs"].items()
        if name in MAKES[before]
    }
    return {
        "notebook": hashlib.sha256(source).hexdigest(),
        "parameters": {n: given[n] for n in declared(stage, source) if n in given},
        "input": source_files(params, raw) if stage == "ingest" else earlier,
    }


def named(source: Source) -> list[Path]:
    """Files and folders that a source names."""
    names = (getattr(source, key, None) for key in ("path", "guidelines"))
    return [Path(name).expanduser() for name in names if isinstance(name, str)]


def source_files(params: Params, raw: Path) -> dict[str, str]:
    """Name and hash of each file that the source names or sent; none for a simulated one."""
    if params.source.kind == "platform":
        return {"export.json": sha256(raw / "export.json")}
    files: list[Path] = []
    for at in named(params.source):
        files += sorted(filter(_is_read, at.iterdir())) if at.is_dir() else [at]
    found: dict[str, str] = {}
    for file in files:
        found[file.name if file.name not in found else file.as_posix()] = sha256(file)
    return found


def _is_read(file: Path) -> bool:
    """Whether a source whose folder the file lies in would read it."""
    return file.suffix.lower() in (".csv", ".json") and not file.name.startswith(".")


def asks(stage: str, params: Params) -> str:
    """Whom a stage asks over the network, as a reason to run it again; mostly nobody."""
    if stage == "demographics":
        return "it asks Prolific"
    online = params.source.kind == "platform" and not params.source.offline
    if (stage == "ingest" and online) or (
        stage == "publish" and params.publish.target == "platform"
    ):
        return "it asks the platform"
    return ""


def stale(stage: str, now: Record, then: Record, path: Path) -> str:
    """Why what a stage made in `path` does not hold any more, in a few words; empty: it holds.

    Its page does not count: that can be made anew from the notebook.
    """
    if now["notebook"] != then["notebook"]:
        return "its notebook has changed"
    if now["parameters"] != then["parameters"]:
        changed = _changes(then["parameters"], now["parameters"])
        return changed[0] + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
    for name in sorted(now["input"].keys() | then["input"].keys()):
        if now["input"].get(name) != then["input"].get(name):
            return f"{name} has changed"
    for name, digest in then["outputs"].items():
        if name != page(stage) and (found := sha256(path / name)) != digest:
            return f"{name} {'was changed' if found else 'is gone'}"
    return ""


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = flat(then), flat(now)
    return [
        f"{key} is {_word(new, key)}, was {_word(old, key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, ...) != new.get(key, ...)
    ]


def flat(values: dict[Any, Any], above: str = "") -> dict[str, Any]:
    """Sections within sections as one, with dotted keys."""
    found = {}
    for key, value in values.items():
        deep = isinstance(value, dict) and value
        found |= flat(value, f"{above}{key}.") if deep else {f"{above}{key}": value}
    return found


def _word(values: dict[str, Any], key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
    return text if len(text) <= 60 else text[:60] + " ..."


def made_by(stage: str, path: Path) -> dict[str, str]:
    """Name and hash of every file that a stage has made in the run's folder."""
    return {name: sha256(path / name) for name in own(stage) if (path / name).is_file()}


def missing(stage: str, path: Path) -> list[str]:
    """What a stage should have made, and has not."""
    return [name for name in MAKES[stage] if not (path / name).is_file()]
