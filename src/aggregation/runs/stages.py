"""Stages: what each notebook of a run reads and makes, and whether it has to run again."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from aggregation.data.dataset import TABLES
from aggregation.files import sha256
from aggregation.params import Params, Source
from aggregation.runs.notebook_source import declared
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
    "publish": ("constitution.json", "constitution.csv", "report/index.html", LAST),
}
"""Files besides its notebook and its page; all of them but `LAST`, which is for the platform."""

RECEIPTS = {
    "source/receipt.json": "source/export.json",
    "published/receipt.json": "published/pending.json",
    "published/known.json": "published/constitution.json",
}
"""Receipts of what came from the platform or went there, and what each is for: they are no stage's
own, and outlive runs."""

READS = {
    "ingest": (),
    "train": ("ingest",),
    "diagnostics": ("ingest", "train"),
    "demographics": (),
    "publish": ("ingest", "train", "diagnostics", "demographics"),
}

ASIDE = ".before"
"""Where results of an earlier run wait until it is known whether they still hold."""

Record = dict[str, Any]
"""What manifest.json holds of a stage: hash of the notebook, parameters, hashes of what it read
(`input`) and made (`outputs`), and the stages that its page links to (`pages`)."""


def wanted(params: Params) -> list[str]:
    """The stages of a run with these parameters."""
    return [s for s in STAGES if s != "demographics" or params.demographics is not None]


def begun(stage: str, source: bytes, params: Params, path: Path, done: dict[str, Record]) -> Record:
    """The record of a stage before it runs: all but its outputs."""
    given = params.model_dump(mode="json")
    return {
        "notebook": hashlib.sha256(source).hexdigest(),
        "parameters": {n: given[n] for n in declared(stage, source) if n in given},
        "input": source_files(params, path) if stage == "ingest" else handed_on(stage, done),
    }


def named(source: Source) -> list[Path]:
    """Files and folders that a source names."""
    names = (getattr(source, key, None) for key in ("path", "guidelines"))
    return [Path(name).expanduser() for name in names if isinstance(name, str)]


def source_files(params: Params, path: Path) -> dict[str, str]:
    """Name and hash of each file that the source names or sent; none for a simulated one."""
    if params.source.kind == "platform":
        return {"export.json": sha256(path / "source" / "export.json")}
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


def handed_on(stage: str, done: dict[str, Record]) -> dict[str, str]:
    """Name and hash of what a stage reads, of what the stages before it made."""
    return {
        name: digest
        for earlier in READS[stage]
        for name, digest in done.get(earlier, {"outputs": {}})["outputs"].items()
        if name in MAKES[earlier]
    }


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
    """Why a stage has to run again, in a few words; empty: what it made then still holds.

    What it made lies in the run's folder `path`, or aside. Its page does not count: that can be
    made anew from the notebook.
    """
    if now["notebook"] != then["notebook"]:
        return "its notebook has changed"
    if now["parameters"] != then["parameters"]:
        changed = _changes(then["parameters"], now["parameters"])
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return changed[0] + more
    for name in sorted(now["input"].keys() | then["input"].keys()):
        if now["input"].get(name) != then["input"].get(name):
            return f"{name} has changed"
    for name, digest in then["outputs"].items():
        found = [sha256(at / name) for at in (path, path / ASIDE)]
        if digest not in found and name != page(stage):
            return f"{name} {'was changed' if any(found) else 'is gone'}"
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


def page(stage: str) -> str:
    """Name of a stage's page."""
    return f"report/{stage}.html"


def own(stage: str) -> tuple[str, ...]:
    """Names of all files that a stage makes."""
    return (*MAKES[stage], f"notebooks/{stage}.ipynb", page(stage))


def made_by(stage: str, path: Path) -> dict[str, str]:
    """Name and hash of every file that a stage has made in the run's folder."""
    return {name: sha256(path / name) for name in own(stage) if (path / name).is_file()}


def missing(stage: str, path: Path) -> list[str]:
    """What a stage should have made, and has not."""
    return [n for n in MAKES[stage] if n != LAST and not (path / n).is_file()]


def clear(stage: str, path: Path) -> None:
    """Remove what a stage made, whole or not, and folders that are empty then."""
    unfinished = (f"notebooks/{stage}.{kind}.ipynb" for kind in ("failed", "partial"))
    for name in (*own(stage), *unfinished):
        (path / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there, or it is a link to another disk
            (path / name).parent.rmdir()


def put_aside(stage: str, record: Record | None, path: Path) -> None:
    """Keep aside what a stage made, as far as it is what its record says; remove the rest."""
    for name in own(stage):
        if record and name in record["outputs"] and sha256(path / name) == record["outputs"][name]:
            _move(name, path, path / ASIDE)
    clear(stage, path)


def take_back(stage: str, record: Record, path: Path) -> None:
    """Move what is kept aside back to where it was made."""
    for name in own(stage):
        digest = record["outputs"].get(name, "")
        if sha256(path / name) != digest and (path / ASIDE / name).exists():
            _move(name, path / ASIDE, path)


def _move(name: str, path: Path, to: Path) -> None:
    (to / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path / name, to / name)  # a folder may be a link to another disk
