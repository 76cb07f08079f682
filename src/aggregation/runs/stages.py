"""Stages: what each notebook of a run reads and makes, and whether its results still hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from aggregation.data.dataset import TABLES
from aggregation.files import sha256
from aggregation.params.schema import Params, Source
from aggregation.runs.notebook import declared
from aggregation.runs.provenance import Record

STAGES = ("ingest", "train", "diagnostics", "demographics", "publish")
"""Notebooks of a run, in order; demographics only where the parameters have that section."""

MAKES = {
    "ingest": (*(f"data/{table}.parquet" for table in TABLES), "data/ingest.json"),
    "train": (
        *(f"model/{table}.parquet" for table in ("guidelines", "users", "history")),
        "model/fit.json",
    ),
    "diagnostics": ("evidence/guidelines.parquet", "evidence/summary.json", "evidence/minima.json"),
    "demographics": ("demographics/counts.json",),
    "publish": ("constitution.json", "constitution.csv", "constitution.md", "report/index.html"),
}
"""Files that each notebook writes."""

READS = {
    "ingest": (),
    "train": ("ingest",),
    "diagnostics": ("ingest", "train"),
    "demographics": (),
    "publish": ("ingest", "train", "diagnostics", "demographics"),
}
"""Stages whose files each stage reads."""

OUTLIVE = ("source", "published")
"""Folders of what the platform sent and was sent; they outlive runs, and no stage owns them."""

LAST = "published/last.txt"
"""What `services.delivery` did last, in words."""


def wanted(params: Params) -> list[str]:
    """The stages of a run with these parameters."""
    return [s for s in STAGES if s != "demographics" or params.demographics is not None]


def begun(stage: str, source: bytes, params: Params, raw: Path, done: dict[str, Record]) -> Record:
    """The record of a stage before it runs: all but its outputs.

    `source`: its notebook. `raw`: the folder of the platform's export. `done`: earlier stages.
    """
    given = params.model_dump(mode="json")
    return {
        "notebook": hashlib.sha256(source).hexdigest(),
        "parameters": {n: given[n] for n in declared(stage, source) if n in given},
        "input": source_files(params, raw) if stage == "ingest" else handed_on(stage, done),
    }


def named(source: Source) -> list[Path]:
    """Files and folders that a source names."""
    names = (getattr(source, key, None) for key in ("path", "guidelines", "users"))
    return [Path(name).expanduser() for name in names if isinstance(name, str)]


def source_files(params: Params, raw: Path) -> dict[str, str]:
    """Name and hash of each file that the source names; for the platform, of its export in `raw`.

    A simulated source has none. A file that is not there has an empty hash. Raises InputError.
    """
    if params.source.kind == "platform":
        return {"export.json": sha256(raw / "export.json")}
    found: dict[str, str] = {}
    places = [at for at in named(params.source) if at.is_dir()]
    for file in read_by(params.source):
        at = next((place for place in places if file.is_relative_to(place)), file.parent)
        name = file.relative_to(at).as_posix()
        found[name if name not in found else file.as_posix()] = sha256(file)
    return found


def read_by(source: Source) -> list[Path]:
    """The files that a source names, and those that it reads in the folders that it names."""
    notes = source.kind == "community-notes"  # their parts may lie in folders of their own
    suffixes = {".tsv", ".zip"} if notes else {".parquet"} if source.kind == "table" else {".csv"}
    files: list[Path] = []
    for at in named(source):
        inside = [*at.glob("*"), *(at.glob("*/*") if notes else ())] if at.is_dir() else []
        inside = [f for f in inside if f.suffix.lower() in suffixes and f.name[0] != "."]
        files += sorted(inside) if at.is_dir() else [at]
    return files


def handed_on(stage: str, done: dict[str, Record]) -> dict[str, str]:
    """Name and hash of what a stage reads, of what the stages before it made."""
    earlier = [e for e in READS[stage] if e in done]
    return {n: h for e in earlier for n, h in done[e]["outputs"].items() if n in MAKES[e]}


def asks(stage: str, params: Params) -> str:
    """Whom a stage asks over the network, as a reason to run it again; mostly nobody."""
    if stage == "demographics":
        return "it asks Prolific"
    online = params.source.kind == "platform" and not params.source.offline
    sends = params.publish.target == "platform"
    return (
        "it asks the platform" if (stage, True) in (("ingest", online), ("publish", sends)) else ""
    )


def stale(stage: str, now: Record, then: Record, path: Path) -> str:
    """Why what a stage made then does not hold now, in a few words; empty: it holds.

    What it made lies in the run's folder `path`. Its page does not count: that can be made again
    from the notebook.
    """
    if now["notebook"] != then["notebook"]:
        return "its notebook has changed"
    if now["parameters"] != then["parameters"]:
        return _difference(flat(then["parameters"]), flat(now["parameters"]))
    for name in sorted(now["input"].keys() | then["input"].keys()):
        if now["input"].get(name) != then["input"].get(name):
            return f"{name} has changed"
    for name in own(stage):
        found = sha256(path / name)
        if name != page(stage) and found != then["outputs"].get(name, ""):
            return f"{name} {'was changed' if found else 'is gone'}"
    return ""


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    keys = [k for k in sorted(then.keys() | now.keys()) if then.get(k, ...) != now.get(k, ...)]
    first, more = keys[0], f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{first} is {_word(now, first)}, was {_word(then, first)}{more}"


def _word(values: dict[str, Any], key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
    return text if len(text) <= 60 else text[:60] + " ..."


def flat(values: dict[Any, Any], above: str = "") -> dict[str, Any]:
    """Sections within sections as one, with dotted keys."""
    found = {}
    for key, value in values.items():
        deep = isinstance(value, dict) and value
        found |= flat(value, f"{above}{key}.") if deep else {f"{above}{key}": value}
    return found


def page(stage: str) -> str:
    """Name of a stage's page."""
    return f"report/{stage}.html"


def own(stage: str) -> tuple[str, ...]:
    """Names of all files that a stage makes."""
    return (*MAKES[stage], f"notebooks/{stage}.ipynb", page(stage))


def made_by(stage: str, path: Path) -> dict[str, str]:
    """Name and hash of every file that a stage has made in the run's folder."""
    return {name: digest for name in own(stage) if (digest := sha256(path / name))}
